//! A word on which a thread sleeps until another has changed something else.
//!
//! | `word` | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | 0 | nobody needs a wake | a waker, before FUTEX_WAKE; a sleeper that leaves | the waker has the word as pending: the kernel wakes one sleeper |
//! | `WAITERS` | the one that waits may sleep, or one of many who compare another word as well or wake each other, or is about to look again | that one, before its last look | a wake too many later on |
//! | `WATCHED` | the same of threads that wait for several things at once, of whom there may be any number | each of them, before its last look | the same |
//! | 0 after `WATCHED` | all have been woken | a waker: one system call with the wake | both are done, or neither and the kernel wakes one sleeper |
//!
//! | `watchers` | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | 0 | nobody has watched yet | - | - |
//! | a thread's id | the only one that has | that thread, by CAS from 0 | the same for ever: the next is the second |
//! | `COMING` | a second is being announced in the arena | any other, by CAS | whoever comes next announces |
//! | `SEVERAL` + n | n wakes of watchers so far | whoever has announced; a waker, before the wake | a count too many: somebody looks once more |
//!
//! The TID bits of `word` are always 0: that makes the kernel wake a sleeper when a thread dies with this word as pending.
//! Sleeper and waker pair by `fence(SeqCst)` (Dekker): the sleeper stores its bit, fences, looks at the condition;
//! the waker changes the condition, fences, looks at the word. One of the two sees the other. Where wakers come for each message, as in pipes and
//! queues, the sleeper makes the fence of both ([`membarrier`]).
//!
//! # Watchers
//! The two bits keep each other honest: whoever looks, is overtaken by a wake and only then goes to sleep finds its bit gone, even if the
//! other side has come back meanwhile. Not so two watchers: the second may set the bit again before the first sleeps, and hide the wake. So of several watchers each
//! compares the count of wakes as well when it goes to sleep, after the word; and since most objects have one watcher, who needs no
//! second word, it compares instead one word of the arena in which second watchers are announced before they set their bit.
//!
//! A waker of watchers wakes all who sleep. If it dies first, the kernel wakes one, who finds `WATCHED` still set and wakes the others
//! ([`pass_on_if_owed`](WaitWord::pass_on_if_owed)). If that one dies too, whoever cleans up after the first does.

use crate::beneath::{AtomicU32, Ordering, fence};
use crate::beneath::{Deadline, OWNER_DIED, Thread, WAITERS, Wait, Word, crash, futex, membarrier, wait_any};

/// A watcher may sleep. The kernel marks a dead owner so, which a word without one never has.
const WATCHED: u32 = OWNER_DIED;
/// In `watchers`: there are several, and the rest is a count.
const SEVERAL: u32 = 1 << 31;
/// In `watchers`: no thread has this id.
const COMING: u32 = SEVERAL - 1;

/// See the module head.
#[derive(Debug, Default)]
#[repr(C)]
pub struct WaitWord {
    word: AtomicU32,
    watchers: AtomicU32,
}

