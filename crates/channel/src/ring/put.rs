//! Putting: write the record where nobody looks, then store the tail.
//!
//! A small message takes a short way ([`Ring::put`]) through the same steps: it has no block, so it only writes, commits and wakes.
//!
//! | dies | left behind | who repairs, how |
//! |---|---|---|
//! | waiting for `plock`, or for room | nothing; `plock` with a dead owner | the kernel wakes the next |
//! | making the ring, or a segment of it ([`super::segments`]) | a block `Filling(slot)`, or one that `putting` names | the cleaner of the slot; the next putter |
//! | writing the record, or several of a batch | bytes beyond the tail | nobody: the next put writes over them |
//! | with a block in state `Queue(seq)`, before the commit | that block, named by `putting`, `seq == tail.seq` | the next putter frees it |
//! | after the commit, before the wake | a message, or all of a run, and a sleeping getter | the kernel wakes it: `cw` is pending |
//! | after the wake | `plock` with a dead owner | the kernel wakes the next |

use super::bytes::{BLOCK_RECORD, Form, Head};
use super::cell::{CLOSED, End, NO_RECEIVER};
use super::segments::FIRST_BACKING;
use super::{Bytes, GaveUp, Patience, Ring, Usual, segments};
use crate::batch::Batch;
use crate::error::PutFailed;
use crate::message::{Load, Parcel};
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::notes::Op;
use multiproc_shm::raw::{Acquired, Who};
use multiproc_shm::{Error, Held, record};
use multiproc_sys::crash;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The ring takes this many bytes an item on average inline; beyond that messages move into blocks.
const BYTES_PER_ITEM: u64 = 128;
const MIN_RING: u64 = 16 << 10;
const MAX_USUAL_RING: u64 = 1 << 20;

#[inline]
fn inline_head(payload: &[u8], references: &[Arc<Held>]) -> Head {
    Head::new(Form::Inline, payload.len() as u32, references.len() as u16)
}

#[inline]
fn block_head() -> Head {
    Head::new(Form::Block, 8, 0)
}

#[inline]
fn record_head(load: &impl Load, as_block: bool) -> Head {
    match load.inline() {
        Some(payload) if !as_block => inline_head(payload, load.references()),
        _ => block_head(),
    }
}

impl Ring {
    /// Puts an encoded message.
    #[inline]
    pub(crate) fn put(&self, parcel: &mut Parcel, patience: Patience) -> Result<(), PutFailed> {
        let who = self.arena().who()?;
        match self.put_usual(who, parcel) {
            Usual::Done(()) => Ok(()),
            short => self.put_any(who, parcel, patience, matches!(short, Usual::Locked)),
        }
    }

    #[inline]
    fn put_usual(&self, who: Who, parcel: &Parcel) -> Usual<()> {
        let (Some(payload), Some(ring)) = (parcel.plain(), self.place.get().and_then(|bytes| bytes.piece())) else {
            return Usual::Not;
        };
        self.cell.put_usual(who, ring, payload)
    }

    /// Puts whatever message, with or without having `plock`.
    #[inline(never)]
    fn put_any(&self, who: Who, parcel: &mut Parcel, patience: Patience, locked: bool) -> Result<(), PutFailed> {
        // A large message has its block before the lock is taken.
        if parcel.inline().is_none() {
            parcel.block()?;
        }
        let size = parcel.size();
        let found = if locked { Acquired::Clean } else { self.take_putter(who, size, patience)? };
        self.with_putter(who, found, |who| {
            self.await_room(size, patience)?;
            let (bytes, tail) = (self.made_bytes()?, self.tail());
            let as_block = self.must_be_block(bytes, tail, parcel)?;
            self.await_segments(bytes, tail.position() + record_head(parcel, as_block).size(), patience)?;
            let end = self.write(bytes, tail, parcel, as_block)?;
            self.commit_put(who, tail, end, size);
            self.told(parcel.references())?;
            if as_block {
                self.cell.produced.putting.store(0, Ordering::Relaxed);
            }
            Ok(())
        })
    }

    /// Puts the messages of a batch in order, as far as it comes; tells how many.
    pub(crate) fn put_batch<T>(&self, batch: &mut Batch<T>, patience: Patience) -> (usize, Result<(), PutFailed>) {
        let mut done = 0;
        let size = batch.at(self.arena(), 0).map_or(0, |load| load.size());
        let put = self.as_putter(size, patience, |who| {
            while done < batch.len() {
                done += self.put_run(who, batch, done, patience)?;
            }
            Ok(())
        });
        (done, put)
    }

