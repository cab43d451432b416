//! Leases: a message that is out until it is acknowledged, and comes back if its holder dies.
//!
//! A leased message lies in a block of its own, whose state names the holder; the queue's lease table names the block. The
//! acknowledgement is one store: the table's entry becomes 0.
//!
//! | dies | left behind | who repairs, how |
//! |---|---|---|
//! | before the head's commit | the record in the ring; a block `Leased(slot, seq)` that `taking` names, `seq == head.seq` | the next getter undoes it |
//! | with the lease | block `Leased(slot)`, entry | the cleaner: `Returned`, `attention`, kick: delivered again, first |
//! | having stored 0 into the entry | block `Leased(slot)` without an entry | the cleaner frees it: it was acknowledged. Joiners: see [`super::join`] |
//! | returning it, before `attention` | block `Returned` | the cleaner raises `attention` for every queue that the dead process held |
//! | having cleared `attention`, with more of them there | returned leases that no watcher sees | the cleaner raises `attention` |
//! | taking a returned one, after the state's store | the lease, perhaps with one attempt counted too few | the cleaner: delivered again |

use super::bytes::Form;
use super::cell::{MAX_LEASES, age};
use super::dead::{Holder, standing};
use super::get::Next;
use super::usual::First;
use super::{Patience, Ring, dead};
use crate::error::GetError;
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::raw::Who;
use multiproc_shm::scope::References;
use multiproc_shm::{Arena, Error, record};
use multiproc_sys::crash;
use std::sync::atomic::{AtomicU64, Ordering};

/// A lease that this process has, or is about to have.
#[derive(Debug)]
pub(crate) struct Leased {
    pub(crate) block: BlockId,
    pub(crate) entry: u32,
    pub(crate) seq: u32,
    pub(crate) attempt: u32,
}

/// Leases that came back: the oldest, and how many.
pub(crate) struct Returned {
    pub(crate) oldest: Option<Leased>,
    pub(crate) count: u32,
}

/// Entries of the lease table, by what they are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Leases {
    pub(crate) out: u32,
    /// Came back, to be delivered again.
    pub(crate) returned: u32,
    pub(crate) dead: u32,
}

impl Leases {
    /// Whether there is nothing that is, or may become, a dead letter.
    pub(crate) fn is_none(self) -> bool {
        self.out + self.returned + self.dead == 0
    }
}

impl Ring {
    /// Leases the next message.
    pub(crate) fn lease(&self, patience: Patience) -> Result<(Leased, References), GetError> {
        self.with_next(patience, |who, next| match next {
            Next::Ring(first) => self.lease_first(who, first),
            Next::Returned(leased) => {
                let references = self.take_returned(&leased)?;
                Ok((leased, references))
            }
        })
    }

    fn lease_first(&self, who: Who, first: First) -> Result<(Leased, References), GetError> {
        let seq = first.at.seq();
        let entry = self.free_entry()?;
        let block = match first.head.form() {
            Form::Block => self.block_of(first)?,
            Form::Inline => self.copy_to_block(first)?,
        };
        let references = match record::adopt(self.arena(), block) {
            Ok(references) => references,
            Err(e) => {
                // Nothing has happened yet, but for the copy.
                self.arena().free_if(block, BlockState::Filling(self.arena().my_slot()))?;
                return Err(e.into());
            }
        };
        let consumed = &self.cell.consumed;
        consumed.begin_taking(block, seq);
        crash::point("lease.named");
        record::note(self.arena(), block)?.store(u64::from(entry), Ordering::Relaxed);
        self.note_holder(block)?;
        // Release: the block's content is there before the table names it.
        self.entry(entry)?.store(block.raw(), Ordering::Release);
        crash::point("lease.entered");
        self.arena().set_block_state(block, self.leased_by_me(seq))?;
        crash::point("lease.owned");
        self.commit_get(who, first.at, first.end(), self.volume_of(first));
        consumed.end_taking();
        Ok((Leased { block, entry, seq, attempt: 1 }, references))
    }

