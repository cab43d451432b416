//! Pools: workers die, from outside and in the middle of tasks; each task has one outcome.
#![allow(unsafe_code)]

use super::census::{Awake, Census, Load};
use super::losses_heard;
use super::order::Order;
use super::page::{ITEMS, Page, ROWS, Row};
use super::report::{self, Report};
use super::storm::{self, MOST_STOPPED};
use super::victim::{self, Hog, Place, Way};
use multiproc::{Pool, Task, TaskError};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const WINDOW: usize = 64;
const IN_TASK: u32 = 1;
/// Rounds of a loop: most of a worker's time is its tasks'.
const WORK: u64 = 10_000;
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

/// What a worker does first.
fn begin(path: String, place: Place) {
    victim::no_core_dumps();
    std::panic::set_hook(Box::new(|_| {}));
    losses_heard::listen(&path);
    let pid = std::process::id();
    victim::take_place(place, pid as usize);
    if let Some(page) = losses_heard::page() {
        let row = row(page, pid);
        row.inside.store(0, Ordering::Relaxed);
        row.pid.store(pid, Ordering::Relaxed);
    }
}

/// That of a worker; another's, if their pids are so.
fn row(page: &'static Page, pid: u32) -> &'static Row {
    &page.rows[pid as usize % ROWS]
}

/// What a worker runs.
fn task(id: u64, ends: u32) -> u64 {
    let Some(page) = losses_heard::page() else { return 0 };
    let row = row(page, std::process::id());
    page.item(id).fetch_add(STARTED, Ordering::Relaxed);
    row.inside.store(IN_TASK, Ordering::Relaxed);
    std::hint::black_box((0..id % 7 * WORK).fold(0u64, |sum, n| sum ^ std::hint::black_box(n)));
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
    let load = Load::begin(hog.as_ref().map(Hog::pid));
    let began = Instant::now();
    let mut random = fastrand::Rng::with_seed(order.seed);
    let mut before = None;
    let mut round = 0;
    while report.kills < order.kills {
        let workers = order.seats(round);
        let kills = (order.kills - report.kills).min(order.per_round(round));
        let retries = if round % 3 == 2 { 2 } else { 0 };
        Play { order, page, random: random.fork(), load: load.anew(), kills, retries, report }
            .run(workers, &path)
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

/// One round.
struct Play<'a> {
    order: &'a Order,
    page: &'static Page,
    random: fastrand::Rng,
    load: Load,
    /// To be killed, or to end in a task.
    kills: u64,
    retries: u32,
    report: &'a mut Report,
}

/// Who is killed from outside.
#[derive(Default)]
struct Killer {
    /// Those whose end the pool has not seen yet.
    hit: Vec<u32>,
    killed: u64,
    /// Killed in a row before they had begun.
    early: u32,
    stopped: Option<(u32, Instant)>,
}

impl Killer {
    fn let_go_on(&mut self) {
        if let Some((pid, _)) = self.stopped.take() {
            // SAFETY: numbers.
            unsafe { libc::kill(pid as i32, libc::SIGCONT) };
        }
    }
}

/// After so many in a row that had not begun, only such as have are killed: a pool gives up at several times as many, and says so.
const EARLY: u32 = 8;

impl Play<'_> {
    fn run(mut self, workers: usize, path: &str) -> Result<(), String> {
        let pool =
            Pool::builder().workers(workers).retries(self.retries).initializer((path.to_owned(), self.order.place()), begin);
        let pool = pool.only_if(|e| matches!(e, TaskError::WorkerDied { .. })).build().map_err(|e| e.to_string())?;
        println!("running");
        let mut waiting: VecDeque<Waiting> = VecDeque::new();
        let mut killer = Killer::default();
        let (mut died, mut ended) = (0u64, 0u64);
        let mut awake = Awake::default();
        let (mut since, mut next_kill, mut next_end) = (awake.now(), Instant::now(), 0);
        while killer.killed + ended < self.kills || !waiting.is_empty() {
            while killer.killed + ended < self.kills && waiting.len() < WINDOW {
                let Some(id) = self.page.next_item().filter(|&id| id < ITEMS / 10 * 9) else { break };
                let ends = if self.retries == 0 && id >= next_end {
                    next_end = id + self.random.u64(1..2000);
                    self.random.u32(EXITS..=EXECS)
                } else {
                    RETURNS
                };
                // A panic ends the task, and not its worker.
                if let Some(way) = [None, Some(Way::Exit), Some(Way::Abort), None, Some(Way::Exec)][ends as usize] {
                    ended += 1;
                    self.count(way, report::BY_ITSELF);
                }
                let task = pool.submit((id, ends), task).map_err(|e| format!("submit: {e}"))?;
                waiting.push_back(Waiting { id, ends, task });
            }
            if !killer.hit.is_empty() || killer.stopped.is_some() {
                self.look_after(&mut killer, &pool.pids());
            }
            if Instant::now() >= next_kill && killer.killed + ended < self.kills {
                next_kill = Instant::now() + Duration::from_micros(self.random.u64(..self.order.pause_us * 2));
                self.kill_one(&mut killer, &pool.pids());
            }
            let (settled, of_dead) = self.settle(&mut waiting)?;
            died += of_dead;
            let now = awake.now();
            if settled > 0 {
                since = now;
            } else {
                let gap = now - since;
                self.report.longest_gap_us = self.report.longest_gap_us.max(gap.as_micros() as u64);
                if self.load.is_stall(gap, self.order.patience) {
                    return Err(format!("no task ends for {gap:?}\n{}", multiproc::dump()));
                }
                awake.sleep(Duration::from_micros(50));
            }
        }
        self.report.kills += killer.killed + ended;
        self.report.reported += died;
        if died > killer.killed + ended {
            return Err(format!(
                "{died} tasks died with a worker, {} workers were killed and {ended} ended in a task",
                killer.killed
            ));
        }
        // Nobody joins one that is stopped.
        killer.let_go_on();
        pool.close();
        let joined = pool.join().map_err(|e| format!("join: {e}"));
        self.look_after(&mut killer, &[]);
        joined
    }

    fn count(&mut self, way: Way, inside: &str) {
        *self.report.ways.entry(way.name().to_owned()).or_default() += 1;
        *self.report.inside.entry(inside.to_owned()).or_default() += 1;
    }

    /// Takes notice of who is no worker any more, where it died, and lets the one that is stopped go on.
    fn look_after(&mut self, killer: &mut Killer, pids: &[u32]) {
        let page = self.page;
        let mut gone = Vec::new();
        killer.hit.retain(|pid| {
            let is_worker = pids.contains(pid);
            if !is_worker {
                gone.push(*pid);
            }
            is_worker
        });
        for pid in gone {
            let row = row(page, pid);
            let inside = match (row.pid.load(Ordering::Relaxed) == pid, row.inside.load(Ordering::Relaxed)) {
                (true, IN_TASK) => "a task",
                (true, _) => report::BETWEEN,
                (false, _) => report::STARTING,
            };
            *self.report.inside.entry(inside.to_owned()).or_default() += 1;
        }
        if killer.stopped.is_some_and(|(pid, end)| Instant::now() > end || !pids.contains(&pid)) {
            killer.let_go_on();
        }
    }

    fn kill_one(&mut self, killer: &mut Killer, pids: &[u32]) {
        let has_begun = |pid: u32| row(self.page, pid).pid.load(Ordering::Relaxed) == pid;
        let spare_the_new = killer.early >= EARLY;
        let mut some: Vec<u32> =
            pids.iter().copied().filter(|pid| !killer.hit.contains(pid) && (has_begun(*pid) || !spare_the_new)).collect();
        // Half of them are to die in a task.
        let works = |pid: u32| has_begun(pid) && row(self.page, pid).inside.load(Ordering::Relaxed) == IN_TASK;
        if self.random.bool() && some.iter().any(|pid| works(*pid)) {
            some.retain(|pid| works(*pid));
        }
        let Some(pid) = self.random.choice(some) else { return };
        let begun = has_begun(pid);
        // Several that abort before they have begun are taken for a program whose workers cannot begin.
        let way = if begun && self.random.u32(..5) == 0 { Way::Abort } else { Way::Kill };
        if begun && killer.stopped.is_none() && self.order.stops && self.random.u32(..20) == 0 {
            // SAFETY: a worker, or one that the pool has just waited for.
            unsafe { libc::kill(pid as i32, libc::SIGSTOP) };
            killer.stopped = Some((pid, Instant::now() + Duration::from_micros(self.random.u64(..MOST_STOPPED))));
            return;
        }
        // SAFETY: as above.
        if unsafe { libc::kill(pid as i32, if way == Way::Kill { libc::SIGKILL } else { libc::SIGABRT }) } == 0 {
            killer.early = if begun { 0 } else { killer.early + 1 };
            killer.killed += 1;
            killer.hit.push(pid);
            *self.report.ways.entry(way.name().to_owned()).or_default() += 1;
        }
    }

    /// Takes what outcomes there are: how many, and how many of them are that a worker died.
    fn settle(&mut self, waiting: &mut VecDeque<Waiting>) -> Result<(u64, u64), String> {
        let (mut settled, mut died, mut i) = (0, 0, 0);
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
            let started = self.page.item(id).load(Ordering::Relaxed);
            match outcome {
                Ok(value) if value == outcome_of(id) && ends == RETURNS && started >= 1 => {}
                Err(TaskError::WorkerDied { .. }) => died += 1,
                Err(TaskError::Panicked { .. }) if ends == PANICS => {}
                other => return Err(format!("task {id}, which ends {ends}: {other:?}, started {started} times")),
            }
            if started > 1 + self.retries {
                return Err(format!("task {id} was started {started} times"));
            }
            self.report.operations += 1;
        }
        Ok((settled, died))
    }
}
