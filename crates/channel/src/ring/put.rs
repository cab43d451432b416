//! Putting: write the record where nobody looks, then store the tail.
//!
//! | dies | left behind | who repairs, how |
//! |---|---|---|
//! | waiting for `plock`, or for room | nothing; `plock` with a dead owner | the kernel wakes the next |
//! | making the ring | a block `Filling(slot)`, or one that `putting` names | the cleaner of the slot; the next putter |
//! | writing the record | bytes beyond the tail | nobody: the next put writes over them |
//! | with a block in state `Queue(seq)`, before the commit | that block, named by `putting`, `seq == tail.seq` | the next putter frees it |
//! | after the commit, before the wake | a message, a sleeping getter | the kernel wakes it: `cw` is pending |
//! | after the wake | `plock` with a dead owner | the kernel wakes the next |

use super::bytes::{BLOCK_RECORD, Form, Head};
use super::cell::{CLOSED, End, NO_RECEIVER};
use super::{Bytes, GaveUp, Patience, Ring};
use crate::error::PutFailed;
use crate::message::Parcel;
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::notes::Op;
use multiproc_shm::raw::{Acquired, Who};
use multiproc_shm::{Error, record};
use multiproc_sys::crash;
use std::sync::atomic::Ordering;

/// The ring takes this many bytes an item on average inline; beyond that messages move into blocks.
const BYTES_PER_ITEM: u64 = 128;
const MIN_RING: u64 = 16 << 10;
const MAX_USUAL_RING: u64 = 1 << 20;
const FIRST_BACKING: u64 = 4096;

impl Ring {
    /// Puts an encoded message.
    #[inline]
    pub(crate) fn put(&self, parcel: &mut Parcel, patience: Patience) -> Result<(), PutFailed> {
        let who = self.arena().who()?;
        // A large message has its block before the lock is taken.
        let block = if parcel.inline().is_some() { None } else { Some(parcel.block()?) };
        let produced = &self.cell.produced;
        let found = self.take(Op::Put, &self.cell.plock, who, patience, || self.can_put()).map_err(|why| self.put_failed(why))?;
        let done = (|| {
            if found == Acquired::OwnerDied {
                self.repair_put()?;
            }
            self.await_room(patience)?;
            let bytes = match self.bytes()? {
                Some(bytes) => bytes,
                None => self.make_ring()?,
            };
            self.write_and_commit(who, bytes, parcel, block)
        })();
        debug_assert!(done.is_err() || produced.putting.load(Ordering::Relaxed) == 0);
        self.cell.plock.unlock(who.thread);
        done
    }

    fn put_failed(&self, why: GaveUp) -> PutFailed {
        match why {
            GaveUp::Failed(e) => PutFailed::Shared(e),
            GaveUp::TimedOut => PutFailed::TimedOut,
            GaveUp::Held if self.items() >= self.capacity() => PutFailed::Full,
            GaveUp::Held => PutFailed::WouldBlock,
        }
    }

    #[inline]
    fn can_put(&self) -> bool {
        self.items() < self.capacity() || self.ended() & (CLOSED | NO_RECEIVER) != 0
    }

    /// Waits until the bound allows one item more. Looks at the getters' line only when what was seen there last looks full.
    #[inline]
    fn await_room(&self, patience: Patience) -> Result<(), PutFailed> {
        let seen = &self.cell.produced.head_seen;
        if self.tail().items_since(End::noted(seen)) >= self.capacity() {
            if !self.can_put() {
                let Patience::Until(deadline) = patience else { return Err(PutFailed::Full) };
                self.wait(Op::Put, &self.cell.consumed.pw, deadline, || self.can_put()).map_err(|why| self.put_failed(why))?;
            }
            self.head().note(seen);
        }
        match self.ended() {
            e if e & CLOSED != 0 => Err(PutFailed::Closed),
            e if e & NO_RECEIVER != 0 => Err(PutFailed::Disconnected),
            _ => Ok(()),
        }
    }