    pub(crate) fn leased_by_me(&self, seq: u32) -> BlockState {
        BlockState::Leased { slot: self.arena().my_slot(), queue: self.index(), seq }
    }

    fn copy_to_block(&self, first: First) -> Result<BlockId, Error> {
        let mut payload = Vec::with_capacity(first.head.len() as usize);
        first.bytes.read_payload(self.arena(), first.at, first.head, &mut payload)?;
        let mut references = Vec::new();
        first.bytes.references(self.arena(), first.at, first.head, &mut |r| references.push(r))?;
        record::write(self.arena(), &payload, references.into_iter())
    }

    /// A dead getter had not committed: the record is still in the ring, so a copy of it goes, and a block of it goes back.
    pub(crate) fn undo_taking(&self) -> Result<(), Error> {
        let consumed = &self.cell.consumed;
        let Some(block) = BlockId::from_word(consumed.taking.load(Ordering::Acquire)) else { return Ok(()) };
        let head = self.head();
        if consumed.taking_seq.load(Ordering::Relaxed) != head.seq() {
            return Ok(());
        }
        self.clear_entries_of(block)?;
        crash::point("lease.entries_cleared");
        match self.arena().block_state(block)? {
            state @ BlockState::Leased { queue, seq, .. } if queue == self.index() && seq == head.seq() => {
                let bytes = self.bytes()?.ok_or(Error::Corrupted(&"a queue without a ring"))?;
                let record = bytes.read_head(self.arena(), head, self.tail())?;
                let in_ring = record.form() == Form::Block && bytes.payload_word(self.arena(), head)? == block.raw();
                if in_ring {
                    self.arena().change_block_state(block, state, BlockState::Queue { queue, seq })?;
                } else {
                    self.arena().free_if(block, state)?;
                }
            }
            state @ BlockState::Taken { queue, seq, .. } if queue == self.index() && seq == head.seq() => {
                self.arena().change_block_state(block, state, BlockState::Queue { queue, seq })?;
            }
            // A table that was being made.
            state @ BlockState::Object(queue)
                if queue == self.index() && self.cell.leases.load(Ordering::Relaxed) != block.raw() =>
            {
                self.arena().free_if(block, state)?;
            }
            // A copy that was not handed over is the dead slot's own.
            _ => {}
        }
        Ok(())
    }

    fn clear_entry_of(&self, block: BlockId) -> Result<(), Error> {
        let entry = record::note(self.arena(), block)?.load(Ordering::Relaxed);
        if entry < u64::from(self.lease_high()) && self.entry(entry as u32)?.load(Ordering::Relaxed) == block.raw() {
            self.clear_entry(entry as u32)?;
        }
        Ok(())
    }

    /// The acknowledgement.
    fn clear_entry(&self, entry: u32) -> Result<(), Error> {
        let word = self.entry(entry)?;
        let who = self.arena().who()?;
        self.finishing(who, || dead::raise(self.cell, who, || word.store(0, Ordering::Release)));
        Ok(())
    }

    fn clear_entries_of(&self, block: BlockId) -> Result<(), Error> {
        for entry in 0..self.lease_high() {
            let word = self.entry(entry)?;
            if word.load(Ordering::Relaxed) == block.raw() {
                word.store(0, Ordering::Release);
            }
        }
        Ok(())
    }

    /// The oldest lease that came back and is not dead, if there is one. Under `clock`.
    pub(crate) fn find_returned(&self) -> Result<Option<Leased>, Error> {
        let attention = &self.cell.attention;
        // AcqRel: who returns a lease stores its state, then `attention`. Either this takes that store, and the state is seen below, or the
        // store comes later and stays.
        attention.swap(0, Ordering::AcqRel);
        crash::point("lease.attention_cleared");
        let Returned { oldest, count } = self.oldest_returned(false)?;
        if count > 1 {
            // Who watches may have looked meanwhile.
            let me = self.arena().who()?.thread;
            self.cell.produced.cw.commit_and_kick(me, || attention.store(1, Ordering::SeqCst));
        }
        Ok(oldest.map(|leased| Leased { attempt: leased.attempt.saturating_add(1), ..leased }))
    }

