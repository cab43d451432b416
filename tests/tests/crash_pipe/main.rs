//! The step killer for pipes: a process dies at each step of each operation at one end, and the other end goes on.
//!
//! A victim arms itself, runs one operation and is killed at its k-th crash point, for every k until it survives. Meanwhile nobody else helps: traffic is
//! one message, cleaning up after the dead is held back, and no wait looks again by itself. Who sleeps at the other end must learn of what was
//! committed, and then of the death. Afterwards another process takes the dead one's end over, everything is counted, and no block or object is left.
//!
//! Needs the feature `crash-points`.

#[path = "../common_queue/mod.rs"]
mod common_queue;
#[cfg(feature = "crash-points")]
mod once;
#[cfg(feature = "crash-points")]
mod op;
#[cfg(feature = "crash-points")]
mod stage;
#[cfg(feature = "crash-points")]
#[path = "../step_killer/table.rs"]
mod steps;
#[cfg(feature = "crash-points")]
mod twice;
#[cfg(feature = "crash-points")]
mod victim;
#[cfg(feature = "crash-points")]
#[path = "../step_killer/watched.rs"]
mod watched;

#[cfg(not(feature = "crash-points"))]
#[test]
fn without_crash_points_one_death_stands_for_all() {
    use multiproc::{PipeSender, Process, one_way};
    eprintln!("the step killer needs --features crash-points; here one death stands for all");
    let (tx, rx) = one_way::<u32>().unwrap();
    let p = Process::spawn((tx,), |tx: PipeSender<u32>| -> () {
        tx.send(7).unwrap();
        std::process::abort();
    })
    .unwrap();
    assert_eq!(rx.recv().unwrap(), 7);
    assert_eq!(rx.recv().unwrap_err().peer_died(), Some(p.pid()));
}
