//! A process is killed at every single step of every operation on locks, values, events, semaphores and permits; then at every step of the
//! operation of whoever comes next. Nobody may be left waiting, no value torn, no permit lost or doubled, nothing leaked.
//!
//! Traffic is sparse on purpose: no third process comes by and wakes those whom a dead one owed a wake. While the waiters of locks, values
//! and events are awaited nobody cleans up either, so that it is the kernel alone that wakes them.
#![cfg(feature = "crash-points")]

use multiproc::{
    Atomic, Event, GetError, Lock, LockError, OwnedPermit, Process, Queue, RLock, Semaphore, SignalSemaphore, Value, testing,
    testing::{Audit, arm_step, disarm, passed},
};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};
use std::{fs, io, mem, process};

// --- helpers ----------------------------------------------------------------------------------------

/// Each test looks at the whole arena, so they run one after the other; what hangs is ended and named.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

static DOING: Mutex<String> = Mutex::new(String::new());
static BEATS: AtomicU32 = AtomicU32::new(0);

fn doing(what: impl FnOnce() -> String) {
    *DOING.lock().unwrap_or_else(PoisonError::into_inner) = what();
    if BEATS.fetch_add(1, SeqCst) == 0 {
        thread::spawn(|| {
            let mut seen = 0;
            loop {
                thread::sleep(Duration::from_secs(60));
                let now = BEATS.load(SeqCst);
                if now == seen && !DOING.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                    // Not by eprintln!, which libtest captures, and drops at an abort.
                    let text = format!("nobody goes on: {}\n", DOING.lock().unwrap_or_else(PoisonError::into_inner));
                    let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
                    process::abort();
                }
                seen = now;
            }
        });
    }
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(8);
    while !done() {
        assert!(Instant::now() < end, "never: {what}; {}", DOING.lock().unwrap_or_else(PoisonError::into_inner));
        thread::sleep(Duration::from_micros(50));
    }
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
    eventually("the victim sleeps or dies", || {
        is_dead(pid) || testing::waits_for(pid) == Ok(Some(object)) && state(&format!("/proc/{pid}/stat")) == Some('S')
    });
}

/// A thread of this process that waits for something: never killed, and must go on.
struct Waiter<'s>(ScopedJoinHandle<'s, ()>);

impl<'s> Waiter<'s> {
    /// Returns when the thread sleeps.
    fn start(scope: &'s thread::Scope<'s, '_>, wait: impl FnOnce() + Send + 's) -> Waiter<'s> {
        let (tell, told) = std::sync::mpsc::channel();
        let handle = scope.spawn(move || {
            // SAFETY: no arguments, cannot fail.
            tell.send(unsafe { libc::gettid() }).unwrap();
            wait();
        });
        let stat = format!("/proc/self/task/{}/stat", told.recv().unwrap());
        eventually("a waiter sleeps", || {
            let asleep = || state(&stat) == Some('S');
            handle.is_finished()
                || asleep() && {
                    thread::sleep(Duration::from_micros(100));
                    asleep()
                }
        });
        Waiter(handle)
    }

    fn must_go_on(self) {
        eventually("a waiter goes on", || self.0.is_finished());
        self.0.join().unwrap();
    }
}

/// What all play with.
#[derive(Clone, Serialize, Deserialize)]
struct Kit {
    lock: Lock,
    rlock: RLock,
    signals: SignalSemaphore,
    value: Value<[u64; 4]>,
    event: Event,
    semaphore: Semaphore,
    queue: Queue<OwnedPermit>,
    /// 1: the victim is prepared; 2: it may go.
    stage: Atomic<u32>,
}

impl Kit {
    fn new() -> Kit {
        let (lock, value) = (Lock::new().unwrap(), Value::new([1; 4]).unwrap());
        let (event, semaphore) = (Event::new().unwrap(), Semaphore::new(1).unwrap());
        let (rlock, signals) = (RLock::new().unwrap(), SignalSemaphore::bounded(0, 3).unwrap());
        let (queue, stage) = (Queue::bounded(2).unwrap(), Atomic::new(0).unwrap());
        Kit { lock, rlock, signals, value, event, semaphore, queue, stage }
    }

