//! Nanoseconds for an operation and the one that takes it back, of what nobody else wants.

#[path = "ours/pairs.rs"]
mod ours;

use multiproc_benches::{
    effort::Effort,
    row::{self, Bar, Measured, Row, Unit, exit},
};
use std::{hint::black_box, process::ExitCode, sync::Mutex, time::Instant};

fn main() -> ExitCode {
    let effort = Effort::from_env();
    let pairs = effort.count(1_000_000);
    let kit = ours::new();
    let std_mutex = Mutex::new(0_u64);

    let rows = [
        (
            "semaphore_uncontended_pair",
            "a permit is two read-modify-writes, as a mutex is: the ledger is added up, not locked.",
            0,
        ),
        ("rlock_uncontended_pair", "counting costs two stores more than a lock.", 1),
        ("rlock_again_pair", "taking it again is a failed exchange and a count.", 2),
        ("event_set_clear_pair", "a set that wakes nobody is one read-modify-write, and so is a clear.", 3),
        ("signal_semaphore_pair", "taking and releasing one are a read-modify-write each.", 4),
    ];
    let judged = rows.map(|(name, hypothesis, at)| {
        Row::new(name, hypothesis, Unit::Nanos)
            .subject(row::OURS, || {
                let mut pair = kit.as_ref().map_err(String::clone)?.pair(at);
                let start = Instant::now();
                pair(pairs);
                Ok(start.elapsed().as_nanos() as f64 / pairs as f64)
            })
            .subject("std_mutex", || nanos(pairs, || drop(black_box(black_box(&std_mutex).lock()))))
            .bar(Bar::AtMost(3.0, "std_mutex"))
            .run(effort.rounds(31))
    });
    exit(&judged)
}

/// Nanoseconds per call over one batch.
fn nanos(calls: u64, mut call: impl FnMut()) -> Measured {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    Ok(start.elapsed().as_nanos() as f64 / calls as f64)
}
