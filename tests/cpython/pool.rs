//! `_TestPool`, `_TestPoolWorkerErrors`, `_TestPoolWorkerLifetime`, `TestPoolNotLeakOnFailure`: pools of processes, as `multiprocessing.Pool` has them.

use crate::stage::{SHORT, alone, program, said, waits, watched};
use multiproc::{Atomic, Event, OwnedPermit, Pool, Process, Semaphore, Task, TaskError, ThreadPool};
use serde::{Serialize, Serializer};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A value that no encoder accepts.
#[derive(Clone, Default, serde::Deserialize)]
struct Unsendable;

impl Serialize for Unsendable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("this one cannot travel"))
    }
}

fn sqr(x: u64) -> u64 {
    x * x
}

fn is_a_panic(outcome: Result<u64, TaskError>, text: &str) {
    assert!(matches!(&outcome, Err(TaskError::Panicked { message, .. }) if message.contains(text)), "{outcome:?}");
}

#[test]
fn apply() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.apply((5,), sqr).unwrap(), 25);
    assert_eq!(pool.apply((3, "x".to_owned()), |n: usize, text: String| text.repeat(n)).unwrap(), "xxx");
}

#[test]
fn map() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.map(0..10, sqr).unwrap(), (0..10).map(sqr).collect::<Vec<_>>());
    assert_eq!(pool.map_chunks(0..100, 20, sqr).unwrap(), (0..100).map(sqr).collect::<Vec<_>>());
}

#[test]
fn starmap() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let product = |(a, b): (u64, u64)| a * b;
    assert_eq!(pool.map((0..10).map(|n| (n, 9 - n)), product).unwrap(), (0..10).map(|n| n * (9 - n)).collect::<Vec<_>>());
    let tasks: Vec<_> = (0..10).map(|n| pool.submit((n, 9 - n), |a: u64, b: u64| a * b).unwrap()).collect();
    assert_eq!(tasks.into_iter().map(|task| task.join().unwrap()).collect::<Vec<_>>()[..3], [0, 8, 14]);
}

#[test]
fn map_while_the_caller_does_something_else() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    thread::scope(|s| {
        let squares = s.spawn(|| pool.map(0..1000, sqr));
        assert_eq!(pool.apply((3,), sqr).unwrap(), 9);
        assert_eq!(squares.join().unwrap().unwrap(), (0..1000).map(sqr).collect::<Vec<_>>());
    });
}

#[test]
fn callbacks() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let (to, from) = mpsc::channel();
    for n in [6u64, 0] {
        let to = to.clone();
        pool.submit((n,), |n: u64| 12 / n).unwrap().on_done(move |outcome| to.send(outcome).unwrap());
    }
    drop(to);
    let told: Vec<_> = from.iter().collect();
    assert_eq!((told.len(), told.iter().filter(|outcome| matches!(outcome, Ok(2))).count()), (2, 1));
    assert!(told.iter().any(|outcome| matches!(outcome, Err(TaskError::Panicked { .. }))));
}

#[test]
fn what_cannot_be_sent() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let call = |_: Unsendable| 1u64;
    assert!(matches!(pool.map([Unsendable], call), Err(TaskError::Refused(e)) if e.is_codec()));
    assert!(pool.submit((Unsendable,), call).unwrap_err().is_codec());
    assert!(pool.imap([Unsendable], call).next().unwrap().is_err_and(|e| e.to_string().contains("cannot travel")));
    assert_eq!(pool.map(0..10, sqr).unwrap().len(), 10);
}

#[test]
fn map_of_nothing() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    assert!(pool.map_chunks([], 1, sqr).unwrap().is_empty() && pool.map([], sqr).unwrap().is_empty());
    assert!(pool.imap([], sqr).next().is_none() && pool.imap_unordered([], sqr).next().is_none());
}

/// One that panics at the start, and in the middle, and one that says too much of its length.
#[test]
fn iterators_that_panic() {
    let _watched = watched();
    struct Lies(u64);
    impl Iterator for Lies {
        type Item = u64;
        fn next(&mut self) -> Option<u64> {
            self.0 = self.0.checked_sub(1)?;
            Some(self.0)
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            (1 << 40, Some(1 << 50))
        }
    }
    let pool = Pool::new(2).unwrap();
    for at in [0, 5] {
        let bad = move || (0..10).inspect(move |n| assert_ne!(*n, at, "bad"));
        assert!(catch_unwind(AssertUnwindSafe(|| pool.map(bad(), sqr))).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| pool.map_chunks(bad(), 3, sqr))).is_err());
    }
    assert_eq!(pool.map(Lies(7), sqr).unwrap().len(), 7);
}

#[test]
fn a_call_in_the_background() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let (go, task) = held(&pool);
    assert!(!task.is_done());
    go.set().unwrap();
    assert_eq!(task.join().unwrap(), 49);
}

fn held(pool: &Pool) -> (Event, Task<u64>) {
    let go = Event::new().unwrap();
    let task = pool.submit((go.clone(),), |go: Event| (go.wait().unwrap(), 49).1).unwrap();
    (go, task)
}

