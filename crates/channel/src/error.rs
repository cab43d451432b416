//! The errors of queues: small, and those of putting hand the value back.

use crate::codec::CodecError;
use crate::message::{OpenFailed, PackFailed};
use multiproc_shm::Error as ShmError;
use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fmt;

/// Why a value was not put. The value is inside: [`into_inner`](PutError::into_inner).
pub struct PutError<T> {
    value: T,
    why: PutFailed,
}

/// Why a value was not put.
#[derive(Debug)]
pub(crate) enum PutFailed {
    Full,
    WouldBlock,
    TimedOut,
    Closed,
    Disconnected,
    /// The limit, in bytes.
    TooLarge(u64),
    Codec(CodecError),
    Shared(ShmError),
}

impl<T> PutError<T> {
    pub(crate) fn new(value: T, why: PutFailed) -> PutError<T> {
        PutError { value, why }
    }

    /// The value that was not put.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// The queue was full, and the caller would not wait.
    pub fn is_full(&self) -> bool {
        matches!(self.why, PutFailed::Full)
    }

    /// Another process was putting at that moment, and the caller would not wait.
    pub fn is_would_block(&self) -> bool {
        matches!(self.why, PutFailed::WouldBlock)
    }

    /// Time was up.
    pub fn is_timeout(&self) -> bool {
        matches!(self.why, PutFailed::TimedOut)
    }

    /// The queue has been closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.why, PutFailed::Closed)
    }

    /// Nobody is left who could get it.
    pub fn is_disconnected(&self) -> bool {
        matches!(self.why, PutFailed::Disconnected)
    }

    /// The encoded value is larger than the queue takes.
    pub fn is_too_large(&self) -> bool {
        matches!(self.why, PutFailed::TooLarge(_))
    }

    /// The value cannot be encoded.
    pub fn is_codec(&self) -> bool {
        matches!(self.why, PutFailed::Codec(_))
    }

    /// The shared arena has reached its limit.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self.why, PutFailed::Shared(ShmError::OutOfMemory(_)))
    }
}

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutError").field("why", &self.why).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            PutFailed::Full => f.write_str("the queue is full"),
            PutFailed::WouldBlock => f.write_str("another process is putting into the queue"),
            PutFailed::TimedOut => f.write_str("the queue stayed full until the time was up"),
            PutFailed::Closed => f.write_str("the queue is closed"),
            PutFailed::Disconnected => f.write_str("nobody is left who could get from the queue"),
            PutFailed::TooLarge(limit) => write!(f, "the message is larger than the {limit} bytes that the queue takes"),
            PutFailed::Codec(e) => e.fmt(f),
            PutFailed::Shared(e) => e.fmt(f),
        }
    }
}

impl<T> StdError for PutError<T> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.why {
            PutFailed::Codec(e) => e.source(),
            PutFailed::Shared(e) => Some(e),
            _ => None,
        }
    }
}

/// Why not all of many values were put: see [`Queue::put_many`](crate::Queue::put_many).
pub struct PutManyError<I: Iterator>(Box<PutMany<I>>);

struct PutMany<I: Iterator> {
    put: usize,
    error: PutError<()>,
    taken: VecDeque<I::Item>,
    rest: I,
}

/// What of many values was not put, in order: see [`PutManyError::into_rest`].
pub type Rest<I> = std::iter::Chain<std::collections::vec_deque::IntoIter<<I as Iterator>::Item>, I>;

impl<I: Iterator> PutManyError<I> {
    pub(crate) fn new(put: usize, why: PutFailed, taken: VecDeque<I::Item>, rest: I) -> PutManyError<I> {
        PutManyError(Box::new(PutMany { put, error: PutError::new((), why), taken, rest }))
    }

    /// How many were put before: the first of them.
    pub fn put(&self) -> usize {
        self.0.put
    }

    /// Why the next one was not.
    pub fn error(&self) -> &PutError<()> {
        &self.0.error
    }

    /// The values that were not put, from the one that failed on, and what the iterator still gives.
    pub fn into_rest(self) -> Rest<I> {
        self.0.taken.into_iter().chain(self.0.rest)
    }

    /// Why, without the values.
    pub fn into_error(self) -> PutError<()> {
        self.0.error
    }
}

