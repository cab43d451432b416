//! `Task`: what a caller can do with a call that a pool has been given, at each stage of its life.

use multiproc::{Atomic, Event, Lock, Pool, PoolError, Queue, Signal, Task, TaskError, current_task};
use multiproc_tests::{eventually, watch};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_secs(60);

/// A task that runs until the event is set, and says so by the first.
fn held(pool: &Pool) -> (Task<u32>, Event, Event) {
    let (runs, go) = (Event::new().unwrap(), Event::new().unwrap());
    let task = pool.submit((runs.clone(), go.clone()), |runs: Event, go: Event| {
        runs.set().unwrap();
        go.wait().unwrap();
        7
    });
    (task.unwrap(), runs, go)
}

#[test]
fn no_argument_and_twelve() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    assert_eq!(pool.apply((), || 5u8).unwrap(), 5);
    let twelve = pool.apply(
        (1u8, 2u16, 3u32, 4u64, 5i8, 6i16, 7i32, 8i64, 9.0f32, 10.0f64, 'k', String::from("l")),
        |a: u8, b: u16, c: u32, d: u64, e: i8, f: i16, g: i32, h: i64, i: f32, j: f64, k: char, l: String| {
            format!("{a} {b} {c} {d} {e} {f} {g} {h} {i} {j} {k} {l}")
        },
    );
    assert_eq!(twelve.unwrap(), "1 2 3 4 5 6 7 8 9 10 k l");
}

#[test]
fn handles_travel_both_ways() {
    let _watched = watch(60);
    let pool = Pool::new(2).unwrap();
    let (queue, lock) = (Queue::<u32>::bounded(4).unwrap(), Lock::new().unwrap());
    let back = pool.apply((queue.clone(), lock), |queue: Queue<u32>, lock: Lock| {
        let _guard = lock.lock().unwrap();
        queue.put(1).unwrap();
        let new = Queue::<u32>::bounded(2).unwrap();
        new.put(2).unwrap();
        (queue, new)
    });
    let (same, new) = back.unwrap();
    assert_eq!((same.get().unwrap(), new.get().unwrap()), (1, 2));
    same.put(3).unwrap();
    assert_eq!(queue.get().unwrap(), 3);
}

#[test]
fn large_values_both_ways() {
    const MIB_64: usize = 64 << 20;
    let _watched = watch(120);
    let pool = Pool::new(2).unwrap();
    let mut big = "b".repeat(MIB_64);
    big.replace_range(MIB_64 - 1.., "e");
    let back = pool.apply((big,), |mut text: String| {
        text.replace_range(..1, "a");
        text
    });
    let back = back.unwrap();
    assert_eq!((back.len(), &back[..2], &back[MIB_64 - 2..]), (MIB_64, "ab", "be"));
}

#[test]
fn join_with_limits() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    let (mut task, _, go) = held(&pool);
    let start = Instant::now();
    assert_eq!(task.join_timeout(SHORT).unwrap(), None);
    assert!(start.elapsed() >= SHORT);
    assert!(!task.wait_timeout(SHORT) && start.elapsed() >= 2 * SHORT);
    assert_eq!(task.join_deadline(start).unwrap(), None);
    assert_eq!(task.try_join().unwrap(), None);
    assert!(!task.is_done());
    go.set().unwrap();
    assert!(task.wait_timeout(LONG) && task.is_done());
    assert_eq!(task.try_join().unwrap(), Some(7));
    // The outcome is given out once.
    assert!(matches!(task.try_join(), Err(TaskError::AlreadyJoined)));
    assert!(matches!(task.join_timeout(SHORT), Err(TaskError::AlreadyJoined)));
    assert!(matches!(task.join(), Err(TaskError::AlreadyJoined)));
}

