//! Floor 2 of multiproc: what processes share besides messages.
//!
//! Internal to multiproc, no semver promise. Reading order: [`error`] -> `handle` (what all handles have in common) -> [`lock`] ->
//! [`value`] -> [`array`](mod@array) -> [`atomic`] -> [`event`] -> [`semaphore`] -> [`permit`] -> [`condition`] -> [`barrier`].

pub mod array;
pub mod atomic;
pub mod barrier;
pub mod condition;
pub mod error;
pub mod event;
mod handle;
pub mod lock;
pub mod permit;
pub mod semaphore;
pub mod value;

pub use array::{Array, ArrayGuard, ArrayRecovery};
pub use atomic::{Atomic, AtomicPrimitive};
pub use barrier::{Barrier, BarrierWaitResult};
pub use condition::Condition;
pub use error::{AcquireError, BarrierError, Death, LockError};
pub use event::Event;
pub use lock::{Lock, LockGuard, Recovery};
pub use permit::OwnedPermit;
pub use semaphore::{Permit, Semaphore};
pub use value::{Value, ValueGuard};

use multiproc_shm::objects::Kind;

/// What the words of [`condition`] and [`barrier`] are made of; their models are made of others.
pub(crate) mod base {
    pub(crate) use multiproc_sys::clock::Deadline;
    pub(crate) use multiproc_sys::futex::Wait;
    pub(crate) use multiproc_sys::{crash, futex, spin};
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

    /// Processes of a tree: the roster's bound.
    pub(crate) const SLOTS: usize = 1024;
}

/// Every kind of object that this floor puts into an arena.
pub static KINDS: &[&Kind] = &[
    &lock::LOCK,
    &value::VALUE,
    &atomic::ATOMIC,
    &event::EVENT,
    &semaphore::SEMAPHORE,
    &permit::PERMIT,
    &array::ARRAY,
    &condition::CONDITION,
    &barrier::BARRIER,
];
