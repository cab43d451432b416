//! The words through which who moves a reference and who collects see each other: hold bits, the epoch, the stamps.
//!
//! Dekker's pattern: a mover writes its hold bit, then reads whether a collection is on; the collector writes that it is on, then reads the bits. Each has
//! a `fence(SeqCst)` between the two, so at least one sees the other: the bit is read, or the object gets stamped. `tests/moves.rs` has loom try every
//! outcome that the memory model allows, of this file as it is: it is given loom's atomics.

use crate::atomics::{AtomicU32, AtomicU64, Ordering, fence};

/// Step 1 of a move into a process: the new reference.
#[inline]
pub fn set_bit(word: &AtomicU64, mask: u64) {
    // Relaxed: ordered by the fence in `stamp`.
    word.fetch_or(mask, Ordering::Relaxed);
}

/// Steps 2 and 3: the object is stamped with the running collection's epoch. Whether there is one.
#[inline]
pub fn stamp(active: &AtomicU32, stamp: impl FnOnce() -> Option<&'static AtomicU32>) -> bool {
    // Pairs with the fence in `begin`.
    fence(Ordering::SeqCst);
    let epoch = active.load(Ordering::Relaxed);
    if epoch != 0
        && let Some(stamp) = stamp()
    {
        // Release pairs with the Acquire in `is_stamped`.
        stamp.fetch_max(epoch, Ordering::Release);
    }
    epoch != 0
}

/// Step 4 of a move out of a process: the old reference goes.
#[inline]
pub fn clear_bit(word: &AtomicU64, mask: u64) {
    // SeqCst: with the fence of who then looks at the other slots' bits, of two last holders one sees that it is the last. Its Release part also has who
    // reads the bit as gone see the stamp before it.
    word.fetch_and(!mask, Ordering::SeqCst);
}

/// The collector: a collection with this epoch is on.
pub fn begin(active: &AtomicU32, epoch: u32) {
    active.store(epoch, Ordering::Relaxed);
    // Pairs with the fence in `stamp`.
    fence(Ordering::SeqCst);
}

/// The collector: reads hold bits.
#[inline]
pub fn bits(word: &AtomicU64) -> u64 {
    // SeqCst, of which the Acquire part pairs with the Release in `clear_bit`.
    word.load(Ordering::SeqCst)
}

/// The collector: whether a reference to the object may have moved in this collection.
///
/// A stamp of a later epoch is one from before the epochs began anew, by a mover that was held up since. It hides this collection's: the object counts as
/// stamped as long as it lives.
#[inline]
pub fn is_stamped(stamp: &AtomicU32, epoch: u32) -> bool {
    stamp.load(Ordering::Acquire) >= epoch
}
