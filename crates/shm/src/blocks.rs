//! Memory in size classes: powers of two from 64 bytes, each class in its own range, each block with a state word.
//!
//! A block has one owner at a time and its state names it, so a death at any step leaves a block whose owner can be
//! read off. `queue` is an index of the object table, `seq` the low 24 bits of an item number.
//!
//! | state | owner | freed when it dies by |
//! |---|---|---|
//! | `Free` | nobody | - |
//! | `Filling(slot)` | a process | cleaning of the slot |
//! | `Slot(slot)` | a process's arguments, result or last words | cleaning of the slot |
//! | `Object(index)` | an object: its cell, ring or table | the object's end |
//! | `Queue(queue, seq)` | a committed message, or one about to be | the queue's end; the next putter, if the commit never came |
//! | `Taken(slot, queue, seq)` | who takes the message | cleaning: back to `Queue` if its taking never committed |
//! | `Leased(slot, queue, seq)` | who leases the message | cleaning: `Returned` |
//! | `Returned(queue, seq)` | a message that waits to be delivered again | the queue's end |
//! | `Segment(queue, number)` | a queue: a piece of its ring | its next putter or getter; the queue's end |
//!
//! A large block has a word that says how many of its pages are backed. Whoever is about to change that, who owns the block, says so there first: a
//! request of gigabytes takes the kernel a second, and most of those who are killed over it die there.
//!
//! | pages | unsure | meaning | if the writer dies there |
//! |---|---|---|---|
//! | n | no | the first n are backed and on the account | the block is cleaned up after like any other |
//! | n | yes | n are on the account, of which any may be backed, or not any more | who frees the block punches it; who extends it, as the next owner of what it belongs to, backs all n again |
//!
//! Small blocks are backed in chunks and stay so. Larger ones are backed page by page as needed; when freed their pages stay
//! warm up to a bound for each class, beyond it they are given back to the kernel, and so are those that stay free ([`Blocks::give_back_idle`]).

use crate::error::Error;
use crate::layout::{CLASSES, ClassLayout, Layout, MAX_CLASS, MIN_CLASS, PAGE, SMALL_CLASS};
use crate::memory::{Account, Memory, back_up_to};
use crate::slab::{Slab, SlabControl, TAG_SHIFT};
use multiproc_sys::crash;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const CHUNK: u64 = 64 << 10;
const WARM_BYTES: u64 = 32 << 20;
const SEQ_MASK: u64 = (1 << 24) - 1;

/// See the module head. Private: what peers may have written, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pages {
    bytes: u64,
    unsure: bool,
}

const UNSURE: u32 = 1 << 31;

impl Pages {
    /// Of a block of `1 << shift` bytes.
    fn load(word: &AtomicU32, shift: u32) -> Pages {
        // Relaxed: the block's owner alone writes it, and the block itself is handed over by its state.
        let word = word.load(Ordering::Relaxed);
        Pages { bytes: (u64::from(word & !UNSURE) * PAGE).min(1 << shift), unsure: word & UNSURE != 0 }
    }

    fn store(word: &AtomicU32, bytes: u64, unsure: bool) {
        word.store((bytes / PAGE) as u32 | if unsure { UNSURE } else { 0 }, Ordering::Relaxed);
    }
}

/// Names a block: its class and its index there. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockId(u64);

impl BlockId {
    fn new(class: u32, index: u64) -> BlockId {
        BlockId(u64::from(class) << 48 | index)
    }

    /// The word that is stored in shared memory; 0 stands for none.
    pub fn to_word(this: Option<BlockId>) -> u64 {
        this.map_or(0, |b| b.0)
    }

    /// From a word in shared memory; whether such a block exists is checked where it is used.
    #[inline]
    pub fn from_word(word: u64) -> Option<BlockId> {
        (word != 0).then_some(BlockId(word))
    }

    /// As a number that fits into the low 56 bits of a word.
    pub fn raw(self) -> u64 {
        self.0
    }

    #[inline]
    fn class(self) -> u32 {
        (self.0 >> 48) as u32
    }

    #[inline]
    fn index(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }
}

/// Who owns a block; see the module head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// Nobody.
    Free,
    /// The process in this slot.
    Filling(u32),
    /// Arguments, result or last words of this slot's process.
    Slot(u32),
    /// The object at this index.
    Object(u32),
    /// A message of the queue at `queue`.
    Queue {
        /// The queue's object index.
        queue: u32,
        /// Item number.
        seq: u32,
    },
    /// A message that is being taken.
    Taken {
        /// By whom.
        slot: u32,
        /// The queue's object index.
        queue: u32,
        /// Item number.
        seq: u32,
    },
    /// A message under lease.
    Leased {
        /// By whom.
        slot: u32,
        /// The queue's object index.
        queue: u32,
        /// Item number.
        seq: u32,
    },
    /// A message that waits to be delivered again.
    Returned {
        /// The queue's object index.
        queue: u32,
        /// Item number.
        seq: u32,
    },
    /// A piece of a queue's ring.
    Segment {
        /// The queue's object index.
        queue: u32,
        /// The piece's number.
        number: u32,
    },
}

