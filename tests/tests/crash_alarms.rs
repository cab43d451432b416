//! A handler sets an event at every single step of every operation that it may interrupt, and its process is killed at every step of that. There
//! nobody may be left waiting, on either.
#![cfg(feature = "crash-points")]

#[path = "step_killer/table.rs"]
mod steps;

use multiproc::testing::{self, arm_signal, arm_step, disarm, passed};
use multiproc::{Atomic, Event, Lock, LockError, Process, Queue, RLock, Semaphore, SignalSemaphore};
use multiproc_tests::{eventually, watch};
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;
use steps::{Line, Table, each_step};

const LONG: Duration = Duration::from_secs(60);

static RINGS: OnceLock<Event> = OnceLock::new();
/// The step of the handler that is deadly; 0: none.
static INNER: AtomicU64 = AtomicU64::new(0);
static RUNG: AtomicBool = AtomicBool::new(false);

extern "C" fn on_alarm(_: libc::c_int) {
    RUNG.store(true, SeqCst);
    match INNER.load(SeqCst) {
        0 => disarm(),
        k => arm_step(k),
    }
    let set = RINGS.get().is_some_and(|event| event.set_from_signal().is_ok());
    INNER.store(if set { passed() } else { 0 }, SeqCst);
    disarm();
}

fn listen(rings: Event, inner: u64) {
    INNER.store(inner, SeqCst);
    let _ = RINGS.set(rings);
    // SAFETY: all zero is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_alarm as extern "C" fn(libc::c_int) as usize;
    // SAFETY: the handler does what is async-signal-safe.
    assert_eq!(unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) }, 0);
}

#[derive(Clone, Serialize, Deserialize)]
struct Kit {
    lock: Lock,
    rlock: RLock,
    event: Event,
    semaphore: Semaphore,
    signals: SignalSemaphore,
    queue: Queue<u32>,
    rings: Event,
    /// 1: the victim is prepared; 2: it may go.
    stage: Atomic<u32>,
}

/// What the handler interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Op {
    Lock,
    Unlock,
    RLock,
    RUnlock,
    EventSet,
    /// The event that the handler sets.
    SameEventSet,
    EventWait,
    SameEventWait,
    Acquire,
    Release,
    SignalAcquire,
    SignalRelease,
    Put,
    Get,
}

/// Whether the handler ran, and the steps that it took.
fn victim(kit: Kit, op: Op, outer: u64, inner: u64) -> (bool, u64) {
    let go = || {
        kit.stage.set(1);
        while kit.stage.get() != 2 {
            thread::sleep(Duration::from_micros(20));
        }
        arm_signal(libc::SIGALRM, outer);
    };
    listen(kit.rings.clone(), inner);
    match op {
        Op::Lock => {
            go();
            drop(kit.lock.lock_timeout(LONG).unwrap());
        }
        Op::Unlock => {
            let guard = kit.lock.lock().unwrap();
            go();
            drop(guard);
        }
        Op::RLock => {
            go();
            let first = kit.rlock.lock().unwrap();
            drop((kit.rlock.lock().unwrap(), first));
        }
        Op::RUnlock => {
            let guards = (kit.rlock.lock().unwrap(), kit.rlock.lock().unwrap());
            go();
            drop(guards);
        }
        Op::EventSet => {
            go();
            kit.event.set().unwrap();
        }
        Op::SameEventSet => {
            go();
            kit.rings.set().unwrap();
        }
        Op::EventWait => {
            go();
            kit.event.wait().unwrap();
        }
        Op::SameEventWait => {
            go();
            kit.rings.wait_timeout(Duration::from_millis(20)).unwrap();
        }
        Op::Acquire => {
            go();
            drop(kit.semaphore.acquire().unwrap());
        }
        Op::Release => {
            let permit = kit.semaphore.acquire().unwrap();
            go();
            drop(permit);
        }
        Op::SignalAcquire => {
            go();
            kit.signals.acquire().unwrap();
        }
        Op::SignalRelease => {
            go();
            kit.signals.release(1).unwrap();
        }
        Op::Put => {
            go();
            kit.queue.put(1).unwrap();
        }
        Op::Get => {
            kit.queue.put(2).unwrap();
            go();
            kit.queue.get().unwrap();
        }
    }
    disarm();
    (RUNG.load(SeqCst), INNER.load(SeqCst))
}

