//! A process that waits for any of several queues, or gets from one, and another that puts into the last of them.

use multiproc::{Process, Queue, WaitOn, wait};
use multiproc_benches::effort::Effort;
use multiproc_benches::machine;
use multiproc_benches::row::{Measured, median};
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Waiter {
    /// `wait` for so many idle queues and that of the answers, then `try_get`.
    Any(usize),
    Get,
}

/// Longer than a waiter spins before it sleeps.
const LATE: Duration = Duration::from_micros(150);

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos() as u64)
}

/// Answers with the time at which it does.
fn answer(asks: Queue<bool>, answers: Queue<u64>) {
    machine::pin(1).expect("pinning");
    while let Ok(late) = asks.get() {
        let start = Instant::now();
        while late && start.elapsed() < LATE {
            std::hint::spin_loop();
        }
        if answers.put(now()).is_err() {
            break;
        }
    }
}

/// Nanoseconds from answer to return, and for both ways, each the median of `count`.
fn ask(waiter: Waiter, late: bool, count: u64) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    if multiproc::CRASH_POINTS {
        return Err("crash points are compiled in".into());
    }
    let (asks, answers) = (Queue::bounded(1)?, Queue::bounded(1)?);
    let process = Process::spawn((asks.clone(), answers.clone()), answer)?;
    let waits =
        Process::spawn((asks, answers, waiter, late, count), |asks: Queue<bool>, answers: Queue<u64>, waiter, late, count| {
            machine::pin(0).expect("pinning");
            let idle: Vec<Queue<u64>> = match waiter {
                Waiter::Any(n) => (0..n).map(|_| Queue::bounded(1).expect("a queue")).collect(),
                Waiter::Get => Vec::new(),
            };
            let mut items: Vec<&dyn WaitOn> = idle.iter().map(|q| q as &dyn WaitOn).collect();
            items.push(&answers);
            let (mut wakes, mut trips) = (Vec::new(), Vec::new());
            for n in 0..count + count / 10 {
                let start = Instant::now();
                asks.put(late).expect("the partner answers");
                let stamp = match waiter {
                    Waiter::Any(n) => {
                        assert_eq!(wait(&items).expect("a wait"), [n]);
                        let end = now();
                        (answers.try_get().expect("an answer"), end)
                    }
                    Waiter::Get => (answers.get().expect("an answer"), now()),
                };
                if n >= count / 10 {
                    wakes.push(stamp.1.saturating_sub(stamp.0) as f64);
                    trips.push(start.elapsed().as_nanos() as f64);
                }
            }
            asks.close().expect("the end");
            (median(&wakes).unwrap_or(0.0), median(&trips).unwrap_or(0.0))
        })?;
    let figures = waits.join()?;
    process.join()?;
    Ok(figures)
}

/// Microseconds from a put to the return of who sleeps.
pub(crate) fn wake(waiter: Waiter, effort: Effort) -> Measured {
    Ok(ask(waiter, true, effort.count(2_000))?.0 / 1e3)
}

/// Microseconds for a question and its answer.
pub(crate) fn round_trip(waiter: Waiter, effort: Effort) -> Measured {
    Ok(ask(waiter, false, effort.count(10_000))?.1 / 1e3)
}

/// Nanoseconds to find the last of the queues ready.
pub(crate) fn look(idle: usize, effort: Effort) -> Measured {
    let queues: Vec<Queue<u64>> = (0..=idle).map(|_| Queue::bounded(1)).collect::<Result<_, _>>()?;
    queues[idle].put(1)?;
    let items: Vec<&dyn WaitOn> = queues.iter().map(|q| q as &dyn WaitOn).collect();
    let count = effort.count(200_000);
    let start = Instant::now();
    for _ in 0..count {
        assert_eq!(black_box(wait(black_box(&items))?), [idle]);
    }
    Ok(start.elapsed().as_nanos() as f64 / count as f64)
}
