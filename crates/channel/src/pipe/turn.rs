//! Taking turns between the threads of one process: a lock in private memory whose waits have deadlines, and which costs a thread that is alone
//! with it no atomic read-modify-write.
//!
//! No other process sees it, so nobody can die in it and leave it behind: a death takes all its users along.
//!
//! | `word` | meaning |
//! |---|---|
//! | 0 | free |
//! | 1 | one thread is at it |
//! | 2 | the same, and others may sleep |
//!
//! The first thread becomes its favourite and only notes in `inside` that it is at it. Another one that comes ends that for good, has
//! the kernel fence the favourite ([`membarrier`]), and waits for it to be out; from then on all use `word`.
//!
//! | `favourite` | meaning | written by |
//! |---|---|---|
//! | 0 | nobody came yet | - |
//! | a thread's id | that thread need not use `word` | that thread, by CAS from 0 |
//! | `NOBODY` | all use `word` | any other thread; whoever comes first where the kernel has no such fence |
//!
//! The lock after Drepper, "Futexes Are Tricky" (2011), section 5; the favourite after Dice, Huang and Yang, "Asymmetric Dekker Synchronization" (2001).

use crate::ring::Patience;
use multiproc_sys::clock::Deadline;
use multiproc_sys::futex::{self, Wait};
use multiproc_sys::{membarrier, spin};
use std::sync::atomic::{AtomicU32, Ordering, compiler_fence};

/// No thread has this id.
const NOBODY: u32 = u32::MAX;

/// See the module head.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    word: AtomicU32,
    favourite: AtomicU32,
    inside: AtomicU32,
}

/// The calling thread is at it until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Mine<'a> {
    turn: &'a Turn,
    /// 0: by `word`.
    favourite: u32,
}

/// Why it is not this thread's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotMine {
    /// Another thread is at it, and the caller would not wait.
    Taken,
    TimedOut,
}

impl Turn {
    /// Waits for the turn as long as `patience` says. `me` is the id of the calling thread.
    #[inline]
    pub(crate) fn take(&self, me: u32, patience: Patience) -> Result<Mine<'_>, NotMine> {
        if self.favourite.load(Ordering::Relaxed) == me && self.enter(me) {
            return Ok(Mine { turn: self, favourite: me });
        }
        self.take_by_word(me, patience)
    }

    /// The favourite goes in, unless it has just ceased to be that.
    #[inline]
    fn enter(&self, me: u32) -> bool {
        // Relaxed: its own word. Who has the turn and takes it again waits like anybody else.
        if self.inside.load(Ordering::Relaxed) != 0 {
            return false;
        }
        self.inside.store(1, Ordering::Relaxed);
        // Pairs with `heavy_here` in `take_by_word`: the other thread sees `inside`, or this one that it is no favourite any more.
        compiler_fence(Ordering::SeqCst);
        if self.favourite.load(Ordering::Relaxed) == me {
            return true;
        }
        self.leave(me);
        false
    }

    #[inline]
    fn leave(&self, me: u32) {
        // Release pairs with the Acquire in `await_favourite`.
        self.inside.store(0, Ordering::Release);
        // As in `enter`.
        compiler_fence(Ordering::SeqCst);
        if self.favourite.load(Ordering::Relaxed) != me {
            futex::wake_all(&self.inside);
        }
    }

    #[cold]
    fn take_by_word(&self, me: u32, patience: Patience) -> Result<Mine<'_>, NotMine> {
        if self.favourite.load(Ordering::Relaxed) == 0 {
            let first = if membarrier::is_private() { me } else { NOBODY };
            let became = self.favourite.compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            if became && first == me && self.enter(me) {
                return Ok(Mine { turn: self, favourite: me });
            }
        }
        self.lock(patience)?;
        let mine = Mine { turn: self, favourite: 0 };
        // Under the word, so that the next who has it finds this done.
        if self.favourite.swap(NOBODY, Ordering::Relaxed) != NOBODY {
            membarrier::heavy_here();
        }
        // Only the first who has the word finds the former favourite inside, but for a moment.
        self.await_favourite(patience)?;
        Ok(mine)
    }

    fn await_favourite(&self, patience: Patience) -> Result<(), NotMine> {
        // Acquire pairs with the Release in `leave`.
        let out = || self.inside.load(Ordering::Acquire) == 0;
        if out() {
            return Ok(());
        }
        let Patience::Until(deadline) = patience else { return Err(NotMine::Taken) };
        if spin::until(out) {
            return Ok(());
        }
        while !out() {
            if futex::wait(&self.inside, 1, deadline) == Wait::TimedOut && !out() {
                return Err(NotMine::TimedOut);
            }
        }
        Ok(())
    }

    fn lock(&self, patience: Patience) -> Result<(), NotMine> {
        // Acquire pairs with the Release in `drop`.
        let free = || self.word.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if free() {
            return Ok(());
        }
        let Patience::Until(deadline) = patience else { return Err(NotMine::Taken) };
        if spin::until(free) { Ok(()) } else { self.lock_slow(deadline) }
    }

    #[cold]
    fn lock_slow(&self, deadline: Option<Deadline>) -> Result<(), NotMine> {
        while self.word.swap(2, Ordering::Acquire) != 0 {
            if futex::wait(&self.word, 2, deadline) == Wait::TimedOut {
                return Err(NotMine::TimedOut);
            }
        }
        Ok(())
    }
}