impl BlockState {
    /// tag:4 | slot:12 | object:24 | seq:24.
    pub fn to_word(self) -> u64 {
        let word = |tag: u64, slot: u32, object: u32, seq: u32| {
            tag << TAG_SHIFT | u64::from(slot & 0xfff) << 48 | (u64::from(object) & SEQ_MASK) << 24 | u64::from(seq) & SEQ_MASK
        };
        match self {
            BlockState::Free => 0,
            BlockState::Filling(slot) => word(1, slot, 0, 0),
            BlockState::Slot(slot) => word(2, slot, 0, 0),
            BlockState::Object(index) => word(3, 0, index, 0),
            BlockState::Queue { queue, seq } => word(4, 0, queue, seq),
            BlockState::Taken { slot, queue, seq } => word(5, slot, queue, seq),
            BlockState::Leased { slot, queue, seq } => word(6, slot, queue, seq),
            BlockState::Returned { queue, seq } => word(7, 0, queue, seq),
            BlockState::Segment { queue, number } => word(8, 0, queue, number),
        }
    }

    /// The inverse; a tag that no process writes counts as corruption.
    #[inline]
    pub fn from_word(word: u64) -> Result<BlockState, Error> {
        let slot = (word >> 48 & 0xfff) as u32;
        let object = (word >> 24 & SEQ_MASK) as u32;
        let seq = (word & SEQ_MASK) as u32;
        Ok(match word >> TAG_SHIFT {
            0 => BlockState::Free,
            1 => BlockState::Filling(slot),
            2 => BlockState::Slot(slot),
            3 => BlockState::Object(object),
            4 => BlockState::Queue { queue: object, seq },
            5 => BlockState::Taken { slot, queue: object, seq },
            6 => BlockState::Leased { slot, queue: object, seq },
            7 => BlockState::Returned { queue: object, seq },
            8 => BlockState::Segment { queue: object, number: seq },
            _ => return Err(Error::Corrupted(&"a block's state")),
        })
    }
}

/// All size classes, as this process sees them.
#[derive(Debug)]
pub struct Blocks {
    classes: Vec<(ClassLayout, Slab)>,
}

impl Blocks {
    /// The classes of `layout`, whose control words are `controls`.
    pub fn new(layout: &Layout, controls: &'static [SlabControl; CLASSES]) -> Blocks {
        let classes =
            layout.classes.iter().zip(controls).map(|(c, control)| (*c, Slab::new(control, c.states, c.free_bits, c.blocks)));
        Blocks { classes: classes.collect() }
    }

    #[inline]
    fn class(&self, shift: u32) -> Result<&(ClassLayout, Slab), Error> {
        let at = shift.checked_sub(MIN_CLASS).ok_or(Error::Corrupted(&"a block's class"))?;
        self.classes.get(at as usize).ok_or(Error::Corrupted(&"a block's class"))
    }

    /// A block with room for `range` bytes of which the first `bytes` are backed, owned by `slot`; its content is arbitrary.
    pub fn allocate(&self, memory: &Memory, account: &Account, range: u64, bytes: u64, slot: u32) -> Result<BlockId, Error> {
        let wanted = range.max(bytes).max(1).next_power_of_two().trailing_zeros().max(MIN_CLASS);
        let state = BlockState::Filling(slot).to_word();
        for shift in wanted..=MAX_CLASS.min(wanted.max(SMALL_CLASS + 1) + 1) {
            let (layout, slab) = self.class(shift)?;
            let Some(index) = slab.take(memory, account, |_| state)? else { continue };
            crash::point("block.taken");
            let id = BlockId::new(shift, index);
            if let Err(e) = self.back(memory, account, layout, slab, index, bytes) {
                self.free(memory, account, id)?;
                return Err(e);
            }
            return Ok(id);
        }
        Err(Error::out_of_memory(bytes, account.limit.load(Ordering::Relaxed)))
    }

