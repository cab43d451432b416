//! When a collection is due though nobody has died, and what follows one: idle memory goes back, and what was found is told.
//!
//! Garbage needs no death: handles that are shared and dropped, queues with their messages. So a collection is due when the memory in use has
//! grown by 64 MiB, or by half of what the last one left if that is more. Counted is growth and not allocation: messages come and go by the
//! gigabyte, have one owner and leave nothing behind.
//!
//! Who allocates may hold locks for which others wait, so it only wishes for a collection: the keeper of its process runs it. In an arena
//! that no keeper looks after, it runs it itself as soon as it holds no lock. The words are in [`crate::arena`]'s table.

use crate::arena::Arena;
use multiproc_sys::clock::now_nanos;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The least growth that makes a collection due.
pub const LEAST_GROWTH: u64 = 64 << 20;
/// In a tree that has never had more objects a collection takes less than a tenth of a millisecond, unless many handles lie in queues.
const FEW_OBJECTS: u64 = 1 << 10;
/// A collection that takes longer is the keeper's, where nobody asks for it by name.
const QUICK_NANOS: u64 = 1_000_000;
/// After so many bytes allocated a process looks whether one is due.
const LOOK_EVERY: u64 = 1 << 20;
/// Collections that nobody has asked for and that follow no death may come in quick succession: so often do they give back idle memory.
const IDLE_NANOS: u64 = 1_000_000_000;

/// Something of a death that was found, mostly by a hook of the cleaner, told when no lock is held: the teller may be the user's own code.
#[derive(Clone, Copy, Debug)]
pub struct Notice {
    /// Tells it.
    pub tell: fn(&Notice),
    /// Index of the object.
    pub object: u32,
    /// Number of the first item, where there are such.
    pub seq: u32,
    /// How many items.
    pub count: u32,
    /// Of the dead process; 0 if it is not known.
    pub pid: u32,
}

/// What one process knows of it. Private memory.
#[derive(Debug, Default)]
pub struct Pace {
    /// Bytes allocated since this process last looked.
    allocated: AtomicU64,
    wished: AtomicBool,
    /// How long a processor was at the last collection of this process.
    took: AtomicU64,
    keeper: OnceLock<fn()>,
    notices: Notices,
}

/// What is to be told. In a process that a plain fork made the last one counts: what lies in those before is its parent's to tell, and another thread of the parent
/// may have had one locked when it forked.
#[derive(Debug, Default)]
struct Notices {
    list: Mutex<Vec<Notice>>,
    after_fork: OnceLock<Box<Notices>>,
}

impl Notices {
    fn last(&self) -> &Notices {
        let mut notices = self;
        while let Some(next) = notices.after_fork.get() {
            notices = next;
        }
        notices
    }
}

impl Pace {
    /// In a process that a plain fork made: nothing was wished for here, and nothing is to be told.
    pub(crate) fn begin_after_fork(&self) {
        let _ = self.notices.last().after_fork.set(Box::default());
        // Relaxed: before the process has another thread that asks.
        self.wished.store(false, Ordering::Relaxed);
    }
}

impl Arena {
    /// From now on wishes for a collection go to `kick`, which has another thread of this process call [`collect_if_wished`](Arena::collect_if_wished).
    pub fn kept_by(&self, kick: fn()) {
        let _ = self.pace.keeper.set(kick);
    }

    /// Collects if somebody in this process has wished for it.
    pub fn collect_if_wished(&self) {
        // AcqRel: what is to be told was noted before the wish.
        if self.pace.wished.swap(false, Ordering::AcqRel) {
            let _ = self.keep(false);
        }
    }

    /// Bytes in use: backed, and not merely kept for the next use.
    pub(crate) fn in_use(&self) -> u64 {
        self.account().used.load(Ordering::Relaxed).saturating_sub(self.blocks.warm())
    }