#[test]
fn stages_of_a_life() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    let (first, runs, go) = held(&pool);
    let (second, second_runs, second_go) = held(&pool);
    runs.wait().unwrap();
    assert!(first.is_running() && !first.is_done());
    assert!(!second.is_running() && !second.is_done());
    assert_eq!(second.progress(), None);
    go.set().unwrap();
    second_runs.wait().unwrap();
    assert!(!first.is_running() && first.is_done());
    assert!(second.is_running());
    let text = format!("{first:?} {second:?}");
    assert!(text.contains("done: true, running: false") && text.contains("done: false, running: true"), "{text}");
    second_go.set().unwrap();
    assert_eq!((first.join().unwrap(), second.join().unwrap()), (7, 7));
}

#[test]
fn progress_is_what_the_task_says() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    let (said, go) = (Event::new().unwrap(), Event::new().unwrap());
    assert!(current_task().is_none());
    let report = |said: Event, go: Event| {
        current_task().unwrap().set_progress(0.25);
        said.set().unwrap();
        go.wait().unwrap();
    };
    let task = pool.submit((said.clone(), go.clone()), report).unwrap();
    said.wait().unwrap();
    assert_eq!(task.progress(), Some(0.25));
    go.set().unwrap();
    assert!(task.wait_timeout(LONG));
    assert_eq!(task.progress(), None);
    // The next task begins at none.
    let (next, runs, go) = held(&pool);
    runs.wait().unwrap();
    assert_eq!(next.progress(), Some(0.0));
    go.set().unwrap();
}

#[test]
fn two_threads_wait_for_one_task() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    for _ in 0..20 {
        let (task, runs, go) = held(&pool);
        runs.wait().unwrap();
        thread::scope(|s| {
            let waiting = [0; 3].map(|_| s.spawn(|| task.wait_timeout(Duration::from_secs(3600))));
            go.set().unwrap();
            assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
        });
    }
}

#[test]
fn a_panic_is_told_with_its_place() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(1).env("RUST_BACKTRACE", "1").build().unwrap();
    let pid = pool.apply((), std::process::id).unwrap();
    let line = line!() + 1;
    let e = pool.apply((3,), |n: u32| -> u32 { panic!("number {n}") }).unwrap_err();
    let TaskError::Panicked { message, location, backtrace } = &e else { panic!("{e}") };
    assert_eq!(message, "number 3");
    assert!(location.starts_with(&format!("{}:{line}:", file!())), "{location}");
    assert!(backtrace.contains("a_panic_is_told_with_its_place"), "{backtrace}");
    assert!(e.to_string().contains("number 3") && e.to_string().contains(location.as_str()), "{e}");
    // The worker goes on.
    assert_eq!(pool.apply((), std::process::id).unwrap(), pid);
    let odd = pool.apply((), || -> () { std::panic::panic_any(5u8) }).unwrap_err();
    assert!(odd.to_string().contains("without a text"), "{odd}");
}

#[test]
fn cancel_what_waits() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    let (first, runs, go) = held(&pool);
    runs.wait().unwrap();
    let ran = Atomic::new(0u32).unwrap();
    let waiting: Vec<_> = (0..10).map(|_| pool.submit((ran.clone(),), |ran: Atomic<u32>| _ = ran.add(1)).unwrap()).collect();
    waiting.iter().step_by(2).for_each(Task::cancel);
    // At once, though the worker is busy.
    assert!(waiting.iter().step_by(2).all(Task::is_done));
    waiting[0].cancel();
    go.set().unwrap();
    assert_eq!(first.join().unwrap(), 7);
    for (at, task) in waiting.into_iter().enumerate() {
        match task.join() {
            Ok(()) => assert_eq!(at % 2, 1),
            Err(e) => assert!(e.is_cancelled() && at % 2 == 0, "{at}: {e}"),
        }
    }
    assert_eq!(ran.get(), 5);
    // Cancelling what has its outcome changes nothing.
    let mut done = pool.submit((), || 1).unwrap();
    assert!(done.wait_timeout(LONG));
    done.cancel();
    assert_eq!(done.try_join().unwrap(), Some(1));
}

#[test]
fn who_joins_is_woken_by_the_cancel_of_another_thread() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    let (_first, runs, go) = held(&pool);
    runs.wait().unwrap();
    let waiting = pool.submit((), || ()).unwrap();
    thread::scope(|s| {
        let joins = s.spawn(|| waiting.wait_timeout(Duration::from_secs(3600)));
        thread::sleep(SHORT);
        waiting.cancel();
        assert!(joins.join().unwrap());
    });
    go.set().unwrap();
}

