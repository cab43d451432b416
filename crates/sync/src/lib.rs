//! Floor 2 of multiproc: what processes share besides messages.
//!
//! Internal to multiproc, no semver promise. Reading order: [`error`] -> `handle` (what all handles have in common) -> [`lock`] ->
//! [`value`] -> [`array`](mod@array) -> [`atomic`] -> [`event`] -> [`semaphore`] -> [`permit`] -> [`shared_vec`] -> [`frozen`].

pub mod array;
pub mod atomic;
pub mod error;
pub mod event;
pub mod frozen;
mod handle;
pub mod lock;
pub mod permit;
pub mod semaphore;
pub mod shared_vec;
pub mod value;

pub use array::{Array, ArrayGuard, ArrayRecovery};
pub use atomic::{Atomic, AtomicPrimitive};
pub use error::{AcquireError, Death, LockError};
pub use event::Event;
pub use frozen::Frozen;
pub use lock::{Lock, LockGuard, Recovery};
pub use permit::OwnedPermit;
pub use semaphore::{Permit, Semaphore};
pub use shared_vec::SharedVec;
pub use value::{Value, ValueGuard};

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
    &shared_vec::SHARED_VEC,
];
