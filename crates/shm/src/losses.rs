//! Messages that died in a dead process's hands: each is counted once, also if the cleaner that counts it is killed, and told of.
//!
//! A loss is some stores: its queue's counter rises, and the arena's sum, somebody has to tell of it, and the note in the dead process's slot goes. What they shall come to is
//! written down before, and the next cleaner stores it again. Only cleaners do so, under the collector's lock.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `counter`, `target`, `sum_target`, `pending` | where the queue's counter is and what it shall be; what `sum` shall be; which entry is to be told | cleaner, while `note` is 0 | as if it had not begun |
//! | `note` | where the note is that is being counted, 0 for none: its store is the commit | cleaner | the next one stores the targets, clears the note, then this |
//! | `sum` | messages lost since the arena was made | cleaner | see `note` |
//! | an entry's `owner` | process that is to tell of it, with `TELLING` while it does; 0 for none | cleaner; who tells | who cleans up after that process is to tell; killed while it tells, it is told again |
//!
//! When all entries are taken, the cleaner keeps what it is to tell in private memory, and its death is one event less.

use crate::arena::{Arena, SlotId};
use crate::error::Error;
use crate::layout::SLOT_SIZE;
use crate::pace::Notice;
use crate::roster::{HANDS, Slot};
use multiproc_sys::crash;
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// See the module head.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Losses {
    note: AtomicU64,
    counter: AtomicU64,
    target: AtomicU32,
    pending: AtomicU32,
    sum_target: AtomicU64,
    sum: AtomicU64,
    entries: [Entry; ENTRIES],
}

/// What is to be told.
#[derive(Debug)]
#[repr(C)]
struct Entry {
    owner: AtomicU64,
    kind: AtomicU32,
    object: AtomicU32,
    seq: AtomicU32,
    count: AtomicU32,
    pid: AtomicU32,
}

const ENTRIES: usize = 32;
const TELLING: u64 = 1 << 31;

fn owner(id: SlotId) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.index + 1)
}

impl Arena {
    /// Messages that were lost since the arena was made: they died with the getter that had just taken them.
    pub fn lost(&self) -> u64 {
        // Relaxed: a counter.
        self.losses().sum.load(Ordering::Relaxed)
    }

    /// Counts what the note `hand` of a dead process's slot says was lost, has it told, and clears the note; `counter` is where the queue's own counter is. Nothing
    /// happens if the caller is not the cleaner, which is to come yet.
    pub fn count_loss(&self, slot: u32, hand: usize, counter: u64, notice: Notice) -> Result<(), Error> {
        if !self.collection().lock.held_by(self.who()?.thread) {
            return Ok(());
        }
        if hand >= HANDS {
            return Err(Error::Corrupted(&"a note of what is in hand"));
        }
        let words = self.losses();
        let before: &AtomicU32 = self.memory().at(counter)?;
        // Relaxed: only the owner of the collector's lock reads and writes these. The order of stores is what counts, and a death changes none.
        words.counter.store(counter, Ordering::Relaxed);
        words.target.store(before.load(Ordering::Relaxed).wrapping_add(notice.count), Ordering::Relaxed);
        words.sum_target.store(words.sum.load(Ordering::Relaxed) + u64::from(notice.count), Ordering::Relaxed);
        // Acquire pairs with the Release of who has told: it has read the entry.
        let free = words.entries.iter().position(|entry| entry.owner.load(Ordering::Acquire) == 0);
        words.pending.store(free.map_or(0, |i| i as u32 + 1), Ordering::Relaxed);
        if let Some(i) = free {
            words.entries[i].fill(self.kind_of(notice.object)?.id, notice);
        }
        crash::point("loss.noted");
        let note =
            self.layout.roster + u64::from(slot) * SLOT_SIZE + (offset_of!(Slot, hands) + hand * size_of::<AtomicU64>()) as u64;
        // Release: before those above, for a successor on another core.
        words.note.store(note, Ordering::Release);
        crash::point("loss.begun");
        self.finish_counting()?;
        if free.is_none() {
            self.tell_later(notice);
        }
        Ok(())
    }

    /// Ends what a cleaner that died has begun. By the owner of the collector's lock, before it cleans.
    pub(crate) fn finish_counting(&self) -> Result<(), Error> {
        let words = self.losses();
        // Acquire pairs with the Release in `count_loss`.
        let note = words.note.load(Ordering::Acquire);
        if note == 0 {
            return Ok(());
        }
        let counter: &AtomicU32 = self.memory().at(words.counter.load(Ordering::Relaxed))?;
        counter.store(words.target.load(Ordering::Relaxed), Ordering::Relaxed);
        crash::point("loss.counted");
        words.sum.store(words.sum_target.load(Ordering::Relaxed), Ordering::Relaxed);
        crash::point("loss.summed");
        if let Some(entry) = (words.pending.load(Ordering::Relaxed) as usize).checked_sub(1).and_then(|i| words.entries.get(i)) {
            self.have_told(entry);
        }
        crash::point("loss.to_be_told");
        self.memory().at::<AtomicU64>(note)?.store(0, Ordering::Relaxed);
        crash::point("loss.cleared");
        words.note.store(0, Ordering::Release);
        Ok(())
    }

    /// Takes over what a dead process was to tell. By its cleaner.
    pub(crate) fn inherit_losses(&self, dead: SlotId) {
        for entry in &self.losses().entries {
            if entry.owner.load(Ordering::Acquire) & !TELLING == owner(dead) {
                self.have_told(entry);
            }
        }
    }

    fn have_told(&self, entry: &Entry) {
        // Release pairs with the Acquire in `tell_losses`.
        entry.owner.store(owner(self.my_id()), Ordering::Release);
        // Says only that there is something.
        self.tell_later(Notice { tell: |_| {}, object: 0, seq: 0, count: 0, pid: 0 });
    }

    /// Tells what this process is to tell. Without any lock.
    pub(crate) fn tell_losses(&self) {
        let mine = owner(self.my_id());
        for entry in &self.losses().entries {
            if entry.owner.compare_exchange(mine, mine | TELLING, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            let (kind, notice) = entry.read();
            if let Some(kind) = self.kind_with(kind) {
                // A subscriber that panics must not end the keeper.
                let notice = Notice { tell: kind.tell_of_loss, ..notice };
                let _ = catch_unwind(AssertUnwindSafe(|| (notice.tell)(&notice)));
            }
            crash::point("loss.told");
            entry.owner.store(0, Ordering::Release);
        }
    }
}

impl Entry {
    /// Nobody's yet: published by the store of `owner`.
    fn fill(&self, kind: u32, notice: Notice) {
        let Notice { object, seq, count, pid, .. } = notice;
        for (word, value) in
            [(&self.kind, kind), (&self.object, object), (&self.seq, seq), (&self.count, count), (&self.pid, pid)]
        {
            word.store(value, Ordering::Relaxed);
        }
    }

    fn read(&self) -> (u32, Notice) {
        let [kind, object, seq, count, pid] =
            [&self.kind, &self.object, &self.seq, &self.count, &self.pid].map(|word| word.load(Ordering::Relaxed));
        (kind, Notice { tell: |_| {}, object, seq, count, pid })
    }
}
