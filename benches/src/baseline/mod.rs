//! What we compare with. Each file is one baseline and all its processes.

pub mod bare_ring;
pub mod bare_spsc;
pub mod crossbeam;
pub mod futex_words;
pub mod idle;
pub mod in_process;
pub mod ipc;
pub mod memory;
pub mod procspawn_pool;
pub mod python;
pub mod python_pool;
pub mod robust_mutex;
pub mod socket;

use crate::worker;

/// Runs this process as a baseline's child if it is one; a bench calls this first in `main` and
/// returns at once on `true`.
///
/// # Panics
/// The role is unknown, or its work fails: the bench then sees no messages.
pub fn ran_as_worker() -> bool {
    let Some((role, args)) = worker::role() else {
        return false;
    };
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match (role.as_str(), args.as_slice()) {
        (EMPTY, []) => Ok(()),
        (bare_ring::PRODUCER, [ring, n]) => bare_ring::produce(ring, n),
        (bare_ring::CONSUMER, [ring, meter, n]) => bare_ring::consume(ring, meter, n),
        (bare_spsc::PRODUCER, [ring]) => bare_spsc::produce(ring),
        (bare_spsc::CONSUMER, [ring, meter]) => bare_spsc::consume(ring, meter),
        (bare_spsc::PARTNER, [words]) => bare_spsc::answer(words),
        (futex_words::PARTNER, [turn]) => futex_words::answer(turn),
        (ipc::PRODUCER, [server]) => ipc::produce(server),
        (ipc::CONSUMER, [meter]) => ipc::consume(meter),
        (socket::PRODUCER, []) => socket::produce(),
        (socket::CONSUMER, [meter]) => socket::consume(meter),
        (socket::PARTNER, []) => socket::answer(),
        (idle::SLEEPER, []) => idle::sleep(),
        (role, args) => panic!("unknown role {role} {args:?}"),
    };
    if let Err(e) = done {
        panic!("{role}: {e}");
    }
    true
}

/// The role that returns from `main` at once.
pub const EMPTY: &str = "empty";