impl Drop for Mine<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.favourite != 0 {
            self.turn.leave(self.favourite);
        } else if self.turn.word.swap(0, Ordering::Release) == 2 {
            futex::wake(&self.turn.word, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use multiproc_sys::robust;
    use std::sync::atomic::AtomicU64;
    use std::time::{Duration, Instant};

    #[test]
    fn one_at_a_time() {
        membarrier::register();
        among_threads(if cfg!(miri) { 100 } else { 20_000 });
    }

    /// Each turn has a favourite to dismiss but once, so there are many.
    #[test]
    fn a_favourite_that_is_at_it_is_waited_for() {
        const ROUNDS: usize = if cfg!(miri) { 20 } else { 20_000 };
        membarrier::register();
        let turns: Vec<(Turn, AtomicU64)> = (0..ROUNDS).map(|_| Default::default()).collect();
        let round = AtomicU64::new(0);
        // Two operations: exact only if nobody comes in between.
        let count = |(turn, count): &(Turn, AtomicU64)| {
            let _mine = turn.take(me(), Patience::Until(None)).unwrap();
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        };
        std::thread::scope(|s| {
            s.spawn(|| {
                for (i, one) in turns.iter().enumerate() {
                    (0..10).for_each(|_| count(one));
                    round.store(i as u64 + 1, Ordering::Relaxed);
                    (0..20).for_each(|_| count(one));
                }
            });
            for (i, one) in turns.iter().enumerate() {
                while round.load(Ordering::Relaxed) <= i as u64 {
                    std::thread::yield_now();
                }
                count(one);
            }
        });
        let wrong = turns.iter().filter(|(_, count)| count.load(Ordering::Relaxed) != 31).count();
        assert_eq!(wrong, 0, "of {ROUNDS}");
    }

    fn me() -> u32 {
        robust::current().unwrap().tid()
    }

    fn among_threads(each: u64) {
        let turn = Turn::default();
        let count = AtomicU64::new(0);
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    for _ in 0..each {
                        let _mine = turn.take(me(), Patience::Until(None)).unwrap();
                        // Two operations: exact only if nobody comes in between.
                        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 3 * each);
    }

    #[test]
    fn waiting_ends_at_the_deadline_and_not_before() {
        let turn = Turn::default();
        let mine = turn.take(me(), Patience::None).unwrap();
        assert_eq!(turn.take(me(), Patience::None).unwrap_err(), NotMine::Taken);
        let start = Instant::now();
        let patience = Patience::Until(Deadline::after(Duration::from_millis(20)));
        assert_eq!(turn.take(me(), patience).unwrap_err(), NotMine::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(20));
        drop(mine);
        assert!(turn.take(me(), patience).is_ok());
    }
}
