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

/// Whether crash points are compiled in, which only tests ask for.
pub const CRASH_POINTS: bool = multiproc_sys::crash::ENABLED;

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
