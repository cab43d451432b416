//! [`Lock`]: mutual exclusion between processes and threads that survives its owners.

use crate::describe::{HeldBy, Waiters, close};
use crate::error::{Death, LockError};
use crate::events;
use crate::handle::handle;
use multiproc_shm::memory::Shared;
use multiproc_shm::notes::Op;
use multiproc_shm::objects::{Kind, Object, type_hash};
use multiproc_shm::raw::{Acquired, LockFailed, RawLock, Who};
use multiproc_shm::{Arena, Error, Held, Role, report, waiting};
use multiproc_sys::clock::Deadline;
use multiproc_sys::robust::{self, Thread};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What a lock is in shared memory: see [`RawLock`].
#[derive(Debug)]
#[repr(C)]
struct LockCell {
    raw: RawLock,
    /// 1: deaths are not reported. A constant.
    ignore_death: AtomicU32,
}

#[allow(unsafe_code)]
// SAFETY: `repr(C)` of atomics and types that are `Shared`.
unsafe impl Shared for LockCell {}

/// Locks in the object table.
pub(crate) static LOCK: Kind = Kind { slot_died, in_use, report: report::lock_first, ..Kind::plain(1, "Lock") };

fn slot_died(arena: &Arena, object: Object, slot: u32) -> Result<(), Error> {
    arena.memory().at::<RawLock>(object.offset)?.mark_dead(slot);
    Ok(())
}

fn in_use(arena: &Arena, object: Object) -> Result<bool, Error> {
    Ok(arena.memory().at::<RawLock>(object.offset)?.is_held())
}

/// A lock between processes and threads. A handle is two words, cheap to clone, and travels in arguments, results and messages.
///
/// It guards whatever the program says it guards; to guard a value of its own, see [`Value`](crate::Value). Not recursive: a thread that
/// locks again gets [`LockError::WouldDeadlock`]; see [`RLock`](crate::RLock). A panic while it is held releases it without poison, as Python's `with` does.
///
/// # Crash safety
/// When an owner dies, the lock is free within about 0.1 ms, and everybody who locks is told
/// [`LockError::OwnerDied`] until somebody vouches for what it guards: [`recover`](Lock::recover), then [`Recovery::make_consistent`]. Nothing that is merely
/// dropped disables a lock for others. A *stopped* owner (SIGSTOP) keeps it until it continues.
///
/// # Python
/// `multiprocessing.Lock`, which blocks for ever when its owner is killed. Only the owner can release.
///
/// # Examples
/// ```
/// use multiproc::{Lock, LockError, Process};
///
/// let lock = Lock::new()?;
/// let worker = Process::spawn((lock.clone(),), |lock| -> () {
///     let _guard = lock.lock().unwrap();
///     std::process::abort(); // dies with the lock
/// })?;
/// assert!(worker.join().is_err());
///
/// match lock.lock() {
///     Err(LockError::OwnerDied(death)) => {
///         assert_ne!(death.pid, std::process::id());
///         let recovery = lock.recover()?; // .. look at what it guarded, mend it ..
///         drop(recovery.make_consistent());
///     }
///     _ => panic!("a killed owner is reported"),
/// }
/// assert!(lock.lock().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Lock {
    held: Arc<Held>,
    cell: &'static LockCell,
}

handle!(Lock, &LOCK, type_hash::<Lock>());

impl Lock {
    /// A free lock. Takes two cache lines of the arena.
    ///
    /// # Errors
    /// The arena is full.
    pub fn new() -> Result<Lock, Error> {
        Lock::new_in(Arena::of_the_tree()?)
    }

    /// A lock that only takes turns: an owner's death is not reported, the next one just gets it.
    ///
    /// # Errors
    /// As [`new`](Lock::new).
    pub fn ignoring_death() -> Result<Lock, Error> {
        let lock = Lock::new()?;
        lock.cell.ignore_death.store(1, Ordering::Relaxed);
        Ok(lock)
    }

