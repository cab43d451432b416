//! The lock that outlives its owners: a futex word in the kernel's robust list.
//!
//! | bits of `word` | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | TID (29..0) | the owner, 0 = free | locker by CAS from 0; unlocker | the kernel clears it, sets `OWNER_DIED`, wakes one sleeper |
//! | `WAITERS` (31) | somebody may sleep | a waiter before it sleeps | the next unlock wakes in vain |
//! | `OWNER_DIED` (30), TID 0 | free, what it guards may be half changed | the kernel; `unlock` that leaves it so | as it is: the next owner is told |
//!
//! | other word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `owner` | slot, TID and pid of the owner, for reports and repair; 0 when it is free in good order, or the death is noted in `died` | the owner, right after the CAS; 0 by it before it unlocks | 0, or names an owner that is dead for sure: the TID beside it must be that in `word` |
//! | `died` | the owner that died, as long as `OWNER_DIED` stands; 0: one that had not named itself | who finds it first | names an earlier one |
//! | `deaths` | how often an owner was found to have died, modulo 2^32 | who finds it, before it takes the word | one too many |
//! | `told` | 1: somebody has told of the death as an event | the owner, before it does; 0 by who finds another death, or vouches | nobody tells of it |
//! | `idle_wakes` | the last unlock woke nobody | the owner | at most one flush more or less |
//! | `link` | the kernel's list; never read by us | the owner | private to it |
//!
//! WAITERS is *sticky*: an unlock with waiters leaves `WAITERS|0` behind, so whoever takes the lock next inherits the bit, and a woken
//! waiter that is killed before it takes the lock strands nobody. (glibc's robust mutex stores 0 there and does strand:
//! a barging owner without the bit unlocks without waking.) The bit goes only in [`flush`](RawLock::unlock), by one system call that clears it and wakes all.
//!
//! After Drepper, "Futexes Are Tricky" (2011), and the kernel's robust-futex-ABI document.
#![allow(unsafe_code)]

use crate::beneath::{AtomicU32, AtomicU64, AtomicUsize, Deadline, OWNER_DIED, Ordering, TID_MASK, Thread, Unusable, WAITERS};
use crate::beneath::{Wait, crash, futex, robust, spin};

/// See the module head. All-zero memory is a free lock.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct RawLock {
    pub(super) word: AtomicU32,
    idle_wakes: AtomicU32,
    pub(super) owner: AtomicU64,
    died: AtomicU64,
    deaths: AtomicU32,
    told: AtomicU32,
    pub(super) link: AtomicUsize,
    _rest: [AtomicU64; 3],
}

/// Who locks: the thread, and what reports shall say of it.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// The thread that owns the lock.
    pub thread: Thread,
    process: u64,
}

// An owner word: slot:12 | TID:30 | pid:22. The kernel's pids end below 2^22.
const SLOT_SHIFT: u32 = 52;
pub(super) const TID_SHIFT: u32 = 22;
const PID_MASK: u64 = (1 << TID_SHIFT) - 1;

impl Who {
    /// `thread` of the process that [`process`](Who::process) describes.
    #[inline]
    pub fn new(thread: Thread, process: u64) -> Who {
        Who { thread, process }
    }

    /// A process's roster slot and pid in one word.
    pub fn process(slot: u32, pid: u32) -> u64 {
        u64::from(slot) << SLOT_SHIFT | u64::from(pid) & PID_MASK
    }

    /// The pid of what [`process`](Who::process) described.
    pub fn pid_of(process: u64) -> u32 {
        (process & PID_MASK) as u32
    }

    #[inline]
    fn owner_word(self) -> u64 {
        self.process | u64::from(self.thread.tid()) << TID_SHIFT
    }
}

fn slot_and_pid(owner: u64) -> (u32, u32) {
    ((owner >> SLOT_SHIFT) as u32, (owner & PID_MASK) as u32)
}

/// In what state the lock was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Acquired {
    /// The last owner unlocked it in good order.
    Clean,
    /// An owner died, and nobody has vouched for what the lock guards since.
    OwnerDied,
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The thread's id.
    pub thread: u32,
    /// Roster slot and pid of its process, once it has named itself.
    pub process: Option<(u32, u32)>,
}

/// Why the lock was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockFailed {
    /// The deadline passed.
    TimedOut,
    /// Somebody has it, and the caller would not wait.
    Held,
    /// The calling thread has it.
    WouldDeadlock,
    /// This thread cannot lock at all.
    Unusable(Unusable),
}

