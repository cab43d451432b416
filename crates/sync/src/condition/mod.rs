//! [`Condition`]: waiting, with a lock given up meanwhile, for what another process does under it.
//!
//! The words, and what a death at each step leaves, are in `raw`. A handle holds the lock's handle too, and both travel together. The cell names the
//! lock, so that the cleaner finds it.

mod raw;

use crate::error::LockError;
use crate::lock::{Lock, LockGuard};
use multiproc_shm::memory::Shared;
use multiproc_shm::notes::Op;
use multiproc_shm::objects::{Kind, Object, RawRef, type_hash};
use multiproc_shm::raw::RawLock;
use multiproc_shm::report::Standing;
use multiproc_shm::{Arena, Error, Held, Role, scope, waiting};
use multiproc_sys::clock::Deadline;
use multiproc_sys::{age, crash};
use raw::RawCondition;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug)]
#[repr(C)]
struct ConditionCell {
    raw: RawCondition,
    /// Reference of the lock. A constant.
    lock: AtomicU64,
}

#[allow(unsafe_code)]
// SAFETY: `repr(C)` of atomics.
unsafe impl Shared for ConditionCell {}

/// Conditions in the object table.
pub(crate) static CONDITION: Kind = Kind { slot_died, report, ..Kind::plain(20, "Condition") };

fn cell_of(arena: &Arena, object: Object) -> Result<&'static ConditionCell, Error> {
    if object.size < size_of::<ConditionCell>() as u64 {
        return Err(Error::Corrupted(&"a condition's cell"));
    }
    arena.memory().at(object.offset)
}

fn slot_died(arena: &Arena, object: Object, slot: u32) -> Result<(), Error> {
    let cell = cell_of(arena, object)?;
    let lock = RawRef(cell.lock.load(Ordering::Relaxed));
    // Gone, if the dead process had the last handle.
    let lock = arena.object(lock.index())?.filter(|o| o.generation == lock.generation() && o.size >= size_of::<RawLock>() as u64);
    let (mut deaths, mut owner_died) = (0, false);
    if let Some(object) = lock {
        let raw = arena.memory().at::<RawLock>(object.offset)?;
        // The hook of the lock itself may come later, and the kernel may not have looked.
        raw.mark_dead(slot);
        // In this order.
        owner_died = raw.owner_died();
        deaths = raw.deaths();
    }
    cell.raw.slot_died(slot, deaths, owner_died);
    Ok(())
}

fn report(arena: &Arena, object: Object, standing: &mut Standing) -> Result<(), Error> {
    let cell = cell_of(arena, object)?;
    let lock = RawRef(cell.lock.load(Ordering::Relaxed)).index();
    standing.state = format!("{} waiting, Lock {lock}", cell.raw.waiting(arena.slots_high())).into();
    if !cell.raw.has_sleeper() {
        standing.awake(None, Op::Wait);
    }
    Ok(())
}

/// Lets processes and threads wait for what others do under a [`Lock`]. A handle is a few words, cheap to clone, and travels in arguments, results and
/// messages, its lock with it.
///
/// Who waits hands in the guard of the lock and gets one back: the lock is released while it waits, and taken again before the wait returns. A wait may
/// end though nobody has notified ("spuriously"), so look at what you wait for again, or have [`wait_for`](Condition::wait_for) do it.
///
/// # Crash safety
/// A dead waiter swallows no notification, and a notifier that is killed leaves nobody asleep: when a process that waits, or that has the lock, dies,
/// everybody who waits is woken as soon as the death is cleaned up after (within a millisecond, or as long as the kernel takes to end a large process). Who
/// then finds the lock as its dead owner left it gets [`LockError::OwnerDied`], as from [`Lock::lock`]; so does a waiter who was notified meanwhile. Otherwise the
/// wait has ended spuriously. A notification never waits for who is notified. A *stopped* waiter (SIGSTOP) may have a notification in hand until it continues.
///
/// # Python
/// `multiprocessing.Condition`, of which `notify` blocks for ever when a woken process was killed. The lock is a [`Lock`], not a recursive one. `notify`
/// without the lock is `RuntimeError` there; here it takes the guard.
///
/// # Examples
/// ```
/// use multiproc::{Condition, Process, Value};
///
/// let (ready, items) = (Condition::new()?, Value::new(0u32)?);
/// let worker = Process::spawn((ready.clone(), items.clone()), |ready, items| {
///     let guard = ready.lock().unwrap();
///     let _guard = ready.wait_for(guard, || items.get().unwrap() > 0).unwrap();
///     items.get().unwrap()
/// })?;
/// {
///     let guard = ready.lock()?;
///     items.set(7)?;
///     ready.notify_one(&guard)?;
/// }
/// assert_eq!(worker.join()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Several conditions may share a lock:
/// ```
/// use multiproc::{Condition, Lock};
///
/// let lock = Lock::new()?;
/// let (not_full, not_empty) = (Condition::with_lock(&lock)?, Condition::with_lock(&lock)?);
/// let guard = lock.lock()?;
/// not_empty.notify_one(&guard)?;
/// not_full.notify_all(&guard)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Condvar")]
#[derive(Clone)]
pub struct Condition {
    held: Arc<Held>,
    cell: &'static ConditionCell,
    lock: Lock,
}

