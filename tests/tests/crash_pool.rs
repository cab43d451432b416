//! A worker dies at each step of all that it does, from its first word to the last acknowledgement: each task has one outcome, what was not started is run by
//! the next worker, nothing runs once more than it may, and nobody hangs.
#![cfg(feature = "crash-points")]

#[path = "step_killer/table.rs"]
mod steps;

use multiproc::testing::{arm_at, arm_step};
use multiproc::{Atomic, Event, Pool, Queue, Task, TaskError};
use multiproc_tests::{eventually, watch};
use serde::{Deserialize, Deserializer, Serialize};
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
