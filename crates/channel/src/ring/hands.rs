//! Notes of what a thread has taken and not yet handed to its caller, in its process's roster slot: a death is reported as exactly the
//! messages that went with it.
//!
//! A note is one word: returned:1 | count - 1:15 | queue + 1:24 | number of the first item:24; 0 is none. It is written before the commit by which
//! the items are taken, and names items that are not taken yet only if its writer died before that commit: the next getter takes those back.

use super::Ring;
use super::cell::age;
use multiproc_shm::Error;
use multiproc_shm::hands;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most items of one note.
pub(crate) const MAX_IN_HAND: u32 = 1 << 15;

/// A note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hand {
    pub(crate) queue: u32,
    /// The first item.
    pub(crate) seq: u32,
    pub(crate) count: u32,
    /// One item, which came back from a lease.
    pub(crate) returned: bool,
}

impl Hand {
    #[inline]
    pub(crate) fn to_word(self) -> u64 {
        let count = u64::from(self.count.wrapping_sub(1) % MAX_IN_HAND);
        u64::from(self.returned) << 63 | count << 48 | (u64::from(self.queue) + 1) << 24 | u64::from(self.seq)
    }

    pub(crate) fn from_word(word: u64) -> Option<Hand> {
        let queue = (word >> 24 & 0xff_ffff) as u32;
        Some(Hand {
            queue: queue.checked_sub(1)?,
            seq: word as u32 & 0xff_ffff,
            count: (word >> 48) as u32 % MAX_IN_HAND + 1,
            returned: word >> 63 == 1,
        })
    }
}

/// What this thread has in hand reaches its caller when this is dropped, also by a panic of what decodes it: of that its caller hears as of an error.
#[derive(Debug)]
#[must_use = "what is in hand would have been handed over before it is taken"]
pub(crate) struct InHand(&'static AtomicU64);

impl Drop for InHand {
    #[inline]
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Ring {
    /// Notes that `count` items from `seq` on are about to be in hand.
    #[inline]
    pub(crate) fn note_in_hand(&self, seq: u32, count: u32) {
        let hand = Hand { queue: self.index(), seq, count, returned: false };
        self.hand().store(hand.to_word(), Ordering::Relaxed);
    }

    /// Notes that a message which had been leased before is in hand. It is lost with this process from when its lease is acknowledged.
    pub(crate) fn note_returned(&self, seq: u32) {
        let hand = Hand { queue: self.index(), seq, count: 1, returned: true };
        self.hand().store(hand.to_word(), Ordering::Relaxed);
    }

    /// What is to be handed over. Made before all that a getter drops before: a death until then is a message lost.
    #[inline]
    pub(crate) fn in_hand(&self) -> InHand {
        InHand(self.hand())
    }

    /// Takes back the notes of whoever died with items in hand that are still in the ring, and will be somebody else's.
    pub(crate) fn void_hands(&self) -> Result<(), Error> {
        let first = self.head().seq();
        for slot in 0..self.arena().slots_high() {
            for word in &self.arena().slot(slot)?.hands {
                let noted = word.load(Ordering::Relaxed);
                let Some(hand) = Hand::from_word(noted) else { continue };
                let taken = age(first, hand.seq);
                // Only the dead owner can have noted an item that is not taken.
                if hand.queue == self.index() && !hand.returned && taken < hand.count {
                    let left = if taken == 0 { 0 } else { Hand { count: taken, ..hand }.to_word() };
                    // Before the next commit, with whose Release it pairs: who sees the head past the item sees no note of it. Not a store: the dead may be cleaned up
                    // after meanwhile, and the word be of a process that has something of another queue in hand.
                    let _ = word.compare_exchange(noted, left, Ordering::Relaxed, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    /// This thread's note of what it has in hand.
    #[inline]
    fn hand(&self) -> &'static AtomicU64 {
        &self.arena().own_slot().hands[hands::of_this_thread()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_survive_the_word() {
        for count in [1, 2, MAX_IN_HAND] {
            for returned in [false, true] {
                let hand = Hand { queue: 0xf_ffff, seq: 0xff_ffff, count, returned };
                assert_eq!(Hand::from_word(hand.to_word()), Some(hand));
            }
        }
        assert_eq!(Hand::from_word(0), None);
    }
}
