//! Design A: a byte ring with two robust locks, in which the waiter keeps its lock.
//!
//! Reading order: [`cell`] (the words and their tables), [`bytes`] (records), [`segments`] (of a queue without a bound), [`usual`] (the short way of both operations), [`put`], [`get`], [`hands`] (who has taken what),
//! [`get_many`], [`lease`], [`dead`], [`join`], [`watched`] (as one of several things to wait for), [`wakes`] and [`kind`] (what the cleaner and the collector do with a queue). Here: what they have in common,
//! and the one way of waiting.
//!
//! Whoever waits for room or for data sleeps on a [`WaitWord`] *while holding its lock*; the others queue on the lock. So no wake can
//! be swallowed: at most one getter and one putter sleep on their wait words (watchers sleep beside the getter, joiners on a word of their own), and if that one dies the lock passes on by the kernel's hand. It is fast for the
//! same reason: of several getters one watches the ring, the others sleep.

pub(crate) mod bytes;
pub(crate) mod cell;
pub(crate) mod dead;
pub(crate) mod get;
pub(crate) mod get_many;
pub(crate) mod hands;
pub(crate) mod join;
pub(crate) mod kind;
pub(crate) mod lease;
pub(crate) mod put;
pub(crate) mod segments;
pub(crate) mod usual;
mod volume;
mod wakes;
mod watched;

use bytes::Bytes;
use cell::{Consumed, End, Produced, QueueCell};
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::notes::Op;
use multiproc_shm::raw::{Acquired, LockFailed, RawLock, WaitWord, Who};
use multiproc_shm::{Arena, Error, Held, waiting};
use multiproc_sys::clock::Deadline;
use multiproc_sys::spin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
pub(crate) use usual::Usual;

const _: () = assert!(size_of::<QueueCell>() <= 512);
const _: () = assert!(size_of::<Produced>() == 64 && size_of::<Consumed>() == 64);

/// How long an operation may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// Not at all.
    None,
    /// Until then; `None` is for ever.
    Until(Option<Deadline>),
}

/// Why waiting ended without what was waited for.
#[derive(Debug)]
pub(crate) enum GaveUp {
    /// Somebody else is at it, and the caller would not wait.
    Held,
    TimedOut,
    Failed(Error),
}

impl From<Error> for GaveUp {
    fn from(e: Error) -> GaveUp {
        GaveUp::Failed(e)
    }
}

/// What bounds a queue; of attempts 0 stands for any number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// `None` for what memory can bear.
    pub(crate) capacity: Option<usize>,
    pub(crate) fails_when_full: bool,
    pub(crate) max_message: u64,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) attempts: u32,
}

/// A queue as the operations see it.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    pub(crate) held: Arc<Held>,
    pub(crate) cell: &'static QueueCell,
    /// Where the ring lies, once this handle has seen it: it never moves.
    place: OnceLock<Bytes>,
}

impl Ring {
    pub(crate) fn new(held: Arc<Held>) -> Result<Ring, Error> {
        let cell = held.cell::<QueueCell>()?;
        Ok(Ring { held, cell, place: OnceLock::new() })
    }