    /// Puts messages from `from` on with one commit: those that fit, up to one that lies in a block, since `putting` names one block. Waits for
    /// room for the first.
    fn put_run<T>(&self, who: Who, batch: &mut Batch<T>, from: usize, patience: Patience) -> Result<usize, PutFailed> {
        let arena = self.arena();
        let first = batch.at(arena, from).map_or(0, |load| load.size());
        self.await_room(first, patience)?;
        let (bytes, tail) = (self.made_bytes()?, self.tail());
        let (mut end, mut volume, mut as_block, mut count) = (tail, 0, false, 0);
        while let Some(mut load) = batch.at(arena, from + count) {
            if count > 0 && !self.has_room(end, volume + load.size()) {
                break;
            }
            let written = self.must_be_block(bytes, end, &load).map_err(PutFailed::from).and_then(|block| {
                as_block = block;
                if block && count > 0 {
                    return Ok(end);
                }
                let patience = if count == 0 { patience } else { Patience::None };
                self.await_segments(bytes, end.position() + record_head(&load, block).size(), patience)?;
                Ok(self.write(bytes, end, &mut load, block)?)
            });
            match written {
                Ok(next) if next != end => (end, volume, count) = (next, volume + load.size(), count + 1),
                Err(e) if count == 0 => return Err(e),
                // What is written already is put; the next run meets the trouble again.
                Ok(_) | Err(_) => {
                    as_block = false;
                    break;
                }
            }
            if as_block {
                break;
            }
        }
        self.commit_put(who, tail, end, volume);
        crash::point("put_many.committed");
        for place in from..from + count {
            if let Some(load) = batch.at(arena, place) {
                self.told(load.references())?;
            }
        }
        if as_block {
            self.cell.produced.putting.store(0, Ordering::Relaxed);
        }
        Ok(count)
    }

    /// Runs `body` as the one putter, after what a dead one left has been repaired.
    #[inline]
    fn as_putter<R>(
        &self,
        size: u64,
        patience: Patience,
        body: impl FnOnce(Who) -> Result<R, PutFailed>,
    ) -> Result<R, PutFailed> {
        let who = self.arena().who()?;
        let found = self.take_putter(who, size, patience)?;
        self.with_putter(who, found, body)
    }

    fn take_putter(&self, who: Who, size: u64, patience: Patience) -> Result<Acquired, PutFailed> {
        self.take(Op::Put, &self.cell.plock, who, patience, || self.can_put(size)).map_err(|why| self.put_failed(why, size))
    }

    /// The rest of [`as_putter`](Ring::as_putter), from when the lock has been taken.
    fn with_putter<R>(&self, who: Who, found: Acquired, body: impl FnOnce(Who) -> Result<R, PutFailed>) -> Result<R, PutFailed> {
        let repaired = if found == Acquired::OwnerDied { self.repair_put() } else { Ok(()) };
        let done = repaired.map_err(PutFailed::from).and_then(|()| body(who));
        self.cell.plock.unlock(who.thread);
        done
    }

    fn put_failed(&self, why: GaveUp, size: u64) -> PutFailed {
        match why {
            GaveUp::Failed(e) => PutFailed::Shared(e),
            GaveUp::TimedOut => PutFailed::TimedOut,
            GaveUp::Held if !self.has_room(self.tail(), size) => PutFailed::Full,
            GaveUp::Held => PutFailed::WouldBlock,
        }
    }

    #[inline]
    fn can_put(&self, size: u64) -> bool {
        self.has_room(self.tail(), size) || self.ended() & (CLOSED | NO_RECEIVER) != 0
    }

    /// Whether both bounds allow one item more behind `end`, which may lie beyond the tail, with `size` bytes from the tail on.
    fn has_room(&self, end: End, size: u64) -> bool {
        loop {
            // Read again, so that it belongs to the tail if `end` was that.
            let head = self.head();
            let room = end.items_since(head) < self.capacity() && self.has_volume(head, size);
            if self.head() == head {
                return room;
            }
        }
    }

    /// Whether the byte limit, if there is one, allows `size` bytes more.
    #[inline]
    fn has_volume(&self, head: End, size: u64) -> bool {
        match self.max_bytes() {
            0 => true,
            max => self.volume(head).is_none_or(|waiting| waiting + size <= max),
        }
    }

    /// Whether a bound is reached.
    pub(crate) fn is_full(&self) -> bool {
        !self.has_room(self.tail(), 1)
    }

    /// Bytes that wait behind `head`; `None` when it has moved on.
    fn volume(&self, head: End) -> Option<u64> {
        self.cell.put_and_got(head).map(|(put, got)| put.bytes_since(got))
    }

    /// Whether the bounds were reached when the getters' end was last looked at.
    #[inline]
    fn looks_full(&self, size: u64) -> bool {
        let (produced, tail) = (&self.cell.produced, self.tail());
        if tail.items_since(End::noted(&produced.head_seen)) >= self.capacity() {
            return true;
        }
        match self.max_bytes() {
            0 => false,
            max => produced.put_bytes.at(tail).is_none_or(|put| put.bytes_since(End::noted(&produced.got_seen)) + size > max),
        }
    }

