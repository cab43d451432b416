//! [`SharedMemoryError`]: what can go wrong with a named segment, with its name.

use std::error::Error;
use std::fmt;
use std::io;

/// Why an operation on a named segment failed. Opaque, with predicates; its text names the segment.
#[derive(Debug)]
pub struct SharedMemoryError {
    name: String,
    kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    NotFound,
    Exists,
    Denied,
    Truncated { size: u64, now: u64 },
    Beyond { at: u64, len: u64, size: u64 },
    Invalid(&'static str),
    Corrupted(&'static str),
    Closed,
    Busy,
    System { call: &'static str, source: io::Error },
}

impl SharedMemoryError {
    pub(crate) fn new(name: impl Into<String>, kind: Kind) -> SharedMemoryError {
        SharedMemoryError { name: name.into(), kind }
    }

    /// From what the system said to `call`.
    pub(crate) fn system(name: &str, call: &'static str, e: io::Error) -> SharedMemoryError {
        let kind = match e.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::AlreadyExists => Kind::Exists,
            io::ErrorKind::PermissionDenied => Kind::Denied,
            // EBADF: the program has closed all descriptors, ours among them.
            _ if e.raw_os_error() == Some(9) => Kind::Closed,
            _ => Kind::System { call, source: e },
        };
        SharedMemoryError::new(name, kind)
    }

    /// The segment's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// There is no segment of that name, or not any more. Python: `FileNotFoundError`.
    pub fn is_not_found(&self) -> bool {
        matches!(self.kind, Kind::NotFound)
    }

    /// There is one already. Python: `FileExistsError`.
    pub fn is_already_exists(&self) -> bool {
        matches!(self.kind, Kind::Exists)
    }

    /// It belongs to another user. Python: `PermissionError`.
    pub fn is_permission_denied(&self) -> bool {
        matches!(self.kind, Kind::Denied)
    }

    /// Another program has made it smaller since it was opened.
    pub fn is_truncated(&self) -> bool {
        matches!(self.kind, Kind::Truncated { .. })
    }

    /// An argument is no possible one: a name, a size, a place, an index, a value. Python: `ValueError`, `IndexError`.
    pub fn is_invalid(&self) -> bool {
        matches!(self.kind, Kind::Invalid(_) | Kind::Beyond { .. })
    }

    /// What is in there is not what it is said to be.
    pub fn is_corrupted(&self) -> bool {
        matches!(self.kind, Kind::Corrupted(_))
    }
}

impl fmt::Display for SharedMemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shared memory {:?}: ", self.name)?;
        match &self.kind {
            Kind::NotFound => f.write_str("there is none of that name"),
            Kind::Exists => f.write_str("there is one of that name already"),
            Kind::Denied => f.write_str("it belongs to another user"),
            Kind::Truncated { size, now } => write!(f, "another program has cut it from {size} to {now} bytes"),
            Kind::Beyond { at, len, size } => write!(f, "{len} bytes at {at} are beyond its {size}"),
            Kind::Invalid(why) | Kind::Corrupted(why) => f.write_str(why),
            Kind::Closed => f.write_str("the program has closed its descriptor"),
            Kind::Busy => f.write_str("another process is in the middle of persisting or unlinking it, stopped perhaps"),
            Kind::System { call, source } => write!(f, "{call}: {source}"),
        }
    }
}

impl Error for SharedMemoryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.kind {
            Kind::System { source, .. } => Some(source),
            _ => None,
        }
    }
}