    /// As [`new`](Lock::new), in a given arena.
    ///
    /// # Errors
    /// As [`new`](Lock::new).
    #[doc(hidden)]
    pub fn new_in(arena: &'static Arena) -> Result<Lock, Error> {
        let size = size_of::<LockCell>() as u64;
        Lock::from_held(arena.new_object(&LOCK, type_hash::<Lock>(), size, Role::Plain, |_| Ok(()))?)
    }

    fn from_held(held: Arc<Held>) -> Result<Lock, Error> {
        let cell = held.cell()?;
        Ok(Lock { held, cell })
    }

    pub(crate) fn held(&self) -> &Arc<Held> {
        &self.held
    }

    pub(crate) fn raw(&self) -> &'static RawLock {
        &self.cell.raw
    }

    fn who(&self) -> Result<Who, LockError> {
        Ok(self.held.arena().who()?)
    }

    /// Takes the lock, waiting as long as it must.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] until somebody has recovered the lock; [`LockError::WouldDeadlock`] if this thread has it.
    #[doc(alias = "acquire")]
    #[inline]
    pub fn lock(&self) -> Result<LockGuard<'_>, LockError> {
        match self.held.arena().who() {
            Ok(who) if self.cell.raw.lock_free(who) => Ok(LockGuard::new(&self.cell.raw, who.thread)),
            _ => self.lock_contended(),
        }
    }

    #[cold]
    fn lock_contended(&self) -> Result<LockGuard<'_>, LockError> {
        let who = self.who()?;
        match self.cell.raw.try_lock(who) {
            Err(LockFailed::Held) => self.lock_slow(who, None),
            other => self.taken(who, other),
        }
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    /// [`LockError::WouldBlock`], and as [`lock`](Lock::lock).
    pub fn try_lock(&self) -> Result<LockGuard<'_>, LockError> {
        let who = self.who()?;
        self.taken(who, self.cell.raw.try_lock(who))
    }

    /// As [`lock`](Lock::lock), waiting at most `timeout`.
    ///
    /// # Errors
    /// [`LockError::TimedOut`], never early, and as [`lock`](Lock::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> Result<LockGuard<'_>, LockError> {
        self.lock_slow(self.who()?, Deadline::after(timeout))
    }

    /// As [`lock`](Lock::lock), waiting at most until `deadline`.
    ///
    /// # Errors
    /// [`LockError::TimedOut`], never early, and as [`lock`](Lock::lock).
    pub fn lock_deadline(&self, deadline: Instant) -> Result<LockGuard<'_>, LockError> {
        self.lock_slow(self.who()?, Deadline::at(deadline))
    }

    #[cold]
    fn lock_slow(&self, who: Who, deadline: Option<Deadline>) -> Result<LockGuard<'_>, LockError> {
        let note = self.held.arena().note_wait(Op::Lock, self.held.object().index, deadline);
        let found = self.cell.raw.lock_until(who, deadline);
        waiting::end(note, found == Err(LockFailed::TimedOut));
        self.taken(who, found)
    }

    /// Takes the lock in whatever state it is, waiting as long as it must.
    pub(crate) fn take(&self, who: Who) -> Result<Acquired, LockFailed> {
        match self.cell.raw.try_lock(who) {
            Err(LockFailed::Held) => {
                let note = self.held.arena().note_wait(Op::Lock, self.held.object().index, None);
                let found = self.cell.raw.lock(who);
                waiting::end(note, false);
                found
            }
            other => other,
        }
    }

    /// Tells the caller what was found; an owner's death is left for the next one to find. The handle outlives the guard.
    #[inline]
    pub(crate) fn taken<'a>(&self, who: Who, found: Result<Acquired, LockFailed>) -> Result<LockGuard<'a>, LockError> {
        match found {
            Ok(Acquired::Clean) => Ok(LockGuard::new(&self.cell.raw, who.thread)),
            Ok(Acquired::OwnerDied) => self.found_dead(who),
            Err(why) => Err(LockError::from_raw(why)),
        }
    }

    #[cold]
    fn found_dead<'a>(&self, who: Who) -> Result<LockGuard<'a>, LockError> {
        let news = events::dead_owner(self.held.object(), &self.cell.raw);
        if self.cell.ignore_death.load(Ordering::Relaxed) != 0 {
            self.cell.raw.forget_death();
            news.into_iter().for_each(|notice| self.held.arena().tell_soon(notice));
            return Ok(LockGuard::new(&self.cell.raw, who.thread));
        }
        let (_, pid) = self.cell.raw.dead_owner();
        self.cell.raw.unlock_inconsistent(who.thread);
        news.into_iter().for_each(|notice| self.held.arena().tell_soon(notice));
        Err(LockError::OwnerDied(Death { pid }))
    }

    /// Takes the lock whether an owner has died or not, to mend what it guards. Waits as [`lock`](Lock::lock).
    ///
    /// # Errors
    /// [`LockError::WouldDeadlock`] if this thread has it.
    pub fn recover(&self) -> Result<Recovery<'_>, LockError> {
        let who = self.who()?;
        let found = self.take(who).map_err(LockError::from_raw)?;
        let died = match found {
            Acquired::Clean => None,
            Acquired::OwnerDied => Some(Death { pid: self.cell.raw.dead_owner().1 }),
        };
        Ok(Recovery { raw: &self.cell.raw, died, thread: who.thread, life: robust::life() })
    }

    /// Whether somebody, the caller included, has it at this moment.
    pub fn locked(&self) -> bool {
        self.cell.raw.is_held()
    }

    /// As [`locked`](Lock::locked), in the grammar of std.
    pub fn is_locked(&self) -> bool {
        self.locked()
    }
}

