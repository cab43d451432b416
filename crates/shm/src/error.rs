//! What can go wrong on this floor.

use multiproc_sys::robust::Unusable;
use std::fmt;

/// A constant text behind a thin pointer.
pub type Text = &'static &'static str;

/// What an arena could not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What was asked for, in bytes.
    pub wanted: u64,
    /// The arena's limit, in bytes.
    pub limit: u64,
}

/// Why the arena refused. Two words, so that hot paths return it in registers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The arena's own limit, or a table of it, is used up.
    OutOfMemory(Box<Shortage>),
    /// A table of fixed size is full: objects, roster slots, leases.
    Full(Text),
    /// Shared memory holds what no correct process writes.
    Corrupted(Text),
    /// The process was made by a plain `fork()`, so nothing shared may be touched from it until it has called `after_fork_child()`.
    Forked,
    /// The thread holds more locks than the kernel would release at its death.
    TooManyLocks,
    /// The system refused; the text names the call.
    System {
        /// The system call or resource.
        call: Text,
        /// errno.
        errno: i32,
    },
    /// An argument is out of its range; the text says which.
    Invalid(Text),
    /// No arena can be had in this process; the text says why.
    Unavailable(Text),
}

impl Error {
    #[cold]
    pub(crate) fn out_of_memory(wanted: u64, limit: u64) -> Error {
        Error::OutOfMemory(Box::new(Shortage { wanted, limit }))
    }

    #[cold]
    pub(crate) fn system(call: Text, error: &std::io::Error) -> Error {
        Error::System { call, errno: error.raw_os_error().unwrap_or(0) }
    }
}

const _: () = assert!(size_of::<Error>() == 16);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::OutOfMemory(short) => {
                write!(f, "the shared arena cannot give {} more bytes: its limit is {} bytes", short.wanted, short.limit)
            }
            Error::Full(what) => write!(f, "no more {what} fit into the shared arena"),
            Error::Corrupted(what) => write!(f, "shared memory is corrupted: {what}"),
            Error::Forked => {
                f.write_str("this process was made by fork(): shared objects cannot be used in it before after_fork_child()")
            }
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
            Unusable::NoRobustList => Error::Unavailable(&"libc's robust list cannot be used on this system"),
            Unusable::TooManyHeld => Error::TooManyLocks,
        }
    }
}
