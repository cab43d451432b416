//! A flag, and who sleeps until it is set.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `state` | {times set:63, is set:1}; its change is the commit | setter, clearer | set or not set |
//! | `sleepers` | a wait word on which many sleep | see [`WaitWord`]; each whose wait is over wakes another such | the setter's or sleeper's pending word: the kernel wakes one, who wakes the next |
//!
//! A waiter notes how often the event had been set, so a `set` that is followed at once by `clear` still lets it go. The kernel's wake for a dead setter may
//! reach a waiter that came later and waits for the next `set`. So a sleeper says by a bit how often the event had been set, modulo 32, and who has been
//! woken wakes one of the sleepers that are not of the latest kind: those whose wait is over, whatever the order in which the kernel chooses. (32 setters
//! that all die in the middle, one after the other, would be needed to make an old sleeper look like a new one.)

use crate::beneath::{AtomicU64, Deadline, Ordering, Thread, Wait, WaitWord};

/// See the module head. All-zero memory is an event that is not set.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct RawEvent {
    state: AtomicU64,
    sleepers: WaitWord,
}

const SET: u64 = 1;

/// The bit of those who wait since the event was in this state.
fn kind(state: u64) -> u32 {
    1 << ((state >> 1) % 32)
}

impl RawEvent {
    /// What a wait begins with.
    pub(crate) fn state(&self) -> u64 {
        // SeqCst: the look after the announcement of a sleep; see `WaitWord::commit_and_kick_in_order`.
        self.state.load(Ordering::SeqCst)
    }

    pub(crate) fn is_set(&self) -> bool {
        // Acquire pairs with the SeqCst in `set`.
        self.state.load(Ordering::Acquire) & SET != 0
    }

    /// Whether a wait that began at `before` is over: set then, or set since, also if it has been cleared again.
    pub(crate) fn is_over(&self, before: u64) -> bool {
        before & SET != 0 || self.state() >> 1 != before >> 1
    }

    /// Sets it and wakes all. Async-signal-safe.
    #[inline]
    pub(crate) fn set(&self, me: Thread) {
        self.sleepers.commit_and_kick_in_order(me, u32::MAX, || {
            // Who finds it set leaves the sleepers to who has set it, or to the kernel if that one is dead.
            let _ =
                self.state.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |s| (s & SET == 0).then(|| s.wrapping_add(2) | SET));
        });
    }

    #[inline]
    pub(crate) fn clear(&self) {
        // AcqRel: what happened before a `set` that this undoes has happened before what follows.
        self.state.fetch_and(!SET, Ordering::AcqRel);
    }

    /// Sleeps until a wait that began at `before` is over; false when time is up.
    pub(crate) fn wait(&self, me: Thread, before: u64, deadline: Option<Deadline>) -> bool {
        // While this thread may have swallowed a wake, its death passes it on.
        self.sleepers.guarded(me, || {
            loop {
                self.sleepers.prepare();
                if self.is_over(before) {
                    break true;
                }
                let timed_out = self.sleepers.sleep_as(deadline, kind(before)) == Wait::TimedOut;
                self.sleepers.pass_on_to(!kind(self.state()));
                if self.is_over(before) {
                    break true;
                }
                if timed_out {
                    break false;
                }
            }
        })
    }

    /// Wakes all, whatever the words say: a process is dead that may have owed a wake.
    pub(crate) fn owner_died(&self) {
        self.sleepers.pass_on_to_all();
    }
}
