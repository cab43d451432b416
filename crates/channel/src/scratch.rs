//! One private buffer for each thread, so that small messages allocate nothing. It is handed about as one word.

use crate::message::INLINE_BYTES;
use std::cell::Cell;
use std::ops::{Deref, DerefMut};

thread_local! {
    static SCRATCH: Cell<Option<Box<Bytes>>> = const { Cell::new(None) };
}

/// A buffer that has grown beyond this is not kept.
const KEEP: usize = 1 << 20;

#[derive(Debug)]
struct Bytes(Vec<u8>);

/// The thread's buffer, empty at first; it goes back when it is dropped. Whoever asks meanwhile gets another.
#[derive(Debug)]
pub(crate) struct Scratch(Option<Box<Bytes>>);

impl Scratch {
    /// None at all, which only [`is_there`](Scratch::is_there) may be asked of.
    pub(crate) const NONE: Scratch = Scratch(None);

    #[inline]
    pub(crate) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// With room for any message that travels in a ring.
    #[inline]
    pub(crate) fn take() -> Scratch {
        // In exit handlers the thread's own buffer may be gone.
        match SCRATCH.try_with(Cell::take) {
            Ok(Some(mut bytes)) => {
                bytes.0.clear();
                Scratch(Some(bytes))
            }
            _ => Scratch::with_capacity(INLINE_BYTES),
        }
    }

    #[cold]
    pub(crate) fn with_capacity(bytes: usize) -> Scratch {
        Scratch(Some(Box::new(Bytes(Vec::with_capacity(bytes)))))
    }
}

impl Deref for Scratch {
    type Target = Vec<u8>;

    #[inline]
    fn deref(&self) -> &Vec<u8> {
        &self.0.as_ref().expect("there until it is dropped").0
    }
}

impl DerefMut for Scratch {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0.as_mut().expect("there until it is dropped").0
    }
}

impl Drop for Scratch {
    #[inline]
    fn drop(&mut self) {
        if let Some(bytes) = self.0.take() {
            give_back(bytes);
        }
    }
}

#[inline(never)]
fn give_back(bytes: Box<Bytes>) {
    if (INLINE_BYTES..=KEEP).contains(&bytes.0.capacity()) {
        let _ = SCRATCH.try_with(|scratch| scratch.set(Some(bytes)));
    }
}
