//! [`RawLock`] on the kernel as it is; `tests/lock_model.rs` has it under a model checker.
#![allow(unsafe_code)]

use super::lock::{Acquired, LockFailed, RawLock, TID_SHIFT, Who};
use crate::beneath::{OWNER_DIED, WAITERS};
use multiproc_sys::clock::Deadline;
use multiproc_sys::robust::{self, current};
use std::sync::atomic::Ordering;
use std::time::Duration;

fn who() -> Who {
    Who::new(current().unwrap(), Who::process(7, 9))
}

#[test]
fn locks_exclude_and_count_right() {
    struct Shared(RawLock, std::cell::UnsafeCell<u64>);
    // SAFETY: the cell is only touched under the lock.
    unsafe impl Sync for Shared {}
    let shared = Shared(RawLock::new(), std::cell::UnsafeCell::new(0));
    let shared = &shared;
    let each = if cfg!(miri) { 50 } else { 20_000 };
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..each {
                    let _ = shared.0.lock(who()).unwrap();
                    // SAFETY: under the lock.
                    unsafe { *shared.1.get() += 1 };
                    shared.0.unlock(who().thread);
                }
            });
        }
    });
    // SAFETY: all threads have ended.
    assert_eq!(unsafe { *shared.1.get() }, 4 * each);
}

#[test]
#[cfg_attr(miri, ignore = "nobody dies there")]
fn a_dead_owner_is_reported_until_somebody_vouches() {
    let lock: &'static RawLock = Box::leak(Box::new(RawLock::new()));
    std::thread::spawn(|| {
        let _ = lock.lock(who()).unwrap();
    })
    .join()
    .unwrap();
    assert!(lock.owner_died());
    assert_eq!(lock.last_owner(), (7, 9));
    // Whoever asks for the count after the mark misses none of the deaths that the mark tells of no more.
    assert_eq!(lock.deaths(), 0);
    for _ in 0..3 {
        assert_eq!(lock.lock(who()), Ok(Acquired::OwnerDied));
        assert!(lock.deaths() > 0);
        lock.unlock_inconsistent(who().thread);
    }
    assert_eq!(lock.lock(who()), Ok(Acquired::OwnerDied));
    lock.unlock(who().thread);
    assert_eq!(lock.lock(who()), Ok(Acquired::Clean));
    assert_eq!(lock.lock(who()), Err(LockFailed::WouldDeadlock));
    lock.unlock(who().thread);
}

#[test]
fn who_died_before_it_named_itself_is_not_taken_for_its_predecessor() {
    let lock: &'static RawLock = Box::leak(Box::new(RawLock::new()));
    let _ = lock.lock(who()).unwrap();
    lock.unlock(who().thread);
    // What the kernel leaves of an owner that was killed right after its CAS.
    lock.word.store(OWNER_DIED, Ordering::Relaxed);
    assert_eq!(lock.lock(who()), Ok(Acquired::OwnerDied));
    assert_eq!(lock.dead_owner(), (0, 0));
    lock.unlock(who().thread);
}

#[test]
fn the_repair_for_a_dead_slot_leaves_a_new_owner_alone() {
    let lock: &'static RawLock = Box::leak(Box::new(RawLock::new()));
    std::thread::spawn(|| {
        let _ = lock.lock(who()).unwrap();
    })
    .join()
    .unwrap();
    // Another thread has taken over and not named itself yet; the owner word is the dead one's.
    let me = who().thread.tid();
    let taken = me | WAITERS;
    lock.word.store(taken, Ordering::Relaxed);
    lock.mark_dead(7);
    assert_eq!(lock.word.load(Ordering::Relaxed), taken);
    // A dead owner whose list the kernel did not walk.
    let owner = Who::process(7, 9) | u64::from(me) << TID_SHIFT;
    lock.owner.store(owner, Ordering::Relaxed);
    lock.mark_dead(8);
    assert_eq!(lock.word.load(Ordering::Relaxed), taken);
    lock.mark_dead(7);
    assert_eq!(lock.lock(who()), Ok(Acquired::OwnerDied));
    assert_eq!(lock.dead_owner(), (7, 9));
    lock.unlock(who().thread);
}

#[test]
#[cfg_attr(miri, ignore = "nobody dies there")]
fn a_lock_of_a_thread_that_is_gone_is_marked_by_hand() {
    let lock: &'static RawLock = Box::leak(Box::new(RawLock::new()));
    let gone = std::thread::spawn(|| who().thread.tid()).join().unwrap();
    // The kernel lets `join` return a moment before the thread is gone.
    while !robust::is_gone(gone) {
        std::thread::yield_now();
    }
    // It died before it named itself, and its list was lost.
    lock.word.store(gone, Ordering::Relaxed);
    lock.mark_dead(7);
    assert!(lock.owner_died());
}

#[test]
fn waiting_ends_at_the_deadline_and_not_before() {
    let lock = RawLock::new();
    let _ = lock.lock(who()).unwrap();
    std::thread::scope(|s| {
        s.spawn(|| {
            let start = std::time::Instant::now();
            let deadline = Deadline::after(Duration::from_millis(30));
            assert_eq!(lock.lock_until(who(), deadline), Err(LockFailed::TimedOut));
            assert!(start.elapsed() >= Duration::from_millis(30));
            assert_eq!(lock.try_lock(who()), Err(LockFailed::Held));
        });
    });
    lock.unlock(who().thread);
}