    pub(crate) fn note_settled(&self) {
        // Relaxed: a figure to compare with.
        self.collection().settled.store(self.in_use(), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn note_allocated(&self, bytes: u64) {
        // Relaxed: a counter of this process, which may lose what threads add at the same time as it is reset.
        if self.pace.allocated.fetch_add(bytes, Ordering::Relaxed) + bytes >= LOOK_EVERY {
            self.look_if_due();
        }
    }

    #[cold]
    fn look_if_due(&self) {
        self.pace.allocated.store(0, Ordering::Relaxed);
        let settled = self.collection().settled.load(Ordering::Relaxed);
        if self.in_use().saturating_sub(settled) > LEAST_GROWTH.max(settled / 2) {
            self.wish();
        }
    }

    /// After a collection of this process, at which a processor was for `nanos`.
    pub(crate) fn note_pace(&self, nanos: u64) {
        // Relaxed: a figure to compare with.
        self.pace.took.store(nanos, Ordering::Relaxed);
    }

    /// After a handle was dropped that leaves something for a collection to find out. At once where there is little to look at; otherwise it is left to the keeper, where
    /// many wishes become one collection: a thousand queues dropped one after the other must not look at all objects a thousand times.
    pub(crate) fn collect_soon(&self) {
        let is_quick = self.objects_high() <= FEW_OBJECTS && self.pace.took.load(Ordering::Relaxed) <= QUICK_NANOS;
        if is_quick || self.pace.keeper.get().is_none() {
            // An error means corrupted shared memory, of which the next operation tells.
            let _ = self.collect_and(false);
        } else {
            self.wish();
        }
    }

    /// What others have wished for meanwhile. Without a keeper it is for the next who collects.
    pub(crate) fn leave_to_keeper(&self) {
        if self.pace.keeper.get().is_some() {
            self.wish();
        }
    }

    fn wish(&self) {
        if self.pace.wished.swap(true, Ordering::AcqRel) {
            return;
        }
        match self.pace.keeper.get() {
            Some(kick) => kick(),
            None if self.who().is_ok_and(|who| who.thread.holds() == 0) => self.collect_if_wished(),
            None => self.pace.wished.store(false, Ordering::Relaxed),
        }
    }

    /// Has `notice` told after the collection.
    pub fn tell_later(&self, notice: Notice) {
        self.notices().push(notice);
    }

    /// Has `notice` told soon, by the keeper where there is one: also for who holds a lock.
    pub fn tell_soon(&self, notice: Notice) {
        self.tell_later(notice);
        self.have_it_told();
    }

    fn notices(&self) -> std::sync::MutexGuard<'_, Vec<Notice>> {
        self.pace.notices.last().list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what was found. To be called without any lock.
    pub fn tell(&self) {
        // By a statement of its own, so that the list is free while they are told.
        let notices = std::mem::take(&mut *self.notices());
        let any = !notices.is_empty();
        for notice in notices {
            // A subscriber that panics must not end the keeper.
            let _ = catch_unwind(AssertUnwindSafe(|| (notice.tell)(&notice)));
        }
        if any {
            self.tell_losses();
        }
    }

    /// The same for who holds a lock.
    pub(crate) fn have_it_told(&self) {
        if !self.notices().is_empty() {
            self.wish();
        }
    }

    /// After a collection: gives back memory that has been idle since it was last done. When dead processes were cleaned up, all that is idle goes: what they
    /// had may be nobody's size of message any more, and who looks at the kernel's figure after a death finds what is in use.
    pub(crate) fn give_back(&self, always: bool, any_dead: bool) {
        let word = self.collection().given_back;
        let (last, now) = (word.load(Ordering::Relaxed), now_nanos());
        if !always && !any_dead && now.saturating_sub(last) < IDLE_NANOS {
            return;
        }
        word.store(now, Ordering::Relaxed);
        let (memory, account, slot) = (&self.memory, self.account(), self.my_slot());
        // An error means corrupted memory, of which the next operation tells.
        let _ =
            if any_dead { self.blocks.trim(memory, account, slot) } else { self.blocks.give_back_idle(memory, account, slot) };
    }
}
