//! Pools: workers die, from outside and in the middle of tasks; each task has one outcome.
#![allow(unsafe_code)]

use super::census::{Census, Load};
use super::losses_heard;
use super::order::Order;
use super::page::{ITEMS, Page, ROWS};
use super::report::Report;
use super::storm;
use super::victim::{self, Hog, Way};
use multiproc::{Pool, Task, TaskError};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const STALL: Duration = Duration::from_millis(500);
const WINDOW: usize = 64;
const IN_TASK: u32 = 1;
/// An item's word counts how often its task was started.
const STARTED: u32 = 1;

/// How a task ends.
const RETURNS: u32 = 0;
const EXITS: u32 = 1;
const ABORTS: u32 = 2;
const PANICS: u32 = 3;
const EXECS: u32 = 4;

fn outcome_of(id: u64) -> u64 {
    id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7
}

/// What a worker runs.
fn task(id: u64, ends: u32, path: String) -> u64 {
    if losses_heard::page().is_none() {
        victim::no_core_dumps();
        std::panic::set_hook(Box::new(|_| {}));
        losses_heard::listen(&path);
    }
    let Some(page) = losses_heard::page() else { return 0 };
    let pid = std::process::id();
    let row = &page.rows[pid as usize % ROWS];
    page.item(id).fetch_add(STARTED, Ordering::Relaxed);
    row.pid.store(pid, Ordering::Relaxed);
    row.inside.store(IN_TASK, Ordering::Relaxed);
    std::hint::black_box((0..id % 7 * 1000).fold(0u64, |sum, n| sum ^ n));
    match ends {
        EXITS => std::process::exit(9),
        ABORTS => std::process::abort(),
        PANICS => {
            row.inside.store(0, Ordering::Relaxed);
            panic!("as it was told");
        }
        EXECS => {
            let arguments = [c"true".as_ptr(), std::ptr::null()];
            // SAFETY: the lists have an end.
            unsafe { libc::execve(c"/bin/true".as_ptr(), arguments.as_ptr(), arguments[1..].as_ptr()) };
        }
        _ => {}
    }
    row.inside.store(0, Ordering::Relaxed);
    outcome_of(id)
}

struct Waiting {
    id: u64,
    ends: u32,
    task: Task<u64>,
}

/// Runs what was ordered.
pub fn run(order: &Order) -> Report {
    storm::in_rounds(order, run_rounds)
}

fn run_rounds(order: &Order, report: &mut Report) -> Result<(), String> {
    let (page, path) = Page::create().map_err(|e| e.to_string())?;
    losses_heard::listen_for(page);
    let hog = order.idle.then(Hog::start);
    let load = Load::begin(None);
    let began = Instant::now();
    let mut random = fastrand::Rng::with_seed(order.seed);
    let mut before = None;
    let mut round = 0;
    while report.kills < order.kills {
        let workers = order.seats(round);
        let kills = (order.kills - report.kills).min(order.per_round(round));
        let retries = if round % 3 == 2 { 2 } else { 0 };
        play(order, page, &path, &mut random, workers, retries, kills, report)
            .map_err(|what| format!("round {round}, {workers} workers: {what}"))?;
        page.clear();
        match &before {
            None => before = Some(Census::take()?),
            Some(before) => drop(Census::back_to(before).map_err(|left| format!("left over after round {round}: {left}"))?),
        }
        round += 1;
        report.rounds += 1;
        println!("progress {} of {} kills, {:.0} s", report.kills, order.kills, began.elapsed().as_secs_f64());
    }
    report.seconds = began.elapsed().as_secs_f64();
    report.others = load.of_others();
    drop(hog);
    Ok(())
}

