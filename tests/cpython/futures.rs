//! `FutureTests`, `WaitTests`, `AsCompletedTests`: a task at each stage, alone and among others.

use crate::stage::{SHORT, held, waits, watched};
use multiproc::{Event, Pool, ReturnWhen, Semaphore, Task, TaskError, as_completed, wait_tasks};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

fn good(pool: &Pool) -> Task<u32> {
    pool.submit((), || 5u32).unwrap()
}

fn bad(pool: &Pool) -> Task<u32> {
    pool.submit((), || -> u32 { panic!("wrong") }).unwrap()
}

fn done(task: Task<u32>) -> Task<u32> {
    assert!(task.wait_timeout(LONG));
    task
}

/// One that waits behind another, and is cancelled.
fn cancelled(pool: &Pool) -> Task<u32> {
    let (_first, runs, go) = held(pool);
    runs.wait().unwrap();
    let task = good(pool);
    task.cancel();
    go.set().unwrap();
    task
}

fn told(task: Task<u32>) -> Result<u32, TaskError> {
    let (to, from) = mpsc::channel();
    task.on_done(move |outcome| to.send(outcome).unwrap());
    let outcome = from.recv().unwrap();
    assert!(from.recv().is_err(), "told twice");
    outcome
}

fn is_wrong(outcome: Result<u32, TaskError>) {
    assert!(matches!(&outcome, Err(TaskError::Panicked { message, .. }) if message == "wrong"), "{outcome:?}");
}

#[test]
fn done_callback_with_result() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    assert_eq!(told(good(&pool)).unwrap(), 5);
    assert_eq!(told(done(good(&pool))).unwrap(), 5);
}

#[test]
fn done_callback_with_error() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    is_wrong(told(bad(&pool)));
    is_wrong(told(done(bad(&pool))));
}

#[test]
fn done_callback_with_cancel() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    assert!(told(cancelled(&pool)).unwrap_err().is_cancelled());
    let (_first, _, go) = held(&pool);
    let (to, from) = mpsc::channel();
    let waits = good(&pool);
    waits.cancel();
    waits.on_done(move |outcome| to.send(outcome).unwrap());
    assert!(from.recv().unwrap().unwrap_err().is_cancelled());
    go.set().unwrap();
}

#[test]
fn done_callback_that_panics() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    good(&pool).on_done(|_| panic!("a callback that panics"));
    done(good(&pool)).on_done(|_| panic!("a callback that panics"));
    assert_eq!(told(good(&pool)).unwrap(), 5);
}

#[test]
fn repr() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    let (task, runs, go) = held(&pool);
    runs.wait().unwrap();
    assert!(format!("{task:?}").contains("done: false, running: true"), "{task:?}");
    assert!(format!("{:?}", good(&pool)).contains("done: false, running: false"));
    go.set().unwrap();
    assert!(format!("{:?}", done(task)).contains("done: true, running: false"));
}

/// Waiting, running, cancelled, done, failed.
#[test]
fn cancel() {
    let _watched = watched();
    let pool = Pool::builder().workers(1).grace(SHORT).build().unwrap();
    let (running, runs, _) = held(&pool);
    let waiting = good(&pool);
    runs.wait().unwrap();
    waiting.cancel();
    assert!(waiting.is_done());
    waiting.cancel();
    assert!(waiting.join().unwrap_err().is_cancelled());
    // Further than Python goes: one that runs is ended.
    running.cancel();
    assert!(waits(|| running.join()).unwrap_err().is_cancelled());
    let (over, failed) = (done(good(&pool)), done(bad(&pool)));
    over.cancel();
    failed.cancel();
    assert_eq!(over.join().unwrap(), 5);
    is_wrong(failed.join());
}

#[test]
fn states() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    let (running, runs, go) = held(&pool);
    let waiting = good(&pool);
    runs.wait().unwrap();
    let state = |task: &Task<u32>| (task.is_running(), task.is_done());
    assert_eq!((state(&running), state(&waiting)), ((true, false), (false, false)));
    go.set().unwrap();
    let all = [running, waiting, bad(&pool)].map(done);
    assert!(all.iter().all(|task| state(task) == (false, true)));
    assert_eq!(state(&cancelled(&pool)), (false, true));
}

#[test]
fn result_with_a_limit() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    let (mut task, _, go) = held(&pool);
    assert_eq!(waits(|| task.join_timeout(SHORT)).unwrap(), None);
    assert_eq!(task.join_timeout(Duration::ZERO).unwrap(), None);
    go.set().unwrap();
    assert_eq!(task.join_timeout(LONG).unwrap(), Some(5));
    let mut failed = bad(&pool);
    is_wrong(failed.join_timeout(LONG).map(Option::unwrap));
    let mut over = cancelled(&pool);
    assert!(over.join_timeout(LONG).unwrap_err().is_cancelled());
}

#[test]
fn result_that_comes_while_somebody_waits() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    let (task, runs, go) = held(&pool);
    runs.wait().unwrap();
    thread::scope(|s| {
        s.spawn(|| {
            thread::sleep(SHORT);
            go.set().unwrap();
        });
        assert_eq!(waits(|| task.join()).unwrap(), 5);
    });
    let (first, _, go) = held(&pool);
    let waiting = good(&pool);
    thread::scope(|s| {
        let joins = s.spawn(|| waiting.wait_timeout(Duration::from_secs(3600)));
        thread::sleep(SHORT);
        waiting.cancel();
        assert!(joins.join().unwrap());
    });
    go.set().unwrap();
    first.join().unwrap();
}

