//! Floor 1 of multiproc: the arena that a process tree shares, and who holds what in it.
//!
//! Internal to multiproc, no semver promise. Reading order, each standing on those before it:
//!
//! - [`raw`]: the robust lock and the wait word, the two words that every protocol above is made of;
//! - [`layout`]: where things lie in an arena of a given size; [`memory`]: the mapping itself, checked access, and what is backed;
//! - [`slab`]: finding a free entry of a table; [`blocks`]: memory in size classes; [`objects`]: the object table;
//! - [`notes`]: who waits for what; [`roster`]: one slot for each process; [`moves`]: how movers and the collector see each other; [`holds`]: one bit for
//!   each object and process;
//! - [`arena`]: all of it together; [`waiting`]: sleeping with a note of what for; [`watching`]: waiting for any of several things, and [`relay`]: the threads
//!   that sleep on what one thread cannot; [`held`]: this process's references; [`record`]: references inside messages;
//! - [`scope`]: how handles go through serde; [`collect`]: cleaning up after the dead, and tracing what nobody references;
//! - [`rejoin`]: how a process that a plain fork made becomes one of the tree;
//! - [`hands`]: where a thread notes what it has in hand; [`losses`]: counting what died so; [`gone`]: when a dead process is gone; [`bereaved`]: processes whose parent is gone;
//! - [`pace`]: when a collection is due, and what is told and given back after one;
//! - [`stats`]: what is in use and who has it, for people; [`audit`]: the same for tests; [`report`]: who holds what and waits for what.

pub mod arena;
pub mod audit;
pub mod bereaved;
pub mod blocks;
pub mod collect;
pub mod error;
pub mod gone;
pub mod hands;
pub mod held;
pub mod holds;
pub mod layout;
pub mod losses;
pub mod memory;
pub mod moves;
pub mod notes;
pub mod objects;
pub mod pace;
pub mod raw;
pub mod record;
pub mod rejoin;
pub mod relay;
pub mod report;
pub mod roster;
pub mod scope;
pub mod slab;
pub mod stats;
pub mod waiting;
pub mod watching;

/// What [`moves`] is made of; its model is made of others.
pub(crate) mod atomics {
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

/// What [`raw`]'s words stand on; their models are made of others.
pub(crate) mod beneath {
    pub(crate) use multiproc_sys::clock::Deadline;
    pub(crate) use multiproc_sys::futex::{self, Wait};
    pub(crate) use multiproc_sys::futex_waitv::{Word, wait_any};
    pub(crate) use multiproc_sys::robust::{OWNER_DIED, TID_MASK, Thread, Unusable, WAITERS};
    pub(crate) use multiproc_sys::{crash, membarrier, robust, spin};
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
}

pub use arena::{Arena, Options};
pub use error::Error;
pub use held::{Held, Role};
