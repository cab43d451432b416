//! A pool's handle in another process, and in a worker of the pool itself: settings of the pool and of one task hold as in the process that made it.

use multiproc::{Array, Atomic, Event, Message, Pool, PoolBuilder, PoolError, Process, TaskError};
use multiproc_tests::watch;
use std::thread;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(100);

/// Has `f` run with a handle of a pool that another process made, and one of a pool whose worker this is.
fn elsewhere<A: Message + Clone + Send>(settings: impl Fn() -> PoolBuilder, args: impl Fn() -> A, f: fn(Pool, A)) {
    let pool = settings().workers(2).build().unwrap();
    Process::spawn((pool.clone(), args()), f).unwrap().join().unwrap();
    let pool = settings().workers(2).build().unwrap();
    pool.task().retries(0).submit((pool.clone(), args()), f).unwrap().join().unwrap();
}

/// Panics at its first `failures` attempts.
fn flaky(attempts: Array<u32>, failures: u32) -> u32 {
    let attempt = {
        let mut attempts = attempts.lock().unwrap();
        attempts[0] += 1;
        attempts[0]
    };
    assert!(attempt > failures, "attempt {attempt}");
    attempt
}

fn attempts() -> Array<u32> {
    Array::zeroed(1).unwrap()
}

fn endless() {
    loop {
        thread::park();
    }
}

#[test]
fn a_time_of_its_own() {
    let _watch = watch(60);
    let pool = Pool::builder().workers(1).build().unwrap();
    let child = Process::spawn((pool.clone(),), |pool: Pool| {
        let late = pool.task().timeout(SHORT).submit((), endless).unwrap();
        assert!(matches!(late.join(), Err(TaskError::TimedOut { after }) if after == SHORT));
        assert_eq!(pool.task().timeout(100 * SHORT).submit((2,), |n: u32| n).unwrap().join().unwrap(), 2);
    });
    child.unwrap().join().unwrap();
    // Shorter and longer than the pool's.
    let pool = Pool::builder().workers(1).task_timeout(2 * SHORT).build().unwrap();
    let child = Process::spawn((pool.clone(),), |pool: Pool| {
        let times = [Some(SHORT), Some(4 * SHORT), None].map(|time| {
            let start = Instant::now();
            let task = match time {
                Some(time) => pool.task().timeout(time).submit((), endless).unwrap(),
                None => pool.task().submit((), endless).unwrap(),
            };
            assert!(task.join().unwrap_err().is_timeout());
            start.elapsed()
        });
        assert!(times[0] >= SHORT && times[1] >= 4 * SHORT && times[2] >= 2 * SHORT, "{times:?}");
    });
    child.unwrap().join().unwrap();
}

/// A task that is late costs the worker that waits for it, when nobody else runs it.
#[test]
fn a_time_of_its_own_in_a_worker() {
    let _watch = watch(60);
    let pool = Pool::builder().workers(1).build().unwrap();
    let outer = pool.apply((pool.clone(),), |pool: Pool| {
        let late = pool.task().timeout(SHORT).submit((), endless).unwrap();
        late.join().is_err()
    });
    assert!(matches!(outer, Err(TaskError::WorkerDied { .. })), "{outer:?}");
    assert_eq!(pool.apply((3,), |n: u32| n).unwrap(), 3);
}

#[test]
fn attempts_of_its_own() {
    let _watch = watch(60);
    elsewhere(
        Pool::builder,
        || (),
        |pool, ()| {
            for (times, failures) in [(0, 0), (2, 2), (1, 2)] {
                let counts = attempts();
                let outcome = pool.task().retries(times).submit((counts.clone(), failures), flaky).unwrap().join();
                assert_eq!(outcome.is_ok(), times >= failures, "{outcome:?}");
                assert_eq!(counts.get(0).unwrap(), times.min(failures) + 1);
            }
            // The pause is spent, and doubles.
            let start = Instant::now();
            let task = pool.task().retries(2).backoff(SHORT).submit((attempts(), 2), flaky).unwrap();
            assert_eq!(task.join().unwrap(), 3);
            assert!(start.elapsed() >= 3 * SHORT);
            // And without any.
            assert!(pool.apply((attempts(), 1), flaky).is_err());
        },
    );
}

