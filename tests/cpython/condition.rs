//! `_TestCondition`: waiting for what others do under a lock.

use crate::stage::{SHORT, soon, waits, watched};
use multiproc::{Atomic, Condition, Event, Process, SignalSemaphore, Value, threads};
use multiproc_tests::eventually;
use std::time::{Duration, Instant};

/// Says that it is about to sleep, waits, and says that it is awake. With a time it may end by that.
fn sleeper(condition: Condition, sleeping: SignalSemaphore, woken: SignalSemaphore, timeout: Option<Duration>) -> bool {
    let guard = condition.lock().unwrap();
    sleeping.release(1).unwrap();
    let notified = match timeout {
        Some(timeout) => condition.wait_timeout(guard, timeout).unwrap().1,
        None => {
            drop(condition.wait(guard).unwrap());
            true
        }
    };
    woken.release(1).unwrap();
    notified
}

/// A condition, and who sleeps there in processes and in threads.
struct Dormitory {
    condition: Condition,
    sleeping: SignalSemaphore,
    woken: SignalSemaphore,
    processes: Vec<Process<bool>>,
    threads: Vec<threads::Process<bool>>,
}

impl Dormitory {
    fn new() -> Dormitory {
        let (sleeping, woken) = (SignalSemaphore::new(0).unwrap(), SignalSemaphore::new(0).unwrap());
        Dormitory { condition: Condition::new().unwrap(), sleeping, woken, processes: Vec::new(), threads: Vec::new() }
    }

    /// Adds so many of each, and waits until all of them sleep.
    fn add(&mut self, each: usize, timeout: Option<Duration>) {
        for _ in 0..each {
            let args = || (self.condition.clone(), self.sleeping.clone(), self.woken.clone(), timeout);
            self.processes.push(Process::spawn(args(), sleeper).unwrap());
            self.threads.push(threads::spawn(args(), sleeper).unwrap());
        }
        (0..2 * each).for_each(|_| self.sleeping.acquire().unwrap());
    }

