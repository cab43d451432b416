//! What a pool can be built with, and how its workers come and go.

use multiproc::{Atomic, Event, Lock, Pool, TaskError, current_process, pool_context};
use multiproc_tests::{eventually, is_gone, watch};
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_secs(60);

#[test]
fn numbers_that_make_no_sense() {
    assert!(Pool::new(0).unwrap_err().to_string().contains("at least one worker"));
    assert!(Pool::builder().max_tasks_per_worker(0).build().unwrap_err().to_string().contains("at least one task"));
    assert!(Pool::builder().queue_bound(0).build().unwrap_err().to_string().contains("at least one task"));
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    assert!(pool.resize(0).is_err());
    assert_eq!(Pool::builder().build().unwrap().workers(), multiproc::cpu_count());
}

#[test]
fn an_initializer_with_handles() {
    let _watched = watch(60);
    let (count, lock) = (Atomic::new(0u32).unwrap(), Lock::new().unwrap());
    let init = |count: Atomic<u32>, lock: Lock, by: u32| {
        let _guard = lock.lock().unwrap();
        count.set(count.get() + by);
    };
    let pool = Pool::builder().workers(3).initializer((count.clone(), lock, 5), init).build().unwrap();
    assert!(pool.ready(LONG));
    assert_eq!(count.get(), 15);
    // So has the one that takes another's place.
    assert!(pool.apply((), || -> () { std::process::exit(0) }).is_err_and(|e: TaskError| e.exit_code() == Some(0)));
    assert!(pool.ready(LONG));
    assert_eq!(count.get(), 20);
}

/// Whichever way it fails: a clear error, no endless starting, all tasks end.
#[test]
fn an_initializer_that_fails() {
    let _watched = watch(60);
    for how in 0..3u32 {
        let begun = Atomic::new(0u32).unwrap();
        let init = |begun: Atomic<u32>, how: u32| {
            begun.add(1);
            match how {
                0 => panic!("no licence"),
                1 => std::process::exit(4),
                _ => std::process::abort(),
            }
        };
        let pool = Pool::builder().workers(2).initializer((begun.clone(), how), init).build().unwrap();
        let tasks: Vec<_> = (0..10).filter_map(|n| pool.submit((n,), |n: u32| n).ok()).collect();
        for task in tasks {
            let e = task.join().unwrap_err();
            assert!(matches!(&e, TaskError::Refused(e) if e.is_broken()), "{e}");
            let text = e.to_string();
            assert!(text.contains(["no licence", "4", "SIGABRT"][how as usize]), "{text}");
        }
        assert!(!pool.ready(LONG));
        let e = pool.submit((), || ()).unwrap_err();
        assert!(e.is_broken() && e.to_string().contains("cannot begin"), "{e}");
        pool.join().unwrap();
        let begun = begun.get();
        assert!((3..=8).contains(&begun), "{begun} were started");
    }
}

/// Two that fail before one that does not: not given up.
#[test]
fn an_initializer_that_fails_twice() {
    let _watched = watch(60);
    let begun = Atomic::new(0u32).unwrap();
    let init = |begun: Atomic<u32>| assert!(begun.add(1) >= 2, "not yet");
    let pool = Pool::builder().workers(1).initializer((begun,), init).build().unwrap();
    assert_eq!(pool.apply((), || 3).unwrap(), 3);
}

#[test]
fn a_context_for_all_tasks() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(2).context(&(vec![1u64, 2, 3], "words".to_owned())).build().unwrap();
    let sum = || {
        let context = pool_context::<(Vec<u64>, String)>().unwrap();
        (context.0.iter().sum::<u64>(), context.1.len(), pool_context::<u32>().is_none())
    };
    for _ in 0..10 {
        assert_eq!(pool.apply((), sum).unwrap(), (6, 5, true));
    }
    assert!(pool_context::<(Vec<u64>, String)>().is_none());
}

#[test]
fn workers_that_run_so_many_tasks() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(2).max_tasks_per_worker(3).build().unwrap();
    // More than all that are there may run.
    let tasks: Vec<_> = (0..30).map(|_| pool.submit((), std::process::id).unwrap()).collect();
    let mut runs = std::collections::BTreeMap::new();
    for task in tasks {
        *runs.entry(task.join().unwrap()).or_insert(0) += 1;
    }
    assert!(runs.len() >= 10 && runs.values().all(|n| *n <= 3), "{runs:?}");
    // One at a time, each on a new one.
    let pool = Pool::builder().workers(1).max_tasks_per_worker(1).build().unwrap();
    let pids: BTreeSet<u32> = (0..5).map(|_| pool.apply((), std::process::id).unwrap()).collect();
    assert_eq!(pids.len(), 5);
}

