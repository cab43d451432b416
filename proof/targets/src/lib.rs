//! What a fuzzer calls with bytes of its own: plain functions, so that a seeded driver calls them as well (`proof fuzz`, `proof hostile`).
//!
//! - [`arena`]: arbitrary words in shared memory, then operations; [`frames`]: bytes that claim to be messages; [`handshake`]: what a child is told at its start;
//! - [`input`]: bytes as choices; [`map`]: which words of an arena are read; [`things`]: one of everything, and what can be done with it.

pub mod arena;
pub mod frames;
pub mod handshake;
pub mod input;
pub mod map;
pub mod things;

#[cfg(not(feature = "postcard"))]
pub(crate) use multiproc_channel::Bincode as Postcard;
#[cfg(feature = "postcard")]
pub(crate) use multiproc_channel::Postcard;
