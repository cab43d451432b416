//! What the docs of Lock, Value, Atomic, Event, Semaphore and OwnedPermit promise, one test for each promise.

use bytemuck::{CheckedBitPattern, NoUninit};
use multiproc::{AcquireError, Atomic, Death, Event, Lock, LockError, OwnedPermit, Process, Queue, Semaphore, Value, testing};
use multiproc_shm::{Arena, Error, Options};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, io, mem, process, thread};

// --- helpers ----------------------------------------------------------------------------------------

/// While it lives its test may take a minute; then everything ends and the test is named.
struct Watch(&'static Mutex<bool>);

fn watch() -> Watch {
    let over: &'static Mutex<bool> = Box::leak(Box::default());
    let name = thread::current().name().unwrap_or("a test").to_owned();
    thread::spawn(move || {
        let end = Instant::now() + Duration::from_secs(120);
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(200));
            if *over.lock().unwrap() {
                return;
            }
        }
        // Not by eprintln!, which libtest captures, and drops at an abort.
        let text = format!("{name} hangs\n{}\n", multiproc_tests::watchdog::report(process::id()));
        let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
        process::abort();
    });
    Watch(over)
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(40);
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_micros(100));
    }
}

/// The number under which reports name a handle's object.
fn id(handle: &impl Debug) -> u32 {
    let text = format!("{handle:?}");
    let digits = text.split_once("id: ").expect("a handle's Debug names its id").1;
    digits.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

fn asleep_on(pid: u32, id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let sleeps = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" S"));
    sleeps && testing::waits_for(pid) == Ok(Some(id))
}

fn await_sleep<R>(process: &Process<R>, handle: &impl Debug) {
    let id = id(handle);
    eventually("the child sleeps", || asleep_on(process.pid(), id));
}

/// Starts a child that dies with what `take` has taken, and waits for its death. Its pid.
fn killed_with<H: Serialize + for<'de> Deserialize<'de> + 'static>(handle: H, take: fn(H)) -> u32 {
    let holder = Process::spawn((handle,), take).unwrap();
    let pid = holder.pid();
    assert!(holder.join().is_err());
    pid
}

fn die() -> ! {
    // SAFETY: ends this process.
    unsafe { libc::raise(libc::SIGKILL) };
    unreachable!()
}

/// Runs an ignored test of this file in a program of its own, with its own tree.
fn in_a_tree_of_its_own(name: &str) {
    let out = process::Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

/// Tests that need many processes at once take turns.
fn crowd() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

// --- what kind of things they are ---------------------------------------------------------------------

mod auto_traits {
    use super::*;
    use multiproc::{LockGuard, Permit, Recovery, ValueGuard};

    fn shared<T: Send + Sync + Clone + Debug>() {}
    fn sendable<T: Send + Sync>() {}

    /// Compiles only if `T` is not `Send`: otherwise the method is ambiguous.
    trait NotSendIfUnambiguous<A> {
        fn here() {}
    }
    impl<T: ?Sized> NotSendIfUnambiguous<()> for T {}
    impl<T: ?Sized + Send> NotSendIfUnambiguous<u8> for T {}

    #[test]
    fn handles_are_send_and_sync_and_guards_stay_on_their_thread() {
        shared::<Lock>();
        shared::<Value<u64>>();
        shared::<Atomic<u64>>();
        shared::<Event>();
        shared::<Semaphore>();
        sendable::<OwnedPermit>();
        sendable::<Permit>();
        sendable::<LockError>();
        sendable::<AcquireError>();
        <LockGuard<'static> as NotSendIfUnambiguous<_>>::here();
        <Recovery<'static> as NotSendIfUnambiguous<_>>::here();
        <ValueGuard<'static, u64> as NotSendIfUnambiguous<_>>::here();
    }
}

// --- Lock -----------------------------------------------------------------------------------------

/// Adds without atomicity: right only under a lock.
fn add_badly(total: &Atomic<u64>) {
    let seen = total.load(Relaxed);
    std::hint::spin_loop();
    total.store(seen + 1, Relaxed);
}

#[test]
fn a_lock_excludes_processes_and_threads() {
    let _watch = watch();
    let (lock, total) = (Lock::new().unwrap(), Atomic::new(0u64).unwrap());
    let work = |lock: Lock, total: Atomic<u64>| {
        thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    for _ in 0..5_000 {
                        let _guard = lock.lock().unwrap();
                        add_badly(&total);
                    }
                });
            }
        });
    };
    let workers: Vec<_> = (0..3).map(|_| Process::spawn((lock.clone(), total.clone()), work).unwrap()).collect();
    work(lock.clone(), total.clone());
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!(total.get(), 40_000);
    assert!(!lock.is_locked());
}

#[test]
fn a_death_is_reported_to_everybody_until_somebody_vouches() {
    let _watch = watch();
    let lock = Lock::new().unwrap();
    let pid = killed_with(lock.clone(), |lock| {
        let _guard = lock.lock().unwrap();
        die();
    });
    let same = |r: Result<(), LockError>| matches!(r, Err(LockError::OwnerDied(Death { pid: dead, .. })) if dead == pid);
    assert!(same(lock.lock().map(drop)));
    assert!(same(lock.try_lock().map(drop)));
    assert!(same(lock.lock_timeout(Duration::from_millis(1)).map(drop)));
    assert!(same(lock.lock_deadline(Instant::now()).map(drop)));
    let told =
        Process::spawn((lock.clone(),), |lock| matches!(lock.lock(), Err(LockError::OwnerDied(d)) if d.pid != process::id()));
    assert!(told.unwrap().join().unwrap());
    // A recovery that is dropped leaves it so.
    assert_eq!(lock.recover().unwrap().died().unwrap().pid, pid);
    assert!(same(lock.lock().map(drop)));
    let recovery = lock.recover().unwrap();
    assert!(matches!(lock.lock(), Err(LockError::WouldDeadlock)));
    let guard = recovery.make_consistent();
    assert!(lock.is_locked());
    drop(guard);
    assert!(lock.lock().is_ok());
    assert_eq!(lock.recover().unwrap().died(), None);
    assert!(lock.try_lock().is_ok());
}

