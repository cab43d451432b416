//! Python's `multiprocessing` for Rust.

#[doc(inline)]
pub use multiproc_channel::{
    Bincode, Codec, CodecError, DEFAULT_MAX_MESSAGE, GetError, Iter, Lease, MAX_CAPACITY, Message, PutError, Queue, Receiver,
    Sender, channel,
};
#[doc(inline)]
pub use multiproc_process::{
    Args, Builder, ChildInfo, Error, Process, ProcessError, ProcessInfo, Run, Signal, StartMethod, Stdio, active_children,
    cpu_count, current_process, init, parent_process, worker_init,
};
#[doc(inline)]
pub use multiproc_sync::{
    AcquireError, Atomic, AtomicPrimitive, Death, Event, Lock, LockError, LockGuard, OwnedPermit, Permit, Recovery, Semaphore,
    Value, ValueGuard,
};

/// Whether crash points are compiled in, which only tests ask for.
pub const CRASH_POINTS: bool = multiproc_sys::crash::ENABLED;
