//! The errors of this floor: small and `'static`, so `?` works everywhere.

use multiproc_shm::Error as ShmError;
use multiproc_shm::raw::LockFailed;
use std::fmt;

/// The process that died while it held a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Death {
    /// Its id; 0 if it died in the instant before it had left its name. The process may live: a *thread* that ends while a forgotten guard holds
    /// the lock counts as dead, too.
    pub pid: u32,
}

/// Why a lock was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockError {
    /// An owner died with the lock. It is free, and says this to everybody until somebody calls [`Lock::recover`](crate::Lock::recover). The first who finds it has it told
    /// as a `tracing` event, too.
    OwnerDied(Death),
    /// The calling thread has the lock.
    WouldDeadlock,
    /// Somebody has the lock, and the caller would not wait.
    WouldBlock,
    /// Time was up.
    TimedOut,
    /// The guard is not one of the lock that belongs to the [`Condition`](crate::Condition).
    NotOwned,
    /// Shared memory refused, or holds no value of the type.
    Shared(ShmError),
}

impl LockError {
    pub(crate) fn from_raw(why: LockFailed) -> LockError {
        match why {
            LockFailed::TimedOut => LockError::TimedOut,
            LockFailed::Held => LockError::WouldBlock,
            LockFailed::WouldDeadlock => LockError::WouldDeadlock,
            LockFailed::Unusable(why) => LockError::Shared(why.into()),
        }
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::OwnerDied(Death { pid: 0 }) => {
                f.write_str("a process died while it held the lock: call `recover()` to go on")
            }
            LockError::OwnerDied(death) => {
                write!(f, "process {} died while it held the lock: call `recover()` to go on", death.pid)
            }
            LockError::WouldDeadlock => f.write_str("this thread holds the lock already"),
            LockError::WouldBlock => f.write_str("the lock is held"),
            LockError::TimedOut => f.write_str("the lock was held until the time was up"),
            LockError::NotOwned => f.write_str("the condition belongs to another lock than the one that is held"),
            LockError::Shared(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for LockError {}

impl From<ShmError> for LockError {
    fn from(e: ShmError) -> LockError {
        LockError::Shared(e)
    }
}

/// Why a permit was not got, or an event not awaited.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcquireError {
    /// No permit is free, and the caller would not wait.
    WouldBlock,
    /// Time was up.
    TimedOut,
    /// Shared memory refused.
    Shared(ShmError),
}

impl AcquireError {
    pub(crate) fn from_raw(why: LockFailed) -> AcquireError {
        match why {
            LockFailed::TimedOut => AcquireError::TimedOut,
            LockFailed::Held | LockFailed::WouldDeadlock => AcquireError::WouldBlock,
            LockFailed::Unusable(why) => AcquireError::Shared(why.into()),
        }
    }
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcquireError::WouldBlock => f.write_str("no permit is free"),
            AcquireError::TimedOut => f.write_str("no permit became free until the time was up"),
            AcquireError::Shared(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for AcquireError {}

impl From<ShmError> for AcquireError {
    fn from(e: ShmError) -> AcquireError {
        AcquireError::Shared(e)
    }
}

/// Why a [`SignalSemaphore`](crate::SignalSemaphore) was not released.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReleaseError {
    /// Its value would have risen above this bound. It is as it was.
    BeyondBound(u32),
    /// Shared memory refused.
    Shared(ShmError),
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReleaseError::BeyondBound(bound) => write!(f, "released too often: the semaphore's bound is {bound}"),
            ReleaseError::Shared(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for ReleaseError {}

impl From<ShmError> for ReleaseError {
    fn from(e: ShmError) -> ReleaseError {
        ReleaseError::Shared(e)
    }
}

/// Why a [`Barrier`](crate::Barrier) did not open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BarrierError {
    /// It is broken: by a death, a time-out, [`abort`](crate::Barrier::abort) or [`reset`](crate::Barrier::reset), or a panic in the action.
    #[non_exhaustive]
    Broken {
        /// The process that took part and has ended, if that is why.
        died: Option<u32>,
    },
    /// Time was up, and with that the barrier is broken for those who have come to the same round.
    TimedOut,
    /// Shared memory refused.
    Shared(ShmError),
}

impl fmt::Display for BarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BarrierError::Broken { died: None } => f.write_str("the barrier is broken"),
            BarrierError::Broken { died: Some(pid) } => {
                write!(f, "the barrier is broken: process {pid}, which took part, has ended")
            }
            BarrierError::TimedOut => f.write_str("not all had come to the barrier when the time was up"),
            BarrierError::Shared(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for BarrierError {}

impl From<ShmError> for BarrierError {
    fn from(e: ShmError) -> BarrierError {
        BarrierError::Shared(e)
    }
}
