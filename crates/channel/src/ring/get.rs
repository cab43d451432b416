//! Getting: copy the record to private memory, or make its block one's own, then store the head.
//!
//! | dies | left behind | who repairs, how |
//! |---|---|---|
//! | waiting for `clock`, or for data | nothing; `clock` with a dead owner | the kernel wakes the next |
//! | copying, before the commit | the message, still in the ring; perhaps its block in state `Taken(slot)`, a note in `hands` | the next getter undoes both |
//! | after the commit, before the caller has it | one message in dead hands, as `hands` says | the cleaner counts it as lost and frees its block |
//! | taking a returned lease, before it is acknowledged | the lease, the dead process's | the cleaner: delivered again |
//! | after the commit, before the wake | room, a sleeping putter | the kernel wakes it: `pw` is pending |
//! | having cleared `attention` | returned leases that nobody looks for | the next getter finds `OWNER_DIED` and looks |

use super::bytes::{Form, Head};
use super::cell::{CLOSED, End, NO_SENDER};
use super::lease::Leased;
use super::{Bytes, GaveUp, Patience, Ring};
use crate::error::GetError;
use crate::message::Arrival;
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::notes::Op;
use multiproc_shm::raw::{Acquired, Who};
use multiproc_shm::roster::HANDS;
use multiproc_shm::scope::References;
use multiproc_shm::{Error, record};
use multiproc_sys::crash;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The first record of the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct First {
    pub(crate) bytes: Bytes,
    pub(crate) at: End,
    pub(crate) head: Head,
}

/// What stands first for delivery.
pub(crate) enum Next {
    /// A lease that came back.
    Returned(Leased),
    /// The first record of the ring.
    Ring(First),
}

impl Ring {
    /// Takes the next message.
    #[inline]
    pub(crate) fn get(&self, arrival: &mut Arrival, patience: Patience) -> Result<(), GetError> {
        let who = self.arena().who()?;
        let block = self.with_next(who, patience, |next| match next {
            Next::Ring(first) => self.take_first(who, first, arrival),
            Next::Returned(leased) => {
                arrival.references = self.take_returned(&leased)?;
                Ok(Some(leased.block))
            }
        })?;
        if let Some(block) = block {
            // Ours by state and out of the ring: read without a lock, and freed when it has been decoded.
            self.acknowledge_if_leased(block)?;
            arrival.in_block(block);
            crash::point("get.acknowledged");
        }
        record::arrived(self.arena(), &arrival.references)?;
        Ok(())
    }

    /// Waits for a message and calls `body` with it under `clock`.
    #[inline]
    pub(crate) fn with_next<R>(
        &self,
        who: Who,
        patience: Patience,
        body: impl FnOnce(Next) -> Result<R, GetError>,
    ) -> Result<R, GetError> {
        let found = self.take(Op::Get, &self.cell.clock, who, patience, || self.can_get()).map_err(|why| self.get_failed(why))?;
        let done = (|| {
            if found == Acquired::OwnerDied {
                self.repair_get()?;
            }
            let next = self.await_next(patience)?;
            body(next)
        })();
        self.cell.clock.unlock(who.thread);
        done
    }

    fn get_failed(&self, why: GaveUp) -> GetError {
        match why {
            GaveUp::Failed(e) => GetError::Shared(e),
            GaveUp::TimedOut => GetError::TimedOut,
            GaveUp::Held if self.can_get() => GetError::WouldBlock,
            GaveUp::Held => GetError::Empty,
        }
    }

    #[inline]
    fn can_get(&self) -> bool {
        self.tail() != self.head() || self.ended() & (CLOSED | NO_SENDER) != 0 || self.cell.attention.load(Ordering::Acquire) != 0
    }

    #[inline]
    fn await_next(&self, patience: Patience) -> Result<Next, GetError> {
        loop {
            // Returned leases are delivered first. Acquire pairs with the Release of who returned one.
            if self.cell.attention.load(Ordering::Acquire) != 0
                && let Some(leased) = self.find_returned()?
            {
                return Ok(Next::Returned(leased));
            }
            // Read before the tail: what was put before the end is seen.
            let ended = self.ended();
            let (at, mut tail) = (self.head(), End::noted(&self.cell.consumed.tail_seen));
            // The putters' line is looked at only when everything seen there last is taken.
            if at == tail {
                tail = self.tail();
                tail.note(&self.cell.consumed.tail_seen);
            }
            if at != tail {
                let bytes = self.bytes()?.ok_or(Error::Corrupted(&"a queue without a ring"))?;
                let head = bytes.read_head(self.arena(), at, tail)?;
                return Ok(Next::Ring(First { bytes, at, head }));
            }
            if ended & CLOSED != 0 {
                return Err(GetError::Closed);
            }
            if ended & NO_SENDER != 0 {
                return Err(GetError::Disconnected);
            }
            let Patience::Until(deadline) = patience else { return Err(GetError::Empty) };
            self.wait(Op::Get, &self.cell.produced.cw, deadline, || self.can_get()).map_err(|why| self.get_failed(why))?;
        }
    }

