//! A long task in another process, while the coordinator goes on: it reports progress and takes the result when it is there.
//!
//! Python: `p.join(timeout)` and `p.exitcode`, a shared `Value` for the progress, and a queue for the result.
//! Run: `cargo run --release --example long_task -- [INTERVAL_MS] [LIMIT]`

use multiproc::{Atomic, Process};
use std::time::Duration;

/// The start below `limit` with the longest Collatz chain, and its steps.
fn longest_chain(limit: u64, done: Atomic<u64>) -> (u64, u32) {
    let mut best = (1, 0);
    for start in 1..limit {
        let (mut n, mut steps) = (start, 0);
        while n != 1 {
            n = if n % 2 == 0 { n / 2 } else { 3 * n + 1 };
            steps += 1;
        }
        if steps > best.1 {
            best = (start, steps);
        }
        done.set(start);
    }
    best
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(|a| a.parse());
    let interval = Duration::from_millis(args.next().unwrap_or(Ok(200))?);
    let limit: u64 = args.next().unwrap_or(Ok(3_000_000))?;

    let done = Atomic::new(0u64)?;
    let mut task = Process::spawn((limit, done.clone()), longest_chain)?;
    let mut ticks = 0;
    let (start, steps) = loop {
        ticks += 1;
        println!("tick {ticks}: {} % done", 100 * done.get() / limit);
        // Returns at once when the task ends; `try_join` would not wait at all.
        if let Some(result) = task.join_timeout(interval)? {
            break result;
        }
    };
    println!("below {limit}, {start} has the longest chain: {steps} steps");
    Ok(())
}