    /// Who is about to sleep holds the lock until it does.
    fn under_the_lock(&self, f: impl FnOnce(&multiproc::LockGuard<'_>)) {
        let guard = self.condition.lock().unwrap();
        f(&guard);
    }

    fn await_woken(&self, n: usize) {
        (0..n).for_each(|_| self.woken.acquire().unwrap());
    }

    fn end(self) -> Vec<bool> {
        let ends =
            self.processes.into_iter().map(|p| p.join().unwrap()).chain(self.threads.into_iter().map(|p| p.join().unwrap()));
        let ends = ends.collect();
        assert_eq!((self.condition.waiting(), self.sleeping.value(), self.woken.value()), (0, 0, 0));
        ends
    }
}

#[test]
fn notify() {
    let _watched = watched();
    let mut all = Dormitory::new();
    all.add(1, None);
    assert!(all.woken.acquire_timeout(SHORT).is_err(), "nobody has notified");
    all.under_the_lock(|guard| {
        assert_eq!(all.condition.waiting(), 2);
        all.condition.notify_one(guard).unwrap();
    });
    all.await_woken(1);
    assert!(all.woken.acquire_timeout(SHORT).is_err(), "one was notified");
    all.under_the_lock(|guard| all.condition.notify_one(guard).unwrap());
    all.await_woken(1);
    assert_eq!(all.end(), [true; 2]);
}

#[test]
fn notify_all() {
    let _watched = watched();
    let mut all = Dormitory::new();
    // Some who give up by themselves: the notification is not for them.
    all.add(3, Some(SHORT));
    all.await_woken(6);
    assert!(all.processes.iter_mut().all(|p| p.wait().is_some()));
    all.add(3, None);
    assert!(all.woken.acquire_timeout(SHORT).is_err());
    all.under_the_lock(|guard| all.condition.notify_all(guard).unwrap());
    all.await_woken(6);
    let ends = all.end();
    assert_eq!(ends.iter().filter(|&&notified| notified).count(), 6, "{ends:?}");
}

#[test]
fn notify_n() {
    let _watched = watched();
    let mut all = Dormitory::new();
    all.add(3, None);
    assert!(all.woken.acquire_timeout(SHORT).is_err());
    all.under_the_lock(|guard| all.condition.notify(guard, 2).unwrap());
    all.await_woken(2);
    assert!(all.woken.acquire_timeout(SHORT).is_err(), "two were notified");
    all.under_the_lock(|guard| {
        assert_eq!(all.condition.waiting(), 4);
        all.condition.notify(guard, 0).unwrap();
    });
    assert!(all.woken.acquire_timeout(SHORT).is_err(), "none was notified");
    all.under_the_lock(|guard| all.condition.notify(guard, 4).unwrap());
    all.await_woken(4);
    // More than there are.
    all.under_the_lock(|guard| all.condition.notify(guard, 3).unwrap());
    assert_eq!(all.end(), [true; 6]);
}

#[test]
fn timeout() {
    let _watched = watched();
    let condition = Condition::new().unwrap();
    let (guard, notified) = waits(|| condition.wait_timeout(condition.lock().unwrap(), SHORT)).unwrap();
    assert!(!notified && condition.get_lock().is_locked());
    let (guard, notified) = waits(|| condition.wait_deadline(guard, soon())).unwrap();
    assert!(!notified);
    drop(guard);
    assert!(!condition.get_lock().is_locked());
}

#[test]
fn wait_for() {
    let _watched = watched();
    let (condition, state) = (Condition::new().unwrap(), Value::new(0u32).unwrap());
    let p = Process::spawn((condition.clone(), state.clone()), |condition: Condition, state: Value<u32>| {
        let guard = condition.lock().unwrap();
        let _guard = condition.wait_for(guard, || state.get().unwrap() == 4).unwrap();
        state.get().unwrap()
    });
    for n in 1..=4 {
        let guard = condition.lock().unwrap();
        state.set(n).unwrap();
        condition.notify_one(&guard).unwrap();
        drop(guard);
        std::thread::sleep(SHORT / 6);
    }
    assert_eq!(p.unwrap().join().unwrap(), 4);
}

#[test]
fn wait_for_timeout() {
    let _watched = watched();
    let (condition, state) = (Condition::new().unwrap(), Atomic::new(0u32).unwrap());
    let (sleeping, go) = (Event::new().unwrap(), Event::new().unwrap());
    let args = (condition.clone(), state.clone(), sleeping.clone());
    let p = Process::spawn(args, |condition: Condition, state: Atomic<u32>, sleeping: Event| {
        let guard = condition.lock().unwrap();
        sleeping.set().unwrap();
        let start = Instant::now();
        // What it waits for never becomes true, however often it is woken.
        let (_guard, found) = condition.wait_for_timeout(guard, 2 * SHORT, || state.get() == 4).unwrap();
        (found, start.elapsed() >= 2 * SHORT)
    });
    sleeping.wait().unwrap();
    for n in 1..=3 {
        let guard = condition.lock().unwrap();
        state.set(n);
        condition.notify_all(&guard).unwrap();
    }
    assert_eq!(p.unwrap().join().unwrap(), (false, true));
    let (_guard, found) = condition.wait_for_deadline(condition.lock().unwrap(), soon(), || state.get() == 3).unwrap();
    assert!(found, "it is asked first");
    go.set().unwrap();
}

/// Whether there was a notification is what a wait with a time says; a signal is none, and ends no wait.
#[test]
fn wait_result() {
    let _watched = watched();
    let condition = Condition::new().unwrap();
    let (guard, notified) = condition.wait_timeout(condition.lock().unwrap(), Duration::ZERO).unwrap();
    assert!(!notified);
    let p = Process::spawn((condition.clone(), std::process::id()), |condition: Condition, parent: u32| {
        // SAFETY: signals the parent, which ignores it.
        unsafe { libc::kill(parent as i32, libc::SIGWINCH) };
        let guard = condition.lock().unwrap();
        condition.notify_one(&guard).unwrap();
    });
    // Until this waits, the child cannot take the lock.
    let (guard, notified) = condition.wait_timeout(guard, Duration::from_secs(60)).unwrap();
    assert!(notified);
    drop(guard);
    p.unwrap().join().unwrap();
    // A guard of another lock is refused.
    let other = Condition::new().unwrap();
    let guard = other.lock().unwrap();
    assert!(condition.notify_one(&guard).is_err() && condition.wait(guard).is_err());
    assert!(format!("{condition:?}").contains(" 0 waiting"), "{condition:?}");
}

/// A waiter that is killed swallows nothing, and keeps no notifier waiting.
#[test]
fn a_dead_waiter_swallows_nothing() {
    let _watched = watched();
    let mut all = Dormitory::new();
    all.add(1, None);
    let dead = all.processes.pop().unwrap();
    // Who has the lock sees that both have let go of it.
    all.under_the_lock(|_| assert_eq!(all.condition.waiting(), 2));
    dead.kill().unwrap();
    assert!(dead.join().is_err());
    eventually(|| all.condition.waiting() <= 1);
    all.under_the_lock(|guard| all.condition.notify_one(guard).unwrap());
    all.await_woken(1);
    assert_eq!(all.end().len(), 1);
}
