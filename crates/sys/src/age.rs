//! Where counters that go round begin: at 0, but for a test of old age.
//!
//! With the feature `crash-points` a test may have what is made from then on begin shortly before its counters wrap, which by itself takes days to centuries.
//! Without it [`first`] is 0, and nothing of this is left.

/// The first value of a counter of so many bits, in the unit in which it moves.
#[inline(always)]
pub fn first(bits: u32) -> u64 {
    #[cfg(feature = "crash-points")]
    return old::first(bits);
    #[cfg(not(feature = "crash-points"))]
    {
        let _ = bits;
        0
    }
}

#[cfg(feature = "crash-points")]
pub use old::born_old;

#[cfg(feature = "crash-points")]
mod old {
    use std::sync::atomic::{AtomicU64, Ordering};

    static BEFORE: AtomicU64 = AtomicU64::new(0);

    /// What this process makes from now on begins so many steps before its counters wrap; 0: at 0.
    pub fn born_old(before: u64) {
        // Relaxed, both: whoever asks for it makes things later.
        BEFORE.store(before, Ordering::Relaxed);
    }

    pub(super) fn first(bits: u32) -> u64 {
        match BEFORE.load(Ordering::Relaxed) {
            0 => 0,
            before => 0u64.wrapping_sub(before) & u64::MAX >> (64 - bits),
        }
    }
}