#[test]
fn the_pid_in_a_report_is_that_of_the_latest_death() {
    let _watch = watch();
    let lock = Lock::new().unwrap();
    for _ in 0..3 {
        let pid = killed_with(lock.clone(), |lock| {
            mem::forget(lock.lock().unwrap());
            die();
        });
        assert!(matches!(lock.lock(), Err(LockError::OwnerDied(d)) if d.pid == pid));
        // The recoverer dies, too, before it has vouched.
        let second = killed_with(lock.clone(), |lock| {
            mem::forget(lock.recover().unwrap());
            die();
        });
        assert!(matches!(lock.lock(), Err(LockError::OwnerDied(d)) if d.pid == second));
        drop(lock.recover().unwrap().make_consistent());
        assert!(lock.lock().is_ok());
    }
}

#[test]
fn a_thread_that_ends_with_a_forgotten_guard_counts_as_dead() {
    let _watch = watch();
    let lock = Lock::new().unwrap();
    thread::scope(|s| {
        s.spawn(|| {
            mem::forget(lock.lock().unwrap());
            assert!(matches!(lock.lock(), Err(LockError::WouldDeadlock)));
        });
    });
    assert!(matches!(lock.lock(), Err(LockError::OwnerDied(d)) if d.pid == process::id()));
}

#[test]
fn a_forgotten_guard_keeps_the_memory_of_the_lock_until_the_thread_ends() {
    let _watch = watch();
    thread::scope(|s| {
        s.spawn(|| {
            let below = Lock::new().unwrap();
            let _below = below.lock().unwrap();
            for _ in 0..20 {
                let lost = Lock::new().unwrap();
                mem::forget(lost.lock().unwrap());
                drop(lost);
                let lost = Value::new(1u64).unwrap();
                mem::forget(lost.lock().unwrap());
                drop(lost);
            }
            // What would take the cells of the lost ones, and be written over when their neighbours unlock.
            let fresh: Vec<_> = (0..100).map(|_| Value::new([u64::MAX; 16]).unwrap()).collect();
            let above = Lock::new().unwrap();
            drop(above.lock().unwrap());
            testing::collect().unwrap();
            let more: Vec<_> = (0..100).map(|_| Value::new([u64::MAX; 16]).unwrap()).collect();
            drop(above.lock().unwrap());
            drop(_below);
            for value in fresh.iter().chain(&more) {
                assert_eq!(value.get().unwrap(), [u64::MAX; 16]);
            }
            let again = below.lock().unwrap();
            mem::forget(again);
            thread::spawn(move || below.lock().map(drop).unwrap_err());
        });
    });
}

#[test]
fn the_kernel_finds_every_lock_below_one_whose_handle_is_gone() {
    let _watch = watch();
    let below = Lock::new().unwrap();
    // A thread, since for a process the cleaner would make good what the kernel missed.
    thread::scope(|s| {
        s.spawn(|| {
            mem::forget(below.lock().unwrap());
            let (lost, value) = (Lock::new().unwrap(), Value::new(0u64).unwrap());
            mem::forget((lost.lock().unwrap(), value.lock().unwrap()));
            drop((lost, value));
            // Zeroed cells of the same sizes: the list would end there.
            let _fresh: Vec<_> = (0..50).map(|_| (Lock::new().unwrap(), Value::new(0u64).unwrap())).collect();
        });
    });
    assert!(matches!(below.lock_timeout(Duration::from_secs(40)), Err(LockError::OwnerDied(_))));
}

#[test]
fn try_and_timeouts_tell_and_are_never_early() {
    let _watch = watch();
    let lock = Lock::new().unwrap();
    let guard = lock.lock().unwrap();
    thread::scope(|s| {
        s.spawn(|| {
            assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock)));
            for ms in [0, 1, 10, 40] {
                let (start, time) = (Instant::now(), Duration::from_millis(ms));
                assert!(matches!(lock.lock_timeout(time), Err(LockError::TimedOut)));
                assert!(start.elapsed() >= time);
                let deadline = Instant::now() + time;
                assert!(matches!(lock.lock_deadline(deadline), Err(LockError::TimedOut)));
                assert!(Instant::now() >= deadline);
            }
        });
    });
    drop(guard);
    assert!(lock.lock_timeout(Duration::MAX).is_ok());
    let child = Process::spawn((lock.clone(),), |lock| lock.lock_timeout(Duration::ZERO).is_ok()).unwrap();
    assert!(child.join().unwrap());
}

#[test]
fn a_lock_may_ignore_deaths() {
    let _watch = watch();
    let lock = Lock::ignoring_death().unwrap();
    for _ in 0..3 {
        killed_with(lock.clone(), |lock| {
            mem::forget(lock.lock().unwrap());
            die();
        });
        assert!(lock.try_lock().is_ok());
        assert_eq!(lock.recover().unwrap().died(), None);
    }
}

#[test]
fn a_panic_releases_without_poison() {
    let _watch = watch();
    let (lock, value) = (Lock::new().unwrap(), Value::new(5u32).unwrap());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = lock.lock().unwrap();
        value.update(|v| {
            *v = 6;
            panic!("in the middle");
        })
    }));
    assert!(panicked.is_err());
    assert!(lock.lock().is_ok());
    assert_eq!(value.get().unwrap(), 5);
    assert!(value.lock().is_ok());
    // A destructor that runs during a panic of others may well change a value.
    struct Count<'a>(&'a Value<u32>);
    impl Drop for Count<'_> {
        fn drop(&mut self) {
            self.0.update(|v| *v += 1).unwrap();
        }
    }
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _count = Count(&value);
        panic!("on the way out");
    }));
    assert!(panicked.is_err());
    assert_eq!(value.get().unwrap(), 6);
}

