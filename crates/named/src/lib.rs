//! Shared memory by name, between programs that know nothing of each other.
//!
//! Internal to multiproc, no semver promise. It stands on floor 0 alone: no arena, no tree. Reading order: [`error`] -> [`tag`] (what says that a segment is ours, and what
//! removes it) -> [`segment`] ([`SharedMemory`]) -> [`item`] (one value, and how Python lays it out) -> [`list`] ([`ShareableList`]).

pub mod error;
pub mod item;
pub mod list;
pub mod segment;
pub mod tag;

pub use error::SharedMemoryError;
pub use item::Item;
pub use list::ShareableList;
pub use segment::SharedMemory;
