//! Threads in the shape of processes: an example that runs in processes runs in threads after one change of a `use` line.
//!
//! ```
//! // use multiproc::Process;
//! use multiproc::threads::Process;
//! use multiproc::{Atomic, Queue};
//!
//! let (jobs, done) = (Queue::<u64>::bounded(4)?, Atomic::new(0u64)?);
//! let worker = Process::spawn((jobs.receiver()?, done.clone()), |jobs, done| {
//!     for job in &jobs {
//!         done.add(job.unwrap());
//!     }
//! })?;
//! for n in 1..=10 {
//!     jobs.put(n)?;
//! }
//! jobs.close()?;
//! worker.join()?;
//! assert_eq!(done.get(), 55);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Queues, pipes, locks and values are the same types: they work between threads, between processes, and between both at once. Arguments are moved to the
//! thread and its value is moved back, without being encoded; so both must be `Send`. Whatever runs in a process runs in a thread, unless it
//! relies on what only a process has:
//!
//! | | a [process](crate::Process) | a thread |
//! |---|---|---|
//! | start and join | about a millisecond | tens of microseconds |
//! | memory | its own, but for what is shared by handles | the program's, statics included |
//! | arguments and value | copied, through serde | moved |
//! | a panic | [`ProcessError::Panicked`] | the same |
//! | a segmentation fault, an abort, a stack overflow, the kernel's OOM killer | ends this process only | end the program |
//! | `std::process::exit` | ends this process only | ends the program |
//! | `terminate`, `kill`, `interrupt`, `signal` | yes | do not exist: a thread cannot be ended from outside |
//! | environment, directory, streams, user | its own | the program's |
//! | [`worker_init`](crate::worker_init) | is run in it | is not: the program is set up already |
//! | at the program's exit | is waited for, or ended if it is a daemon | the same |
//!
//! Take threads for what trusts itself: work on data that is in memory already, short tasks, waiting for input and output. Take processes for what may crash, leak, or
//! have to be killed in the middle: foreign code, untrusted sizes, tasks with a time limit; for code that is not thread-safe; and for an allocator, an environment or a
//! user of its own. Rust has no lock that only one thread runs under, so both use all processors.
//!
//! This module's `use` line may name the shared types as well: `use multiproc::threads::{Process, Queue}`.

#[doc(inline)]
pub use multiproc_process::threads::{Builder, Process, ThreadInfo, active_children, current_process, spawn};

// Whatever is shared between processes is shared between threads. `tests/tests/threads.rs` checks that the lists are complete.
#[cfg(feature = "postcard")]
#[doc(no_inline)]
pub use crate::Postcard;
#[doc(no_inline)]
pub use crate::{
    AcquireError, Array, ArrayGuard, ArrayRecovery, Atomic, AtomicPrimitive, Barrier, BarrierError, BarrierWaitResult,
    BoundedSemaphore, Condition, Death, Event, Frozen, Lock, LockError, LockGuard, OwnedPermit, Permit, RLock, RLockGuard,
    RLockRecovery, Recovery, ReleaseError, Semaphore, SharedVec, SignalSemaphore, Value, ValueGuard,
};
#[doc(no_inline)]
pub use crate::{Args, Error, ProcessError, ProcessInfo, Run, WaitOn, cpu_count, wait, wait_deadline, wait_timeout};
#[doc(no_inline)]
pub use crate::{
    Bincode, Buffer, Codec, CodecError, Connection, ConnectionIter, DEFAULT_MAX_MESSAGE, DeadLetter, DeadLetters, EncodeRef,
    GetError, Iter, JoinError, Lease, MAX_CAPACITY, Message, PipeBuilder, PipeReceiver, PipeSender, Plain, PlainVec, PutError,
    PutManyError, Queue, QueueBuilder, Raw, Receiver, RecvError, Rest, SendError, Sender, WhenFull, channel, one_way, pipe,
};
#[cfg(feature = "shared-memory")]
#[doc(no_inline)]
pub use crate::{Item, ShareableList, SharedMemory, SharedMemoryError};
