//! `ExecutorTest`, `ProcessPoolExecutorTest`, the shutdown tests and the initializers of `concurrent.futures`, for pools of processes, of threads, and of the caller.

use crate::stage::{SHORT, alone, held, program, said, waits, watched};
use multiproc::{Atomic, Event, OwnedPermit, Pool, Semaphore, Signal, Task, TaskError, ThreadPool};
use multiproc_tests::{eventually, is_gone};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Each kind of pool, as in each class that inherits from `ExecutorTest`.
fn each_kind(test: impl Fn(&Pool)) {
    let _watched = watched();
    let kinds: [Pool; 3] = [Pool::new(2).unwrap(), (*ThreadPool::new(2).unwrap()).clone(), Pool::inline().unwrap()];
    kinds.iter().for_each(test);
}

fn pow(a: u64, b: u32) -> u64 {
    a.pow(b)
}

fn divide(n: u64) -> u64 {
    12 / n
}

#[test]
fn submit() {
    each_kind(|pool| assert_eq!(pool.submit((2, 8), pow).unwrap().join().unwrap(), 256));
}

#[test]
fn map() {
    each_kind(|pool| {
        assert_eq!(pool.map(1..5, divide).unwrap(), [12, 6, 4, 3]);
        assert_eq!(pool.imap(1..5, divide).map(Result::unwrap).collect::<Vec<_>>(), [12, 6, 4, 3]);
    });
}

#[test]
fn map_error() {
    each_kind(|pool| {
        let mut values = pool.imap([4, 0, 3], divide);
        assert_eq!(values.next().unwrap().unwrap(), 3);
        assert!(matches!(values.next(), Some(Err(TaskError::Panicked { message, .. })) if message.contains("divide by zero")));
        assert!(pool.map([4, 0, 3], divide).is_err());
    });
}

#[test]
fn map_with_a_limit() {
    let _watched = watched();
    let pool = Pool::builder().workers(1).grace(SHORT).build().unwrap();
    let e =
        waits(|| pool.task().timeout(SHORT).submit((3_600_000,), |ms| thread::sleep(Duration::from_millis(ms))).unwrap().join());
    assert!(e.unwrap_err().is_timeout());
    let mut tasks = multiproc::as_completed(
        [0, 3_600_000].map(|ms| pool.submit((ms,), |ms: u64| thread::sleep(Duration::from_millis(ms))).unwrap()),
    );
    assert!(tasks.next_timeout(LONG).is_some());
    assert!(waits(|| tasks.next_timeout(SHORT)).is_none());
    pool.terminate();
}

#[test]
fn map_left_early() {
    let _watched = watched();
    let pool = Pool::builder().workers(1).grace(SHORT).build().unwrap();
    let begun = Atomic::new(0u32).unwrap();
    let mut values = pool.imap(std::iter::repeat_n(begun.clone(), 20), |begun: Atomic<u32>| {
        if begun.add(1) > 0 {
            thread::sleep(Duration::from_secs(3600));
        }
    });
    values.next().unwrap().unwrap();
    drop(values);
    assert_eq!(pool.apply((), || 1).unwrap(), 1);
    assert!(begun.get() <= 2);
}

#[test]
fn map_takes_no_more_than_its_window() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let taken = Cell::new(0);
    let mut values = pool.imap((1..).inspect(|_| taken.set(taken.get() + 1)), divide);
    assert_eq!(taken.get(), 0);
    for n in 1..20 {
        assert_eq!(values.next().unwrap().unwrap(), divide(n));
        assert!(taken.get() >= n && taken.get() <= n + 8, "{}", taken.get());
    }
}

#[test]
fn map_of_several_iterators() {
    each_kind(|pool| {
        let both = (2u64..).zip([0u32, 1, 2]);
        assert_eq!(pool.map(both, |(a, b)| pow(a, b)).unwrap(), [1, 3, 16]);
        let both = (2u64..).zip(std::iter::repeat(2u32));
        assert_eq!(pool.imap(both, |(a, b)| pow(a, b)).take(3).map(Result::unwrap).collect::<Vec<_>>(), [4, 9, 16]);
    });
}

