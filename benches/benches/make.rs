//! Nanoseconds for making a lock that is shared between processes, and for dropping it.

#[path = "ours/make.rs"]
mod ours;

use multiproc_benches::effort::Effort;
use multiproc_benches::row::{self, Bar, Row, Unit, exit};
use std::process::ExitCode;

fn main() -> ExitCode {
    let effort = Effort::from_env();
    let count = effort.count(100_000) as usize;
    let make = Row::new(
        "make_lock",
        "a lock costs an entry of a table and two cache lines, found without a system call, and no descriptor: under a microsecond.",
        Unit::Nanos,
    )
    .subject(row::OURS, || ours::make(count))
    .subject("make_and_drop_each", || ours::make_and_drop(count))
    .subject("drop", || ours::drop_all(count))
    .subject("memfd_and_mapping", || ours::memfd(count / 20))
    .bar(Bar::Limit(1000.0));
    exit(&[make.run(effort.rounds(21))])
}