    /// Waits until the bounds allow one item more. Looks at the getters' line only when what was seen there last looks full.
    #[inline]
    fn await_room(&self, size: u64, patience: Patience) -> Result<(), PutFailed> {
        if self.looks_full(size) {
            if !self.can_put(size) {
                let deadline = match patience {
                    Patience::Until(deadline) if !self.fails_when_full() => deadline,
                    _ => return Err(PutFailed::Full),
                };
                let waited = self.wait(Op::Put, &self.cell.consumed.pw, deadline, || self.can_put(size));
                waited.map_err(|why| self.put_failed(why, size))?;
            }
            let head = self.head();
            head.note(&self.cell.produced.head_seen);
            // Of a head that has moved on the count is not known; the next put looks again.
            if self.max_bytes() != 0
                && let Some(got) = self.cell.consumed.got_bytes.at(head)
            {
                got.note(&self.cell.produced.got_seen);
            }
        }
        self.has_not_ended()
    }

    #[inline]
    fn has_not_ended(&self) -> Result<(), PutFailed> {
        match self.ended() {
            e if e & CLOSED != 0 => Err(PutFailed::Closed),
            e if e & NO_RECEIVER != 0 => Err(PutFailed::Disconnected),
            _ => Ok(()),
        }
    }

    /// Waits until the table has room for the segments below a position. What the bounds allow finds room, unless getters that have left segments behind have not
    /// freed them yet, or have died over it: then the next ones do.
    #[inline]
    fn await_segments(&self, bytes: Bytes, position: u64, patience: Patience) -> Result<(), PutFailed> {
        if bytes.segment_bits == 0 || self.has_segments_for(bytes, position) {
            return Ok(());
        }
        let deadline = match patience {
            Patience::Until(deadline) if !self.fails_when_full() => deadline,
            _ => return Err(PutFailed::Full),
        };
        let ready = || self.has_segments_for(bytes, position) || self.has_not_ended().is_err();
        self.wait(Op::Put, &self.cell.consumed.pw, deadline, ready).map_err(|why| match why {
            GaveUp::Failed(e) => PutFailed::Shared(e),
            _ => PutFailed::TimedOut,
        })?;
        self.has_not_ended()
    }

    #[inline]
    fn made_bytes(&self) -> Result<Bytes, Error> {
        match self.bytes()? {
            Some(bytes) => Ok(bytes),
            None => self.make_ring(),
        }
    }

    /// Whether the message lies in a block, or has to: because the ring has no room for its bytes.
    #[inline]
    fn must_be_block(&self, bytes: Bytes, at: End, load: &impl Load) -> Result<bool, Error> {
        let fits = |size: u64, head: End| {
            // Every item that the bound still allows keeps room for its block record: bytes never hold up what items allow.
            let left = u64::from(self.capacity().saturating_sub(at.items_since(head) + 1)) * BLOCK_RECORD;
            at.bytes_since(head) + size + left <= bytes.room()
        };
        let fits_now = |size: u64| {
            fits(size, End::noted(&self.cell.produced.head_seen)) || {
                let head = self.head();
                head.note(&self.cell.produced.head_seen);
                fits(size, head)
            }
        };
        match load.inline() {
            Some(payload) if fits_now(inline_head(payload, load.references()).size()) => Ok(false),
            _ if fits_now(block_head().size()) => Ok(true),
            _ => Err(Error::Corrupted(&"a queue's ends")),
        }
    }

    /// Writes a record at `at`, which is the tail or, of a run without blocks, beyond it; gives where it ends. Nobody looks there before the commit.
    #[inline]
    fn write(&self, bytes: Bytes, at: End, load: &mut impl Load, as_block: bool) -> Result<End, Error> {
        let record = record_head(load, as_block);
        self.back_ring(bytes, at.position() + record.size())?;
        let block = if as_block { Some(load.block()?) } else { None };
        let references = load.references();
        record::announce(self.arena(), references)?;
        crash::point("put.announced");
        match block {
            None => {
                let payload = load.inline().unwrap_or_default();
                bytes.write_record(self.arena(), at, record, payload, references.iter().map(|h| h.reference()))?;
            }
            Some(block) => {
                let name = block.raw().to_ne_bytes();
                self.cell.produced.putting.store(block.raw(), Ordering::Relaxed);
                crash::point("put.named");
                self.arena().set_block_state(block, BlockState::Queue { queue: self.index(), seq: at.seq() })?;
                crash::point("put.block_handed");
                bytes.write_record(self.arena(), at, record, &name, iter::empty())?;
            }
        }
        crash::point("put.written");
        Ok(at.after(record.size()))
    }

