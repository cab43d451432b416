//! Pools of two workers: empty tasks, maps, real work, large values, and a worker's death.
//!
//! `ROWS=map,work` runs only the rows whose name contains one of these.

#[path = "ours/pool.rs"]
mod ours;

use multiproc_benches::{
    baseline::{self, futex_words, in_process, procspawn_pool, python_pool},
    effort::Effort,
    row::{self, Bar, Measured, Row, Unit, exit},
    worker::{Worker, command},
};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

fn main() -> ExitCode {
    procspawn_pool::init();
    if baseline::ran_as_worker() {
        return ExitCode::SUCCESS;
    }
    let effort = Effort::from_env();
    let only = std::env::var("ROWS").ok();
    let run = |row: Row<'_>, rounds: usize| {
        let wanted = only.as_ref().is_none_or(|only| only.split(',').any(|part| row.name().contains(part)));
        if wanted { row.run(rounds) } else { true }
    };
    let (pool, procspawn, threads) = (ours::pool(), procspawn_pool::pool(), in_process::threads());

    let in_flight = Row::new(
        "pool_in_flight",
        "an empty task is two messages through queues that workers and coordinator are awake at, where pickle, two threads, two \
         pipes and their system calls cost Python a hundred times as much.",
        Unit::Micros,
    )
    .subject(row::OURS, || ours::in_flight(&pool, effort))
    .subject("python_executor", || python_pool::executor_in_flight(effort))
    .subject("python_pool", || python_pool::in_flight(effort))
    .subject("procspawn_pool", || procspawn_pool::in_flight(&procspawn, effort))
    .bar(Bar::AtMost(1.0 / 40.0, "python_executor"))
    .bar(Bar::AtMost(1.0 / 20.0, "procspawn_pool"));

    let awake = Row::new(
        "pool_alone_awake",
        "one task at a time is a round trip through two queues, with a lease, a table and a desk on the way.",
        Unit::Micros,
    )
    .subject(row::OURS, || ours::alone_awake(effort))
    .subject("queue_round_trip", || ours::queue_round_trip(effort))
    .subject("python_executor", || python_pool::executor_alone(effort))
    .subject("python_pool", || python_pool::alone(effort))
    .subject("procspawn_pool", || procspawn_pool::alone(&procspawn, effort))
    .bar(Bar::AtMost(20.0, "queue_round_trip"));

    let asleep = Row::new(
        "pool_alone_asleep",
        "where the worker sleeps until the task comes, and who waits until the value does, two wakes are most of it.",
        Unit::Micros,
    )
    .subject(row::OURS, || ours::alone_asleep(effort))
    .subject("bare_futex", || futex_words::round_trip(effort))
    .bar(Bar::AtMost(1.6, "bare_futex"));

    let million = effort.count(1_000_000);
    let map = Row::new(
        "pool_map_million",
        "in chunks of some thousands a cheap call is little more than its encoding and decoding, twice.",
        Unit::Nanos,
    )
    .subject(row::OURS, || ours::map(&pool, million))
    .subject("python_pool", || python_pool::map(effort))
    .subject("rayon", || in_process::map(&threads, million))
    .bar(Bar::AtMost(1.0 / 3.0, "python_pool"));

    let (tasks, rounds) = (effort.count(100).max(2), in_process::rounds_of(Duration::from_millis(8)));
    let work = Row::new("pool_work_8ms", "tasks a second: what one costs beside 8 ms of work cannot be seen.", Unit::Count)
        .subject(row::OURS, || ours::churned(&pool, tasks, rounds))
        .subject("rayon", || in_process::churned(&threads, tasks, rounds))
        .bar(Bar::AtLeast(0.97, "rayon"));

    let times = effort.count(1_000);
    let large = Row::new(
        "pool_large_values",
        "1 MiB there and back is copied into shared memory and out of it, each way, and that is most of what it costs.",
        Unit::Micros,
    )
    .subject(row::OURS, || ours::flipped(&pool, times))
    .subject("on_another_cpu", || ours::flipped_apart(times))
    .subject("in_process", || in_process::flipped(times))
    .subject("and_3_memcpy", || in_process::flipped_and_copied(times, 3))
    .subject("and_4_across_cpus", || in_process::flipped_and_copied_across(times, 4))
    .bar(Bar::AtMost(1.0, "and_3_memcpy"));

    let restart = Row::new(
        "pool_worker_killed",
        "from the kill to its task running on a new worker there is the start of a process, and little else.",
        Unit::Micros,
    )
    .subject(row::OURS, ours::restarted)
    .subject("command_same_binary", || commands(1))
    .bar(Bar::Limit(20_000.0));

    let start = |name: &'static str, workers: usize| {
        Row::new(name, "reported: until all have begun, beside as many processes that end at once.", Unit::Micros)
            .subject(row::OURS, move || ours::started(workers))
            .subject("command_same_binary", move || commands(workers))
    };

    let lazy = effort.count(200_000);
    let imap = Row::new("pool_imap_unordered", "each item is a task of its own, of which a few are out at a time.", Unit::Micros)
        .subject(row::OURS, || ours::imap_unordered(&pool, lazy))
        .subject("python_pool", || python_pool::imap_unordered(effort));

    let growth = Row::new("pool_imap_memory", "what has been given out is forgotten.", Unit::KiB)
        .subject(row::OURS, || ours::growth(&pool, effort.count(10_000_000)))
        .bar(Bar::Limit(10.0 * 1024.0));

    let (few, many) = (effort.rounds(5), effort.rounds(11));
    exit(&[
        run(in_flight, few),
        run(awake, few),
        run(asleep, many),
        run(map, few),
        run(work, few),
        run(large, many),
        run(restart, many),
        run(start("pool_start_2", 2), many),
        run(start("pool_start_64", 64), few),
        run(imap, few),
        run(growth, 1),
    ])
}

/// Microseconds for so many processes of this binary that end at once, all started before the first is waited for.
fn commands(count: usize) -> Measured {
    let start = Instant::now();
    let mut children = (0..count).map(|_| Worker::start(&mut command(baseline::EMPTY)?)).collect::<Result<Vec<_>, _>>()?;
    for child in &mut children {
        child.0.wait()?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6)
}
