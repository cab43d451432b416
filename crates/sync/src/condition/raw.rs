//! The words of a [`Condition`](super::Condition), whose waiters sleep on a count of notifications.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `seq` | notifications so far; its change is the commit, and whoever began to wait before it may go. Waiters sleep on it | notifier, which has the lock; cleaner | of a notifier: the kernel marks the lock, and the cleaner notifies all. Of the cleaner: the next one does it again |
//! | `asleep` | somebody may sleep | waiter, before it sleeps; 0 by a notifier that has woken the last | a notification makes a system call in vain |
//! | `waiting[slot]` | threads of that process from the begin of a wait until they have the lock again | those threads, under the lock; 0 by the cleaner | the cleaner notifies all, then clears it |
//! | `told` | deaths of the lock's owners that waiters have been told of | cleaner, last | told again |
//!
//! # Why nobody is left asleep
//! A waiter reads `seq` under the lock and sleeps only while it stands: futex(2) compares and falls asleep in one step. So a notification, which
//! needs the lock, finds the waiter asleep, or keeps it from falling asleep. `asleep` and `seq` pair by `fence(SeqCst)` (Dekker): the waiter stores that it
//! sleeps, fences, has the kernel compare `seq`; the notifier changes `seq`, fences, looks whether anybody sleeps.
//!
//! A waiter may be killed with a notification in hand, and it cannot be told whether it was. So is a notifier between its commit and the last wake. Both
//! have left their mark, the one in `waiting`, the other as the dead owner of the lock; the cleaner of their slot then notifies everybody: all look at
//! what they wait for, and nobody waits for the dead. It does so too for who died with the lock before it came to notify.
//!
//! The count wraps after 2^32 notifications: a waiter that is stopped between its look and its sleep, for exactly as many, would sleep on.
//!
//! After the condition variable of std (futex) and Drepper, "Futexes Are Tricky" (2011). `tests/condition_model.rs` has loom try all of it.

use crate::beneath::{AtomicU32, Deadline, Ordering, SLOTS, Wait, crash, fence, futex, spin};

/// See the module head. All-zero memory is a condition that nobody waits for.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct RawCondition {
    seq: AtomicU32,
    asleep: AtomicU32,
    told: AtomicU32,
    _unused: AtomicU32,
    waiting: [AtomicU32; SLOTS],
}

/// A wait that has begun: the count that it saw.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Began(u32);

impl RawCondition {
    /// For the model.
    #[cfg(test)]
    #[allow(dead_code)]
    pub(crate) fn new() -> RawCondition {
        let word = || AtomicU32::new(0);
        RawCondition { seq: word(), asleep: word(), told: word(), _unused: word(), waiting: std::array::from_fn(|_| word()) }
    }

    /// So many notifications before the first wait.
    #[allow(dead_code)]
    pub(crate) fn begin_at(&self, seq: u32) {
        // Relaxed: published with the object.
        self.seq.store(seq, Ordering::Relaxed);
    }

    /// Under the lock: a thread of the process in `slot` begins to wait.
    pub(crate) fn begin(&self, slot: u32) -> Began {
        // Relaxed, here and in `leave`: ordered by the lock; the cleaner comes after the end of the process.
        if let Some(waiting) = self.waiting.get(slot as usize) {
            waiting.fetch_add(1, Ordering::Relaxed);
        }
        crash::point("condition.begun");
        // Relaxed: notifiers change it under the lock, and it does no harm to have seen less than the cleaner did.
        Began(self.seq.load(Ordering::Relaxed))
    }

    /// Without the lock: whether there is a notification within the time that one spins.
    pub(crate) fn is_over_soon(&self, began: Began) -> bool {
        spin::until(|| self.is_over(began))
    }

    /// Without the lock: until there is a notification that counts for this wait; false when time was up before.
    pub(crate) fn sleep(&self, began: Began, deadline: Option<Deadline>) -> bool {
        loop {
            self.asleep.store(1, Ordering::Relaxed);
            // Pairs with the fence in `wake`.
            fence(Ordering::SeqCst);
            crash::point("condition.before_sleep");
            let why = futex::wait(&self.seq, began.0, deadline);
            crash::point("condition.after_sleep");
            if self.is_over(began) {
                return true;
            }
            if why == Wait::TimedOut {
                return false;
            }
        }
    }

    /// Whether there has been a notification since.
    pub(crate) fn is_over(&self, began: Began) -> bool {
        // Relaxed: what the notifier did before is seen by the lock, which the waiter takes next.
        self.seq.load(Ordering::Relaxed) != began.0
    }

    /// Under the lock again: the wait has ended.
    pub(crate) fn leave(&self, slot: u32) {
        crash::point("condition.relocked");
        if let Some(waiting) = self.waiting.get(slot as usize) {
            // Saturating, since the word lies where peers can write.
            let _ = waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        }
        crash::point("condition.left");
    }

    /// Under the lock: lets up to `count` of those who wait go.
    pub(crate) fn notify(&self, count: u32) {
        crash::point("condition.notifies");
        // Relaxed: ordered by the lock, and for the sleepers by the fence in `wake`.
        self.seq.fetch_add(1, Ordering::Relaxed);
        crash::point("condition.committed");
        self.wake(count);
    }

    fn wake(&self, count: u32) {
        // Pairs with the fence in `sleep`.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) == 0 {
            return;
        }
        let woken = futex::wake(&self.seq, count);
        crash::point("condition.woken");
        if woken < count as usize {
            // Nobody is left: whoever falls asleep later has seen this count, and had the lock after this notifier.
            self.asleep.store(0, Ordering::Relaxed);
        }
    }

    /// For the cleaner: the process in `slot` is dead. `deaths` counts owners that died with the lock, `owner_died` says that one has not been
    /// counted yet.
    pub(crate) fn slot_died(&self, slot: u32, deaths: u32, owner_died: bool) {
        let Some(waiting) = self.waiting.get(slot as usize) else { return };
        if owner_died || deaths != self.told.load(Ordering::Relaxed) || waiting.load(Ordering::Relaxed) != 0 {
            // Release: who goes on because of it sees what the cleaner saw.
            self.seq.fetch_add(1, Ordering::Release);
            crash::point("condition.cleaner_committed");
            // Whatever `asleep` says: a notifier may have cleared it and died.
            futex::wake(&self.seq, u32::MAX);
        }
        crash::point("condition.cleaner_woke");
        waiting.store(0, Ordering::Relaxed);
        self.told.store(deaths, Ordering::Relaxed);
    }

    /// Whether somebody may sleep.
    pub(crate) fn has_sleeper(&self) -> bool {
        self.asleep.load(Ordering::Relaxed) != 0
    }

    /// How many threads wait, in the first `slots` slots.
    pub(crate) fn waiting(&self, slots: u32) -> u32 {
        let slots = (slots as usize).min(SLOTS);
        self.waiting[..slots].iter().map(|n| n.load(Ordering::Relaxed)).fold(0, u32::saturating_add)
    }
}
