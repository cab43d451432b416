//! Nanoseconds for one lock and unlock that nobody contends for.

#[path = "ours/lock.rs"]
mod ours;

use multiproc_benches::{
    baseline::robust_mutex::RobustMutex,
    effort::Effort,
    row::{self, Bar, Measured, Row, Unit, exit},
};
use std::{hint::black_box, process::ExitCode, sync::Mutex, time::Instant};

fn main() -> ExitCode {
    let effort = Effort::from_env();
    let pairs = effort.count(1_000_000);
    let lock = ours::new();
    let std_mutex = Mutex::new(0_u64);

    let row = Row::new(
        "lock_uncontended_pair",
        "keeping the robust list by hand costs no more than the C library's way, and at most \
         three times a mutex that knows nothing of processes.",
        Unit::Nanos,
    )
    .subject(row::OURS, || nanos(pairs, ours::pair(&lock)?))
    .subject("std_mutex", || nanos(pairs, || drop(black_box(black_box(&std_mutex).lock()))));
    let row = match RobustMutex::new() {
        Ok(robust) => row.subject("glibc_robust_mutex", move || nanos(pairs, || robust.pair())),
        Err(e) => {
            let why = e.to_string();
            row.subject("glibc_robust_mutex", move || Err(why.clone().into()))
        }
    }
    .bar(Bar::AtMost(3.0, "std_mutex"))
    .bar(Bar::AtMost(1.5, "glibc_robust_mutex"));

    exit(&[row.run(effort.rounds(51))])
}

/// Nanoseconds per call over one batch.
fn nanos(calls: u64, mut call: impl FnMut()) -> Measured {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    Ok(start.elapsed().as_nanos() as f64 / calls as f64)
}
