//! Who has how many of a number of permits: a counter for each process, and no sum.
//!
//! What is free is what the counters leave. To take one without a lock, a thread raises its process's counter first and then adds all of them up: with more
//! than there are permits it lowers its own again. Of two that raise at the same time at least one sees the other, since each raises before it looks, by
//! `SeqCst` operations, so never do more hold a permit than there are. Both may have seen the other and have to wait for their turn then.
//!
//! A dead process's counter is cleared, in whichever step it died: there is nothing else to put right, and nothing can drift.

use crate::beneath::{AtomicU32, Ordering, crash};

/// Enters a permit before it is known whether there is one; whether there is, of `permits`. `taken` adds up what all have. If not, the caller gives it back by
/// [`leave`].
#[inline]
pub(crate) fn enter(entry: &AtomicU32, permits: u32, taken: impl FnOnce() -> u32) -> bool {
    crash::point("semaphore.before_commit");
    // SeqCst: before the loads in `sum`, in an order in which all agree. If it was one too many nobody relies on it; if not, it is the commit.
    entry.fetch_add(1, Ordering::SeqCst);
    crash::point("semaphore.committed");
    taken() <= permits
}

/// Takes a permit out of the books. To be called by who has one, or has entered one too many.
#[inline]
pub(crate) fn leave(entry: &AtomicU32) {
    // SeqCst: see `WaitWord::commit_and_kick_in_order`.
    if entry.fetch_sub(1, Ordering::SeqCst) == 0 {
        // Not what a correct process finds.
        entry.fetch_add(1, Ordering::SeqCst);
    }
}

/// What all processes have.
#[inline]
pub(crate) fn sum(entries: &[AtomicU32]) -> u32 {
    // SeqCst: see `enter`; and the waiting taker's look after its announcement.
    entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.load(Ordering::SeqCst)))
}
