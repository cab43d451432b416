//! [`RLock`]: a lock that its owner may take again.
//!
//! A [`RawLock`], of which the thread that has it counts how often: see `raw::hold`.

use crate::describe::{HeldBy, Waiters, close};
use crate::error::{Death, LockError};
use crate::events;
use crate::handle::handle;
use crate::raw::hold::{Hold, Left, name};
use multiproc_shm::memory::Shared;
use multiproc_shm::notes::Op;
use multiproc_shm::objects::{Kind, Object, type_hash};
use multiproc_shm::raw::{Acquired, LockFailed, RawLock, Who};
use multiproc_shm::report::Standing;
use multiproc_shm::{Arena, Error, Held, Role, report, waiting};
use multiproc_sys::clock::Deadline;
use multiproc_sys::robust::{self, Thread};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What a re-entrant lock is in shared memory.
#[derive(Debug)]
#[repr(C)]
struct RLockCell {
    raw: RawLock,
    hold: Hold,
    /// 1: deaths are not reported. A constant.
    ignore_death: AtomicU32,
}

#[allow(unsafe_code)]
// SAFETY: `repr(C)` of atomics and types that are `Shared`.
unsafe impl Shared for RLockCell {}

/// Re-entrant locks in the object table.
pub(crate) static RLOCK: Kind = Kind { slot_died, in_use, report, ..Kind::plain(8, "RLock") };

fn slot_died(arena: &Arena, object: Object, slot: u32) -> Result<(), Error> {
    arena.memory().at::<RLockCell>(object.offset)?.raw.mark_dead(slot);
    Ok(())
}

fn in_use(arena: &Arena, object: Object) -> Result<bool, Error> {
    Ok(arena.memory().at::<RLockCell>(object.offset)?.raw.is_held())
}

fn report(arena: &Arena, object: Object, standing: &mut Standing) -> Result<(), Error> {
    report::lock_first(arena, object, standing)?;
    let cell = arena.memory().at::<RLockCell>(object.offset)?;
    if let Some(holding) = standing.holdings.first_mut() {
        let count = cell.hold.count(holding.thread.unwrap_or(0));
        if count > 1 {
            holding.what = format!("{count} guards");
            standing.state = format!("held {count} times").into();
        }
    }
    Ok(())
}

/// A lock between processes and threads that the thread which has it may take again. A handle is two words, cheap to clone, and travels in arguments, results
/// and messages.
///
/// It belongs to one thread of one process. Each [`lock`](RLock::lock) gives a guard; the lock is free when the last of them is dropped, in whatever order.
/// The calls inside do not wait, also not with a time-out. A panic while it is held releases it without poison, as Python's `with` does.
///
/// # Crash safety
/// As [`Lock`](crate::Lock): when an owner dies, however often it held the lock, it is free within about 0.1 ms, and everybody who locks is told
/// [`LockError::OwnerDied`] until somebody vouches for what it guards: [`recover`](RLock::recover), then [`RLockRecovery::make_consistent`]. The count begins
/// anew. A *stopped* owner (SIGSTOP) keeps it until it continues.
///
/// # Python
/// `multiprocessing.RLock`, which blocks for ever when its owner is killed. There a release by who does not hold it is an `AssertionError`; here
/// a guard is what releases, it does not leave its thread, and a process that a plain `fork()` made leaves those of its parent alone, so there is no
/// such release.
///
/// # Examples
/// ```
/// use multiproc::{LockError, Process, RLock};
///
/// fn log(screen: &RLock, line: &str) -> Result<(), LockError> {
///     let _guard = screen.lock()?;
///     println!("{line}");
///     Ok(())
/// }
///
/// let screen = RLock::new()?;
/// {
///     let _both_lines = screen.lock()?;
///     log(&screen, "one")?; // takes it again
///     log(&screen, "two")?;
/// }
/// assert!(!screen.locked());
/// let worker = Process::spawn((screen.clone(),), |screen| log(&screen, "three").is_ok())?;
/// assert!(worker.join()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RLock {
    held: Arc<Held>,
    cell: &'static RLockCell,
}

handle!(RLock, &RLOCK, type_hash::<RLock>());

impl RLock {
    /// A free lock. Takes two cache lines of the arena.
    ///
    /// # Errors
    /// The arena is full.
    pub fn new() -> Result<RLock, Error> {
        RLock::new_in(Arena::of_the_tree()?)
    }

