//! [`TaskError`] on its way to the process that has submitted the task.

use crate::error::{PoolError, PoolErrorKind, TaskError};
use crate::panics::Panic;
use multiproc_process::{ProcessError, Signal};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// A [`TaskError`] that travels; what has a cause of another library keeps its text.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    Panicked(Panic),
    WorkerDied { pid: u32, cause: Cause, started: bool, out_of_memory: bool, attempts: u32 },
    TimedOut(Duration),
    MemoryLimit { used: u64, limit: u64 },
    Cancelled,
    Unreadable(String),
    Unsendable(String),
    Undecodable(String),
    WouldDeadlock(String),
    Refused(PoolErrorKind, String),
}

/// How a worker died.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Cause {
    Panicked { name: String, pid: u32, panic: Panic },
    Exited { name: String, pid: u32, code: i32 },
    Signaled { name: String, pid: u32, signal: i32, core_dumped: bool },
    StackOverflow { name: String, pid: u32 },
    Unknown { name: String, pid: u32 },
}

impl From<TaskError> for Told {
    fn from(e: TaskError) -> Told {
        match e {
            TaskError::Panicked { message, location, backtrace } => Told::Panicked(Panic { message, location, backtrace }),
            TaskError::WorkerDied { pid, cause, started, out_of_memory, attempts } => {
                Told::WorkerDied { pid, cause: Cause::of(&cause, pid), started, out_of_memory, attempts }
            }
            TaskError::TimedOut { after } => Told::TimedOut(after),
            TaskError::MemoryLimit { used, limit } => Told::MemoryLimit { used, limit },
            TaskError::Cancelled => Told::Cancelled,
            TaskError::Unreadable(why) => Told::Unreadable(why),
            TaskError::Unsendable(why) => Told::Unsendable(why),
            TaskError::Undecodable(why) => Told::Undecodable(why),
            TaskError::WouldDeadlock { circle } => Told::WouldDeadlock(circle),
            TaskError::AlreadyJoined => Told::Undecodable(e.to_string()),
            TaskError::Refused(why) => Told::Refused(why.kind(), why.to_string()),
        }
    }
}

impl From<Told> for TaskError {
    fn from(told: Told) -> TaskError {
        match told {
            Told::Panicked(panic) => panic.into(),
            Told::WorkerDied { pid, cause, started, out_of_memory, attempts } => {
                TaskError::WorkerDied { pid, cause: Arc::new(cause.into_error()), started, out_of_memory, attempts }
            }
            Told::TimedOut(after) => TaskError::TimedOut { after },
            Told::MemoryLimit { used, limit } => TaskError::MemoryLimit { used, limit },
            Told::Cancelled => TaskError::Cancelled,
            Told::Unreadable(why) => TaskError::Unreadable(why),
            Told::Unsendable(why) => TaskError::Unsendable(why),
            Told::Undecodable(why) => TaskError::Undecodable(why),
            Told::WouldDeadlock(circle) => TaskError::WouldDeadlock { circle },
            Told::Refused(kind, text) => TaskError::Refused(PoolError::new(kind, text)),
        }
    }
}

impl Cause {
    fn of(e: &ProcessError, of: u32) -> Cause {
        match e {
            ProcessError::Panicked { name, pid, message, location, backtrace } => {
                let panic = Panic { message: message.clone(), location: location.clone(), backtrace: backtrace.clone() };
                Cause::Panicked { name: name.clone(), pid: *pid, panic }
            }
            ProcessError::Exited { name, pid, code } => Cause::Exited { name: name.clone(), pid: *pid, code: *code },
            ProcessError::Signaled { name, pid, signal, core_dumped } => {
                Cause::Signaled { name: name.clone(), pid: *pid, signal: signal.0, core_dumped: *core_dumped }
            }
            ProcessError::StackOverflow { name, pid } => Cause::StackOverflow { name: name.clone(), pid: *pid },
            ProcessError::Unknown { name, pid } => Cause::Unknown { name: name.clone(), pid: *pid },
            _ => Cause::Unknown { name: format!("(pid {of})"), pid: of },
        }
    }

    fn into_error(self) -> ProcessError {
        match self {
            Cause::Panicked { name, pid, panic: Panic { message, location, backtrace } } => {
                ProcessError::Panicked { name, pid, message, location, backtrace }
            }
            Cause::Exited { name, pid, code } => ProcessError::Exited { name, pid, code },
            Cause::Signaled { name, pid, signal, core_dumped } => {
                ProcessError::Signaled { name, pid, signal: Signal(signal), core_dumped }
            }
            Cause::StackOverflow { name, pid } => ProcessError::StackOverflow { name, pid },
            Cause::Unknown { name, pid } => ProcessError::Unknown { name, pid },
        }
    }
}