impl RawLock {
    /// A free lock.
    pub const fn new() -> RawLock {
        RawLock {
            word: AtomicU32::new(0),
            idle_wakes: AtomicU32::new(0),
            owner: AtomicU64::new(0),
            died: AtomicU64::new(0),
            deaths: AtomicU32::new(0),
            told: AtomicU32::new(0),
            link: AtomicUsize::new(0),
            _rest: [const { AtomicU64::new(0) }; 3],
        }
    }

    /// Takes the lock, waiting as long as it must.
    #[inline]
    pub fn lock(&self, who: Who) -> Result<Acquired, LockFailed> {
        self.acquire(who, Some(None))
    }

    /// Takes the lock, waiting until `deadline` (`None`: for ever).
    #[inline]
    pub fn lock_until(&self, who: Who, deadline: Option<Deadline>) -> Result<Acquired, LockFailed> {
        self.acquire(who, Some(deadline))
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self, who: Who) -> Result<Acquired, LockFailed> {
        self.acquire(who, None)
    }

    #[inline]
    fn acquire(&self, who: Who, wait: Option<Option<Deadline>>) -> Result<Acquired, LockFailed> {
        if self.lock_free(who) { Ok(Acquired::Clean) } else { self.acquire_slow(who, wait) }
    }

    /// Takes the lock if it is free, in good order, and nobody waits for it: the fast path of all the others.
    #[inline]
    pub fn lock_free(&self, who: Who) -> bool {
        let me = who.thread;
        if !me.has_room() {
            return false;
        }
        let pending = me.set_pending(&self.word);
        crash::point("lock.pending");
        // Acquire pairs with the Release stores in `unlock`.
        let free = self.word.compare_exchange(0, me.tid(), Ordering::Acquire, Ordering::Relaxed).is_ok();
        // Entered twice, the kernel's list would go round in a circle.
        let taken = free && !me.has(&self.word);
        if taken {
            self.enter(who);
        }
        me.restore_pending(pending);
        taken
    }

    /// The word is ours: names the owner and has the kernel know of it.
    #[inline]
    fn enter(&self, who: Who) {
        crash::point("lock.taken");
        // Relaxed: read by reports and by the repair after the owner's end.
        self.owner.store(who.owner_word(), Ordering::Relaxed);
        crash::point("lock.owner_named");
        // SAFETY: `link` lies at NODE_OFFSET (checked in `raw`) and a held lock's memory is not freed.
        unsafe { who.thread.link(&self.word) };
        crash::point("lock.linked");
    }

    #[cold]
    fn acquire_slow(&self, who: Who, wait: Option<Option<Deadline>>) -> Result<Acquired, LockFailed> {
        let me = who.thread;
        me.reserve().map_err(LockFailed::Unusable)?;
        let pending = me.set_pending(&self.word);
        let found = self.take_word(me, wait);
        if let Ok(found) = found {
            if found == Acquired::OwnerDied {
                self.note_death();
            }
            self.enter(who);
        }
        me.restore_pending(pending);
        found
    }

    /// Remembers who died: the owner word still names it, unless it has been reported before.
    #[cold]
    fn note_death(&self) {
        let dead = self.owner.load(Ordering::Relaxed);
        if dead != 0 {
            self.died.store(dead, Ordering::Relaxed);
            self.told.store(0, Ordering::Relaxed);
        }
    }

    /// Roster slot and pid of the owner that died, 0 and 0 if it had not named itself; meaningful to who has found `OWNER_DIED` and still holds the lock.
    pub fn dead_owner(&self) -> (u32, u32) {
        slot_and_pid(self.died.load(Ordering::Relaxed))
    }

    /// How often an owner was found to have died, or more often: to be compared with an earlier answer. Asked after [`owner_died`](RawLock::owner_died), it counts
    /// each death of which that does not tell any more.
    pub fn deaths(&self) -> u32 {
        // Relaxed: see above.
        self.deaths.load(Ordering::Relaxed)
    }

    /// Whether nobody has told of the owner's death yet; who asks and gets true is to tell. To be asked by who has found `OWNER_DIED` and still holds the lock.
    pub fn is_news(&self) -> bool {
        // Relaxed: ordered by the lock.
        self.told.load(Ordering::Relaxed) == 0 && {
            self.told.store(1, Ordering::Relaxed);
            true
        }
    }

    /// Forgets who died: the owner vouches for what the lock guards.
    pub fn forget_death(&self) {
        self.told.store(0, Ordering::Relaxed);
        self.died.store(0, Ordering::Relaxed);
    }