#[test]
fn time_is_up_before_it_is_done() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let (go, mut task) = held(&pool);
    assert_eq!(waits(|| task.join_timeout(SHORT).unwrap()), None);
    go.set().unwrap();
    assert_eq!(task.join().unwrap(), 49);
}

#[test]
fn imap() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.imap(0..10, sqr).map(Result::unwrap).collect::<Vec<_>>(), (0..10).map(sqr).collect::<Vec<_>>());
    let mut it = pool.imap(0..1000, sqr);
    assert!((0..1000).all(|n| it.next().unwrap().unwrap() == n * n) && it.next().is_none());
}

#[test]
fn imap_over_an_iterator_that_panics() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    let mut it = pool.imap((0..100).inspect(|n| assert_ne!(*n, 20, "bad")), sqr);
    // All but those that were out when it did.
    assert!((0..10).all(|n| it.next().unwrap().unwrap() == n * n));
    assert!(catch_unwind(AssertUnwindSafe(|| it.by_ref().for_each(drop))).is_err());
}

#[test]
fn imap_unordered() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let mut all: Vec<u64> = pool.imap_unordered(0..1000, sqr).map(Result::unwrap).collect();
    all.sort_unstable();
    assert_eq!(all, (0..1000).map(sqr).collect::<Vec<_>>());
}

#[test]
fn imap_unordered_over_an_iterator_that_panics() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    let mut it = pool.imap_unordered((0..100).inspect(|n| assert_ne!(*n, 20, "bad")), sqr);
    assert!((0..10).all(|_| it.next().unwrap().is_ok()));
    assert!(catch_unwind(AssertUnwindSafe(|| it.by_ref().for_each(drop))).is_err());
}

#[test]
fn make_pool() {
    let _watched = watched();
    assert!(Pool::new(0).is_err());
    let pool = Pool::new(3).unwrap();
    assert!(pool.ready(Duration::from_secs(60)));
    assert_eq!((pool.workers(), pool.pids().len()), (3, 3));
    pool.close();
    pool.join().unwrap();
}

#[test]
fn terminate() {
    let _watched = watched();
    let pool = Pool::builder().workers(3).grace(SHORT).build().unwrap();
    let tasks: Vec<Task<()>> =
        (0..10_000).map(|_| pool.submit((), || thread::sleep(Duration::from_secs(3600))).unwrap()).collect();
    // The watchdog would end this test long before they were done.
    pool.terminate();
    pool.join().unwrap();
    assert!(tasks.into_iter().all(|task| task.join().unwrap_err().is_cancelled()));
}

/// The end of its scope is the end of the pool, with all its work done.
#[test]
fn end_of_scope() {
    let _watched = watched();
    let (pool, tasks);
    {
        let inner = Pool::new(2).unwrap();
        tasks = (0..20).map(|n| inner.submit((n,), sqr).unwrap()).collect::<Vec<_>>();
        pool = inner.pids();
    }
    assert!(tasks.iter().all(Task::is_done) && pool.into_iter().all(multiproc_tests::is_gone));
}

#[test]
fn traceback() {
    let _watched = watched();
    let pool = Pool::builder().workers(1).env("RUST_BACKTRACE", "1").build().unwrap();
    let line = line!() + 1;
    let e = pool.apply((), || -> u64 { panic!("123") }).unwrap_err();
    let TaskError::Panicked { message, location, backtrace } = e else { panic!("{e}") };
    assert_eq!((message.as_str(), location.contains(&format!("pool.rs:{line}:"))), ("123", true), "{location}");
    assert!(backtrace.contains("pool::traceback"), "{backtrace}");
    // What the caller's own iterator does wrong is the caller's panic, not an outcome.
    let own = catch_unwind(AssertUnwindSafe(|| pool.map((0..1).inspect(|_| panic!("own")), sqr)));
    assert_eq!(own.unwrap_err().downcast_ref::<&str>(), Some(&"own"));
}

#[test]
fn a_panic_in_a_thread() {
    let _watched = watched();
    let pool = ThreadPool::new(1).unwrap();
    is_a_panic(pool.apply((0,), |n: u64| 12 / n), "divide by zero");
    assert_eq!(pool.apply((3,), sqr).unwrap(), 9);
}

/// Many large errors neither fill anything up nor keep others from their end; those after the first are not begun.
#[test]
fn many_large_errors() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let fails = |n: u64| -> u64 { panic!("{n}{}", "x".repeat(1 << 20)) };
    is_a_panic(pool.map_chunks(0..20, 1, fails).map(|_| 0), "0xxx");
    let all = pool.try_map(0..10, fails).unwrap();
    assert!(all.iter().all(Result::is_err));
    pool.close();
    pool.join().unwrap();
}

