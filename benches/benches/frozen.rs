//! Microseconds for a vector of 64 MiB that goes through a queue to another process, where it lies.

#[path = "ours/frozen.rs"]
mod ours;

use multiproc_benches::effort::Effort;
use multiproc_benches::row::{self, Bar, Row, Unit, exit};
use std::process::ExitCode;

const MIB: usize = 1 << 20;

fn main() -> ExitCode {
    let effort = Effort::from_env();
    let large = if effort == Effort::Tiny { MIB } else { 64 * MIB };
    let count = effort.count(20_000);
    let send = Row::new(
        "frozen_64mib",
        "a frozen vector travels as a reference, which costs a few more words than a number does, whatever it refers to.",
        Unit::Micros,
    )
    .subject(row::OURS, || ours::frozen(large, count))
    .subject("frozen_4_kib", || ours::frozen(4096, count))
    .subject("a_number", || ours::number(count))
    .subject("bytes_copied", || ours::copied(large, count.div_ceil(1000)))
    .bar(Bar::Limit(20.0))
    .bar(Bar::AtMost(1.5, "frozen_4_kib"))
    .bar(Bar::AtMost(0.01, "bytes_copied"));
    exit(&[send.run(effort.rounds(11))])
}