    fn take_word(&self, me: Thread, wait: Option<Option<Deadline>>) -> Result<Acquired, LockFailed> {
        let mut spins = spin::limit() / 2;
        loop {
            let seen = self.word.load(Ordering::Relaxed);
            if seen & TID_MASK == 0 {
                crash::point("lock.found_free");
                if seen & OWNER_DIED != 0 {
                    // Relaxed: published by the CAS.
                    self.deaths.fetch_add(1, Ordering::Relaxed);
                    crash::point("lock.death_counted");
                }
                // Keeps WAITERS; Acquire pairs with the Release stores in `unlock` and with the kernel's mark, Release with the Acquire in `owner_died`.
                let mine = me.tid() | (seen & WAITERS);
                if self.word.compare_exchange(seen, mine, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    if me.has(&self.word) {
                        // As in `lock_free`: a peer has written over a word that this thread holds.
                        return Err(LockFailed::WouldDeadlock);
                    }
                    return Ok(if seen & OWNER_DIED == 0 { Acquired::Clean } else { Acquired::OwnerDied });
                }
                continue;
            }
            if seen & TID_MASK == me.tid() {
                return Err(LockFailed::WouldDeadlock);
            }
            let Some(deadline) = wait else { return Err(LockFailed::Held) };
            if spins > 0 {
                spins -= 1;
                std::hint::spin_loop();
                continue;
            }
            if seen & WAITERS == 0
                && self.word.compare_exchange(seen, seen | WAITERS, Ordering::Relaxed, Ordering::Relaxed).is_err()
            {
                continue;
            }
            crash::point("lock.before_sleep");
            let why = futex::wait(&self.word, seen | WAITERS, deadline);
            crash::point("lock.after_sleep");
            if why == Wait::TimedOut {
                return Err(LockFailed::TimedOut);
            }
        }
    }

    /// Gives the lock back. A thread that does not hold it changes nothing.
    #[inline]
    pub fn unlock(&self, me: Thread) {
        self.release(me, 0);
    }

    /// Gives the lock back and leaves `OWNER_DIED` for the next owner to find.
    #[inline]
    pub fn unlock_inconsistent(&self, me: Thread) {
        self.release(me, OWNER_DIED);
    }

    #[inline]
    fn release(&self, me: Thread, mark: u32) {
        if self.held_by(me) {
            self.release_held(me, mark);
        } else if me.holds() > 0 {
            // A peer may have written over the word; in the kernel's list it stays no longer than it is held.
            me.unlink(&self.word);
        }
    }

    /// As [`unlock`](RawLock::unlock), for who is sure to hold it.
    #[inline]
    pub fn unlock_held(&self, me: Thread) {
        self.release_held(me, 0);
    }

    #[inline]
    fn release_held(&self, me: Thread, mark: u32) {
        let pending = me.set_pending(&self.word);
        crash::point("unlock.pending");
        me.unlink(&self.word);
        crash::point("unlock.unlinked");
        if !self.free_without_waiters(me, mark) {
            self.release_slow(me, mark);
        }
        crash::point("unlock.done");
        me.restore_pending(pending);
    }

