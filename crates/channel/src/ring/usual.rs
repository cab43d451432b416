//! The short way of a put and of a get: a small message without references, through a ring that is there and has room. Every death leaves what
//! [`put`](super::put) and [`get`](super::get) say in their tables; `tests/ring_model.rs` has these words under a model checker.

use super::bytes::{BLOCK_RECORD, Bytes, Form, Head, read_small, write_plain};
use super::cell::{CLOSED, End, NO_RECEIVER, QueueCell};
use crate::beneath::{Arena, Error, Ordering, Round, Who, crash};

/// How far the short way of an operation came.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Usual<T> {
    Done(T),
    /// Nothing has been done, and the lock is the caller's.
    Locked,
    /// Nothing has been done.
    Not,
}

/// The first record of the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct First {
    pub(crate) bytes: Bytes,
    pub(crate) at: End,
    pub(crate) head: Head,
}

impl First {
    /// Where it ends.
    #[inline]
    pub(crate) fn end(&self) -> End {
        self.at.after(self.head.size())
    }
}

impl QueueCell {
    /// Puts a payload without references.
    #[inline]
    pub(crate) fn put_usual(&self, who: Who, ring: Round, payload: &[u8]) -> Usual<()> {
        if self.plock.lock_free(who) { self.put_usual_locked(who, ring, payload) } else { Usual::Not }
    }

    /// The same by who has `plock`, who has it no more when it is done.
    #[inline]
    pub(crate) fn put_usual_locked(&self, who: Who, ring: Round, payload: &[u8]) -> Usual<()> {
        let (tail, record) = (End::load(&self.produced.tail), Head::new(Form::Inline, payload.len() as u32, 0));
        if !self.has_usual_room(ring, tail, record.size()) {
            return Usual::Locked;
        }
        write_plain(ring, tail, record, payload);
        crash::point("put.written_usual");
        let produced = &self.produced;
        produced.cw.commit_and_kick_lightly(who.thread, || tail.after(record.size()).store(&produced.tail));
        crash::point("put.kicked_usual");
        self.plock.unlock_held(who.thread);
        Usual::Done(())
    }

    /// Whether an inline record of `size` bytes may be put and there is room for it, by what was seen last of the getters' end.
    #[inline]
    fn has_usual_room(&self, ring: Round, tail: End, size: u64) -> bool {
        let produced = &self.produced;
        let seen = End::noted(&produced.head_seen);
        let (items, capacity) = (tail.items_since(seen), self.capacity());
        let left = u64::from(capacity.wrapping_sub(items + 1)) * BLOCK_RECORD;
        items < capacity
            && tail.bytes_since(seen) + size + left <= ring.size()
            && tail.position() + size <= produced.ring_backed.load(Ordering::Relaxed)
            && self.max_bytes.load(Ordering::Relaxed) == 0
            // Acquire pairs with the Release of who ended it.
            && self.ended.load(Ordering::Acquire) & (CLOSED | NO_RECEIVER) == 0
    }

    /// Takes the next message if that is short: copies its payload to `into`, padded to words, and gives its length. `note` says of an item number in whose hands it
    /// is from now on; `told` is called when it is taken.
    #[inline]
    pub(crate) fn get_usual<N>(
        &self,
        who: Who,
        arena: &Arena,
        bytes: Bytes,
        into: &mut [u64],
        note: impl FnOnce(u32) -> N,
        told: impl FnOnce(),
    ) -> Usual<(usize, N)> {
        if self.clock.lock_free(who) { self.get_usual_locked(who, arena, bytes, into, note, told) } else { Usual::Not }
    }

    /// The same by who has `clock`, who has it no more when it is done.
    #[inline]
    pub(crate) fn get_usual_locked<N>(
        &self,
        who: Who,
        arena: &Arena,
        bytes: Bytes,
        into: &mut [u64],
        note: impl FnOnce(u32) -> N,
        told: impl FnOnce(),
    ) -> Usual<(usize, N)> {
        let consumed = &self.consumed;
        // Acquire pairs with the Release of who returned a lease.
        let none_returned = self.attention.load(Ordering::Acquire) == 0;
        // Counted bytes and attempts are seen to elsewhere.
        let uncounted = self.max_bytes.load(Ordering::Relaxed) == 0 && self.max_attempts.load(Ordering::Relaxed) == 0;
        let Ok(Some(first)) = self.record_at(arena, End::load(&consumed.head), || Ok(Some(bytes))) else { return Usual::Locked };
        let plain = first.head.form() == Form::Inline && first.head.references() == 0;
        let fits = |ring| read_small(ring, first.at, first.head, into);
        if !(none_returned && uncounted && plain && first.bytes.piece().is_some_and(fits)) {
            return Usual::Locked;
        }
        crash::point("get.copied_usual");
        let hand = note(first.at.seq());
        crash::point("get.in_hand_usual");
        consumed.pw.commit_and_kick_lightly(who.thread, || first.end().store(&consumed.head));
        crash::point("get.kicked_usual");
        told();
        self.clock.unlock_held(who.thread);
        Usual::Done((first.head.len() as usize, hand))
    }

    /// The record at `at`, which is the head or the end of a record behind it; `None` at the tail. Under `clock`.
    #[inline]
    pub(crate) fn record_at(
        &self,
        arena: &Arena,
        at: End,
        bytes: impl FnOnce() -> Result<Option<Bytes>, Error>,
    ) -> Result<Option<First>, Error> {
        let mut tail = End::noted(&self.consumed.tail_seen);
        // The putters' line is looked at only when everything seen there last is taken.
        if at == tail {
            tail = End::load(&self.produced.tail);
            tail.note(&self.consumed.tail_seen);
        }
        if at == tail {
            return Ok(None);
        }
        let bytes = bytes()?.ok_or(Error::Corrupted(&"a queue without a ring"))?;
        let head = bytes.read_head(arena, at, tail)?;
        Ok(Some(First { bytes, at, head }))
    }
}
