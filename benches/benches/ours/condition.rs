//! Our condition and barrier under the same load as the baseline: processes pinned alike, asleep until the other comes.

use multiproc::{Atomic, Barrier, Condition, Process};
use multiproc_benches::baseline::futex_words::{hold, per_round};
use multiproc_benches::effort::Effort;
use multiproc_benches::machine;
use multiproc_benches::row::Measured;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

fn checked() -> Result<(), &'static str> {
    if multiproc::CRASH_POINTS { Err("crash points are compiled in") } else { Ok(()) }
}

/// Takes `count` turns; the word is only touched under the lock.
fn turns(changed: &Condition, turn: &Atomic<u32>, me: u32, count: u64) {
    for _ in 0..count {
        let guard = changed.lock().expect("nobody dies");
        drop(changed.wait_for(guard, || turn.load(Relaxed) == me).expect("nobody dies"));
        hold();
        let guard = changed.lock().expect("nobody dies");
        turn.store(1 - me, Relaxed);
        changed.notify_one(&guard).expect("its own lock");
    }
}

fn play(changed: Condition, turn: Atomic<u32>, me: u32, count: u64) -> f64 {
    machine::pin(me as usize).expect("pinning");
    turns(&changed, &turn, me, 1 + count / 10);
    let start = Instant::now();
    turns(&changed, &turn, me, count);
    per_round(start.elapsed(), count, 2)
}

/// Microseconds for the turn to go to another process and come back.
pub(crate) fn ping_pong(effort: Effort) -> Measured {
    checked()?;
    let (changed, turn) = (Condition::new()?, Atomic::new(0u32)?);
    let count = effort.count(20_000);
    let start = |me: u32| Process::spawn((changed.clone(), turn.clone(), me, count), play);
    let (first, second) = (start(0)?, start(1)?);
    let micros = first.join()?;
    second.join()?;
    Ok(micros)
}

fn meet(barrier: Barrier, me: u64, count: u64) -> f64 {
    machine::pin(me as usize).expect("pinning");
    let meet = |count: u64| {
        for n in 0..count {
            // In turn, one comes while the other sleeps.
            if n % 2 == me {
                hold();
            }
            barrier.wait().expect("nobody dies");
        }
    };
    meet(2 + count / 10);
    let start = Instant::now();
    meet(count);
    per_round(start.elapsed(), count, 1)
}

/// Microseconds for a round of two processes.
pub(crate) fn rounds(effort: Effort) -> Measured {
    checked()?;
    let barrier = Barrier::new(2)?;
    let count = effort.count(20_000);
    let start = |me: u64| Process::spawn((barrier.clone(), me, count), meet);
    let (first, second) = (start(0)?, start(1)?);
    let micros = first.join()?;
    second.join()?;
    Ok(micros)
}
