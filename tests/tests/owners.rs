//! What the docs of RLock, SignalSemaphore, BoundedSemaphore, Event and of their `Debug` promise, with real processes and real deaths.

use multiproc::{
    AcquireError, Atomic, BoundedSemaphore, Event, Lock, LockError, Process, RLock, RLockGuard, ReleaseError, Semaphore,
    SignalSemaphore, testing,
};
use multiproc_tests::{eventually, watch};
use std::fmt::Debug;
use std::time::{Duration, Instant};
use std::{mem, process, thread};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(10);

fn die() -> ! {
    // SAFETY: ends this process.
    unsafe { libc::raise(libc::SIGKILL) };
    unreachable!()
}

fn id(handle: &impl Debug) -> u32 {
    let text = format!("{handle:?}");
    let digits = text.split_once("id: ").expect("a handle's Debug names its id").1;
    digits.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

fn await_wait<R>(process: &Process<R>, handle: &impl Debug) {
    let id = id(handle);
    eventually(|| testing::waits_for(process.pid()) == Ok(Some(id)));
}

// --- RLock ----------------------------------------------------------------------------------------

/// Whether another thread finds it free.
fn is_free(lock: &RLock) -> bool {
    thread::scope(|s| s.spawn(|| lock.try_lock().is_ok()).join().unwrap())
}

#[test]
fn an_owner_takes_it_again_and_drops_its_guards_in_any_order() {
    let _watch = watch(60);
    let lock = RLock::new().unwrap();
    let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]];
    for order in orders {
        let deadline = Instant::now();
        let mut guards: Vec<Option<RLockGuard<'_>>> = vec![
            lock.lock().ok(),
            lock.try_lock().ok(),
            // Inside nothing waits, so no time is up.
            lock.lock_timeout(Duration::ZERO).ok(),
            lock.lock_deadline(deadline).ok(),
        ];
        assert!(guards.iter().all(Option::is_some));
        for i in order {
            assert!(lock.locked() && !is_free(&lock));
            guards[i] = None;
        }
        assert!(!lock.locked() && is_free(&lock));
    }
    // A clone is the same lock, also one that has travelled.
    let _first = lock.lock().unwrap();
    assert!(lock.clone().try_lock().is_ok());
    let other = Process::spawn((lock.clone(),), |lock| {
        matches!(lock.try_lock(), Err(LockError::WouldBlock))
            && matches!(lock.lock_timeout(SHORT), Err(LockError::TimedOut))
            && lock.locked()
    });
    assert!(other.unwrap().join().unwrap());
}

#[test]
fn other_threads_and_processes_are_kept_out() {
    let _watch = watch(120);
    fn add(lock: &RLock, total: &Atomic<u64>) {
        for _ in 0..2_000 {
            let _outer = lock.lock().unwrap();
            let seen = total.get();
            let _inner = lock.lock().unwrap();
            total.set(seen + 1);
        }
    }
    let (lock, total) = (RLock::new().unwrap(), Atomic::new(0u64).unwrap());
    let children = [0; 2].map(|_| Process::spawn((lock.clone(), total.clone()), |l, t| add(&l, &t)).unwrap());
    thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| add(&lock, &total));
        }
    });
    children.into_iter().for_each(|child| child.join().unwrap());
    assert_eq!(total.get(), 8_000);
}

#[test]
fn timeouts_tell_and_are_never_early() {
    let _watch = watch(60);
    let lock = RLock::new().unwrap();
    let _guard = lock.lock().unwrap();
    thread::scope(|s| {
        s.spawn(|| {
            let start = Instant::now();
            assert!(matches!(lock.lock_timeout(SHORT), Err(LockError::TimedOut)));
            assert!(start.elapsed() >= SHORT);
            let deadline = Instant::now() + SHORT;
            assert!(matches!(lock.lock_deadline(deadline), Err(LockError::TimedOut)));
            assert!(Instant::now() >= deadline);
        });
    });
}