#[allow(clippy::too_many_arguments)]
fn play(
    order: &Order,
    page: &'static Page,
    path: &str,
    random: &mut fastrand::Rng,
    workers: usize,
    retries: u32,
    kills: u64,
    report: &mut Report,
) -> Result<(), String> {
    let pool = Pool::builder().workers(workers).retries(retries).only_if(|e| matches!(e, TaskError::WorkerDied { .. })).build();
    let pool = pool.map_err(|e| e.to_string())?;
    println!("running");
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    let (mut killed, mut died, mut suicides) = (0u64, 0u64, 0u64);
    let mut since = Instant::now();
    let mut next_kill = Instant::now();
    let mut next_suicide = 0;
    let load = Load::begin(None);
    while killed + suicides < kills || !waiting.is_empty() {
        while killed + suicides < kills && waiting.len() < WINDOW {
            let Some(id) = page.next_item().filter(|&id| id < ITEMS / 10 * 9) else { break };
            let ends = if retries == 0 && id >= next_suicide {
                next_suicide = id + random.u64(1..2000);
                random.u32(EXITS..=EXECS)
            } else {
                RETURNS
            };
            suicides += u64::from(ends != RETURNS);
            let way = [None, Some(Way::Exit), Some(Way::Abort), Some(Way::Panic), Some(Way::Exec)][ends as usize];
            if let Some(way) = way {
                *report.ways.entry(way.name().to_owned()).or_default() += 1;
                *report.inside.entry("a task".to_owned()).or_default() += 1;
            }
            let task = pool.submit((id, ends, path.to_owned()), task).map_err(|e| format!("submit: {e}"))?;
            waiting.push_back(Waiting { id, ends, task });
        }
        if Instant::now() >= next_kill && killed + suicides < kills {
            next_kill = Instant::now() + Duration::from_micros(random.u64(..order.pause_us * 2));
            let pids = pool.pids();
            if let Some(&pid) = pids.get(random.usize(..pids.len().max(1))) {
                let row = &page.rows[pid as usize % ROWS];
                // Several that abort before they have begun are taken for a program whose workers cannot begin.
                let has_begun = row.pid.load(Ordering::Relaxed) == pid;
                let way = if has_begun && random.u32(..5) == 0 { Way::Abort } else { Way::Kill };
                let inside = row.inside.load(Ordering::Relaxed) == IN_TASK && row.pid.load(Ordering::Relaxed) == pid;
                // SAFETY: a worker, or one that the pool has just waited for.
                unsafe { libc::kill(pid as i32, if way == Way::Kill { libc::SIGKILL } else { libc::SIGABRT }) };
                killed += 1;
                *report.ways.entry(way.name().to_owned()).or_default() += 1;
                *report.inside.entry(if inside { "a task" } else { "the worker's loop" }.to_owned()).or_default() += 1;
            }
        }
        let mut settled = 0;
        let mut i = 0;
        while i < waiting.len() {
            let outcome = match waiting[i].task.try_join() {
                Ok(None) => {
                    i += 1;
                    continue;
                }
                Ok(Some(value)) => Ok(value),
                Err(e) => Err(e),
            };
            let Some(Waiting { id, ends, .. }) = waiting.swap_remove_back(i) else { break };
            settled += 1;
            let started = page.item(id).load(Ordering::Relaxed);
            match outcome {
                Ok(value) if value == outcome_of(id) && ends == RETURNS && started >= 1 => {}
                Err(TaskError::WorkerDied { .. }) => died += 1,
                Err(TaskError::Panicked { .. }) if ends == PANICS => {}
                other => return Err(format!("task {id}, which ends {ends}: {other:?}, started {started} times")),
            }
            if started > 1 + retries {
                return Err(format!("task {id} was started {started} times"));
            }
            report.operations += 1;
        }
        let now = Instant::now();
        if settled > 0 {
            since = now;
        } else {
            let gap = now - since;
            report.longest_gap_us = report.longest_gap_us.max(gap.as_micros() as u64);
            if gap > STALL * order.patience && (load.of_others() <= 20 || gap > STALL * 20) {
                return Err(format!("no task ends for {gap:?}\n{}", multiproc::dump()));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    report.kills += killed + suicides;
    report.reported += died;
    if died > killed + suicides {
        return Err(format!("{died} tasks died with a worker, {killed} workers were killed and {suicides} ended in a task"));
    }
    pool.close();
    pool.join().map_err(|e| format!("join: {e}"))?;
    Ok(())
}
