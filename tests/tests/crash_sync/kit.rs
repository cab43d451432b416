//! What all play with, what the victims do with it, and how it must be afterwards.

use crate::step_killer::{LIMIT, eventually};
use multiproc::testing::{self, arm_step, disarm, passed};
use multiproc::{
    Atomic, Event, GetError, Lock, LockError, OwnedPermit, Process, Queue, RLock, Semaphore, SignalSemaphore, Value,
};
use serde::{Deserialize, Serialize};
use std::thread;
use std::time::Duration;

/// What all play with.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Kit {
    pub(crate) lock: Lock,
    pub(crate) rlock: RLock,
    pub(crate) signals: SignalSemaphore,
    pub(crate) value: Value<[u64; 4]>,
    pub(crate) event: Event,
    pub(crate) semaphore: Semaphore,
    pub(crate) queue: Queue<OwnedPermit>,
    /// 1: the victim is prepared; 2: it may go.
    pub(crate) stage: Atomic<u32>,
}

impl Kit {
    pub(crate) fn new() -> Kit {
        let (lock, value) = (Lock::new().unwrap(), Value::new([1; 4]).unwrap());
        let (event, semaphore) = (Event::new().unwrap(), Semaphore::new(1).unwrap());
        let (rlock, signals) = (RLock::new().unwrap(), SignalSemaphore::bounded(0, 3).unwrap());
        let (queue, stage) = (Queue::bounded(2).unwrap(), Atomic::new(0).unwrap());
        Kit { lock, rlock, signals, value, event, semaphore, queue, stage }
    }

    pub(crate) fn go(&self, k: u64) {
        self.stage.set(1);
        while self.stage.get() < 2 {
            thread::sleep(Duration::from_micros(20));
        }
        if k == 0 {
            // SAFETY: ends this process.
            unsafe { libc::raise(libc::SIGKILL) };
        }
        arm_step(k);
    }
}

/// What the victim is killed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Op {
    Lock,
    LockTimeout,
    Unlock,
    /// With `WAITERS` set though nobody may be asleep.
    UnlockFlush,
    Recover,
    RecoverDropped,
    ValueUpdate,
    /// Publishing what a guard has changed.
    ValuePublish,
    ValueGet,
    EventSet,
    EventWait,
    EventClear,
    Acquire,
    Release,
    AcquireOwned,
    DropOwned,
    PermitPut,
    PermitGet,
    PermitLeaseDrop,
    PermitLeaseAck,
    PermitInResult,
    /// Twice.
    RLock,
    RLockTimeout,
    RUnlock,
    RRecover,
    SignalAcquire,
    SignalAcquireTimeout,
    SignalRelease,
    NewRLock,
    NewSignals,
    NewLock,
    NewValue,
    NewAtomic,
    NewEvent,
    NewSemaphore,
    SpawnWithHandles,
    JoinChild,
}

