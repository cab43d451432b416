//! Receiving: copy the record to private memory, then store the head, which is the commit.
//!
//! | dies | left behind | who repairs, how |
//! |---|---|---|
//! | waiting for its turn or for a message | an end whose user is dead | those at the other end watch its life word |
//! | copying, before the commit | the message, still in the ring; perhaps its block in state `Taken(slot)` | the cleaner makes it `Queue` again, or the next user of the end takes it as it is |
//! | after the commit, before the caller has it | one message in dead hands; its block in state `Taken(slot)` | lost; the cleaner frees the block |
//! | after the commit, before the wake | room, perhaps a sleeping sender | the kernel wakes it: `pw` is pending |
//!
//! A sleeping sender is told of room each quarter of the ring and after each large message, not after each message: the look whether it sleeps
//! costs as much as receiving. A sender that sleeps needs less than half of the ring, so it is told before the ring is empty.

use super::cell::CLOSED;
use super::error::{RecvError, Refused};
use super::local::{Local, Peer};
use super::record::{Form, Head, Ring, position, seq};
use super::turn::NotMine;
use crate::codec::CodecError;
use crate::message::Arrival;
use crate::ring::Patience;
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::notes::Op;
use multiproc_shm::raw::Who;
use multiproc_shm::{Error, record};
use multiproc_sys::{crash, spin};
use std::sync::atomic::Ordering;

const LINE: u64 = 64;

/// So many bytes received since the last wait are a stream.
const STREAM: u64 = 512;

/// The first record.
#[derive(Clone, Copy, Debug)]
struct First<'a> {
    ring: &'a Ring,
    at: u64,
    head: Head,
}

impl Local {
    /// Takes the next message, which must be a value or bytes as `wanted` says.
    #[inline]
    pub(crate) fn recv(&self, arrival: &mut Arrival, wanted: Form, patience: Patience) -> Result<(), RecvError> {
        let who = self.arena().who()?;
        let form = {
            let _mine = self.receiving.turn.take(who.thread.tid(), patience)?;
            self.claimed(who, patience)?;
            let first = match self.first()? {
                Some(first) => first,
                None => self.await_first(patience)?,
            };
            self.take(who, first, arrival)?
        };
        if !arrival.references.is_empty() {
            record::arrived(self.arena(), &arrival.references)?;
        }
        if form == wanted || form == wanted.as_block() { Ok(()) } else { Err(unlike(form)) }
    }

    /// Whether `recv` would return at once, with a message or the news that none will come.
    pub(crate) fn poll(&self, patience: Patience) -> Result<bool, RecvError> {
        let who = self.arena().who()?;
        let looked = self.receiving.turn.take(who.thread.tid(), patience).map_err(RecvError::from).and_then(|_mine| {
            self.claimed(who, patience)?;
            self.await_first(patience)
        });
        match looked {
            Ok(_) | Err(RecvError::Eof | RecvError::PeerDied { .. }) => Ok(true),
            Err(RecvError::TimedOut | RecvError::WouldBlock) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Whether `recv` would not wait, also because it would fail. For any thread, whoever has the turn; claims the end, if nobody else is about to.
    pub(super) fn would_recv(&self) -> bool {
        if !self.is_claimed() {
            let Ok(who) = self.arena().who() else { return true };
            let turn = self.receiving.turn.take(who.thread.tid(), Patience::None);
            match turn.map(|_mine| self.claimed(who, Patience::None)) {
                Ok(Ok(())) | Err(_) => {}
                // Who cleans up after its last user tells.
                Ok(Err(Refused::NotYet(_))) => return false,
                Ok(Err(_)) => return true,
            }
        }
        // Asked first: what was sent before the end is seen.
        let peer = self.peer();
        self.has_first().unwrap_or(true) || self.own().flags() & CLOSED != 0 || !matches!(peer, Ok(Peer::Nobody | Peer::Alive(_)))
    }

    /// Whether there is a message, for who has not the turn.
    fn has_first(&self) -> Result<bool, Error> {
        // Acquire pairs with the Release in `make_ring`.
        let Some(ring) = Ring::in_block(self.arena(), self.cell.sent(self.way_in()).ring.load(Ordering::Acquire))? else {
            return Ok(false);
        };
        let head = &self.cell.received(self.way_in()).head;
        loop {
            // Acquire pairs with the Release in `commit_taking`.
            let at = head.load(Ordering::Acquire);
            let first = position(at).and_then(|at| ring.head(at));
            // Else it may have been read when the message was gone.
            if head.load(Ordering::Acquire) == at {
                return first.map(|first| first.is_some());
            }
        }
    }

    #[inline]
    fn first(&self) -> Result<Option<First<'_>>, Error> {
        let ring = match self.receiving.ring.get() {
            Some(ring) => ring,
            None => match self.find_receiving_ring()? {
                Some(ring) => ring,
                None => return Ok(None),
            },
        };
        // Relaxed: written by the receivers of this process, by turns; an earlier user's was seen with the owner word.
        let at = position(self.received().head.load(Ordering::Relaxed))?;
        Ok(ring.head(at)?.map(|head| First { ring, at, head }))
    }

    #[cold]
    fn find_receiving_ring(&self) -> Result<Option<&Ring>, Error> {
        // Acquire pairs with the Release in `make_ring`.
        let ring = Ring::in_block(self.arena(), self.cell.sent(self.way_in()).ring.load(Ordering::Acquire))?;
        Ok(ring.map(|ring| self.receiving.ring.set(ring)))
    }

    #[cold]
    fn await_first(&self, patience: Patience) -> Result<First<'_>, RecvError> {
        loop {
            // Asked first: what was sent before the end is seen.
            let peer = self.peer()?;
            if let Some(first) = self.first()? {
                return Ok(first);
            }
            if self.own().flags() & CLOSED != 0 {
                return Err(RecvError::Closed);
            }
            match peer {
                Peer::Ended => return Err(RecvError::Eof),
                Peer::Dead(pid) => return Err(RecvError::PeerDied { pid }),
                Peer::Nobody | Peer::Alive(_) => {}
            }
            let Patience::Until(deadline) = patience else { return Err(RecvError::WouldBlock) };
            self.gather();
            let there = || !matches!(self.first(), Ok(None));
            if !self.wait(Op::Recv, &self.cell.sent(self.way_in()).cw, deadline, there)? {
                return Err(RecvError::TimedOut);
            }
        }
    }

