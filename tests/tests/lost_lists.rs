//! Processes that the kernel does not look after when they die: their robust lists were lost, as where memory is taken from a victim of the OOM killer before the
//! kernel has read the list there. What they held stands as if they were alive, until who sees their pidfd end says that they are dead.

use multiproc::{
    Array, Atomic, Condition, Connection, Event, Lock, LockError, Message, Process, Queue, RLock, Semaphore, SignalSemaphore,
    Value, pipe, testing,
};
use multiproc_shm::Arena;
use multiproc_tests::{all_sleep, eventually, watch};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, mem, ptr, thread};

/// struct robust_list_head of linux/futex.h.
#[repr(C)]
struct Head {
    next: *mut Head,
    futex_offset: isize,
    pending: *mut u8,
}

/// Whose lists are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Lost {
    /// The keeper's too: the life word is not marked either.
    All,
    /// The kernel marks the life word, and no other.
    AllButTheKeepers,
}

const BOTH: [Lost; 2] = [Lost::All, Lost::AllButTheKeepers];

impl Lost {
    /// Empties these lists of the calling process, none of whose other threads is about to lock something.
    fn lose(self) {
        let arena = Arena::of_the_tree().unwrap();
        let keeper = arena.slot(arena.my_slot()).unwrap().life.holder().unwrap().thread;
        for entry in fs::read_dir("/proc/self/task").unwrap() {
            let tid: u32 = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
            if tid != keeper || self == Lost::All {
                empty_list_of(tid);
            }
        }
    }
}

fn empty_list_of(tid: u32) {
    let (mut head, mut len) = (ptr::null_mut::<Head>(), 0usize);
    // SAFETY: both out-pointers are valid.
    let r = unsafe { libc::syscall(libc::SYS_get_robust_list, tid, &raw mut head, &raw mut len) };
    assert!(r == 0 && len == size_of::<Head>() && !head.is_null());
    // SAFETY: the head of a thread of this process, which lives.
    let next = unsafe { &raw mut (*head).next };
    // SAFETY: as above; the thread sleeps, or is this one.
    unsafe { next.write_volatile(head) };
    // SAFETY: as above.
    let pending = unsafe { &raw mut (*head).pending };
    // SAFETY: as above.
    unsafe { pending.write_volatile(ptr::null_mut()) };
}

/// One test at a time: at each death the locks of all threads that are gone are let go, whoever had them.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When a victim dies.
#[derive(Clone, Serialize, Deserialize)]
struct Cue {
    ready: Event,
    /// Polled: who waits for an event has something in hand itself.
    go: Atomic<u32>,
    lost: Lost,
}

impl Cue {
    fn new(lost: Lost) -> Cue {
        Cue { ready: Event::new().unwrap(), go: Atomic::new(0).unwrap(), lost }
    }

    /// In the victim: it has what it shall die with.
    fn ready(&self) {
        self.ready.set().unwrap();
    }

    /// In the victim.
    fn die(&self) -> ! {
        eventually(|| self.go.get() != 0);
        self.lost.lose();
        // SAFETY: ends this process.
        unsafe { libc::raise(libc::SIGKILL) };
        unreachable!()
    }

    fn has(&self) -> ! {
        self.ready();
        self.die()
    }
}

