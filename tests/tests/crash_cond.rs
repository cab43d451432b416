//! A process is killed at every single step of every operation on conditions and barriers. Who waits goes on: with what it waits for, or told of the death.
//! Nothing is leaked.
//!
//! Nobody notifies a second time while there is something to be had, so a notification that went with a dead process is not made up for.
#![cfg(feature = "crash-points")]

mod step_killer;

use multiproc::testing::{self, arm_step, disarm, passed};
use multiproc::{Atomic, Barrier, BarrierError, Condition, LockError, LockGuard, Process};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;
use step_killer::{
    Rest, Table, alone, asleep_or_dead, at_every_step, doing, each_pair, eventually, id, is_dead, must_go_on, waiter,
};

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
            eventually("a waiter goes on", || {
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
    /// From before it has the lock until it has an item, whoever dies with the lock meanwhile.
    Take,
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
        Op::Take => {
            kit.go(k);
            kit.take();
            end(())
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
    doing(|| format!("{op:?}, step {k}"));
    let parties = if op == Op::DropBarrier { 1 } else { 3 };
    let kit = Kit::new(parties);
    let child = Process::spawn((kit.clone(), op, k), victim).unwrap();
    let pid = child.pid();
    eventually("the victim is prepared", || kit.stage.get() == 1 || is_dead(pid));
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
                eventually("the victim ends", || is_dead(pid));
                kit.put();
                kit.serve(others);
            }
            Op::NotifyOne | Op::NotifyTwo | Op::NotifyAll | Op::Take => {
                // They have to sleep before the victim has the lock.
                unreachable!("has a function of its own");
            }
            Op::LockAndNotify => {
                let others = vec![taker(), taker()];
                start();
                eventually("the victim ends", || is_dead(pid));
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
                eventually("the victim ends", || is_dead(pid));
                testing::collect().unwrap();
                // It may not have come to it.
                if kit.barrier.waiting() > 0 {
                    kit.barrier.abort().unwrap();
                }
                assert!(!all_or_none(others, pid));
            }
            Op::NewCondition | Op::DropBarrier | Op::NewBarrier => start(),
        }
        eventually("the victim ends", || is_dead(pid));
    });
    let ended = child.join().map_err(drop);
    all_is_well(&kit, parties);
    ended
}

/// Others sleep before the victim takes the lock to notify them.
fn run_notifier(op: Op, k: u64) -> Result<u64, ()> {
    doing(|| format!("{op:?}, step {k}"));
    let kit = Kit::new(3);
    let ended = thread::scope(|s| {
        let others = vec![waiter(s, || kit.take()), waiter(s, || kit.take())];
        let child = Process::spawn((kit.clone(), op, k), victim).unwrap();
        eventually("the victim is prepared", || kit.stage.get() == 1);
        kit.stage.set(2);
        eventually("the victim ends", || is_dead(child.pid()));
        kit.serve(others);
        child.join().map_err(drop)
    });
    all_is_well(&kit, 3);
    ended
}

/// One waits and another behind it; who tells them dies at its step `k1`, the first of the two at its step `k2`.
fn two(first: Op, second: Op, k1: u64, k2: u64) -> [bool; 2] {
    doing(|| format!("{first:?} step {k1}, {second:?} step {k2}"));
    let (kit, other) = (Kit::new(3), Atomic::new(0u32).unwrap());
    let second_kit = Kit { stage: other.clone(), ..kit.clone() };
    let b = Process::spawn((second_kit, second, k2), victim).unwrap();
    eventually("the second is prepared", || other.get() == 1);
    other.set(2);
    asleep_or_dead(b.pid(), if second == Op::Take { id(&kit.condition) } else { id(&kit.barrier) });
    let mut pids = vec![b.pid()];
    let a = thread::scope(|s| {
        let takes = (second == Op::Take).then(|| waiter(s, || kit.take()));
        let party = (second == Op::First).then(|| waiter(s, || kit.barrier.wait().map(drop)));
        let a = Process::spawn((kit.clone(), first, k1), victim).unwrap();
        pids.push(a.pid());
        eventually("the first is prepared", || kit.stage.get() == 1 || is_dead(a.pid()));
        kit.stage.set(2);
        eventually("the first ends", || is_dead(a.pid()));
        // It may not have come to it.
        if first == Op::Abort && !kit.barrier.is_broken() {
            kit.barrier.abort().unwrap();
        }
        eventually("the second ends", || is_dead(b.pid()));
        kit.serve(takes.into_iter().collect());
        if let Some(party) = party {
            match must_go_on(party) {
                Ok(()) => {}
                Err(BarrierError::Broken { died, .. }) => {
                    assert!(died.is_none_or(|died| pids.contains(&died)), "{died:?}, {pids:?}")
                }
                Err(other) => panic!("{other}"),
            }
        }
        a
    });
    let died = [a.join().is_err(), b.join().is_err()];
    all_is_well(&kit, 3);
    died
}

#[test]
fn who_is_told_dies_as_well() {
    let _alone = alone();
    let pairs = [(Op::NotifyTwo, Op::Take), (Op::NotifyAll, Op::Take), (Op::Last, Op::First), (Op::Abort, Op::First)];
    let lines = pairs.map(|(first, second)| {
        let _ = two(first, second, 1, 1);
        let rest = Rest::now();
        each_pair(format!("{first:?} x {second:?}"), 1, |k1, k2| {
            let died = two(first, second, k1, k2);
            if k2 % 8 == 0 || !died[1] {
                rest.leaves_nothing();
            }
            Ok(died)
        })
    });
    Table(lines.into()).finish("Two deaths");
    doing(String::new);
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

fn table(title: &str, ops: &[Op]) {
    let lines = ops
        .iter()
        .map(|&op| {
            let run = match op {
                Op::NotifyOne | Op::NotifyTwo | Op::NotifyAll => run_notifier,
                _ => run,
            };
            at_every_step(format!("{op:?}"), |k| run(op, k))
        })
        .collect();
    Table(lines).finish(title);
    doing(String::new);
}

#[test]
fn a_death_at_every_step_of_waiting_and_notifying() {
    let _alone = alone();
    let all = [Op::Wait, Op::WaitTimeout, Op::NotifyOne, Op::NotifyTwo, Op::NotifyAll, Op::LockAndNotify, Op::NewCondition];
    table("Waiting and notifying", &all);
}

#[test]
fn a_death_at_every_step_at_a_barrier() {
    let _alone = alone();
    let all = [Op::First, Op::Last, Op::LastActs, Op::TimesOut, Op::Abort, Op::Reset, Op::DropBarrier, Op::NewBarrier];
    table("At a barrier", &all);
}