#[test]
fn map_of_nothing() {
    each_kind(|pool| assert!(pool.map([], divide).unwrap().is_empty() && pool.imap([], divide).next().is_none()));
}

/// A pool that is dropped while another thread submits.
#[test]
fn a_race_with_shutdown() {
    let _watched = watched();
    for _ in 0..10 {
        let pool = Pool::new(2).unwrap();
        thread::scope(|s| {
            let submits = s.spawn(|| {
                let mut tasks = Vec::new();
                while let Ok(task) = pool.submit((3,), divide) {
                    tasks.push(task);
                }
                tasks
            });
            pool.close();
            let tasks = submits.join().unwrap();
            assert!(tasks.into_iter().all(|task| task.join().unwrap() == 4));
        });
        pool.join().unwrap();
    }
}

/// Neither a pool nor a task keeps arguments or values that have been given out.
#[test]
fn nothing_stale() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    let semaphore = Semaphore::new(20).unwrap();
    let permits = (0..20).map(|_| semaphore.acquire_owned().unwrap());
    for permit in pool.imap(permits, |permit: OwnedPermit| permit) {
        drop(permit.unwrap());
    }
    // In the worker as well.
    eventually(|| semaphore.available() == 20);
}

#[test]
fn no_worker_at_all() {
    assert!(Pool::new(0).is_err() && ThreadPool::new(0).is_err());
}

/// Only the task that ran is lost, and the pool goes on.
#[test]
fn killed_child() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    assert!(pool.ready(LONG));
    let (task, runs, _) = held(&pool);
    runs.wait().unwrap();
    // SAFETY: touches no memory; the pid is that of this pool's worker.
    unsafe { libc::kill(pool.pids()[0].cast_signed(), libc::SIGKILL) };
    let e = task.join().unwrap_err();
    assert_eq!(e.signal(), Some(Signal::KILL));
    // It says who, and of what.
    assert!(matches!(&e, TaskError::WorkerDied { pid, .. } if e.to_string().contains(&pid.to_string())), "{e}");
    assert_eq!(pool.apply((2, 8), pow).unwrap(), 256);
}

#[test]
fn map_in_chunks() {
    each_kind(|pool| {
        for length in [0, 1, 5, 50, 1000] {
            assert_eq!(pool.map_chunks(1..41, length, |n: u64| n * n).unwrap(), (1..41).map(|n| n * n).collect::<Vec<_>>());
        }
    });
}

#[test]
fn traceback() {
    each_kind(|pool| {
        let e = pool.submit((), || -> u64 { panic!("a special place") }).unwrap().join().unwrap_err();
        assert!(matches!(&e, TaskError::Panicked { location, .. } if location.contains("executor.rs:")), "{e:?}");
    });
}

#[test]
fn no_more_workers_than_asked_for() {
    let _watched = watched();
    let pool = Pool::builder().workers(3).idle_timeout(LONG).build().unwrap();
    let go = Event::new().unwrap();
    let tasks: Vec<_> = (0..15).map(|_| pool.submit((go.clone(),), |go: Event| go.wait().unwrap()).unwrap()).collect();
    eventually(|| tasks.iter().filter(|task| task.is_running()).count() == 3);
    eventually(|| pool.pids().len() == 3);
    go.set().unwrap();
    tasks.into_iter().for_each(|task| task.join().unwrap());
    assert_eq!(pool.pids().len(), 3);
}

#[test]
fn idle_workers_are_used_again() {
    let _watched = watched();
    let pool = Pool::builder().workers(4).idle_timeout(LONG).build().unwrap();
    let pids: BTreeSet<u32> = (0..3).map(|_| pool.apply((), std::process::id).unwrap()).collect();
    assert_eq!(pids.len(), 1);
    eventually(|| pool.pids().len() == 1);
    let go = Event::new().unwrap();
    let hold = |go: Event| (go.wait().unwrap(), std::process::id()).1;
    let tasks: Vec<_> = (0..2).map(|_| pool.submit((go.clone(),), hold).unwrap()).collect();
    eventually(|| tasks.iter().all(Task::is_running));
    go.set().unwrap();
    let both: BTreeSet<u32> = tasks.into_iter().map(|task| task.join().unwrap()).collect();
    assert!(both.len() == 2 && both.is_superset(&pids));
    eventually(|| pool.pids().len() == 2);
}