/// One outcome, given out once.
#[test]
fn one_outcome() {
    let _watched = watched();
    let pool = Pool::builder().workers(1).grace(SHORT).build().unwrap();
    let mut task = done(good(&pool));
    task.cancel();
    pool.terminate();
    assert_eq!(task.try_join().unwrap(), Some(5));
    assert!(matches!(task.try_join(), Err(TaskError::AlreadyJoined)));
}

#[test]
fn wait_for_one_twice() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    let tasks = [done(good(&pool))];
    // A task is one value, and so cannot be there twice: each position is told once.
    assert_eq!(wait_tasks(&tasks, ReturnWhen::All, None), [0]);
    assert_eq!(wait_tasks(&tasks, ReturnWhen::All, None), [0]);
    assert!(wait_tasks::<u32>(&[], ReturnWhen::All, None).is_empty());
}

#[test]
fn first_completed() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let (slow, _, go) = held(&pool);
    let tasks = [slow, good(&pool)];
    assert_eq!(wait_tasks(&tasks, ReturnWhen::FirstCompleted, None), [1]);
    go.set().unwrap();
}

#[test]
fn first_completed_some_already_completed() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let (slow, _, go) = held(&pool);
    let tasks = [cancelled(&pool), done(good(&pool)), slow];
    assert_eq!(wait_tasks(&tasks, ReturnWhen::FirstCompleted, None), [0, 1]);
    go.set().unwrap();
}

#[test]
fn first_error() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let (slow, _, go) = held(&pool);
    let tasks = [done(good(&pool)), bad(&pool), slow];
    assert_eq!(wait_tasks(&tasks, ReturnWhen::FirstError, None), [0, 1]);
    go.set().unwrap();
    // Without one, it is all.
    let tasks = [good(&pool), good(&pool)];
    assert_eq!(wait_tasks(&tasks, ReturnWhen::FirstError, None), [0, 1]);
}

#[test]
fn first_error_some_already_complete() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let (slow, _, go) = held(&pool);
    let tasks = [done(good(&pool)), slow, bad(&pool)];
    assert_eq!(wait_tasks(&tasks, ReturnWhen::FirstError, None), [0, 2]);
    go.set().unwrap();
}

#[test]
fn first_error_one_already_failed() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let (slow, _, go) = held(&pool);
    let tasks = [slow, done(bad(&pool))];
    assert_eq!(wait_tasks(&tasks, ReturnWhen::FirstError, None), [1]);
    go.set().unwrap();
}

#[test]
fn all_completed() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let tasks = [done(good(&pool)), cancelled(&pool), good(&pool), bad(&pool)];
    assert_eq!(wait_tasks(&tasks, ReturnWhen::All, None), [0, 1, 2, 3]);
    // Of two pools.
    let other = Pool::new(1).unwrap();
    let tasks = [good(&pool), good(&other), bad(&other)];
    assert_eq!(wait_tasks(&tasks, ReturnWhen::All, Some(LONG)), [0, 1, 2]);
}

#[test]
fn wait_with_a_limit() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let (slow, _, go) = held(&pool);
    let tasks = [done(good(&pool)), slow];
    assert_eq!(waits(|| wait_tasks(&tasks, ReturnWhen::All, Some(SHORT))), [0]);
    go.set().unwrap();
}

#[test]
fn many_that_end_at_once() {
    let _watched = watched();
    let pool = Pool::new(4).unwrap();
    for _ in 0..10 {
        let go = Event::new().unwrap();
        let tasks: Vec<_> = (0..20).map(|_| pool.submit((go.clone(),), |go: Event| go.wait().unwrap()).unwrap()).collect();
        go.set().unwrap();
        assert_eq!(wait_tasks(&tasks, ReturnWhen::All, None).len(), 20);
    }
}

#[test]
fn as_they_complete() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let tasks = [cancelled(&pool), done(good(&pool)), good(&pool), bad(&pool)];
    let mut all: Vec<_> = as_completed(tasks).map(|(at, outcome)| (at, outcome.is_ok())).collect();
    all.sort_unstable();
    assert_eq!(all, [(0, false), (1, true), (2, true), (3, false)]);
    let (slow, _, go) = held(&pool);
    let mut these = as_completed([slow, good(&pool)]);
    assert!(matches!(these.next(), Some((1, Ok(5)))));
    go.set().unwrap();
    assert!(matches!(these.next(), Some((0, Ok(5)))) && these.next().is_none());
}

#[test]
fn as_they_complete_with_a_limit() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let (slow, _, go) = held(&pool);
    let mut tasks = as_completed([done(good(&pool)), slow]);
    assert!(matches!(tasks.next_timeout(LONG), Some((0, Ok(5)))));
    let start = Instant::now();
    assert!(tasks.next_timeout(SHORT).is_none() && start.elapsed() >= SHORT);
    // How many are left, which is what Python's message says.
    assert_eq!(tasks.remaining(), 1);
    go.set().unwrap();
    assert!(matches!(tasks.next_timeout(LONG), Some((1, Ok(5)))));
    assert_eq!(tasks.remaining(), 0);
}

/// What has been given out is not kept.
#[test]
fn as_they_complete_and_are_given_out() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    let semaphore = Semaphore::new(5).unwrap();
    let take = |semaphore: Semaphore| semaphore.acquire_owned().unwrap();
    let tasks: Vec<_> = (0..5).map(|_| pool.submit((semaphore.clone(),), take).unwrap()).collect();
    let mut tasks = as_completed(tasks);
    for (_, permit) in tasks.by_ref() {
        drop(permit.unwrap());
    }
    multiproc_tests::eventually(|| semaphore.available() == 5);
    drop(tasks);
}