impl<I: Iterator> fmt::Debug for PutManyError<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutManyError").field("put", &self.0.put).field("error", &self.0.error).finish_non_exhaustive()
    }
}

impl<I: Iterator> fmt::Display for PutManyError<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, after {} had been put", self.0.error, self.0.put)
    }
}

impl<I: Iterator> StdError for PutManyError<I> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.error.source()
    }
}

/// Why nothing was got.
#[derive(Debug)]
#[non_exhaustive]
pub enum GetError {
    /// The queue was empty, and the caller would not wait.
    Empty,
    /// Another process was getting at that moment, and the caller would not wait.
    WouldBlock,
    /// Time was up.
    TimedOut,
    /// The queue has been closed and is drained.
    Closed,
    /// The queue is drained, and nobody is left who could put.
    Disconnected,
    /// A message came that is no value of the expected type. It is gone; the queue goes on.
    Decode(CodecError),
    /// As many leases are out as the queue keeps.
    TooManyLeases,
    /// Shared memory refused.
    Shared(ShmError),
}

impl GetError {
    /// Nothing will ever come: closed, or nobody left who could put.
    pub fn is_end(&self) -> bool {
        matches!(self, GetError::Closed | GetError::Disconnected)
    }

    /// The queue was empty, and the caller would not wait.
    pub fn is_empty(&self) -> bool {
        matches!(self, GetError::Empty)
    }

    /// Time was up.
    pub fn is_timeout(&self) -> bool {
        matches!(self, GetError::TimedOut)
    }
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GetError::Empty => f.write_str("the queue is empty"),
            GetError::WouldBlock => f.write_str("another process is getting from the queue"),
            GetError::TimedOut => f.write_str("the queue stayed empty until the time was up"),
            GetError::Closed => f.write_str("the queue is closed and drained"),
            GetError::Disconnected => f.write_str("the queue is drained and nobody is left who could put into it"),
            GetError::Decode(e) => e.fmt(f),
            GetError::TooManyLeases => f.write_str("too many leases of the queue are out"),
            GetError::Shared(e) => e.fmt(f),
        }
    }
}

impl StdError for GetError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            GetError::Decode(e) => e.source(),
            GetError::Shared(e) => Some(e),
            _ => None,
        }
    }
}

/// Why [`Queue::join`](crate::Queue::join) has not seen everything finished.
#[derive(Debug)]
#[non_exhaustive]
pub enum JoinError {
    /// Time was up.
    TimedOut,
    /// Messages wait, or have come back from their leases, and nobody is left who could get them.
    Disconnected,
    /// Shared memory refused.
    Shared(ShmError),
}

impl JoinError {
    /// Time was up.
    pub fn is_timeout(&self) -> bool {
        matches!(self, JoinError::TimedOut)
    }

    /// Nobody is left who could get what waits.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, JoinError::Disconnected)
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::TimedOut => f.write_str("messages of the queue were unfinished until the time was up"),
            JoinError::Disconnected => f.write_str("messages of the queue are unfinished and nobody is left who could get them"),
            JoinError::Shared(e) => e.fmt(f),
        }
    }
}

impl StdError for JoinError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            JoinError::Shared(e) => Some(e),
            _ => None,
        }
    }
}

impl From<ShmError> for JoinError {
    fn from(e: ShmError) -> JoinError {
        JoinError::Shared(e)
    }
}

impl From<ShmError> for PutFailed {
    fn from(e: ShmError) -> PutFailed {
        PutFailed::Shared(e)
    }
}

impl From<PackFailed> for PutFailed {
    fn from(why: PackFailed) -> PutFailed {
        match why {
            PackFailed::TooLarge(limit) => PutFailed::TooLarge(limit),
            PackFailed::Codec(e) => PutFailed::Codec(e),
            PackFailed::Shared(e) => PutFailed::Shared(e),
        }
    }
}

impl From<OpenFailed> for GetError {
    fn from(why: OpenFailed) -> GetError {
        match why {
            OpenFailed::Codec(e) => GetError::Decode(e),
            OpenFailed::Shared(e) => GetError::Shared(e),
        }
    }
}

impl From<ShmError> for GetError {
    fn from(e: ShmError) -> GetError {
        GetError::Shared(e)
    }
}