#[test]
fn more_locks_than_the_kernel_walks_are_refused_and_nothing_breaks() {
    let _watch = watch();
    let locks: Vec<Lock> = (0..1_905).map(|_| Lock::new().unwrap()).collect();
    thread::scope(|s| {
        s.spawn(|| {
            let mut guards: Vec<_> = locks[..1_900].iter().map(|l| Some(l.lock().unwrap())).collect();
            for lock in &locks[1_900..] {
                assert!(matches!(lock.lock(), Err(LockError::Shared(Error::TooManyLocks))));
                assert!(matches!(lock.try_lock(), Err(LockError::Shared(Error::TooManyLocks))));
                assert!(!lock.is_locked());
            }
            // In any order: 7 is prime to 1,900.
            for i in 0..1_900 {
                guards[i * 7 % 1_900] = None;
                assert!(!locks[i * 7 % 1_900].is_locked());
            }
            assert!(locks.iter().all(|l| l.lock().is_ok()));
        });
    });
    let pid = killed_with(locks.clone(), |locks| {
        let guards: Vec<_> = locks.iter().map_while(|l| l.lock().ok()).collect();
        assert_eq!(guards.len(), 1_900);
        die();
    });
    for lock in &locks[..1_900] {
        assert!(matches!(lock.try_lock(), Err(LockError::OwnerDied(d)) if d.pid == pid));
    }
    assert!(locks[1_900..].iter().all(|l| l.try_lock().is_ok()));
}

/// Locks all, unlocks some in no order, and keeps the rest for good.
fn keep_some(locks: &[Lock]) {
    let mut guards: Vec<_> = locks.iter().map(|l| Some(l.lock().unwrap())).collect();
    for i in [0, 23, 5, 6, 7, 17, 1, 22] {
        guards[i] = None;
    }
    guards[5] = Some(locks[5].lock().unwrap());
    mem::forget(guards);
}

#[test]
fn locks_are_released_in_any_order_and_what_is_left_is_marked() {
    let _watch = watch();
    // By the kernel when a thread ends; by it and the cleaner when a process is killed.
    for in_thread in [true, false] {
        let locks: Vec<Lock> = (0..24).map(|_| Lock::new().unwrap()).collect();
        if in_thread {
            // The end of a scope waits for the closure; `join` waits for the thread's end, and so for the kernel's walk.
            thread::scope(|s| s.spawn(|| keep_some(&locks)).join().unwrap());
        } else {
            killed_with(locks.clone(), |locks| {
                keep_some(&locks);
                die();
            });
        }
        for (i, lock) in locks.iter().enumerate() {
            let free = [0, 23, 6, 7, 17, 1, 22].contains(&i);
            let found = lock.try_lock();
            assert!(if free { found.is_ok() } else { matches!(found, Err(LockError::OwnerDied(_))) }, "lock {i}: {found:?}");
        }
    }
}

// --- Value ----------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, NoUninit, CheckedBitPattern)]
#[repr(u8)]
enum Light {
    Red,
    Green,
}

#[derive(Clone, Copy, Debug, PartialEq, NoUninit, CheckedBitPattern)]
#[repr(C)]
struct State {
    counts: [u64; 24],
    letter: char,
    on: bool,
    light: Light,
    rest: [u8; 2],
}

#[test]
fn values_of_all_plain_types() {
    let _watch = watch();
    fn through<T: NoUninit + CheckedBitPattern + PartialEq + Debug>(first: T, second: T) {
        let value = Value::new(first).unwrap();
        assert_eq!(value.get().unwrap(), first);
        value.set(second).unwrap();
        assert_eq!(value.get().unwrap(), second);
        assert_eq!(*value.lock().unwrap(), second);
        let child = Process::spawn((value.clone(),), |v: Value<T>| v.update(|_| ()).unwrap()).unwrap();
        child.join().unwrap();
        assert_eq!(value.get().unwrap(), second);
        assert!(format!("{value:?}").contains(&format!("{second:?}")));
    }
    through(false, true);
    through('a', '\u{10ffff}');
    through(Light::Red, Light::Green);
    through((), ());
    through([1u8; 3], [2; 3]);
    through(1.5f32, -0.0);
    through(1u128, u128::MAX);
    through([7u64; 64], [8; 64]);
    assert_eq!(size_of::<State>(), 200);
    let state = State { counts: [1; 24], letter: 'x', on: true, light: Light::Green, rest: [0; 2] };
    through(state, State { on: false, letter: 'ß', ..state });
}

#[test]
fn no_reader_sees_a_torn_value() {
    let _watch = watch();
    let _crowd = crowd();
    let (value, stop) = (Value::new([0u64; 25]).unwrap(), Event::new().unwrap());
    let writer = Process::spawn((value.clone(), stop.clone()), |value: Value<[u64; 25]>, stop: Event| {
        let mut n = 0;
        while !stop.is_set() {
            n += 1;
            value.set([n; 25]).unwrap();
        }
        n
    });
    let read = |value: Value<[u64; 25]>, stop: Event| {
        let (mut reads, mut torn, mut last) = (0u64, 0u64, 0);
        while !stop.is_set() {
            let seen = value.get().unwrap();
            torn += u64::from(seen.iter().any(|w| *w != seen[0]) || seen[0] < last);
            last = seen[0];
            reads += 1;
        }
        (reads, torn)
    };
    let reader = Process::spawn((value.clone(), stop.clone()), read).unwrap();
    let here = thread::scope(|s| {
        let here = s.spawn(|| read(value.clone(), stop.clone()));
        thread::sleep(Duration::from_millis(500));
        stop.set().unwrap();
        here.join().unwrap()
    });
    let there = reader.join().unwrap();
    let written = writer.unwrap().join().unwrap();
    assert!(written > 100 && here.0 > 100 && there.0 > 100, "{written} {here:?} {there:?}");
    assert_eq!((here.1, there.1), (0, 0));
    assert_eq!(value.get().unwrap(), [written; 25]);
}