#[test]
fn a_dead_owner_is_reported_however_often_it_held_the_lock() {
    let _watch = watch(60);
    let lock = RLock::new().unwrap();
    let held = Process::spawn((lock.clone(),), |lock: RLock| -> () {
        let _guards = [lock.lock().unwrap(), lock.lock().unwrap(), lock.lock().unwrap()];
        die();
    });
    let held = held.unwrap();
    let pid = held.pid();
    assert!(held.join().is_err());
    for _ in 0..2 {
        assert!(matches!(lock.lock(), Err(LockError::OwnerDied(death)) if death.pid == pid));
        assert!(matches!(lock.try_lock(), Err(LockError::OwnerDied(_))));
        assert!(!lock.locked());
        // Dropped, a recovery leaves it as it was.
        drop(lock.recover().unwrap());
    }
    let recovery = lock.recover().unwrap();
    assert_eq!(recovery.died().map(|d| d.pid), Some(pid));
    {
        // Who mends calls functions that lock.
        let inside = lock.lock().unwrap();
        assert_eq!(lock.recover().unwrap().died().map(|d| d.pid), Some(pid));
        drop(inside);
    }
    assert!(!is_free(&lock));
    let guard = recovery.make_consistent();
    assert_eq!(lock.recover().unwrap().died(), None);
    assert!(!is_free(&lock), "the count began anew, and is one");
    drop(guard);
    assert!(is_free(&lock) && lock.lock().is_ok());
}

#[test]
fn a_guard_that_outlives_a_dropped_recovery_keeps_the_report() {
    let _watch = watch(60);
    let lock = RLock::new().unwrap();
    // Joined, so that the kernel has walked the list.
    thread::scope(|s| s.spawn(|| mem::forget([lock.lock(), lock.lock()])).join().unwrap());
    let recovery = lock.recover().unwrap();
    assert_eq!(recovery.died().map(|d| d.pid), Some(process::id()), "a thread that ends with a forgotten guard");
    let inside = lock.lock().unwrap();
    drop(recovery);
    assert!(lock.locked());
    drop(inside);
    assert!(matches!(lock.lock(), Err(LockError::OwnerDied(_))));
    drop(lock.recover().unwrap().make_consistent());
    assert!(lock.lock().is_ok());
}

#[test]
fn deaths_may_be_ignored() {
    let _watch = watch(60);
    let lock = RLock::ignoring_death().unwrap();
    for _ in 0..2 {
        thread::scope(|s| s.spawn(|| mem::forget([lock.lock(), lock.lock()])).join().unwrap());
        let guards = [lock.lock().unwrap(), lock.lock().unwrap()];
        assert!(!is_free(&lock));
        drop(guards);
        assert!(is_free(&lock));
    }
}

#[test]
fn who_waits_for_a_killed_owner_hears_of_it() {
    let _watch = watch(60);
    let (lock, here) = (RLock::new().unwrap(), Event::new().unwrap());
    let owner = Process::spawn((lock.clone(), here.clone(), Event::new().unwrap()), |lock, here, never: Event| {
        let _guards = [lock.lock().unwrap(), lock.lock().unwrap()];
        here.set().unwrap();
        never.wait().unwrap();
    });
    let owner = owner.unwrap();
    here.wait().unwrap();
    let waiter =
        Process::spawn((lock.clone(),), |lock| matches!(lock.lock(), Err(LockError::OwnerDied(d)) if d.pid != 0)).unwrap();
    await_wait(&waiter, &lock);
    owner.kill().unwrap();
    assert!(waiter.join().unwrap());
}

#[test]
fn a_panic_releases_it() {
    let _watch = watch(60);
    let lock = RLock::new().unwrap();
    let panicked = thread::scope(|s| {
        s.spawn(|| {
            let _guards = [lock.lock().unwrap(), lock.lock().unwrap()];
            panic!("as asked");
        })
        .join()
    });
    assert!(panicked.is_err() && lock.lock().is_ok());
}

// --- SignalSemaphore ------------------------------------------------------------------------------

#[test]
fn others_release_what_one_acquires() {
    let _watch = watch(60);
    let signals = SignalSemaphore::new(0).unwrap();
    assert!(matches!(signals.try_acquire(), Err(AcquireError::WouldBlock)));
    let waiters = [0; 3].map(|_| Process::spawn((signals.clone(),), |s: SignalSemaphore| s.acquire().is_ok()).unwrap());
    waiters.iter().for_each(|w| await_wait(w, &signals));
    let releaser = Process::spawn((signals.clone(),), |s: SignalSemaphore| s.release(4).unwrap()).unwrap();
    releaser.join().unwrap();
    assert!(waiters.into_iter().all(|w| w.join().unwrap()));
    assert_eq!(signals.value(), 1);
    assert!(signals.try_acquire().is_ok() && signals.try_acquire().is_err());
}