#[test]
fn time_limits() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(2).task_timeout(SHORT).build().unwrap();
    let start = Instant::now();
    let long = pool.task().timeout(LONG).submit((), || thread::sleep(4 * SHORT)).unwrap();
    let stuck = || -> () {
        loop {
            thread::park();
        }
    };
    let e = pool.apply((), stuck).unwrap_err();
    assert!(e.is_timeout() && start.elapsed() >= SHORT, "{e}");
    assert!(matches!(e, TaskError::TimedOut { after } if after == SHORT));
    // The other one is unharmed, and so is who comes after.
    long.join().unwrap();
    assert_eq!(pool.apply((), || 4).unwrap(), 4);
    // What waits has no time limit.
    let busy: Vec<_> = (0..2).map(|_| pool.task().timeout(LONG).submit((), || thread::sleep(3 * SHORT)).unwrap()).collect();
    assert_eq!(pool.apply((), || 5).unwrap(), 5);
    busy.into_iter().for_each(|task| task.join().unwrap());
    // Many that are over in time.
    let in_time: Vec<_> = (0..500u32).map(|n| pool.submit((n,), |n: u32| n).unwrap()).collect();
    assert!(in_time.into_iter().enumerate().all(|(n, task)| task.join().unwrap() == n as u32));
}

fn fails_until(starts: Atomic<u32>, good: u32) -> u32 {
    let start = starts.add(1) + 1;
    assert!(start >= good, "attempt {start}");
    start
}

#[test]
fn retries() {
    let _watched = watch(60);
    let starts = || Atomic::new(0u32).unwrap();
    let pool = Pool::builder().workers(1).retries(2).build().unwrap();
    let (enough, too_few) = (starts(), starts());
    assert_eq!(pool.apply((enough.clone(), 3), fails_until).unwrap(), 3);
    let e = pool.apply((too_few.clone(), 4), fails_until).unwrap_err();
    assert!(e.to_string().contains("attempt 3"), "{e}");
    assert_eq!((enough.get(), too_few.get()), (3, 3));
    // Deaths and time limits count as well.
    let killed = starts();
    let e = pool.apply((killed.clone(),), |n: Atomic<u32>| -> () {
        n.add(1);
        std::process::abort()
    });
    let e = e.unwrap_err();
    assert!(matches!(e, TaskError::WorkerDied { attempts: 3, .. }) && e.to_string().contains("3. attempt"), "{e}");
    assert_eq!(killed.get(), 3);
    let late = starts();
    let task = pool.task().timeout(SHORT).submit((late.clone(),), |n: Atomic<u32>| -> () {
        n.add(1);
        loop {
            thread::park();
        }
    });
    assert!(task.unwrap().join().unwrap_err().is_timeout());
    assert_eq!(late.get(), 3);
    // Settings of one task.
    let own = starts();
    assert_eq!(pool.task().retries(4).submit((own, 5), fails_until).unwrap().join().unwrap(), 5);
    let none = starts();
    assert!(pool.task().retries(0).submit((none.clone(), 2), fails_until).unwrap().join().is_err());
    assert_eq!(none.get(), 1);
}

#[test]
fn a_pause_between_attempts() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(1).retries(2).backoff(SHORT).build().unwrap();
    let start = Instant::now();
    let task = pool.submit((Atomic::new(0u32).unwrap(), 3), fails_until).unwrap();
    // The worker has time for others meanwhile.
    assert_eq!(pool.apply((), || 1).unwrap(), 1);
    assert_eq!(task.join().unwrap(), 3);
    assert!(start.elapsed() >= 3 * SHORT);
    // A pause of its own leaves the pool's number of attempts.
    let start = Instant::now();
    let task = pool.task().backoff(2 * SHORT).submit((Atomic::new(0u32).unwrap(), 3), fails_until).unwrap();
    assert_eq!(task.join().unwrap(), 3);
    assert!(start.elapsed() >= 6 * SHORT);
}

#[test]
fn only_some_failures_are_tried_again() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(1).retries(3).only_if(|e| e.to_string().contains("attempt 1")).build().unwrap();
    let starts = Atomic::new(0u32).unwrap();
    assert!(pool.apply((starts.clone(), 3), fails_until).unwrap_err().to_string().contains("attempt 2"));
    // One that asks the pool, and one that panics.
    let again = pool.clone();
    let task =
        pool.task().only_if(move |_| !format!("{again:?}").is_empty()).submit((Atomic::new(0u32).unwrap(), 3), fails_until);
    assert_eq!(task.unwrap().join().unwrap(), 3);
    let task = pool.task().only_if(|_| panic!("an opinion that panics")).submit((Atomic::new(0u32).unwrap(), 3), fails_until);
    assert!(task.unwrap().join().unwrap_err().to_string().contains("attempt 1"));
    assert_eq!(pool.apply((), || 1).unwrap(), 1);
}