#[test]
fn updates_of_processes_and_threads_all_count() {
    let _watch = watch();
    let value = Value::new((0u64, 0u64).into_array()).unwrap();
    let work = |value: Value<[u64; 2]>| {
        thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| (0..3_000).for_each(|_| value.update(|[a, b]| (*a += 1, *b += 2)).map(drop).unwrap()));
            }
        });
    };
    let workers: Vec<_> = (0..2).map(|_| Process::spawn((value.clone(),), work).unwrap()).collect();
    work(value.clone());
    workers.into_iter().for_each(|w| w.join().unwrap());
    assert_eq!(value.get().unwrap(), [18_000, 36_000]);
}

trait IntoArray {
    fn into_array(self) -> [u64; 2];
}
impl IntoArray for (u64, u64) {
    fn into_array(self) -> [u64; 2] {
        [self.0, self.1]
    }
}

#[test]
fn a_value_guard_publishes_when_dropped_and_not_otherwise() {
    let _watch = watch();
    let value = Value::new(1u32).unwrap();
    let mut guard = value.lock().unwrap();
    *guard = 2;
    assert_eq!(value.get().unwrap(), 1, "a private copy");
    assert!(matches!(value.lock(), Err(LockError::WouldDeadlock)));
    assert!(matches!(value.set(9), Err(LockError::WouldDeadlock)));
    drop(guard);
    assert_eq!(value.get().unwrap(), 2);
    let mut guard = value.lock().unwrap();
    *guard = 3;
    guard.discard();
    assert_eq!(value.get().unwrap(), 2);
    thread::scope(|s| {
        s.spawn(|| {
            let mut guard = value.lock().unwrap();
            *guard = 4;
            mem::forget(guard);
            thread::scope(|s| {
                s.spawn(|| assert!(matches!(value.lock_timeout(Duration::from_millis(10)), Err(LockError::TimedOut))));
            });
        });
    });
    assert_eq!(*value.lock().unwrap(), 2, "the death of that thread is nobody's concern");
    killed_with(value.clone(), |value| {
        let mut guard = value.lock().unwrap();
        *guard = 5;
        die();
    });
    assert_eq!(*value.lock().unwrap(), 2);
    value.set(6).unwrap();
    assert_eq!(value.get().unwrap(), 6);
}

// --- Atomic ---------------------------------------------------------------------------------------

#[test]
fn atomics_of_all_types_add_up() {
    let _watch = watch();
    macro_rules! each {
        ($($T:ident)*) => { $(
            let atomic = Atomic::<$T>::new(5).unwrap();
            let child = Process::spawn((atomic.clone(),), |a: Atomic<$T>| { (0..50).for_each(|_| { a.add(1); }); a.get() });
            (0..50).for_each(|_| { atomic.fetch_add(1, Relaxed); });
            assert!(child.unwrap().join().unwrap() >= 55);
            assert_eq!(atomic.get(), 105);
            atomic.set($T::MAX);
            assert_eq!(atomic.add(1), $T::MAX);
            assert_eq!(atomic.load(SeqCst), $T::MIN);
            assert_eq!(format!("{atomic:?}"), format!("Atomic({})", $T::MIN));
        )* };
    }
    each!(u8 u16 u32 u64 usize i8 i16 i32 i64 isize);
}

// --- Event ----------------------------------------------------------------------------------------

#[test]
fn a_set_that_is_cleared_at_once_is_not_missed() {
    let _watch = watch();
    let event = Event::new().unwrap();
    for _ in 0..20 {
        let waiter = Process::spawn((event.clone(),), |event| event.wait().unwrap()).unwrap();
        await_sleep(&waiter, &event);
        event.set().unwrap();
        event.clear();
        waiter.join().unwrap();
        assert!(!event.is_set());
    }
}

#[test]
fn fifty_waiters_in_several_processes_all_go_on() {
    let _watch = watch();
    let _crowd = crowd();
    let (event, ready) = (Event::new().unwrap(), Atomic::new(0u32).unwrap());
    let wait = |event: Event, ready: Atomic<u32>| {
        thread::scope(|s| {
            let wait = || {
                ready.add(1);
                event.wait().unwrap();
                1
            };
            (0..10).map(|_| s.spawn(wait)).collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).sum::<u32>()
        })
    };
    for _ in 0..5 {
        ready.set(0);
        event.clear();
        let children: Vec<_> = (0..5).map(|_| Process::spawn((event.clone(), ready.clone()), wait).unwrap()).collect();
        eventually("all are there", || ready.get() == 50);
        thread::sleep(Duration::from_millis(5));
        event.set().unwrap();
        assert_eq!(children.into_iter().map(|c| c.join().unwrap()).sum::<u32>(), 50);
    }
}

#[test]
fn waiting_for_an_event_ends_in_time_and_not_early() {
    let _watch = watch();
    let event = Event::new().unwrap();
    for ms in [0, 1, 20] {
        let (start, time) = (Instant::now(), Duration::from_millis(ms));
        assert!(!event.wait_timeout(time).unwrap());
        assert!(start.elapsed() >= time);
        let deadline = Instant::now() + time;
        assert!(!event.wait_deadline(deadline).unwrap());
        assert!(Instant::now() >= deadline);
    }
    event.set().unwrap();
    event.set().unwrap();
    assert!(event.is_set() && event.wait_timeout(Duration::ZERO).unwrap() && event.wait_deadline(Instant::now()).unwrap());
    event.wait().unwrap();
    event.clear();
    assert!(!event.is_set() && !event.wait_timeout(Duration::ZERO).unwrap());
}

