//! How often the owner of a lock holds it: what makes a lock re-entrant.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `owner` | the thread that holds the lock, with slot and generation of its process; 0 before it lets go | it, under the lock | names a dead thread, which no living one is: whoever takes the lock over begins anew |
//! | `depth` | how often, with `VOUCHED_FOR_BY_NOBODY` | the same, while it is named | meaningless, as its owner is dead |
//!
//! Only the owner finds its own name, so it alone believes in the count. The steps are in an order that a signal handler of the same thread
//! may come between: named last and unnamed first, the handler either finds a count that is right, or does not find itself named, though the lock is its own
//! thread's, and is refused.

use crate::beneath::{AtomicU32, AtomicU64, Ordering, compiler_fence, crash};

/// See the module head. All-zero memory is a lock that nobody holds.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Hold {
    owner: AtomicU64,
    depth: AtomicU32,
}

/// In `depth`: an owner had died, and nobody has vouched for what the lock guards.
const VOUCHED_FOR_BY_NOBODY: u32 = 1 << 31;
const COUNT: u32 = VOUCHED_FOR_BY_NOBODY - 1;

/// What one release of many leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Left {
    /// The lock is held still.
    Held,
    /// It is to be unlocked; `vouched_for` says whether in good order.
    Nothing { vouched_for: bool },
}

/// A thread in one word, never 0: slot:12 | end of the slot's generation:22 | TID:30.
pub(crate) fn name(slot: u32, generation: u32, tid: u32) -> u64 {
    u64::from(slot & 0xfff) << 52 | u64::from(generation & 0x3f_ffff) << 30 | u64::from(tid)
}

impl Hold {
    /// The lock has just been taken.
    #[inline]
    pub(crate) fn begin(&self, me: u64, vouched_for: bool) {
        crash::point("hold.begin");
        // Relaxed, here and below: the owner alone reads what it has written; the fence is for its own signal handlers.
        self.depth.store(if vouched_for { 1 } else { 1 | VOUCHED_FOR_BY_NOBODY }, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        crash::point("hold.counted");
        self.owner.store(me, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        crash::point("hold.named");
    }

    /// Whether the lock is the caller's, who then has it once more. `None`: so often that it cannot be counted.
    #[inline]
    pub(crate) fn again(&self, me: u64) -> Option<bool> {
        if self.owner.load(Ordering::Relaxed) != me {
            return Some(false);
        }
        let depth = self.depth.load(Ordering::Relaxed);
        if depth & COUNT == COUNT {
            return None;
        }
        self.depth.store(depth + 1, Ordering::Relaxed);
        crash::point("hold.again");
        Some(true)
    }

    /// Gives it back once. To be called by the owner.
    #[inline]
    pub(crate) fn leave(&self) -> Left {
        let depth = self.depth.load(Ordering::Relaxed);
        if depth & COUNT > 1 {
            self.depth.store(depth - 1, Ordering::Relaxed);
            crash::point("hold.left_once");
            return Left::Held;
        }
        self.owner.store(0, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        crash::point("hold.unnamed");
        Left::Nothing { vouched_for: depth & VOUCHED_FOR_BY_NOBODY == 0 }
    }

    /// Whether an owner had died before the caller, who holds the lock, took it, and nobody has vouched since.
    pub(crate) fn is_vouched_for(&self) -> bool {
        self.depth.load(Ordering::Relaxed) & VOUCHED_FOR_BY_NOBODY == 0
    }

    /// The owner vouches for what the lock guards.
    pub(crate) fn vouch(&self) {
        let depth = self.depth.load(Ordering::Relaxed);
        self.depth.store(depth & COUNT, Ordering::Relaxed);
    }

    /// How often the thread with this id holds it; 0 if it is not the one that is named. For reports.
    pub(crate) fn count(&self, tid: u32) -> u32 {
        let named = self.owner.load(Ordering::Relaxed) & 0x3fff_ffff == u64::from(tid);
        if named { self.depth.load(Ordering::Relaxed) & COUNT } else { 0 }
    }
}
