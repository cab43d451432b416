//! A process is killed at every single step of every operation on locks, values, events, semaphores and permits; then at every step of the
//! operation of whoever comes next. Nobody may be left waiting, no value torn, no permit lost or doubled, nothing leaked.
//!
//! Traffic is sparse on purpose: no third process comes by and wakes those whom a dead one owed a wake. While the waiters of locks, values
//! and events are awaited nobody cleans up either, so that it is the kernel alone that wakes them.
#![cfg(feature = "crash-points")]

mod kit;
mod scene;
#[path = "../step_killer/mod.rs"]
mod step_killer;

use kit::{Kit, Op, all_is_well, victim, victim_with_result};
use multiproc::{Atomic, Lock, Process, testing};
use scene::{Scene, run};
use std::time::Duration;
use std::{mem, thread};
use step_killer::{
    Rest, Table, alone, asleep_or_dead, at_every_step, doing, each_pair, each_step, eventually, id, is_dead, must_go_on, waiter,
};

#[test]
fn a_death_at_every_step_of_every_operation() {
    let _alone = alone();
    use {Op::*, Scene::*};
    let table = [
        (Lock, Alone),
        (Lock, MustSleep),
        (Lock, AfterDeath),
        (LockTimeout, MustSleep),
        (Unlock, Alone),
        (Unlock, Sleepers),
        (UnlockFlush, Alone),
        (UnlockFlush, Sleepers),
        (Recover, Alone),
        (Recover, AfterDeath),
        (Recover, MustSleep),
        (RecoverDropped, AfterDeath),
        (ValueUpdate, Alone),
        (ValueUpdate, MustSleep),
        (ValuePublish, Sleepers),
        (ValueGet, Alone),
        (EventSet, Alone),
        (EventSet, Sleepers),
        (EventWait, MustSleep),
        (EventClear, Alone),
        (Acquire, Alone),
        (Acquire, MustSleep),
        (Release, Alone),
        (Release, Sleepers),
        (AcquireOwned, Alone),
        (AcquireOwned, MustSleep),
        (DropOwned, Alone),
        (DropOwned, Sleepers),
        (PermitPut, Sleepers),
        (PermitGet, Sleepers),
        (PermitLeaseDrop, Alone),
        (PermitLeaseAck, Alone),
        (RLock, Alone),
        (RLock, MustSleep),
        (RLock, AfterDeath),
        (RLockTimeout, MustSleep),
        (RUnlock, Alone),
        (RUnlock, Sleepers),
        (RRecover, Alone),
        (RRecover, AfterDeath),
        (RRecover, MustSleep),
        (SignalAcquire, MustSleep),
        (SignalAcquireTimeout, MustSleep),
        (SignalRelease, Alone),
        (SignalRelease, Sleepers),
        (NewRLock, Alone),
        (NewSignals, Alone),
        (NewLock, Alone),
        (NewValue, Alone),
        (NewAtomic, Alone),
        (NewEvent, Alone),
        (NewSemaphore, Alone),
        (SpawnWithHandles, Sleepers),
        (SpawnWithHandles, Collecting),
        (PermitPut, Collecting),
        (PermitGet, Collecting),
        (PermitLeaseAck, Collecting),
        (JoinChild, MustSleep),
    ]
    .into_iter()
    .map(|(op, scene)| at_every_step(format!("{op:?}, {scene:?}"), |k| run(op, scene, k)))
    .collect();
    Table(table).finish("One death");
    doing(String::new);
}

#[test]
fn a_permit_in_a_result_survives_every_death() {
    let _alone = alone();
    let mut rest = None;
    let line = each_step(format!("{:?}", Op::PermitInResult), |k| {
        doing(|| format!("{:?}, step {k}", Op::PermitInResult));
        let kit = Kit::new();
        let child = Process::spawn((kit.clone(), k), victim_with_result).unwrap();
        eventually("the victim is prepared", || kit.stage.get() == 1);
        kit.stage.set(2);
        let died = match child.wait() {
            Some(status) => !status.success(),
            None => true,
        };
        // Killed after the commit it has returned the permit all the same.
        match child.join() {
            Ok(permit) => {
                assert_eq!(kit.semaphore.available(), 0);
                drop(permit);
            }
            Err(_) => assert!(died),
        }
        all_is_well(&kit, &[]);
        drop(kit);
        rest.get_or_insert_with(Rest::now).leaves_nothing();
        Ok(died)
    });
    assert!(line.steps > 1);
    Table(vec![line]).finish("A result");
    doing(String::new);
}

