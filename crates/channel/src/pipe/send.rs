//! Sending: write the record where nobody looks, clear the word behind it, then store its head, which is the commit.
//!
//! | dies | left behind | who repairs, how |
//! |---|---|---|
//! | waiting for its turn or for room | an end whose user is dead | those at the other end watch its life word |
//! | making the ring | a block `Filling(slot)`, or one that `putting` names | the cleaner of the slot |
//! | writing the record | bytes behind an uncommitted head | nobody: the next sender writes over them |
//! | with a block in state `Queue(seq)`, before the commit | that block, named by `putting`; `seq == seq(tail)` and no head there | the cleaner frees it |
//! | after the commit, before the wake | a message, a sleeping receiver | the kernel wakes it: `cw` is pending |
//! | before `tail` is noted | a `tail` one record too low | the next user of the end looks for itself |

use super::builder::{MAX_RING, MIN_RING};
use super::cell::CLOSED;
use super::error::{Refused, SendFailed};
use super::local::{Local, Peer};
use super::record::{Form, Head, RESERVE, Ring, position, seq};
use super::turn::NotMine;
use crate::message::Parcel;
use crate::ring::Patience;
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::notes::Op;
use multiproc_shm::raw::Who;
use multiproc_shm::{Error, record};
use multiproc_sys::{crash, spin};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// How far in front of the record that is written lines are asked for: as far as a line takes to come.
const AHEAD: u64 = 512;
const LINE: u64 = 64;
const FIRST_BACKING: u64 = 4096;
/// Large messages wait when so many bytes of them are on their way, as small ones wait for room in the ring. One may always go.
const BLOCK_BYTES: u64 = 64 << 20;

impl Local {
    /// Sends an encoded message as a record of that form.
    #[inline]
    pub(crate) fn send(&self, parcel: &mut Parcel, form: Form, patience: Patience) -> Result<(), SendFailed> {
        let who = self.arena().who()?;
        // A large message has its block before the turn is taken.
        let block = if parcel.inline().is_some() { None } else { Some(parcel.block()?) };
        let _mine = self.sending.turn.take(who.thread.tid(), patience)?;
        self.claimed(who, patience)?;
        let ring = match self.sending.ring.get() {
            Some(ring) => ring,
            None => self.make_ring()?,
        };
        let head = match block {
            None => {
                let len = parcel.inline().map_or(0, <[u8]>::len);
                Head::new(form, len as u32, parcel.references().len() as u16)
            }
            Some(_) => Head::new(form.as_block(), 8, 0),
        };
        // Relaxed: written by the senders of this process, by turns.
        let tail = position(self.sent().tail.load(Ordering::Relaxed))?;
        let need = head.size() + RESERVE;
        let mut head_needed = (tail + need).saturating_sub(ring.len);
        if let Some(block) = block {
            head_needed = head_needed.max(self.head_for_block(block)?);
        }
        if self.sending.head_seen.load(Ordering::Relaxed) < head_needed {
            self.await_head(tail, head_needed, patience)?;
        }
        self.can_send()?;
        self.back_ring(ring, tail + need)?;
        self.write(who, ring, tail, head, parcel, block)?;
        self.ask_for_lines(ring, tail, head);
        self.note_asked();
        Ok(())
    }

    /// Asks for the lines that the next records will be written to, so that they are here when they are needed: what is stored there else waits for
    /// the other processor, and with it all that is stored later.
    #[inline]
    fn ask_for_lines(&self, ring: &Ring, tail: u64, head: Head) {
        let from = tail + AHEAD;
        // Not those that the receiver is still to read.
        if from + 2 * LINE <= self.sending.head_seen.load(Ordering::Relaxed) + ring.len {
            ring.will_write(from);
            if head.size() > LINE {
                ring.will_write(from + LINE);
            }
        }
    }

    #[inline]
    fn can_send(&self) -> Result<(), SendFailed> {
        if self.own().flags() & CLOSED != 0 {
            return Err(SendFailed::Closed);
        }
        match self.peer()? {
            Peer::Alive(_) | Peer::Nobody => Ok(()),
            Peer::Ended => Err(SendFailed::BrokenPipe(None)),
            Peer::Dead(pid) => Err(SendFailed::BrokenPipe(Some(pid))),
        }
    }

    /// Waits until the receiver has come to a position.
    #[cold]
    fn await_head(&self, tail: u64, needed: u64, patience: Patience) -> Result<(), SendFailed> {
        let received = self.cell.received(self.end);
        loop {
            // Acquire pairs with the Release of the receiver: the room is there.
            let head = received.head.load(Ordering::Acquire);
            if head > tail {
                return Err(Error::Corrupted(&"a pipe's ends").into());
            }
            self.sending.head_seen.store(head, Ordering::Relaxed);
            if head >= needed {
                return Ok(());
            }
            self.can_send()?;
            let Patience::Until(deadline) = patience else { return Err(SendFailed::WouldBlock) };
            // One at the receiver's heels would take the lines from it that it is about to read.
            spin::pause();
            if !self.wait(Op::Send, &received.pw, deadline, || received.head.load(Ordering::Acquire) >= needed)? {
                return Err(SendFailed::TimedOut);
            }
        }
    }

    /// How far the receiver must have come for one more large message to go.
    #[cold]
    fn head_for_block(&self, block: BlockId) -> Result<u64, Error> {
        let head = self.cell.received(self.end).head.load(Ordering::Acquire);
        let mut blocks = self.sending.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        while blocks.front().is_some_and(|(at, _)| *at < head) {
            blocks.pop_front();
        }
        let mut bytes = record::head(self.arena(), block)?.len + blocks.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let mut needed = 0;
        for (at, taken) in blocks.iter() {
            if bytes <= BLOCK_BYTES {
                break;
            }
            needed = at + 1;
            bytes -= taken;
        }
        Ok(needed)
    }