#[test]
fn a_killed_waiter_swallows_nothing() {
    let _watch = watch();
    let event = Event::new().unwrap();
    for round in 0..10 {
        let children: Vec<_> = (0..3).map(|_| Process::spawn((event.clone(),), |event| event.wait().unwrap()).unwrap()).collect();
        children.iter().for_each(|c| await_sleep(c, &event));
        children[round % 3].kill().unwrap();
        event.set().unwrap();
        for (i, child) in children.into_iter().enumerate() {
            assert!(child.join().is_ok() || i == round % 3);
        }
        event.clear();
    }
}

// --- Semaphore ------------------------------------------------------------------------------------

#[test]
fn a_semaphore_lets_in_as_many_as_it_has_permits() {
    let _watch = watch();
    let (semaphore, inside, most) = (Semaphore::new(3).unwrap(), Atomic::new(0u32).unwrap(), Atomic::new(0u32).unwrap());
    let work = |semaphore: Semaphore, inside: Atomic<u32>, most: Atomic<u32>| {
        thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    for _ in 0..300 {
                        let _permit = semaphore.acquire().unwrap();
                        most.fetch_max(inside.add(1) + 1, SeqCst);
                        thread::yield_now();
                        inside.fetch_sub(1, SeqCst);
                    }
                });
            }
        });
    };
    let args = || (semaphore.clone(), inside.clone(), most.clone());
    let children: Vec<_> = (0..3).map(|_| Process::spawn(args(), work).unwrap()).collect();
    children.into_iter().for_each(|c| c.join().unwrap());
    assert_eq!((most.get(), inside.get()), (3, 0));
    assert_eq!((semaphore.available(), semaphore.permits(), semaphore.take_recovered()), (3, 3, 0));
}

#[test]
fn a_semaphore_has_a_permit_at_least_and_says_when_none_is_free() {
    let _watch = watch();
    assert!(matches!(Semaphore::new(0), Err(Error::Invalid(_))));
    let one = Semaphore::new(1).unwrap();
    let permit = one.acquire().unwrap();
    assert!(matches!(one.try_acquire(), Err(AcquireError::WouldBlock)));
    assert!(matches!(one.try_acquire_owned(), Err(AcquireError::WouldBlock)));
    for ms in [0, 1, 20] {
        let (start, time) = (Instant::now(), Duration::from_millis(ms));
        assert!(matches!(one.acquire_timeout(time), Err(AcquireError::TimedOut)));
        assert!(start.elapsed() >= time);
        let start = Instant::now();
        assert!(matches!(one.acquire_owned_timeout(time), Err(AcquireError::TimedOut)));
        assert!(start.elapsed() >= time);
        let deadline = Instant::now() + time;
        assert!(matches!(one.acquire_deadline(deadline), Err(AcquireError::TimedOut)));
        assert!(Instant::now() >= deadline);
    }
    // A permit may go to another thread.
    thread::spawn(move || drop(permit)).join().unwrap();
    assert_eq!(one.available(), 1);
    assert!(one.try_acquire().is_ok());
    let huge = Semaphore::new(u32::MAX).unwrap();
    let _one = huge.acquire().unwrap();
    assert_eq!(huge.available(), u32::MAX - 1);
}

#[test]
fn the_permits_of_a_killed_process_return_and_are_counted() {
    let _watch = watch();
    let semaphore = Semaphore::new(5).unwrap();
    let mine = semaphore.acquire().unwrap();
    killed_with(semaphore.clone(), |semaphore| {
        let _two = [semaphore.acquire().unwrap(), semaphore.acquire().unwrap()];
        let _owned = semaphore.acquire_owned().unwrap();
        mem::forget(semaphore.acquire().unwrap());
        die();
    });
    assert_eq!(semaphore.available(), 4);
    assert_eq!((semaphore.take_recovered(), semaphore.take_recovered()), (4, 0));
    drop(mine);
    assert_eq!(semaphore.available(), 5);
    // A waiter gets what a killed holder had.
    let all: Vec<_> = (0..4).map(|_| semaphore.acquire().unwrap()).collect();
    let holder = Process::spawn((semaphore.clone(), Event::new().unwrap()), |semaphore, never: Event| {
        let _permit = semaphore.acquire().unwrap();
        never.wait().unwrap();
    });
    let holder = holder.unwrap();
    eventually("the holder has it", || semaphore.available() == 0);
    let waiter = Process::spawn((semaphore.clone(),), |semaphore| semaphore.acquire().map(drop).is_ok()).unwrap();
    await_sleep(&waiter, &semaphore);
    holder.kill().unwrap();
    assert!(waiter.join().unwrap());
    drop(all);
    assert_eq!(semaphore.available(), 5);
}

// --- OwnedPermit ----------------------------------------------------------------------------------

#[test]
fn a_permit_travels_in_arguments() {
    let _watch = watch();
    let one = Semaphore::new(1).unwrap();
    let permit = one.acquire_owned().unwrap();
    let (go, here) = (Event::new().unwrap(), Event::new().unwrap());
    let child = Process::spawn((permit, go.clone(), here.clone()), |permit: OwnedPermit, go: Event, here: Event| {
        here.set().unwrap();
        go.wait().unwrap();
        drop(permit);
    });
    let child = child.unwrap();
    here.wait().unwrap();
    assert_eq!(one.available(), 0, "it is the child's");
    go.set().unwrap();
    child.join().unwrap();
    assert_eq!((one.available(), one.take_recovered()), (1, 0));
    // Dropped by a child that never looks at it; killed with it.
    Process::spawn((one.acquire_owned().unwrap(),), |_| ()).unwrap().join().unwrap();
    assert_eq!((one.available(), one.take_recovered()), (1, 0));
    killed_with(one.acquire_owned().unwrap(), |_permit| die());
    assert_eq!((one.available(), one.take_recovered()), (1, 1));
}