/// Runs the operation with the k-th step deadly. How many steps there were, if that is none of them.
pub(crate) fn victim(kit: Kit, op: Op, k: u64) -> u64 {
    fn end<T>(_keep: T) -> u64 {
        let steps = passed();
        disarm();
        steps
    }
    match op {
        Op::Lock => {
            kit.go(k);
            end(kit.lock.lock())
        }
        Op::LockTimeout => {
            kit.go(k);
            end(kit.lock.lock_timeout(Duration::from_millis(3)))
        }
        Op::Unlock => {
            let guard = kit.lock.lock().unwrap();
            kit.go(k);
            drop(guard);
            end(())
        }
        Op::UnlockFlush => {
            let first = kit.lock.lock().unwrap();
            thread::scope(|s| {
                // It has announced itself and gone.
                s.spawn(|| kit.lock.lock_timeout(Duration::from_millis(1)).map(drop).unwrap_err());
            });
            drop(first);
            let guard = kit.lock.lock().unwrap();
            kit.go(k);
            drop(guard);
            end(())
        }
        Op::Recover => {
            kit.go(k);
            drop(kit.lock.recover().unwrap().make_consistent());
            end(())
        }
        Op::RecoverDropped => {
            kit.go(k);
            drop(kit.lock.recover().unwrap());
            end(())
        }
        Op::ValueUpdate => {
            kit.go(k);
            kit.value.update(|v| *v = [2; 4]).unwrap();
            end(())
        }
        Op::ValuePublish => {
            let mut guard = kit.value.lock().unwrap();
            *guard = [2; 4];
            kit.go(k);
            drop(guard);
            end(())
        }
        Op::ValueGet => {
            kit.go(k);
            end(kit.value.get())
        }
        Op::EventSet => {
            kit.go(k);
            kit.event.set().unwrap();
            end(())
        }
        Op::EventWait => {
            kit.go(k);
            kit.event.wait().unwrap();
            end(())
        }
        Op::EventClear => {
            kit.event.set().unwrap();
            kit.go(k);
            kit.event.clear();
            end(())
        }
        Op::Acquire => {
            kit.go(k);
            end(kit.semaphore.acquire())
        }
        Op::Release => {
            let permit = kit.semaphore.acquire().unwrap();
            kit.go(k);
            drop(permit);
            end(())
        }
        Op::AcquireOwned => {
            kit.go(k);
            end(kit.semaphore.acquire_owned())
        }
        Op::DropOwned => {
            let permit = kit.semaphore.acquire_owned().unwrap();
            kit.go(k);
            drop(permit);
            end(())
        }
        Op::PermitPut => {
            let permit = kit.semaphore.acquire_owned().unwrap();
            kit.go(k);
            kit.queue.put(permit).unwrap();
            end(())
        }
        Op::PermitGet => {
            kit.queue.put(kit.semaphore.acquire_owned().unwrap()).unwrap();
            kit.go(k);
            drop(kit.queue.get().unwrap());
            end(())
        }
        Op::PermitLeaseDrop => {
            kit.queue.put(kit.semaphore.acquire_owned().unwrap()).unwrap();
            kit.go(k);
            drop(kit.queue.lease().unwrap());
            end(())
        }
        Op::PermitLeaseAck => {
            kit.queue.put(kit.semaphore.acquire_owned().unwrap()).unwrap();
            kit.go(k);
            drop(kit.queue.lease().unwrap().ack());
            end(())
        }
        Op::PermitInResult => unreachable!("has a function of its own"),
        Op::RLock => {
            kit.go(k);
            let first = kit.rlock.lock();
            end((first, kit.rlock.lock()))
        }
        Op::RLockTimeout => {
            kit.go(k);
            end(kit.rlock.lock_timeout(Duration::from_millis(3)))
        }
        Op::RUnlock => {
            let (first, second) = (kit.rlock.lock().unwrap(), kit.rlock.lock().unwrap());
            kit.go(k);
            drop(first);
            drop(second);
            end(())
        }
        Op::RRecover => {
            kit.go(k);
            let recovery = kit.rlock.recover().unwrap();
            drop(kit.rlock.lock().unwrap());
            drop(recovery.make_consistent());
            end(())
        }
        Op::SignalAcquire => {
            kit.go(k);
            end(kit.signals.acquire())
        }
        Op::SignalAcquireTimeout => {
            kit.go(k);
            end(kit.signals.acquire_timeout(Duration::from_millis(3)))
        }
        Op::SignalRelease => {
            kit.go(k);
            kit.signals.release(2).unwrap();
            end(())
        }
        Op::NewRLock => {
            kit.go(k);
            drop(RLock::new().unwrap());
            end(())
        }
        Op::NewSignals => {
            kit.go(k);
            drop(SignalSemaphore::new(3).unwrap());
            end(())
        }
        Op::NewLock => {
            kit.go(k);
            drop(Lock::new().unwrap());
            end(())
        }
        Op::NewValue => {
            kit.go(k);
            drop(Value::new([7u64; 4]).unwrap());
            end(())
        }
        Op::NewAtomic => {
            kit.go(k);
            drop(Atomic::new(7u64).unwrap());
            end(())
        }
        Op::NewEvent => {
            kit.go(k);
            drop(Event::new().unwrap());
            end(())
        }
        Op::NewSemaphore => {
            kit.go(k);
            drop(Semaphore::new(7).unwrap());
            end(())
        }
        Op::JoinChild => {
            let child = Process::spawn((kit.stage.clone(), kit.value.clone()), |stage: Atomic<u32>, value: Value<[u64; 4]>| {
                while stage.get() != 3 {
                    thread::sleep(Duration::from_micros(20));
                }
                (value, vec![1u8; 10_000])
            });
            let child = child.unwrap();
            kit.go(k);
            end(child.join().unwrap())
        }
        Op::SpawnWithHandles => {
            let permit = kit.semaphore.acquire_owned().unwrap();
            let args = (kit.lock.clone(), kit.value.clone(), permit);
            kit.go(k);
            let child = Process::spawn(args, |lock, value, _permit| {
                let _guard = lock.lock();
                let _ = value.update(|v: &mut [u64; 4]| *v = [2; 4]);
            });
            let steps = end(());
            child.unwrap().join().unwrap();
            steps
        }
    }
}

