//! Floor 3 of multiproc: messages and the queues that carry them.
//!
//! Internal to multiproc, no semver promise. Reading order: [`codec`] (values to bytes) -> [`message`] (with handles).

pub mod codec;
pub mod message;

pub use codec::{Bincode, Codec, CodecError};
pub use message::Message;

use multiproc_shm::objects::Kind;

/// Every kind of object that this floor puts into an arena.
pub static KINDS: &[&Kind] = &[];
