//! A flag, and who sleeps until it is set.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `state` | {times set:31, is set:1}; its change is the commit | setter, clearer | set or not set |
//! | `sleepers` | a wait word on which many sleep | see [`WaitWord`] | the setter's or sleeper's pending word: the kernel wakes one, who sees to it that the others wake |
//!
//! A waiter notes how often the event had been set, so a `set` that is followed at once by `clear` still lets it go. It sleeps only while `state` is as it
//! was: with many sleepers `sleepers` alone does not tell, since who comes later announces itself in the same word.
//!
//! The kernel's wake for a dead setter reaches one sleeper. If its wait is over it wakes another one. If not (it came after that `set`), it wakes all, the
//! first time: whoever the dead had owed a wake fell asleep before that `set`, so before this wait began. Wakes that it gets later are owed to nobody.

use crate::beneath::{AtomicU32, Deadline, Ordering, Thread, Wait, WaitWord};

/// See the module head. All-zero memory is an event that is not set.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct RawEvent {
    state: AtomicU32,
    pub(crate) sleepers: WaitWord,
}

const SET: u32 = 1;

impl RawEvent {
    /// What a wait begins with.
    #[inline]
    pub(crate) fn state(&self) -> u32 {
        // SeqCst: the look after the announcement of a sleep; see `WaitWord::commit_and_kick_in_order`.
        self.state.load(Ordering::SeqCst)
    }

    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        // Acquire pairs with the SeqCst in `set`.
        self.state.load(Ordering::Acquire) & SET != 0
    }

    /// Whether a wait that began at `before` is over: set then, or set since, also if it has been cleared again.
    #[inline]
    pub(crate) fn is_over(&self, before: u32) -> bool {
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

    /// Sleeps until a wait that began at `before`, when it was not set, is over; false when time is up.
    pub(crate) fn wait(&self, me: Thread, before: u32, deadline: Option<Deadline>) -> bool {
        // While this thread may have swallowed a wake, its death passes it on.
        self.sleepers.guarded(me, || {
            let mut handed_on = false;
            loop {
                self.sleepers.prepare();
                if self.is_over(before) {
                    break true;
                }
                let timed_out = self.sleepers.sleep_while(&self.state, before, deadline) == Wait::TimedOut;
                if self.is_over(before) {
                    // Where there are watchers as well, the bit that they have set tells whether the setter has woken all.
                    self.sleepers.pass_on_if_owed();
                    self.sleepers.pass_on();
                    break true;
                }
                if timed_out {
                    break false;
                }
                if !handed_on {
                    handed_on = true;
                    self.sleepers.pass_on_to_all();
                }
            }
        })
    }

    /// A process is dead that may have owed a wake of which the kernel did not know, or that came too early for who was about to sleep. For the cleaner.
    pub(crate) fn owner_died(&self) {
        // Who is about to sleep finds the announcement gone, and looks again.
        self.sleepers.kick(u32::MAX);
        // Whatever the word says: the dead may have cleared it.
        self.sleepers.pass_on_to_all();
    }
}
