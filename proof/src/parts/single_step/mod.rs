//! The single-step killer: a victim runs an operation one machine instruction at a time and is killed after the n-th, for every n until it survives. So "any
//! instruction" is meant literally; a system call is one. Whoever waits goes on, what is shared is whole, and nothing stays.

mod scene;
mod stepper;
mod victim;

use super::Part;
use crate::plan::Plan;
use crate::tally::Tally;
use multiproc::testing::{self, Audit};
use std::thread;
use std::time::{Duration, Instant};
use victim::Op;

pub const PART: Part =
    Part { name: "single-step", what: "a kill after each machine instruction of an operation, under ptrace", run };

/// Deaths of an operation in the short form.
const SHORT: u64 = 40;
const PATIENCE: Duration = Duration::from_secs(20);
const REST: Duration = Duration::from_millis(200);

fn quiet() -> Option<Audit> {
    testing::collect().ok()?;
    testing::audit().ok()
}

/// What is in use when nothing goes on any more: what was in use before, or what stays the same.
fn settled(before: Option<Audit>) -> Option<Audit> {
    let (mut last, mut since) = (quiet(), Instant::now());
    let end = Instant::now() + PATIENCE;
    loop {
        thread::sleep(Duration::from_millis(1));
        let now = quiet();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        let rests = before.is_none() && since.elapsed() > REST;
        if now == before && before.is_some() || rests || Instant::now() > end {
            return now;
        }
    }
}

/// The thread that traces keeps to one core, and is no other part's.
fn run(plan: &Plan) -> Tally {
    thread::scope(|scope| scope.spawn(|| step_through_all(plan)).join()).unwrap_or_else(|_| {
        let mut tally = Tally::default();
        tally.broken("the tracer panicked");
        tally
    })
}

fn step_through_all(plan: &Plan) -> Tally {
    let mut tally = Tally::new(&["instructions", "deaths", "failures", "s"]);
    let mut random = plan.random("single-step");
    // What is made once is made before what is in use is counted.
    if let Err(why) = scene::run(Op::Set, u64::MAX) {
        tally.broken(format!("cannot step: {why}"));
        return tally;
    }
    let before = settled(None);
    let (mut instructions, mut deaths) = (0, 0);
    for &(op, name) in victim::ALL {
        let begin = Instant::now();
        let length = match scene::run(op, u64::MAX) {
            Ok(run) => run.survived.unwrap_or(0),
            Err(why) => {
                tally.broken(format!("{name}, nobody killed: {why}"));
                continue;
            }
        };
        let stride = length.div_ceil(plan.count(SHORT, length)).max(1);
        let (mut died, mut failures, mut n) = (0, 0, random.u64(0..stride));
        loop {
            match scene::run(op, n) {
                Ok(run) if run.survived.is_some() => break,
                Ok(_) => {}
                Err(why) => {
                    failures += 1;
                    tally.broken(format!("{name}, killed after instruction {n}: {why}"));
                }
            }
            died += 1;
            n += stride;
            // Waits take more of them at times, but not without end.
            if n > 10 * length + stride {
                tally.broken(format!("{name}: it is never survived, though it has {length} instructions"));
                break;
            }
        }
        if plan.long {
            eprintln!("{name}: {died} deaths, {failures} failures");
        }
        tally.row(
            name,
            [length.to_string(), died.to_string(), failures.to_string(), format!("{:.1}", begin.elapsed().as_secs_f64())],
        );
        let after = settled(before);
        tally.check(after == before, || format!("{name}: {before:?} were in use and {after:?} are"));
        (instructions, deaths) = (instructions + length, deaths + died);
    }
    tally.note(format!("{instructions} instructions, {deaths} deaths"));
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So near to each other that no piece of the source is passed over: in a debug build one line is more instructions.
    const STRIDE: u64 = 8;

    fn step_through(op: Op) {
        let _one = super::super::alone();
        let length = scene::run(op, u64::MAX).unwrap().survived.unwrap();
        for n in (0..length).step_by(STRIDE as usize) {
            scene::run(op, n).unwrap_or_else(|why| panic!("{op:?}, killed after instruction {n} of {length}: {why}"));
        }
    }

    #[test]
    fn a_locker_is_killed_after_each_few_instructions() {
        step_through(Op::Lock);
    }

    #[test]
    fn the_first_locker_is_killed_after_each_few_instructions() {
        step_through(Op::FirstLock);
    }

    #[test]
    fn an_unlocker_is_killed_after_each_few_instructions() {
        step_through(Op::Unlock);
    }
}
