//! Floor 0 of multiproc: the system calls it stands on, one module per family.
//!
//! Everything here speaks of words, descriptors, pids and bytes; no type of the floors above is known.
//! What is particular to Linux lives here and nowhere else. This crate is internal to multiproc and makes
//! no semver promise.
//!
//! Reading order: [`probe`] (what kernels differ in) -> [`clock`] -> [`futex`] -> [`futex_waitv`] -> [`membarrier`] -> [`robust`] (what the kernel does
//! when a thread dies) ->
//! [`memfd`] -> [`own_fd`] -> [`named`] (files in `/dev/shm`) -> [`pidfd`] -> [`tie`] -> [`presence`] -> [`spawn`] -> [`image`] -> [`seal`] -> [`signal`] -> [`bell`] -> [`caught`] -> [`thread`] -> [`poll`] -> [`stream`] ->
//! [`signal_watch`] -> [`limits`] -> [`crash`] and [`age`] (for tests; `interpreted` stands in for the kernel under Miri) -> [`task`] and [`debugger`] (for reports and for who debugs).

// Miri goes its own ways early.
#![cfg_attr(miri, allow(dead_code, unreachable_code, unused_imports, unused_variables))]

pub mod age;
pub mod bell;
pub mod cache;
pub mod caught;
pub mod clock;
pub mod crash;
pub mod debugger;
pub mod futex;
pub mod futex_waitv;
pub mod image;
pub mod inherit;
#[cfg(miri)]
mod interpreted;
pub mod limits;
pub mod membarrier;
pub mod memfd;
pub mod memory;
pub mod named;
pub mod own_fd;
pub mod pidfd;
pub mod poll;
pub mod presence;
pub mod probe;
pub mod robust;
pub mod seal;
pub mod signal;
pub mod signal_watch;
pub mod spawn;
pub mod spin;
pub mod stream;
pub mod task;
pub mod thread;
pub mod tie;
