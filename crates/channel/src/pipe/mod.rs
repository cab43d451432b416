//! Pipes: two ends, each used by one process at a time, and a ring without a lock for each way.
//!
//! Reading order: [`cell`] (the words and their tables), [`record`] (the ring, whose records commit themselves), [`way`] (the commits), [`turn`] and [`local`] (an end in this
//! process: whose turn, who uses it, how the other end is), [`wait`], [`send`], [`recv`], [`kind`] (what the cleaner and the collector do with a pipe), then the
//! handles: [`connection`], [`builder`], [`error`].
//!
//! With one sender and one receiver for each way nobody needs a lock that outlives him: what a dead process leaves is its own until its end is taken over.

pub(crate) mod builder;
mod cell;
pub(crate) mod connection;
pub(crate) mod error;
pub(crate) mod kind;
mod local;
mod record;
mod recv;
mod send;
mod turn;
mod wait;
mod way;