    #[inline]
    fn write_and_commit(&self, who: Who, bytes: Bytes, parcel: &mut Parcel, block: Option<BlockId>) -> Result<(), PutFailed> {
        let tail = self.tail();
        let len = parcel.inline().map_or(0, <[u8]>::len);
        let inline = Head::new(Form::Inline, len as u32, parcel.references().len() as u16);
        let fits = |size: u64, head: End| {
            // Every item that the bound still allows keeps room for its block record: bytes never hold up what items allow.
            let left = u64::from(self.capacity().saturating_sub(tail.items_since(head) + 1)) * BLOCK_RECORD;
            tail.bytes_since(head) + size + left <= bytes.len
        };
        let fits_now = |size: u64| {
            fits(size, End::noted(&self.cell.produced.head_seen)) || {
                let head = self.head();
                head.note(&self.cell.produced.head_seen);
                fits(size, head)
            }
        };
        let as_block = block.is_some() || !fits_now(inline.size());
        let record = if as_block { Head::new(Form::Block, 8, 0) } else { inline };
        if as_block && !fits_now(record.size()) {
            return Err(Error::Corrupted(&"a queue's ends").into());
        }
        self.back_ring(tail.position() + record.size())?;
        let block = match block {
            None if as_block => Some(parcel.block()?),
            given => given,
        };
        let references = parcel.references();
        record::announce(self.arena(), references)?;
        crash::point("put.announced");
        match block {
            None => {
                let payload = parcel.inline().unwrap_or_default();
                bytes.write_record(self.arena(), tail, record, payload, references.iter().map(|h| h.reference()))?;
            }
            Some(block) => {
                let name = block.raw().to_ne_bytes();
                self.cell.produced.putting.store(block.raw(), Ordering::Relaxed);
                crash::point("put.named");
                self.arena().set_block_state(block, BlockState::Queue { queue: self.index(), seq: tail.seq() })?;
                crash::point("put.block_handed");
                bytes.write_record(self.arena(), tail, record, &name, std::iter::empty())?;
            }
        }
        crash::point("put.written");
        let produced = &self.cell.produced;
        produced.cw.commit_and_kick(who.thread, || tail.after(record.size()).store(&produced.tail));
        crash::point("put.kicked");
        if !references.is_empty() {
            record::committed(self.arena(), references)?;
        }
        if block.is_some() {
            produced.putting.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Makes the ring at the first put, so that a queue that is never used costs its cell alone.
    #[cold]
    fn make_ring(&self) -> Result<Bytes, Error> {
        let capacity = u64::from(self.capacity());
        let wanted = (capacity * BYTES_PER_ITEM).min(MAX_USUAL_RING).max(capacity * BLOCK_RECORD * 2).max(MIN_RING);
        // The address range of a block is a power of two; only its first page is backed now.
        let block = self.arena().allocate_range(wanted.next_power_of_two(), FIRST_BACKING)?;
        crash::point("put.ring_allocated");
        self.cell.produced.putting.store(block.raw(), Ordering::Relaxed);
        self.arena().set_block_state(block, BlockState::Object(self.index()))?;
        crash::point("put.ring_owned");
        self.cell.produced.ring_backed.store(FIRST_BACKING, Ordering::Relaxed);
        // Release pairs with the Acquire in `bytes_of`.
        self.cell.ring.store(block.raw(), Ordering::Release);
        crash::point("put.ring_named");
        self.cell.produced.putting.store(0, Ordering::Relaxed);
        let (start, len) = self.arena().range(block)?;
        Ok(Bytes { start, len })
    }

    /// Backs the ring up to a position, on the first lap only, doubling.
    #[inline]
    fn back_ring(&self, position: u64) -> Result<(), Error> {
        let backed = self.cell.produced.ring_backed.load(Ordering::Relaxed);
        if position <= backed { Ok(()) } else { self.back_more(position, backed) }
    }

    #[cold]
    fn back_more(&self, position: u64, backed: u64) -> Result<(), Error> {
        let Some(block) = BlockId::from_word(self.cell.ring.load(Ordering::Relaxed)) else { return Ok(()) };
        let (_, len) = self.arena().range(block)?;
        let target = position.max(backed.saturating_mul(2)).next_multiple_of(FIRST_BACKING).min(len);
        self.arena().extend(block, target)?;
        // A ring that is backed whole needs no look any more.
        self.cell.produced.ring_backed.store(if target == len { u64::MAX } else { target }, Ordering::Relaxed);
        Ok(())
    }

    /// What the dead owner of `plock` left; to be repeated if its repairer dies.
    #[cold]
    fn repair_put(&self) -> Result<(), Error> {
        let produced = &self.cell.produced;
        let Some(block) = BlockId::from_word(produced.putting.load(Ordering::Relaxed)) else { return Ok(()) };
        match self.arena().block_state(block)? {
            state @ BlockState::Queue { queue, seq } if queue == self.index() && seq == self.tail().seq() => {
                self.arena().free_if(block, state)?;
            }
            state @ BlockState::Object(queue)
                if queue == self.index() && self.cell.ring.load(Ordering::Relaxed) != block.raw() =>
            {
                self.arena().free_if(block, state)?;
            }
            _ => {}
        }
        crash::point("put.repaired");
        produced.putting.store(0, Ordering::Relaxed);
        Ok(())
    }
}