impl Condition {
    /// A condition with a lock of its own. Takes 8 KiB of the arena.
    ///
    /// # Errors
    /// The arena is full.
    pub fn new() -> Result<Condition, Error> {
        Condition::new_in(Arena::of_the_tree()?)
    }

    /// As [`new`](Condition::new), in a given arena.
    ///
    /// # Errors
    /// As [`new`](Condition::new).
    #[doc(hidden)]
    pub fn new_in(arena: &'static Arena) -> Result<Condition, Error> {
        Condition::with_lock(&Lock::new_in(arena)?)
    }

    /// A condition of this lock.
    ///
    /// # Errors
    /// The arena is full.
    pub fn with_lock(lock: &Lock) -> Result<Condition, Error> {
        let (arena, size) = (lock.held().arena(), size_of::<ConditionCell>() as u64);
        let held = arena.new_object(&CONDITION, type_hash::<Condition>(), size, Role::Plain, |object| {
            let cell = cell_of(arena, object)?;
            // Relaxed: published with the object.
            cell.lock.store(lock.held().reference().0, Ordering::Relaxed);
            cell.raw.begin_at(age::first(32) as u32);
            Ok(())
        })?;
        Condition::from_parts(held, lock.clone())
    }

    fn from_parts(held: Arc<Held>, lock: Lock) -> Result<Condition, Error> {
        let cell = held.cell::<ConditionCell>()?;
        if cell.lock.load(Ordering::Relaxed) != lock.held().reference().0 {
            return Err(Error::Corrupted(&"a condition's lock"));
        }
        Ok(Condition { held, cell, lock })
    }

    /// The lock of the condition: to recover it, say, or to try to take it.
    pub fn get_lock(&self) -> &Lock {
        &self.lock
    }

