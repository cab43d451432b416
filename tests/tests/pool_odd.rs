//! Odd uses of pools: settings at their ends, handles that are dropped where nobody expects it, forks, callbacks and wakers that do too much.

use multiproc::{Atomic, Event, Pool, PoolBuilder, Process, ReturnWhen, TaskError, ThreadPool, current_task, wait_tasks};
use multiproc_tests::{eventually, watch};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_secs(3600);

fn parks() -> u32 {
    loop {
        thread::park();
    }
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the time.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A time that the clock cannot tell is for ever.
#[test]
fn times_without_end() {
    let _watched = watch(60);
    let settings: [fn(PoolBuilder) -> PoolBuilder; 5] = [
        |b| b.task_timeout(Duration::MAX),
        |b| b.idle_timeout(Duration::MAX),
        |b| b.grace(Duration::MAX),
        |b| b.shutdown_timeout(Duration::MAX),
        |b| b.retries(1).backoff(Duration::MAX),
    ];
    for set in settings {
        let pool = set(Pool::builder().workers(1)).build().unwrap();
        for n in 0..3 {
            assert_eq!(pool.apply((n,), |n: u32| n).unwrap(), n);
        }
        let obeys = || {
            eventually(|| current_task().unwrap().is_cancelled());
            5
        };
        let task = pool.submit((), obeys).unwrap();
        eventually(|| task.is_running());
        task.cancel();
        assert_eq!(task.join().unwrap(), 5);
        pool.recycle().unwrap();
        pool.resize(2).unwrap();
        assert_eq!(pool.apply((8,), |n: u32| n).unwrap(), 8);
        pool.task().timeout(Duration::MAX).submit((1,), |n: u32| n).unwrap().join().unwrap();
    }
}

/// A task without any time that waits does not keep the pool's thread busy.
#[test]
fn no_time_at_all() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    let go = Event::new().unwrap();
    let held = pool.submit((go.clone(),), |go: Event| _ = go.wait()).unwrap();
    eventually(|| held.is_running());
    let task = pool.task().timeout(Duration::ZERO).submit((), parks).unwrap();
    let (before, wall) = (cpu_time(), Instant::now());
    thread::sleep(Duration::from_millis(500));
    assert!(cpu_time() - before < wall.elapsed() / 4, "{:?}", cpu_time() - before);
    go.set().unwrap();
    assert!(task.join().unwrap_err().is_timeout());
}

#[test]
fn a_name_that_no_thread_may_have() {
    for builder in [Pool::builder(), Pool::builder().threads(), Pool::builder().inline()] {
        assert!(builder.workers(1).name("a\0b").build().unwrap_err().to_string().contains("NUL"));
    }
}

/// A worker that is killed before it has begun, again and again, is an initializer that fails.
#[test]
fn an_initializer_that_is_always_killed() {
    let _watched = watch(120);
    let begun = Atomic::new(0u32).unwrap();
    let init = |begun: Atomic<u32>| {
        begun.add(1);
        // SAFETY: touches no memory.
        unsafe { libc::raise(libc::SIGKILL) };
    };
    let pool = Pool::builder().workers(1).initializer((begun.clone(),), init).build().unwrap();
    let why = pool.submit((), || 1).unwrap().join().unwrap_err();
    assert!(matches!(&why, TaskError::Refused(e) if e.is_broken() && e.to_string().contains("SIGKILL")), "{why}");
    pool.close();
    pool.join().unwrap();
    assert!((20..=60).contains(&begun.get()), "{}", begun.get());
}

/// Hiring many does not hold up the end.
#[test]
fn terminate_while_many_are_hired() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(1).grace(SHORT).build().unwrap();
    assert!(pool.ready(LONG));
    pool.resize(2000).unwrap();
    eventually(|| pool.pids().len() > 3);
    pool.terminate();
    assert!(pool.pids().is_empty());
}

/// As many as may lie uncollected do: another process can submit all the same.
#[test]
fn who_submits_elsewhere_finds_the_queue_full() {
    const TASKS: u32 = 4096;
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    assert!(pool.ready(LONG));
    let count = Atomic::new(0u32).unwrap();
    let work = |count: Atomic<u32>| _ = count.add(1);
    let tasks: Vec<_> = (0..TASKS).map(|_| pool.submit((count.clone(),), work).unwrap()).collect();
    // Nobody collects until here.
    eventually(|| count.get() == TASKS);
    let child = Process::spawn((pool.clone(),), |pool: Pool| pool.apply((5,), |x: u32| x).unwrap()).unwrap();
    assert_eq!(child.join().unwrap(), 5);
    assert!(tasks.into_iter().all(|task| task.join().is_ok()));
}

