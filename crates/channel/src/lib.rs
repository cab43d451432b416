//! Floor 3 of multiproc: messages, and the queues and pipes that carry them.
//!
//! Internal to multiproc, no semver promise. Reading order: [`codec`] (values to bytes) -> [`message`] (with handles; a large one in a block) -> [`queue`], [`lease`] and `join`
//! (the handles) -> `ring` (the protocol, with its tables of what a death leaves behind) -> `pipe` (the same for pipes) -> [`error`].

mod batch;
pub mod builder;
pub mod codec;
pub mod dead;
pub mod error;
mod join;
pub mod lease;
pub mod message;
mod pipe;
pub mod queue;
mod ring;
mod scratch;
#[doc(hidden)]
pub mod sealed;
mod view;

pub use builder::{QueueBuilder, WhenFull};
#[cfg(feature = "postcard")]
pub use codec::Postcard;
pub use codec::{Bincode, Buffer, Codec, CodecError, EncodeRef, Plain, PlainVec, Raw};
pub use dead::{DeadLetter, DeadLetters};
pub use error::{GetError, JoinError, PutError, PutManyError, Rest};
pub use lease::Lease;
pub use message::Message;
pub use pipe::builder::{PipeBuilder, one_way, pipe};
pub use pipe::connection::{Connection, ConnectionIter, PipeReceiver, PipeSender};
pub use pipe::error::{RecvError, SendError};
pub use queue::{DEFAULT_MAX_MESSAGE, Iter, Queue, Receiver, Sender, channel};
pub use ring::cell::MAX_CAPACITY;

use multiproc_shm::objects::Kind;

/// Every kind of object that this floor puts into an arena.
pub static KINDS: &[&Kind] = &[&ring::kind::QUEUE, &pipe::kind::PIPE];

/// What the words of [`ring`] and [`pipe`] stand on; their models are made of others.
pub(crate) mod beneath {
    pub(crate) use multiproc_shm::blocks::BlockId;
    pub(crate) use multiproc_shm::memory::{Round, Shared};
    pub(crate) use multiproc_shm::objects::RawRef;
    pub(crate) use multiproc_shm::raw::{RawLock, WaitWord, Who};
    pub(crate) use multiproc_shm::{Arena, Error};
    pub(crate) use multiproc_sys::robust::Thread;
    pub(crate) use multiproc_sys::{age, cache, crash};
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}
