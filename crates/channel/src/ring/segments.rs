//! Segments: the ring of a queue without a bound of its own. It is a very long one, of which only the pieces between head and tail exist.
//!
//! A segment is a block of the arena; a table, which is what `ring` names, has the block of each at its number modulo the table's length. The putter makes
//! those that its next record reaches into, the getter frees those that the head has left. So memory follows what waits, head and tail stay the only commits, and a
//! small queue goes round in blocks that are [kept](multiproc_shm::blocks) with their pages: it makes no system call.
//!
//! A segment's state carries its number, so who frees one cannot free the next that lies in the same block. A table's entry means something only
//! between `segments_low` and `ring_backed`.
//!
//! | dies | left behind | who repairs, how |
//! |---|---|---|
//! | making a segment | a block `Filling(slot)`, or one `Segment` that `putting` names and `ring_backed` does not reach | the cleaner of the slot; the next putter frees it |
//! | having moved `ring_backed`, before the commit | a segment that nothing lies in yet | nobody: the next put finds it |
//! | after a get's commit, before a segment is freed, or `segments_low` says so | segments behind the head | the next getter frees them: that they are free already by their state is no harm; a putter that needs their place in the table waits |

use super::bytes::{BLOCK_RECORD, Bytes};
use super::cell::{End, POSITION_BITS, POSITION_MASK, QueueCell};
use super::{Ring, bytes_of};
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::{Arena, Error};
use multiproc_sys::crash;
use std::sync::atomic::Ordering;

/// Bytes of the ring may not be told from those of the next lap otherwise.
const MAX_LEN: u64 = 1 << (POSITION_BITS - 2);
pub(super) const FIRST_BACKING: u64 = 4096;
const _: () = assert!(FIRST_BACKING.is_multiple_of(BLOCK_RECORD));

/// Bytes of the table: for all that the bounds allow inline, and a name for each message besides.
pub(crate) fn table_size(capacity: u64, max_bytes: u64, segment_bits: u32) -> u64 {
    let len = max_bytes.saturating_add(capacity * (8 + 2 * BLOCK_RECORD)).min(MAX_LEN).next_power_of_two();
    ((len >> segment_bits) * 8).max(FIRST_BACKING)
}

/// How many segments there are from `low` to `high`.
fn count(low: u32, high: u32, bits: u32) -> u32 {
    high.wrapping_sub(low) & number_mask(bits)
}

fn number_mask(bits: u32) -> u32 {
    (1 << (POSITION_BITS - bits)) - 1
}

/// The first number whose segment is not there.
fn next_number(backed: u64, bits: u32) -> u32 {
    ((backed & POSITION_MASK).next_multiple_of(1 << bits) >> bits) as u32 & number_mask(bits)
}

/// Calls `visit` with the block and the state of each segment that may be there. What a death left is among them.
pub(crate) fn each_segment(
    arena: &Arena,
    cell: &QueueCell,
    queue: u32,
    mut visit: impl FnMut(BlockId, BlockState) -> Result<(), Error>,
) -> Result<(), Error> {
    // At a queue's end that is repeated, or in corrupted memory, the table may be another's.
    let Ok(Some(bytes @ Bytes { segment_bits: 1.., .. })) = bytes_of(arena, cell, queue) else { return Ok(()) };
    let bits = bytes.segment_bits;
    let low = cell.segments_low.load(Ordering::Acquire) & number_mask(bits);
    let high = next_number(cell.produced.ring_backed.load(Ordering::Acquire), bits);
    for i in 0..count(low, high, bits).min(bytes.segments()) {
        let number = low.wrapping_add(i) & number_mask(bits);
        if let Some(block) = BlockId::from_word(bytes.entry(number).load(Ordering::Acquire)) {
            visit(block, BlockState::Segment { queue, number })?;
        }
    }
    Ok(())
}

impl Ring {
    /// Makes what is missing of the ring below a position, under `plock`.
    #[inline]
    pub(crate) fn back_segments(&self, bytes: Bytes, position: u64) -> Result<(), Error> {
        if self.lacks_segments(position) { self.make_segments(bytes, position) } else { Ok(()) }
    }

    fn lacks_segments(&self, position: u64) -> bool {
        let backed = End::new(0, self.cell.produced.ring_backed.load(Ordering::Relaxed));
        // Positions count round: what is further back lies ahead.
        backed.bytes_since(End::new(0, position)) > MAX_LEN
    }