fn id(handle: &impl Debug) -> u32 {
    let text = format!("{handle:?}");
    let digits = text.split_once("id: ").expect("a handle's Debug names its id").1;
    digits.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// Waits until all threads of a process sleep, with a note that it waits for this object.
fn await_sleep<R>(process: &Process<R>, id: u32) {
    eventually(|| all_sleep(process.pid()) && testing::waits_for(process.pid()) == Ok(Some(id)));
}

/// The victim has the lock and `sleeper` waits for it; what that one was told after the death, of whom it should be.
fn told<R>(cue: &Cue, victim: Process<()>, id: u32, sleeper: impl FnOnce() -> Process<R>) -> (R, u32)
where
    R: Serialize + for<'de> Deserialize<'de> + 'static,
{
    let pid = victim.pid();
    cue.ready.wait().unwrap();
    let sleeper = sleeper();
    await_sleep(&sleeper, id);
    cue.go.set(1);
    let told = sleeper.join().unwrap();
    assert!(victim.join().is_err());
    (told, pid)
}

fn pid_of<G>(found: Result<G, LockError>) -> Option<u32> {
    match found {
        Err(LockError::OwnerDied(death)) => Some(death.pid),
        _ => None,
    }
}

/// One that has an object dies with it, and who sleeps there finds what `expected` says of the dead one's pid.
fn is_passed_on<T: Message + Clone + Debug, R: Message + PartialEq + Debug>(
    make: fn() -> T,
    hold: fn(T, Cue),
    sleep: fn(T) -> R,
    expected: fn(u32, &T) -> R,
) {
    let _one = alone();
    let _watched = watch(60);
    for lost in BOTH {
        let (object, cue) = (make(), Cue::new(lost));
        let victim = Process::spawn((object.clone(), cue.clone()), hold).unwrap();
        let sleeper = || Process::spawn((object.clone(),), sleep).unwrap();
        let (found, pid) = told(&cue, victim, id(&object), sleeper);
        assert_eq!(found, expected(pid, &object), "{lost:?}");
    }
}

#[test]
fn a_lock() {
    let hold = |lock: Lock, cue: Cue| {
        let _guard = lock.lock().unwrap();
        cue.has()
    };
    is_passed_on(|| Lock::new().unwrap(), hold, |lock| pid_of(lock.lock()), |pid, _| Some(pid));
}

/// Whoever cleans up goes through what the dead had handles of, and this is none of that.
#[test]
fn a_lock_without_a_handle() {
    let _one = alone();
    let _watched = watch(60);
    let (lock, cue) = (Lock::new().unwrap(), Cue::new(Lost::All));
    let victim = Process::spawn((lock.clone(), cue.clone()), |lock: Lock, cue: Cue| -> () {
        mem::forget(lock.lock().unwrap());
        drop(lock);
        cue.has()
    });
    let sleeper = || Process::spawn((lock.clone(),), |lock: Lock| pid_of(lock.lock())).unwrap();
    let (told, pid) = told(&cue, victim.unwrap(), id(&lock), sleeper);
    assert_eq!(told, Some(pid));
}

#[test]
fn a_re_entrant_lock() {
    let hold = |lock: RLock, cue: Cue| {
        let _guards = (lock.lock().unwrap(), lock.lock().unwrap());
        cue.has()
    };
    is_passed_on(|| RLock::new().unwrap(), hold, |lock| pid_of(lock.lock()), |pid, _| Some(pid));
}

/// A dead writer leaves nothing to mend.
#[test]
fn the_lock_of_a_value() {
    let hold = |value: Value<[u64; 4]>, cue: Cue| {
        let mut guard = value.lock().unwrap();
        *guard = [2; 4];
        cue.has()
    };
    is_passed_on(|| Value::new([1u64; 4]).unwrap(), hold, |value| *value.lock().unwrap(), |_, _| [1; 4]);
}

#[test]
fn the_lock_of_an_array() {
    let hold = |array: Array<u8>, cue: Cue| {
        let _guard = array.lock().unwrap();
        cue.has()
    };
    is_passed_on(|| Array::new([1u8, 2]).unwrap(), hold, |array| pid_of(array.lock()), |pid, _| Some(pid));
}

/// Who waits is told of the death of who was to notify, whichever of the two objects is looked at first.
#[test]
fn the_lock_of_a_condition() {
    let _one = alone();
    let _watched = watch(60);
    for (lost, lock_first) in
        [(Lost::All, true), (Lost::All, false), (Lost::AllButTheKeepers, true), (Lost::AllButTheKeepers, false)]
    {
        // Entries that were given back are given out again, the last first.
        let spare = Event::new().unwrap();
        let (lock, other) = (Lock::new().unwrap(), Lock::new().unwrap());
        let cue = Cue::new(lost);
        let (lock, condition) = match lock_first {
            true => (lock.clone(), Condition::with_lock(&lock).unwrap()),
            false => {
                drop(spare);
                (other.clone(), Condition::with_lock(&other).unwrap())
            }
        };
        let waiter =
            Process::spawn((condition.clone(),), |condition: Condition| pid_of(condition.wait(condition.lock().unwrap())));
        let waiter = waiter.unwrap();
        await_sleep(&waiter, id(&condition));
        let victim = Process::spawn((condition.clone(), cue.clone()), |condition: Condition, cue: Cue| -> () {
            let _guard = condition.lock().unwrap();
            cue.has()
        });
        let sleeper = || Process::spawn((lock.clone(),), |lock: Lock| pid_of(lock.lock())).unwrap();
        let (told, pid) = told(&cue, victim.unwrap(), id(&lock), sleeper);
        assert_eq!((told, waiter.join().unwrap()), (Some(pid), Some(pid)), "{lost:?} {lock_first}");
    }
}

#[test]
fn a_permit() {
    let hold = |permits: Semaphore, cue: Cue| {
        let _permit = permits.acquire().unwrap();
        cue.has()
    };
    let came_back_once = |_, permits: &Semaphore| {
        assert_eq!((permits.take_recovered(), permits.available()), (1, 1));
        true
    };
    is_passed_on(|| Semaphore::new(1).unwrap(), hold, |permits| permits.acquire().is_ok(), came_back_once);
}

/// Who waits first has a lock, for which the next one waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Place {
    Permits(Semaphore),
    Signals(SignalSemaphore),
    Getting(Queue<u8>),
    Putting(Queue<u8>),
    Burying(Queue<u8>),
}