#[test]
fn an_opinion_of_its_own_on_failures() {
    let _watch = watch(60);
    elsewhere(
        Pool::builder,
        || (),
        |pool, ()| {
            let early = |why: &TaskError| why.to_string().contains("attempt 1");
            let counts = attempts();
            let outcome = pool.task().retries(5).only_if(early).submit((counts.clone(), 9), flaky).unwrap().join();
            assert!(outcome.unwrap_err().to_string().contains("attempt 2"));
            assert_eq!(counts.get(0).unwrap(), 2);
            let start = Instant::now();
            let task = pool.task().retries(5).backoff(SHORT).only_if(early).submit((attempts(), 1), flaky).unwrap();
            assert_eq!(task.join().unwrap(), 2);
            assert!(start.elapsed() >= SHORT);
            let exhausted = pool.task().retries(2).only_if(|_| true).submit((attempts(), 9), flaky).unwrap().join();
            assert!(exhausted.unwrap_err().to_string().contains("attempt 3"));
            let unwell =
                pool.task().retries(2).only_if(|_| panic!("an opinion that panics")).submit((attempts(), 9), flaky).unwrap();
            assert!(unwell.join().unwrap_err().to_string().contains("attempt 1"));
        },
    );
}

#[test]
fn deaths_are_counted_across_attempts() {
    let _watch = watch(60);
    let pool = Pool::builder().workers(1).build().unwrap();
    let child = Process::spawn((pool.clone(),), |pool: Pool| {
        let abort = || -> () { std::process::abort() };
        for decided_here in [false, true] {
            let task = pool.task().retries(2);
            let task = if decided_here { task.only_if(|why| why.signal().is_some()) } else { task };
            let e = task.submit((), abort).unwrap().join().unwrap_err();
            assert!(matches!(e, TaskError::WorkerDied { attempts: 3, .. }), "{e:?}");
        }
    });
    child.unwrap().join().unwrap();
}

#[test]
fn the_settings_of_the_pool_hold() {
    let _watch = watch(60);
    let settings = || Pool::builder().retries(2).backoff(SHORT).only_if(|why| !why.to_string().contains("attempt 2"));
    elsewhere(
        settings,
        || (),
        |pool, ()| {
            let start = Instant::now();
            assert_eq!(pool.apply((attempts(), 1), flaky).unwrap(), 2);
            assert!(start.elapsed() >= SHORT);
            // What the pool thinks of a failure is asked there, also for a task with a number of its own.
            let counts = attempts();
            let outcome = pool.task().retries(9).submit((counts.clone(), 9), flaky).unwrap().join();
            assert!(outcome.unwrap_err().to_string().contains("attempt 2"));
            // A pause of its own leaves the number.
            let start = Instant::now();
            let task = pool.task().backoff(2 * SHORT).submit((attempts(), 1), flaky).unwrap();
            assert_eq!(task.join().unwrap(), 2);
            assert!(start.elapsed() >= 2 * SHORT);
            assert!(pool.task().retries(0).submit((attempts(), 1), flaky).unwrap().join().is_err());
        },
    );
}

#[test]
fn elements_are_tried_again() {
    let _watch = watch(60);
    let settings = || Pool::builder().retries(2).only_if(|why| !why.to_string().contains("attempt 2"));
    elsewhere(
        settings,
        || (),
        |pool, ()| {
            let call = |(counts, n, failures): (Array<u32>, u32, u32)| {
                flaky(counts, failures);
                n
            };
            let counts: Vec<_> = (0..20).map(|_| attempts()).collect();
            let failures = |n: u32| u32::from(n % 7 == 3);
            let items = (0..20u32).map(|n| (counts[n as usize].clone(), n, failures(n)));
            assert_eq!(pool.map_chunks(items, 6, call).unwrap(), (0..20).collect::<Vec<_>>());
            assert!(counts.iter().enumerate().all(|(n, count)| count.get(0).unwrap() == 1 + failures(n as u32)));
            let e = pool.map_chunks([0, 9].map(|failures| (attempts(), 0, failures)), 2, call).unwrap_err();
            assert!(e.to_string().contains("attempt 2"), "{e}");
            let counts: Vec<_> = (0..4).map(|_| attempts()).collect();
            let sums = pool.map_with(&(counts, 10u32), 0..4u32, |(counts, base), n| {
                flaky(counts[n as usize].clone(), u32::from(n == 2));
                base + n
            });
            assert_eq!(sums.unwrap(), [10, 11, 12, 13]);
        },
    );
}