/// A thread of this process that sleeps in something, once this returns.
fn sleeper<'s>(s: &'s thread::Scope<'s, '_>, wait: impl FnOnce() + Send + 's) -> ScopedJoinHandle<'s, ()> {
    let (tell, told) = std::sync::mpsc::channel();
    let handle = s.spawn(move || {
        // SAFETY: no arguments, cannot fail.
        tell.send(unsafe { libc::gettid() }).unwrap();
        wait();
    });
    let stat = format!("/proc/self/task/{}/stat", told.recv().unwrap());
    let asleep = || std::fs::read_to_string(&stat).is_ok_and(|s| s.rsplit_once(')').is_some_and(|(_, s)| s.starts_with(" S")));
    eventually(|| handle.is_finished() || asleep());
    handle
}

/// One run: what the victim returned, or that it died.
fn run(op: Op, outer: u64, inner: u64) -> Option<(bool, u64)> {
    let kit = Kit {
        lock: Lock::ignoring_death().unwrap(),
        rlock: RLock::ignoring_death().unwrap(),
        event: Event::new().unwrap(),
        semaphore: Semaphore::new(1).unwrap(),
        signals: SignalSemaphore::new(0).unwrap(),
        queue: Queue::bounded(1).unwrap(),
        rings: Event::new().unwrap(),
        stage: Atomic::new(0).unwrap(),
    };
    let child = Process::spawn((kit.clone(), op, outer, inner), victim).unwrap();
    eventually(|| kit.stage.get() == 1);
    thread::scope(|s| {
        // Who needs what the victim may owe.
        let mut waiters = vec![sleeper(s, || kit.rings.wait().unwrap())];
        match op {
            Op::Unlock => waiters.extend((0..2).map(|_| sleeper(s, || drop(kit.lock.lock().unwrap())))),
            Op::RUnlock => waiters.extend((0..2).map(|_| sleeper(s, || drop(kit.rlock.lock().unwrap())))),
            Op::EventSet => waiters.extend((0..2).map(|_| sleeper(s, || kit.event.wait().unwrap()))),
            Op::SameEventSet => waiters.push(sleeper(s, || kit.rings.wait().unwrap())),
            Op::Release => waiters.extend((0..2).map(|_| sleeper(s, || drop(kit.semaphore.acquire().unwrap())))),
            Op::Put => waiters.push(sleeper(s, || _ = kit.queue.get().unwrap())),
            Op::Get => waiters.push(sleeper(s, || kit.queue.put(3).unwrap())),
            Op::SignalRelease => waiters.push(sleeper(s, || kit.signals.acquire().unwrap())),
            _ => {}
        }
        kit.stage.set(2);
        let id = |text: String| text.split_once("id: ").and_then(|(_, t)| t.split(',').next()?.parse::<u32>().ok()).unwrap();
        let sleeps = |on: u32| testing::waits_for(child.pid()) == Ok(Some(on));
        let dead = || std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).map_or(true, |s| s.contains(") Z"));
        match op {
            Op::EventWait => {
                eventually(|| dead() || sleeps(id(format!("{:?}", kit.event))));
                waiters.push(sleeper(s, || kit.event.wait().unwrap()));
                kit.event.set().unwrap();
            }
            Op::SignalAcquire => {
                eventually(|| dead() || sleeps(id(format!("{:?}", kit.signals))));
                waiters.push(sleeper(s, || kit.signals.acquire().unwrap()));
                kit.signals.release(2).unwrap();
            }
            _ => {}
        }
        let returned = child.join().ok();
        // What a dead one had not committed is done by others; if it had, there is nothing more to come, and those who wait must have heard.
        if !kit.rings.is_set() {
            kit.rings.set().unwrap();
        }
        if op == Op::EventSet && !kit.event.is_set() {
            kit.event.set().unwrap();
        }
        if op == Op::SignalRelease && kit.signals.value() == 0 {
            kit.signals.release(1).unwrap();
        }
        match op {
            // Not put, unless it has been got.
            Op::Put if returned.is_none() && kit.queue.is_empty() && !waiters[1].is_finished() => kit.queue.put(1).unwrap(),
            // What it has not got, or what was put in its place.
            Op::Get if returned.is_none() => _ = kit.queue.get_timeout(LONG).unwrap(),
            _ => {}
        }
        waiters.into_iter().for_each(|w| w.join().unwrap());
        while kit.queue.try_get().is_ok() {}
        kit.queue.put_timeout(5, LONG).unwrap();
        assert_eq!(kit.queue.get_timeout(LONG).unwrap(), 5);
        let fine = |r: Result<(), LockError>| r.unwrap();
        fine(kit.lock.lock_timeout(LONG).map(drop));
        fine(kit.rlock.lock_timeout(LONG).map(drop));
        drop(kit.semaphore.acquire_timeout(LONG).unwrap());
        returned
    })
}

