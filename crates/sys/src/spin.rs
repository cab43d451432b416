//! Spinning before sleeping: worth 300 sleeps when the peer runs on another core, worth nothing on one.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// About 5 us of `pause` on current hardware, against 20-40 us for waking an idle core.
const ROUNDS: u32 = 200;
const UNKNOWN: u32 = u32::MAX;
static LIMIT: AtomicU32 = AtomicU32::new(UNKNOWN);

/// How many rounds a wait spins before it sleeps; 0 where only one core may be used.
#[inline]
pub fn limit() -> u32 {
    // Relaxed: a constant that is computed at most a few times.
    match LIMIT.load(Relaxed) {
        UNKNOWN => find_limit(),
        rounds => rounds,
    }
}

#[cold]
fn find_limit() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let rounds = if cores > 1 { ROUNDS } else { 0 };
    LIMIT.store(rounds, Relaxed);
    rounds
}

/// Spins until `done` says so or the limit is reached; returns the last answer.
#[inline]
pub fn until(mut done: impl FnMut() -> bool) -> bool {
    for _ in 0..limit() {
        if done() {
            return true;
        }
        std::hint::spin_loop();
    }
    done()
}