#[test]
fn cancel_what_runs_and_heeds_it() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(1).grace(LONG).build().unwrap();
    let pid = pool.apply((), std::process::id).unwrap();
    let runs = Event::new().unwrap();
    let task = pool.submit((runs.clone(),), |runs: Event| {
        runs.set().unwrap();
        eventually(|| current_task().unwrap().is_cancelled());
        11
    });
    let task = task.unwrap();
    runs.wait().unwrap();
    task.cancel();
    // It returned in time: that is its value, and its worker stays. The next one is not asked.
    assert_eq!(task.join().unwrap(), 11);
    assert!(!pool.apply((), || current_task().unwrap().is_cancelled()).unwrap());
    assert_eq!(pool.apply((), std::process::id).unwrap(), pid);
}

#[test]
fn cancel_what_runs_and_does_not_care() {
    let _watched = watch(60);
    let grace = Duration::from_millis(50);
    let pool = Pool::builder().workers(2).grace(grace).build().unwrap();
    let (other, other_runs, other_go) = held(&pool);
    other_runs.wait().unwrap();
    for blocks_sigterm in [false, true] {
        let runs = Event::new().unwrap();
        let task = pool.submit((runs.clone(), blocks_sigterm), |runs: Event, blocks: bool| {
            if blocks {
                block_all_signals();
            }
            runs.set().unwrap();
            loop {
                thread::park();
            }
        });
        let task: Task<()> = task.unwrap();
        runs.wait().unwrap();
        let start = Instant::now();
        task.cancel();
        let e = task.join().unwrap_err();
        assert!(e.is_cancelled(), "{e}");
        assert!(start.elapsed() >= if blocks_sigterm { 2 * grace } else { grace });
    }
    // The other worker, and its task, are as they were.
    other_go.set().unwrap();
    assert_eq!(other.join().unwrap(), 7);
    assert_eq!(pool.apply((), || 3).unwrap(), 3);
}

fn block_all_signals() {
    // SAFETY: all zero is a valid set.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: writes the set.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: reads the set.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut()) };
}

#[test]
fn what_is_cancelled_is_not_tried_again() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(1).retries(5).backoff(SHORT).grace(LONG).build().unwrap();
    let (runs, starts) = (Event::new().unwrap(), Atomic::new(0u32).unwrap());
    let task = pool.submit((runs.clone(), starts.clone()), |runs: Event, starts: Atomic<u32>| -> () {
        starts.add(1);
        runs.set().unwrap();
        eventually(|| current_task().unwrap().is_cancelled());
        panic!("as asked");
    });
    let task = task.unwrap();
    runs.wait().unwrap();
    task.cancel();
    assert!(matches!(task.join(), Err(TaskError::Panicked { .. })));
    assert_eq!(starts.get(), 1);
}

#[test]
fn cancel_between_two_attempts() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(1).retries(5).backoff(LONG).build().unwrap();
    let starts = Atomic::new(0u32).unwrap();
    let task = pool.submit((starts.clone(),), |starts: Atomic<u32>| -> () {
        starts.add(1);
        panic!("no");
    });
    let task = task.unwrap();
    eventually(|| {
        // Somebody must collect; this is who waits.
        assert!(!task.is_done());
        starts.get() == 1 && !task.is_running()
    });
    assert!(!task.wait_timeout(SHORT));
    task.cancel();
    assert!(task.join().unwrap_err().is_cancelled());
    // Nothing is left of it.
    pool.close();
    pool.join().unwrap();
    assert_eq!(starts.get(), 1);
}

#[test]
fn callbacks_in_order_and_one_that_panics() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    let (to, from) = mpsc::channel();
    for n in 0..20u32 {
        let to = to.clone();
        pool.submit((n,), |n: u32| n).unwrap().on_done(move |outcome| {
            to.send((outcome.unwrap(), thread::current().name().map(str::to_owned))).unwrap();
            assert_ne!(n % 3, 0, "a callback that panics");
        });
    }
    let told: Vec<_> = (0..20).map(|_| from.recv().unwrap()).collect();
    assert_eq!(told.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    assert!(told.iter().all(|(_, thread)| thread.as_deref() == Some("multiproc-done")));
}

