//! Threads in the shape of processes. The facade's module of this name says when to take which.
//!
//! `twin` is what a thread and its handles share, and the list of those that run, for which the program's exit waits; `handle` has the API.

mod handle;
mod twin;

pub use handle::{Builder, Process, ThreadInfo, active_children, current_process, spawn};
pub(crate) use twin::{await_all, begin_another_life, is_current, look_again};