/// Many attempts that fail fast, submitted and collected by several threads: none is lost.
#[test]
fn no_attempt_is_lost() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(2).retries(3).build().unwrap();
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                let tasks: Vec<_> = (0..40).map(|_| pool.submit((Atomic::new(0u32).unwrap(), 3), fails_until).unwrap()).collect();
                assert!(tasks.into_iter().all(|task| task.join().unwrap() == 3));
            });
        }
    });
}

#[test]
fn a_bound_for_what_waits() {
    let _watched = watch(60);
    let go = Event::new().unwrap();
    let wait = |go: Event| go.wait().unwrap();
    let pool = Pool::builder().workers(1).queue_bound(3).fail_when_full().build().unwrap();
    let tasks: Vec<_> = (0..3).map(|_| pool.submit((go.clone(),), wait).unwrap()).collect();
    let e = pool.submit((go.clone(),), wait).unwrap_err();
    assert!(e.is_full() && !e.is_closed(), "{e}");
    tasks[2].cancel();
    let fourth = pool.submit((go.clone(),), wait).unwrap();
    assert!(pool.submit((go.clone(),), wait).unwrap_err().is_full());
    go.set().unwrap();
    fourth.join().unwrap();
    pool.apply((), || ()).unwrap();

    // Without it the caller waits, and as many as there are callers never pass it.
    let pool = Pool::builder().workers(2).queue_bound(3).build().unwrap();
    let tasks_of = |pool: &Pool| {
        let text = format!("{pool:?}");
        text.split_once("tasks: ").and_then(|(_, text)| text.split_once(',')).unwrap().0.parse::<u32>().unwrap()
    };
    thread::scope(|s| {
        for _ in 0..6 {
            s.spawn(|| {
                for n in 0..50u32 {
                    let task = pool.submit((n,), |n: u32| n).unwrap();
                    assert!(tasks_of(&pool) <= 3);
                    assert_eq!(task.join().unwrap(), n);
                }
            });
        }
    });
    // Whoever waits for room hears of the end.
    let go = Event::new().unwrap();
    let _held: Vec<_> = (0..3).map(|_| pool.submit((go.clone(),), wait).unwrap()).collect();
    thread::scope(|s| {
        let waits = s.spawn(|| pool.submit((), || ()).map(drop));
        thread::sleep(SHORT);
        assert!(!waits.is_finished());
        pool.close();
        assert!(waits.join().unwrap().unwrap_err().is_closed());
    });
    go.set().unwrap();
}

#[test]
fn variables_names_and_processors() {
    let _watched = watch(60);
    let pool =
        Pool::builder().workers(2).name("crunch").threads_per_worker(3).env("POOL_OPTION", "set").cpus([0]).build().unwrap();
    let seen = pool.apply((), || {
        let variables = ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POOL_OPTION"];
        let variables = variables.map(|name| std::env::var(name).unwrap_or_default()).to_vec();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned();
        let score = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        (variables, current_process().name, cpus, score.trim().parse::<i32>().unwrap())
    });
    let (variables, name, cpus, score) = seen.unwrap();
    assert_eq!(variables, ["3", "3", "3", "3", "set"]);
    assert!(["crunch-0", "crunch-1"].contains(&name.as_str()), "{name}");
    assert_eq!(cpus, "0");
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert!(score > own.trim().parse().unwrap(), "{score}");
    assert!(format!("{pool:?}").contains("crunch"));
    assert!(std::env::var_os("POOL_OPTION").is_none());
}

#[test]
fn idle_workers_leave_and_come_again() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(2).idle_timeout(SHORT).build().unwrap();
    assert!(pool.pids().is_empty());
    let go = Event::new().unwrap();
    let tasks: Vec<_> =
        (0..2).map(|_| pool.submit((go.clone(),), |go: Event| (go.wait().unwrap(), std::process::id()).1).unwrap()).collect();
    eventually(|| pool.pids().len() == 2);
    go.set().unwrap();
    let first: Vec<u32> = tasks.into_iter().map(|task| task.join().unwrap()).collect();
    eventually(|| pool.pids().is_empty());
    assert!(first.iter().all(|pid| is_gone(*pid)));
    let second = pool.apply((), std::process::id).unwrap();
    assert!(!first.contains(&second));
    eventually(|| pool.pids().is_empty());
    assert_eq!(pool.map(0..100, |n: u64| n).unwrap().len(), 100);
}