#[test]
fn waiting_for_a_signal_ends_in_time_and_not_early() {
    let _watch = watch(60);
    let signals = SignalSemaphore::new(0).unwrap();
    let start = Instant::now();
    assert!(matches!(signals.acquire_timeout(SHORT), Err(AcquireError::TimedOut)));
    assert!(start.elapsed() >= SHORT);
    let deadline = Instant::now() + SHORT;
    assert!(matches!(signals.acquire_deadline(deadline), Err(AcquireError::TimedOut)));
    assert!(Instant::now() >= deadline);
    // Also for who does not have the turn.
    let first = Process::spawn((signals.clone(),), |s: SignalSemaphore| s.acquire().unwrap()).unwrap();
    await_wait(&first, &signals);
    let start = Instant::now();
    assert!(matches!(signals.acquire_timeout(SHORT), Err(AcquireError::TimedOut)));
    assert!(start.elapsed() >= SHORT);
    signals.release(2).unwrap();
    first.join().unwrap();
    signals.acquire_timeout(LONG).unwrap();
}

#[test]
fn a_release_beyond_the_bound_is_an_error_and_changes_nothing() {
    let _watch = watch(60);
    assert!(SignalSemaphore::bounded(3, 2).is_err() && SignalSemaphore::bounded(0, 0).is_err());
    let bounded = SignalSemaphore::bounded(2, 2).unwrap();
    assert_eq!(bounded.release(1), Err(ReleaseError::BeyondBound(2)));
    assert_eq!(bounded.value(), 2);
    bounded.acquire().unwrap();
    assert_eq!(bounded.release(2), Err(ReleaseError::BeyondBound(2)));
    assert_eq!(bounded.value(), 1);
    bounded.release(1).unwrap();
    assert_eq!((bounded.value(), bounded.bound()), (2, 2));
    let most = SignalSemaphore::new(u32::MAX).unwrap();
    let told = most.release(1).unwrap_err();
    assert_eq!((told.clone(), most.value()), (ReleaseError::BeyondBound(u32::MAX), u32::MAX));
    assert!(told.to_string().contains("released too often"), "{told}");
    most.acquire().unwrap();
    most.release(0).unwrap();
    assert_eq!(most.value(), u32::MAX - 1);
}

#[test]
fn signals_of_many_all_count() {
    let _watch = watch(120);
    let (there, back) = (SignalSemaphore::new(0).unwrap(), SignalSemaphore::new(0).unwrap());
    let workers = [0; 3].map(|_| {
        let work = |there: SignalSemaphore, back: SignalSemaphore| {
            for _ in 0..2_000 {
                there.acquire().unwrap();
                back.release(1).unwrap();
            }
        };
        Process::spawn((there.clone(), back.clone()), work).unwrap()
    });
    thread::scope(|s| {
        s.spawn(|| (0..1_000).for_each(|n| there.release(if n % 2 == 0 { 1 } else { 11 }).unwrap()));
        (0..6_000).for_each(|_| back.acquire().unwrap());
    });
    workers.into_iter().for_each(|w| w.join().unwrap());
    assert_eq!((there.value(), back.value()), (0, 0));
}

#[test]
fn a_killed_waiter_swallows_no_signal() {
    let _watch = watch(120);
    for round in 0..30 {
        let signals = SignalSemaphore::new(0).unwrap();
        let waiters = [0; 3].map(|_| Process::spawn((signals.clone(),), |s: SignalSemaphore| s.acquire().unwrap()).unwrap());
        waiters.iter().for_each(|w| await_wait(w, &signals));
        // The one with the turn, or one behind it.
        let [a, b, c] = waiters;
        let (killed, others) = if round % 2 == 0 { (a, [b, c]) } else { (c, [a, b]) };
        if round % 3 == 0 {
            signals.release(1).unwrap();
            // It may have ended with it.
            let _ = killed.kill();
            signals.release(2).unwrap();
        } else {
            killed.kill().unwrap();
            signals.release(2).unwrap();
        }
        others.into_iter().for_each(|w| w.join().unwrap());
        let _ = killed.join();
    }
}