#[test]
fn what_is_cancelled_is_not_tried_again() {
    let _watch = watch(60);
    let pool = Pool::builder().workers(1).grace(Duration::from_millis(20)).build().unwrap();
    let args = || (Event::new().unwrap(), Atomic::new(0u32).unwrap());
    let child = Process::spawn((pool.clone(), args()), |pool: Pool, (begun, starts): (Event, Atomic<u32>)| {
        let call = |begun: Event, starts: Atomic<u32>| {
            starts.add(1);
            begun.set().unwrap();
            endless();
        };
        for decided_here in [false, true] {
            begun.clear();
            let task = pool.task().retries(3);
            let task = if decided_here { task.only_if(|_| true) } else { task };
            let task = task.submit((begun.clone(), starts.clone()), call).unwrap();
            begun.wait().unwrap();
            task.cancel();
            assert!(task.join().unwrap_err().is_cancelled());
        }
        // Between two attempts.
        let counts = attempts();
        let task = pool.task().retries(3).backoff(Duration::from_secs(60)).only_if(|_| true);
        let task = task.submit((counts.clone(), 9), flaky).unwrap();
        while counts.get(0).unwrap() == 0 {
            thread::yield_now();
        }
        // It is told of the failure, or not yet.
        assert!(!task.is_done());
        task.cancel();
        let e = task.join().unwrap_err();
        assert!(e.is_cancelled() || e.to_string().contains("attempt 1"), "{e}");
        assert_eq!(pool.apply((4,), |n: u32| n).unwrap(), 4);
        assert_eq!((starts.get(), counts.get(0).unwrap()), (2, 1));
    });
    child.unwrap().join().unwrap();
}

fn wait(go: Event) {
    go.wait().unwrap();
}

#[test]
fn the_bound_is_waited_for() {
    let _watch = watch(60);
    let pool = Pool::builder().workers(1).queue_bound(2).build().unwrap();
    let events = [(); 3].map(|()| Event::new().unwrap());
    let child = Process::spawn((pool.clone(), events.clone()), |pool: Pool, [go, full, more]: [Event; 3]| {
        let held: Vec<_> = (0..2).map(|_| pool.submit((go.clone(),), wait).unwrap()).collect();
        full.set().unwrap();
        let third = pool.submit((5,), |n: u32| n).unwrap();
        more.set().unwrap();
        held.into_iter().for_each(|task| task.join().unwrap());
        assert_eq!(third.join().unwrap(), 5);
        // As many threads as there are never pass it, and each has its turn.
        thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| (0..30u32).for_each(|n| assert_eq!(pool.apply((n,), |n: u32| n).unwrap(), n)));
            }
        });
        assert_eq!(pool.map(0..200u32, |n| n).unwrap().len(), 200);
    });
    let child = child.unwrap();
    let [go, full, more] = events;
    full.wait().unwrap();
    // The pool's own process is held up as well.
    thread::scope(|s| {
        let own = s.spawn(|| pool.apply((6,), |n: u32| n).unwrap());
        assert!(!more.wait_timeout(SHORT).unwrap());
        assert!(format!("{pool:?}").contains("tasks: 2"), "{pool:?}");
        go.set().unwrap();
        more.wait().unwrap();
        assert_eq!(own.join().unwrap(), 6);
    });
    child.join().unwrap();
}