#[test]
fn a_permit_travels_in_a_result() {
    let _watch = watch();
    let one = Semaphore::new(1).unwrap();
    let child = Process::spawn((one.clone(),), |one| one.acquire_owned().unwrap()).unwrap();
    let permit = child.join().unwrap();
    assert_eq!(one.available(), 0, "it is here");
    assert!(one.try_acquire().is_err());
    drop(permit);
    assert_eq!(one.available(), 1);
    // There and back.
    let permit = Process::spawn((one.acquire_owned().unwrap(),), |p| p).unwrap().join().unwrap();
    assert_eq!(one.available(), 0);
    drop(permit);
    assert_eq!((one.available(), one.take_recovered()), (1, 0));
    // A result that nobody fetches.
    let child = Process::spawn((one.clone(),), |one| one.acquire_owned().unwrap()).unwrap();
    child.wait();
    assert_eq!(one.available(), 0, "in the result");
    drop(child);
    assert!(one.acquire_timeout(Duration::from_secs(40)).is_ok());
}

#[test]
fn a_permit_travels_in_a_message() {
    let _watch = watch();
    let (one, queue) = (Semaphore::new(1).unwrap(), Queue::<OwnedPermit>::bounded(4).unwrap());
    queue.put(one.acquire_owned().unwrap()).unwrap();
    assert_eq!(one.available(), 0, "in the queue");
    drop(queue.get().unwrap());
    assert_eq!(one.available(), 1);
    // A put that fails gives the value back, whole.
    let full = Queue::<OwnedPermit>::bounded(1).unwrap();
    let two = Semaphore::new(2).unwrap();
    full.put(two.acquire_owned().unwrap()).unwrap();
    let back = full.try_put(two.acquire_owned().unwrap()).unwrap_err();
    assert!(back.is_full());
    let back = back.into_inner();
    assert_eq!(two.available(), 0);
    drop(full.get().unwrap());
    full.put(back).unwrap();
    assert_eq!(two.available(), 1);
    drop(full.get().unwrap());
    assert_eq!(two.available(), 2);
    // A message that is lost: its queue is gone.
    queue.put(one.acquire_owned().unwrap()).unwrap();
    drop(queue);
    assert!(one.acquire_timeout(Duration::from_secs(40)).is_ok());
    // A receiver that is killed with it.
    let queue = Queue::<OwnedPermit>::bounded(4).unwrap();
    queue.put(one.acquire_owned().unwrap()).unwrap();
    killed_with(queue.receiver().unwrap(), |queue| {
        let _permit = queue.get().unwrap();
        die();
    });
    assert_eq!((one.available(), one.take_recovered()), (1, 2));
}

/// Never decodes, and its permit is not looked at.
#[derive(Debug, Serialize, Deserialize)]
struct Undecodable {
    first: Fails,
    permit: OwnedPermit,
}

#[derive(Debug, Serialize)]
struct Fails;

impl<'de> Deserialize<'de> for Fails {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Fails, D::Error> {
        Err(serde::de::Error::custom("as asked"))
    }
}

#[test]
fn a_permit_that_never_comes_out_of_its_message_wakes_who_waits() {
    let _watch = watch();
    let (one, queue) = (Semaphore::new(1).unwrap(), Queue::<Undecodable>::bounded(4).unwrap());
    let lose: [&dyn Fn(); 2] = [&|| drop(queue.get().unwrap_err()), &|| drop(queue.lease().map(drop).unwrap_err())];
    for lose in lose {
        queue.put(Undecodable { first: Fails, permit: one.acquire_owned().unwrap() }).unwrap();
        let waiter = Process::spawn((one.clone(),), |one| drop(one.acquire().unwrap())).unwrap();
        await_sleep(&waiter, &one);
        lose();
        waiter.join().unwrap();
    }
}

#[test]
fn a_value_that_was_put_by_reference_is_empty_afterwards() {
    let _watch = watch();
    let (one, queue) = (Semaphore::new(1).unwrap(), Queue::<OwnedPermit>::bounded(4).unwrap());
    let kept = one.acquire_owned().unwrap();
    queue.put_ref(&kept).unwrap();
    assert!(queue.put_ref(&kept).unwrap_err().is_codec(), "it has gone");
    killed_with(queue.receiver().unwrap(), |queue| {
        let _permit = queue.get().unwrap();
        die();
    });
    assert_eq!(one.available(), 1, "the empty value keeps nothing");
    let other = one.acquire_owned().unwrap();
    drop(kept);
    assert_eq!(one.available(), 0, "and gives nothing back");
    drop(other);
}

#[test]
fn a_permit_stays_with_a_lease_that_is_delivered_again() {
    let _watch = watch();
    let (one, queue) = (Semaphore::new(1).unwrap(), Queue::<OwnedPermit>::bounded(4).unwrap());
    queue.put(one.acquire_owned().unwrap()).unwrap();
    drop(queue.lease().unwrap());
    assert_eq!(one.available(), 0, "still in the message");
    queue.lease().unwrap().requeue();
    assert_eq!(one.available(), 0);
    killed_with(queue.receiver().unwrap(), |queue| {
        let _lease = queue.lease().unwrap();
        die();
    });
    assert_eq!(one.available(), 0, "delivered again with its message");
    let lease = queue.lease().unwrap();
    assert_eq!(lease.attempt(), 4);
    let permit = lease.ack();
    assert_eq!(one.available(), 0);
    drop(permit);
    assert_eq!((one.available(), one.take_recovered()), (1, 0));
}

