//! One way of a pipe: what its sender and what its receiver write, see [`super::cell`], and their commits. `tests/pipe_model.rs` has them under a model checker.

use super::record::{Head, Ring};
use crate::beneath::{AtomicU64, Error, Ordering, Thread, WaitWord, crash};

#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Sent {
    pub(crate) tail: AtomicU64,
    pub(crate) cw: WaitWord,
    pub(crate) ring: AtomicU64,
    pub(crate) backed: AtomicU64,
    pub(crate) putting: AtomicU64,
}

#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Received {
    pub(crate) head: AtomicU64,
    pub(crate) pw: WaitWord,
}

/// Parts of a ring after each of which the receiver looks whether the sender sleeps.
const LOOKS: u64 = 4;

impl Sent {
    /// Commits the record at `tail` and wakes the receiver if it sleeps.
    #[inline]
    pub(crate) fn commit(&self, me: Thread, ring: &Ring, tail: u64, head: Head) -> Result<(), Error> {
        let (word, value) = ring.commit_word(tail, head)?;
        // Release pairs with the Acquire in `Ring::head`.
        self.cw.commit_and_kick_lightly(me, || word.store(value, Ordering::Release));
        crash::point("pipe.kicked");
        // Relaxed: for this process, and for the next user of the end, who has it with the owner word.
        self.tail.store(tail + head.size(), Ordering::Relaxed);
        Ok(())
    }
}

impl Received {
    /// Commits the taking of the record at `at`; with `tell`, or where a part of the ring ends, the sender is woken if it sleeps.
    #[inline]
    pub(crate) fn commit_taking(&self, me: Thread, ring: &Ring, at: u64, head: Head, tell: bool) {
        let next = at + head.size();
        // A power of two, as the ring is.
        let part = ring.len / LOOKS;
        // Release pairs with the Acquire of the sender: the record has been read.
        if tell || (at ^ next) & part.wrapping_neg() != 0 {
            self.pw.commit_and_kick_lightly(me, || self.head.store(next, Ordering::Release));
        } else {
            self.head.store(next, Ordering::Release);
        }
        crash::point("pipe.taken");
    }
}