#[test]
fn max_tasks_per_worker() {
    let _watched = watched();
    let pool = Pool::builder().workers(1).max_tasks_per_worker(3).build().unwrap();
    let pids: Vec<u32> = (0..4).map(|_| pool.apply((), std::process::id).unwrap()).collect();
    assert!(pids[0] == pids[1] && pids[1] == pids[2] && pids[2] != pids[3], "{pids:?}");
}

/// More tasks than the workers that are there may run, and the last handle is gone.
#[test]
fn max_tasks_and_early_shutdown() {
    let _watched = watched();
    let pool = Pool::builder().workers(3).max_tasks_per_worker(1).build().unwrap();
    let tasks: Vec<_> = (0..6).map(|n| pool.submit((n, 2), pow).unwrap()).collect();
    drop(pool);
    assert!(tasks.into_iter().enumerate().all(|(n, task)| task.join().unwrap() == pow(n as u64, 2)));
}

/// Whatever the workers do, also when some are dead, or none has begun yet.
#[test]
fn terminate() {
    let _watched = watched();
    let pool = Pool::builder().workers(2).grace(SHORT).build().unwrap();
    pool.terminate();
    let pool = Pool::builder().workers(2).grace(SHORT).build().unwrap();
    let (first, runs, _) = held(&pool);
    let waits = pool.submit((2, 2), pow).unwrap();
    runs.wait().unwrap();
    assert!(waits.wait_timeout(LONG));
    let dead = pool.submit((), || -> u32 { std::process::exit(1) }).unwrap();
    assert_eq!(dead.join().unwrap_err().exit_code(), Some(1));
    let pids = pool.pids();
    pool.terminate();
    assert!(pids.into_iter().all(is_gone) && pool.pids().is_empty());
    assert!(first.join().unwrap_err().is_cancelled());
    assert!(pool.submit((), || ()).unwrap_err().is_closed());
    pool.terminate();
}

/// No thread can be started: an error that says so, no hang, and nothing stays of the attempt.
#[test]
fn no_thread_to_be_had() {
    let _watched = watched();
    let text = alone("executor::starts_without_threads");
    assert!(text.contains("threads again"), "{text}");
}

/// Sets the soft limit of address space; the one before.
fn limit_address_space(bytes: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes one `rlimit`.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) }, 0);
    let before = limit.rlim_cur;
    limit.rlim_cur = bytes;
    // SAFETY: reads one `rlimit`.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    before
}

#[test]
#[ignore = "a program of its own"]
fn starts_without_threads() {
    // The arena is there; a thread's stack would have to be mapped, and is larger than what is left.
    let _arena = multiproc::Atomic::new(0u32).unwrap();
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let used = pages.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096;
    let before = limit_address_space(used + (1 << 20));
    // Stacks of threads that have ended are used again: until there are none.
    let gate = std::sync::Arc::new(std::sync::Mutex::new(()));
    let closed = gate.lock().unwrap();
    let mut taken = Vec::new();
    loop {
        let gate = gate.clone();
        match thread::Builder::new().spawn(move || drop(gate.lock())) {
            Ok(thread) => taken.push(thread),
            Err(_) => break,
        }
    }
    let refused = [
        // Without workers at first: the pool's own thread is what fails.
        Pool::builder().workers(2).idle_timeout(Duration::from_secs(1)).build().map(drop),
        Pool::builder().workers(2).build().map(drop),
        Pool::builder().workers(2).threads().build().map(drop),
    ];
    limit_address_space(before);
    drop(closed);
    taken.into_iter().for_each(|thread| thread.join().unwrap());
    let texts = refused.map(|outcome| outcome.map_or_else(|e| e.to_string(), |()| "begun".to_owned()));
    assert!(texts[0].contains("thread") && texts[2].contains("thread"), "{texts:?}");
    // No worker is left behind: those of the second end when it has been refused.
    multiproc_tests::eventually(|| multiproc::active_children().is_empty());
    for pool in [Pool::new(2).unwrap(), Pool::builder().workers(2).threads().build().unwrap()] {
        assert_eq!(pool.apply((2, 5), pow).unwrap(), 32);
    }
    println!("threads again");
}

