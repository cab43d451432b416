//! What the words of `src/raw` stand on, as loom has it: atomics, the kernel's futex, its robust list with the pending slot, and deaths.
//!
//! Loom knows SeqCst accesses only as AcqRel. So a SeqCst read-modify-write has a fence behind it here, by which the SeqCst loads that follow come after it in the
//! one order of them all. The kernel wakes sleepers in the order in which they came, or the newest first: both are played.

pub(crate) use crate::wait_word::WaitWord;
pub(crate) use loom::sync::atomic::Ordering;
use loom::sync::{Condvar, Mutex};
use std::cell::Cell;
pub(crate) use std::sync::atomic::compiler_fence;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

pub(crate) const WAITERS: u32 = 0x8000_0000;

/// Sleeping until a time: it has come when there is one.
pub(crate) type Deadline = ();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    LookAgain,
    TimedOut,
}

/// A rule that the world does not follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Without {
    Nothing,
    /// The sleeper's fence after its announcement.
    SleepersFence,
    /// The order of the SeqCst accesses.
    Order,
    /// The kernel's wake for the dead.
    Baton,
    /// The wake that a woken sleeper passes on.
    PassingOn,
}

static WITHOUT: AtomicU8 = AtomicU8::new(Without::Nothing as u8);
static NEWEST_FIRST: AtomicU8 = AtomicU8::new(0);

/// Sets the rules of the world that follows.
pub(crate) fn set_world(without: Without, newest_first: bool) {
    WITHOUT.store(without as u8, Relaxed);
    NEWEST_FIRST.store(u8::from(newest_first), Relaxed);
}

fn lacks(rule: Without) -> bool {
    WITHOUT.load(Relaxed) == rule as u8
}

pub(crate) fn fence(order: Ordering) {
    if !lacks(Without::SleepersFence) {
        loom::sync::atomic::fence(order);
    }
}

