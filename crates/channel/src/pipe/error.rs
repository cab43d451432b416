//! The errors of pipes: small, and those of sending hand the value back.

use super::turn::NotMine;
use crate::codec::CodecError;
use crate::message::{OpenFailed, PackFailed};
use multiproc_shm::Error as ShmError;
use std::error::Error as StdError;
use std::fmt;

/// Why a value was not sent. The value is inside: [`into_inner`](SendError::into_inner).
pub struct SendError<T> {
    value: T,
    why: SendFailed,
}

/// Why a value was not sent.
#[derive(Debug)]
pub(crate) enum SendFailed {
    WouldBlock,
    TimedOut,
    Closed,
    /// The pid, if the process at the other end has died.
    BrokenPipe(Option<u32>),
    InUse(u32),
    /// The limit, in bytes.
    TooLarge(u64),
    Codec(CodecError),
    Shared(ShmError),
}

/// Why this process cannot use an end.
#[derive(Debug)]
pub(crate) enum Refused {
    InUse(u32),
    /// Its last user is dying, and the caller would not wait so long.
    NotYet(NotMine),
    Closed,
    Failed(ShmError),
}

impl<T> SendError<T> {
    pub(crate) fn new(value: T, why: SendFailed) -> SendError<T> {
        SendError { value, why }
    }

    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// There was no room, or another thread of this process was sending, and the caller would not wait.
    pub fn is_would_block(&self) -> bool {
        matches!(self.why, SendFailed::WouldBlock)
    }

    /// Time was up.
    pub fn is_timeout(&self) -> bool {
        matches!(self.why, SendFailed::TimedOut)
    }

    /// Nobody will receive it: the other end is closed, or everybody who could use it is gone, or its user has died.
    #[doc(alias = "BrokenPipeError")]
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self.why, SendFailed::BrokenPipe(_))
    }

    /// The process at the other end, if the pipe is broken because it has died.
    pub fn peer_died(&self) -> Option<u32> {
        match self.why {
            SendFailed::BrokenPipe(died) => died,
            _ => None,
        }
    }

    /// This end has been closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.why, SendFailed::Closed)
    }

    /// The process that uses this end, if that is another one.
    pub fn in_use_by(&self) -> Option<u32> {
        match self.why {
            SendFailed::InUse(pid) => Some(pid),
            _ => None,
        }
    }

    /// The encoded value is larger than the pipe takes.
    pub fn is_too_large(&self) -> bool {
        matches!(self.why, SendFailed::TooLarge(_))
    }

    /// The value cannot be encoded.
    pub fn is_codec(&self) -> bool {
        matches!(self.why, SendFailed::Codec(_))
    }

    /// The shared arena has reached its limit.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self.why, SendFailed::Shared(ShmError::OutOfMemory(_)))
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").field("why", &self.why).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            SendFailed::WouldBlock => f.write_str("the pipe has no room at present"),
            SendFailed::TimedOut => f.write_str("the pipe had no room until the time was up"),
            SendFailed::Closed => f.write_str("this end of the pipe is closed"),
            SendFailed::BrokenPipe(None) => f.write_str("the other end of the pipe is closed"),
            SendFailed::BrokenPipe(Some(pid)) => write!(f, "process {pid} at the other end of the pipe has died"),
            SendFailed::InUse(pid) => write!(f, "this end of the pipe is in use by process {pid}"),
            SendFailed::TooLarge(limit) => write!(f, "the message is larger than the {limit} bytes that the pipe takes"),
            SendFailed::Codec(e) => e.fmt(f),
            SendFailed::Shared(e) => e.fmt(f),
        }
    }
}

impl<T> StdError for SendError<T> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.why {
            SendFailed::Codec(e) => e.source(),
            SendFailed::Shared(e) => Some(e),
            _ => None,
        }
    }
}

/// Why nothing was received.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecvError {
    /// Nothing more will come: the other end is closed, or everybody who had it has dropped it. All that was sent has been received.
    #[doc(alias = "EOFError")]
    Eof,
    /// The process that used the other end has died, and all that it had sent has been received. So it is too with one that has exited without
    /// dropping its handles, if others have some; if nobody has, that is [`Eof`](RecvError::Eof).
    ///
    /// Each call says so until another process uses the end, and once more behind the dead one's messages when that has happened: who starts a
    /// successor for each death compares the pid.
    #[non_exhaustive]
    PeerDied {
        /// Its process id.
        pid: u32,
    },
    /// Another process uses this end. It can be used here when that process has dropped it, or has died.
    #[non_exhaustive]
    InUse {
        /// Its process id.
        pid: u32,
    },
    /// This end has been closed.
    Closed,
    /// Nothing was there, or another thread of this process was receiving, and the caller would not wait.
    WouldBlock,
    /// Time was up.
    TimedOut,
    /// A message came that is no value of the expected type. It is gone; the pipe goes on.
    Decode(CodecError),
    /// Shared memory refused.
    Shared(ShmError),
}

impl RecvError {
    /// Nothing will come for now from the other end: its end, or the death of who used it.
    pub fn is_end(&self) -> bool {
        matches!(self, RecvError::Eof | RecvError::PeerDied { .. } | RecvError::Closed)
    }

    /// Time was up.
    pub fn is_timeout(&self) -> bool {
        matches!(self, RecvError::TimedOut)
    }

    /// Nothing was there, and the caller would not wait.
    pub fn is_would_block(&self) -> bool {
        matches!(self, RecvError::WouldBlock)
    }

    /// The process that used the other end, if it has died.
    pub fn peer_died(&self) -> Option<u32> {
        match self {
            RecvError::PeerDied { pid } => Some(*pid),
            _ => None,
        }
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::Eof => f.write_str("the other end of the pipe is closed, and everything has been received"),
            RecvError::PeerDied { pid } => write!(f, "process {pid} at the other end of the pipe has died"),
            RecvError::InUse { pid } => write!(f, "this end of the pipe is in use by process {pid}"),
            RecvError::Closed => f.write_str("this end of the pipe is closed"),
            RecvError::WouldBlock => f.write_str("nothing has arrived"),
            RecvError::TimedOut => f.write_str("nothing arrived until the time was up"),
            RecvError::Decode(e) => e.fmt(f),
            RecvError::Shared(e) => e.fmt(f),
        }
    }
}

impl StdError for RecvError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            RecvError::Decode(e) => e.source(),
            RecvError::Shared(e) => Some(e),
            _ => None,
        }
    }
}

impl From<ShmError> for SendFailed {
    fn from(e: ShmError) -> SendFailed {
        SendFailed::Shared(e)
    }
}

impl From<PackFailed> for SendFailed {
    fn from(why: PackFailed) -> SendFailed {
        match why {
            PackFailed::TooLarge(limit) => SendFailed::TooLarge(limit),
            PackFailed::Codec(e) => SendFailed::Codec(e),
            PackFailed::Shared(e) => SendFailed::Shared(e),
        }
    }
}

impl From<ShmError> for RecvError {
    fn from(e: ShmError) -> RecvError {
        RecvError::Shared(e)
    }
}

impl From<OpenFailed> for RecvError {
    fn from(why: OpenFailed) -> RecvError {
        match why {
            OpenFailed::Codec(e) => RecvError::Decode(e),
            OpenFailed::Shared(e) => RecvError::Shared(e),
        }
    }
}

impl From<ShmError> for Refused {
    fn from(e: ShmError) -> Refused {
        Refused::Failed(e)
    }
}
