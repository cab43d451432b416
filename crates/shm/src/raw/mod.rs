//! The two words that everything shared is made of: [`RawLock`], which knows its owner and survives it, and
//! [`WaitWord`], on which one waits for an event. Both stand on [`multiproc_sys::robust`].

mod lock;
mod wait_word;

pub use lock::{Acquired, Holder, LockFailed, RawLock, Who};
pub use wait_word::{WaitWord, Watch};
