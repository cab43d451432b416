//! Microseconds to start a process that does nothing, and to see it end.

#[path = "ours/spawn.rs"]
mod ours;

use multiproc_benches::{
    baseline,
    effort::Effort,
    row::{self, Bar, Measured, Row, Unit, exit},
    worker::command,
};
use std::{process::ExitCode, time::Instant};

fn main() -> ExitCode {
    if baseline::ran_as_worker() {
        return ExitCode::SUCCESS;
    }
    let row = Row::new(
        "spawn_join_empty",
        "arguments, roster slot and result cost less than a third of what the kernel and the \
         loader take to run the same binary.",
        Unit::Micros,
    )
    .subject(row::OURS, ours::empty)
    .subject("command_same_binary", command_wait)
    .bar(Bar::AtMost(1.3, "command_same_binary"));

    exit(&[row.run(Effort::from_env().rounds(100))])
}

fn command_wait() -> Measured {
    let start = Instant::now();
    let status = command(baseline::EMPTY)?.status()?;
    let took = start.elapsed();
    if !status.success() {
        return Err(format!("the empty child ended with {status}").into());
    }
    Ok(took.as_nanos() as f64 / 1000.0)
}
