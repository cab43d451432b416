//! Waiting for any of 65 queues of which 64 are idle, beside waiting for one.

#[path = "ours/wait.rs"]
mod ours;

use multiproc_benches::{
    baseline,
    effort::Effort,
    row::{self, Bar, Row, Unit, exit},
};
use ours::Waiter;
use std::process::ExitCode;

const IDLE: usize = 64;

fn main() -> ExitCode {
    if baseline::ran_as_worker() {
        return ExitCode::SUCCESS;
    }
    let effort = Effort::from_env();

    let wake = Row::new(
        "wait_wake",
        "to announce oneself in 64 words more, and to sleep on them, takes less than waking an idle core does.",
        Unit::Micros,
    )
    .subject(row::OURS, || ours::wake(Waiter::Any(IDLE), effort))
    .subject("wait_on_one", || ours::wake(Waiter::Any(0), effort))
    .subject("get", || ours::wake(Waiter::Get, effort))
    .bar(Bar::AtMost(3.0, "wait_on_one"));

    let round_trip = Row::new(
        "wait_round_trip",
        "a question to another process, which sleeps in get, and its answer among 65 queues.",
        Unit::Micros,
    )
    .subject(row::OURS, || ours::round_trip(Waiter::Any(IDLE), effort))
    .subject("wait_on_one", || ours::round_trip(Waiter::Any(0), effort))
    .subject("get", || ours::round_trip(Waiter::Get, effort))
    .bar(Bar::AtMost(3.0, "wait_on_one"));

    let look = Row::new(
        "wait_ready",
        "reported beside it: one of 65 is ready already, so all that is done is to look at each, a few nanoseconds for three cache lines.",
        Unit::Nanos,
    )
    .subject(row::OURS, || ours::look(IDLE, effort))
    .subject("wait_on_one", || ours::look(0, effort));

    let many = Row::new(
        "wait_wake_300",
        "reported beside it: of 301 queues two other threads sleep on what is too much for one.",
        Unit::Micros,
    )
    .subject(row::OURS, || ours::wake(Waiter::Any(300), effort))
    .subject("wait_on_one", || ours::wake(Waiter::Any(0), effort));

    exit(&[
        wake.run(effort.rounds(15)),
        round_trip.run(effort.rounds(15)),
        look.run(effort.rounds(31)),
        many.run(effort.rounds(9)),
    ])
}