    /// Takes the lock, waiting as long as it must: [`Lock::lock`].
    ///
    /// # Errors
    /// As [`Lock::lock`].
    #[doc(alias = "acquire")]
    #[inline]
    pub fn lock(&self) -> Result<LockGuard<'_>, LockError> {
        self.lock.lock()
    }

    /// Waits for a notification, without the lock, and takes it again. May also return without a notification.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`], as [`Lock::lock`]: the guard is gone then. [`LockError::NotOwned`]: the guard is one of another lock, which is released.
    pub fn wait<'a>(&self, guard: LockGuard<'a>) -> Result<LockGuard<'a>, LockError> {
        self.wait_until(guard, None).map(|(guard, _)| guard)
    }

    /// As [`wait`](Condition::wait), at most for `timeout`, besides the time that it takes to get the lock again; whether there was a notification.
    ///
    /// # Errors
    /// As [`wait`](Condition::wait).
    pub fn wait_timeout<'a>(&self, guard: LockGuard<'a>, timeout: Duration) -> Result<(LockGuard<'a>, bool), LockError> {
        self.wait_until(guard, Deadline::after(timeout))
    }

    /// As [`wait_timeout`](Condition::wait_timeout), at most until `deadline`.
    ///
    /// # Errors
    /// As [`wait`](Condition::wait).
    pub fn wait_deadline<'a>(&self, guard: LockGuard<'a>, deadline: Instant) -> Result<(LockGuard<'a>, bool), LockError> {
        self.wait_until(guard, Deadline::at(deadline))
    }

    /// Waits until `condition` is true. It is asked under the lock, first of all and after each wake.
    ///
    /// # Errors
    /// As [`wait`](Condition::wait).
    pub fn wait_for<'a>(&self, guard: LockGuard<'a>, condition: impl FnMut() -> bool) -> Result<LockGuard<'a>, LockError> {
        self.wait_for_until(guard, None, condition).map(|(guard, _)| guard)
    }

    /// As [`wait_for`](Condition::wait_for), at most for `timeout` in all; what `condition` said last.
    ///
    /// # Errors
    /// As [`wait`](Condition::wait).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// let never = multiproc::Condition::new()?;
    /// let (guard, found) = never.wait_for_timeout(never.lock()?, Duration::from_millis(1), || false)?;
    /// assert!(!found);
    /// drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for_timeout<'a>(
        &self,
        guard: LockGuard<'a>,
        timeout: Duration,
        condition: impl FnMut() -> bool,
    ) -> Result<(LockGuard<'a>, bool), LockError> {
        self.wait_for_until(guard, Deadline::after(timeout), condition)
    }

    /// As [`wait_for_timeout`](Condition::wait_for_timeout), at most until `deadline`.
    ///
    /// # Errors
    /// As [`wait`](Condition::wait).
    pub fn wait_for_deadline<'a>(
        &self,
        guard: LockGuard<'a>,
        deadline: Instant,
        condition: impl FnMut() -> bool,
    ) -> Result<(LockGuard<'a>, bool), LockError> {
        self.wait_for_until(guard, Deadline::at(deadline), condition)
    }

    fn wait_for_until<'a>(
        &self,
        mut guard: LockGuard<'a>,
        deadline: Option<Deadline>,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(LockGuard<'a>, bool), LockError> {
        loop {
            if condition() {
                return Ok((guard, true));
            }
            let notified;
            (guard, notified) = self.wait_until(guard, deadline)?;
            if !notified || deadline.is_some_and(Deadline::passed) {
                let found = condition();
                return Ok((guard, found));
            }
        }
    }

    fn wait_until<'a>(&self, guard: LockGuard<'a>, deadline: Option<Deadline>) -> Result<(LockGuard<'a>, bool), LockError> {
        let (arena, cell) = (self.held.arena(), &self.cell.raw);
        let who = arena.who()?;
        self.owned(&guard)?;
        let slot = arena.my_slot();
        let began = cell.begin(slot);
        drop(guard);
        crash::point("condition.unlocked");
        let mut over = cell.is_over_soon(began);
        if !over {
            let note = arena.note_wait(Op::Wait, self.held.object().index, deadline);
            over = cell.sleep(began, deadline);
            waiting::end(note, !over);
        }
        let found = self.lock.take(who);
        // A notification that came while it was about to give up counts: it may have been meant for this one.
        over |= cell.is_over(began);
        cell.leave(slot);
        self.lock.taken(who, found).map(|guard| (guard, over))
    }

    /// Lets one of those who wait go, if anybody waits.
    ///
    /// # Errors
    /// [`LockError::NotOwned`]: the guard is one of another lock.
    #[doc(alias = "notify")]
    pub fn notify_one(&self, guard: &LockGuard<'_>) -> Result<(), LockError> {
        self.notify(guard, 1)
    }

    /// Lets up to `count` of those who wait go.
    ///
    /// # Errors
    /// As [`notify_one`](Condition::notify_one).
    pub fn notify(&self, guard: &LockGuard<'_>, count: usize) -> Result<(), LockError> {
        self.owned(guard)?;
        if count > 0 {
            self.cell.raw.notify(u32::try_from(count).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// Lets all who wait go.
    ///
    /// # Errors
    /// As [`notify_one`](Condition::notify_one).
    pub fn notify_all(&self, guard: &LockGuard<'_>) -> Result<(), LockError> {
        self.notify(guard, usize::MAX)
    }

    /// How many threads wait at this moment, in all processes.
    pub fn waiting(&self) -> u32 {
        self.cell.raw.waiting(self.held.arena().slots_high())
    }

    fn owned(&self, guard: &LockGuard<'_>) -> Result<(), LockError> {
        if guard.holds(self.lock.raw()) { Ok(()) } else { Err(LockError::NotOwned) }
    }
}

/// The condition's own reference, as it stands in a message before that of the lock.
struct Own(Arc<Held>);

impl Serialize for Own {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        scope::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Own {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Own, D::Error> {
        scope::deserialize(&CONDITION, type_hash::<Condition>(), deserializer).map(Own)
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (Own(self.held.clone()), &self.lock).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Condition, D::Error> {
        let (Own(held), lock) = Deserialize::deserialize(deserializer)?;
        Condition::from_parts(held, lock).map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for Condition {
    /// Such as `Condition(id: 3, 1 waiting, Lock(id: 2, free))`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition(id: {}, {} waiting, {:?})", self.held.object().index, self.waiting(), self.lock)
    }
}