    #[inline]
    fn take_first(&self, who: Who, first: First, arrival: &mut Arrival) -> Result<Option<BlockId>, GetError> {
        let First { bytes, at, head } = first;
        let block = match head.form() {
            Form::Inline => {
                bytes.read_payload(self.arena(), at, head, &mut arrival.bytes)?;
                if head.references() > 0 {
                    arrival.references = self.adopt_inline(first)?;
                }
                None
            }
            Form::Block => {
                let block = self.block_of(first)?;
                // First what may fail.
                arrival.references = record::adopt(self.arena(), block)?;
                self.cell.consumed.begin_taking(block, at.seq());
                crash::point("get.named");
                let mine = BlockState::Taken { slot: self.arena().my_slot(), queue: self.index(), seq: at.seq() };
                self.arena().set_block_state(block, mine)?;
                crash::point("get.block_taken");
                Some(block)
            }
        };
        crash::point("get.copied");
        self.hand()?.store(hand_word(self.index(), at.seq()), Ordering::Relaxed);
        crash::point("get.in_hand");
        self.commit_get(who, first);
        if block.is_some() {
            self.cell.consumed.end_taking();
        }
        Ok(block)
    }

    #[inline]
    pub(crate) fn commit_get(&self, who: Who, first: First) {
        let consumed = &self.cell.consumed;
        crash::point("get.before_commit");
        consumed.pw.commit_and_kick(who.thread, || first.at.after(first.head.size()).store(&consumed.head));
        crash::point("get.kicked");
    }

    /// Takes over the references of an inline record: their hold bits are set before the record goes.
    pub(crate) fn adopt_inline(&self, first: First) -> Result<References, Error> {
        let mut list = Vec::new();
        first.bytes.references(self.arena(), first.at, first.head, &mut |r| list.push(r))?;
        list.into_iter().map(|r| self.arena().adopt(r)).collect()
    }

    /// The block that the first record names, which must be this queue's and of this item.
    pub(crate) fn block_of(&self, first: First) -> Result<BlockId, Error> {
        let word = first.bytes.payload_word(self.arena(), first.at)?;
        let block = BlockId::from_word(word).ok_or(Error::Corrupted(&"a record without its block"))?;
        let named = match self.arena().block_state(block)? {
            BlockState::Queue { queue, seq } | BlockState::Taken { queue, seq, .. } | BlockState::Leased { queue, seq, .. } => {
                (queue, seq)
            }
            _ => return Err(Error::Corrupted(&"a record's block")),
        };
        if named == (self.index(), first.at.seq()) { Ok(block) } else { Err(Error::Corrupted(&"a record's block")) }
    }

    /// What the dead owner of `clock` left; to be repeated if its repairer dies.
    #[cold]
    fn repair_get(&self) -> Result<(), Error> {
        self.void_hands()?;
        crash::point("get.hands_voided");
        self.undo_taking()?;
        crash::point("get.repaired");
        self.cell.consumed.end_taking();
        crash::point("get.taking_ended");
        self.cell.attention.store(1, Ordering::Release);
        Ok(())
    }

    /// Takes back the note of whoever died with the first item in hand: it is still in the ring, and will be somebody else's.
    fn void_hands(&self) -> Result<(), Error> {
        let first = hand_word(self.index(), self.head().seq());
        for slot in 0..self.arena().slots_high() {
            for hand in &self.arena().slot(slot)?.hands {
                // Only the dead owner can have noted an item that is not taken.
                if hand.load(Ordering::Relaxed) == first {
                    // Before the next commit, with whose Release it pairs: who sees the head past the item sees no note.
                    hand.store(0, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    /// This thread's note of what it has in hand.
    #[inline]
    fn hand(&self) -> Result<&'static AtomicU64, Error> {
        let slot = self.arena().slot(self.arena().my_slot())?;
        Ok(&slot.hands[thread_number() % HANDS])
    }

    /// Notes that a message which had been leased before is in hand. It is lost with this process from when its lease is acknowledged.
    pub(crate) fn note_returned(&self, seq: u32) -> Result<(), Error> {
        self.hand()?.store(returned_hand_word(self.index(), seq), Ordering::Relaxed);
        Ok(())
    }

    /// The message has reached its caller.
    #[inline]
    pub(crate) fn hand_over(&self) {
        if let Ok(hand) = self.hand() {
            hand.store(0, Ordering::Relaxed);
        }
    }
}

/// Queue index + 1 and item number.
#[inline]
pub(crate) fn hand_word(queue: u32, seq: u32) -> u64 {
    (u64::from(queue) + 1) << 24 | u64::from(seq)
}

/// The same for an item that came back from a lease.
pub(crate) fn returned_hand_word(queue: u32, seq: u32) -> u64 {
    hand_word(queue, seq) | 1 << 63
}

#[inline]
fn thread_number() -> usize {
    static THREADS: AtomicU32 = AtomicU32::new(0);
    thread_local! { static NUMBER: Cell<u32> = const { Cell::new(u32::MAX) }; }
    if NUMBER.get() == u32::MAX {
        NUMBER.set(THREADS.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.get() as usize
}