    /// The commit of everything between `tail` and `end`, which has `volume` bytes of payload.
    #[inline]
    fn commit_put(&self, who: Who, tail: End, end: End, volume: u64) {
        let produced = &self.cell.produced;
        if self.max_bytes() != 0 {
            produced.put_bytes.prepare(tail, end, volume);
            crash::point("put.counted");
        }
        produced.cw.commit_and_kick_lightly(who.thread, || end.store(&produced.tail));
        crash::point("put.kicked");
    }

    #[inline]
    fn told(&self, references: &[Arc<Held>]) -> Result<(), Error> {
        if references.is_empty() { Ok(()) } else { record::committed(self.arena(), references) }
    }

    /// Makes the ring at the first put, so that a queue that is never used costs its cell alone.
    #[cold]
    fn make_ring(&self) -> Result<Bytes, Error> {
        let capacity = u64::from(self.capacity());
        let segment_bits = self.cell.segment_bits()?;
        let wanted = match segment_bits {
            0 => (capacity * BYTES_PER_ITEM).min(MAX_USUAL_RING).max(capacity * BLOCK_RECORD * 2).max(MIN_RING),
            bits => segments::table_size(capacity, self.max_bytes(), bits),
        };
        // The address range of a block is a power of two; only its first page is backed now.
        let block = self.arena().allocate_range(wanted.next_power_of_two(), FIRST_BACKING)?;
        crash::point("put.ring_allocated");
        self.cell.produced.putting.store(block.raw(), Ordering::Relaxed);
        self.arena().set_block_state(block, BlockState::Object(self.index()))?;
        crash::point("put.ring_owned");
        let backed = if segment_bits == 0 { FIRST_BACKING } else { self.tail().position() };
        self.cell.produced.ring_backed.store(backed, Ordering::Relaxed);
        // Release pairs with the Acquire in `bytes_of`.
        self.cell.ring.store(block.raw(), Ordering::Release);
        crash::point("put.ring_named");
        self.cell.produced.putting.store(0, Ordering::Relaxed);
        self.bytes()?.ok_or(Error::Corrupted(&"a queue's ring"))
    }

    /// Backs the ring up to a position, on the first lap only, doubling.
    #[inline]
    fn back_ring(&self, bytes: Bytes, position: u64) -> Result<(), Error> {
        if bytes.segment_bits != 0 {
            return self.back_segments(bytes, position);
        }
        let backed = self.cell.produced.ring_backed.load(Ordering::Relaxed);
        if position <= backed { Ok(()) } else { self.back_more(position, backed) }
    }

    #[cold]
    fn back_more(&self, position: u64, backed: u64) -> Result<(), Error> {
        let Some(block) = BlockId::from_word(self.cell.ring.load(Ordering::Relaxed)) else { return Ok(()) };
        let (_, len) = self.arena().range(block)?;
        let target = position.max(backed.saturating_mul(2)).min(len).next_multiple_of(FIRST_BACKING);
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
            // A ring that was not named yet. Once there is one, a block that was freed since it was named here may be the lease table.
            state @ BlockState::Object(queue) if queue == self.index() && self.cell.ring.load(Ordering::Relaxed) == 0 => {
                self.arena().free_if(block, state)?;
            }
            state @ BlockState::Segment { queue, number } if queue == self.index() && self.is_unmade(number) => {
                self.arena().free_if(block, state)?;
            }
            _ => {}
        }
        crash::point("put.repaired");
        produced.putting.store(0, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Queue;
    use crate::ring::cell::MAX_LEASES;
    use multiproc_shm::{Arena, Options};

    /// A block that was taken back is this queue's again, as something else.
    #[test]
    fn what_was_taken_back_once_is_not_taken_back_again() {
        let arena = Arena::create(&Options { size: 16 << 20, ..Options::new(0, crate::KINDS) }).unwrap();
        let queue = Queue::<u8>::builder().capacity(4).build_in(arena).unwrap();
        let ring = &queue.ring;
        queue.put(1).unwrap();
        // As who died before its commit has left it.
        let block = arena.allocate_range(u64::from(MAX_LEASES) * 8, 4096).unwrap();
        ring.cell.produced.putting.store(block.raw(), Ordering::Relaxed);
        let state = BlockState::Queue { queue: ring.index(), seq: ring.tail().seq() };
        arena.set_block_state(block, state).unwrap();
        ring.repair_put().unwrap();

        let lease = queue.lease().unwrap();
        assert_eq!(ring.cell.leases.load(Ordering::Relaxed), block.raw(), "the lease table is made of what was freed last");
        // Another dies with `plock`, and has named nothing.
        ring.repair_put().unwrap();
        assert_eq!(arena.block_state(block).unwrap(), BlockState::Object(ring.index()));
        assert_eq!(lease.ack(), 1);
    }
}
