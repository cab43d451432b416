//! What can go wrong on this floor.

use multiproc_sys::robust::Unusable;
use std::fmt;

/// Why the arena refused. Small, so that hot paths may return it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The arena's own limit, or a table of it, is used up.
    OutOfMemory {
        /// What was asked for, in bytes.
        wanted: u64,
        /// The arena's limit, in bytes.
        limit: u64,
    },
    /// A table of fixed size is full: objects, roster slots, leases.
    Full(&'static str),
    /// Shared memory holds what no correct process writes.
    Corrupted(&'static str),
    /// The process was made by a plain `fork()`, so nothing shared may be touched from it.
    Forked,
    /// The thread holds more locks than the kernel would release at its death.
    TooManyLocks,
    /// The system refused; the text names the call.
    System {
        /// The system call or resource.
        call: &'static str,
        /// errno.
        errno: i32,
    },
    /// An argument is out of its range; the text says which.
    Invalid(&'static str),
    /// No arena can be had in this process; the text says why.
    Unavailable(&'static str),
}

impl Error {
    pub(crate) fn system(call: &'static str, error: &std::io::Error) -> Error {
        Error::System { call, errno: error.raw_os_error().unwrap_or(0) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::OutOfMemory { wanted, limit } => {
                write!(f, "the shared arena cannot give {wanted} more bytes: its limit is {limit} bytes")
            }
            Error::Full(what) => write!(f, "no more {what} fit into the shared arena"),
            Error::Corrupted(what) => write!(f, "shared memory is corrupted: {what}"),
            Error::Forked => f.write_str("this process was made by fork(): shared objects cannot be used in it"),
            Error::TooManyLocks => {
                f.write_str("this thread holds too many locks: the kernel releases at most 1,900 of a dead thread")
            }
            Error::System { call, errno } => write!(f, "{call}: {}", std::io::Error::from_raw_os_error(*errno)),
            Error::Unavailable(why) | Error::Invalid(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

impl From<Unusable> for Error {
    fn from(why: Unusable) -> Error {
        match why {
            Unusable::Forked => Error::Forked,
            Unusable::NoRobustList => Error::Unavailable("libc's robust list cannot be used on this system"),
            Unusable::TooManyHeld => Error::TooManyLocks,
        }
    }
}