/// Returns a permit; the steps of leaving the result behind are deadly.
pub(crate) fn victim_with_result(kit: Kit, k: u64) -> OwnedPermit {
    let permit = kit.semaphore.acquire_owned().unwrap();
    kit.go(k);
    permit
}

/// A lock that somebody died with is recovered; who died is the victim, or died before it could say so.
pub(crate) fn lock_works(lock: &Lock, pids: &[u32]) {
    match lock.lock_timeout(LIMIT) {
        Ok(guard) => drop(guard),
        Err(LockError::OwnerDied(death)) => {
            assert!(death.pid == 0 || pids.contains(&death.pid), "{death:?} is none of {pids:?}");
            drop(lock.recover().unwrap().make_consistent());
        }
        Err(other) => panic!("{other}"),
    }
    assert!(lock.try_lock().is_ok());
}

pub(crate) fn value_is_whole(value: &Value<[u64; 4]>) -> [u64; 4] {
    let seen = value.get().unwrap();
    assert!(seen == [1; 4] || seen == [2; 4], "{seen:?}");
    assert_eq!(*value.lock_timeout(LIMIT).unwrap(), seen);
    value.set([3; 4]).unwrap();
    assert_eq!(value.get().unwrap(), [3; 4]);
    seen
}

/// Takes what permits the queue has.
pub(crate) fn drain(kit: &Kit) {
    loop {
        match kit.queue.try_get() {
            Ok(permit) => {
                assert_eq!(kit.semaphore.available(), 0, "a permit in a message counts");
                drop(permit);
            }
            Err(GetError::Empty) => break,
            Err(GetError::WouldBlock) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

/// As [`lock_works`], and it counts from one.
pub(crate) fn rlock_works(lock: &RLock, pids: &[u32]) {
    match lock.lock_timeout(LIMIT) {
        Ok(guard) => drop(guard),
        Err(LockError::OwnerDied(death)) => {
            assert!(death.pid == 0 || pids.contains(&death.pid), "{death:?} is none of {pids:?}");
            drop(lock.recover().unwrap().make_consistent());
        }
        Err(other) => panic!("{other}"),
    }
    let guards = (lock.try_lock().unwrap(), lock.lock().unwrap());
    assert!(format!("{lock:?}").ends_with(", 2 times)"), "{lock:?}");
    drop(guards);
    assert!(!lock.locked());
}

/// It counts right, up to its bound.
pub(crate) fn signals_work(signals: &SignalSemaphore) {
    while signals.try_acquire().is_ok() {}
    signals.release(3).unwrap();
    assert!(signals.release(1).is_err());
    for _ in 0..3 {
        signals.acquire_timeout(LIMIT).unwrap();
    }
    assert!(signals.acquire_timeout(Duration::ZERO).is_err() && signals.value() == 0);
}

/// Everything works as if nobody had died.
pub(crate) fn all_is_well(kit: &Kit, pids: &[u32]) {
    lock_works(&kit.lock, pids);
    rlock_works(&kit.rlock, pids);
    signals_work(&kit.signals);
    value_is_whole(&kit.value);
    testing::collect().unwrap();
    drain(kit);
    // A child of who died may not have come to its end.
    eventually("the permit is back", || {
        testing::collect().unwrap();
        kit.semaphore.available() == 1
    });
    let permit = kit.semaphore.acquire_timeout(LIMIT).unwrap();
    assert!(kit.semaphore.try_acquire().is_err(), "a permit too many");
    drop(permit);
    kit.event.set().unwrap();
    assert!(kit.event.wait_timeout(LIMIT).unwrap());
}
