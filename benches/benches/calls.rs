//! Nanoseconds of calls that meet nobody: through a queue and back, a shared counter, and a shared value under its lock.

#[path = "ours/calls.rs"]
mod ours;

use multiproc_benches::{
    baseline::python,
    effort::Effort,
    row::{self, Bar, Measured, Row, Unit, exit},
};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

fn main() -> ExitCode {
    let effort = Effort::from_env();
    let calls = effort.count(300_000);
    let (std_mutex, std_atomic) = (Mutex::new(0_u64), AtomicU64::new(0));
    let (queue, atomic, value) = (ours::queue(), ours::atomic(), ours::value());

    let put_get = Row::new(
        "put_get_u64",
        "a put and a get, each with a robust lock, a commit and a look for sleepers, cost at most \
         eight lock pairs that know nothing of processes.",
        Unit::Nanos,
    )
    .subject(row::OURS, || nanos(calls, ours::put_get(&queue)?))
    .subject("std_mutex", || nanos(calls, || drop(black_box(black_box(&std_mutex).lock()))))
    .bar(Bar::AtMost(8.0, "std_mutex"));

    let fetch_add =
        Row::new("atomic_fetch_add", "a shared counter is one of std's, reached through one more pointer.", Unit::Nanos)
            .subject(row::OURS, || nanos(calls, ours::fetch_add(&atomic)?))
            .subject("std_atomic", || {
                nanos(calls, || {
                    black_box(black_box(&std_atomic).fetch_add(1, Ordering::Relaxed));
                })
            })
            .bar(Bar::AtMost(1.1, "std_atomic"));

    let update = Row::new(
        "value_locked_update",
        "adding one under a value's lock is a robust lock, a copy of a word and a store; Python takes a semaphore through its \
         interpreter.",
        Unit::Nanos,
    )
    .subject(row::OURS, || nanos(calls, ours::update(&value)?))
    .subject("python_value", || python::value_update(effort))
    .bar(Bar::AtMost(1.0 / 30.0, "python_value"));

    let rounds = effort.rounds(51);
    exit(&[put_get.run(rounds), fetch_add.run(rounds), update.run(effort.rounds(11))])
}

/// Nanoseconds per call over one batch.
fn nanos(calls: u64, mut call: impl FnMut()) -> Measured {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    Ok(start.elapsed().as_nanos() as f64 / calls as f64)
}
