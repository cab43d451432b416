//! The errors of pools: [`TaskError`], how a task ended without a value, and [`PoolError`], why nothing was begun.

use crate::panics::Panic;
use multiproc_channel::PutError;
use multiproc_process::{ProcessError, Signal};
use serde::{Deserialize, Serialize};
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How a task ended without a value. Each task has one outcome: its value, or one of these.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// Its function panicked. The worker goes on. (Where panics abort, the worker dies.)
    #[error("the task panicked at {location}: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
        /// `file:line:column`.
        location: String,
        /// As RUST_BACKTRACE asked for; empty without.
        backtrace: String,
    },
    /// The worker that had it died. Other tasks are not concerned, and the pool starts another worker.
    #[doc(alias = "BrokenProcessPool")]
    #[error("the worker that had the task died{}{}: {cause}", again(*.attempts), hint(*.out_of_memory))]
    WorkerDied {
        /// The worker's pid.
        pid: u32,
        /// How it died; also the error's `source()`.
        #[source]
        cause: Arc<ProcessError>,
        /// Whether the task had been started.
        started: bool,
        /// The kernel's OOM killer is the likely cause: SIGKILL that nobody here has sent, and the system says that it has killed for want of memory.
        out_of_memory: bool,
        /// How often the task was started, this one included.
        attempts: u32,
    },
    /// It ran for longer than it was given, and its worker was killed.
    #[doc(alias = "TimeoutError")]
    #[error("the task was ended after {after:?}, the time it was given")]
    TimedOut {
        /// The time it was given.
        after: Duration,
    },
    /// Its worker used more memory than it may, and was killed.
    #[error("the task's worker was ended: it used {used} bytes of memory of its own, and may use {limit}")]
    MemoryLimit {
        /// Bytes of private memory at that moment.
        used: u64,
        /// The bound.
        limit: u64,
    },
    /// It was cancelled, or its pool terminated.
    #[doc(alias = "CancelledError")]
    #[error("the task was cancelled")]
    Cancelled,
    /// Its arguments did not decode in the worker.
    #[error("the task's arguments could not be decoded: {0}")]
    Unreadable(String),
    /// Its value could not be encoded in the worker.
    #[doc(alias = "MaybeEncodingError")]
    #[error("the task's value could not be encoded: {0}")]
    Unsendable(String),
    /// Its value did not decode here.
    #[error("the task's value could not be decoded: {0}")]
    Undecodable(String),
    /// Whoever waits for it, in a worker of the same pool, would wait for ever: all workers wait for tasks that none of them can begin.
    #[error("the task cannot begin: {circle}")]
    WouldDeadlock {
        /// Who waits for what.
        circle: String,
    },
    /// The outcome has been given out already.
    #[doc(alias = "InvalidStateError")]
    #[error("the task's outcome has been given out already")]
    AlreadyJoined,
    /// It was not submitted; or its pool has ended, or cannot begin.
    #[error(transparent)]
    Refused(#[from] PoolError),
}

impl From<Panic> for TaskError {
    fn from(Panic { message, location, backtrace }: Panic) -> TaskError {
        TaskError::Panicked { message, location, backtrace }
    }
}

fn again(attempts: u32) -> String {
    if attempts > 1 { format!(" (at its {attempts}. attempt)") } else { String::new() }
}

fn hint(out_of_memory: bool) -> &'static str {
    if out_of_memory { ", probably for want of memory" } else { "" }
}

impl TaskError {
    /// The signal that ended the worker, if that was how the task ended.
    pub fn signal(&self) -> Option<Signal> {
        match self {
            TaskError::WorkerDied { cause, .. } => match **cause {
                ProcessError::Signaled { signal, .. } => Some(signal),
                _ => None,
            },
            _ => None,
        }
    }

    /// The exit code of the worker, if it left in the middle of the task.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            TaskError::WorkerDied { cause, .. } => match **cause {
                ProcessError::Exited { code, .. } => Some(code),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it was cancelled.
    #[doc(alias = "cancelled")]
    pub fn is_cancelled(&self) -> bool {
        matches!(self, TaskError::Cancelled)
    }

    /// Whether its time was up.
    pub fn is_timeout(&self) -> bool {
        matches!(self, TaskError::TimedOut { .. })
    }
}

/// Why a pool did not begin what it was asked. Opaque, with predicates.
#[derive(Clone, Debug)]
pub struct PoolError {
    kind: PoolErrorKind,
    text: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PoolErrorKind {
    Closed,
    Full,
    Codec,
    Broken,
    System,
    Invalid,
}

impl PoolError {
    pub(crate) fn new(kind: PoolErrorKind, text: impl Into<String>) -> PoolError {
        PoolError { kind, text: text.into(), source: None }
    }

    pub(crate) fn because(
        kind: PoolErrorKind,
        text: impl Into<String>,
        source: impl StdError + Send + Sync + 'static,
    ) -> PoolError {
        PoolError { kind, text: text.into(), source: Some(Arc::new(source)) }
    }

    pub(crate) fn closed() -> PoolError {
        PoolError::new(PoolErrorKind::Closed, "the pool has been closed")
    }

    /// For a handle that has come along by fork().
    pub(crate) fn of_the_parent() -> PoolError {
        PoolError::new(PoolErrorKind::Invalid, "the pool is of the process that this one was forked from")
    }

    pub(crate) fn full() -> PoolError {
        PoolError::new(PoolErrorKind::Full, "as many tasks as the pool's bound allows are waiting and running")
    }

    /// For a task that did not get into its queue.
    pub(crate) fn not_put(e: PutError<()>) -> PoolError {
        let kind = match () {
            () if e.is_codec() => PoolErrorKind::Codec,
            () if e.is_closed() || e.is_disconnected() => PoolErrorKind::Closed,
            () => PoolErrorKind::System,
        };
        PoolError::because(kind, "the task was not submitted", e)
    }

    pub(crate) fn kind(&self) -> PoolErrorKind {
        self.kind
    }

    /// The pool has been closed or terminated.
    pub fn is_closed(&self) -> bool {
        self.kind == PoolErrorKind::Closed
    }

    /// As many tasks as the pool's bound allows are waiting and running.
    pub fn is_full(&self) -> bool {
        self.kind == PoolErrorKind::Full
    }

    /// The arguments could not be encoded.
    pub fn is_codec(&self) -> bool {
        self.kind == PoolErrorKind::Codec
    }

    /// The pool is of no use any more: its workers cannot begin (the initializer fails, say), or in another process, it has ended.
    #[doc(alias = "BrokenProcessPool")]
    #[doc(alias = "BrokenExecutor")]
    pub fn is_broken(&self) -> bool {
        self.kind == PoolErrorKind::Broken
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl StdError for PoolError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

impl From<multiproc_process::Error> for PoolError {
    fn from(e: multiproc_process::Error) -> PoolError {
        let kind = if e.is_codec() { PoolErrorKind::Codec } else { PoolErrorKind::System };
        PoolError::because(kind, "no worker can be started", e)
    }
}

impl From<multiproc_shm::Error> for PoolError {
    fn from(e: multiproc_shm::Error) -> PoolError {
        PoolError::because(PoolErrorKind::System, "the shared arena refused", e)
    }
}