#[test]
fn callbacks_with_each_outcome() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(1).build().unwrap();
    let (to, from) = mpsc::channel::<Result<u32, TaskError>>();
    let tell = |to: &mpsc::Sender<_>| {
        let to = to.clone();
        move |outcome| to.send(outcome).unwrap()
    };
    // Nobody waits for any of them by join.
    pool.submit((), || -> u32 { panic!("thrown") }).unwrap().on_done(tell(&to));
    assert!(matches!(from.recv().unwrap(), Err(TaskError::Panicked { .. })));
    pool.submit((), || -> u32 { std::process::abort() }).unwrap().on_done(tell(&to));
    let e = from.recv().unwrap().unwrap_err();
    assert_eq!(e.signal(), Some(Signal::ABRT), "{e}");
    pool.task()
        .timeout(SHORT)
        .submit((), || -> u32 {
            loop {
                thread::park()
            }
        })
        .unwrap()
        .on_done(tell(&to));
    assert!(from.recv().unwrap().unwrap_err().is_timeout());
    // One that is done when it is asked for.
    let done = pool.submit((), || 4u32).unwrap();
    assert!(done.wait_timeout(LONG));
    done.on_done(tell(&to));
    assert_eq!(from.recv().unwrap().unwrap(), 4);
    // The end of the pool.
    let (task, runs, _) = held(&pool);
    let waits = pool.submit((), || 1u32).unwrap();
    task.on_done(tell(&to));
    waits.on_done(tell(&to));
    runs.wait().unwrap();
    pool.terminate();
    assert!(from.recv().unwrap().unwrap_err().is_cancelled() && from.recv().unwrap().unwrap_err().is_cancelled());
}

/// A callback may use the pool, and wait for it.
#[test]
fn a_callback_submits_and_waits() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    let (to, from) = mpsc::channel();
    let again = pool.clone();
    pool.submit((2,), |n: u32| n).unwrap().on_done(move |n| {
        to.send(again.apply((n.unwrap(),), |n: u32| n * 10)).unwrap();
    });
    assert_eq!(from.recv().unwrap().unwrap(), 20);
}

struct Counting(AtomicUsize, thread::Thread);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.unpark();
    }
}

#[test]
fn polled_by_hand() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    let (mut task, _, go) = held(&pool);
    let counting = Arc::new(Counting(AtomicUsize::new(0), thread::current()));
    let waker = Waker::from(counting.clone());
    let mut context = Context::from_waker(&waker);
    assert!(Pin::new(&mut task).poll(&mut context).is_pending());
    assert!(Pin::new(&mut task).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    // The last waker counts.
    assert!(Pin::new(&mut task).poll(&mut context).is_pending());
    go.set().unwrap();
    while counting.0.load(Ordering::SeqCst) == 0 {
        thread::park();
    }
    assert!(matches!(Pin::new(&mut task).poll(&mut context), Poll::Ready(Ok(7))));
    assert_eq!(counting.0.load(Ordering::SeqCst), 1);
}

#[test]
fn polled_by_two_threads() {
    let _watched = watch(60);
    let pool = Pool::new(2).unwrap();
    for _ in 0..20 {
        let (task, _, go) = held(&pool);
        let task = Arc::new(Mutex::new(task));
        let taken = Arc::new(AtomicUsize::new(0));
        thread::scope(|s| {
            for _ in 0..2 {
                let (task, taken) = (task.clone(), taken.clone());
                s.spawn(move || {
                    let waker = Waker::from(Arc::new(Counting(AtomicUsize::new(0), thread::current())));
                    let mut context = Context::from_waker(&waker);
                    while taken.load(Ordering::SeqCst) == 0 {
                        match Pin::new(&mut *task.lock().unwrap()).poll(&mut context) {
                            Poll::Ready(outcome) => _ = outcome.map(|_| taken.fetch_add(1, Ordering::SeqCst)),
                            // Whose waker was replaced looks again by itself.
                            Poll::Pending => thread::park_timeout(Duration::from_millis(1)),
                        }
                    }
                });
            }
            go.set().unwrap();
        });
        assert_eq!(taken.load(Ordering::SeqCst), 1);
    }
}

