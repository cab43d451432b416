//! procspawn's `Pool` of two workers, the process pool that there is for Rust: a socket and a thread for each worker.

use crate::{effort::Effort, row::Measured};
use procspawn::Pool;
use std::time::Instant;

/// Calls that are out at once; each has descriptors of its own, of which a process may have 1024.
const WINDOW: u64 = 64;

/// Serves in a worker, where it does not return; a bench calls this first in `main`.
pub fn init() {
    procspawn::init();
}

/// A pool of two workers.
///
/// # Errors
/// They do not start.
pub fn pool() -> Result<Pool, String> {
    Pool::new(2).map_err(|e| e.to_string())
}

/// Microseconds for each of many empty calls, as many in flight as descriptors allow.
///
/// # Errors
/// There is no pool, or a call fails.
pub fn in_flight(pool: &Result<Pool, String>, effort: Effort) -> Measured {
    run(pool, effort, WINDOW)
}

/// Microseconds for an empty call, one after the other.
///
/// # Errors
/// As [`in_flight`].
pub fn alone(pool: &Result<Pool, String>, effort: Effort) -> Measured {
    run(pool, effort, 1)
}

fn run(pool: &Result<Pool, String>, effort: Effort, window: u64) -> Measured {
    let pool = pool.as_ref().map_err(String::clone)?;
    let rounds = effort.count(6_400).div_ceil(window);
    let play = || -> Result<(), procspawn::SpawnError> {
        let calls: Vec<_> = (0..window).map(|_| pool.spawn((), |()| ())).collect();
        calls.into_iter().try_for_each(procspawn::JoinHandle::join)
    };
    play()?;
    let start = Instant::now();
    for _ in 0..rounds {
        play()?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / (rounds * window) as f64)
}
