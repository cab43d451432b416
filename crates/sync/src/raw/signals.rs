//! A number that anybody raises and anybody takes from, and who sleeps while it is 0.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `value` | what can be taken; its change is the commit | takers, releasers | taken or not, released or not |
//! | `gate` | one sleeper at a time, who keeps it while it sleeps; the rest sleep on it | takers that found 0 | `OWNER_DIED`: nothing to mend, the next one looks at `value` |
//! | `released` | the sleeper, a [`WaitWord`] | see there | the releaser's pending word: the kernel wakes the sleeper, who looks; who is only about to sleep is kicked by the cleaner |
//! | `bound` | the most that `value` may be, a constant | creator | - |
//!
//! As only one thread sleeps on `released`, no wake is swallowed: killed, it leaves the gate to the next. Of `release(n)` the sleeper takes one and opens the gate
//! to the next, who finds the rest.

use crate::beneath::{AtomicU32, LockFailed, Ordering, RawLock, Thread, WaitWord, Who};

/// See the module head.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct RawSignals {
    pub(crate) gate: RawLock,
    pub(crate) released: WaitWord,
    value: AtomicU32,
    bound: AtomicU32,
}

impl RawSignals {
    /// Fills in a new one.
    pub(crate) fn init(&self, value: u32, bound: u32) {
        // Relaxed: the object is published later.
        self.value.store(value, Ordering::Relaxed);
        self.bound.store(bound, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u32 {
        // SeqCst: the sleeper's look after its announcement; see `WaitWord::commit_and_kick_in_order`.
        self.value.load(Ordering::SeqCst)
    }

    pub(crate) fn bound(&self) -> u32 {
        self.bound.load(Ordering::Relaxed)
    }

    /// Takes one if there is one.
    #[inline]
    pub(crate) fn try_take(&self) -> bool {
        // Acquire pairs with the SeqCst in `release`.
        self.value.fetch_update(Ordering::Acquire, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
    }

    /// Takes one, under the gate. `wait` sleeps on the word as its only sleeper until the closure says true, and returns false when time is up.
    pub(crate) fn take_in_turn(&self, mut wait: impl FnMut(&WaitWord, &dyn Fn() -> bool) -> bool) -> bool {
        loop {
            if self.try_take() {
                return true;
            }
            // Somebody who does not wait may be quicker than the sleeper.
            if !wait(&self.released, &|| self.value() > 0) {
                return self.try_take();
            }
        }
    }

    /// Opens the gate. Called by the one who is in it.
    pub(crate) fn open(&self, who: Who) {
        self.gate.unlock(who.thread);
    }

    /// The caller's turn, if nobody else has it.
    pub(crate) fn try_enter(&self, who: Who) -> Result<(), LockFailed> {
        self.gate.try_lock(who).map(|_| ())
    }

    /// Raises the value by `n` and wakes the sleeper; false, and nothing is changed, if that is more than the bound.
    #[inline]
    pub(crate) fn release(&self, me: Thread, n: u32) -> bool {
        let mut fits = false;
        self.released.commit_and_kick_in_order(me, 1, || {
            let most = self.bound();
            let raised = |v: u32| v.checked_add(n).filter(|&v| v <= most);
            fits = self.value.fetch_update(Ordering::SeqCst, Ordering::Relaxed, raised).is_ok();
        });
        fits
    }

    /// A process is dead that may have owed a wake of which the kernel did not know, or that came too early for who was about to sleep. For the cleaner.
    pub(crate) fn owner_died(&self) {
        // Who is about to sleep finds the announcement gone, and looks again.
        self.released.kick(u32::MAX);
        // Whatever the word says: the dead may have cleared it.
        self.released.pass_on_to_all();
    }
}