/// What a pool keeps for a process that has submitted goes with that process.
#[test]
fn processes_that_have_submitted_leave_nothing() {
    let _watched = watch(120);
    let pool = Pool::new(1).unwrap();
    assert!(pool.ready(LONG));
    let one = |killed: bool| {
        let child = Process::spawn((pool.clone(), killed), |pool: Pool, killed: bool| {
            assert_eq!(pool.apply((5,), |x: u32| x).unwrap(), 5);
            if killed {
                std::process::abort();
            }
        });
        assert_eq!(child.unwrap().join().is_err(), killed);
    };
    one(false);
    let before = multiproc::stats().unwrap().objects();
    for n in 0..20 {
        one(n % 2 == 0);
    }
    // The last ones may still be there.
    eventually(|| {
        one(false);
        multiproc::stats().unwrap().objects() <= before + 4
    });
    // So it is with a worker that dies.
    let inside = |pool: Pool| -> u32 {
        assert_eq!(pool.apply((5,), |x: u32| x).unwrap(), 5);
        std::process::abort()
    };
    for _ in 0..20 {
        assert!(pool.apply((pool.clone(),), inside).is_err());
    }
    eventually(|| multiproc::stats().unwrap().objects() <= before + 6);
}

/// Holds the last handle of a pool, and drops it when it is woken.
struct Owner(Mutex<Option<Pool>>);

impl Wake for Owner {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().unwrap().take());
    }
}

fn poll(task: &mut multiproc::Task<u32>, waker: &Waker) -> bool {
    Pin::new(task).poll(&mut Context::from_waker(waker)).is_ready()
}

/// Dropped on the pool's own thread, which cannot wait for itself.
#[test]
fn a_waker_drops_the_last_handle() {
    let _watched = watch(60);
    for stuck in [false, true] {
        let pool = Pool::builder().workers(1).shutdown_timeout(SHORT).grace(SHORT).build().unwrap();
        let pid = pool.apply((), std::process::id).unwrap();
        let go = Event::new().unwrap();
        let mut task = pool.submit((go.clone(),), |go: Event| u32::from(go.wait().is_ok())).unwrap();
        let rest = stuck.then(|| pool.submit((), parks).unwrap());
        let waker = Waker::from(Arc::new(Owner(Mutex::new(Some(pool)))));
        assert!(!poll(&mut task, &waker));
        go.set().unwrap();
        // Nobody waits: the pool's thread collects, and wakes.
        eventually(|| multiproc_tests::is_gone(pid));
        assert_eq!(task.join().unwrap(), 1);
        if let Some(rest) = rest {
            assert!(rest.join().unwrap_err().is_cancelled());
        }
    }
}

