//! One private buffer for each thread, so that small messages allocate nothing.

use crate::message::INLINE_BYTES;
use std::cell::Cell;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A buffer that has grown beyond this is not kept.
const KEEP: usize = 1 << 20;

/// An empty vector with room for any message that travels in a ring. Whoever asks meanwhile gets another.
#[inline]
pub(crate) fn take() -> Vec<u8> {
    // In exit handlers the thread's own buffer may be gone.
    let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
    scratch.clear();
    if scratch.capacity() < INLINE_BYTES {
        first(&mut scratch);
    }
    scratch
}

#[cold]
fn first(scratch: &mut Vec<u8>) {
    scratch.reserve(INLINE_BYTES);
}

/// Keeps the vector for the next message.
#[inline]
pub(crate) fn give_back(scratch: Vec<u8>) {
    if scratch.capacity() <= KEEP {
        let _ = SCRATCH.try_with(|s| s.set(scratch));
    }
}