    /// What has come back: the dead, or what is still delivered.
    pub(crate) fn oldest_returned(&self, dead: bool) -> Result<Returned, Error> {
        let now = self.head().seq();
        let mut found = Returned { oldest: None, count: 0 };
        for entry in 0..self.lease_high() {
            let Some(block) = BlockId::from_word(self.entry(entry)?.load(Ordering::Acquire)) else { continue };
            let (BlockState::Returned { queue, seq }, is_dead) = standing(self.arena(), self.cell, block)? else { continue };
            if queue != self.index() || is_dead != dead {
                continue;
            }
            found.count += 1;
            if found.oldest.as_ref().is_none_or(|o| age(now, seq) > age(now, o.seq)) {
                let attempt = record::attempt(self.arena(), block)?.load(Ordering::Relaxed);
                found.oldest = Some(Leased { block, entry, seq, attempt });
            }
        }
        Ok(found)
    }

    /// Makes a returned lease this process's own; the state's store is the commit.
    pub(crate) fn take_returned(&self, leased: &Leased) -> Result<References, Error> {
        let references = record::adopt(self.arena(), leased.block)?;
        self.arena().set_block_state(leased.block, self.leased_by_me(leased.seq))?;
        crash::point("lease.retaken");
        // After the state's store: of a returned message the count says whether it is dead, and must not change.
        record::attempt(self.arena(), leased.block)?.store(leased.attempt, Ordering::Release);
        crash::point("lease.attempt_counted");
        self.note_holder(leased.block)?;
        Ok(references)
    }

    fn note_holder(&self, block: BlockId) -> Result<(), Error> {
        let me = Holder { pid: std::process::id(), gave_back: false };
        record::holder(self.arena(), block)?.store(me.to_word(), Ordering::Relaxed);
        Ok(())
    }

    /// Acknowledges: after this store nobody gets the message again. Only now have its references arrived for good.
    pub(crate) fn acknowledge(&self, leased: &Leased) -> Result<(), Error> {
        crash::point("lease.before_ack");
        self.clear_entry(leased.entry)?;
        crash::point("lease.acked");
        record::arrived_with(self.arena(), leased.block)?;
        crash::point("lease.arrived");
        self.arena().free(leased.block)
    }

    /// For a plain get of a returned lease.
    pub(crate) fn acknowledge_if_leased(&self, block: BlockId) -> Result<(), Error> {
        match self.arena().block_state(block)? {
            BlockState::Leased { seq, .. } => {
                self.note_returned(seq);
                crash::point("get.returned_in_hand");
                self.clear_entry_of(block)
            }
            _ => Ok(()),
        }
    }

    /// Gives a lease back, to be delivered again before everything else.
    pub(crate) fn give_back(&self, leased: &Leased) -> Result<(), Error> {
        let who = self.arena().who()?;
        let gave_back = Holder { pid: std::process::id(), gave_back: true };
        record::holder(self.arena(), leased.block)?.store(gave_back.to_word(), Ordering::Relaxed);
        self.arena().set_block_state(leased.block, BlockState::Returned { queue: self.index(), seq: leased.seq })?;
        crash::point("lease.returned");
        self.raise_attention(who);
        Ok(())
    }

    fn raise_attention(&self, who: Who) {
        let produced = &self.cell.produced;
        produced.cw.commit_and_kick(who.thread, || self.cell.attention.store(1, Ordering::SeqCst));
        dead::raise(self.cell, who, || {});
        // It may have come back for the last time.
        self.tell_joiners(who);
    }

    fn lease_high(&self) -> u32 {
        self.cell.lease_high.load(Ordering::Acquire).min(MAX_LEASES)
    }

