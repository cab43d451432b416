//! Waiting as the one sleeper of a wait word, or for whatever is [`Waitable`], with a note in the roster of what for.

use crate::arena::Arena;
use crate::error::Error;
use crate::raw::WaitWord;
use multiproc_sys::clock::{Deadline, now_nanos};
use multiproc_sys::futex::Wait;
use multiproc_sys::futex_waitv::{Word, wait_any};
use multiproc_sys::{crash, spin};
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// Something to wait for that several words tell of. Several of them can be waited for together: each adds its words.
pub trait Waitable {
    /// Whether there is nothing to wait for any more.
    fn ready(&self) -> bool;

    /// Announces a sleeper in the words and adds them. The caller looks once more whether it is ready before it sleeps: a fence lies in between.
    fn prepare(&self, words: &mut Words);

    /// After each sleep: tells those who sleep on the same words what this sleeper's wake may have been meant to tell.
    fn woken(&self);

    /// Takes the announcement back.
    fn finish(&self);
}

/// What a sleeper sleeps on.
#[derive(Debug, Default)]
pub struct Words {
    words: Vec<Word<'static>>,
    shared: Option<&'static AtomicU32>,
}

impl Words {
    /// Adds a word and the value with which to sleep.
    pub fn push(&mut self, (word, expected): (&'static AtomicU32, u32)) {
        self.words.push(Word { word, expected });
    }

    /// As [`push`](Words::push), for a word on which other processes sleep too and of whom a wake reaches only one: if this one dies with
    /// the wake in hand, the kernel wakes the next. Of several such words the last is guarded.
    pub fn push_shared(&mut self, (word, expected): (&'static AtomicU32, u32)) {
        self.push((word, expected));
        self.shared = Some(word);
    }
}

impl Arena {
    /// Until `ready` says so: spin a little, announce the sleep, look again, sleep. False when time is up. The caller holds the lock that makes
    /// it the only sleeper; `index` is the object it waits for.
    pub fn wait_alone(&self, index: u32, word: &WaitWord, deadline: Option<Deadline>, ready: impl Fn() -> bool) -> bool {
        if spin::until(&ready) {
            return true;
        }
        self.note_blocked(Some(index));
        let mut timed_out = false;
        while !timed_out {
            word.prepare();
            if ready() {
                break;
            }
            timed_out = word.sleep(deadline) == Wait::TimedOut && !ready();
        }
        word.finish();
        self.note_blocked(None);
        !timed_out
    }

    /// Until `what` is ready; false when time is up. `index` is the object it waits for.
    pub fn wait_for(&self, index: u32, what: &impl Waitable, deadline: Option<Deadline>) -> Result<bool, Error> {
        if spin::until(|| what.ready()) {
            return Ok(true);
        }
        let me = self.who()?.thread;
        self.note_blocked(Some(index));
        let mut words = Words::default();
        let mut timed_out = false;
        while !timed_out {
            (words.shared, _) = (None, words.words.clear());
            what.prepare(&mut words);
            // Pairs with the fence of who changes something and then looks whether somebody sleeps.
            fence(Ordering::SeqCst);
            if what.ready() {
                break;
            }
            let pending = words.shared.map(|word| me.set_baton(word));
            crash::point("waiting.before_sleep");
            let why = wait_any(&words.words, deadline);
            crash::point("waiting.after_sleep");
            what.woken();
            crash::point("waiting.told");
            pending.into_iter().for_each(|pending| me.restore_pending(pending));
            timed_out = why == Wait::TimedOut && !what.ready();
        }
        what.finish();
        self.note_blocked(None);
        Ok(!timed_out)
    }

    /// Notes in the roster what this process waits for; reports and the exit path read it.
    #[cold]
    pub fn note_blocked(&self, on: Option<u32>) {
        if let Ok(slot) = self.slot(self.my_slot()) {
            // Relaxed: for reports.
            slot.blocked_since.store(if on.is_some() { now_nanos() } else { 0 }, Ordering::Relaxed);
            slot.blocked_on.store(on.map_or(0, |index| u64::from(index) + 1), Ordering::Relaxed);
        }
    }
}