    #[inline]
    fn free_without_waiters(&self, me: Thread, mark: u32) -> bool {
        // Relaxed: ordered by the Release that frees the word. As late as may be: who dies from here on dies nameless.
        self.owner.store(0, Ordering::Relaxed);
        // Release pairs with the Acquire in `acquire`.
        self.word.compare_exchange(me.tid(), mark, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn release_slow(&self, me: Thread, mark: u32) {
        // Relaxed: a hint of the owners among themselves.
        if self.idle_wakes.load(Ordering::Relaxed) != 0 {
            self.idle_wakes.store(0, Ordering::Relaxed);
            // Drops WAITERS and wakes all in one call: nobody sleeps on a word that lacks the bit.
            futex::clear_top_bit_and_wake_all(&self.word);
            crash::point("unlock.flushed");
            if self.free_without_waiters(me, mark) {
                return;
            }
        }
        crash::point("unlock.before_store");
        // Release pairs with the Acquire in `acquire_slow`.
        self.word.store(WAITERS | mark, Ordering::Release);
        crash::point("unlock.before_wake");
        if futex::wake(&self.word, 1) == 0 {
            self.idle_wakes.store(1, Ordering::Relaxed);
        }
    }

    /// Whether the calling thread holds it.
    #[inline]
    pub fn held_by(&self, me: Thread) -> bool {
        // Relaxed: only the thread itself can store its own TID.
        self.word.load(Ordering::Relaxed) & TID_MASK == me.tid()
    }

    /// Whether any thread, alive or not yet marked, holds it.
    pub fn is_held(&self) -> bool {
        self.word.load(Ordering::Acquire) & TID_MASK != 0
    }

    /// Whether an owner died and nobody has vouched for what the lock guards since.
    #[inline]
    pub fn owner_died(&self) -> bool {
        // Acquire pairs with the kernel's mark: what the dead owner wrote is visible.
        let word = self.word.load(Ordering::Acquire);
        word & OWNER_DIED != 0 && word & TID_MASK == 0
    }

    /// Who holds it at this moment; reads two words that others may be changing, and believes them only where they agree.
    pub fn holder(&self) -> Option<Holder> {
        let tid = self.word.load(Ordering::Acquire) & TID_MASK;
        // Relaxed: for reports.
        let owner = self.owner.load(Ordering::Relaxed);
        let named = (owner >> TID_SHIFT) as u32 & TID_MASK == tid;
        (tid != 0).then(|| Holder { thread: tid, process: named.then(|| slot_and_pid(owner)) })
    }

    /// Roster slot and pid of the owner; 0 and 0 while nobody has it, or the owner has not named itself yet.
    pub fn last_owner(&self) -> (u32, u32) {
        slot_and_pid(self.owner.load(Ordering::Relaxed))
    }

    /// Does for a dead owner what the kernel could not (its list was lost): marks the word if a thread of `slot` owned it, and wakes all.
    ///
    /// To be called only when the process of that slot is known to be dead. An owner word that is left over from that process while another
    /// thread has just taken the lock names another TID than the word; then the lock is marked only if that thread does not exist.
    pub fn mark_dead(&self, slot: u32) {
        self.mark_dead_if(slot, || true);
    }

    /// As [`mark_dead`](RawLock::mark_dead), if `still` is true after it has been seen who has the lock: that the slot is the dead process's still.
    pub fn mark_dead_if(&self, slot: u32, still: impl FnOnce() -> bool) {
        // Acquire pairs with the Release in `unlock`: whoever has the word, the owner word is at least as new as what its predecessor left.
        let seen = self.word.load(Ordering::Acquire);
        let owner = self.owner.load(Ordering::Relaxed);
        let tid = seen & TID_MASK;
        let named = (owner >> TID_SHIFT) as u32 & TID_MASK == tid && slot_and_pid(owner).0 == slot;
        if tid == 0 && seen & WAITERS != 0 {
            // The dead had freed it and owed a wake, of which the kernel did not know if it died in a signal handler.
            futex::wake(&self.word, 1);
        }
        if tid == 0 || !(named || robust::is_gone(tid)) || !still() {
            return;
        }
        let marked = WAITERS | OWNER_DIED;
        // Release: as the kernel's mark.
        if self.word.compare_exchange(seen, marked, Ordering::Release, Ordering::Relaxed).is_ok() {
            futex::wake_all(&self.word);
        }
    }

    /// For who sleeps on other words as well: the word and the value with which to sleep until the owner dies. `None`: it is dead.
    ///
    /// For locks that are held for life. The kernel wakes one sleeper, who calls [`tell_of_death`](RawLock::tell_of_death).
    pub fn watch(&self) -> Option<(&AtomicU32, u32)> {
        loop {
            // Acquire pairs with the kernel's mark.
            let seen = self.word.load(Ordering::Acquire);
            if seen & OWNER_DIED != 0 {
                return None;
            }
            if seen & WAITERS != 0
                || self.word.compare_exchange(seen, seen | WAITERS, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            {
                return Some((&self.word, seen | WAITERS));
            }
        }
    }

    /// Wakes all who sleep until the owner dies.
    pub fn tell_of_death(&self) {
        futex::wake_all(&self.word);
    }

    /// Sleeps until an owner has died or `deadline` has passed; for locks that are held for life.
    pub fn wait_for_death(&self, deadline: Option<Deadline>) -> bool {
        loop {
            let seen = self.word.load(Ordering::Acquire);
            if seen & OWNER_DIED != 0 {
                // One sleeper is woken by the kernel; each wakes the next.
                futex::wake(&self.word, 1);
                return true;
            }
            if seen & WAITERS == 0
                && self.word.compare_exchange(seen, seen | WAITERS, Ordering::Relaxed, Ordering::Relaxed).is_err()
            {
                continue;
            }
            if futex::wait(&self.word, seen | WAITERS, deadline) == Wait::TimedOut {
                return false;
            }
        }
    }
}
