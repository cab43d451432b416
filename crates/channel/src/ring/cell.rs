//! What a queue is in shared memory.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `plock`, `clock` | one putter, one getter at a time; a waiter keeps it | putters, getters | `OWNER_DIED`: the next one repairs, see [`super::put`], [`super::get`] |
//! | `tail` | {item number:24, byte position:40} of the next item; **its store commits a put** | owner of `plock` | the item is there or not |
//! | `head` | the same of the first item; **its store commits a get** | owner of `clock` | the item is taken or not |
//! | `cw`, `pw` | the waiting getter, the waiting putter ([`WaitWord`]) | see there | see there |
//! | `putting`, `taking` (with `taking_seq`) | the block that is changing hands right now | owner of `plock`, of `clock` | tells the next owner what to undo |
//! | `ring`, `leases` | blocks, made at the first put, the first lease; `ring` is the table of [`super::segments`] where there are such | owner of `plock`, of `clock` | `putting` / `taking` name the block: freed by the next owner |
//! | `ring_backed`, `lease_high` | how much of them is in use; the position up to which there are segments | the same | as before |
//! | `segments_low` | the first segment that is not freed | owner of `clock` | see [`super::segments`] |
//! | `ended` | bits: closed, no sender left, no receiver left; they never go | anybody | as it is |
//! | `head_seen`, `got_seen`, `tail_seen` | the other side's end, and its bytes, as they were last looked at: spares the other side's cache line | owner of `plock`, of `clock` | too old, as always |
//! | `put_bytes`, `got_bytes` | payload bytes put and got so far, of queues with a byte limit ([`Volume`]) | owner of `plock`, of `clock`, before the commit | not yet valid, and written anew |
//! | `join` | joiners sleep there, any number ([`WaitWord`]) | see [`super::join`] | see there |
//! | `join_cursor` | where in the lease table a live one was found last | who finishes a message while somebody joins | a hint |
//! | `attention` | a lease has come back, or may have | who returns it; cleared by the getter that looks | the getter's successor sets it |
//! | `lost` | messages that died in a dead process's hands | cleaner | one report less |
//! | `capacity`, `max_message`, `max_bytes`, `max_attempts`, `segment_bits`, `fails_when_full` | constants; 0 bytes, 0 attempts: no limit; 0 bits: no segments | creator | - |
//! | `dead` | see [`super::dead`] | | |

use super::dead::DeadCell;
use super::volume::Volume;
use crate::beneath::{AtomicU32, AtomicU64, BlockId, Error, Ordering, RawLock, Shared, WaitWord, age};

/// Most items a queue can be bounded to: item numbers have 24 bits.
pub const MAX_CAPACITY: usize = (1 << 23) - 1;
/// Leases that can be out at the same time.
pub(crate) const MAX_LEASES: u32 = 1 << 16;

/// Somebody called `close`.
pub(crate) const CLOSED: u32 = 1;
/// Nobody is left who could put.
pub(crate) const NO_SENDER: u32 = 2;
/// Nobody is left who could get.
pub(crate) const NO_RECEIVER: u32 = 4;

/// See the module head.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct QueueCell {
    pub(crate) plock: RawLock,
    pub(crate) clock: RawLock,
    pub(crate) produced: Produced,
    pub(crate) consumed: Consumed,
    pub(crate) capacity: AtomicU64,
    pub(crate) max_message: AtomicU64,
    pub(crate) max_bytes: AtomicU64,
    pub(crate) max_attempts: AtomicU32,
    pub(crate) segment_bits: AtomicU32,
    pub(crate) ring: AtomicU64,
    pub(crate) leases: AtomicU64,
    pub(crate) ended: AtomicU32,
    pub(crate) attention: AtomicU32,
    pub(crate) lost: AtomicU32,
    pub(crate) fails_when_full: AtomicU32,
    pub(crate) segments_low: AtomicU32,
    pub(crate) lease_high: AtomicU32,
    pub(crate) lease_cursor: AtomicU32,
    pub(crate) join_cursor: AtomicU32,
    pub(crate) dead: DeadCell,
}

/// The line that putters write and getters watch.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Produced {
    pub(crate) tail: AtomicU64,
    pub(crate) cw: WaitWord,
    pub(crate) putting: AtomicU64,
    pub(crate) ring_backed: AtomicU64,
    pub(crate) head_seen: AtomicU64,
    pub(crate) put_bytes: Volume,
    pub(crate) got_seen: AtomicU64,
}

/// The line that getters write and putters watch.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Consumed {
    pub(crate) head: AtomicU64,
    pub(crate) pw: WaitWord,
    pub(crate) taking: AtomicU64,
    pub(crate) taking_seq: AtomicU32,
    pub(crate) tail_seen: AtomicU64,
    pub(crate) got_bytes: Volume,
    pub(crate) join: WaitWord,
}

impl QueueCell {
    /// The constant of that name, of which a peer may have made something else.
    pub(crate) fn segment_bits(&self) -> Result<u32, Error> {
        match self.segment_bits.load(Ordering::Relaxed) {
            bits @ (0 | 13..=18) => Ok(bits),
            _ => Err(Error::Corrupted(&"a queue's segments")),
        }
    }