/// Dropped with a waker that another takes the place of.
#[test]
fn a_waker_that_is_replaced_has_the_last_handle() {
    struct Keeps(#[expect(dead_code, reason = "it is dropped")] Pool);
    impl Wake for Keeps {
        fn wake(self: Arc<Self>) {}
    }
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    let mut task = pool.submit((), || {
        thread::sleep(SHORT);
        6
    });
    let task = task.as_mut().unwrap();
    let waker = Waker::from(Arc::new(Keeps(pool)));
    assert!(!poll(task, &waker));
    drop(waker);
    // The drop finishes the work.
    assert!(poll(task, Waker::noop()));
}

/// A task that waits for tasks of two pools, one of them its own, which has nobody else to run them.
#[test]
fn a_task_waits_for_two_pools() {
    let _watched = watch(60);
    let kinds: [fn() -> Pool; 2] = [|| Pool::new(1).unwrap(), || Pool::builder().workers(1).threads().build().unwrap()];
    for (kind, new) in kinds.into_iter().enumerate() {
        let (own, other) = (new(), new());
        let both = |own: Pool, other: Pool| {
            let submit = |pool: &Pool, n: u32| pool.submit((n,), |n: u32| n).unwrap();
            let tasks = [submit(&own, 1), submit(&other, 2)];
            let done = wait_tasks(&tasks, ReturnWhen::All, None);
            let tasks = [submit(&own, 3), submit(&other, 4)];
            (done, multiproc::as_completed(tasks).map(|(_, n)| n.unwrap()).sum::<u32>())
        };
        let told = own.apply((own.clone(), other.clone()), both).unwrap();
        assert_eq!(told, (vec![0, 1], 7), "kind {kind}");
    }
}

/// In a process made by fork() a pool is the parent's: nothing waits there, and nothing is taken from the parent.
#[test]
fn a_pool_in_a_fork() {
    let _watched = watch(60);
    let child = Process::spawn((), || {
        let pool = Pool::new(1).unwrap();
        for rejoins in [false, true] {
            let mine = pool.submit((), || 7u32).unwrap();
            let late = pool.submit((), || {
                thread::sleep(Duration::from_millis(300));
                1u32
            });
            let late = late.unwrap();
            // SAFETY: the child has this thread only, which was in no lock.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                if rejoins {
                    // SAFETY: the one thread of a process that fork() made.
                    unsafe { multiproc::after_fork_child() }.unwrap();
                }
                late.cancel();
                let ends = late.join().is_err() && pool.submit((), || ()).is_err();
                pool.terminate();
                drop(pool);
                // SAFETY: ends the process.
                unsafe { libc::_exit(if ends { 0 } else { 1 }) };
            }
            let mut status = 1;
            // SAFETY: writes the status.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            assert_eq!(status, 0, "rejoins: {rejoins}");
            assert_eq!((mine.join().unwrap(), late.join().unwrap()), (7, 1));
            assert_eq!(pool.apply((), || 2).unwrap(), 2);
        }
    });
    child.unwrap().join().unwrap();
}

/// A task that forks has one outcome, and what it forked off runs no tasks.
#[test]
fn a_task_that_forks() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    for _ in 0..3 {
        // SAFETY: what is to go wrong.
        assert!(!pool.apply((), || unsafe { libc::fork() } == 0).unwrap());
    }
    let runs = Atomic::new(0u32).unwrap();
    let work = |runs: Atomic<u32>| _ = runs.add(1);
    let tasks: Vec<_> = (0..50).map(|_| pool.submit((runs.clone(),), work).unwrap()).collect();
    assert!(tasks.into_iter().all(|task| task.join().is_ok()));
    assert_eq!(runs.get(), 50);
    assert_eq!(pool.pids().len(), 1);
}

#[test]
fn a_task_of_a_local_pool_has_its_last_handle() {
    let _watched = watch(20);
    for builder in [Pool::builder().threads(), Pool::builder().inline()] {
        let pool = builder.workers(1).build().unwrap();
        let (to, from) = mpsc::channel();
        let (begun, begins) = mpsc::channel::<()>();
        static BEGINS: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);
        *BEGINS.lock().unwrap() = Some(begins);
        let inner = pool.clone();
        let task = thread::spawn(move || {
            let task = inner.submit((inner.clone(),), |pool: Pool| {
                BEGINS.lock().unwrap().take().unwrap().recv().unwrap();
                drop(pool);
                3u32
            });
            drop(inner);
            task.unwrap().on_done(move |outcome| to.send(outcome).unwrap());
        });
        drop(pool);
        begun.send(()).unwrap();
        assert_eq!(from.recv().unwrap().unwrap(), 3);
        task.join().unwrap();
    }
}

/// A task does not wait for the room that it takes itself.
#[test]
fn a_task_submits_to_its_full_pool() {
    let _watched = watch(60);
    for fails in [false, true] {
        for builder in [Pool::builder(), Pool::builder().threads(), Pool::builder().inline()] {
            let builder = builder.workers(1).queue_bound(1);
            let pool = if fails { builder.fail_when_full() } else { builder }.build().unwrap();
            let nested = |pool: Pool| pool.apply((2,), |n: u32| n).map_err(|e| e.to_string());
            assert_eq!(pool.apply((pool.clone(),), nested).unwrap(), Ok(2));
        }
    }
}

/// What was taken before the close is finished: so are the tasks of it.
#[test]
fn a_task_submits_to_its_closed_pool() {
    let _watched = watch(60);
    for pool in [Pool::new(1).unwrap(), Pool::builder().workers(1).threads().build().unwrap()] {
        let (runs, go) = (Event::new().unwrap(), Event::new().unwrap());
        let task = pool.submit((pool.clone(), runs.clone(), go.clone()), |pool: Pool, runs: Event, go: Event| {
            runs.set().unwrap();
            go.wait().unwrap();
            pool.apply((2,), |n: u32| n).map_err(|e| e.to_string())
        });
        runs.wait().unwrap();
        pool.close();
        go.set().unwrap();
        assert_eq!(task.unwrap().join().unwrap(), Ok(2));
        pool.join().unwrap();
        assert!(pool.submit((), || ()).unwrap_err().is_closed());
    }
}