/// The pool keeps neither arguments nor values.
#[test]
fn what_is_done_is_not_kept() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    let semaphore = Semaphore::new(20).unwrap();
    let permits: Vec<OwnedPermit> = (0..20).map(|_| semaphore.acquire_owned().unwrap()).collect();
    let back = pool.map(permits, |permit: OwnedPermit| permit).unwrap();
    assert_eq!((back.len(), semaphore.available()), (20, 0));
    drop(back);
    multiproc_tests::eventually(|| semaphore.available() == 20);
    // Nor those of a task that nobody waits for.
    drop(pool.submit((semaphore.acquire_owned().unwrap(),), |permit: OwnedPermit| permit).unwrap());
    pool.apply((), || ()).unwrap();
    multiproc_tests::eventually(|| semaphore.available() == 20);
}

#[test]
fn a_closed_pool_is_not_opened_again() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    pool.clone().close();
    assert!(pool.submit((), || ()).unwrap_err().is_closed() && pool.map([1], sqr).is_err());
    pool.terminate();
    assert!(pool.submit((), || ()).unwrap_err().is_closed());
}

#[test]
fn a_callback_for_an_error() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let (to, from) = mpsc::channel();
    pool.submit((), || -> u64 { panic!("wrong") }).unwrap().on_done(move |outcome| to.send(outcome).unwrap());
    is_a_panic(from.recv().unwrap(), "wrong");
}

#[test]
fn a_value_that_cannot_be_sent() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    assert!(pool.ready(Duration::from_secs(60)));
    let pids = pool.pids();
    for _ in 0..20 {
        let outcome = pool.apply((), || Unsendable);
        assert!(matches!(&outcome, Err(TaskError::Unsendable(why)) if why.contains("cannot travel")), "{:?}", outcome.err());
    }
    assert_eq!(pool.pids(), pids);
}

#[test]
fn workers_live_for_so_many_tasks() {
    let _watched = watched();
    let pool = Pool::builder().workers(3).max_tasks_per_worker(10).build().unwrap();
    assert!(pool.ready(Duration::from_secs(60)));
    let before = pool.pids();
    let tasks: Vec<_> = (0..100).map(|n| pool.submit((n,), sqr).unwrap()).collect();
    assert!(tasks.into_iter().enumerate().all(|(n, task)| task.join().unwrap() == sqr(n as u64)));
    multiproc_tests::eventually(|| pool.pids().len() == 3 && pool.pids().iter().all(|pid| !before.contains(pid)));
}

#[test]
fn closed_before_workers_are_replaced() {
    let _watched = watched();
    let pool = Pool::builder().workers(3).max_tasks_per_worker(1).build().unwrap();
    let tasks: Vec<_> =
        (0..6).map(|n| pool.submit((n,), |n: u64| (thread::sleep(Duration::from_millis(30)), n).1).unwrap()).collect();
    pool.close();
    pool.join().unwrap();
    assert!(tasks.into_iter().enumerate().all(|(n, task)| task.join().unwrap() == n as u64));
}

#[test]
fn workers_live_for_one_task_at_least() {
    assert!(Pool::builder().max_tasks_per_worker(0).build().is_err());
}

#[test]
fn a_program_ends_without_closing_its_pool() {
    let _watched = watched();
    let out = program("pool::ends_with_a_pool").output().unwrap();
    assert_eq!(out.status.code(), Some(5), "{}", said(&out));
    alone("pool::forgets_a_pool");
}

#[test]
#[ignore = "a program of its own"]
fn ends_with_a_pool() {
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.apply((2,), sqr).unwrap(), 4);
    let _held = held(&pool);
    std::process::exit(5);
}

#[test]
#[ignore = "a program of its own"]
fn forgets_a_pool() {
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.apply((2,), sqr).unwrap(), 4);
    std::mem::forget(pool);
}

/// When not all can be started, those that were are not left behind.
#[test]
fn workers_that_cannot_be_started() {
    let _watched = watched();
    alone("pool::starts_too_many");
}

#[test]
#[ignore = "a program of its own"]
fn starts_too_many() {
    multiproc::set_memory_limit(8 << 20).unwrap();
    assert!(Pool::new(2000).is_err());
    multiproc_tests::eventually(|| multiproc::active_children().is_empty());
}

#[test]
fn large_pool() {
    let _watched = watched();
    let pool = Pool::new(200).unwrap();
    assert_eq!(pool.map(0..100, sqr).unwrap().len(), 100);
    pool.close();
    pool.join().unwrap();
}

#[test]
fn in_a_process() {
    let _watched = watched();
    let squares = Process::spawn((), || Pool::new(4).unwrap().map(0..5, sqr).unwrap()).unwrap();
    assert_eq!(squares.join().unwrap(), [0, 1, 4, 9, 16]);
}

#[test]
fn initializer() {
    let _watched = watched();
    thread_local!(static READY: Cell<u64> = const { Cell::new(0) });
    let pool = Pool::builder().workers(1).initializer((7,), |n: u64| READY.set(n)).build().unwrap();
    assert_eq!((pool.apply((), || READY.get()).unwrap(), READY.get()), (7, 0));
    let count = Atomic::new(0u32).unwrap();
    let pool = Pool::builder().workers(3).initializer((count.clone(),), |count: Atomic<u32>| _ = count.add(1)).build().unwrap();
    pool.close();
    pool.join().unwrap();
    assert!(count.get() <= 3);
}
