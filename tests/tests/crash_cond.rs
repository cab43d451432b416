//! A process is killed at every single step of every operation on conditions and barriers. Who waits goes on: with what it waits for, or told of the death.
//! Nothing is leaked.
//!
//! Nobody notifies a second time while there is something to be had, so a notification that went with a dead process is not made up for.
#![cfg(feature = "crash-points")]

use multiproc::{
    Atomic, Barrier, BarrierError, Condition, LockError, LockGuard, Process, testing,
    testing::{Audit, arm_step, disarm, passed},
};
use multiproc_tests::{eventually, watch};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::fs;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// Each test looks at the whole arena, so they run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn id(handle: &impl Debug) -> u32 {
    let text = format!("{handle:?}");
    let digits = text.split_once("id: ").expect("a handle's Debug names its id").1;
    digits.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// The state letter in a `stat` file of /proc.
fn state(path: &str) -> Option<char> {
    fs::read_to_string(path).ok()?.rsplit_once(')')?.1.trim_start().chars().next()
}

fn is_dead(pid: u32) -> bool {
    matches!(state(&format!("/proc/{pid}/stat")), None | Some('Z' | 'X'))
}

/// Until the process sleeps in an operation on that object, or is dead.
fn asleep_or_dead(pid: u32, object: u32) {
    let asleep = || testing::waits_for(pid) == Ok(Some(object)) && state(&format!("/proc/{pid}/stat")) == Some('S');
    eventually(|| is_dead(pid) || asleep());
}

/// A thread of this process that waits for something: never killed, and must go on. Returns when it sleeps.
fn waiter<'s, R: Send + 's>(scope: &'s thread::Scope<'s, '_>, wait: impl FnOnce() -> R + Send + 's) -> ScopedJoinHandle<'s, R> {
    let (tell, told) = mpsc::channel();
    let handle = scope.spawn(move || {
        // SAFETY: no arguments, cannot fail.
        tell.send(unsafe { libc::gettid() }).unwrap();
        wait()
    });
    let stat = format!("/proc/self/task/{}/stat", told.recv().unwrap());
    let asleep = || state(&stat) == Some('S');
    eventually(|| {
        handle.is_finished()
            || asleep() && {
                thread::sleep(Duration::from_micros(100));
                asleep()
            }
    });
    handle
}

/// What all play with.
#[derive(Clone, Serialize, Deserialize)]
struct Kit {
    condition: Condition,
    items: Atomic<u32>,
    barrier: Barrier,
    acted: Atomic<u32>,
    /// 1: the victim is prepared; 2: it may go.
    stage: Atomic<u32>,
}

impl Kit {
    fn new(parties: usize) -> Kit {
        Kit {
            condition: Condition::new().unwrap(),
            items: Atomic::new(0).unwrap(),
            barrier: Barrier::new(parties).unwrap(),
            acted: Atomic::new(0).unwrap(),
            stage: Atomic::new(0).unwrap(),
        }
    }

    fn go(&self, k: u64) {
        self.stage.set(1);
        while self.stage.get() != 2 {
            thread::sleep(Duration::from_micros(20));
        }
        arm_step(k);
    }