impl Place {
    /// Each, where it has to be waited.
    fn all() -> [Place; 5] {
        let full = Queue::bounded(1).unwrap();
        full.put(1).unwrap();
        [
            Place::Permits(Semaphore::new(1).unwrap()),
            Place::Signals(SignalSemaphore::new(0).unwrap()),
            Place::Getting(Queue::bounded(1).unwrap()),
            Place::Putting(full),
            Place::Burying(Queue::builder().attempts(1).build().unwrap()),
        ]
    }

    fn id(&self) -> u32 {
        match self {
            Place::Permits(permits) => id(permits),
            Place::Signals(signals) => id(signals),
            Place::Getting(q) | Place::Putting(q) | Place::Burying(q) => q.id(),
        }
    }

    fn wait(&self) -> bool {
        match self {
            Place::Permits(permits) => permits.acquire().is_ok(),
            Place::Signals(signals) => signals.acquire().is_ok(),
            Place::Getting(q) => q.get().is_ok(),
            Place::Putting(q) => q.put(2).is_ok(),
            Place::Burying(q) => q.dead().unwrap().get().is_ok(),
        }
    }

    /// One that waits may go on.
    fn let_go(&self) {
        match self {
            // What the caller has is dropped.
            Place::Permits(_) => {}
            Place::Signals(signals) => signals.release(1).unwrap(),
            Place::Getting(q) => q.put(3).unwrap(),
            Place::Putting(q) => drop(q.get().unwrap()),
            Place::Burying(q) => {
                q.put(4).unwrap();
                drop(q.lease().unwrap());
            }
        }
    }
}

/// A thread of the victim waits, and a process behind it.
#[test]
fn the_place_of_who_waits_first() {
    let _one = alone();
    let _watched = watch(120);
    for (lost, place) in BOTH.into_iter().flat_map(|lost| Place::all().map(|place| (lost, place))) {
        let permit = match &place {
            Place::Permits(permits) => Some(permits.acquire().unwrap()),
            _ => None,
        };
        let cue = Cue::new(lost);
        let victim = Process::spawn((place.clone(), cue.clone()), |place: Place, cue: Cue| -> () {
            thread::scope(|s| {
                s.spawn(|| place.wait());
                cue.die();
            })
        });
        let victim = victim.unwrap();
        await_sleep(&victim, place.id());
        let sleeper = Process::spawn((place.clone(),), |place: Place| place.wait()).unwrap();
        await_sleep(&sleeper, place.id());
        cue.go.set(1);
        assert!(victim.join().is_err());
        place.let_go();
        drop(permit);
        assert!(sleeper.join().unwrap(), "{lost:?} {place:?}");
    }
}