#[test]
fn who_fails_when_full_and_who_waits_hears_of_the_end() {
    let _watch = watch(60);
    let pool = Pool::builder().workers(1).queue_bound(1).fail_when_full().build().unwrap();
    let child = Process::spawn((pool.clone(), Event::new().unwrap()), |pool: Pool, go: Event| {
        let held = pool.submit((go.clone(),), wait).unwrap();
        let full = pool.submit((1,), |n: u32| n).unwrap_err();
        assert!(full.is_full() && !full.is_closed(), "{full}");
        assert!(matches!(pool.apply((1,), |n: u32| n), Err(TaskError::Refused(why)) if why.is_full()));
        go.set().unwrap();
        held.join().unwrap();
        assert_eq!(pool.apply((1,), |n: u32| n).unwrap(), 1);
    });
    child.unwrap().join().unwrap();

    for terminated in [false, true] {
        let pool = Pool::builder().workers(1).queue_bound(1).build().unwrap();
        let (go, begun) = (Event::new().unwrap(), Event::new().unwrap());
        let child = Process::spawn((pool.clone(), go.clone(), begun.clone()), |pool: Pool, go: Event, begun: Event| {
            let held = pool.submit((go,), wait).unwrap();
            begun.set().unwrap();
            let refused: PoolError = pool.submit((1,), |n: u32| n).unwrap_err();
            assert!(refused.is_closed() || refused.is_broken(), "{refused}");
            held.join().is_ok()
        });
        let child = child.unwrap();
        begun.wait().unwrap();
        thread::sleep(SHORT);
        if terminated {
            pool.terminate();
        } else {
            pool.close();
        }
        go.set().unwrap();
        assert_eq!(child.join().unwrap(), !terminated);
    }
}

/// Its own task takes up the room: it would wait for itself.
#[test]
fn a_worker_does_not_wait_for_room() {
    let _watch = watch(60);
    let pool = Pool::builder().workers(1).queue_bound(1).build().unwrap();
    let sum = pool.apply((pool.clone(),), |pool: Pool| {
        let tasks: Vec<_> = (1..=10u32).map(|n| pool.submit((n,), |n: u32| n).unwrap()).collect();
        tasks.into_iter().map(|task| task.join().unwrap()).sum::<u32>()
    });
    assert_eq!(sum.unwrap(), 55);
}

/// Killed while it waits: what it wanted takes up no room for longer than it runs.
#[test]
fn who_waits_for_room_is_killed() {
    let _watch = watch(60);
    let pool = Pool::builder().workers(1).queue_bound(1).build().unwrap();
    let (go, begun) = (Event::new().unwrap(), Event::new().unwrap());
    let child = Process::spawn((pool.clone(), go.clone(), begun.clone()), |pool: Pool, go: Event, begun: Event| {
        let _held = pool.submit((go,), wait).unwrap();
        begun.set().unwrap();
        let _ = pool.submit((1,), |n: u32| n);
    });
    let child = child.unwrap();
    begun.wait().unwrap();
    thread::sleep(SHORT);
    child.kill().unwrap();
    child.wait();
    go.set().unwrap();
    for n in 0..20u32 {
        assert_eq!(pool.apply((n,), |n: u32| n).unwrap(), n);
    }
}

/// A worker takes back what it waits for while another one begins it, or has just run it: it runs once.
#[test]
fn what_is_taken_back_runs_once() {
    let _watch = watch(60);
    let pool = Pool::builder().workers(3).build().unwrap();
    let rounds = |pool: Pool| {
        for _ in 0..400 {
            let starts = Atomic::new(0u32).unwrap();
            assert_eq!(pool.submit((starts.clone(),), |starts: Atomic<u32>| starts.add(1)).unwrap().join().unwrap(), 0);
            assert_eq!(starts.get(), 1);
        }
    };
    let tasks = [(); 2].map(|()| pool.submit((pool.clone(),), rounds).unwrap());
    tasks.into_iter().for_each(|task| task.join().unwrap());
    assert!(format!("{pool:?}").contains("tasks: 0"), "{pool:?}");
}
