//! Getting: copy the record to private memory, or make its block one's own, then store the head.
//!
//! A small message takes a short way ([`Ring::get_usual`]) through the same steps: copied, noted in `hands`, committed, wake.
//!
//! | dies | left behind | who repairs, how |
//! |---|---|---|
//! | waiting for `clock`, or for data | nothing; `clock` with a dead owner | the kernel wakes the next |
//! | copying, before the commit | the message, still in the ring; perhaps its block in state `Taken(slot)`, a note in `hands` | the next getter undoes both |
//! | after the commit, before the caller has it | one message in dead hands, as `hands` says | the cleaner counts it as lost and frees its block |
//! | taking a returned lease, before it is acknowledged | the lease, the dead process's | the cleaner: delivered again |
//! | after the commit, before the wake | room, a sleeping putter | the kernel wakes it: `pw` is pending |
//! | after the commit of the last message, before the wake | joiners asleep | the cleaner: see [`super::join`] |
//! | having cleared `attention` | returned leases that nobody looks for | the next getter finds `OWNER_DIED` and looks |

use super::bytes::Form;
use super::cell::{CLOSED, End, NO_SENDER};
use super::hands::InHand;
use super::lease::{Leased, Returned};
use super::usual::First;
use super::{GaveUp, Patience, Ring, Usual, dead};
use crate::error::GetError;
use crate::message::Arrival;
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::notes::Op;
use multiproc_shm::raw::{Acquired, Who};
use multiproc_shm::scope::References;
use multiproc_shm::{Error, record};
use multiproc_sys::clock::Deadline;
use multiproc_sys::crash;
use std::sync::atomic::Ordering;

/// What stands first for delivery.
pub(crate) enum Next {
    /// A lease that came back.
    Returned(Leased),
    /// The first record of the ring.
    Ring(First),
}

impl Ring {
    /// Takes the next message if that is short: copies its payload to `into`, padded to words, and gives its length. It is in this thread's hand until
    /// it is handed over.
    #[inline]
    pub(crate) fn get_usual(&self, who: Who, into: &mut [u64]) -> Usual<(usize, InHand)> {
        let Some(bytes) = self.place.get() else { return Usual::Not };
        let note = |seq| {
            self.note_in_hand(seq, 1);
            self.in_hand()
        };
        self.cell.get_usual(who, self.arena(), *bytes, into, note, || self.tell_joiners(who))
    }

    /// Takes the next message, with or without having `clock`.
    #[inline(never)]
    pub(crate) fn get(&self, who: Who, arrival: &mut Arrival, patience: Patience, locked: bool) -> Result<(), GetError> {
        let mut returned = None;
        let found = if locked { Acquired::Clean } else { self.take_getter(who, patience)? };
        self.with_getter(who, found, |who| match self.await_next(patience)? {
            Next::Ring(first) => self.take_first(who, first, arrival),
            Next::Returned(leased) => {
                arrival.references = self.take_returned(&leased)?;
                returned = Some(leased.block);
                Ok(())
            }
        })?;
        if let Some(block) = returned {
            // Ours by state: read without a lock, and freed when it has been decoded.
            self.acknowledge_if_leased(block)?;
            arrival.in_block(block);
            crash::point("get.acknowledged");
        }
        if !arrival.references.is_empty() {
            record::arrived(self.arena(), &arrival.references)?;
        }
        Ok(())
    }

    /// Waits for a message and calls `body` with it under `clock`.
    pub(crate) fn with_next<R>(
        &self,
        patience: Patience,
        body: impl FnOnce(Who, Next) -> Result<R, GetError>,
    ) -> Result<R, GetError> {
        self.as_getter(patience, |who| body(who, self.await_next(patience)?))
    }

    /// Runs `body` as the one getter, after what a dead one left has been repaired.
    #[inline]
    fn as_getter<R>(&self, patience: Patience, body: impl FnOnce(Who) -> Result<R, GetError>) -> Result<R, GetError> {
        let who = self.arena().who()?;
        let found = self.take_getter(who, patience)?;
        self.with_getter(who, found, body)
    }

    fn take_getter(&self, who: Who, patience: Patience) -> Result<Acquired, GetError> {
        self.take(Op::Get, &self.cell.clock, who, patience, || self.can_get()).map_err(|why| self.get_failed(why))
    }