/// Its peer sleeps on the life word.
#[test]
fn an_end_of_a_pipe() {
    let _one = alone();
    let _watched = watch(60);
    for lost in BOTH {
        let ((here, there), cue) = (pipe::<u8, u8>().unwrap(), Cue::new(lost));
        let victim = Process::spawn((there, cue.clone()), |there: Connection<u8, u8>, cue: Cue| -> () {
            there.send(1).unwrap();
            cue.has()
        });
        let sleeper = || {
            let sleeper = Process::spawn((here.clone(),), |here: Connection<u8, u8>| {
                assert_eq!(here.recv().unwrap(), 1);
                here.recv().unwrap_err().peer_died()
            });
            sleeper.unwrap()
        };
        let (told, pid) = told(&cue, victim.unwrap(), id(&here), sleeper);
        assert_eq!(told, Some(pid), "{lost:?}");
    }
}

/// Without it nothing is cleaned up any more.
#[test]
fn the_collectors_lock() {
    let _one = alone();
    let _watched = watch(60);
    for lost in BOTH {
        let (permits, cue) = (Semaphore::new(1).unwrap(), Cue::new(lost));
        let victim = Process::spawn((permits.clone(), cue.clone()), |permits: Semaphore, cue: Cue| -> () {
            let _permit = permits.acquire().unwrap();
            let _none = testing::hold_collections().unwrap();
            cue.has()
        });
        let victim = victim.unwrap();
        cue.ready.wait().unwrap();
        cue.go.set(1);
        assert!(victim.join().is_err());
        eventually(|| permits.available() == 1);
        assert_eq!(permits.take_recovered(), 1, "{lost:?}");
    }
}

/// At each step of a put or a get: the kernel knows nothing of the word that was pending either.
#[cfg(feature = "crash-points")]
mod at_each_step {
    use super::*;
    use multiproc::testing::{arm_signal, disarm};

    extern "C" fn on_signal(_: libc::c_int) {
        Lost::All.lose();
        // SAFETY: ends this process.
        unsafe { libc::raise(libc::SIGKILL) };
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    enum Op {
        Put,
        Get,
    }

    impl Op {
        fn on(self, q: &Queue<u8>) {
            match self {
                Op::Put => q.put(1).unwrap(),
                Op::Get => drop(q.get().unwrap()),
            }
        }

        fn other(self) -> Op {
            if self == Op::Put { Op::Get } else { Op::Put }
        }
    }

    fn victim(q: Queue<u8>, op: Op, k: u64) {
        // Crash points are where nothing of libc's is under way, so the handler may do what it likes.
        // SAFETY: as said.
        unsafe { libc::signal(libc::SIGUSR1, on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t) };
        arm_signal(libc::SIGUSR1, k);
        op.on(&q);
        disarm();
    }

    /// Whether it died.
    fn dies(op: Op, k: u64) -> bool {
        let q = Queue::<u8>::bounded(1).unwrap();
        if op == Op::Get {
            q.put(7).unwrap();
        }
        let sleeper = Process::spawn((q.clone(), op.other()), |q: Queue<u8>, op: Op| op.on(&q)).unwrap();
        await_sleep(&sleeper, q.id());
        let died = Process::spawn((q.clone(), op, k), victim).unwrap().join().is_err();
        // If it had not committed, there is nothing to hear of yet; if it had, there is nothing more to come.
        if q.is_empty() == (op == Op::Put) && died {
            op.on(&q);
        }
        sleeper.join().unwrap();
        died
    }

    #[test]
    fn of_a_put_or_a_get() {
        let _one = alone();
        for op in [Op::Put, Op::Get] {
            let deaths = (1..100)
                .take_while(|&k| {
                    let _watched = watch(60);
                    dies(op, k)
                })
                .count();
            assert!((5..99).contains(&deaths), "{op:?}: {deaths}");
        }
    }
}
