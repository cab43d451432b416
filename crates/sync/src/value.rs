//! [`Value`]: a value that is always whole.
//!
//! Two copies and a version word, after the sequence lock (Boehm, "Can seqlocks get along with programming language memory models?", 2012).
//! The copy with the version's lowest bit is the current one. A writer under the lock fills the other copy and stores the
//! version: that one store is the commit. A reader copies the current one and takes it if the version has not moved.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `lock` | one writer at a time | writers | the next one finds `OWNER_DIED` and nothing to mend |
//! | copy `version + 1` | the next value | owner of `lock` | half written, never read |
//! | `version` | which copy counts | owner of `lock` | old or new value |

use crate::error::LockError;
use crate::handle::handle;
use bytemuck::{CheckedBitPattern, NoUninit};
use multiproc_shm::memory::Shared;
use multiproc_shm::notes::Op;
use multiproc_shm::objects::{Kind, Object, type_hash};
use multiproc_shm::raw::{LockFailed, RawLock};
use multiproc_shm::{Arena, Error, Held, Role, report, waiting};
use multiproc_sys::clock::Deadline;
use multiproc_sys::{age, crash, robust};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

#[derive(Debug)]
#[repr(C)]
struct ValueCell {
    lock: RawLock,
    version: AtomicU64,
}

#[allow(unsafe_code)]
// SAFETY: `repr(C)` of atomics and types that are `Shared`.
unsafe impl Shared for ValueCell {}

/// The copies begin behind the cell.
const COPIES: u64 = size_of::<ValueCell>() as u64;
/// Reads without the lock before a reader takes it.
const TRIES: u32 = 16;
/// Values up to this many words are copied on the stack.
const STACK_WORDS: usize = 32;

/// Values in the object table.
pub(crate) static VALUE: Kind = Kind { slot_died, in_use, report: report::lock_first, ..Kind::plain(2, "Value") };

fn slot_died(arena: &Arena, object: Object, slot: u32) -> Result<(), Error> {
    arena.memory().at::<RawLock>(object.offset)?.mark_dead(slot);
    Ok(())
}

fn in_use(arena: &Arena, object: Object) -> Result<bool, Error> {
    Ok(arena.memory().at::<RawLock>(object.offset)?.is_held())
}

/// A value that processes and threads share. A handle is a few words, cheap to clone, and travels in arguments, results and messages.
///
/// `T` is plain data (`bytemuck`'s `NoUninit + CheckedBitPattern`): numbers, `bool`, `char`, arrays of them, and structs that derive both traits.
/// Reading takes no lock; writing takes the value's own. For a single number, [`Atomic`](crate::Atomic) is faster.
///
/// # Crash safety
/// A writer that is killed leaves the old value, never a torn one, also under [`lock`](Value::lock). So nobody is told of its death.
///
/// # Python
/// `multiprocessing.Value`, whose `v.value += 1` loses updates; [`update`](Value::update) does not.
///
/// # Examples
/// ```
/// use multiproc::{Process, Value};
///
/// let total = Value::new(0u64)?;
/// let workers = [1, 2, 3].map(|n| {
///     Process::spawn((total.clone(), n), |total, n: u64| total.update(|t| *t += n).unwrap()).unwrap()
/// });
/// for worker in workers {
///     worker.join()?;
/// }
/// assert_eq!(total.get()?, 6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Mutex")]
pub struct Value<T: 'static> {
    held: Arc<Held>,
    cell: &'static ValueCell,
    _type: PhantomData<fn(T) -> T>,
}

handle!(Value<T: Sized>, &VALUE, type_hash::<Value<T>>());

fn words<T>() -> u64 {
    (size_of::<T>() as u64).div_ceil(8).max(1)
}

impl<T> Value<T> {
    fn from_held(held: Arc<Held>) -> Result<Value<T>, Error> {
        let cell = held.cell()?;
        // The last word of the second copy must be there.
        held.part::<AtomicU64>(COPIES + (2 * words::<T>() - 1) * 8)?;
        Ok(Value { held, cell, _type: PhantomData })
    }

    fn word(&self, copy: u64, i: u64) -> Result<&'static AtomicU64, Error> {
        self.held.part(COPIES + ((copy & 1) * words::<T>() + i) * 8)
    }
}