    fn entry(&self, entry: u32) -> Result<&'static AtomicU64, Error> {
        entry_of(self.arena(), self.cell.leases.load(Ordering::Acquire), entry)
    }

    /// How many leases there are.
    pub(crate) fn count_leases(&self) -> Result<Leases, Error> {
        let mut count = Leases::default();
        for entry in 0..self.lease_high() {
            let Some(block) = BlockId::from_word(self.entry(entry)?.load(Ordering::Acquire)) else { continue };
            match standing(self.arena(), self.cell, block)? {
                (BlockState::Leased { queue, .. }, _) if queue == self.index() => count.out += 1,
                (BlockState::Returned { queue, .. }, dead) if queue == self.index() => {
                    *if dead { &mut count.dead } else { &mut count.returned } += 1;
                }
                _ => {}
            }
        }
        Ok(count)
    }

    fn free_entry(&self) -> Result<u32, GetError> {
        let cell = self.cell;
        if self.cell.leases.load(Ordering::Relaxed) == 0 {
            self.make_table()?;
        }
        let high = self.lease_high();
        let start = cell.lease_cursor.load(Ordering::Relaxed);
        for i in 0..high {
            let entry = (start.wrapping_add(i)) % high;
            if self.entry(entry)?.load(Ordering::Relaxed) == 0 {
                cell.lease_cursor.store(entry + 1, Ordering::Relaxed);
                return Ok(entry);
            }
        }
        if high == MAX_LEASES {
            return Err(GetError::TooManyLeases);
        }
        let block = BlockId::from_word(self.cell.leases.load(Ordering::Relaxed)).ok_or(Error::Corrupted(&"a lease table"))?;
        self.arena().extend(block, (u64::from(high) + 1) * 8)?;
        // Beyond the mark the table holds whatever was there before.
        self.entry(high)?.store(0, Ordering::Relaxed);
        cell.lease_high.store(high + 1, Ordering::Release);
        Ok(high)
    }

    #[cold]
    fn make_table(&self) -> Result<(), Error> {
        let block = self.arena().allocate_range(u64::from(MAX_LEASES) * 8, 4096)?;
        self.cell.consumed.begin_taking(block, self.head().seq());
        self.arena().set_block_state(block, BlockState::Object(self.index()))?;
        crash::point("lease.table_owned");
        self.cell.leases.store(block.raw(), Ordering::Release);
        crash::point("lease.table_named");
        self.cell.consumed.end_taking();
        Ok(())
    }
}

/// An entry of the lease table that `word` names.
pub(crate) fn entry_of(arena: &Arena, word: u64, entry: u32) -> Result<&'static AtomicU64, Error> {
    let block = BlockId::from_word(word).ok_or(Error::Corrupted(&"a lease table"))?;
    let (start, len) = arena.range(block)?;
    if u64::from(entry) * 8 >= len {
        return Err(Error::Corrupted(&"a lease's entry"));
    }
    arena.memory().at(start + u64::from(entry) * 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Queue;
    use multiproc_shm::Options;

    /// The table's block was another's, who has left words in it.
    #[test]
    fn what_lay_in_a_table_before_is_no_lease() {
        let arena = Arena::create(&Options { size: 16 << 20, ..Options::new(0, crate::KINDS) }).unwrap();
        let before = arena.allocate_range(u64::from(MAX_LEASES) * 8, 4096).unwrap();
        let word = |table: u64, entry: u32| entry_of(arena, table, entry).unwrap();
        let dirty = before.raw() | 7;
        (0..512).for_each(|entry| word(before.raw(), entry).store(dirty, Ordering::Relaxed));
        arena.free(before).unwrap();

        let queue = Queue::<u8>::builder().capacity(4).build_in(arena).unwrap();
        let ring = &queue.ring;
        // Who was to fill it dies or fails: it is free, for the next.
        assert_eq!((ring.free_entry().unwrap(), ring.free_entry().unwrap()), (0, 0));
        let table = ring.cell.leases.load(Ordering::Relaxed);
        assert_eq!(word(table, 1).load(Ordering::Relaxed), dirty, "the block that was there before");

        queue.put(1).unwrap();
        let lease = queue.lease().unwrap();
        // Of an earlier table, in which the block of this lease stood elsewhere.
        word(table, 1).store(word(table, 0).load(Ordering::Relaxed), Ordering::Relaxed);
        assert_eq!(ring.free_entry().unwrap(), 1);
        assert_eq!(ring.count_leases().unwrap().out, 1);
        drop(lease);
    }
}