    fn go(&self, k: u64) {
        self.stage.set(1);
        while self.stage.get() != 2 {
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
enum Op {
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
}

/// Runs the operation with the k-th step deadly. How many steps there were, if that is none of them.
fn victim(kit: Kit, op: Op, k: u64) -> u64 {
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
fn victim_with_result(kit: Kit, k: u64) -> OwnedPermit {
    let permit = kit.semaphore.acquire_owned().unwrap();
    kit.go(k);
    permit
}

/// What the scene adds to the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// The victim is alone.
    Alone,
    /// Two others sleep in an operation that the victim's lets go on.
    Sleepers,
    /// The victim itself sleeps before it is let on, and another behind it.
    MustSleep,
    /// An owner has died before.
    AfterDeath,
}

struct Line {
    name: String,
    steps: u64,
    runs: u32,
    deaths: u32,
}

fn print(title: &str, lines: &[Line]) {
    println!("\n{title}\n{:<44}{:>7}{:>7}{:>8}{:>10}", "operation, scene", "steps", "runs", "deaths", "failures");
    for Line { name, steps, runs, deaths } in lines {
        println!("{name:<44}{steps:>7}{runs:>7}{deaths:>8}{:>10}", 0);
    }
    let (runs, deaths) = lines.iter().fold((0, 0), |(r, d), l| (r + l.runs, d + l.deaths));
    println!("{:<44}{:>7}{runs:>7}{deaths:>8}{:>10}", "all", "", 0);
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
    assert_eq!(after, *before, "{}", DOING.lock().unwrap_or_else(PoisonError::into_inner));
}

/// A lock that somebody died with is recovered; who died is the victim, or died before it could say so.
fn lock_works(lock: &Lock, pids: &[u32]) {
    match lock.lock_timeout(Duration::from_secs(40)) {
        Ok(guard) => drop(guard),
        Err(LockError::OwnerDied(death)) => {
            assert!(death.pid == 0 || pids.contains(&death.pid), "{death:?} is none of {pids:?}");
            drop(lock.recover().unwrap().make_consistent());
        }
        Err(other) => panic!("{other}"),
    }
    assert!(lock.try_lock().is_ok());
}

fn value_is_whole(value: &Value<[u64; 4]>) -> [u64; 4] {
    let seen = value.get().unwrap();
    assert!(seen == [1; 4] || seen == [2; 4], "{seen:?}");
    assert_eq!(*value.lock_timeout(Duration::from_secs(40)).unwrap(), seen);
    value.set([3; 4]).unwrap();
    assert_eq!(value.get().unwrap(), [3; 4]);
    seen
}

/// Takes what permits the queue has.
fn drain(kit: &Kit) {
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
fn rlock_works(lock: &RLock, pids: &[u32]) {
    match lock.lock_timeout(Duration::from_secs(40)) {
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
fn signals_work(signals: &SignalSemaphore) {
    while signals.try_acquire().is_ok() {}
    signals.release(3).unwrap();
    assert!(signals.release(1).is_err());
    for _ in 0..3 {
        signals.acquire_timeout(Duration::from_secs(40)).unwrap();
    }
    assert!(signals.acquire_timeout(Duration::ZERO).is_err() && signals.value() == 0);
}

/// Everything works as if nobody had died.
fn all_is_well(kit: &Kit, pids: &[u32]) {
    lock_works(&kit.lock, pids);
    rlock_works(&kit.rlock, pids);
    signals_work(&kit.signals);
    value_is_whole(&kit.value);
    testing::collect().unwrap();
    drain(kit);
    testing::collect().unwrap();
    assert_eq!(kit.semaphore.available(), 1, "{}; {:?}", DOING.lock().unwrap_or_else(PoisonError::into_inner), kit.queue);
    let permit = kit.semaphore.acquire_timeout(Duration::from_secs(40)).unwrap();
    assert!(kit.semaphore.try_acquire().is_err(), "a permit too many");
    drop(permit);
    kit.event.set().unwrap();
    assert!(kit.event.wait_timeout(Duration::from_secs(40)).unwrap());
}

/// One run: whether the victim died, and the steps it made if it did not.
fn run(op: Op, scene: Scene, k: u64) -> Result<u64, ()> {
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
        Op::Acquire | Op::Release | Op::AcquireOwned | Op::DropOwned | Op::PermitPut | Op::PermitGet | Op::SpawnWithHandles
    );
    let ended = thread::scope(|s| {
        let hold = by_kernel_alone.then(|| testing::hold_collections().unwrap());
        let lock_waiter = || Waiter::start(s, || drop(kit.lock.lock()));
        let value_waiter = || Waiter::start(s, || kit.value.update(|_| ()).unwrap());
        let event_waiter = || Waiter::start(s, || kit.event.wait().unwrap());
        let permit_waiter = || Waiter::start(s, || drop(kit.semaphore.acquire().unwrap()));
        let rlock_waiter = || Waiter::start(s, || drop(kit.rlock.lock()));
        let signal_waiter = || Waiter::start(s, || kit.signals.acquire().unwrap());
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
            && !waiters.iter().any(|w| w.0.is_finished())
        {
            // Not released, or on its way to those who wait.
            kit.signals.release(2).unwrap();
        }
        waiters.into_iter().for_each(Waiter::must_go_on);
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

fn at_every_step(op: Op, scene: Scene) -> Line {
    // What the first run leaves behind for good, such as tables.
    let _ = run(op, scene, 1);
    let before = quiet_audit();
    let mut line = Line { name: format!("{op:?}, {scene:?}"), steps: 0, runs: 0, deaths: 0 };
    for k in 1..=500 {
        line.runs += 1;
        let ended = run(op, scene, k);
        leaves_nothing(&before);
        match ended {
            Ok(steps) => {
                line.steps = steps;
                assert_eq!(line.deaths as u64, k - 1);
                return line;
            }
            Err(()) => line.deaths += 1,
        }
    }
    panic!("{op:?} has no end");
}

// --- tests ----------------------------------------------------------------------------------------

#[test]
fn a_death_at_every_step_of_every_operation() {
    let _alone = alone();
    use {Op::*, Scene::*};
    let table: Vec<Line> = [
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
    ]
    .into_iter()
    .map(|(op, scene)| at_every_step(op, scene))
    .collect();
    print("One death", &table);
    doing(String::new);
}

#[test]
fn a_permit_in_a_result_survives_every_death() {
    let _alone = alone();
    let mut line = Line { name: format!("{:?}", Op::PermitInResult), steps: 0, runs: 0, deaths: 0 };
    let mut before = None;
    for k in 1..=200 {
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
        match &before {
            None => before = Some(quiet_audit()),
            Some(before) => leaves_nothing(before),
        }
        line.runs += 1;
        line.deaths += u32::from(died);
        if !died {
            line.steps = k - 1;
            break;
        }
    }
    assert!(line.steps > 1);
    print("A result", &[line]);
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
        _ => (id(&kit.semaphore), false),
    };
    thread::scope(|s| {
        let hold = by_kernel_alone.then(|| testing::hold_collections().unwrap());
        other.set(2);
        if second != Op::Recover {
            asleep_or_dead(pids[1], object);
        }
        let third = Waiter::start(s, || match second {
            Op::Lock | Op::Recover => drop(kit.lock.lock()),
            Op::ValueUpdate => kit.value.update(|_| ()).unwrap(),
            Op::EventWait => kit.event.wait().unwrap(),
            _ => drop(kit.semaphore.acquire().unwrap()),
        });
        kit.stage.set(2);
        eventually("the first ends", || is_dead(pids[0]));
        if second == Op::EventWait && !kit.event.is_set() {
            kit.event.set().unwrap();
        }
        eventually("the second ends", || is_dead(pids[1]));
        third.must_go_on();
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
        (Op::ValuePublish, Op::ValueUpdate),
        (Op::EventSet, Op::EventWait),
        (Op::Release, Op::Acquire),
        (Op::DropOwned, Op::AcquireOwned),
    ] {
        let mut line = Line { name: format!("{first:?} x {second:?}"), steps: 0, runs: 0, deaths: 0 };
        let _ = two(first, second, 1, 1);
        let before = quiet_audit();
        'first: for k1 in 0..100 {
            for k2 in 1..100 {
                let [a, b] = two(first, second, k1, k2);
                line.runs += 1;
                line.deaths += u32::from(a) + u32::from(b);
                if k2 % 8 == 0 {
                    leaves_nothing(&before);
                }
                if !b {
                    if !a {
                        break 'first;
                    }
                    break;
                }
                line.steps = line.steps.max(k2);
            }
            leaves_nothing(&before);
        }
        table.push(line);
    }
    print("Two deaths", &table);
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
