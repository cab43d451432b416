//! Floor 2 of multiproc: what processes share besides messages.
//!
//! Internal to multiproc, no semver promise.

use multiproc_shm::objects::Kind;

/// Every kind of object that this floor puts into an arena.
pub static KINDS: &[&Kind] = &[&LOCK];
/// Placeholder until locks stand here.
pub static LOCK: Kind = Kind::plain(1, "Lock");
