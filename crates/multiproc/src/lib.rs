//! Python's `multiprocessing`, rebuilt for Rust: worker processes linked by typed queues and by shared values with locks that work
//! across processes, and that survive whatever happens to them.
//!
//! # Start
//!
//! ```
//! use multiproc::Process;
//!
//! let worker = Process::spawn((6, 7), |a: u64, b: u64| a * b)?;
//! assert_eq!(worker.join()?, 42);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Process::spawn`] takes a tuple of arguments and a function, or a closure that captures nothing, and runs it in a new process of the same
//! program. There is nothing to set up. Arguments and return values are anything that owns its data and derives serde's traits. A worker with state
//! is a struct that implements [`Run`].
//!
//! However the process ends, [`join`](Process::join) returns: the value, or a [`ProcessError`] that says how it ended.
//!
//! # Link processes
//!
//! | to | take |
//! |---|---|
//! | hand out work and collect results | [`Queue`], or its ends from [`channel`] |
//! | hand out work that must not be lost | [`Queue::lease`] |
//! | count | [`Atomic`] |
//! | share a small value that is always whole | [`Value`] |
//! | share many elements, one process at a time | [`Array`] |
//! | take turns | [`Lock`] |
//! | wait for something to happen | [`Event`] |
//! | bound how many do something | [`Semaphore`] |
//!
//! Handles are small, cheap to clone, and travel in arguments, results and messages, also inside your own structs:
//!
//! ```
//! use multiproc::{Atomic, Lock, Process, Queue};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Context { log: Queue<String>, hits: Atomic<u64>, screen: Lock }
//!
//! let context = Context { log: Queue::bounded(100)?, hits: Atomic::new(0)?, screen: Lock::new()? };
//! let worker = Process::spawn((context.clone(),), |c: Context| {
//!     c.hits.add(1);
//!     c.log.put("hello".into()).unwrap();
//! })?;
//! worker.join()?;
//! assert_eq!((context.log.get()?, context.hits.get()), ("hello".to_string(), 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # When somebody dies
//!
//! The kernel tells who is dead, at once. A queue goes on: what was being put is there whole or not at all, what was on lease comes again. A lock reports
//! [`LockError::OwnerDied`] until somebody vouches for what it guards. A value has its old content. Permits come back. When the last
//! [`Sender`] is dropped or dead, receivers see the end; when the last [`Receiver`] is, senders get an error. When the coordinator dies, its workers are ended.
//!
//! # Why can I not borrow?
//!
//! A process cannot see your stack, so there is no `scope` and no `&T`. Send a clone, share a [`Value`], or stay in threads where workers only read.
//!
//! # Two bounded queues and a coordinator
//!
//! A coordinator that puts *all* jobs before it reads results waits for room in the job queue, while the workers wait for room in the result queue: a deadlock in
//! any language. Put from one thread and get in another, or put no more than fits.
//!
//! # Trouble
//!
//! - A `Vec<u8>` of hundreds of megabytes is slow: serde goes byte by byte. Take [`PlainVec`], also for numbers, or [`Raw`] for messages that are bytes.
//! - *`implementation of Deserialize is not general enough`*: a function that takes `&str` or returns `&'static str`; messages own their data, take `String`.
//! - *`!` cannot travel*: the closure never returns; give it a type: `|| -> () { std::process::abort() }`.
//! - *expected fn pointer, found closure*: the closure captures a variable; pass it as an argument.
//! - A worker prints nothing of `main`'s set-up (a logger, a panic hook): `main` does not run in workers; register the set-up with [`worker_init`].

#[cfg(feature = "postcard")]
#[doc(inline)]
pub use multiproc_channel::Postcard;
#[doc(inline)]
pub use multiproc_channel::{
    Bincode, Buffer, Codec, CodecError, DEFAULT_MAX_MESSAGE, DeadLetter, DeadLetters, EncodeRef, GetError, Iter, Lease,
    MAX_CAPACITY, Message, Plain, PlainVec, PutError, PutManyError, Queue, QueueBuilder, Raw, Receiver, Rest, Sender, channel,
};
#[doc(inline)]
pub use multiproc_process::{
    Args, Builder, ChildInfo, Error, MemoryUsage, Process, ProcessError, ProcessInfo, Run, Signal, StartMethod, Stdio,
    active_children, cpu_count, current_process, init, memory_usage, parent_process, set_memory_limit, worker_init,
};
#[doc(inline)]
pub use multiproc_shm::Error as ShmError;
#[doc(inline)]
pub use multiproc_sync::{
    AcquireError, Array, ArrayGuard, ArrayRecovery, Atomic, AtomicPrimitive, Death, Event, Lock, LockError, LockGuard,
    OwnedPermit, Permit, Recovery, Semaphore, Value, ValueGuard,
};

/// The crate whose traits [`Value`] asks for: derive `bytemuck::NoUninit` and `bytemuck::CheckedBitPattern` on your own structs.
pub use bytemuck;

/// Whether crash points are compiled in, which only tests ask for.
pub const CRASH_POINTS: bool = multiproc_sys::crash::ENABLED;

/// The README's and the design notes' code is compiled and run.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    #[doc = include_str!("../../../docs/DESIGN.md")]
    struct Design;
    #[doc = include_str!("../../../docs/ARCHITECTURE.md")]
    struct Architecture;
}

/// What this project's own tests look at. No part of the API.
#[doc(hidden)]
pub mod testing {
    pub use multiproc_shm::audit::{Audit, NoCollection};
    use multiproc_shm::{Arena, Error};
    #[cfg(feature = "crash-points")]
    pub use multiproc_sys::crash::{arm_at, arm_step, disarm, passed};

    /// What the tree's arena holds.
    pub fn audit() -> Result<Audit, Error> {
        Arena::of_the_tree()?.audit()
    }

    /// Keeps every process from cleaning up after the dead.
    pub fn hold_collections() -> Result<NoCollection, Error> {
        Arena::of_the_tree()?.hold_collections()
    }

    /// Cleans up and collects.
    pub fn collect() -> Result<(), Error> {
        Arena::of_the_tree()?.collect().map(|_| ())
    }

    /// The id of what a process waits for.
    pub fn waits_for(pid: u32) -> Result<Option<u32>, Error> {
        Arena::of_the_tree()?.waits_for(pid)
    }

    /// Bytes of memory that the arena uses, and its limit.
    pub fn usage() -> Result<(u64, u64), Error> {
        Ok(Arena::of_the_tree()?.usage())
    }
}