#[test]
fn so_many_owned_permits_and_no_more() {
    let _watch = watch();
    let many = Semaphore::new(2_000).unwrap();
    let mut permits: Vec<_> = (0..1_024).map(|_| many.acquire_owned().unwrap()).collect();
    assert!(matches!(many.try_acquire_owned(), Err(AcquireError::Shared(Error::Full(_)))));
    assert!(matches!(many.acquire_owned(), Err(AcquireError::Shared(Error::Full(_)))));
    assert_eq!(many.available(), 976);
    let plain = many.acquire().unwrap();
    drop(permits.swap_remove(500));
    permits.push(many.acquire_owned().unwrap());
    drop((plain, permits));
    assert_eq!(many.available(), 2_000);
}

// --- handles --------------------------------------------------------------------------------------

#[test]
fn handles_travel_only_with_multiproc_and_only_as_what_they_are() {
    let _watch = watch();
    let (lock, value, atomic) = (Lock::new().unwrap(), Value::new(1u8).unwrap(), Atomic::new(1u8).unwrap());
    let (event, semaphore) = (Event::new().unwrap(), Semaphore::new(1).unwrap());
    let permit = semaphore.acquire_owned().unwrap();
    let outside = [
        serde_json::to_string(&lock).unwrap_err(),
        serde_json::to_string(&value).unwrap_err(),
        serde_json::to_string(&atomic).unwrap_err(),
        serde_json::to_string(&event).unwrap_err(),
        serde_json::to_string(&semaphore).unwrap_err(),
        serde_json::to_string(&permit).unwrap_err(),
        serde_json::from_str::<Lock>("0").unwrap_err(),
        serde_json::from_str::<OwnedPermit>("0").unwrap_err(),
    ];
    for error in outside {
        assert!(error.to_string().contains("only be sent through multiproc's own"), "{error}");
    }
    drop(permit);
    assert_eq!(semaphore.available(), 1, "a failed encoding has sent nothing");

    /// Says that it is an `A` and is read as a `B`, as a program does that casts a queue.
    enum Liar<A, B> {
        Sent(A),
        Got(B),
    }
    impl<A: Serialize, B> Serialize for Liar<A, B> {
        fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            match self {
                Liar::Sent(a) => a.serialize(s),
                Liar::Got(_) => unreachable!(),
            }
        }
    }
    impl<'de, A, B: Deserialize<'de>> Deserialize<'de> for Liar<A, B> {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            B::deserialize(d).map(Liar::Got)
        }
    }
    fn lie<A, B>(sent: A) -> String
    where
        A: Serialize + for<'de> Deserialize<'de> + 'static,
        B: Serialize + for<'de> Deserialize<'de> + 'static,
    {
        let queue = Queue::<Liar<A, B>>::bounded(2).unwrap();
        queue.put(Liar::Sent(sent)).unwrap();
        let error = queue.get().err().expect("a handle of another type").to_string();
        assert!(queue.is_empty());
        error
    }
    let told = [
        lie::<_, Value<u64>>(value.clone()),
        lie::<_, Value<bool>>(value.clone()),
        lie::<_, Atomic<i8>>(atomic.clone()),
        lie::<_, Event>(lock.clone()),
        lie::<_, OwnedPermit>(semaphore.clone()),
        lie::<_, Semaphore>(event.clone()),
    ];
    for text in told {
        assert!(text.contains("is not a") || text.contains("decode"), "{text}");
    }
    assert!(lock.lock().is_ok());
}

fn other_arena(limit: Option<u64>) -> &'static Arena {
    Arena::create(&Options { size: 64 << 20, limit, ..Options::new(1, multiproc_sync::KINDS) }).unwrap()
}

#[test]
fn a_handle_of_another_arena_is_refused() {
    let _watch = watch();
    let arena = other_arena(None);
    let stranger = Lock::new_in(arena).unwrap();
    let queue = Queue::<Lock>::bounded(1).unwrap();
    let refused = queue.put(stranger.clone()).unwrap_err();
    assert!(refused.is_codec() && refused.to_string().contains("another process tree"), "{refused}");
    assert!(Process::spawn((stranger.clone(),), |lock| lock.is_locked()).is_err());
    // It works where it belongs, beside that of the tree.
    let ours = Lock::new().unwrap();
    let (_a, _b) = (stranger.lock().unwrap(), ours.lock().unwrap());
}

#[test]
fn a_full_arena_is_an_error_and_passes() {
    let _watch = watch();
    let arena = other_arena(Some(2 << 20));
    let fill = || {
        let mut all = Vec::new();
        let error = loop {
            match Semaphore::new_in(arena, 1) {
                Ok(s) => all.push(s),
                Err(e) => break e,
            }
        };
        assert!(matches!(error, Error::OutOfMemory(_)), "{error}");
        all
    };
    let (first, used) = (fill(), arena.usage().0);
    assert!(first.len() > 50, "{}", first.len());
    // What exists goes on working.
    let permit = first[0].acquire().unwrap();
    assert!(matches!(first[1].acquire_owned().map(drop), Ok(()) | Err(AcquireError::Shared(Error::OutOfMemory(_)))));
    assert_eq!(first[1].available(), 1);
    drop(permit);
    let many = first.len();
    drop(first);
    for _ in 0..3 {
        let again = fill().len();
        assert!(again >= many, "{again} of {many}");
    }
    assert!(arena.usage().0 <= used.max(2 << 20));
    // What one kind has used another kind can have.
    let large = Value::new_in(arena, [1u64; 4096]).unwrap();
    assert_eq!(large.get().unwrap()[4095], 1);
}

// --- in programs of their own ---------------------------------------------------------------------

#[test]
fn after_a_plain_fork_everything_is_an_error_and_drops_do_nothing() {
    in_a_tree_of_its_own("forked");
}

