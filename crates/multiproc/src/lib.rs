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
//! | wait until all work is done | [`Queue::join`] |
//! | have two processes talk to each other | a [`pipe`], or [`one_way`] |
//! | count | [`Atomic`] |
//! | share a small value that is always whole | [`Value`] |
//! | share many elements, one process at a time | [`Array`] |
//! | hand on many elements without a copy | [`SharedVec`], sent as [`Frozen`] |
//! | share memory with another program | [`SharedMemory`], by name |
//! | take turns | [`Lock`] |
//! | wait for something to happen | [`Event`] |
//! | wait for what another does under a lock | [`Condition`] |
//! | go on when all have come | [`Barrier`] |
//! | bound how many do something | [`Semaphore`] |
//! | run a function over many elements, or many calls, each with an outcome | [`Pool`] |
//!
//! [Coming from Python](coming_from_python) has each of these beside Python's, and a table of which to take; [`threads`] has the same in threads.
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
//! # Pools
//!
//! A [`Pool`] has workers that run calls. Each call is a [`Task`] and has exactly one outcome: its value, or a [`TaskError`] that says why there is none. A worker that dies takes along
//! the call that it was running, and nothing else; another takes its place.
//!
//! ```
//! use multiproc::{Pool, Signal, TaskError};
//! use std::time::Duration;
//!
//! let pool = Pool::builder().workers(2).task_timeout(Duration::from_secs(60)).build()?;
//! assert_eq!(pool.map(1..=4, |n: u64| n * n)?, [1, 4, 9, 16]);
//!
//! let outcomes = pool.try_map([4, 0, 2], |n: u64| if n == 0 { std::process::abort() } else { 12 / n })?;
//! assert_eq!((outcomes[0].as_ref().unwrap(), outcomes[2].as_ref().unwrap()), (&3, &6));
//! assert_eq!(outcomes[1].as_ref().unwrap_err().signal(), Some(Signal::ABRT));
//!
//! let task = pool.submit((20,), |x: u64| x * 2 + 2)?;
//! assert_eq!(task.join()?, 42);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | to | take |
//! |---|---|
//! | have one call run | [`Pool::submit`], which gives a [`Task`]: wait for it, ask it, cancel it, or await it |
//! | have all values or the first error | [`Pool::map`]; [`Pool::map_with`] for a function with a context |
//! | have the outcome of each element | [`Pool::try_map`] |
//! | take values as they come, also of an input without end | [`Pool::imap`], [`Pool::imap_unordered`] |
//! | wait for some of several tasks | [`wait_tasks`], [`as_completed`] |
//! | bound time, memory, attempts, what waits | [`Pool::builder`], and [`Pool::task`] for one call |
//! | run the same calls in threads, or here and now | [`ThreadPool`], [`Pool::inline`] |
//!
//! A pool's drop finishes what it was given; [`terminate`](Pool::terminate) does not. A handle of a pool travels as any other does, and a call may submit to the pool that it runs in.
//!
//! # When somebody dies
//!
//! The kernel tells who is dead, at once. A queue goes on: what was being put is there whole or not at all, what was on lease comes again. A lock reports
//! [`LockError::OwnerDied`] until somebody vouches for what it guards. A value has its old content. Permits come back. Who waits for a
//! [`Condition`] looks again, and a [`Barrier`] tells all of it. When the last
//! [`Sender`] is dropped or dead, receivers see the end; when the last [`Receiver`] is, senders get an error. When the coordinator dies, its workers are ended.
//!
//! # How it ends
//!
//! At its normal exit a process waits for its children, as in Python; `daemon` children it ends. After 5 s it says on stderr whom it waits for and
//! what that one waits on; [`exit_grace`] bounds it. An exit with another status than 0 ends all children. Killed, a process takes its
//! children along, at any depth; only who was [detached](Process::detach) stays.
//!
//! A service calls [`shutdown_on`] first: then Ctrl-C, or SIGTERM to one or to all, makes one clean end with exit code 128 + n. [`shutdown`] does the same
//! without a signal, and tells how each ended. What exit codes mean stands at [`Process::exit_status`].
//!
//! # Why can I not borrow?
//!
//! A process cannot see your stack, so there is no `scope` and no `&T`. Send a clone (small), a [`Frozen`] vector (large, read only), share a [`Value`] or an [`Array`], or stay in threads.
//!
//! # Two bounded queues and a coordinator
//!
//! A coordinator that puts *all* jobs before it reads results waits for room in the job queue, while the workers wait for room in the result queue: a deadlock in
//! any language. Put from one thread and get in another, or put no more than fits. [`dump`] names such a circle:
//!
//! ```
//! use multiproc::{Process, Receiver, Sender, channel, dump};
//! use std::time::Duration;
//!
//! let (jobs, todo) = channel::<u64>(2)?;
//! let (done, results) = channel::<u64>(2)?;
//! let worker = Process::spawn((todo, done), |todo: Receiver<u64>, done: Sender<u64>| {
//!     for job in &todo {
//!         if done.put(job.unwrap() + 1).is_err() {
//!             return;
//!         }
//!     }
//! })?;
//! let why = loop {
//!     // It never gets a result.
//!     if let Err(timeout) = jobs.put_timeout(7, Duration::from_millis(50)) {
//!         assert!(timeout.is_timeout());
//!         if let Some(circle) = dump().circles().first() {
//!             break circle.to_string();
//!         }
//!     }
//! };
//! // .. MainProcess (pid 7) waits to put on Queue 0, and so for Process-1 (pid 8); Process-1 (pid 8) waits to put on Queue 1, and so for MainProcess (pid 7)
//! assert!(why.contains("waits to put on Queue"));
//! drop((jobs, results));
//! worker.join()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # When something hangs
//!
//! - [`dump`] gives a report of the whole tree: who runs, who is stopped, who holds which lock, permit or lease, who waits for what since when and who could
//!   let it go on, and which waits go round in a circle. Any process of the tree can ask, also while others hold locks or are stopped.
//! - [`dump_on`]`(Signal::QUIT)` at the start of `main`: from then on Ctrl-\ in the terminal, or `kill -QUIT`, writes that report to stderr, and the program goes on.
//! - After a time-out, [`dump().circles()`](Dump::circles) in the same thread says whether what it waited for waited for it. (The error itself stays small.)
//! - `MULTIPROC_WAIT=name` in the coordinator's environment has the worker of that name (several, separated by commas; `*` for all) wait before its first
//!   line, [`worker_init`] included, and write its pid to stderr. `kill -CONT PID` lets it go on; or `gdb -p PID`, breakpoints, `continue` (also under Yama: while it
//!   waits, any process of the same user may attach). Meanwhile it is a process like any other: it can be joined and killed, and ends with its coordinator. Code before `main`, and `main` itself where [`init`] is used, runs before.
//! - At its exit a process that has waited for children for 5 seconds says for whom, and what those wait for.
//!
//! # Features
//!
//! | feature | what it brings |
//! |---|---|
//! | `shared-memory` (on) | [`SharedMemory`] and [`ShareableList`]: memory by name, between programs that know nothing of each other; no further crate |
//! | `postcard` | the codec `Postcard`: smaller messages, and the crate of that name |
//! | `tracing-bridge` | `tracing_bridge()`: workers' `tracing` events reach the coordinator's subscriber; costs nothing until it is called |
//! | `pool-progress` | `PoolBuilder::progress`: bars on a terminal; the crate indicatif |
//! | `pool-trace` | `Pool::trace`: what ran where and when, for Chrome's and Perfetto's viewers; the crate serde_json |
//! | `crash-points` | kills processes at chosen steps, for this project's own tests |
//!
//! All but the first are off by default.
//!
//! # Trouble
//!
//! - A `Vec<u8>` of hundreds of megabytes is slow: serde goes byte by byte. Take [`PlainVec`], also for numbers, or [`Raw`] for messages that are bytes.
//! - *`implementation of Deserialize is not general enough`*: a function that takes `&str` or returns `&'static str`; messages own their data, take `String`.
//! - *`!` cannot travel*: the closure never returns; give it a type: `|| -> () { std::process::abort() }`.
//! - *expected fn pointer, found closure*: the closure captures a variable; pass it as an argument.
//! - A worker prints nothing of `main`'s set-up (a logger, a panic hook): `main` does not run in workers; register the set-up with [`worker_init`].

