//! A worker dies at each step of all that it does, from its first word to the last acknowledgement: each task has one outcome, what was not started is run by
//! the next worker, nothing runs once more than it may, and nobody hangs.
#![cfg(feature = "crash-points")]

#[path = "step_killer/table.rs"]
mod steps;

use multiproc::testing::{arm_at, arm_signal, arm_step, named};
use multiproc::{Atomic, Event, Pool, Queue, Task, TaskError};
use multiproc_tests::{eventually, watch};
use serde::{Deserialize, Deserializer, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use steps::{Line, Table};

/// Steps beyond these do not exist.
const MAX_STEPS: u64 = 2000;

/// How a worker is armed: the first one only.
fn arm(workers: Atomic<u32>, k: u64) {
    if workers.add(1) == 0 {
        arm_step(k);
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
enum Kind {
    Value,
    Large,
    Handle,
    Panic,
}

fn work(runs: Atomic<u32>, kind: Kind, text: String, queue: Option<Queue<u32>>) -> String {
    runs.add(1);
    match kind {
        Kind::Panic => panic!("as planned"),
        Kind::Handle => {
            queue.unwrap().put(1).unwrap();
            text
        }
        Kind::Value | Kind::Large => text,
    }
}

/// One run: whether the worker died.
fn play(k: u64, retries: u32, kinds: &[Kind]) -> bool {
    let _watched = watch(60);
    let workers = Atomic::new(0u32).unwrap();
    let begin = Event::new().unwrap();
    let pool = Pool::builder()
        .workers(1)
        // A backtrace of each planned panic takes longer than all else.
        .env("RUST_BACKTRACE", "0")
        .retries(retries)
        .initializer((workers.clone(), k, begin.clone()), |workers: Atomic<u32>, k: u64, begin: Event| {
            // All tasks lie in the queue, so that each run takes the same steps.
            begin.wait().unwrap();
            arm(workers, k);
        })
        .build()
        .unwrap();
    let queue = Queue::<u32>::bounded(100).unwrap();
    let runs: Vec<Atomic<u32>> = kinds.iter().map(|_| Atomic::new(0).unwrap()).collect();
    let text = |kind: Kind| "x".repeat(if kind == Kind::Large { 100_000 } else { 5 });
    let submit = |(at, kind): (usize, &Kind)| {
        let queue = (*kind == Kind::Handle).then(|| queue.clone());
        pool.submit((runs[at].clone(), *kind, text(*kind), queue), work).unwrap()
    };
    let mut tasks: Vec<Task<String>> = kinds.iter().enumerate().map(submit).collect();
    // One that was cancelled lies among them: the worker asks, and is answered.
    let never = Atomic::new(0u32).unwrap();
    let cancelled = pool.submit((never.clone(),), |never: Atomic<u32>| _ = never.add(1)).unwrap();
    cancelled.cancel();
    tasks.extend(kinds.iter().enumerate().map(submit));
    begin.set().unwrap();
    let mut died = 0;
    for (at, task) in tasks.into_iter().enumerate() {
        let kind = kinds[at % kinds.len()];
        match task.join() {
            Ok(value) => assert!(kind != Kind::Panic && value == text(kind)),
            Err(TaskError::Panicked { message, .. }) => assert!(kind == Kind::Panic && message == "as planned"),
            Err(TaskError::WorkerDied { started: true, attempts, .. }) if attempts == 1 + retries => {
                assert!(retries == 0 || kind == Kind::Panic, "step {k}: not tried again");
                died += 1;
            }
            Err(e) => panic!("step {k}, task {at}: {e:?}"),
        }
    }
    assert!(cancelled.join().unwrap_err().is_cancelled());
    assert_eq!(never.get(), 0, "step {k}: what was cancelled ran");
    assert!(died <= 1, "step {k}: {died} tasks died with one worker");
    for (runs, kind) in runs.iter().zip(kinds) {
        let (runs, starts) = (runs.get(), if *kind == Kind::Panic { 1 + retries } else { 1 });
        // Each was submitted twice; the one that died may not have come to count.
        let most = 2 * starts + u32::from(retries > 0 && *kind != Kind::Panic);
        assert!(runs <= most && runs + died >= 2, "step {k}: {kind:?} ran {runs} times");
    }
    for n in [20, 30] {
        match pool.apply((n,), |n: u32| n + 1) {
            Ok(next) => assert_eq!(next, n + 1),
            // The steps reached just to here.
            Err(TaskError::WorkerDied { .. }) if retries == 0 => died += 1,
            Err(e) => panic!("{e}"),
        }
    }
    assert!(died <= 1, "step {k}: {died} tasks died with one worker");
    workers.get() > 1
}

/// All steps with `CRASH_POOL_ALL` set, else each `stride`-th.
fn each_step(retries: u32, kinds: &[Kind], stride: u64) -> Line {
    let stride = if std::env::var_os("CRASH_POOL_ALL").is_some() { 1 } else { stride };
    let line = Line::new(format!("Work, {kinds:?}, {retries} retries"));
    // With all of them it is not the same each time either which steps a worker makes.
    let mut line = line.partly();
    for k in (1..MAX_STEPS).step_by(stride as usize) {
        let died = play(k, retries, kinds);
        line.ran(died.into());
        if !died {
            break;
        }
    }
    line.steps = line.deaths;
    // Each of the named steps is one, for each task.
    assert!(line.deaths * stride > 14 && line.deaths * stride < MAX_STEPS - stride, "{line:?}");
    line
}

#[test]
fn a_worker_dies_at_each_step() {
    Table(vec![each_step(0, &[Kind::Value], 2)]).finish("A worker");
}

#[test]
fn a_worker_dies_at_each_step_of_a_panic() {
    Table(vec![each_step(0, &[Kind::Panic], 11)]).finish("A worker, with a panic");
}

#[test]
fn a_worker_dies_at_each_step_of_a_large_message() {
    Table(vec![each_step(0, &[Kind::Large], 11)]).finish("A worker, with a large message");
}

#[test]
fn a_worker_dies_at_each_step_of_a_handle() {
    Table(vec![each_step(0, &[Kind::Handle], 11)]).finish("A worker, with a handle");
}

#[test]
fn a_worker_dies_at_each_step_and_its_task_is_tried_again() {
    Table(vec![each_step(1, &[Kind::Value], 11)]).finish("A worker whose task is tried again");
}

#[test]
fn a_worker_dies_at_each_step_of_a_panic_that_is_tried_again() {
    Table(vec![each_step(1, &[Kind::Panic], 11)]).finish("A worker whose panicked task is tried again");
}

/// Each of the named steps, and what becomes of the task there.
#[test]
fn a_worker_dies_at_a_named_step() {
    let steps = [
        ("pool.leased", 0, true),
        ("pool.taken", 0, true),
        ("pool.started", 0, false),
        ("pool.decoding", 0, false),
        ("pool.encoding", 1, false),
        ("pool.told", 1, true),
        ("pool.acknowledged", 1, true),
    ];
    let mut line = Line::new("Work, at a named step").partly();
    for (step, runs_before, has_value) in steps {
        let _watched = watch(60);
        let (workers, runs) = (Atomic::new(0u32).unwrap(), Atomic::new(0u32).unwrap());
        let init = |workers: Atomic<u32>, step: String| {
            if workers.add(1) == 0 {
                arm_at(step.leak(), 1);
            }
        };
        let pool = Pool::builder().workers(1).initializer((workers.clone(), step.to_owned()), init).build().unwrap();
        let outcome = pool.apply((runs.clone(),), |runs: Atomic<u32>| {
            runs.add(1);
            5
        });
        eventually(|| workers.get() == 2);
        match outcome {
            Ok(5) => assert!(has_value && runs.get() == 1, "{step}"),
            Err(TaskError::WorkerDied { started: true, .. }) => assert!(!has_value && runs.get() == runs_before, "{step}"),
            other => panic!("{step}: {other:?}"),
        }
        line.ran(1);
    }
    line.steps = line.deaths;
    Table(vec![line]).finish("Named steps");
}

/// Two workers in turn die at the same named step: what the first left to the second comes to the third.
#[test]
fn who_takes_over_dies_as_well() {
    let mut line = Line::new("Work, then who takes over").partly();
    for first in ["pool.leased", "pool.taken", "pool.started", "pool.told"] {
        for second in ["pool.leased", "pool.taken", "pool.told"] {
            let _watched = watch(60);
            let (workers, runs) = (Atomic::new(0u32).unwrap(), Atomic::new(0u32).unwrap());
            let init = |workers: Atomic<u32>, steps: (String, String)| match workers.add(1) {
                0 => arm_at(steps.0.leak(), 1),
                1 => arm_at(steps.1.leak(), 1),
                _ => {}
            };
            let steps = (first.to_owned(), second.to_owned());
            let pool = Pool::builder().workers(1).retries(1).initializer((workers, steps), init).build().unwrap();
            for _ in 0..3 {
                let value = pool.apply((runs.clone(),), |runs: Atomic<u32>| {
                    runs.add(1);
                    5
                });
                assert_eq!(value.unwrap(), 5, "{first} then {second}");
            }
            assert_eq!(runs.get(), 3, "{first} then {second}");
            line.ran(2);
        }
    }
    line.steps = line.runs;
    Table(vec![line]).finish("Two workers");
}

/// It has told that its task panicked, and dies before anything else: that is one attempt, not two.
#[test]
fn a_failure_that_was_told_counts_once() {
    for retries in 1..=3u32 {
        let _watched = watch(60);
        let (workers, runs) = (Atomic::new(0u32).unwrap(), Atomic::new(0u32).unwrap());
        let init = |workers: Atomic<u32>, deaths: u32| {
            if workers.add(1) < deaths {
                arm_at("pool.told", 1);
            }
        };
        let pool = Pool::builder().workers(1).retries(retries).initializer((workers.clone(), retries), init).build().unwrap();
        // Each attempt but the last fails, and its worker dies with the outcome told.
        let value = pool.apply((runs.clone(), retries), |runs: Atomic<u32>, failures: u32| {
            let run = runs.add(1);
            assert!(run >= failures, "attempt {run}");
            run
        });
        assert_eq!(value.unwrap(), retries);
        assert_eq!((runs.get(), workers.get()), (retries + 1, retries + 1));
    }
}

/// A value that lets whoever decodes it wait.
#[derive(Serialize)]
struct Slow(Event);

impl<'de> Deserialize<'de> for Slow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Slow, D::Error> {
        let go = Event::deserialize(deserializer)?;
        go.wait().unwrap();
        Ok(Slow(go))
    }
}

/// Its worker dies when it has told the value, and whoever collects is busy with another one.
#[test]
fn what_was_told_before_a_death_is_true() {
    let _watched = watch(60);
    let go = Event::new().unwrap();
    let pool = Pool::builder().workers(2).build().unwrap();
    let slow = pool.submit((go.clone(),), |go: Event| Slow(go)).unwrap();
    let told = pool.submit((), || {
        arm_at("pool.told", 1);
        std::process::id()
    });
    let told = told.unwrap();
    let leads = thread::spawn(move || slow.join().is_ok());
    let before: Vec<u32> = pool.pids();
    assert_eq!(before.len(), 2);
    // One of them is dead, and the pool has had the time to look at it.
    eventually(|| before.iter().any(|pid| multiproc_tests::is_gone(*pid) || is_zombie(*pid)));
    thread::sleep(Duration::from_millis(100));
    go.set().unwrap();
    assert!(leads.join().unwrap());
    assert!(before.contains(&told.join().unwrap()));
}

fn is_zombie(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

fn is_stopped(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "))
}

fn go_on(pid: u32) {
    // SAFETY: touches no memory; the pid is that of a worker of a pool that is there.
    unsafe { libc::kill(pid.cast_signed(), libc::SIGCONT) };
}

/// A worker has told that its task panicked, and is stopped before it clears its desk. The next attempt is another worker's, though that one has to ask whether it may begin it.
#[test]
fn a_failure_that_was_told_is_not_in_the_way_of_the_next_attempt() {
    let _watched = watch(60);
    let failed = Arc::new(AtomicBool::new(false));
    let only_if = {
        let failed = failed.clone();
        move |_: &TaskError| {
            failed.store(true, Ordering::SeqCst);
            true
        }
    };
    let pool = Pool::builder().workers(2).retries(1).only_if(only_if).env("RUST_BACKTRACE", "0").build().unwrap();
    let (stopped, begun, go) = (Atomic::new(0u32).unwrap(), Event::new().unwrap(), Event::new().unwrap());
    let busy = pool.submit((begun.clone(), go.clone()), |begun: Event, go: Event| {
        begun.set().unwrap();
        go.wait().unwrap();
    });
    let busy = busy.unwrap();
    begun.wait().unwrap();
    let task = pool.submit((stopped.clone(),), |stopped: Atomic<u32>| {
        if stopped.get() == 0 {
            stopped.set(std::process::id());
            arm_signal(libc::SIGSTOP, named("pool.told"));
            panic!("as planned");
        }
        5u32
    });
    let task = task.unwrap();
    // Who looks hears what has been told. A moment later the next attempt lies in the queue.
    eventually(|| !task.is_done() && failed.load(Ordering::SeqCst) && is_stopped(stopped.get()));
    thread::sleep(Duration::from_millis(100));
    // As long as something that was cancelled lies in the queue, whoever begins a task asks.
    let cancelled = pool.submit((), || ()).unwrap();
    cancelled.cancel();
    assert!(matches!(cancelled.join(), Err(TaskError::Cancelled)));
    go.set().unwrap();
    assert_eq!(task.join().unwrap(), 5);
    busy.join().unwrap();
    go_on(stopped.get());
}

/// What the only worker that is free does with a task while its client claims it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Meanwhile {
    /// Dies before it begins it; the next one finds it and asks whether it may.
    Met,
    /// Runs it, and it fails.
    Failed,
}

/// How often a task runs that its client claims while that happens, and its outcome. All of it comes to pass before the pool hears of any.
fn claimed(meanwhile: Meanwhile) -> (u32, Result<u32, TaskError>) {
    // Two attempts at the most.
    let pool = Pool::builder().workers(3).retries(1).env("RUST_BACKTRACE", "0").build().unwrap();
    let event = || Event::new().unwrap();
    let (submitted, claim, begun, free, told, go) = (event(), event(), event(), event(), event(), event());
    let (runs, stopped) = (Atomic::new(0u32).unwrap(), Atomic::new(0u32).unwrap());
    // The worker that will find the task.
    let finds = pool.submit((begun.clone(), free.clone(), meanwhile), |begun: Event, free: Event, meanwhile: Meanwhile| {
        begun.set().unwrap();
        free.wait().unwrap();
        if meanwhile == Meanwhile::Met {
            arm_at("pool.taken", 1);
        }
    });
    // The worker that keeps the pool busy: its value is not decoded before `go`, and it stops when it has told it.
    let keeps = pool.submit((stopped.clone(), told.clone(), go.clone()), |stopped: Atomic<u32>, told: Event, go: Event| {
        stopped.set(std::process::id());
        told.wait().unwrap();
        arm_signal(libc::SIGSTOP, named("pool.told"));
        Slow(go)
    });
    let (finds, keeps) = (finds.unwrap(), keeps.unwrap());
    begun.wait().unwrap();
    eventually(|| stopped.get() != 0);
    // The worker whose task is the client.
    let args = (pool.clone(), runs.clone(), submitted.clone(), claim.clone(), meanwhile);
    let client = pool.submit(args, |pool: Pool, runs: Atomic<u32>, submitted: Event, claim: Event, meanwhile: Meanwhile| {
        let run = |runs: Atomic<u32>, meanwhile: Meanwhile| {
            let run = runs.add(1);
            assert!(meanwhile == Meanwhile::Met, "attempt {run}");
            run
        };
        let task = pool.submit((runs, meanwhile), run).unwrap();
        submitted.set().unwrap();
        claim.wait().unwrap();
        task.join().map_err(|e| e.to_string())
    });
    let client = client.unwrap();
    submitted.wait().unwrap();
    // It has told so before; who looks hears it.
    assert!(!client.is_done());
    let hears = thread::spawn(move || keeps.join().map(|_| ()));
    told.set().unwrap();
    eventually(|| is_stopped(stopped.get()));
    // What it is to come to cannot be seen from outside.
    let moment = || thread::sleep(Duration::from_millis(500));
    moment();
    claim.set().unwrap();
    moment();
    free.set().unwrap();
    moment();
    if meanwhile == Meanwhile::Met {
        go_on(stopped.get());
        moment();
    }
    go.set().unwrap();
    hears.join().unwrap().unwrap();
    finds.join().unwrap();
    go_on(stopped.get());
    let outcome = client.join();
    // Nothing is left of it.
    pool.close();
    pool.join().unwrap();
    assert!(format!("{pool:?}").contains("tasks: 0"), "{pool:?}");
    (runs.get(), outcome.map(|outcome| outcome.unwrap_or(u32::MAX)))
}

/// A worker meets a task that its client is about to take back, and throws it away: the client runs it.
#[test]
fn what_is_met_while_it_is_claimed_runs_once() {
    let _watched = watch(60);
    assert!(matches!(claimed(Meanwhile::Met), (1, Ok(0))));
}

/// A worker has run a task, and it has failed, when its client would take it back: that attempt counts.
#[test]
fn what_has_failed_while_it_is_claimed_is_not_taken_back() {
    let _watched = watch(60);
    assert!(matches!(claimed(Meanwhile::Failed), (2, Ok(u32::MAX))));
}
