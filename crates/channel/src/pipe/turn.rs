//! Taking turns between the threads of one process: a lock in private memory whose waits have deadlines.
//!
//! No other process sees it, so nobody can die in it and leave it behind: a death takes all its users along.
//!
//! | value | meaning |
//! |---|---|
//! | 0 | free |
//! | 1 | one thread is at it |
//! | 2 | the same, and others may sleep |
//!
//! After Drepper, "Futexes Are Tricky" (2011), section 5.

use crate::ring::Patience;
use multiproc_sys::futex::{self, Wait};
use multiproc_sys::spin;
use std::sync::atomic::{AtomicU32, Ordering};

/// See the module head.
#[derive(Debug, Default)]
pub(crate) struct Turn(AtomicU32);

/// The calling thread is at it until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Mine<'a>(&'a Turn);

/// Why it is not this thread's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotMine {
    /// Another thread is at it, and the caller would not wait.
    Taken,
    TimedOut,
}

impl Turn {
    /// Waits for the turn as long as `patience` says.
    #[inline]
    pub(crate) fn take(&self, patience: Patience) -> Result<Mine<'_>, NotMine> {
        // Acquire pairs with the Release in `drop`.
        if self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            return Ok(Mine(self));
        }
        self.take_slow(patience)
    }

    #[cold]
    fn take_slow(&self, patience: Patience) -> Result<Mine<'_>, NotMine> {
        let Patience::Until(deadline) = patience else { return Err(NotMine::Taken) };
        let free = || self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if spin::until(free) {
            return Ok(Mine(self));
        }
        while self.0.swap(2, Ordering::Acquire) != 0 {
            if futex::wait(&self.0, 2, deadline) == Wait::TimedOut {
                return Err(NotMine::TimedOut);
            }
        }
        Ok(Mine(self))
    }
}

impl Drop for Mine<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.0.0.swap(0, Ordering::Release) == 2 {
            futex::wake(&self.0.0, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use multiproc_sys::clock::Deadline;
    use std::time::{Duration, Instant};

    #[test]
    fn one_at_a_time() {
        let turn = Turn::default();
        let count = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..20_000 {
                        let _mine = turn.take(Patience::Until(None)).unwrap();
                        // Two operations: exact only if nobody comes in between.
                        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 80_000);
    }

    #[test]
    fn waiting_ends_at_the_deadline_and_not_before() {
        let turn = Turn::default();
        let mine = turn.take(Patience::None).unwrap();
        assert_eq!(turn.take(Patience::None).unwrap_err(), NotMine::Taken);
        let start = Instant::now();
        let patience = Patience::Until(Deadline::after(Duration::from_millis(20)));
        assert_eq!(turn.take(patience).unwrap_err(), NotMine::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(20));
        drop(mine);
        assert!(turn.take(patience).is_ok());
    }
}