#[test]
fn resize_up_and_down() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    assert!(pool.ready(LONG));
    pool.resize(4).unwrap();
    assert!(pool.ready(LONG) && pool.workers() == 4);
    assert_eq!(pool.pids().len(), 4);
    let go = Event::new().unwrap();
    let tasks: Vec<_> = (0..4).map(|_| pool.submit((go.clone(),), |go: Event| go.wait().unwrap()).unwrap()).collect();
    eventually(|| tasks.iter().all(multiproc::Task::is_running));
    pool.resize(1).unwrap();
    // None leaves in the middle of its task.
    assert_eq!(pool.pids().len(), 4);
    go.set().unwrap();
    tasks.into_iter().for_each(|task| task.join().unwrap());
    eventually(|| pool.pids().len() == 1);
    assert_eq!(pool.map(0..100, |n: u64| n).unwrap().len(), 100);
    pool.resize(2).unwrap();
    assert!(pool.ready(LONG));
}

/// Who is asked to leave between the taking of a task and its start gives it back: nobody is charged for it.
#[test]
fn no_task_pays_for_a_worker_that_leaves() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(3).build().unwrap();
    for round in 0..60u32 {
        let tasks: Vec<_> = (0..6).map(|n| pool.submit((n,), |n: u32| n).unwrap()).collect();
        pool.resize(1 + round as usize % 3).unwrap();
        if round % 7 == 0 {
            pool.recycle().unwrap();
        }
        assert!(tasks.into_iter().enumerate().all(|(n, task)| task.join().unwrap() == n as u32));
    }
}

#[test]
fn recycle_replaces_all() {
    let _watched = watch(60);
    let pool = Pool::new(3).unwrap();
    assert!(pool.ready(LONG));
    let before: BTreeSet<u32> = pool.pids().into_iter().collect();
    assert_eq!(before.len(), 3);
    pool.recycle().unwrap();
    // Under load, and nothing is lost.
    let tasks: Vec<_> = (0..500u32).map(|n| pool.submit((n,), |n: u32| n).unwrap()).collect();
    assert!(tasks.into_iter().enumerate().all(|(n, task)| task.join().unwrap() == n as u32));
    eventually(|| pool.pids().len() == 3 && pool.pids().iter().all(|pid| !before.contains(pid)));
    assert!(pool.ready(LONG));
    assert_eq!(pool.apply((), || 1).unwrap(), 1);
}

#[test]
fn the_last_handle_finishes_the_work() {
    let _watched = watch(60);
    let done = Atomic::new(0u32).unwrap();
    let work = |done: Atomic<u32>| {
        thread::sleep(Duration::from_millis(5));
        done.add(1);
    };
    let pool = Pool::new(2).unwrap();
    for _ in 0..30 {
        drop(pool.submit((done.clone(),), work).unwrap());
    }
    let other = pool.clone();
    drop(pool);
    assert_eq!(other.apply((), || 1).unwrap(), 1);
    let pids = other.pids();
    drop(other);
    assert_eq!(done.get(), 30);
    assert!(pids.into_iter().all(is_gone));

    // For so long only.
    let pool = Pool::builder().workers(1).shutdown_timeout(SHORT).grace(Duration::from_millis(20)).build().unwrap();
    let stuck = pool
        .submit((), || -> () {
            loop {
                thread::park()
            }
        })
        .unwrap();
    let waits = pool.submit((), || ()).unwrap();
    let start = Instant::now();
    drop(pool);
    assert!(start.elapsed() >= SHORT);
    assert!(stuck.join().unwrap_err().is_cancelled() && waits.join().unwrap_err().is_cancelled());
}

#[test]
fn close_then_join() {
    let _watched = watch(60);
    let pool = Pool::new(2).unwrap();
    let tasks: Vec<_> = (0..100u32).map(|n| pool.submit((n,), |n: u32| n).unwrap()).collect();
    pool.close();
    pool.close();
    pool.join().unwrap();
    assert!(pool.pids().is_empty());
    assert!(tasks.iter().all(multiproc::Task::is_done));
    assert!(tasks.into_iter().enumerate().all(|(n, task)| task.join().unwrap() == n as u32));
    pool.terminate();
    // Without a single task.
    let pool = Pool::new(1).unwrap();
    pool.close();
    pool.join().unwrap();
}