/// The first holds something and dies at step `k1` of giving it back (0: before); the second waits for it and dies at its step `k2`.
fn two(first: Op, second: Op, k1: u64, k2: u64) -> [bool; 2] {
    doing(|| format!("{first:?} step {k1}, {second:?} step {k2}"));
    let (kit, other) = (Kit::new(), Atomic::new(0u32).unwrap());
    let a = Process::spawn((kit.clone(), first, k1), victim).unwrap();
    eventually("the first is prepared", || kit.stage.get() == 1);
    let second_kit = Kit { stage: other.clone(), ..kit.clone() };
    let b = Process::spawn((second_kit, second, k2), victim).unwrap();
    eventually("the second is prepared", || other.get() == 1);
    let pids = [a.pid(), b.pid()];
    let (object, by_kernel_alone) = match second {
        Op::Lock | Op::Recover => (id(&kit.lock), true),
        Op::ValueUpdate => (id(&kit.value), true),
        Op::EventWait => (id(&kit.event), true),
        Op::RLock | Op::RRecover => (id(&kit.rlock), true),
        Op::SignalAcquire => (id(&kit.signals), true),
        _ => (id(&kit.semaphore), false),
    };
    thread::scope(|s| {
        let hold = by_kernel_alone.then(|| testing::hold_collections().unwrap());
        other.set(2);
        if !matches!(second, Op::Recover | Op::RRecover) {
            asleep_or_dead(pids[1], object);
        }
        let third = waiter(s, || match second {
            Op::Lock | Op::Recover => drop(kit.lock.lock()),
            Op::ValueUpdate => kit.value.update(|_| ()).unwrap(),
            Op::EventWait => kit.event.wait().unwrap(),
            Op::RLock | Op::RRecover => drop(kit.rlock.lock()),
            Op::SignalAcquire => kit.signals.acquire().unwrap(),
            _ => drop(kit.semaphore.acquire().unwrap()),
        });
        kit.stage.set(2);
        eventually("the first ends", || is_dead(pids[0]));
        if second == Op::EventWait && !kit.event.is_set() {
            kit.event.set().unwrap();
        }
        let unsignalled = || {
            // Not released, or taken along by a dead one. While there is one, who waits has to take it.
            if second == Op::SignalAcquire && kit.signals.value() == 0 {
                let _ = kit.signals.release(1);
            }
        };
        eventually("the second ends", || {
            unsignalled();
            is_dead(pids[1])
        });
        eventually("the third goes on", || {
            if !third.is_finished() {
                unsignalled();
            }
            third.is_finished()
        });
        must_go_on(third);
        drop(hold);
    });
    let died = [a.join().is_err(), b.join().is_err()];
    all_is_well(&kit, &pids);
    died
}

#[test]
fn a_second_death_at_every_step_of_the_successor() {
    let _alone = alone();
    let mut table = Vec::new();
    for (first, second) in [
        (Op::Unlock, Op::Lock),
        (Op::Unlock, Op::Recover),
        (Op::RUnlock, Op::RLock),
        (Op::RUnlock, Op::RRecover),
        (Op::SignalRelease, Op::SignalAcquire),
        (Op::ValuePublish, Op::ValueUpdate),
        (Op::EventSet, Op::EventWait),
        (Op::Release, Op::Acquire),
        (Op::DropOwned, Op::AcquireOwned),
    ] {
        let _ = two(first, second, 1, 1);
        let rest = Rest::now();
        table.push(each_pair(format!("{first:?} x {second:?}"), 0, |k1, k2| {
            let died = two(first, second, k1, k2);
            if k2 % 8 == 0 || !died[1] {
                rest.leaves_nothing();
            }
            Ok(died)
        }));
    }
    Table(table).finish("Two deaths");
    doing(String::new);
}

/// glibc's robust mutex strands the third here, each time: the second had been woken and is killed before it runs, while a barging owner
/// has the lock, whose unlock then wakes nobody.
#[test]
fn a_woken_waiter_that_is_killed_strands_nobody() {
    let _alone = alone();
    fn pin(cpu: usize) -> bool {
        // SAFETY: an all-zero set is valid.
        let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
        // SAFETY: the index is small.
        unsafe { libc::CPU_SET(cpu, &mut set) };
        // SAFETY: reads the set, for the calling thread.
        unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) == 0 }
    }
    if !thread::spawn(|| pin(0) && pin(1)).join().unwrap() {
        println!("skipped: needs CPUs 0 and 1");
        return;
    }
    let (mut stranded, mut had_run) = (0, 0);
    for round in 0..50 {
        doing(|| format!("round {round}"));
        let (lock, turn) = (Lock::ignoring_death().unwrap(), Atomic::new(0u32).unwrap());
        thread::scope(|s| {
            s.spawn(|| {
                assert!(pin(1));
                let guard = lock.lock().unwrap();
                let sleepy = Process::spawn((lock.clone(), turn.clone()), |lock: Lock, turn: Atomic<u32>| {
                    pin(0);
                    let idle = libc::sched_param { sched_priority: 0 };
                    // SAFETY: reads the parameters, for the calling thread.
                    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const idle) };
                    let _guard = lock.lock().unwrap();
                    turn.add(100);
                });
                let sleepy = sleepy.unwrap();
                asleep_or_dead(sleepy.pid(), id(&lock));
                let third = Process::spawn((lock.clone(), turn.clone()), |lock: Lock, turn: Atomic<u32>| {
                    pin(1);
                    let _guard = lock.lock().unwrap();
                    turn.add(1);
                });
                let mut third = third.unwrap();
                asleep_or_dead(third.pid(), id(&lock));
                let hog = Process::spawn((turn.clone(),), |turn: Atomic<u32>| {
                    pin(0);
                    turn.add(10_000);
                    loop {
                        std::hint::spin_loop();
                    }
                });
                let hog: Process<()> = hog.unwrap();
                eventually("the hog hogs", || turn.get() >= 10_000);
                thread::sleep(Duration::from_millis(2));
                drop(guard);
                let barging = lock.lock().unwrap();
                sleepy.kill().unwrap();
                assert!(sleepy.wait().is_some());
                had_run += u32::from(turn.get() % 10_000 >= 100);
                drop(barging);
                hog.kill().unwrap();
                if third.join_timeout(Duration::from_secs(20)).unwrap().is_none() {
                    stranded += 1;
                    third.kill().unwrap();
                }
                hog.wait();
            });
        });
    }
    println!(
        "\nwoken waiter killed while a barging owner has the lock: 50 rounds, stranded {stranded}, it had run first in {had_run}"
    );
    assert_eq!(stranded, 0);
    assert!(had_run < 25, "the scene was not the one meant: {had_run}");
    doing(String::new);
}