impl<T: NoUninit + CheckedBitPattern> Value<T> {
    /// A value that begins as `initial`.
    ///
    /// # Errors
    /// The arena is full.
    pub fn new(initial: T) -> Result<Value<T>, Error> {
        Value::new_in(Arena::of_the_tree()?, initial)
    }

    /// As [`new`](Value::new), in a given arena.
    ///
    /// # Errors
    /// As [`new`](Value::new).
    #[doc(hidden)]
    pub fn new_in(arena: &'static Arena, initial: T) -> Result<Value<T>, Error> {
        let size = COPIES + 2 * words::<T>() * 8;
        let value = Value::<T>::from_held(arena.new_object(&VALUE, type_hash::<Value<T>>(), size, Role::Plain, |_| Ok(()))?)?;
        let version = age::first(64);
        value.write_copy(version, &initial)?;
        // Relaxed: nobody else has a handle.
        value.cell.version.store(version, Ordering::Relaxed);
        Ok(value)
    }

    /// A copy of the value. Takes no lock unless 16 writers in a row come between.
    ///
    /// # Errors
    /// The memory holds no `T`, which no correct program leaves there; or the process was made by `fork()`.
    pub fn get(&self) -> Result<T, LockError> {
        if robust::forked() {
            return Err(LockError::Shared(Error::Forked));
        }
        for _ in 0..TRIES {
            // Acquire pairs with the Release in `publish`: the copy of this version is complete.
            let version = self.cell.version.load(Ordering::Acquire);
            let copy = self.read_copy(version)?;
            // Acquire: the copy was read before the version is looked at again; pairs with the Release fence in `write_copy`.
            fence(Ordering::Acquire);
            if self.cell.version.load(Ordering::Relaxed) == version {
                return copy.ok_or(LockError::Shared(Error::Corrupted(&"a value's bit pattern")));
            }
        }
        Ok(*self.lock()?)
    }

    /// Replaces the value.
    ///
    /// # Errors
    /// As [`lock`](Value::lock).
    pub fn set(&self, value: T) -> Result<(), LockError> {
        let mut guard = self.lock()?;
        *guard = value;
        Ok(())
    }

    /// Changes the value under its lock and returns what `change` returns. If `change` panics, the old value stays.
    ///
    /// # Errors
    /// As [`lock`](Value::lock).
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R, LockError> {
        Ok(change(&mut *self.lock()?))
    }

    /// Takes the value's lock. The guard edits a private copy; dropping it publishes.
    ///
    /// # Errors
    /// [`LockError::WouldDeadlock`] if this thread has it. Never [`LockError::OwnerDied`]: a dead writer leaves nothing to mend.
    pub fn lock(&self) -> Result<ValueGuard<'_, T>, LockError> {
        self.lock_within(None)
    }

    /// As [`lock`](Value::lock), waiting at most `timeout`.
    ///
    /// # Errors
    /// [`LockError::TimedOut`], never early, and as [`lock`](Value::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> Result<ValueGuard<'_, T>, LockError> {
        self.lock_within(Deadline::after(timeout))
    }

    fn lock_within(&self, deadline: Option<Deadline>) -> Result<ValueGuard<'_, T>, LockError> {
        let who = self.held.arena().who()?;
        // A dead writer leaves the old value whole: there is nothing to report.
        let _either = match self.cell.lock.try_lock(who) {
            Err(LockFailed::Held) => {
                let note = self.held.arena().note_wait(Op::Lock, self.held.object().index, deadline);
                let found = self.cell.lock.lock_until(who, deadline);
                waiting::end(note, found == Err(LockFailed::TimedOut));
                found
            }
            other => other,
        }
        .map_err(LockError::from_raw)?;
        crash::point("value.locked");
        let version = self.cell.version.load(Ordering::Relaxed);
        match self.read_copy(version) {
            Ok(Some(copy)) => Ok(ValueGuard {
                value: self,
                copy,
                version,
                publish: true,
                panicking: std::thread::panicking(),
                life: robust::life(),
                _not_send: PhantomData,
            }),
            other => {
                self.cell.lock.unlock(who.thread);
                other?;
                Err(LockError::Shared(Error::Corrupted(&"a value's bit pattern")))
            }
        }
    }

    fn read_copy(&self, version: u64) -> Result<Option<T>, Error> {
        let count = words::<T>() as usize;
        let (mut small, mut large) = ([0u64; STACK_WORDS], Vec::new());
        let buffer = if count <= STACK_WORDS {
            &mut small[..count]
        } else {
            large.resize(count, 0);
            &mut large[..]
        };
        for (i, word) in buffer.iter_mut().enumerate() {
            // Relaxed: the version decides whether these words belong together.
            *word = self.word(version, i as u64)?.load(Ordering::Relaxed);
        }
        let bytes = &bytemuck::cast_slice::<u64, u8>(buffer)[..size_of::<T>()];
        Ok(bytemuck::checked::try_pod_read_unaligned(bytes).ok())
    }

    fn write_copy(&self, version: u64, value: &T) -> Result<(), Error> {
        // Release: these stores come after the version that a reader may have seen; pairs with the Acquire fence in `get`.
        fence(Ordering::Release);
        for (i, chunk) in bytemuck::bytes_of(value).chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(version, i as u64)?.store(u64::from_ne_bytes(word), Ordering::Relaxed);
            crash::point("value.word_written");
        }
        Ok(())
    }
}