    /// Items that may wait.
    #[inline]
    pub(crate) fn capacity(&self) -> u32 {
        // A constant that a peer may have written over: bounded where it is used.
        self.capacity.load(Ordering::Relaxed).min(MAX_CAPACITY as u64) as u32
    }

    /// Bytes put up to the tail and got up to `head`; `None` when an end has moved on.
    pub(crate) fn put_and_got(&self, head: End) -> Option<(End, End)> {
        let got = self.consumed.got_bytes.at(head)?;
        Some((self.produced.put_bytes.at(End::load(&self.produced.tail))?, got))
    }
}

impl QueueCell {
    /// Both ends are here before the first put. 0 is what memory holds anyhow.
    pub(crate) fn begin_at(&self, first: End, segment_bits: u32) {
        if first.0 == 0 {
            return;
        }
        let Produced { tail, head_seen, put_bytes, got_seen, .. } = &self.produced;
        let Consumed { head, tail_seen, got_bytes, .. } = &self.consumed;
        for word in [tail, head_seen, head, tail_seen] {
            first.note(word);
        }
        // The totals count round as the positions do.
        for word in [put_bytes.first_word(), got_seen, got_bytes.first_word()] {
            first.note(word);
        }
        if segment_bits != 0 {
            // Of the ring there is nothing before the first put.
            self.segments_low.store((first.position() >> segment_bits) as u32, Ordering::Relaxed);
        }
    }
}

impl Consumed {
    /// Names the block that the owner of `clock` is about to take for item `seq`. Until the head is past `seq` nothing has happened.
    pub(crate) fn begin_taking(&self, block: BlockId, seq: u32) {
        self.taking_seq.store(seq, Ordering::Relaxed);
        // Release: who sees the name sees the number.
        self.taking.store(block.raw(), Ordering::Release);
    }

    pub(crate) fn end_taking(&self) {
        self.taking.store(0, Ordering::Relaxed);
    }

    /// Whether `block` is named.
    pub(crate) fn is_taking(&self, block: BlockId) -> bool {
        self.taking.load(Ordering::Acquire) == block.raw()
    }
}

#[allow(unsafe_code)]
// SAFETY: `repr(C)` of atomics and types that are `Shared`.
unsafe impl Shared for QueueCell {}

pub(crate) const POSITION_BITS: u32 = 40;
pub(crate) const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;
const SEQ_MASK: u32 = (1 << 24) - 1;

/// A head or tail: item number and byte position, both counted round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End(u64);

impl End {
    /// With this item number and position.
    #[inline]
    pub(crate) fn new(seq: u32, position: u64) -> End {
        End(u64::from(seq & SEQ_MASK) << POSITION_BITS | position & POSITION_MASK)
    }

    /// Where a queue begins, at the start of a segment if it has such.
    pub(crate) fn first(segment_bits: u32) -> End {
        let unit = segment_bits.max(10);
        End::new(age::first(24) as u32, age::first(POSITION_BITS - unit) << unit)
    }

    #[inline]
    pub(crate) fn load(word: &AtomicU64) -> End {
        // Acquire pairs with the Release in `store`: the record, or the room, is there.
        End(word.load(Ordering::Acquire))
    }

    #[inline]
    pub(crate) fn store(self, word: &AtomicU64) {
        // Release pairs with the Acquire in `load`.
        word.store(self.0, Ordering::Release);
    }

    /// An end that the owner of a lock has noted for itself.
    #[inline]
    pub(crate) fn noted(word: &AtomicU64) -> End {
        // Relaxed: ordered by the lock under which it was noted.
        End(word.load(Ordering::Relaxed))
    }

    /// Notes an end that was loaded, for the next owner of the same lock.
    #[inline]
    pub(crate) fn note(self, word: &AtomicU64) {
        word.store(self.0, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn seq(self) -> u32 {
        (self.0 >> POSITION_BITS) as u32
    }

    #[inline]
    pub(crate) fn position(self) -> u64 {
        self.0 & POSITION_MASK
    }

    /// One item and so many bytes further.
    #[must_use]
    #[inline]
    pub(crate) fn after(self, bytes: u64) -> End {
        End::new(self.seq().wrapping_add(1), self.position() + bytes)
    }

    /// Items between `head` and this tail.
    #[inline]
    pub(crate) fn items_since(self, head: End) -> u32 {
        self.seq().wrapping_sub(head.seq()) & SEQ_MASK
    }

    /// Bytes between `head` and this tail.
    #[inline]
    pub(crate) fn bytes_since(self, head: End) -> u64 {
        self.position().wrapping_sub(head.position()) & POSITION_MASK
    }
}

/// How many items ago `seq` was, seen from `now`.
pub(crate) fn age(now: u32, seq: u32) -> u32 {
    now.wrapping_sub(seq) & SEQ_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_count_round() {
        let start = End(u64::MAX);
        let next = start.after(8);
        assert_eq!((next.seq(), next.position()), (0, 7));
        assert_eq!((next.items_since(start), next.bytes_since(start)), (1, 8));
        assert_eq!(age(0, SEQ_MASK), 1);
    }
}