#[doc = include_str!("coming_from_python.md")]
pub mod coming_from_python {}
pub mod threads;

#[cfg(feature = "postcard")]
#[doc(inline)]
pub use multiproc_channel::Postcard;
#[doc(inline)]
pub use multiproc_channel::{
    Bincode, Buffer, Codec, CodecError, Connection, ConnectionIter, DEFAULT_MAX_MESSAGE, DeadLetter, DeadLetters, EncodeRef,
    GetError, Iter, JoinError, Lease, MAX_CAPACITY, Message, PipeBuilder, PipeReceiver, PipeSender, Plain, PlainVec, PutError,
    PutManyError, Queue, QueueBuilder, Raw, Receiver, RecvError, Rest, SendError, Sender, WhenFull, channel, one_way, pipe,
};
#[cfg(feature = "shared-memory")]
#[doc(inline)]
pub use multiproc_named::{Item, ShareableList, SharedMemory, SharedMemoryError};
#[doc(inline)]
pub use multiproc_pool::{
    AsCompleted, CurrentTask, Imap, ImapUnordered, Latency, Pool, PoolBuilder, PoolError, PoolStats, ReturnWhen, Task,
    TaskBuilder, TaskError, ThreadPool, WorkerStats, as_completed, current_task, pool_context, wait_tasks,
};
#[doc(inline)]
pub use multiproc_process::{
    Args, Builder, ChildEnd, ChildInfo, Error, Lines, MemoryUsage, Process, ProcessError, ProcessInfo, Run, Shutdown, Signal,
    StartMethod, Stdio, active_children, after_fork_child, cpu_count, current_process, exit_grace, init, memory_usage,
    parent_process, set_memory_limit, shutdown, shutdown_on, stats, worker_init,
};
#[doc(inline)]
pub use multiproc_process::{Circle, CircleLink, Dump, HoldReport, ProcessReport, ProcessState, WaitReport, dump, dump_on};
#[cfg(feature = "tracing-bridge")]
#[doc(inline)]
pub use multiproc_process::{TracingBridge, tracing_bridge};
#[doc(inline)]
pub use multiproc_shm::Error as ShmError;
#[doc(inline)]
pub use multiproc_shm::stats::{HolderStats, KindStats, Stats};
#[doc(inline)]
pub use multiproc_shm::watching::{WaitOn, wait, wait_deadline, wait_timeout};
#[doc(inline)]
pub use multiproc_sync::{
    AcquireError, Array, ArrayGuard, ArrayRecovery, Atomic, AtomicPrimitive, Barrier, BarrierError, BarrierWaitResult,
    BoundedSemaphore, Condition, Death, Event, Frozen, Lock, LockError, LockGuard, OwnedPermit, Permit, RLock, RLockGuard,
    RLockRecovery, Recovery, ReleaseError, Semaphore, SharedVec, SignalSemaphore, Value, ValueGuard,
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
    #[doc = include_str!("../../../docs/PLATFORM.md")]
    struct Platform;
}

/// What this project's own tests look at. No part of the API.
#[doc(hidden)]
pub mod testing {
    pub use multiproc_shm::audit::{Audit, NoCollection};
    use multiproc_shm::{Arena, Error};
    #[cfg(feature = "crash-points")]
    pub use multiproc_sys::age::born_old;
    #[cfg(feature = "crash-points")]
    pub use multiproc_sys::crash::{arm_at, arm_next_thread, arm_signal, arm_step, disarm, named, note, passed};

    /// What the tree's arena holds.
    pub fn audit() -> Result<Audit, Error> {
        Arena::of_the_tree()?.audit()
    }

    /// Keeps every process from cleaning up after the dead.
    pub fn hold_collections() -> Result<NoCollection, Error> {
        Arena::of_the_tree()?.hold_collections()
    }

    /// Cleans up and collects. Whoever finds another at it leaves it to that one, which may be past what this call is about: so it tries for a while.
    pub fn collect() -> Result<(), Error> {
        let arena = Arena::of_the_tree()?;
        for _ in 0..2000 {
            if arena.collect()?.rounds > 0 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        Ok(())
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