/// When a pool of threads has been joined, nothing runs and nothing begins.
#[test]
fn nothing_slips_into_a_pool_of_threads_that_is_closed() {
    let _watched = watch(60);
    let (mut taken, mut refused) = (0, 0);
    for n in 0..2000 {
        let pool = ThreadPool::new(1).unwrap();
        let (other, joined) = (pool.clone(), AtomicBool::new(false));
        thread::scope(|s| {
            let submits = s.spawn(|| {
                (0..n % 50).for_each(|_| std::hint::spin_loop());
                let task = other.submit((), thread::yield_now);
                // Taken, though the pool had come to its end?
                let slipped = joined.load(Ordering::SeqCst) && task.as_ref().is_ok_and(|task| !task.is_done());
                (task.is_ok(), slipped)
            });
            pool.close();
            pool.join().unwrap();
            joined.store(true, Ordering::SeqCst);
            let (ok, slipped) = submits.join().unwrap();
            assert!(!slipped, "round {n}");
            if ok { taken += 1 } else { refused += 1 }
        });
    }
    println!("{taken} taken, {refused} refused");
}

/// As many as the bound allows, and not one more.
#[test]
fn the_bound_of_a_pool_of_threads_is_kept() {
    static NOW: AtomicI32 = AtomicI32::new(0);
    static MOST: AtomicI32 = AtomicI32::new(0);
    let _watched = watch(60);
    let pool = Pool::builder().workers(4).threads().queue_bound(2).build().unwrap();
    let work = || {
        MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        thread::yield_now();
        NOW.fetch_sub(1, Ordering::SeqCst);
    };
    thread::scope(|s| {
        for _ in 0..8 {
            s.spawn(|| (0..2000).for_each(|_| drop(pool.submit((), work).unwrap())));
        }
    });
    pool.close();
    pool.join().unwrap();
    assert!(MOST.load(Ordering::SeqCst) <= 2, "{MOST:?}");
}

#[test]
fn maps_fit_into_the_bound() {
    let _watched = watch(60);
    for builder in [Pool::builder(), Pool::builder().threads(), Pool::builder().inline()] {
        let pool = builder.workers(2).queue_bound(2).fail_when_full().build().unwrap();
        let all = (0..500).collect::<Vec<u32>>();
        assert_eq!(pool.map(0..500, |n: u32| n).unwrap(), all);
        assert_eq!(pool.imap(0..500, |n: u32| n).collect::<Result<Vec<_>, _>>().unwrap(), all);
        assert_eq!(pool.imap_unordered(0..500, |n: u32| n).filter_map(Result::ok).sum::<u32>(), all.iter().sum());
        assert!(pool.try_map(0..500, |n: u32| n).unwrap().into_iter().map(Result::unwrap).eq(all));
    }
}

/// Code of the user's that panics beside the task's function: in a value's drop, or when an argument is decoded for another attempt.
#[test]
fn panics_where_nobody_expects_them() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Value;
    impl Drop for Value {
        fn drop(&mut self) {
            assert!(thread::current().name() == Some("main"), "a value whose drop panics");
        }
    }
    #[derive(serde::Serialize)]
    struct Argument;
    impl<'de> serde::Deserialize<'de> for Argument {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Argument, D::Error> {
            panic!("an argument that does not decode")
        }
    }
    let _watched = watch(60);
    let pool = ThreadPool::new(1).unwrap();
    for _ in 0..3 {
        drop(pool.submit((), || {
            thread::sleep(Duration::from_millis(5));
            Value
        }));
    }
    assert_eq!(pool.apply((), || 1).unwrap(), 1);
    for builder in [Pool::builder(), Pool::builder().threads(), Pool::builder().inline()] {
        let pool = builder.workers(1).retries(1).build().unwrap();
        let why = pool.apply((Argument,), |_: Argument| 1).unwrap_err();
        assert!(matches!(&why, TaskError::Unreadable(text) if text.contains("does not decode")), "{why}");
        assert_eq!(pool.apply((), || 1).unwrap(), 1);
    }
}