#[test]
fn run_after_shutdown() {
    each_kind(|pool| {
        pool.close();
        assert!(pool.submit((2, 2), pow).unwrap_err().is_closed());
    });
}

/// What is pending at the end of the program's `main` is done, if its pool is dropped there.
#[test]
fn end_of_the_program() {
    let _watched = watched();
    let text = alone("executor::leaves_work_at_its_end");
    assert_eq!(text.matches("apple").count(), 5, "{text}");
}

#[test]
#[ignore = "a program of its own"]
fn leaves_work_at_its_end() {
    let pool = Pool::new(2).unwrap();
    for _ in 0..5 {
        drop(pool.submit((), || println!("apple")).unwrap());
    }
}

/// At the exit of the program a thread of its still submits.
#[test]
fn submit_at_the_end_of_the_program() {
    let _watched = watched();
    let out = program("executor::submits_to_its_end").output().unwrap();
    assert_eq!(out.status.code(), Some(6), "{}", said(&out));
}

#[test]
#[ignore = "a program of its own"]
fn submits_to_its_end() {
    static SUBMITTED: AtomicU32 = AtomicU32::new(0);
    let pool = Pool::new(2).unwrap();
    thread::spawn(move || {
        while pool.apply((2, 2), pow).is_ok() {
            SUBMITTED.fetch_add(1, Ordering::SeqCst);
        }
    });
    eventually(|| SUBMITTED.load(Ordering::SeqCst) > 10);
    std::process::exit(6);
}

/// Many short tasks, and then the end.
#[test]
fn no_hang_after_many_tasks() {
    each_kind(|pool| {
        let tasks: Vec<_> = (0..50).map(|_| pool.submit((2, 2), pow).unwrap()).collect();
        pool.close();
        pool.join().unwrap();
        assert!(tasks.into_iter().all(|task| task.join().unwrap() == 4));
    });
}

#[test]
fn cancel_what_waits() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let held = [(); 2].map(|()| held(&pool));
    held.iter().for_each(|(_, runs, _)| runs.wait().unwrap());
    let waiting: Vec<_> = (0..50).map(|n| pool.submit((n, 1), pow).unwrap()).collect();
    waiting.iter().skip(10).for_each(Task::cancel);
    held.iter().for_each(|(_, _, go)| go.set().unwrap());
    drop(pool);
    let outcomes: Vec<_> = waiting.into_iter().map(Task::join).collect();
    assert!(outcomes[..10].iter().all(Result::is_ok));
    assert!(outcomes[10..].iter().all(|outcome| outcome.as_ref().is_err_and(TaskError::is_cancelled)));
    assert!(held.into_iter().all(|(task, ..)| task.join().is_ok()));
}

/// A task fails to be submitted, or is cancelled, and then the pool is dropped, with and without its work done.
#[test]
fn cancel_then_shutdown() {
    let _watched = watched();
    for terminates in [false, true] {
        let pool = Pool::builder().workers(1).grace(SHORT).build().unwrap();
        let (first, runs, go) = held(&pool);
        runs.wait().unwrap();
        let waiting: Vec<_> = (0..3).map(|n| pool.submit((n, 1), pow).unwrap()).collect();
        waiting.iter().for_each(Task::cancel);
        if terminates {
            pool.terminate();
        } else {
            go.set().unwrap();
        }
        drop(pool);
        assert_eq!(first.join().is_ok(), !terminates);
        assert!(waiting.into_iter().all(|task| task.join().unwrap_err().is_cancelled()));
    }
}