// --- Semaphore ------------------------------------------------------------------------------------

#[test]
fn permits_taken_without_a_lock_are_never_too_many() {
    let _watch = watch(120);
    fn use_some(semaphore: &Semaphore, inside: &Atomic<u32>) {
        for round in 0..3_000 {
            let permit = match round % 3 {
                0 => semaphore.acquire().unwrap(),
                1 => match semaphore.try_acquire() {
                    Ok(permit) => permit,
                    Err(AcquireError::WouldBlock) => continue,
                    Err(other) => panic!("{other}"),
                },
                _ => semaphore.acquire_timeout(LONG).unwrap(),
            };
            assert!(inside.add(1) < 2, "three have one of two permits");
            inside.add(u32::MAX);
            drop(permit);
        }
    }
    let semaphore = BoundedSemaphore::new(2).unwrap();
    let inside = Atomic::new(0u32).unwrap();
    let children = [0; 2].map(|_| Process::spawn((semaphore.clone(), inside.clone()), |s, i| use_some(&s, &i)).unwrap());
    thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| use_some(&semaphore, &inside));
        }
    });
    children.into_iter().for_each(|child| child.join().unwrap());
    assert_eq!((semaphore.available(), semaphore.take_recovered()), (2, 0));
}

#[test]
fn who_comes_later_does_not_pass_those_who_wait() {
    let _watch = watch(60);
    let semaphore = Semaphore::new(1).unwrap();
    let permit = semaphore.acquire().unwrap();
    let waiter = Process::spawn((semaphore.clone(),), |s: Semaphore| drop(s.acquire().unwrap())).unwrap();
    await_wait(&waiter, &semaphore);
    assert!(matches!(semaphore.try_acquire(), Err(AcquireError::WouldBlock)));
    let start = Instant::now();
    assert!(matches!(semaphore.acquire_timeout(SHORT), Err(AcquireError::TimedOut)));
    assert!(start.elapsed() >= SHORT);
    drop(permit);
    waiter.join().unwrap();
    assert!(semaphore.try_acquire().is_ok());
}

// --- Event ----------------------------------------------------------------------------------------

#[test]
fn each_pulse_lets_those_go_that_waited_and_nobody_else() {
    let _watch = watch(60);
    let event = Event::new().unwrap();
    for _ in 0..20 {
        let waiters = [0; 3].map(|_| Process::spawn((event.clone(),), |e: Event| e.wait().unwrap()).unwrap());
        waiters.iter().for_each(|w| await_wait(w, &event));
        event.set().unwrap();
        event.clear();
        waiters.into_iter().for_each(|w| w.join().unwrap());
        assert!(!event.is_set() && !event.wait_timeout(Duration::ZERO).unwrap(), "a set that is past");
    }
}

// --- Debug ----------------------------------------------------------------------------------------

/// Its text once it contains `part`.
fn says(handle: &impl Debug, part: &str) -> String {
    let mut text = String::new();
    eventually(|| {
        text = format!("{handle:?}");
        text.contains(part)
    });
    text
}