/// A waker that panics, or a value whose drop does, costs nobody else anything.
#[test]
fn wakers_and_values_that_panic() {
    struct Bad;
    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics");
        }
    }
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Mine(u32);
    impl Drop for Mine {
        fn drop(&mut self) {
            assert!(std::env::var_os("IN_A_WORKER").is_some(), "a value whose drop panics");
        }
    }
    let _watched = watch(60);
    let pool = Pool::builder().workers(1).env("IN_A_WORKER", "1").build().unwrap();
    for _ in 0..3 {
        let (mut task, _, go) = held(&pool);
        let waker = Waker::from(Arc::new(Bad));
        assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
        go.set().unwrap();
        // Dropped here when it is done already, else by whoever collects.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(pool.submit((5,), Mine).unwrap())));
        assert_eq!(pool.apply((), || 2).unwrap(), 2);
        assert_eq!(task.join().unwrap(), 7);
    }
    let (to, from) = mpsc::channel();
    pool.submit((), || 2).unwrap().on_done(move |n| to.send(n).unwrap());
    assert_eq!(from.recv().unwrap().unwrap(), 2);
}

#[test]
fn a_dropped_task_goes_on() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    let ran = Atomic::new(0u32).unwrap();
    for _ in 0..10 {
        drop(pool.submit((ran.clone(),), |ran: Atomic<u32>| _ = ran.add(1)).unwrap());
    }
    drop(pool);
    assert_eq!(ran.get(), 10);
}

#[test]
fn many_threads_submit() {
    let _watched = watch(120);
    let pool = Pool::new(2).unwrap();
    thread::scope(|s| {
        for thread in 0..16u64 {
            let pool = pool.clone();
            s.spawn(move || {
                for n in 0..200 {
                    assert_eq!(pool.apply((thread, n), |a: u64, b: u64| a * 1000 + b).unwrap(), thread * 1000 + n);
                }
                let many: Vec<_> = (0..200).map(|n| pool.submit((n,), |n: u64| n + 1).unwrap()).collect();
                assert!(many.into_iter().rev().zip((0..200).rev()).all(|(task, n)| task.join().unwrap() == n + 1));
            });
        }
    });
}

#[test]
fn what_cannot_be_submitted() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    let refused: PoolError = pool.join().unwrap_err();
    assert!(refused.to_string().contains("closed before it is joined"), "{refused}");
    pool.close();
    let refused = pool.submit((), || ()).unwrap_err();
    assert!(refused.is_closed() && !refused.is_full() && !refused.is_codec() && !refused.is_broken());
    assert!(matches!(pool.apply((), || ()), Err(TaskError::Refused(e)) if e.is_closed()));
    assert!(matches!(pool.map(0..3, |n: u32| n), Err(TaskError::Refused(e)) if e.is_closed()));
    assert!(pool.try_map(0..3, |n: u32| n).unwrap_err().is_closed());
    pool.join().unwrap();
    pool.join().unwrap();
}

/// A worker that has caught a panic and dies of something else has died of that.
#[test]
fn a_panic_that_was_caught_is_not_what_a_worker_dies_of() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    assert!(matches!(pool.apply((), || -> () { panic!("caught") }), Err(TaskError::Panicked { .. })));
    let e = pool.apply((), || -> () { std::process::abort() }).unwrap_err();
    assert_eq!(e.signal(), Some(Signal::ABRT), "{e}");
    // One in a destructor while another unwinds is.
    struct Worse;
    impl Drop for Worse {
        fn drop(&mut self) {
            panic!("worse");
        }
    }
    let e = pool.apply((), || -> () {
        let _worse = Worse;
        panic!("bad");
    });
    let text = e.unwrap_err().to_string();
    assert!(text.contains("panicked") && text.contains("worker that had the task died"), "{text}");
}