    #[inline]
    fn write(&self, who: Who, ring: &Ring, tail: u64, head: Head, parcel: &Parcel, block: Option<BlockId>) -> Result<(), Error> {
        let references = parcel.references();
        record::announce(self.arena(), references)?;
        crash::point("pipe.announced");
        match block {
            None => {
                let payload = parcel.inline().unwrap_or_default();
                ring.write_record(self.arena(), tail, head, payload, references.iter().map(|h| h.reference()))?;
                crash::point("pipe.written");
                self.commit(who, ring, tail, head)?;
            }
            Some(block) => self.write_block(who, ring, tail, head, block)?,
        }
        if !references.is_empty() {
            record::committed(self.arena(), references)?;
        }
        crash::point("pipe.sent");
        Ok(())
    }

    #[cold]
    fn write_block(&self, who: Who, ring: &Ring, tail: u64, head: Head, block: BlockId) -> Result<(), Error> {
        let sent = self.sent();
        let bytes = record::head(self.arena(), block)?.len;
        // Relaxed: read by the cleaner after this process's end.
        sent.putting.store(block.raw(), Ordering::Relaxed);
        crash::point("pipe.named");
        self.arena().set_block_state(block, BlockState::Queue { queue: self.index(), seq: seq(self.end, tail) })?;
        crash::point("pipe.block_handed");
        ring.write_record(self.arena(), tail, head, &block.raw().to_ne_bytes(), std::iter::empty())?;
        crash::point("pipe.block_written");
        self.commit(who, ring, tail, head)?;
        sent.putting.store(0, Ordering::Relaxed);
        self.sending.blocks.lock().unwrap_or_else(PoisonError::into_inner).push_back((tail, bytes));
        Ok(())
    }

    /// Commits the record at `tail` and wakes the receiver if it sleeps.
    #[inline]
    pub(super) fn commit(&self, who: Who, ring: &Ring, tail: u64, head: Head) -> Result<(), Error> {
        self.sent().commit(who.thread, ring, tail, head)
    }

    /// The ring of the way from this end, if there is one.
    pub(super) fn find_sending_ring(&self) -> Result<Option<&Ring>, Error> {
        let ring = Ring::in_block(self.arena(), self.sent().ring.load(Ordering::Acquire))?;
        Ok(ring.map(|ring| self.sending.ring.set(ring)))
    }

    /// Makes the ring at the first send, so that a pipe that is never used costs its cell alone.
    #[cold]
    pub(super) fn make_ring(&self) -> Result<&Ring, Error> {
        let arena = self.arena();
        let sent = self.sent();
        // A constant that a peer may have written over.
        let ring_bytes = self.own().ring_bytes.load(Ordering::Relaxed);
        if !ring_bytes.is_power_of_two() || !(MIN_RING..=MAX_RING).contains(&ring_bytes) {
            return Err(Error::Corrupted(&"a pipe's ring"));
        }
        let block = arena.allocate_range(ring_bytes, FIRST_BACKING)?;
        crash::point("pipe.ring_allocated");
        let ring = Ring::new(arena, block)?;
        ring.clear(0)?;
        sent.putting.store(block.raw(), Ordering::Relaxed);
        crash::point("pipe.ring_noted");
        arena.set_block_state(block, BlockState::Object(self.index()))?;
        crash::point("pipe.ring_owned");
        sent.backed.store(FIRST_BACKING, Ordering::Relaxed);
        // Release pairs with the Acquire of who looks for the ring.
        sent.ring.store(block.raw(), Ordering::Release);
        crash::point("pipe.ring_named");
        sent.putting.store(0, Ordering::Relaxed);
        Ok(self.sending.ring.set(ring))
    }

    /// Backs the ring up to a position, on the first lap only, doubling.
    #[inline]
    pub(super) fn back_ring(&self, ring: &Ring, position: u64) -> Result<(), Error> {
        let backed = self.sent().backed.load(Ordering::Relaxed);
        if position <= backed { Ok(()) } else { self.back_more(ring, position, backed) }
    }

    #[cold]
    fn back_more(&self, ring: &Ring, position: u64, backed: u64) -> Result<(), Error> {
        let sent = self.sent();
        let Some(block) = BlockId::from_word(sent.ring.load(Ordering::Relaxed)) else { return Ok(()) };
        let target = position.max(backed.saturating_mul(2)).min(ring.len).next_multiple_of(FIRST_BACKING);
        self.arena().extend(block, target)?;
        crash::point("pipe.ring_extended");
        // A ring that is backed whole needs no look any more.
        sent.backed.store(if target == ring.len { u64::MAX } else { target }, Ordering::Relaxed);
        Ok(())
    }
}

impl From<NotMine> for SendFailed {
    fn from(why: NotMine) -> SendFailed {
        match why {
            NotMine::Taken => SendFailed::WouldBlock,
            NotMine::TimedOut => SendFailed::TimedOut,
        }
    }
}

impl From<Refused> for SendFailed {
    fn from(why: Refused) -> SendFailed {
        match why {
            Refused::InUse(pid) => SendFailed::InUse(pid),
            Refused::NotYet(why) => why.into(),
            Refused::Closed => SendFailed::Closed,
            Refused::Failed(e) => SendFailed::Shared(e),
        }
    }
}