    fn back(
        &self,
        memory: &Memory,
        account: &Account,
        layout: &ClassLayout,
        slab: &Slab,
        index: u64,
        bytes: u64,
    ) -> Result<(), Error> {
        let data_backed = &slab.control().data_backed;
        if layout.shift <= SMALL_CLASS {
            let range = layout.blocks << layout.shift;
            return back_up_to(memory, account, data_backed, layout.data, (index + 1) << layout.shift, CHUNK, range);
        }
        // For large classes `data_backed` counts the backed part of the table of page counts.
        back_up_to(memory, account, data_backed, layout.page_counts, (index + 1) * 4, PAGE, layout.blocks * 4)?;
        let word = self.page_count(memory, layout, index)?;
        let Pages { bytes: have, unsure } = Pages::load(word, layout.shift);
        let need = bytes.next_multiple_of(PAGE).max(have);
        self.count_warm(slab, have, false);
        if need > have || unsure {
            account.charge(need - have)?;
            crash::point("block.charged");
            Pages::store(word, need, true);
            crash::point("block.unsure");
            let start = layout.data + (index << layout.shift);
            // Those that are there already stay as they are.
            let sure = if unsure { 0 } else { have };
            if let Err(e) = memory.back(start + sure, need - sure) {
                // Some may be there. If they cannot be given back, it stays unsure.
                memory.punch(start + have, need - have)?;
                Pages::store(word, have, unsure);
                account.credit(need - have);
                return Err(e);
            }
            crash::point("block.backed");
            Pages::store(word, need, false);
        }
        Ok(())
    }