    /// A lock that only takes turns: an owner's death is not reported, the next one just gets it.
    ///
    /// # Errors
    /// As [`new`](RLock::new).
    pub fn ignoring_death() -> Result<RLock, Error> {
        let lock = RLock::new()?;
        lock.cell.ignore_death.store(1, Ordering::Relaxed);
        Ok(lock)
    }

    /// As [`new`](RLock::new), in a given arena.
    ///
    /// # Errors
    /// As [`new`](RLock::new).
    #[doc(hidden)]
    pub fn new_in(arena: &'static Arena) -> Result<RLock, Error> {
        let size = size_of::<RLockCell>() as u64;
        RLock::from_held(arena.new_object(&RLOCK, type_hash::<RLock>(), size, Role::Plain, |_| Ok(()))?)
    }

    fn from_held(held: Arc<Held>) -> Result<RLock, Error> {
        let cell = held.cell()?;
        Ok(RLock { held, cell })
    }

    /// Takes the lock, waiting as long as it must; at once, and once more, if this thread has it.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] until somebody has recovered the lock; [`LockError::WouldDeadlock`] only in a signal handler that has
    /// interrupted its thread in the middle of taking or releasing the lock.
    #[doc(alias = "acquire")]
    #[inline]
    pub fn lock(&self) -> Result<RLockGuard<'_>, LockError> {
        let arena = self.held.arena();
        match arena.who() {
            Ok(who) if self.cell.raw.lock_free(who) => Ok(self.begin(who, name_of(arena, who.thread), true)),
            _ => self.lock_again_or_wait(),
        }
    }

    #[cold]
    fn lock_again_or_wait(&self) -> Result<RLockGuard<'_>, LockError> {
        self.take(Patience::Until(None))
    }

    /// Takes the lock if it is free, or this thread has it.
    ///
    /// # Errors
    /// [`LockError::WouldBlock`], and as [`lock`](RLock::lock).
    pub fn try_lock(&self) -> Result<RLockGuard<'_>, LockError> {
        self.take(Patience::None)
    }

    /// As [`lock`](RLock::lock), waiting at most `timeout`.
    ///
    /// # Errors
    /// [`LockError::TimedOut`], never early, and as [`lock`](RLock::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> Result<RLockGuard<'_>, LockError> {
        self.take(Patience::Until(Deadline::after(timeout)))
    }

    /// As [`lock`](RLock::lock), waiting at most until `deadline`.
    ///
    /// # Errors
    /// [`LockError::TimedOut`], never early, and as [`lock`](RLock::lock).
    pub fn lock_deadline(&self, deadline: Instant) -> Result<RLockGuard<'_>, LockError> {
        self.take(Patience::Until(Deadline::at(deadline)))
    }

    /// Takes the lock whether an owner has died or not, to mend what it guards. Waits as [`lock`](RLock::lock).
    ///
    /// Until it is made consistent this thread can lock it as usual, for what it calls to mend.
    ///
    /// # Errors
    /// As [`lock`](RLock::lock), but for `OwnerDied`.
    pub fn recover(&self) -> Result<RLockRecovery<'_>, LockError> {
        let guard = self.take_as_found(Patience::Until(None))?;
        let cell = self.cell;
        let died = (!cell.hold.is_vouched_for()).then(|| Death { pid: cell.raw.dead_owner().1 });
        Ok(RLockRecovery { guard, died })
    }

    /// Whether somebody, the caller included, has it at this moment.
    pub fn locked(&self) -> bool {
        self.cell.raw.is_held()
    }

    fn take(&self, patience: Patience) -> Result<RLockGuard<'_>, LockError> {
        let (guard, fresh) = self.take_counting(patience)?;
        let cell = self.cell;
        if !fresh || cell.hold.is_vouched_for() {
            return Ok(guard);
        }
        let news = events::dead_owner(self.held.object(), &cell.raw);
        if cell.ignore_death.load(Ordering::Relaxed) != 0 {
            guard.vouch();
            news.into_iter().for_each(|notice| self.held.arena().tell_soon(notice));
            return Ok(guard);
        }
        let (_, pid) = cell.raw.dead_owner();
        // Dropped, the guard leaves the lock as it was found.
        drop(guard);
        news.into_iter().for_each(|notice| self.held.arena().tell_soon(notice));
        Err(LockError::OwnerDied(Death { pid }))
    }

    fn take_as_found(&self, patience: Patience) -> Result<RLockGuard<'_>, LockError> {
        self.take_counting(patience).map(|(guard, _)| guard)
    }

    /// A guard, and whether it is the only one.
    fn take_counting(&self, patience: Patience) -> Result<(RLockGuard<'_>, bool), LockError> {
        let (arena, cell) = (self.held.arena(), self.cell);
        let who = arena.who()?;
        let me = name_of(arena, who.thread);
        match cell.hold.again(me) {
            Some(true) => return Ok((RLockGuard::new(cell, who.thread), false)),
            Some(false) => {}
            None => return Err(Error::Full(&"guards of one RLock").into()),
        }
        let found = match (cell.raw.try_lock(who), patience) {
            (Err(LockFailed::Held), Patience::Until(deadline)) => {
                let note = arena.note_wait(Op::Lock, self.held.object().index, deadline);
                let found = cell.raw.lock_until(who, deadline);
                waiting::end(note, found == Err(LockFailed::TimedOut));
                found
            }
            (other, _) => other,
        };
        let found = found.map_err(LockError::from_raw)?;
        Ok((self.begin(who, me, found == Acquired::Clean), true))
    }

    #[inline]
    fn begin(&self, who: Who, me: u64, vouched_for: bool) -> RLockGuard<'_> {
        self.cell.hold.begin(me, vouched_for);
        RLockGuard::new(self.cell, who.thread)
    }
}

