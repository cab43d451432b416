//! [`Lock`].

use crate::helpers::*;
use multiproc::{Atomic, Death, Lock, LockError, Process, Value, testing};
use multiproc_shm::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use std::{mem, process, thread};

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
