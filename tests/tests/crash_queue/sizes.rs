//! Sizes.

/// More than any scene puts: what is counted wrong shows when a message of just that size does not fit in the end.
pub(crate) const BYTES: u64 = 1 << 15;
/// Of an unbounded queue in an arena of the usual size.
pub(crate) const SEGMENT: usize = 256 << 10;
