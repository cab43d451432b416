//! The two words that everything shared is made of: [`RawLock`], which knows its owner and survives it, and
//! [`WaitWord`], on which one waits for an event. Both stand on [`multiproc_sys::robust`].

mod lock;
#[cfg(test)]
mod lock_tests;
mod wait_word;

pub use lock::{Acquired, Holder, LockFailed, RawLock, Who};
pub use wait_word::{WaitWord, Watch};

const _: () = assert!(std::mem::offset_of!(RawLock, word) == 0);
const _: () = assert!(std::mem::offset_of!(RawLock, link) == multiproc_sys::robust::NODE_OFFSET);
const _: () = assert!(size_of::<RawLock>() == 64);
