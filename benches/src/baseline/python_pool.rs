//! Python's `multiprocessing.Pool` and `concurrent.futures.ProcessPoolExecutor`, two workers each.

use super::python::figures;
use crate::{effort::Effort, row::Measured};

const POOL: &str = r#"
import multiprocessing, sys, time
from concurrent.futures import ProcessPoolExecutor
what, count = sys.argv[1], int(sys.argv[2])
mp = multiprocessing.get_context("fork")

def nothing():
    pass

def double(x):
    return 2 * x

def in_flight(submit, result):
    def play(times):
        for task in [submit(nothing) for _ in range(times)]:
            result(task)
    return play

def alone(submit, result):
    def play(times):
        for _ in range(times):
            result(submit(nothing))
    return play

def drain(values):
    for _ in values:
        pass

def measure(play):
    # Starts the workers.
    play(max(count // 10, 4))
    start = time.perf_counter()
    play(count)
    print((time.perf_counter() - start) * 1e9 / count)

if what.startswith("executor"):
    with ProcessPoolExecutor(2, mp_context=mp) as pool:
        play = alone if what.endswith("alone") else in_flight
        measure(play(pool.submit, lambda task: task.result()))
else:
    with mp.Pool(2) as pool:
        measure({
            "in_flight": in_flight(pool.apply_async, lambda task: task.get()),
            "alone": alone(pool.apply_async, lambda task: task.get()),
            "map": lambda times: pool.map(double, range(times)),
            "imap_unordered": lambda times: drain(pool.imap_unordered(double, range(times))),
        }[what])
"#;

/// Nanoseconds for one of so many calls: what is measured is told by name.
fn nanos(what: &str, count: u64) -> Measured {
    figures(POOL, &[what.to_owned(), count.to_string()])
}

/// Microseconds for each of many empty tasks of an executor, all submitted before the first is waited for.
pub fn executor_in_flight(effort: Effort) -> Measured {
    Ok(nanos("executor_in_flight", effort.count(5_000))? / 1e3)
}

/// Microseconds for an empty task of an executor, one after the other.
pub fn executor_alone(effort: Effort) -> Measured {
    Ok(nanos("executor_alone", effort.count(2_000))? / 1e3)
}

/// As [`executor_in_flight`], by `Pool.apply_async`.
pub fn in_flight(effort: Effort) -> Measured {
    Ok(nanos("in_flight", effort.count(5_000))? / 1e3)
}

/// As [`executor_alone`], by `Pool.apply_async`.
pub fn alone(effort: Effort) -> Measured {
    Ok(nanos("alone", effort.count(2_000))? / 1e3)
}

/// Nanoseconds for each of a million calls of `Pool.map`, which makes eight chunks of them.
pub fn map(effort: Effort) -> Measured {
    nanos("map", effort.count(1_000_000))
}

/// Microseconds for each item of `Pool.imap_unordered`.
pub fn imap_unordered(effort: Effort) -> Measured {
    Ok(nanos("imap_unordered", effort.count(10_000))? / 1e3)
}
