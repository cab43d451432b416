//! The self-test at the start of a tree: whether this kernel wakes sleepers for the dead. What it takes; that children go by what their tree has found is tested in
//! `tests/tests/self_test.rs`.

use super::Part;
use crate::plan::Plan;
use crate::tally::Tally;
use multiproc_sys::robust;
use std::time::{Duration, Instant};

pub const PART: Part = Part { name: "start", what: "the self-test at the start takes at most 2 ms", run };

const LIMIT: Duration = Duration::from_millis(2);

fn run(plan: &Plan) -> Tally {
    let mut tally = Tally::new(&["p50 us", "p99 us", "least us"]);
    let mut times: Vec<Duration> = (0..plan.count(300, 3_000))
        .map(|_| {
            let begin = Instant::now();
            let wakes = robust::wakes_for_the_dead();
            let took = begin.elapsed();
            tally.check(wakes, || "this kernel does not wake sleepers for the dead: waits are sliced".into());
            took
        })
        .collect();
    times.sort();
    let micros = |time: Duration| format!("{:.0}", time.as_secs_f64() * 1e6);
    let (half, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    tally.row("self-test", [micros(half), micros(most), micros(times[0])]);
    tally.bar(plan, "the 99th of 100 self-tests", most, LIMIT);
    tally
}