    /// Asks for the line behind the one in which the next record will begin, before each look whether it is there: so both come over at the same time.
    #[inline]
    pub(super) fn ask_for_second_line(&self) {
        if let Some(ring) = self.receiving.ring.get() {
            // Relaxed: written by the receivers of this process, by turns.
            ring.will_read(self.received().head.load(Ordering::Relaxed).wrapping_add(LINE));
        }
    }

    /// Who has taken many messages in a row since it last had to wait waits for many: looking takes the line from the sender that is about to
    /// write there, so one at its heels slows both down.
    fn gather(&self) {
        // Relaxed: written by the receivers of this process, by turns.
        let at = self.received().head.load(Ordering::Relaxed);
        let before = self.receiving.waited_at.swap(at, Ordering::Relaxed);
        if at.wrapping_sub(before) >= STREAM {
            spin::pause();
        }
    }

    #[inline]
    fn take(&self, who: Who, first: First<'_>, arrival: &mut Arrival) -> Result<Form, RecvError> {
        let First { ring, at, head } = first;
        match head.form() {
            Form::Value | Form::Bytes => {
                if !arrival.small(head.len() as usize).is_some_and(|words| ring.read_words(at, words)) {
                    ring.read_payload(self.arena(), at, head, arrival.bytes())?;
                }
                if head.references() > 0 {
                    let mut list = Vec::new();
                    ring.references(at, head, &mut |r| list.push(r))?;
                    // Their hold bits are set before the record goes.
                    arrival.references = list.into_iter().map(|r| self.arena().adopt(r)).collect::<Result<_, _>>()?;
                }
                crash::point("pipe.copied");
                self.commit_taking(who, first, false);
            }
            Form::ValueBlock | Form::BytesBlock => self.take_block(who, first, arrival)?,
            Form::Death => {
                let pid = ring.payload_word(at)? as u32;
                self.commit_taking(who, first, false);
                return Err(RecvError::PeerDied { pid });
            }
        }
        Ok(head.form())
    }

    #[cold]
    fn take_block(&self, who: Who, first: First<'_>, arrival: &mut Arrival) -> Result<(), RecvError> {
        let word = first.ring.payload_word(first.at)?;
        let block = BlockId::from_word(word).ok_or(Error::Corrupted(&"a record without its block"))?;
        let named = (self.index(), seq(self.way_in(), first.at));
        match self.arena().block_state(block)? {
            BlockState::Queue { queue, seq } | BlockState::Taken { queue, seq, .. } if (queue, seq) == named => {}
            _ => return Err(Error::Corrupted(&"a record's block").into()),
        }
        // First what may fail.
        arrival.references = record::adopt(self.arena(), block)?;
        let mine = BlockState::Taken { slot: self.arena().my_slot(), queue: named.0, seq: named.1 };
        self.arena().set_block_state(block, mine)?;
        crash::point("pipe.block_taken");
        self.commit_taking(who, first, true);
        arrival.in_block(block);
        Ok(())
    }

    #[inline]
    fn commit_taking(&self, who: Who, first: First<'_>, tell: bool) {
        self.received().commit_taking(who.thread, first.ring, first.at, first.head, tell);
    }
}

#[cold]
fn unlike(form: Form) -> RecvError {
    RecvError::Decode(CodecError::decode(match form {
        Form::Bytes | Form::BytesBlock => "bytes were sent, which recv_bytes takes",
        _ => "a value was sent, which recv takes",
    }))
}

impl From<NotMine> for RecvError {
    fn from(why: NotMine) -> RecvError {
        match why {
            NotMine::Taken => RecvError::WouldBlock,
            NotMine::TimedOut => RecvError::TimedOut,
        }
    }
}

impl From<Refused> for RecvError {
    fn from(why: Refused) -> RecvError {
        match why {
            Refused::InUse(pid) => RecvError::InUse { pid },
            Refused::NotYet(why) => why.into(),
            Refused::Closed => RecvError::Closed,
            Refused::Failed(e) => RecvError::Shared(e),
        }
    }
}