#[test]
#[ignore = "run by another test, in a program of its own"]
fn forked() {
    let _watch = watch();
    let lock = Lock::new().unwrap();
    let value = Value::new(1u64).unwrap();
    let (event, semaphore) = (Event::new().unwrap(), Semaphore::new(2).unwrap());
    let free = Lock::new().unwrap();
    let objects = testing::audit().unwrap().objects;
    {
        let guard = lock.lock().unwrap();
        let mut edited = value.lock().unwrap();
        *edited = 2;
        let (permit, owned) = (semaphore.acquire().unwrap(), semaphore.acquire_owned().unwrap());
        // SAFETY: the child uses nothing that another thread may have had locked; glibc's allocator is reset by fork.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let shared = |r: Result<(), LockError>| matches!(r, Err(LockError::Shared(Error::Forked)));
            let refused = [
                shared(free.lock().map(drop)),
                shared(free.try_lock().map(drop)),
                shared(lock.lock().map(drop)),
                shared(free.recover().map(drop)),
                shared(value.get().map(drop)),
                shared(value.set(3)),
                shared(value.update(|_| ())),
                event.set() == Err(Error::Forked),
                event.wait_timeout(Duration::ZERO) == Err(Error::Forked),
                matches!(semaphore.try_acquire(), Err(AcquireError::Shared(Error::Forked))),
                matches!(semaphore.acquire_owned(), Err(AcquireError::Shared(Error::Forked))),
                Lock::new().is_err(),
                Queue::<u8>::bounded(1).is_err(),
                Process::spawn((), || ()).is_err(),
            ];
            drop((guard, edited, permit, owned));
            drop((lock, value, event, semaphore, free));
            let wrong = refused.iter().position(|ok| !ok).map_or(0, |i| i as i32 + 1);
            // SAFETY: ends the child, without the parent's exit handlers.
            unsafe { libc::_exit(wrong) };
        }
        let mut status = 0;
        // SAFETY: waits for the child made above.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0, "operation {} of the list was not refused", (status >> 8) - 1);
        assert!(lock.is_locked(), "the child's drops are none of ours");
        assert_eq!((value.get().unwrap(), semaphore.available()), (1, 0));
        thread::scope(|s| {
            s.spawn(|| assert!(matches!(value.lock_timeout(Duration::from_millis(5)), Err(LockError::TimedOut))));
            s.spawn(|| assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock))));
        });
        drop(guard);
        drop((edited, permit, owned));
    }
    assert_eq!((value.get().unwrap(), semaphore.available()), (2, 2));
    assert!(lock.lock().is_ok() && free.lock().is_ok());
    testing::collect().unwrap();
    assert_eq!(testing::audit().unwrap().objects, objects);
}

#[test]
fn nothing_leaks_over_ten_thousand_cycles() {
    in_a_tree_of_its_own("cycles");
}

/// Bytes that the kernel keeps for the arena.
fn backed() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let arena = fs::read_dir("/proc/self/fd").unwrap().flatten().map(|e| e.path());
    let is_arena = |p: &std::path::PathBuf| fs::read_link(p).is_ok_and(|to| to.to_string_lossy().contains("memfd:multiproc"));
    arena.filter(is_arena).map(|p| fs::metadata(p).unwrap().blocks() * 512).max().expect("an arena")
}

#[derive(Serialize, Deserialize)]
struct Parcel {
    lock: Lock,
    value: Value<[u64; 4]>,
    atomic: Atomic<u16>,
    event: Event,
    semaphore: Semaphore,
    permit: Option<OwnedPermit>,
}

impl Parcel {
    fn new() -> Parcel {
        let semaphore = Semaphore::new(2).unwrap();
        let permit = semaphore.acquire_owned().ok();
        let (lock, value, atomic) = (Lock::new().unwrap(), Value::new([1; 4]).unwrap(), Atomic::new(1).unwrap());
        Parcel { lock, value, atomic, event: Event::new().unwrap(), semaphore, permit }
    }
}

#[test]
#[ignore = "run by another test, in a program of its own"]
fn cycles() {
    let _watch = watch();
    /// Takes parcels and is killed holding one, its lock, its value and a permit.
    fn victim(parcels: multiproc::Receiver<Parcel>) {
        let (first, second) = (parcels.get().unwrap(), parcels.get().unwrap());
        drop(first);
        let lease = parcels.lease();
        mem::forget(second.lock.lock());
        mem::forget(second.value.lock());
        mem::forget(second.semaphore.acquire());
        mem::forget(lease);
        die();
    }
    let cycle = |kill: bool| {
        let queue = Queue::<Parcel>::bounded(8).unwrap();
        let n = if kill { 3 } else { 1 };
        (0..n).for_each(|_| queue.put(Parcel::new()).unwrap());
        if kill {
            assert!(Process::spawn((queue.receiver().unwrap(),), victim).unwrap().join().is_err());
            // The leased one comes back.
            assert_eq!(queue.lease().unwrap().ack().value.get().unwrap(), [1; 4]);
        } else {
            let parcel = queue.get().unwrap();
            drop(parcel.lock.lock().unwrap());
        }
    };
    (0..200).for_each(|i| cycle(i % 20 == 0));
    testing::collect().unwrap();
    let (audit, bytes, fds) = (testing::audit().unwrap(), backed(), fs::read_dir("/proc/self/fd").unwrap().count());
    (0..10_000).for_each(|i| cycle(i % 100 == 0));
    testing::collect().unwrap();
    assert_eq!(testing::audit().unwrap(), audit);
    eventually("descriptors are closed", || fs::read_dir("/proc/self/fd").unwrap().count() <= fds);
    // Between collections garbage may stand, so the peak is not the first one's; ten thousand parcels would be 160 MB.
    assert!(backed() < bytes + (32 << 20), "{} -> {}", bytes, backed());
}