#[test]
fn debug_says_who_has_what_and_how_many_wait() {
    let _watch = watch(60);
    let (lock, rlock) = (Lock::new().unwrap(), RLock::new().unwrap());
    let (semaphore, signals, event) =
        (Semaphore::new(3).unwrap(), SignalSemaphore::bounded(2, 9).unwrap(), Event::new().unwrap());
    let at = [id(&lock), id(&rlock), id(&semaphore), id(&signals), id(&event)];
    let text = |i: usize| {
        [format!("{lock:?}"), format!("{rlock:?}"), format!("{semaphore:?}"), format!("{signals:?}"), format!("{event:?}")][i]
            .clone()
    };
    assert_eq!(text(0), format!("Lock(id: {}, free)", at[0]));
    assert_eq!(text(1), format!("RLock(id: {}, free)", at[1]));
    assert_eq!(text(2), format!("Semaphore(id: {}, 3 of 3 permits free)", at[2]));
    assert_eq!(text(3), format!("SignalSemaphore(id: {}, value 2 of at most 9)", at[3]));
    assert_eq!(text(4), format!("Event(id: {}, not set)", at[4]));

    let (here, go) = (Event::new().unwrap(), Event::new().unwrap());
    let args = (lock.clone(), rlock.clone(), semaphore.clone(), here.clone(), go.clone());
    let holder =
        Process::builder().name("worker \"1\"").spawn(args, |lock, rlock, semaphore: Semaphore, here: Event, go: Event| {
            let _guards = (lock.lock().unwrap(), rlock.lock().unwrap(), rlock.lock().unwrap());
            let _permits = (semaphore.acquire().unwrap(), semaphore.acquire_owned().unwrap());
            here.set().unwrap();
            go.wait().unwrap();
            die();
        });
    let holder: Process<()> = holder.unwrap();
    here.wait().unwrap();
    let pid = holder.pid();
    let who = format!("process \"worker \\\"1\\\"\" (pid {pid})");
    assert_eq!(text(0), format!("Lock(id: {}, held by {who}, thread {pid})", at[0]));
    assert_eq!(text(1), format!("RLock(id: {}, held by {who}, thread {pid}, 2 times)", at[1]));
    assert_eq!(text(2), format!("Semaphore(id: {}, 1 of 3 permits free, {who} has 2 permits)", at[2]));

    thread::scope(|s| {
        s.spawn(|| assert!(matches!(lock.lock(), Err(LockError::OwnerDied(_)))));
        s.spawn(|| assert!(matches!(rlock.lock(), Err(LockError::OwnerDied(_)))));
        s.spawn(|| event.wait().unwrap());
        s.spawn(|| event.wait().unwrap());
        assert!(says(&lock, "1 waiting").ends_with(", 1 waiting)"));
        assert!(says(&rlock, "1 waiting").ends_with(", 2 times, 1 waiting)"));
        assert_eq!(says(&event, "2 waiting"), format!("Event(id: {}, not set, 2 waiting)", at[4]));
        // And the dump.
        let dump = multiproc::dump().to_string();
        for told in [format!("holds Lock {}", at[0]), format!("holds 2 guards of RLock {}", at[1])] {
            assert!(dump.contains(&told), "{told}: {dump}");
        }
        assert!(dump.contains(&format!("lock on RLock {} (held 2 times), held by worker", at[1])), "{dump}");
        assert!(dump.contains(&format!("wait on Event {} (not set)", at[4])), "{dump}");
        event.set().unwrap();
        go.set().unwrap();
    });
    assert!(holder.join().is_err());
    assert_eq!(text(0), format!("Lock(id: {}, free, its owner died)", at[0]));
    assert_eq!(text(1), format!("RLock(id: {}, free, its owner died)", at[1]));
    assert_eq!(text(2), format!("Semaphore(id: {}, 3 of 3 permits free)", at[2]));
    assert_eq!(semaphore.take_recovered(), 2);
    let mine = rlock.recover().unwrap().make_consistent();
    let (me, tid) = (process::id(), text(1).rsplit("thread ").next().unwrap().to_owned());
    assert_eq!(text(1), format!("RLock(id: {}, held by process \"MainProcess\" (pid {me}), thread {tid}", at[1]));
    assert!(tid.ends_with(", once)"), "{tid}");
    drop(mine);
}

#[test]
fn a_dump_knows_who_waits_for_a_signal_and_whom_that_depends_on() {
    let _watch = watch(60);
    let signals = SignalSemaphore::new(0).unwrap();
    let waiters = [0; 2].map(|_| Process::spawn((signals.clone(),), |s: SignalSemaphore| s.acquire().unwrap()).unwrap());
    waiters.iter().for_each(|w| await_wait(w, &signals));
    let index = id(&signals);
    let mut dump = String::new();
    eventually(|| {
        dump = multiproc::dump().to_string();
        dump.contains(&format!("acquire on SignalSemaphore {index} (value 0); depends on MainProcess"))
            && dump.contains(&format!("holds the turn to acquire of SignalSemaphore {index}"))
    });
    assert!(!dump.contains("deadlock"), "this process may release: {dump}");
    signals.release(2).unwrap();
    waiters.into_iter().for_each(|w| w.join().unwrap());
}