    fn page_count(&self, memory: &Memory, layout: &ClassLayout, index: u64) -> Result<&'static AtomicU32, Error> {
        memory.at(layout.page_counts + index * 4)
    }

    fn count_warm(&self, slab: &Slab, bytes: u64, more: bool) {
        let warm = &slab.control().warm;
        // Relaxed: a bound that may be off by what a dead process did not count.
        let step = |w: u64| if more { w.saturating_add(bytes) } else { w.saturating_sub(bytes) };
        let before = warm.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |w| Some(step(w)));
        if !more && bytes > 0 {
            slab.control().idle.fetch_min(step(before.unwrap_or(0)), Ordering::Relaxed);
        }
    }

    /// Frees a block that the caller owns by its state.
    pub fn free(&self, memory: &Memory, account: &Account, id: BlockId) -> Result<(), Error> {
        let (layout, slab) = self.class(id.class())?;
        if layout.shift > SMALL_CLASS {
            let Pages { bytes: have, unsure } = Pages::load(self.page_count(memory, layout, id.index())?, layout.shift);
            if unsure || slab.control().warm.load(Ordering::Relaxed).saturating_add(have) > WARM_BYTES {
                self.punch(memory, account, layout, id.index())?;
            } else {
                self.count_warm(slab, have, true);
            }
        }
        crash::point("block.before_free");
        slab.give_back(memory, id.index(), BlockState::Free.to_word())
    }

    /// Gives back the pages of a large block that the caller owns; how many bytes there were.
    fn punch(&self, memory: &Memory, account: &Account, layout: &ClassLayout, index: u64) -> Result<u64, Error> {
        let word = self.page_count(memory, layout, index)?;
        let Pages { bytes: have, .. } = Pages::load(word, layout.shift);
        Pages::store(word, have, true);
        memory.punch(layout.data + (index << layout.shift), 1 << layout.shift)?;
        crash::point("block.punched");
        Pages::store(word, 0, false);
        crash::point("block.emptied");
        account.credit(have);
        Ok(have)
    }

    /// Gives back the memory of all blocks that are free but backed, whatever their class: before an allocation fails, and after a death.
    pub fn trim(&self, memory: &Memory, account: &Account, slot: u32) -> Result<(), Error> {
        self.large().try_for_each(|(layout, slab)| self.trim_class(memory, account, slot, (layout, slab), u64::MAX))
    }

    /// Gives back what has been free all the time since the last call: a peak of use is not kept for ever.
    pub fn give_back_idle(&self, memory: &Memory, account: &Account, slot: u32) -> Result<(), Error> {
        self.large().try_for_each(|(layout, slab)| {
            let SlabControl { warm, idle, .. } = slab.control();
            // Relaxed: hints, as `warm` itself.
            let surplus = idle.load(Ordering::Relaxed).min(warm.load(Ordering::Relaxed));
            let trimmed = self.trim_class(memory, account, slot, (layout, slab), surplus);
            idle.store(warm.load(Ordering::Relaxed), Ordering::Relaxed);
            trimmed
        })
    }

    /// Bytes that are free but stay backed.
    pub fn warm(&self) -> u64 {
        // Relaxed: a figure.
        self.large().fold(0, |sum, (_, slab)| slab.control().warm.load(Ordering::Relaxed).saturating_add(sum))
    }

    fn large(&self) -> impl Iterator<Item = &(ClassLayout, Slab)> {
        self.classes.iter().filter(|(layout, _)| layout.shift > SMALL_CLASS)
    }

    /// Gives back about `most` bytes of free blocks, the last ones first: the first ones are found first.
    fn trim_class(
        &self,
        memory: &Memory,
        account: &Account,
        slot: u32,
        (layout, slab): (&ClassLayout, &Slab),
        most: u64,
    ) -> Result<(), Error> {
        let (state, mut done) = (BlockState::Filling(slot).to_word(), 0);
        for index in (0..slab.high(memory)).rev() {
            if done >= most {
                break;
            }
            let word = self.page_count(memory, layout, index)?;
            if Pages::load(word, layout.shift).bytes == 0 || !slab.claim_at(memory, index, &|_| state)? {
                continue;
            }
            let have = self.punch(memory, account, layout, index)?;
            self.count_warm(slab, have, false);
            slab.give_back(memory, index, BlockState::Free.to_word())?;
            done += have;
        }
        Ok(())
    }

    /// The state word of a block.
    #[inline]
    pub fn state(&self, memory: &Memory, id: BlockId) -> Result<&'static AtomicU64, Error> {
        let (_, slab) = self.class(id.class())?;
        slab.state(memory, id.index())
    }

    /// Hands a block on: the caller owns it by its present state.
    pub fn set_state(&self, memory: &Memory, id: BlockId, state: BlockState) -> Result<(), Error> {
        // Release: the content is written before others learn whose it is now.
        self.state(memory, id)?.store(state.to_word(), Ordering::Release);
        Ok(())
    }

    /// Hands a block on if its state is still `from`.
    pub fn change_state(&self, memory: &Memory, id: BlockId, from: BlockState, to: BlockState) -> Result<bool, Error> {
        // AcqRel: as `set_state`, and the content is read after.
        let r = self.state(memory, id)?.compare_exchange(from.to_word(), to.to_word(), Ordering::AcqRel, Ordering::Acquire);
        Ok(r.is_ok())
    }

    /// Where a block lies and how many bytes of it may be used.
    #[inline]
    pub fn place(&self, memory: &Memory, id: BlockId) -> Result<(u64, u64), Error> {
        let (layout, _) = self.class(id.class())?;
        if id.index() >= layout.blocks {
            return Err(Error::Corrupted(&"a block's index"));
        }
        let size = if layout.shift <= SMALL_CLASS {
            1 << layout.shift
        } else {
            Pages::load(self.page_count(memory, layout, id.index())?, layout.shift).bytes
        };
        Ok((layout.data + (id.index() << layout.shift), size))
    }

    /// Where a block lies and how large its address range is, backed or not.
    #[inline]
    pub fn range(&self, id: BlockId) -> Result<(u64, u64), Error> {
        let (layout, _) = self.class(id.class())?;
        if id.index() >= layout.blocks {
            return Err(Error::Corrupted(&"a block's index"));
        }
        Ok((layout.data + (id.index() << layout.shift), 1 << layout.shift))
    }

    /// Backs more of a large block that the caller owns.
    pub fn extend(&self, memory: &Memory, account: &Account, id: BlockId, bytes: u64) -> Result<(), Error> {
        let (layout, slab) = self.class(id.class())?;
        if bytes > 1 << layout.shift {
            return Err(Error::Corrupted(&"a block is extended beyond its size"));
        }
        if layout.shift <= SMALL_CLASS {
            return Ok(());
        }
        let Pages { bytes: have, unsure } = Pages::load(self.page_count(memory, layout, id.index())?, layout.shift);
        // `back` takes the present pages off the warm account, on which a block in use is not.
        if bytes > have || unsure {
            self.count_warm(slab, have, true);
            self.back(memory, account, layout, slab, id.index(), bytes)?;
        }
        Ok(())
    }

    /// Calls `visit` for each block that is not free.
    pub fn for_each(&self, memory: &Memory, mut visit: impl FnMut(BlockId, u64) -> Result<(), Error>) -> Result<(), Error> {
        for (layout, slab) in &self.classes {
            for index in 0..slab.high(memory) {
                // Acquire pairs with the Release of who set the state.
                let word = slab.state(memory, index)?.load(Ordering::Acquire);
                if word >> TAG_SHIFT != 0 {
                    visit(BlockId::new(layout.shift, index), word)?;
                }
            }
        }
        Ok(())
    }

    /// Offers free blocks again that a process died over.
    pub fn repair(&self, memory: &Memory) -> Result<(), Error> {
        self.classes.iter().try_for_each(|(_, slab)| slab.repair(memory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_the_word() {
        let queue = 0x00ab_cdef;
        for state in [
            BlockState::Free,
            BlockState::Filling(1023),
            BlockState::Slot(5),
            BlockState::Object(queue),
            BlockState::Queue { queue, seq: 0xff_ffff },
            BlockState::Taken { slot: 1023, queue, seq: 1 },
            BlockState::Leased { slot: 1, queue, seq: 2 },
            BlockState::Returned { queue, seq: 3 },
            BlockState::Segment { queue, number: 4 },
        ] {
            assert_eq!(BlockState::from_word(state.to_word()), Ok(state));
        }
        assert!(BlockState::from_word(9 << TAG_SHIFT).is_err());
    }
}
