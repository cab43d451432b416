//! Spinning before sleeping: worth 300 sleeps when the peer runs on another core, worth nothing on one.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
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
    // Not std's available_parallelism: that reads the cgroup's files for 40 us, in each process anew.
    // Who is interpreted has one processor.
    let one = cfg!(miri)
        || sched_getaffinity(Pid::from_raw(0))
            .is_ok_and(|set| (0..CpuSet::count()).filter(|&c| set.is_set(c) == Ok(true)).count() == 1);
    let rounds = if one { 0 } else { ROUNDS };
    LIMIT.store(rounds, Relaxed);
    rounds
}

/// Rounds between two looks, about 0.4 us: looking takes the cache line from who is about to write it, and a peer that is at it gets the
/// time to do more than one step.
const PAUSE: u32 = 16;
/// Rounds of [`pause`](fn@pause).
const LONG: u32 = 64;
/// Looks of [`closely`].
const CLOSE: u32 = 64;
/// Looks for the answer alone before it looks for all else.
const ANSWERS: u32 = 16;

/// Looks after each pause for about 2 us, for who has just asked and awaits the answer: the peer has nothing else to write meanwhile. Most looks are
/// `answered`, the rest `done`, which counts and may look at more. Returns the last answer.
#[inline]
pub fn closely(mut answered: impl FnMut() -> bool, mut done: impl FnMut() -> bool) -> bool {
    for _ in 0..limit().min(CLOSE) / ANSWERS {
        for _ in 0..ANSWERS {
            if answered() {
                return true;
            }
            std::hint::spin_loop();
        }
        if done() {
            return true;
        }
    }
    false
}

/// About 1.6 us for a peer that is at it, in which it does some tens of steps; nothing where only one core may be used.
#[cold]
pub fn pause() {
    for _ in 0..limit().min(LONG) {
        std::hint::spin_loop();
    }
}

/// Spins until `done` says so or the limit is reached; returns the last answer.
#[inline]
pub fn until(mut done: impl FnMut() -> bool) -> bool {
    let mut left = limit();
    while left > 0 {
        if done() {
            return true;
        }
        for _ in 0..PAUSE {
            std::hint::spin_loop();
        }
        left = left.saturating_sub(PAUSE);
    }
    done()
}