    /// Whether the table has room for what is missing below a position.
    #[inline]
    pub(crate) fn has_segments_for(&self, bytes: Bytes, position: u64) -> bool {
        !self.lacks_segments(position) || self.has_entry_for(bytes, (position - 1) >> bytes.segment_bits)
    }

    fn has_entry_for(&self, bytes: Bytes, number: u64) -> bool {
        let bits = bytes.segment_bits;
        // Acquire pairs with the Release of who has freed the one that had this entry.
        let low = self.cell.segments_low.load(Ordering::Acquire);
        count(low, number as u32 & number_mask(bits), bits) < bytes.segments()
    }

    #[cold]
    fn make_segments(&self, bytes: Bytes, position: u64) -> Result<(), Error> {
        let size = 1u64 << bytes.segment_bits;
        let backed = &self.cell.produced.ring_backed;
        while self.lacks_segments(position) {
            let have = backed.load(Ordering::Relaxed) & POSITION_MASK;
            // Up to the tail everything was there when it was written.
            if (1..MAX_LEN).contains(&self.tail().bytes_since(End::new(0, have))) {
                return Err(Error::Corrupted(&"a queue's segments"));
            }
            let part = have & (size - 1);
            if part == 0 {
                self.make_segment(bytes, have)?;
                continue;
            }
            // The first one grows: many queues never hold more than a few messages.
            let number = (have >> bytes.segment_bits) as u32;
            let block = BlockId::from_word(bytes.entry(number).load(Ordering::Relaxed));
            let target = (2 * part).min(size);
            self.arena().extend(block.ok_or(Error::Corrupted(&"a queue's segment"))?, target)?;
            crash::point("put.segment_extended");
            backed.store(have - part + target, Ordering::Release);
        }
        Ok(())
    }

