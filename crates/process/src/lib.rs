//! Floor 4 of multiproc: processes. How a function gets into another process, how its end becomes known, how a tree ends.
//!
//! Internal to multiproc, no semver promise. Reading order:
//!
//! - [`args`]: what can be run, and with what; [`signal`], [`stdio`], [`error`]: the small types;
//! - `tree`: the arena of this process's tree; `marker`: what a child is told; `job`: what it shall do;
//! - `keeper`: the one thread that starts, watches and reaps; `start`: the start method;
//! - `child`: what a parent knows of a child; [`process`]: the handle; [`builder`]: the settings, and the start;
//! - `hook`: how a child gets from `.init_array` to `worker`, which runs the job; `panics`: its last words;
//! - `lines`: children's output line by line;
//! - `bridge` (a feature): workers' tracing events;
//! - `forked`: processes that a plain fork made;
//! - [`threads`]: threads in the shape of processes;
//! - `exit`: how a process with children ends; `shutdown`: ending the tree in order; [`current`]: who am I, who are they;
//! - `dump`: what everybody holds and waits for, with `circles`; `dump_on`: the same on a signal; `halt`: waiting for a debugger.

pub mod args;
#[cfg(feature = "tracing-bridge")]
mod bridge;
pub mod builder;
mod child;
mod circles;
pub mod current;
mod dump;
mod dump_on;
pub mod error;
mod exit;
mod forked;
mod halt;
mod hook;
mod job;
mod keeper;
mod lines;
mod marker;
mod panics;
pub mod process;
mod replaceable;
mod shutdown;
pub mod signal;
mod start;
pub mod stdio;
#[doc(hidden)]
pub mod testing;
pub mod threads;
mod tree;
mod worker;

pub use args::{Args, Run};
#[cfg(feature = "tracing-bridge")]
pub use bridge::{TracingBridge, current_span, parent_span, set_parent_span, tracing_bridge};
pub use builder::Builder;
pub use current::{ChildInfo, ProcessInfo, active_children, cpu_count, current_process, parent_process};
pub use dump::{Circle, CircleLink, Dump, HoldReport, ProcessReport, ProcessState, WaitReport, dump};
pub use dump_on::dump_on;
pub use error::{Error, ProcessError};
pub use exit::exit_grace;
pub use forked::after_fork_child;
pub use hook::init;
pub use lines::Lines;
#[doc(hidden)]
pub use panics::forget_panic;
pub use process::Process;
pub use shutdown::{ChildEnd, Shutdown, shutdown, shutdown_on};
pub use signal::Signal;
pub use start::StartMethod;
pub use stdio::Stdio;
pub use tree::{MemoryUsage, memory_usage, set_memory_limit, stats};
pub use worker::worker_init;
