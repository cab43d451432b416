//! Two processes that wait for each other, both asleep each time: by a condition and by a barrier, against bare futexes.

#[path = "ours/condition.rs"]
mod ours;

use multiproc_benches::{
    baseline::{self, futex_words},
    effort::Effort,
    row::{self, Bar, Row, Unit, exit},
};
use std::process::ExitCode;

fn main() -> ExitCode {
    if baseline::ran_as_worker() {
        return ExitCode::SUCCESS;
    }
    let effort = Effort::from_env();

    let condition = Row::new(
        "condition_ping_pong",
        "two sleeps and two wakes cost so much that locks, notes and what the dead leave behind hardly show.",
        Unit::Micros,
    )
    .subject(row::OURS, || ours::ping_pong(effort))
    .subject("bare_futex", || futex_words::round_trip(effort))
    .bar(Bar::AtMost(1.3, "bare_futex"));

    let barrier =
        Row::new("barrier_of_two", "a round is one sleep and one wake, of which a bare round trip has two.", Unit::Micros)
            .subject(row::OURS, || ours::rounds(effort))
            .subject("bare_futex", || futex_words::round_trip(effort))
            .bar(Bar::AtMost(2.0, "bare_futex"));

    let rounds = effort.rounds(9);
    exit(&[condition.run(rounds), barrier.run(rounds)])
}