impl<T: NoUninit + CheckedBitPattern + fmt::Debug> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut d = f.debug_struct("Value");
        d.field("id", &self.held.object().index);
        match self.get() {
            Ok(value) => d.field("value", &value),
            Err(e) => d.field("error", &e),
        };
        d.finish()
    }
}

/// Holds a [`Value`]'s lock and a private copy of it. Dropping publishes the copy, unless a panic is unwinding.
#[must_use = "the lock is released when the guard is dropped"]
#[derive(Debug)]
pub struct ValueGuard<'a, T: NoUninit + CheckedBitPattern> {
    value: &'a Value<T>,
    copy: T,
    version: u64,
    publish: bool,
    /// A panic was unwinding when the lock was taken: the guard belongs to a destructor, and that panic is none of its own.
    panicking: bool,
    life: u32,
    _not_send: PhantomData<*mut ()>,
}

impl<T: NoUninit + CheckedBitPattern> ValueGuard<'_, T> {
    /// Releases the lock and leaves the value as it was.
    pub fn discard(mut self) {
        self.publish = false;
    }
}

impl<T: NoUninit + CheckedBitPattern> Deref for ValueGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.copy
    }
}

impl<T: NoUninit + CheckedBitPattern> DerefMut for ValueGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.copy
    }
}

impl<T: NoUninit + CheckedBitPattern> Drop for ValueGuard<'_, T> {
    fn drop(&mut self) {
        // In a process made by fork() the lock is the parent's.
        let Some(me) = robust::current().ok().filter(|_| robust::life() == self.life) else { return };
        let cell = self.value.cell;
        if self.publish && self.panicking == std::thread::panicking() && cell.lock.held_by(me) {
            let next = self.version.wrapping_add(1);
            if self.value.write_copy(next, &self.copy).is_ok() {
                crash::point("value.written");
                // Release pairs with the Acquire in `get`: the commit.
                cell.version.store(next, Ordering::Release);
                crash::point("value.committed");
            }
        }
        cell.lock.unlock(me);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use multiproc_shm::Options;

    #[test]
    fn a_bit_pattern_of_another_type_is_an_error_and_the_lock_stays_usable() {
        let arena = Arena::create(&Options { size: 16 << 20, ..Options::new(0, crate::KINDS) }).unwrap();
        let value = Value::new_in(arena, true).unwrap();
        value.word(0, 0).unwrap().store(2, Ordering::Relaxed);
        let corrupted = Err(LockError::Shared(Error::Corrupted(&"a value's bit pattern")));
        for _ in 0..2 {
            assert_eq!(value.get(), corrupted);
            assert_eq!(value.lock().map(|g| *g), corrupted);
            assert_eq!(value.set(false).map(|()| false), corrupted);
        }
        value.word(0, 0).unwrap().store(1, Ordering::Relaxed);
        value.update(|v| *v = false).unwrap();
        assert_eq!(value.get(), Ok(false));
    }
}