#[test]
fn a_handler_at_every_step_killed_at_every_step() {
    let all = [
        Op::Lock,
        Op::Unlock,
        Op::RLock,
        Op::RUnlock,
        Op::EventSet,
        Op::SameEventSet,
        Op::EventWait,
        Op::SameEventWait,
        Op::Acquire,
        Op::Release,
        Op::SignalAcquire,
        Op::SignalRelease,
        Op::Put,
        Op::Get,
    ];
    let mut table = Table(Vec::new());
    for op in all {
        let mut line = Line::new(format!("{op:?}, interrupted at each step"));
        let steps = 'outer: {
            for outer in 1..100 {
                for inner in 0..100 {
                    let _watch = watch(60);
                    let returned = run(op, outer, inner);
                    line.ran(returned.is_none().into());
                    match returned {
                        None => assert_ne!(inner, 0, "{op:?}: killed, though nobody did"),
                        Some((false, _)) => break 'outer outer - 1,
                        // It has fewer steps than that.
                        Some((true, _)) if inner > 0 => break,
                        Some((true, _)) => {}
                    }
                }
            }
            panic!("{op:?} has no end");
        };
        line.steps = steps;
        assert!(steps >= 2 && line.deaths >= steps, "{line:?}");
        table.0.push(line);
    }
    table.finish("A handler sets an event");
}

/// The handler runs in a thread that has used nothing of ours before.
fn strangers_victim(rings: Event, ready: Event, inner: u64) -> bool {
    listen(rings, inner);
    let stranger = thread::spawn(move || {
        // SAFETY: a signal to this thread, whose handler is ours.
        unsafe { libc::raise(libc::SIGALRM) };
    });
    stranger.join().unwrap();
    ready.set().unwrap();
    RUNG.load(SeqCst)
}

#[test]
fn a_handler_in_a_thread_of_others_killed_at_every_step() {
    let line = each_step("SetFromSignal, in a thread of others", |inner| {
        let _watch = watch(60);
        let (rings, ready) = (Event::new().unwrap(), Event::new().unwrap());
        let survived = thread::scope(|s| {
            let waiters = [0; 2].map(|_| sleeper(s, || rings.wait().unwrap()));
            // The kernel alone wakes.
            let hold = testing::hold_collections().unwrap();
            let child = Process::spawn((rings.clone(), ready.clone(), inner), strangers_victim).unwrap();
            let dead = || std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).map_or(true, |s| s.contains(") Z"));
            eventually(|| dead() || ready.is_set());
            if !rings.is_set() {
                rings.set().unwrap();
            }
            waiters.into_iter().for_each(|w| w.join().unwrap());
            drop(hold);
            child.join().is_ok_and(|rung| rung)
        });
        Ok(!survived)
    });
    assert!(line.steps > 1, "{line:?}");
    Table(vec![line]).finish("A thread of others");
}