#[inline]
fn name_of(arena: &Arena, thread: Thread) -> u64 {
    name(arena.my_slot(), arena.my_generation(), thread.tid())
}

/// How long to wait.
#[derive(Clone, Copy)]
enum Patience {
    None,
    Until(Option<Deadline>),
}

impl fmt::Debug for RLock {
    /// Such as `RLock(id: 3, held by process "worker-1" (pid 123), thread 124, 2 times, 1 waiting)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (arena, index) = (self.held.arena(), self.held.object().index);
        let count = self.cell.raw.holder().map_or(0, |holder| self.cell.hold.count(holder.thread));
        write!(f, "RLock(id: {index}, {}", HeldBy(arena, &self.cell.raw))?;
        match count {
            0 => {}
            1 => f.write_str(", once")?,
            n => write!(f, ", {n} times")?,
        }
        close(f, Waiters::of(arena, index))
    }
}

/// Holds an [`RLock`] once; it is released when the last guard is dropped. Bound to its thread. Forgetting one keeps the lock until the thread ends, which counts as
/// a death.
#[must_use = "the lock is released when the guard is dropped"]
#[derive(Debug)]
pub struct RLockGuard<'a> {
    cell: &'a RLockCell,
    /// Who holds it; makes the guard stay on its thread.
    thread: Thread,
    life: u32,
}

impl<'a> RLockGuard<'a> {
    #[inline]
    fn new(cell: &'a RLockCell, thread: Thread) -> RLockGuard<'a> {
        RLockGuard { cell, thread, life: robust::life() }
    }

    fn vouch(&self) {
        if robust::life() == self.life {
            self.cell.raw.forget_death();
            self.cell.hold.vouch();
        }
    }
}

impl Drop for RLockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // In a process made by fork() it is the parent's.
        if robust::life() != self.life {
            return;
        }
        match self.cell.hold.leave() {
            Left::Held => {}
            Left::Nothing { vouched_for: true } => self.cell.raw.unlock(self.thread),
            Left::Nothing { vouched_for: false } => self.cell.raw.unlock_inconsistent(self.thread),
        }
    }
}

/// Holds an [`RLock`] after an owner's death. Dropped as it is, it leaves the lock as it was found.
#[must_use = "without `make_consistent` the lock goes on reporting the death"]
#[derive(Debug)]
pub struct RLockRecovery<'a> {
    guard: RLockGuard<'a>,
    died: Option<Death>,
}

impl<'a> RLockRecovery<'a> {
    /// Who died; `None` when nobody did, or another process was quicker to recover.
    pub fn died(&self) -> Option<Death> {
        self.died
    }

    /// Vouches for what the lock guards: from now on it is a lock like any other, and held.
    pub fn make_consistent(self) -> RLockGuard<'a> {
        self.guard.vouch();
        self.guard
    }
}