#[test]
fn processes_end_with_their_pool() {
    let _watched = watched();
    let pool = Pool::new(3).unwrap();
    assert!(pool.ready(LONG));
    let pids = pool.pids();
    assert_eq!((pids.len(), pool.map(1..4, divide).unwrap().len()), (3, 3));
    drop(pool);
    assert!(pids.into_iter().all(is_gone));
}

#[test]
fn end_of_scope() {
    let _watched = watched();
    let tasks: Vec<_> = {
        let pool = Pool::new(2).unwrap();
        (1..10).map(|n| pool.submit((n,), divide).unwrap()).collect()
    };
    assert!(tasks.iter().all(Task::is_done));
}

#[test]
fn close_does_not_wait() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    let (task, _, go) = held(&pool);
    pool.close();
    assert!(!task.is_done());
    go.set().unwrap();
    assert_eq!(task.join().unwrap(), 5);
    pool.join().unwrap();
}

#[test]
fn initializer() {
    let _watched = watched();
    let begun = Atomic::new(0u32).unwrap();
    let pool = Pool::builder().workers(2).initializer((begun.clone(),), |begun: Atomic<u32>| _ = begun.add(1)).build().unwrap();
    assert!(pool.ready(LONG));
    assert_eq!(begun.get(), 2);
}

/// Broken, with the reason, for who waits and for who comes.
#[test]
fn failing_initializer() {
    let _watched = watched();
    let pool = Pool::builder().workers(2).initializer((), || panic!("no licence")).build().unwrap();
    let tasks: Vec<_> = (0..3).filter_map(|n| pool.submit((n, 1), pow).ok()).collect();
    let broken = |e: &TaskError| matches!(e, TaskError::Refused(e) if e.is_broken() && e.to_string().contains("no licence"));
    assert!(tasks.into_iter().all(|task| broken(&task.join().unwrap_err())));
    eventually(|| pool.submit((1, 1), pow).is_err_and(|e| e.is_broken()));
}

#[test]
fn threads_end_with_their_pool() {
    let _watched = watched();
    let pool = ThreadPool::new(3).unwrap();
    let task = pool.submit((2, 8), pow).unwrap();
    pool.close();
    pool.join().unwrap();
    assert!(task.is_done());
}

#[test]
fn cancel_what_waits_for_a_thread() {
    let _watched = watched();
    let pool = ThreadPool::new(1).unwrap();
    let (first, runs, go) = held(&pool);
    runs.wait().unwrap();
    let waits = pool.submit((2, 2), pow).unwrap();
    waits.cancel();
    go.set().unwrap();
    assert_eq!(first.join().unwrap(), 5);
    assert!(waits.join().unwrap_err().is_cancelled());
}

#[test]
fn default_workers() {
    let _watched = watched();
    assert_eq!(Pool::builder().threads().build().unwrap().workers(), multiproc::cpu_count());
}

#[test]
fn no_more_threads_than_asked_for() {
    let _watched = watched();
    static NOW: AtomicU32 = AtomicU32::new(0);
    let pool = ThreadPool::new(3).unwrap();
    let most = pool.map_chunks(0..60, 1, |_: u32| {
        let now = NOW.fetch_add(1, Ordering::SeqCst) + 1;
        thread::sleep(Duration::from_millis(2));
        NOW.fetch_sub(1, Ordering::SeqCst);
        now
    });
    assert!(most.unwrap().into_iter().max().unwrap() <= 3);
}

/// A thread pool's iterator panics while its tasks are out.
#[test]
fn threads_and_an_iterator_that_panics() {
    let _watched = watched();
    let pool = ThreadPool::new(2).unwrap();
    let bad = (1..20).inspect(|n| assert_ne!(*n, 9, "bad"));
    assert!(catch_unwind(AssertUnwindSafe(|| pool.map_chunks(bad, 1, divide))).is_err());
    assert_eq!(pool.apply((3,), divide).unwrap(), 4);
}