    fn make_segment(&self, bytes: Bytes, start: u64) -> Result<(), Error> {
        let (arena, produced, bits) = (self.arena(), &self.cell.produced, bytes.segment_bits);
        let number = (start >> bits) as u32 & number_mask(bits);
        if !self.has_entry_for(bytes, u64::from(number)) {
            return Err(Error::Corrupted(&"a queue's segments"));
        }
        let table = BlockId::from_word(self.cell.ring.load(Ordering::Relaxed)).ok_or(Error::Corrupted(&"a queue's ring"))?;
        let place = u64::from(number & (bytes.segments() - 1));
        arena.extend(table, (place + 1) * 8)?;
        let backing = if start == 0 { FIRST_BACKING } else { 1 << bits };
        let block = arena.allocate_range(1 << bits, backing)?;
        crash::point("put.segment_allocated");
        produced.putting.store(block.raw(), Ordering::Relaxed);
        arena.set_block_state(block, BlockState::Segment { queue: self.index(), number })?;
        crash::point("put.segment_owned");
        // Relaxed: the commit publishes.
        bytes.entry(number).store(block.raw(), Ordering::Relaxed);
        crash::point("put.segment_named");
        // Release pairs with the Acquire of who ends the queue after this process's death.
        produced.ring_backed.store((start + backing) & POSITION_MASK, Ordering::Release);
        crash::point("put.segment_made");
        produced.putting.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// What `putting` names is a segment: whether it is none of the ring's yet.
    pub(crate) fn is_unmade(&self, number: u32) -> bool {
        let Ok(bits @ 1..) = self.cell.segment_bits() else { return false };
        number == next_number(self.cell.produced.ring_backed.load(Ordering::Relaxed), bits)
    }

    /// After the head has gone from one place to another, under `clock`.
    #[inline]
    pub(crate) fn left_behind(&self, from: End, to: End) {
        if let Ok(bits @ 1..) = self.cell.segment_bits()
            && (from.position() ^ to.position()) >> bits != 0
        {
            // Fails only in corrupted memory, of which the next operation tells.
            let _ = self.free_segments();
        }
    }

    /// Frees the segments behind the head, under `clock`.
    #[cold]
    pub(crate) fn free_segments(&self) -> Result<(), Error> {
        let Some(bytes) = self.bytes()?.filter(|bytes| bytes.segment_bits != 0) else { return Ok(()) };
        let bits = bytes.segment_bits;
        let head = (self.head().position() >> bits) as u32;
        let (low, me) = (&self.cell.segments_low, self.arena().who()?.thread);
        loop {
            let number = low.load(Ordering::Relaxed) & number_mask(bits);
            match count(number, head, bits) {
                0 => return Ok(()),
                n if n > bytes.segments() => return Err(Error::Corrupted(&"a queue's segments")),
                _ => {}
            }
            if let Some(block) = BlockId::from_word(bytes.entry(number).load(Ordering::Relaxed)) {
                self.arena().free_if(block, BlockState::Segment { queue: self.index(), number })?;
            }
            crash::point("get.segment_freed");
            // Release pairs with the Acquire of the putter that uses the entry again, and may wait for it.
            let next = number.wrapping_add(1) & number_mask(bits);
            self.cell.consumed.pw.commit_and_kick_lightly(me, || low.store(next, Ordering::Release));
            crash::point("get.segment_left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Queue;
    use multiproc_shm::Options;
    use std::time::Duration;

    type Handles = Vec<Queue<u8>>;

    /// A queue whose table is full before its bounds are reached, if its messages are little but references.
    fn narrow() -> (Queue<Handles>, &'static QueueCell, Handles) {
        let arena = Arena::create(&Options { size: 256 << 20, ..Options::new(0, crate::KINDS) }).unwrap();
        let queue = Queue::builder().unbounded().byte_limit(2 << 20).build_in(arena).unwrap();
        let cell: &QueueCell = arena.memory().at(arena.object(queue.id()).unwrap().unwrap().offset).unwrap();
        cell.capacity.store(5600, Ordering::Relaxed);
        cell.segment_bits.store(13, Ordering::Relaxed);
        let message = vec![Queue::builder().capacity(1).build_in(arena).unwrap(); HANDLES];
        (queue, cell, message)
    }

    /// As many as lie in a ring.
    const HANDLES: usize = crate::ring::bytes::INLINE_REFERENCES;
    /// Bytes of a message in the ring, or a little more: each handle has four in the payload, and its reference.
    const RECORD: u64 = HANDLES as u64 * (4 + 8);

    fn ring_of(queue: &Queue<Handles>) -> u64 {
        let ring = &queue.ring;
        bytes_of(ring.arena(), ring.cell, ring.index()).unwrap().unwrap().size()
    }

    #[test]
    #[cfg_attr(miri, ignore = "it fills a whole ring")]
    fn references_that_fill_the_table_go_into_blocks() {
        let (queue, _, message) = narrow();
        // The head is somewhere in a segment.
        queue.put(message.clone()).unwrap();
        queue.get().unwrap();
        let mut count = 0;
        let refused = loop {
            match queue.try_put(message.clone()) {
                Ok(()) => count += 1,
                Err(refused) => break refused,
            }
        };
        assert!(refused.is_full(), "{refused}");
        let ring = ring_of(&queue);
        assert!(count * RECORD > ring, "{count} messages do not fill {ring} bytes");
        (0..count).for_each(|_| assert_eq!(queue.get().unwrap().len(), HANDLES));
    }

    #[test]
    #[cfg_attr(miri, ignore = "it fills a whole ring")]
    fn who_needs_what_a_getter_has_left_waits_until_it_is_free() {
        let (queue, cell, message) = narrow();
        let mut count = 0;
        let full = |count: u64| count * RECORD > ring_of(&queue) * 9 / 10;
        queue.put(message.clone()).unwrap();
        while !full(count) {
            queue.put(message.clone()).unwrap();
            count += 1;
        }
        (0..count).for_each(|_| drop(queue.get().unwrap()));
        // As a getter leaves it that is killed after its commit.
        cell.segments_low.store(0, Ordering::Relaxed);
        let refused = (0..count).find_map(|_| queue.try_put(message.clone()).err()).unwrap();
        assert!(refused.is_full(), "{refused}");
        assert!(queue.put_timeout(message.clone(), Duration::from_millis(1)).unwrap_err().is_timeout());
        std::thread::scope(|scope| {
            let putter = scope.spawn(|| queue.put(message.clone()));
            while !cell.consumed.pw.has_sleeper() {
                std::thread::yield_now();
            }
            // The next getter that leaves a segment finds them all.
            while !putter.is_finished() {
                queue.get_timeout(Duration::from_secs(60)).unwrap();
            }
            putter.join().unwrap().unwrap();
        });
    }
}
