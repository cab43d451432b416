//! What a worker costs that has nothing to do: memory of its own, and wake-ups.

#[path = "ours/idle.rs"]
mod ours;

use multiproc_benches::{
    baseline::{self, idle, python},
    effort::Effort,
    proc_stats::{Memory, Switches, memory},
    row::{self, Bar, Row, Unit, exit},
};
use std::{
    error::Error,
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

/// A subject by name, and what was seen of it or why it is skipped.
type Subject = (&'static str, Result<Seen, String>);

struct Seen {
    memory: Memory,
    switches: u64,
}

fn main() -> ExitCode {
    if baseline::ran_as_worker() {
        return ExitCode::SUCCESS;
    }
    // The children live in these until the end; all are watched during the same time.
    let ours = ours::Idle::start();
    let process = idle::start();
    let python = python::IdleWorker::start();
    let pids = [
        (row::OURS, ours.as_ref().map(ours::Idle::pid)),
        ("idle_process", process.as_ref().map(|w| w.0.id())),
        ("python_idle_worker", python.as_ref().map(|w| w.pid)),
    ]
    .map(|(name, pid)| (name, pid.map_err(ToString::to_string)));

    let time = Effort::from_env().time(Duration::from_secs(10));
    let subjects = watch(&pids, time);

    let private = row(
        &subjects,
        "idle_private_memory",
        "a worker waiting in get keeps little beyond what the loader made private.",
        Unit::KiB,
        |seen| seen.memory.private,
    )
    .bar(Bar::Limit(1.2 * 1024.0));
    let pss = row(&subjects, "idle_pss", "reported beside it: what is shared is shared well.", Unit::KiB, |seen| seen.memory.pss);
    let switches = row(
        &subjects,
        "idle_context_switches",
        "no thread of an idle worker wakes up by itself (ten seconds in a full run).",
        Unit::Count,
        |seen| seen.switches,
    )
    .bar(Bar::Limit(0.0));
    exit(&[private.run(1), pss.run(1), switches.run(1)])
}

fn row<'a>(
    subjects: &'a [Subject],
    name: &'static str,
    hypothesis: &'static str,
    unit: Unit,
    figure: fn(&Seen) -> u64,
) -> Row<'a> {
    let empty = Row::new(name, hypothesis, unit);
    subjects.iter().fold(empty, |row, (name, seen)| {
        row.subject(name, move || match seen {
            Ok(seen) => Ok(figure(seen) as f64),
            Err(why) => Err(why.as_str().into()),
        })
    })
}

fn watch(pids: &[(&'static str, Result<u32, String>)], time: Duration) -> Vec<Subject> {
    let text = |e: Box<dyn Error>| e.to_string();
    let before: Vec<Result<Switches, String>> = pids.iter().map(|(_, pid)| quiet(pid.clone()?).map_err(text)).collect();
    sleep(time);
    pids.iter()
        .zip(before)
        .map(|((name, pid), before)| {
            let seen = (pid.clone()).and_then(|pid| look(pid, &before?).map_err(text));
            (*name, seen)
        })
        .collect()
}

fn look(pid: u32, before: &Switches) -> Result<Seen, Box<dyn Error>> {
    // Switches first: reading the memory map must not count.
    let switches = Switches::of(pid)?.since(before);
    Ok(Seen { memory: memory(pid)?, switches })
}

/// The context switches of a process once it has made none for 300 ms: it has started and waits.
fn quiet(pid: u32) -> Result<Switches, Box<dyn Error>> {
    let start = Instant::now();
    let mut last = Switches::of(pid)?;
    while start.elapsed() < Duration::from_secs(5) {
        sleep(Duration::from_millis(300));
        let now = Switches::of(pid)?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
    Err("still busy after five seconds".into())
}
