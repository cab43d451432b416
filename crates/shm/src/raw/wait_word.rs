//! A word on which a thread sleeps until another has changed something else.
//!
//! | value | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | 0 | nobody needs a wake | a waker, before FUTEX_WAKE; a sleeper that leaves | the waker has the word as pending: the kernel wakes one sleeper |
//! | `WAITERS` | somebody may sleep, or is about to look again | a sleeper, before its last look | a wake too many later on |
//!
//! The TID bits are always 0: that makes the kernel wake a sleeper when a thread dies with this word as pending.
//! Sleeper and waker pair by `fence(SeqCst)` (Dekker): the sleeper stores WAITERS, fences, looks at the condition;
//! the waker changes the condition, fences, looks at the word. One of the two sees the other.

use crate::beneath::{AtomicU32, Deadline, Ordering, Thread, WAITERS, Wait, crash, fence, futex, membarrier};

/// See the module head.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct WaitWord(AtomicU32);

impl WaitWord {
    /// Announces a sleeper. The caller looks at its condition once more before it sleeps.
    #[inline]
    pub fn prepare(&self) {
        // Relaxed: ordered by the fence, which pairs with the one in `kick`.
        self.0.store(WAITERS, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Sleeps unless somebody has kicked since [`prepare`](WaitWord::prepare).
    pub fn sleep(&self, deadline: Option<Deadline>) -> Wait {
        crash::point("wait_word.before_sleep");
        let why = futex::wait(&self.0, WAITERS, deadline);
        crash::point("wait_word.after_sleep");
        why
    }

    /// As [`sleep`](WaitWord::sleep), as a sleeper of the kinds whose `bits` are set, for [`pass_on_to`](WaitWord::pass_on_to).
    pub fn sleep_as(&self, deadline: Option<Deadline>, bits: u32) -> Wait {
        crash::point("wait_word.before_sleep_as");
        let why = futex::wait_as(&self.0, WAITERS, deadline, bits);
        crash::point("wait_word.after_sleep_as");
        why
    }

    /// Takes the announcement back; for words with one sleeper at a time.
    #[inline]
    pub fn finish(&self) {
        // Relaxed: a kick that comes too late or too early only costs a system call.
        self.0.store(0, Ordering::Relaxed);
    }

    /// Changes something by `commit`, then wakes the sleeper if there is one. If the thread dies in between, the kernel wakes.
    #[inline]
    pub fn commit_and_kick(&self, me: Thread, commit: impl FnOnce()) {
        let pending = me.set_baton(&self.0);
        crash::point("wait_word.pending");
        commit();
        crash::point("wait_word.committed");
        self.kick(1);
        me.restore_pending(pending);
    }

    /// As [`commit_and_kick`](WaitWord::commit_and_kick), for words whose sleepers wait by [`wait_for`](crate::Arena::wait_for): the fence is left to
    /// them.
    #[inline]
    pub fn commit_and_kick_lightly(&self, me: Thread, commit: impl FnOnce()) {
        let pending = me.set_baton(&self.0);
        crash::point("wait_word.pending_lightly");
        commit();
        crash::point("wait_word.committed_lightly");
        // Pairs with `heavy` in `wait_for`.
        membarrier::light();
        if self.0.load(Ordering::Relaxed) != 0 {
            self.kick_slow(1);
        }
        me.restore_pending(pending);
    }

    /// As [`commit_and_kick`](WaitWord::commit_and_kick), but wakes all who sleep here.
    #[inline]
    pub fn commit_and_kick_all(&self, me: Thread, commit: impl FnOnce()) {
        let pending = me.set_baton(&self.0);
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
        let pending = me.set_baton(&self.0);
        crash::point("wait_word.pending_in_order");
        commit();
        crash::point("wait_word.committed_in_order");
        // SeqCst: of all SeqCst operations, this load comes after the commit. If it misses the announcement in `prepare`, the fence there comes after it, and the
        // sleeper's look after that: it sees the commit.
        if self.0.load(Ordering::SeqCst) != 0 {
            self.kick_slow(count);
        }
        me.restore_pending(pending);
    }

    /// Keeps the word pending while `body` runs: a wake that this thread swallowed is passed on if it dies.
    pub fn guarded<R>(&self, me: Thread, body: impl FnOnce() -> R) -> R {
        let pending = me.set_baton(&self.0);
        let r = body();
        me.restore_pending(pending);
        r
    }

    /// Wakes up to `count` sleepers. The caller has the word as pending.
    #[inline]
    pub fn kick(&self, count: u32) {
        // Pairs with the fence in `prepare`.
        fence(Ordering::SeqCst);
        if self.0.load(Ordering::Relaxed) != 0 {
            self.kick_slow(count);
        }
    }

    #[cold]
    fn kick_slow(&self, count: u32) {
        crash::point("wait_word.kick");
        self.0.store(0, Ordering::Relaxed);
        crash::point("wait_word.kick_cleared");
        futex::wake(&self.0, count);
        crash::point("wait_word.kicked");
    }

    /// Wakes one more sleeper whatever the word says; each woken sleeper of a word with many passes the wake on.
    pub fn pass_on(&self) {
        futex::wake(&self.0, 1);
    }

    /// As [`pass_on`](WaitWord::pass_on), to a sleeper that has one of `bits`.
    pub fn pass_on_to(&self, bits: u32) {
        crash::point("wait_word.before_passing");
        futex::wake_some(&self.0, 1, bits);
        crash::point("wait_word.passed");
    }

    /// For who sleeps on other words as well: the word and the value with which to sleep, after [`prepare`](WaitWord::prepare).
    pub fn watch(&self) -> (&AtomicU32, u32) {
        (&self.0, WAITERS)
    }

    /// Wakes all who sleep, whatever the word says: who was woken by a kicker that died half way tells the others.
    pub fn pass_on_to_all(&self) {
        futex::wake_all(&self.0);
    }

    /// Whether somebody may sleep here.
    pub fn has_sleeper(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }
}
