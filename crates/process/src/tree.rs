//! The arena of this process's tree: made at first use in the coordinator, inherited in a worker.

use crate::error::{Error, Kind};
use crate::{hook, keeper, marker};
use multiproc_channel::KINDS as CHANNEL_KINDS;
use multiproc_shm::arena::{Options, SlotId};
use multiproc_shm::objects::Kind as ObjectKind;
use multiproc_shm::stats::Stats;
use multiproc_shm::{Arena, Error as ShmError};
use multiproc_sync::KINDS as SYNC_KINDS;
use multiproc_sys::image;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

static KINDS: [&ObjectKind; SYNC_KINDS.len() + CHANNEL_KINDS.len()] = {
    let mut all = [SYNC_KINDS[0]; SYNC_KINDS.len() + CHANNEL_KINDS.len()];
    let mut i = 0;
    while i < all.len() {
        all[i] = if i < SYNC_KINDS.len() { SYNC_KINDS[i] } else { CHANNEL_KINDS[i - SYNC_KINDS.len()] };
        i += 1;
    }
    all
};

static ARENA: OnceLock<&'static Arena> = OnceLock::new();
/// Without a keeper it is nobody's yet: the thread may not have been granted at first.
static MADE: OnceLock<&'static Arena> = OnceLock::new();
static MAKING: Mutex<()> = Mutex::new(());

/// 0: not set.
static LIMIT: AtomicU64 = AtomicU64::new(0);

fn options() -> Options {
    let mut options = Options::new(image::main_program().fingerprint(), &KINDS);
    options.limit = Some(LIMIT.load(Ordering::Relaxed)).filter(|&limit| limit > 0);
    options
}

/// Bounds the memory that the shared objects of this process tree use together, in bytes. To be called in the coordinator before anything of
/// multiproc is used; the default is half of what the cgroup or the machine has at that time.
///
/// At the bound, operations that need memory return an error (which hands a message back), and go on working when memory has become free.
///
/// # Errors
/// There are shared objects already, or the limit is 0.
///
/// # Examples
/// ```
/// multiproc::set_memory_limit(64 << 20)?;
/// let queue = multiproc::Queue::<Vec<u8>>::bounded(10)?;
/// assert!(queue.put(vec![0; 100 << 20]).unwrap_err().is_out_of_memory());
/// assert!(multiproc::memory_usage()?.used < 64 << 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn set_memory_limit(bytes: u64) -> Result<(), Error> {
    if bytes == 0 || ARENA.get().is_some() {
        return Err(Error::new(Kind::Invalid, "the memory limit is set once, to more than 0, before anything is shared"));
    }
    LIMIT.store(bytes, Ordering::Relaxed);
    Ok(())
}

/// How much memory the shared objects of this process tree use, and may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryUsage {
    /// Bytes in use, or kept for the next use.
    pub used: u64,
    /// The bound.
    pub limit: u64,
}

/// How much memory the shared objects of this process tree use, and may use. What they are, and whose: [`stats`].
///
/// # Errors
/// No arena can be made in this process.
pub fn memory_usage() -> Result<MemoryUsage, Error> {
    let (used, limit) = arena()?.usage();
    Ok(MemoryUsage { used, limit })
}

/// What the shared objects of this process tree take, by kind, and which process holds how many of them.
///
/// First everything that nobody references is freed, as if all processes that have ended had been cleaned up after. Another process that is at
/// that at this moment is waited for, at most a second: it may have been stopped, and then the figures show what it is about to free. Meant for logs and for people: it
/// looks at every object. For the sum alone, which costs nothing, see [`memory_usage`].
///
/// # Errors
/// No arena can be made in this process.
///
/// # Examples
/// ```
/// use multiproc::{Lock, Queue};
///
/// let queue = Queue::<Lock>::bounded(10)?;
/// for _ in 0..3 {
///     queue.put(Lock::new()?)?;
/// }
/// let stats = multiproc::stats()?;
/// assert_eq!(stats.kind("Lock").map(|k| k.objects), Some(3));
/// // The locks are in messages: this process has no handle but the queue's.
/// assert_eq!(stats.holder(std::process::id()).map(|h| h.objects), Some(1));
/// println!("{stats}");
///
/// drop(queue);
/// assert_eq!(multiproc::stats()?.objects(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn stats() -> Result<Stats, Error> {
    Ok(arena()?.stats()?)
}

/// The tree's arena; the first call of a coordinator makes it, and starts the keeper, whose life stands for the process's.
pub(crate) fn arena() -> Result<&'static Arena, ShmError> {
    if let Some(arena) = ARENA.get() {
        return if multiproc_sys::robust::forked() { Err(ShmError::Forked) } else { Ok(arena) };
    }
    let _one = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(arena) = ARENA.get() {
        return Ok(arena);
    }
    let arena = match MADE.get() {
        Some(arena) => arena,
        None => {
            let arena = Arena::create(&options())?;
            MADE.get_or_init(|| arena)
        }
    };
    let failed =
        |e: std::io::Error| ShmError::System { call: &"starting the keeper thread", errno: e.raw_os_error().unwrap_or(0) };
    keeper::start(arena, None).map_err(failed)?;
    keeper::wait_until_alive();
    Ok(ARENA.get_or_init(|| arena))
}

/// The arena, if there is one.
pub(crate) fn existing() -> Option<&'static Arena> {
    ARENA.get().copied().filter(|_| !multiproc_sys::robust::forked())
}

/// As [`existing`], also in a process that a plain fork made.
pub(crate) fn made() -> Option<&'static Arena> {
    ARENA.get().copied()
}

/// Maps the inherited arena.
pub(crate) fn inherit(fd: OwnedFd, slot: SlotId) -> Result<&'static Arena, ShmError> {
    let arena = Arena::attach(fd, &options(), slot)?;
    Ok(ARENA.get_or_init(|| arena))
}

/// Whether this program can start workers; the reason if not.
pub(crate) fn check_can_start() -> Result<(), Error> {
    let refuse = |text: &str| Err(Error::new(Kind::NotMainProgram, text));
    if image::is_secure() {
        return refuse("a set-uid program or one with file capabilities starts no workers");
    }
    if !marker::in_main_program() || !image::main_program().is_executable_itself() {
        return refuse(
            "multiproc must be linked into the main program: it was loaded as part of a library, or the program was started through ld.so",
        );
    }
    if !hook::ran() {
        return refuse("multiproc's start-up code did not run in this program");
    }
    if hook::refused() {
        return refuse("this process carries a worker's marker that is not genuine, so it starts no workers");
    }
    Ok(())
}