    #[inline]
    pub(crate) fn arena(&self) -> &'static Arena {
        self.held.arena()
    }

    #[inline]
    pub(crate) fn index(&self) -> u32 {
        self.held.object().index
    }

    #[inline]
    pub(crate) fn capacity(&self) -> u32 {
        self.cell.capacity()
    }

    /// Bytes that an encoded message may have.
    #[inline]
    pub(crate) fn max_message(&self) -> u64 {
        self.cell.max_message.load(Ordering::Relaxed)
    }

    /// Bytes of payload that may wait; 0: any number.
    #[inline]
    pub(crate) fn max_bytes(&self) -> u64 {
        self.cell.max_bytes.load(Ordering::Relaxed)
    }

    /// Whether putting fails instead of waiting for room.
    pub(crate) fn fails_when_full(&self) -> bool {
        self.cell.fails_when_full.load(Ordering::Relaxed) != 0
    }

    /// The ring's bytes, once the first put has made them.
    #[inline]
    pub(crate) fn bytes(&self) -> Result<Option<Bytes>, Error> {
        match self.place.get() {
            Some(place) => Ok(Some(*place)),
            None => self.find_bytes(),
        }
    }

    #[cold]
    fn find_bytes(&self) -> Result<Option<Bytes>, Error> {
        let found = bytes_of(self.arena(), self.cell, self.index())?;
        Ok(found.map(|place| *self.place.get_or_init(|| place)))
    }

    #[inline]
    pub(crate) fn head(&self) -> End {
        End::load(&self.cell.consumed.head)
    }

    #[inline]
    pub(crate) fn tail(&self) -> End {
        End::load(&self.cell.produced.tail)
    }

    /// Items in the ring. Exact: both ends are one word each; the head is read first and again, so that it belongs to the tail.
    pub(crate) fn items(&self) -> u32 {
        loop {
            let head = self.head();
            let tail = self.tail();
            if self.head() == head {
                return tail.items_since(head);
            }
        }
    }

    #[inline]
    pub(crate) fn ended(&self) -> u32 {
        // Acquire pairs with the Release of who ended it.
        self.cell.ended.load(Ordering::Acquire)
    }

    /// Takes one of the two locks. `ready` says whether the operation could go on if it had it.
    #[inline]
    fn take(&self, op: Op, lock: &RawLock, who: Who, patience: Patience, ready: impl Fn() -> bool) -> Result<Acquired, GaveUp> {
        if lock.lock_free(who) { Ok(Acquired::Clean) } else { self.take_held(op, lock, who, patience, ready) }
    }

    #[cold]
    fn take_held(
        &self,
        op: Op,
        lock: &RawLock,
        who: Who,
        patience: Patience,
        ready: impl Fn() -> bool,
    ) -> Result<Acquired, GaveUp> {
        let failed = |why: LockFailed| match why {
            LockFailed::TimedOut => GaveUp::TimedOut,
            LockFailed::Unusable(why) => GaveUp::Failed(why.into()),
            LockFailed::Held | LockFailed::WouldDeadlock => GaveUp::Held,
        };
        let deadline = match patience {
            Patience::Until(deadline) => deadline,
            Patience::None => {
                // Whoever has it is about to let go, or waits because nothing is there.
                let mut last = lock.try_lock(who);
                spin::until(|| {
                    if matches!(last, Err(LockFailed::Held)) && ready() {
                        last = lock.try_lock(who);
                    }
                    !matches!(last, Err(LockFailed::Held)) || !ready()
                });
                return last.map_err(failed);
            }
        };
        match lock.try_lock(who) {
            Err(LockFailed::Held) => {}
            other => return other.map_err(failed),
        }
        let note = self.arena().note_wait(op, self.index(), deadline);
        let got = lock.lock_until(who, deadline);
        waiting::end(note, got == Err(LockFailed::TimedOut));
        got.map_err(failed)
    }

    /// The one way of waiting, while holding the side's lock: see [`Arena::wait_alone_fencing`].
    fn wait(&self, op: Op, word: &WaitWord, deadline: Option<Deadline>, ready: impl Fn() -> bool) -> Result<(), GaveUp> {
        if self.arena().wait_alone_fencing(op, self.index(), word, deadline, ready) { Ok(()) } else { Err(GaveUp::TimedOut) }
    }
}

#[inline]
pub(crate) fn bytes_of(arena: &Arena, cell: &QueueCell, queue: u32) -> Result<Option<Bytes>, Error> {
    // Acquire pairs with the Release in `put::make_ring`.
    let Some(block) = BlockId::from_word(cell.ring.load(Ordering::Acquire)) else { return Ok(None) };
    if arena.block_state(block)? != BlockState::Object(queue) {
        return Err(Error::Corrupted(&"a queue's ring"));
    }
    Bytes::new(arena, block, cell.segment_bits()?).map(Some)
}
