//! Floor 2 of multiproc: what processes share besides messages.
//!
//! Internal to multiproc, no semver promise. Reading order: [`error`] -> `handle`, `describe` and `events` (what all handles have in common) -> `raw` (the words) ->
//! [`lock`] -> [`rlock`] -> [`value`] -> [`array`](mod@array) -> [`atomic`] -> [`event`] -> [`semaphore`] -> [`permit`] -> [`signal_semaphore`] ->
//! [`condition`] -> [`barrier`] -> [`shared_vec`] -> [`frozen`]; `words` for floors above.

pub mod array;
pub mod atomic;
pub mod barrier;
pub mod condition;
mod describe;
pub mod error;
pub mod event;
mod events;
pub mod frozen;
mod handle;
pub mod lock;
pub mod permit;
mod raw;
pub mod rlock;
pub mod semaphore;
pub mod shared_vec;
pub mod signal_semaphore;
pub mod value;
#[doc(hidden)]
pub mod words;

pub use array::{Array, ArrayGuard, ArrayRecovery};
pub use atomic::{Atomic, AtomicPrimitive};
pub use barrier::{Barrier, BarrierWaitResult};
pub use condition::Condition;
pub use error::{AcquireError, BarrierError, Death, LockError, ReleaseError};
pub use event::Event;
pub use frozen::Frozen;
pub use lock::{Lock, LockGuard, Recovery};
pub use permit::OwnedPermit;
pub use rlock::{RLock, RLockGuard, RLockRecovery};
pub use semaphore::{BoundedSemaphore, Permit, Semaphore};
pub use shared_vec::SharedVec;
pub use signal_semaphore::SignalSemaphore;
pub use value::{Value, ValueGuard};

/// What the words of [`raw`], [`condition`] and [`barrier`] stand on; their models are made of others.
pub(crate) mod beneath {
    pub(crate) use multiproc_shm::raw::{LockFailed, RawLock, WaitWord, Who};
    pub(crate) use multiproc_sys::clock::Deadline;
    pub(crate) use multiproc_sys::futex::Wait;
    pub(crate) use multiproc_sys::robust::Thread;
    pub(crate) use multiproc_sys::{crash, futex, spin};
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence, fence};

    /// Processes of a tree: the roster's bound.
    pub(crate) const SLOTS: usize = 1024;
}

use multiproc_shm::objects::Kind;

/// Every kind of object that this floor puts into an arena.
pub static KINDS: &[&Kind] = &[
    &lock::LOCK,
    &value::VALUE,
    &atomic::ATOMIC,
    &event::EVENT,
    &semaphore::SEMAPHORE,
    &permit::PERMIT,
    &array::ARRAY,
    &rlock::RLOCK,
    &signal_semaphore::SIGNALS,
    &condition::CONDITION,
    &barrier::BARRIER,
    &shared_vec::SHARED_VEC,
    &words::WORDS,
];