    /// The lock, mended if its owner has died.
    fn lock(&self) -> LockGuard<'_> {
        match self.condition.lock() {
            Ok(guard) => guard,
            Err(LockError::OwnerDied(_)) => self.condition.get_lock().recover().unwrap().make_consistent(),
            Err(other) => panic!("{other}"),
        }
    }

    fn take(&self) {
        loop {
            match self.condition.wait_for(self.lock(), || self.items.get() > 0) {
                Ok(_guard) => {
                    self.items.fetch_sub(1, SeqCst);
                    return;
                }
                Err(LockError::OwnerDied(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }

    fn put(&self) {
        let guard = self.lock();
        self.items.add(1);
        self.condition.notify_one(&guard).unwrap();
    }

    /// Takes in what the others have: an item each, of which one may have gone with the dead.
    fn serve(&self, waiters: Vec<ScopedJoinHandle<'_, ()>>) {
        for waiter in waiters {
            eventually(|| {
                // Only when there is none, since a second notification would make up for a lost one.
                if !waiter.is_finished() && self.items.get() == 0 {
                    self.put();
                }
                waiter.is_finished()
            });
            waiter.join().unwrap();
        }
    }
}

/// What the victim is killed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Op {
    /// A wait, which another process ends.
    Wait,
    WaitTimeout,
    NotifyOne,
    NotifyTwo,
    NotifyAll,
    /// From before it has the lock; it means to notify.
    LockAndNotify,
    NewCondition,
    /// The barrier, as the first to come.
    First,
    /// As the last.
    Last,
    LastActs,
    TimesOut,
    Abort,
    Reset,
    DropBarrier,
    NewBarrier,
}

/// Runs the operation with the k-th step deadly. How many steps there were, if that is none of them.
fn victim(kit: Kit, op: Op, k: u64) -> u64 {
    fn end<T>(_keep: T) -> u64 {
        let steps = passed();
        disarm();
        steps
    }
    match op {
        Op::Wait => {
            let guard = kit.lock();
            kit.go(k);
            let guard = kit.condition.wait_for(guard, || kit.items.get() > 0).unwrap();
            kit.items.fetch_sub(1, SeqCst);
            drop(guard);
            end(())
        }
        Op::WaitTimeout => {
            let guard = kit.lock();
            kit.go(k);
            end(kit.condition.wait_timeout(guard, Duration::from_millis(2)).map(drop))
        }
        Op::NotifyOne | Op::NotifyTwo | Op::NotifyAll => {
            let (guard, count) = (kit.lock(), if op == Op::NotifyOne { 1 } else { 2 });
            kit.items.set(count);
            kit.go(k);
            match op {
                Op::NotifyAll => kit.condition.notify_all(&guard),
                _ => kit.condition.notify(&guard, count as usize),
            }
            .unwrap();
            drop(guard);
            end(())
        }
        Op::LockAndNotify => {
            kit.go(k);
            kit.put();
            end(())
        }
        Op::NewCondition => {
            kit.go(k);
            drop(Condition::new().unwrap());
            end(())
        }
        Op::First | Op::Last => {
            kit.go(k);
            end(kit.barrier.wait().map(drop))
        }
        Op::LastActs => {
            kit.go(k);
            end(kit.barrier.wait_with(|| _ = kit.acted.add(1)).map(drop))
        }
        Op::TimesOut => {
            kit.go(k);
            end(kit.barrier.wait_timeout(Duration::from_millis(2)).map(drop))
        }
        Op::Abort => {
            kit.go(k);
            kit.barrier.abort().unwrap();
            end(())
        }
        Op::Reset => {
            kit.go(k);
            kit.barrier.reset().unwrap();
            end(())
        }
        Op::DropBarrier => {
            let Kit { barrier, stage, condition, items, acted } = kit;
            barrier.wait().unwrap();
            let kit = Kit { barrier: Barrier::new(1).unwrap(), stage, condition, items, acted };
            kit.go(k);
            drop(barrier);
            end(())
        }
        Op::NewBarrier => {
            kit.go(k);
            drop(Barrier::new(2).unwrap());
            end(())
        }
    }
}

/// What stands when nothing is going on.
fn quiet_audit() -> Audit {
    testing::collect().unwrap();
    testing::audit().unwrap()
}

fn leaves_nothing(before: &Audit) {
    let mut after = quiet_audit();
    let end = Instant::now() + Duration::from_secs(40);
    while after != *before && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
        after = quiet_audit();
    }
    assert_eq!(after, *before);
}

/// All waiters of a round hear the same; whether they came through.
fn all_or_none(waiters: Vec<ScopedJoinHandle<'_, Result<u32, BarrierError>>>, pid: u32) -> bool {
    let heard: Vec<_> = waiters.into_iter().map(|w| w.join().unwrap()).collect();
    let through = heard.iter().all(Result::is_ok);
    assert!(through || heard.iter().all(Result::is_err), "{heard:?}");
    for error in heard.into_iter().filter_map(Result::err) {
        match error {
            BarrierError::Broken { died, .. } => assert!(died.is_none_or(|died| died == pid), "{died:?} is not {pid}"),
            other => panic!("{other}"),
        }
    }
    through
}

/// One run: whether the victim died, and the steps it made if it did not.
fn run(op: Op, k: u64) -> Result<u64, ()> {
    let parties = if op == Op::DropBarrier { 1 } else { 3 };
    let kit = Kit::new(parties);
    let child = Process::spawn((kit.clone(), op, k), victim).unwrap();
    let pid = child.pid();
    eventually(|| kit.stage.get() == 1 || is_dead(pid));
    thread::scope(|s| {
        let taker = || waiter(s, || kit.take());
        let party = || waiter(s, || kit.barrier.wait().map(|came| came.index()));
        let start = || kit.stage.set(2);
        match op {
            Op::Wait => {
                start();
                asleep_or_dead(pid, id(&kit.condition));
                // Behind the victim, so that the one notification goes there.
                let others = vec![taker(), taker()];
                kit.put();
                kit.serve(others);
            }
            Op::WaitTimeout => {
                start();
                let others = vec![taker()];
                eventually(|| is_dead(pid));
                kit.put();
                kit.serve(others);
            }
            Op::NotifyOne | Op::NotifyTwo | Op::NotifyAll => {
                // They have to sleep before the victim has the lock.
                unreachable!("has a function of its own");
            }
            Op::LockAndNotify => {
                let others = vec![taker(), taker()];
                start();
                eventually(|| is_dead(pid));
                kit.serve(others);
            }
            Op::First => {
                start();
                asleep_or_dead(pid, id(&kit.barrier));
                let others = vec![party(), party()];
                all_or_none(others, pid);
            }
            Op::Last | Op::LastActs => {
                let others = vec![party(), party()];
                start();
                let through = all_or_none(others, pid);
                assert!(!through || kit.acted.get() == u32::from(op == Op::LastActs));
            }
            Op::TimesOut => {
                let others = vec![party()];
                start();
                assert!(!all_or_none(others, pid));
            }
            Op::Abort | Op::Reset => {
                let others = vec![party(), party()];
                start();
                eventually(|| is_dead(pid));
                testing::collect().unwrap();
                // It may not have come to it.
                if kit.barrier.waiting() > 0 {
                    kit.barrier.abort().unwrap();
                }
                assert!(!all_or_none(others, pid));
            }
            Op::NewCondition | Op::DropBarrier | Op::NewBarrier => start(),
        }
        eventually(|| is_dead(pid));
    });
    let ended = child.join().map_err(drop);
    all_is_well(&kit, parties);
    ended
}

/// Others sleep before the victim takes the lock to notify them.
fn run_notifier(op: Op, k: u64) -> Result<u64, ()> {
    let kit = Kit::new(3);
    let ended = thread::scope(|s| {
        let others = vec![waiter(s, || kit.take()), waiter(s, || kit.take())];
        let child = Process::spawn((kit.clone(), op, k), victim).unwrap();
        eventually(|| kit.stage.get() == 1);
        kit.stage.set(2);
        eventually(|| is_dead(child.pid()));
        kit.serve(others);
        child.join().map_err(drop)
    });
    all_is_well(&kit, 3);
    ended
}

/// Everything works as if nobody had died.
fn all_is_well(kit: &Kit, parties: usize) {
    testing::collect().unwrap();
    assert_eq!(kit.condition.waiting(), 0);
    kit.items.set(0);
    kit.barrier.reset().unwrap();
    thread::scope(|s| {
        let other = waiter(s, || kit.take());
        kit.put();
        other.join().unwrap();
        let parties: Vec<_> = (0..parties).map(|_| s.spawn(|| kit.barrier.wait())).collect();
        parties.into_iter().for_each(|p| _ = p.join().unwrap().unwrap());
    });
    assert!(!kit.barrier.is_broken());
}

fn at_every_step(op: Op) {
    let run = match op {
        Op::NotifyOne | Op::NotifyTwo | Op::NotifyAll => run_notifier,
        _ => run,
    };
    // What the first run leaves behind for good, such as tables.
    let _ = run(op, 1);
    let before = quiet_audit();
    for k in 1..=500 {
        let ended = run(op, k);
        leaves_nothing(&before);
        if let Ok(steps) = ended {
            println!("{:<16}{steps:>5} steps,{:>5} deaths", format!("{op:?}"), k - 1);
            return;
        }
    }
    panic!("{op:?} has no end");
}

#[test]
fn a_death_at_every_step_of_waiting_and_notifying() {
    let (_alone, _watch) = (alone(), watch(600));
    let all = [Op::Wait, Op::WaitTimeout, Op::NotifyOne, Op::NotifyTwo, Op::NotifyAll, Op::LockAndNotify, Op::NewCondition];
    all.into_iter().for_each(at_every_step);
}

#[test]
fn a_death_at_every_step_at_a_barrier() {
    let (_alone, _watch) = (alone(), watch(600));
    let all = [Op::First, Op::Last, Op::LastActs, Op::TimesOut, Op::Abort, Op::Reset, Op::DropBarrier, Op::NewBarrier];
    all.into_iter().for_each(at_every_step);
}
