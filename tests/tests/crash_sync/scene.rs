//! One death, in each of its scenes.

use crate::kit::{Kit, Op, all_is_well, drain, victim};
use crate::step_killer::{asleep_or_dead, doing, eventually, id, is_dead, must_go_on, waiter};
use multiproc::testing::{self, NoCollection};
use multiproc::{LockError, Process};
use std::time::Duration;
use std::{mem, process, thread};

/// What the scene adds to the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scene {
    /// The victim is alone.
    Alone,
    /// Two others sleep in an operation that the victim's lets go on.
    Sleepers,
    /// The victim itself sleeps before it is let on, and another behind it.
    MustSleep,
    /// An owner has died before.
    AfterDeath,
    /// Somebody is collecting all the while, so references that move are stamped.
    Collecting,
}

/// One run: whether the victim died, and the steps it made if it did not.
pub(crate) fn run(op: Op, scene: Scene, k: u64) -> Result<u64, ()> {
    doing(|| format!("{op:?}, {scene:?}, step {k}"));
    let kit = Kit::new();
    if scene == Scene::AfterDeath {
        // Joined, so that the kernel has walked its list: the end of a scope alone does not wait for that.
        thread::scope(|s| s.spawn(|| mem::forget((kit.lock.lock(), kit.rlock.lock(), kit.rlock.lock()))).join().unwrap());
    }
    let child = Process::spawn((kit.clone(), op, k), victim).unwrap();
    let pid = child.pid();
    eventually("the victim is prepared", || kit.stage.get() == 1);
    let by_kernel_alone = !matches!(
        op,
        Op::Acquire
            | Op::Release
            | Op::AcquireOwned
            | Op::DropOwned
            | Op::PermitPut
            | Op::PermitGet
            | Op::SpawnWithHandles
            | Op::JoinChild
    );
    let ended = thread::scope(|s| {
        let hold = (by_kernel_alone || scene == Scene::Collecting).then(|| testing::hold_collections().unwrap());
        if scene == Scene::Collecting {
            hold.iter().for_each(NoCollection::begin);
        }
        let lock_waiter = || waiter(s, || drop(kit.lock.lock()));
        let value_waiter = || waiter(s, || kit.value.update(|_| ()).unwrap());
        let event_waiter = || waiter(s, || kit.event.wait().unwrap());
        let permit_waiter = || waiter(s, || drop(kit.semaphore.acquire().unwrap()));
        let rlock_waiter = || waiter(s, || drop(kit.rlock.lock()));
        let signal_waiter = || waiter(s, || kit.signals.acquire().unwrap());
        let start = || kit.stage.set(2);
        let mut waiters = Vec::new();
        match (op, scene) {
            (Op::Unlock | Op::UnlockFlush, Scene::Sleepers) => {
                waiters = vec![lock_waiter(), lock_waiter()];
                start();
            }
            (Op::Lock | Op::LockTimeout | Op::Recover, Scene::MustSleep) => {
                // Ours, so that it is let go at a moment of our choice.
                let guard = kit.lock.lock();
                start();
                if op == Op::LockTimeout {
                    thread::sleep(Duration::from_millis(4));
                } else if op == Op::Lock {
                    asleep_or_dead(pid, id(&kit.lock));
                } else {
                    thread::sleep(Duration::from_millis(1));
                }
                waiters = vec![lock_waiter()];
                drop(guard);
            }
            (Op::ValuePublish, Scene::Sleepers) => {
                waiters = vec![value_waiter(), value_waiter()];
                start();
            }
            (Op::ValueUpdate, Scene::MustSleep) => {
                let guard = kit.value.lock().unwrap();
                start();
                asleep_or_dead(pid, id(&kit.value));
                waiters = vec![value_waiter()];
                guard.discard();
            }
            (Op::EventSet, Scene::Sleepers) => {
                waiters = vec![event_waiter(), event_waiter(), event_waiter()];
                start();
            }
            (Op::EventWait, Scene::MustSleep) => {
                waiters = vec![event_waiter()];
                start();
                asleep_or_dead(pid, id(&kit.event));
                waiters.extend([event_waiter(), event_waiter()]);
                kit.event.set().unwrap();
                kit.event.clear();
            }
            (Op::Release | Op::DropOwned, Scene::Sleepers) => {
                waiters = vec![permit_waiter(), permit_waiter()];
                start();
            }
            (Op::Acquire | Op::AcquireOwned, Scene::MustSleep) => {
                let permit = kit.semaphore.acquire().unwrap();
                start();
                asleep_or_dead(pid, id(&kit.semaphore));
                waiters = vec![permit_waiter()];
                drop(permit);
            }
            (Op::PermitGet | Op::PermitPut | Op::SpawnWithHandles, Scene::Sleepers) => {
                waiters = vec![permit_waiter()];
                start();
                eventually("the victim is done", || is_dead(pid));
                // Sent or not, the permit is to be had again in the end.
                drain(&kit);
            }
            (Op::JoinChild, _) => {
                start();
                if scene == Scene::MustSleep {
                    thread::sleep(Duration::from_millis(1));
                }
                kit.stage.set(3);
            }
            (Op::RUnlock, Scene::Sleepers) => {
                waiters = vec![rlock_waiter(), rlock_waiter()];
                start();
            }
            (Op::RLock | Op::RLockTimeout | Op::RRecover, Scene::MustSleep) => {
                let guards = (kit.rlock.lock(), kit.rlock.lock());
                start();
                match op {
                    Op::RLock => asleep_or_dead(pid, id(&kit.rlock)),
                    Op::RLockTimeout => thread::sleep(Duration::from_millis(4)),
                    _ => thread::sleep(Duration::from_millis(1)),
                }
                waiters = vec![rlock_waiter()];
                drop(guards);
            }
            (Op::SignalRelease, Scene::Sleepers) => {
                waiters = vec![signal_waiter(), signal_waiter()];
                start();
            }
            (Op::SignalAcquire | Op::SignalAcquireTimeout, Scene::MustSleep) => {
                start();
                if op == Op::SignalAcquire {
                    asleep_or_dead(pid, id(&kit.signals));
                } else {
                    thread::sleep(Duration::from_millis(4));
                }
                waiters = vec![signal_waiter()];
                // One for each of the two, of whom one may be dead: the waiter needs no more than one.
                kit.signals.release(1).unwrap();
                eventually("the victim ends", || is_dead(pid));
                if kit.signals.value() == 0 {
                    kit.signals.release(1).unwrap();
                }
            }
            _ => start(),
        }
        eventually("the victim ends", || is_dead(pid));
        if op == Op::EventSet && !kit.event.is_set() {
            kit.event.set().unwrap();
        }
        if op == Op::SignalRelease
            && scene == Scene::Sleepers
            && kit.signals.value() == 0
            && !waiters.iter().any(|w| w.is_finished())
        {
            // Not released, or on its way to those who wait.
            kit.signals.release(2).unwrap();
        }
        waiters.into_iter().for_each(must_go_on);
        if by_kernel_alone {
            let patience = Duration::from_secs(8);
            assert!(!matches!(kit.lock.lock_timeout(patience), Err(LockError::TimedOut)), "the lock is lost");
            assert!(kit.value.lock_timeout(patience).is_ok(), "the value is lost");
        }
        drop(hold);
        child.join().map_err(drop)
    });
    all_is_well(&kit, &[pid, process::id()]);
    ended
}