/// With which values a watcher goes to sleep: that of the word, and of the count of wakes where there are several watchers.
#[derive(Clone, Copy, Debug)]
pub struct Watch<'a> {
    /// To sleep on.
    pub word: (&'a AtomicU32, u32),
    /// To compare after it.
    pub count: Option<(&'a AtomicU32, u32)>,
}

impl WaitWord {
    /// A word that nobody sleeps on.
    pub const fn new() -> WaitWord {
        WaitWord { word: AtomicU32::new(0), watchers: AtomicU32::new(0) }
    }

    /// Announces the one sleeper. The caller looks at its condition once more before it sleeps.
    #[inline]
    pub fn prepare(&self) {
        // Relaxed: ordered by the fence, which pairs with the one in `kick`.
        self.word.fetch_or(WAITERS, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Sleeps unless somebody has kicked since [`prepare`](WaitWord::prepare). `sliced`: at most 10 ms, since a kick may have been missed.
    pub fn sleep(&self, deadline: Option<Deadline>, sliced: bool) -> Wait {
        crash::point("wait_word.before_sleep");
        let (word, expected) = self.watch();
        let why = futex::wait_sliced(word, expected, deadline, sliced);
        crash::point("wait_word.after_sleep");
        why
    }

    /// As [`sleep`](WaitWord::sleep), and only while `other`, for which nobody wakes, has the value `expected`: for words on which many sleep that are no
    /// watchers. There the announcement may be a later one's, made after the kick that this sleeper has just not slept through.
    pub fn sleep_while(&self, other: &AtomicU32, expected: u32, deadline: Option<Deadline>) -> Wait {
        crash::point("wait_word.before_sleep_while");
        let (word, announced) = self.watch();
        let words = [Word { word, expected: announced }, Word { word: other, expected }];
        let why = wait_any(&words, deadline, false);
        crash::point("wait_word.after_sleep_while");
        why
    }

    /// The loop of the one sleeper: announces itself, makes `fence`, looks, sleeps, until it is `ready`. True when time is up. `before_sleep` is called before each sleep. The
    /// fence tells whether it was one; if not, a kick may be missed.
    pub fn sleep_until(
        &self,
        deadline: Option<Deadline>,
        fence: impl Fn() -> bool,
        ready: impl Fn() -> bool,
        mut before_sleep: impl FnMut(),
    ) -> bool {
        loop {
            self.prepare();
            let fenced = fence();
            if ready() {
                return false;
            }
            before_sleep();
            let timed_out = self.sleep(deadline, !fenced) == Wait::TimedOut;
            if ready() {
                // Watchers may sleep here too, and the wake that has come may have been meant for all.
                self.pass_on_if_owed();
                return false;
            }
            if timed_out {
                return true;
            }
        }
    }

    /// Takes the announcement of the one sleeper back.
    #[inline]
    pub fn finish(&self) {
        // Relaxed: a kick that comes too late or too early only costs a system call.
        if self.has_sleeper() {
            self.word.fetch_and(!WAITERS, Ordering::Relaxed);
        }
    }

    /// Announces a watcher, the thread `me`. It looks at everything once more before it sleeps, with a fence in between. `seconds` is the word of the arena that
    /// `SEVERAL` is announced in, which the caller has read before.
    pub fn announce(&self, me: u32, seconds: &AtomicU32) -> Watch<'_> {
        // SeqCst all along: the announcement in the arena comes before the bit.
        let count = loop {
            match self.watchers.load(Ordering::SeqCst) {
                count if count & SEVERAL != 0 => break Some((&self.watchers, count)),
                only if only == me => break None,
                0 => _ = self.watchers.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst),
                COMING => {
                    seconds.fetch_add(1, Ordering::SeqCst);
                    crash::point("wait_word.second_announced");
                    let _ = self.watchers.compare_exchange(COMING, SEVERAL, Ordering::SeqCst, Ordering::SeqCst);
                }
                first => _ = self.watchers.compare_exchange(first, COMING, Ordering::SeqCst, Ordering::SeqCst),
            }
        };
        let mut seen = self.word.load(Ordering::SeqCst);
        if seen & WATCHED == 0 {
            seen = self.word.fetch_or(WATCHED, Ordering::SeqCst) | WATCHED;
        }
        Watch { word: (&self.word, seen), count }
    }

    /// After a sleep as a watcher, or beside watchers, when there is what they wait for too: if the bit is still set, who should have cleared it may
    /// be dead, and has woken nobody.
    #[inline]
    pub fn pass_on_if_owed(&self) {
        if self.word.load(Ordering::Relaxed) & WATCHED != 0 {
            self.kick_watchers();
        }
    }

    /// Changes something by `commit`, then wakes the sleeper if there is one. If the thread dies in between, the kernel wakes.
    #[inline]
    pub fn commit_and_kick(&self, me: Thread, commit: impl FnOnce()) {
        let pending = me.set_baton(&self.word);
        crash::point("wait_word.pending");
        commit();
        crash::point("wait_word.committed");
        self.kick(1);
        me.restore_pending(pending);
    }

    /// As [`commit_and_kick`](WaitWord::commit_and_kick), for words whose sleepers wait by [`wait_for`](crate::Arena::wait_for) or
    /// [`wait_alone_fencing`](crate::Arena::wait_alone_fencing): the fence is left to them.
    #[inline]
    pub fn commit_and_kick_lightly(&self, me: Thread, commit: impl FnOnce()) {
        let pending = me.set_baton(&self.word);
        crash::point("wait_word.pending_lightly");
        commit();
        crash::point("wait_word.committed_lightly");
        // Pairs with `heavy` of the sleeper.
        membarrier::light();
        if self.word.load(Ordering::Relaxed) != 0 {
            self.kick_slow(1);
        }
        me.restore_pending(pending);
    }

    /// As [`commit_and_kick`](WaitWord::commit_and_kick), but wakes all who sleep here.
    #[inline]
    pub fn commit_and_kick_all(&self, me: Thread, commit: impl FnOnce()) {
        let pending = me.set_baton(&self.word);
        crash::point("wait_word.pending_all");
        commit();
        crash::point("wait_word.committed_all");
        self.kick(u32::MAX);
        me.restore_pending(pending);
    }

    /// As [`commit_and_kick`](WaitWord::commit_and_kick) for up to `count` sleepers, for a `commit` whose last step is a `SeqCst` read-modify-write of what
    /// the sleepers look at by `SeqCst` loads: that is a fence in itself.
    #[inline]
    pub fn commit_and_kick_in_order(&self, me: Thread, count: u32, commit: impl FnOnce()) {
        let pending = me.set_baton(&self.word);
        crash::point("wait_word.pending_in_order");
        commit();
        crash::point("wait_word.committed_in_order");
        // SeqCst: of all SeqCst operations, this load comes after the commit. If it misses the announcement in `prepare`, the fence there comes after it, and the
        // sleeper's look after that: it sees the commit. `announce` is SeqCst itself.
        if self.word.load(Ordering::SeqCst) != 0 {
            self.kick_slow(count);
        }
        me.restore_pending(pending);
    }

    /// Keeps the word pending while `body` runs: a wake that this thread swallowed is passed on if it dies.
    pub fn guarded<R>(&self, me: Thread, body: impl FnOnce() -> R) -> R {
        let pending = me.set_baton(&self.word);
        let r = body();
        me.restore_pending(pending);
        r
    }

    /// Wakes up to `count` sleepers. The caller has the word as pending.
    #[inline]
    pub fn kick(&self, count: u32) {
        // Pairs with the fence in `prepare`.
        fence(Ordering::SeqCst);
        if self.word.load(Ordering::Relaxed) != 0 {
            self.kick_slow(count);
        }
    }

    #[cold]
    fn kick_slow(&self, count: u32) {
        crash::point("wait_word.kick");
        let mut seen = self.word.load(Ordering::Relaxed);
        // Not a store: a watcher that comes in between is to be woken by the other way.
        while seen & WATCHED == 0 {
            match self.word.compare_exchange(seen, 0, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    crash::point("wait_word.kick_cleared");
                    futex::wake(&self.word, count);
                    crash::point("wait_word.kicked");
                    return;
                }
                Err(now) => seen = now,
            }
        }
        self.kick_watchers();
    }

    /// Wakes all. The count before the bit: a watcher that was overtaken finds one of the two changed.
    #[cold]
    fn kick_watchers(&self) {
        let more = |count: u32| (count & SEVERAL != 0).then(|| count.wrapping_add(1) | SEVERAL);
        // SeqCst as in `announce`. An error: there are not several.
        let _ = self.watchers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
        crash::point("wait_word.watchers_counted");
        futex::clear_and_wake_all(&self.word);
        crash::point("wait_word.watchers_kicked");
    }

    /// Wakes one more sleeper whatever the word says; each woken sleeper of a word with many passes the wake on.
    pub fn pass_on(&self) {
        futex::wake(&self.word, 1);
    }

    /// For who sleeps on other words as well: the word and the value with which to sleep, after [`prepare`](WaitWord::prepare).
    pub fn watch(&self) -> (&AtomicU32, u32) {
        // Whether it is watched makes no difference; without the bit of `prepare` the value is another.
        (&self.word, self.word.load(Ordering::Relaxed) | WAITERS)
    }

    /// Sets bits of `other`, on whose value those sleep who [`sleep_while`](WaitWord::sleep_while), and wakes all who sleep here, both or neither if the caller dies.
    pub fn set_bits_and_wake_all(&self, other: &AtomicU32, bits: u32) {
        futex::set_bits_and_wake_all(other, bits, &self.word);
    }

    /// Wakes all who sleep, whatever the word says: who was woken by a kicker that died half way tells the others.
    pub fn pass_on_to_all(&self) {
        futex::wake_all(&self.word);
    }

    /// Whether the one that waits may sleep.
    pub fn has_sleeper(&self) -> bool {
        self.word.load(Ordering::Relaxed) & WAITERS != 0
    }
}