    /// The rest of [`as_getter`](Ring::as_getter), from when the lock has been taken.
    fn with_getter<R>(&self, who: Who, found: Acquired, body: impl FnOnce(Who) -> Result<R, GetError>) -> Result<R, GetError> {
        let repaired = if found == Acquired::OwnerDied { self.repair_get() } else { Ok(()) };
        let done = repaired.map_err(GetError::from).and_then(|()| body(who));
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

    /// Whether `get` would not wait. Unlike [`can_get`](Ring::can_get) it looks behind `attention`, which may be raised for nothing.
    pub(crate) fn would_get(&self) -> bool {
        self.tail() != self.head()
            || self.ended() & (CLOSED | NO_SENDER) != 0
            || self.cell.attention.load(Ordering::Acquire) != 0
                && !matches!(self.oldest_returned(false), Ok(Returned { count: 0, .. }))
    }

    /// Whether there is certainly nothing to get.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        let cell = self.cell;
        // Relaxed: who sleeps for it looks again by `would_get`.
        let (tail, head) = (cell.produced.tail.load(Ordering::Relaxed), cell.consumed.head.load(Ordering::Relaxed));
        tail == head && cell.ended.load(Ordering::Relaxed) | cell.attention.load(Ordering::Relaxed) == 0
    }

    /// Waits until there is something to get, or `stop` is true.
    pub(crate) fn await_message(&self, deadline: Option<Deadline>, stop: impl Fn() -> bool) -> Result<(), GetError> {
        self.as_getter(Patience::Until(deadline), |_| {
            self.wait(Op::Get, &self.cell.produced.cw, deadline, || self.can_get() || stop()).map_err(|why| self.get_failed(why))
        })
    }

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
            if let Some(first) = self.first_in_ring()? {
                return Ok(Next::Ring(first));
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

    /// The first record of the ring, if there is one.
    #[inline]
    pub(crate) fn first_in_ring(&self) -> Result<Option<First>, Error> {
        self.record_at(self.head())
    }

    /// The record at `at`, which is the head or the end of a record behind it; `None` at the tail.
    #[inline]
    pub(crate) fn record_at(&self, at: End) -> Result<Option<First>, Error> {
        self.cell.record_at(self.arena(), at, || self.bytes())
    }

    #[inline]
    fn take_first(&self, who: Who, first: First, arrival: &mut Arrival) -> Result<(), GetError> {
        let First { bytes, at, head } = first;
        let block = match head.form() {
            Form::Inline => {
                bytes.read_payload(self.arena(), at, head, arrival.bytes())?;
                if head.references() > 0 {
                    arrival.references = self.adopt_inline(first)?;
                }
                None
            }
            Form::Block => {
                let (block, references) = self.take_block(first)?;
                arrival.references = references;
                Some(block)
            }
        };
        crash::point("get.copied");
        self.note_in_hand(at.seq(), 1);
        crash::point("get.in_hand");
        self.commit_get(who, at, first.end(), self.volume_of(first));
        if let Some(block) = block {
            // Ours by state and out of the ring.
            arrival.in_block(block);
            self.cell.consumed.end_taking();
        }
        Ok(())
    }

    /// Makes the first record's block this process's own; it is taken with the commit.
    pub(crate) fn take_block(&self, first: First) -> Result<(BlockId, References), Error> {
        let block = self.block_of(first)?;
        // First what may fail.
        let references = record::adopt(self.arena(), block)?;
        self.cell.consumed.begin_taking(block, first.at.seq());
        crash::point("get.named");
        let mine = BlockState::Taken { slot: self.arena().my_slot(), queue: self.index(), seq: first.at.seq() };
        self.arena().set_block_state(block, mine)?;
        crash::point("get.block_taken");
        Ok((block, references))
    }

    /// Bytes of the first record's payload, where they are counted.
    #[inline]
    pub(crate) fn volume_of(&self, first: First) -> u64 {
        match (self.max_bytes(), first.head.form()) {
            (0, _) => 0,
            (_, Form::Inline) => first.head.len(),
            (_, Form::Block) => {
                let block = first.bytes.payload_word(self.arena(), first.at).ok().and_then(BlockId::from_word);
                block.and_then(|block| record::head(self.arena(), block).ok()).map_or(0, |head| head.len)
            }
        }
    }

    /// The commit of everything between `head` and `end`, which has `volume` bytes of payload.
    #[inline]
    pub(crate) fn commit_get(&self, who: Who, head: End, end: End, volume: u64) {
        let consumed = &self.cell.consumed;
        if self.max_bytes() != 0 {
            consumed.got_bytes.prepare(head, end, volume);
        }
        crash::point("get.before_commit");
        consumed.pw.commit_and_kick_lightly(who.thread, || end.store(&consumed.head));
        crash::point("get.kicked");
        if self.cell.max_attempts.load(Ordering::Relaxed) != 0 && self.ended() != 0 {
            // Who waits for dead letters waits for the queue to be drained as well.
            dead::raise(self.cell, who, || {});
        }
        self.tell_joiners(who);
        self.left_behind(head, end);
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
        self.free_segments()?;
        self.cell.attention.store(1, Ordering::Release);
        Ok(())
    }
}