/// After a read-modify-write.
fn ordered<R>(order: Ordering, result: R) -> R {
    if order == Ordering::SeqCst && !lacks(Without::Order) {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
    result
}

macro_rules! atomic {
    ($Name:ident, $int:ty) => {
        #[derive(Debug)]
        pub(crate) struct $Name {
            value: loom::sync::atomic::$Name,
            #[allow(dead_code)]
            asleep: Mutex<Vec<Asleep>>,
        }

        impl Default for $Name {
            fn default() -> Self {
                $Name { value: loom::sync::atomic::$Name::new(0), asleep: Mutex::new(Vec::new()) }
            }
        }

        #[allow(dead_code)]
        impl $Name {
            pub(crate) fn load(&self, order: Ordering) -> $int {
                self.value.load(order)
            }
            pub(crate) fn store(&self, new: $int, order: Ordering) {
                self.value.store(new, order);
            }
            pub(crate) fn fetch_add(&self, n: $int, order: Ordering) -> $int {
                ordered(order, self.value.fetch_add(n, order))
            }
            pub(crate) fn fetch_sub(&self, n: $int, order: Ordering) -> $int {
                ordered(order, self.value.fetch_sub(n, order))
            }
            pub(crate) fn fetch_and(&self, n: $int, order: Ordering) -> $int {
                ordered(order, self.value.fetch_and(n, order))
            }
            pub(crate) fn swap(&self, n: $int, order: Ordering) -> $int {
                ordered(order, self.value.swap(n, order))
            }
            pub(crate) fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                f: impl FnMut($int) -> Option<$int>,
            ) -> Result<$int, $int> {
                let found = self.value.fetch_update(set, fetch, f);
                if found.is_ok() { ordered(set, found) } else { found }
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);

/// A sleeper of a word.
#[derive(Debug)]
pub(crate) struct Asleep {
    thread: loom::thread::Thread,
    bits: u32,
}

pub(crate) mod futex {
    use super::*;

    pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Option<Deadline>) -> Wait {
        wait_as(word, expected, deadline, u32::MAX)
    }

    pub(crate) fn wait_as(word: &AtomicU32, expected: u32, deadline: Option<Deadline>, bits: u32) -> Wait {
        let me = loom::thread::current();
        let mut asleep = word.asleep.lock().unwrap();
        if word.load(Ordering::SeqCst) != expected {
            return Wait::LookAgain;
        }
        if deadline.is_some() {
            return Wait::TimedOut;
        }
        asleep.push(Asleep { thread: me.clone(), bits });
        drop(asleep);
        loop {
            loom::thread::park();
            if !word.asleep.lock().unwrap().iter().any(|other| other.thread.id() == me.id()) {
                return Wait::LookAgain;
            }
        }
    }

    pub(crate) fn wake(word: &AtomicU32, count: u32) -> usize {
        wake_kinds(word, count, u32::MAX)
    }

    pub(crate) fn wake_all(word: &AtomicU32) -> usize {
        wake_kinds(word, u32::MAX, u32::MAX)
    }

    pub(crate) fn wake_some(word: &AtomicU32, count: u32, bits: u32) {
        if !lacks(Without::PassingOn) {
            wake_kinds(word, count, bits);
        }
    }

    fn wake_kinds(word: &AtomicU32, count: u32, bits: u32) -> usize {
        let mut asleep = word.asleep.lock().unwrap();
        let mut woken = 0;
        while woken < count as usize {
            let meant = |sleeper: &Asleep| sleeper.bits & bits != 0;
            let next = match NEWEST_FIRST.load(Relaxed) {
                0 => asleep.iter().position(meant),
                _ => asleep.iter().rposition(meant),
            };
            let Some(next) = next else { break };
            asleep.remove(next).thread.unpark();
            woken += 1;
        }
        woken
    }
}

pub(crate) mod membarrier {
    pub(crate) fn light() {
        loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
    }
}

loom::thread_local! {
    static PENDING: Cell<Option<&'static AtomicU32>> = Cell::new(None);
    static STEPS_LEFT: Cell<u32> = Cell::new(0);
    static GATE: Cell<Option<&'static RawLock>> = Cell::new(None);
}

/// The calling thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread;

#[must_use]
pub(crate) struct Pending(Option<&'static AtomicU32>);

impl Thread {
    #[allow(unsafe_code)]
    pub(crate) fn set_baton(self, word: &AtomicU32) -> Pending {
        // SAFETY: all words of the models are leaked.
        let word = unsafe { &*std::ptr::from_ref(word) };
        let new = if lacks(Without::Baton) { None } else { Some(word) };
        PENDING.with(|pending| Pending(pending.replace(new)))
    }

    pub(crate) fn restore_pending(self, Pending(old): Pending) {
        PENDING.with(|pending| pending.set(old));
    }
}

pub(crate) mod crash {
    use super::*;

    struct Died;

    pub(crate) fn point(_id: &'static str) {
        let died = STEPS_LEFT.with(|left| {
            left.set(left.get().saturating_sub(1));
            left.get() == 0
        });
        if died && ARMED.with(Cell::get) {
            ARMED.with(|armed| armed.set(false));
            // Past the panic hook, which would print each death.
            std::panic::resume_unwind(Box::new(Died));
        }
    }

    loom::thread_local! {
        static ARMED: Cell<bool> = Cell::new(false);
    }

    /// Runs `body` with its `k`-th crash point deadly. Whether it died; then the kernel has done its part.
    pub(crate) fn dies_at(k: u32, body: impl FnOnce()) -> bool {
        STEPS_LEFT.with(|left| left.set(k));
        ARMED.with(|armed| armed.set(k != 0));
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        ARMED.with(|armed| armed.set(false));
        let Err(why) = end else { return false };
        if !why.is::<Died>() {
            std::panic::resume_unwind(why);
        }
        if let Some(gate) = GATE.with(Cell::take) {
            gate.free();
        }
        if let Some(word) = PENDING.with(Cell::take) {
            futex::wake(word, 1);
        }
        true
    }
}

/// What the models need of the robust lock: it is let go when its owner dies.
#[derive(Debug, Default)]
pub(crate) struct RawLock {
    held: Mutex<bool>,
    freed: Condvar,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    pub(crate) thread: Thread,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockFailed {
    Held,
}

impl RawLock {
    pub(crate) fn lock(&'static self) {
        let mut held = self.held.lock().unwrap();
        while *held {
            held = self.freed.wait(held).unwrap();
        }
        *held = true;
        GATE.with(|gate| gate.set(Some(self)));
    }

    pub(crate) fn try_lock(&self, _who: Who) -> Result<(), LockFailed> {
        Err(LockFailed::Held)
    }

    pub(crate) fn unlock(&self, _me: Thread) {
        GATE.with(|gate| gate.set(None));
        self.free();
    }

    fn free(&self) {
        *self.held.lock().unwrap() = false;
        self.freed.notify_one();
    }
}
