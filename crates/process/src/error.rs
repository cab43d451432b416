//! The errors of this floor: [`Error`] for what could not be begun, [`ProcessError`] for how a process ended instead of returning.

use crate::signal::Signal;
use multiproc_channel::CodecError;
use std::error::Error as StdError;
use std::fmt;

/// Why a process could not be started, or an operation on one not be done. Opaque, with predicates.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    text: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    NotMainProgram,
    Codec,
    System,
    Resources,
    Ended,
    Exiting,
    Invalid,
}

impl Error {
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Error {
        Error { kind, text: text.into(), source: None }
    }

    pub(crate) fn because(kind: Kind, text: impl Into<String>, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error { kind, text: text.into(), source: Some(source.into()) }
    }

    /// The process had already ended.
    pub fn is_ended(&self) -> bool {
        self.kind == Kind::Ended
    }

    /// This program cannot start workers at all: the library is not part of the main program, or it runs set-uid.
    pub fn is_unsupported(&self) -> bool {
        self.kind == Kind::NotMainProgram
    }

    /// Memory, processes or descriptors are used up.
    pub fn is_out_of_resources(&self) -> bool {
        self.kind == Kind::Resources
    }

    /// The arguments could not be encoded.
    pub fn is_codec(&self) -> bool {
        self.kind == Kind::Codec
    }

    /// The calling process is about to exit and starts no more children.
    pub fn is_exiting(&self) -> bool {
        self.kind == Kind::Exiting
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

impl From<multiproc_shm::Error> for Error {
    fn from(e: multiproc_shm::Error) -> Error {
        use multiproc_shm::Error as Shm;
        let kind = match e {
            Shm::OutOfMemory(_) | Shm::Full(_) => Kind::Resources,
            // EAGAIN, ENOMEM, ENFILE, EMFILE.
            Shm::System { errno: 11 | 12 | 23 | 24, .. } => Kind::Resources,
            Shm::Unavailable(_) => Kind::NotMainProgram,
            _ => Kind::System,
        };
        Error::because(kind, "the shared arena refused", e)
    }
}

/// No process is its own child.
fn who(pid: u32) -> &'static str {
    if pid == std::process::id() { "thread" } else { "process" }
}

/// How a process ended instead of returning a value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The function panicked, or a panic aborted the process.
    #[error("{} {name} (pid {pid}) panicked at {location}: {message}", who(*pid))]
    Panicked {
        /// The process's name.
        name: String,
        /// Its id; the calling process's own if it was one of its [threads](crate::threads).
        pid: u32,
        /// The panic's message.
        message: String,
        /// `file:line:column`.
        location: String,
        /// As RUST_BACKTRACE asked for; empty without.
        backtrace: String,
    },
    /// It left by `std::process::exit` or `_exit` before the function returned.
    #[error("process {name} (pid {pid}) exited with code {code} before its function returned")]
    Exited {
        /// The process's name.
        name: String,
        /// Its id.
        pid: u32,
        /// Its exit code.
        code: i32,
    },
    /// A signal ended it.
    #[error("process {name} (pid {pid}) was ended by {signal}")]
    Signaled {
        /// The process's name.
        name: String,
        /// Its id.
        pid: u32,
        /// Which.
        signal: Signal,
        /// Whether a core was dumped.
        core_dumped: bool,
    },
    /// The main thread's stack was used up.
    #[error("process {name} (pid {pid}) overflowed its stack")]
    StackOverflow {
        /// The process's name.
        name: String,
        /// Its id.
        pid: u32,
    },
    /// It ended before its function began.
    #[error("process {name} (pid {pid}) did not get to its function: {reason}")]
    NotStarted {
        /// The process's name.
        name: String,
        /// Its id.
        pid: u32,
        /// Why.
        reason: String,
    },
    /// It ended, and nobody can say how: somebody else waited for it on a kernel before 6.15.
    #[error("process {name} (pid {pid}) ended in an unknown way")]
    Unknown {
        /// The process's name.
        name: String,
        /// Its id.
        pid: u32,
    },
    /// Its return value could not be encoded there.
    #[error("the return value of process {name} could not be encoded: {reason}")]
    Unsendable {
        /// The process's name.
        name: String,
        /// Why.
        reason: String,
    },
    /// Its return value could not be decoded here.
    #[error("the return value of process {name} could not be decoded")]
    Undecodable {
        /// The process's name.
        name: String,
        /// Why.
        source: CodecError,
    },
    /// The value has been fetched before.
    #[error("{name} was joined before")]
    AlreadyJoined {
        /// The process's name.
        name: String,
    },
}