impl fmt::Debug for Lock {
    /// Such as `Lock(id: 3, held by process "worker-1" (pid 123), thread 124, 2 waiting)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (arena, index) = (self.held.arena(), self.held.object().index);
        write!(f, "Lock(id: {index}, {}", HeldBy(arena, &self.cell.raw))?;
        close(f, Waiters::of(arena, index))
    }
}

/// Holds a [`Lock`]; dropping it releases. Bound to its thread. Forgetting it keeps the lock until the thread ends, which counts as a death.
#[must_use = "the lock is released when the guard is dropped"]
#[derive(Debug)]
pub struct LockGuard<'a> {
    raw: &'a RawLock,
    /// Who holds it; makes the guard stay on its thread.
    thread: Thread,
    life: u32,
}

impl<'a> LockGuard<'a> {
    /// Whether it holds this lock, and still does: in a process made by fork() it is the parent's.
    #[inline]
    pub(crate) fn holds(&self, raw: &RawLock) -> bool {
        std::ptr::eq(self.raw, raw) && self.life == robust::life()
    }

    #[inline]
    fn new(raw: &'a RawLock, thread: Thread) -> LockGuard<'a> {
        LockGuard { raw, thread, life: robust::life() }
    }
}

impl Drop for LockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // In a process made by fork() it is the parent's.
        if robust::life() == self.life {
            self.raw.unlock(self.thread);
        }
    }
}

/// Holds a [`Lock`] after an owner's death. Dropped as it is, it leaves the lock as it was found.
#[must_use = "without `make_consistent` the lock goes on reporting the death"]
#[derive(Debug)]
pub struct Recovery<'a> {
    raw: &'a RawLock,
    died: Option<Death>,
    thread: Thread,
    life: u32,
}

impl<'a> Recovery<'a> {
    /// Who died; `None` when nobody did, or another process was quicker to recover.
    pub fn died(&self) -> Option<Death> {
        self.died
    }

    /// Vouches for what the lock guards: from now on it is a lock like any other, and held.
    pub fn make_consistent(self) -> LockGuard<'a> {
        if robust::life() == self.life {
            self.raw.forget_death();
        }
        let guard = LockGuard { raw: self.raw, thread: self.thread, life: self.life };
        std::mem::forget(self);
        guard
    }
}

impl Drop for Recovery<'_> {
    fn drop(&mut self) {
        if robust::life() != self.life {
            return;
        }
        if self.died.is_some() {
            self.raw.unlock_inconsistent(self.thread);
        } else {
            self.raw.unlock(self.thread);
        }
    }
}
