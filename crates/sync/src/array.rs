//! [`Array`]: many elements under one lock.
//!
//! The elements lie behind the cell in the object's own block; their number is a constant. They are reached only through the lock, also for
//! reading, so a `&mut [T]` into shared memory is the only reference to it in any process.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `lock` | one user at a time | users | `OWNER_DIED`, until somebody recovers |
//! | `len` | number of elements, a constant | the creator | - |
//! | elements | the content | owner of `lock` | some of its stores are there, others are not; every bit pattern is a `T` |
#![allow(unsafe_code)]

use crate::error::{Death, LockError};
use crate::events;
use crate::handle::handle;
use bytemuck::Pod;
use multiproc_shm::memory::Shared;
use multiproc_shm::notes::Op;
use multiproc_shm::objects::{Kind, Object, type_hash};
use multiproc_shm::raw::{Acquired, LockFailed, RawLock, Who};
use multiproc_shm::{Arena, Error, Held, Role, report, waiting};
use multiproc_sys::clock::Deadline;
use multiproc_sys::crash;
use multiproc_sys::robust::{self, Thread};
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Debug)]
#[repr(C, align(64))]
struct ArrayCell {
    lock: RawLock,
    len: AtomicU64,
}

// SAFETY: `repr(C)` of atomics and types that are `Shared`.
unsafe impl Shared for ArrayCell {}

/// Where the elements begin. Blocks are aligned to their size, so elements are aligned to this.
const ELEMENTS: u64 = 128;
const _: () = assert!(size_of::<ArrayCell>() as u64 == ELEMENTS);

/// Arrays in the object table.
pub(crate) static ARRAY: Kind = Kind { slot_died, in_use, report: report::lock_first, ..Kind::plain(7, "Array") };

fn slot_died(arena: &Arena, object: Object, slot: u32) -> Result<(), Error> {
    arena.memory().at::<RawLock>(object.offset)?.mark_dead(slot);
    Ok(())
}

fn in_use(arena: &Arena, object: Object) -> Result<bool, Error> {
    Ok(arena.memory().at::<RawLock>(object.offset)?.is_held())
}

/// An array of plain data that processes and threads share. A handle is a few words, cheap to clone, and travels in arguments, results and messages.
///
/// Of any length up to 8 GiB; the memory is taken when the array is made. `T` is `bytemuck`'s `Pod`: numbers, arrays of them, and structs that derive it. Every
/// access takes the array's lock: one element by [`get`](Array::get) and [`set`](Array::set), all by [`lock`](Array::lock). Where only single
/// numbers change, an [`Atomic`](crate::Atomic) for each needs no lock.
///
/// # Crash safety
/// A process that is killed while it has the lock may leave any part of what it was writing: some elements new, some old, and one that is larger
/// than a word, or was being copied with others, half of each. It is a `T` in any case, if not one that makes sense. So everybody who comes after is told
/// [`LockError::OwnerDied`] until somebody has looked: [`recover`](Array::recover), then [`ArrayRecovery::make_consistent`]. A panic
/// under the lock releases it without a word, as Python's `with` does.
///
/// # Python
/// `multiprocessing.Array`, which blocks for ever when the owner of its lock is killed; `a.get_lock()` is [`lock`](Array::lock).
///
/// # Examples
/// ```
/// use multiproc::{Array, Process};
///
/// let squares = Array::<u64>::zeroed(100)?;
/// let workers = [0, 50].map(|from| {
///     Process::spawn((squares.clone(), from), |squares, from: usize| {
///         for n in from..from + 50 {
///             squares.set(n, (n * n) as u64).unwrap();
///         }
///     })
///     .unwrap()
/// });
/// for worker in workers {
///     worker.join()?;
/// }
/// assert_eq!(squares.get(99)?, 9801);
/// assert_eq!(squares.lock()?.iter().sum::<u64>(), 328350);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "RawArray")]
#[doc(alias = "get_lock")]
pub struct Array<T: Pod> {
    held: Arc<Held>,
    cell: &'static ArrayCell,
    len: usize,
    _type: PhantomData<fn(T) -> T>,
}

handle!(Array<T: Pod>, &ARRAY, type_hash::<Array<T>>());

impl<T: Pod> Array<T> {
    /// As many elements as `initial` gives, which is an array, a vector or any other collection.
    ///
    /// # Errors
    /// The arena is full.
    pub fn new(initial: impl AsRef<[T]>) -> Result<Array<T>, Error> {
        Array::from_slice(initial.as_ref())
    }

    /// A copy of `initial`.
    ///
    /// # Errors
    /// As [`new`](Array::new).
    pub fn from_slice(initial: &[T]) -> Result<Array<T>, Error> {
        Array::make(Arena::of_the_tree()?, initial.len(), bytemuck::must_cast_slice(initial))
    }

    /// `len` elements of zeroes.
    ///
    /// # Errors
    /// As [`new`](Array::new).
    pub fn zeroed(len: usize) -> Result<Array<T>, Error> {
        Array::make(Arena::of_the_tree()?, len, &[])
    }

    /// As [`zeroed`](Array::zeroed), in a given arena.
    ///
    /// # Errors
    /// As [`new`](Array::new).
    #[doc(hidden)]
    pub fn zeroed_in(arena: &'static Arena, len: usize) -> Result<Array<T>, Error> {
        Array::make(arena, len, &[])
    }

    fn make(arena: &'static Arena, len: usize, bytes: &[u8]) -> Result<Array<T>, Error> {
        const { assert!(align_of::<T>() as u64 <= ELEMENTS, "elements are aligned to 128 bytes at most") };
        let size = (len as u64).checked_mul(size_of::<T>() as u64).and_then(|n| n.checked_add(ELEMENTS));
        let size =
            size.filter(|n| *n <= 1 << multiproc_shm::layout::MAX_CLASS).ok_or(Error::Invalid(&"an array has at most 8 GiB"))?;
        let held = arena.new_object(&ARRAY, type_hash::<Array<T>>(), size, Role::Plain, |object| {
            // Relaxed: the object is published later.
            arena.memory().at::<ArrayCell>(object.offset)?.len.store(len as u64, Ordering::Relaxed);
            arena.memory().write(object.offset + ELEMENTS, bytes)
        })?;
        Array::from_held(held)
    }

    fn from_held(held: Arc<Held>) -> Result<Array<T>, Error> {
        let cell = held.cell::<ArrayCell>()?;
        // Read once: what a peer writes there later bounds nothing.
        let len = cell.len.load(Ordering::Relaxed);
        let end = len.checked_mul(size_of::<T>() as u64).and_then(|n| n.checked_add(ELEMENTS));
        if end.is_none_or(|end| end > held.object().size) {
            return Err(Error::Corrupted(&"an array's length"));
        }
        Ok(Array { held, cell, len: len as usize, _type: PhantomData })
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A copy of the element at `index`.
    ///
    /// # Errors
    /// As [`lock`](Array::lock).
    ///
    /// # Panics
    /// There is no such element.
    pub fn get(&self, index: usize) -> Result<T, LockError> {
        self.check(index);
        Ok(self.lock()?[index])
    }

    /// Replaces the element at `index`.
    ///
    /// # Errors
    /// As [`lock`](Array::lock).
    ///
    /// # Panics
    /// There is no such element.
    pub fn set(&self, index: usize, value: T) -> Result<(), LockError> {
        self.check(index);
        self.lock()?[index] = value;
        Ok(())
    }

    fn check(&self, index: usize) {
        assert!(index < self.len, "index {index} of an array of {} elements", self.len);
    }

    /// A copy of all elements, of one moment.
    ///
    /// # Errors
    /// As [`lock`](Array::lock).
    #[doc(alias = "get_obj")]
    pub fn to_vec(&self) -> Result<Vec<T>, LockError> {
        // The memory is made before the lock is taken.
        let mut copy = Vec::with_capacity(self.len);
        copy.extend_from_slice(&self.lock()?);
        Ok(copy)
    }

    /// Takes the lock; the guard derefs to the elements, which nobody else can reach meanwhile.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] until somebody has recovered the array; [`LockError::WouldDeadlock`] if this thread has its lock.
    pub fn lock(&self) -> Result<ArrayGuard<'_, T>, LockError> {
        let who = self.who()?;
        match self.cell.lock.try_lock(who) {
            Err(LockFailed::Held) => self.lock_slow(who, None),
            other => self.taken(who, other),
        }
    }

    /// As [`lock`](Array::lock) without waiting.
    ///
    /// # Errors
    /// [`LockError::WouldBlock`], and as [`lock`](Array::lock).
    pub fn try_lock(&self) -> Result<ArrayGuard<'_, T>, LockError> {
        let who = self.who()?;
        self.taken(who, self.cell.lock.try_lock(who))
    }

    /// As [`lock`](Array::lock), waiting at most `timeout`.
    ///
    /// # Errors
    /// [`LockError::TimedOut`], never early, and as [`lock`](Array::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> Result<ArrayGuard<'_, T>, LockError> {
        self.lock_slow(self.who()?, Deadline::after(timeout))
    }

    /// Takes the lock whether an owner has died or not, to look at the elements and mend them. Waits as [`lock`](Array::lock).
    ///
    /// # Errors
    /// [`LockError::WouldDeadlock`] if this thread has it.
    pub fn recover(&self) -> Result<ArrayRecovery<'_, T>, LockError> {
        let who = self.who()?;
        let found = match self.cell.lock.try_lock(who) {
            Err(LockFailed::Held) => {
                let note = self.held.arena().note_wait(Op::Lock, self.held.object().index, None);
                let found = self.cell.lock.lock(who);
                waiting::end(note, false);
                found
            }
            other => other,
        };
        let found = found.map_err(LockError::from_raw)?;
        let died = match found {
            Acquired::Clean => None,
            Acquired::OwnerDied => Some(Death { pid: self.cell.lock.dead_owner().1 }),
        };
        Ok(ArrayRecovery { guard: ManuallyDrop::new(ArrayGuard { array: self, thread: who.thread, life: robust::life() }), died })
    }

    fn who(&self) -> Result<Who, LockError> {
        Ok(self.held.arena().who()?)
    }

    #[cold]
    fn lock_slow(&self, who: Who, deadline: Option<Deadline>) -> Result<ArrayGuard<'_, T>, LockError> {
        let note = self.held.arena().note_wait(Op::Lock, self.held.object().index, deadline);
        let found = self.cell.lock.lock_until(who, deadline);
        waiting::end(note, found == Err(LockFailed::TimedOut));
        self.taken(who, found)
    }

    fn taken(&self, who: Who, found: Result<Acquired, LockFailed>) -> Result<ArrayGuard<'_, T>, LockError> {
        match found {
            Ok(Acquired::Clean) => {
                crash::point("array.locked");
                Ok(ArrayGuard { array: self, thread: who.thread, life: robust::life() })
            }
            Ok(Acquired::OwnerDied) => {
                let news = events::dead_owner(self.held.object(), &self.cell.lock);
                let (_, pid) = self.cell.lock.dead_owner();
                self.cell.lock.unlock_inconsistent(who.thread);
                news.into_iter().for_each(|notice| self.held.arena().tell_soon(notice));
                Err(LockError::OwnerDied(Death { pid }))
            }
            Err(why) => Err(LockError::from_raw(why)),
        }
    }

    fn elements(&self) -> *mut T {
        let bytes = self.len as u64 * size_of::<T>() as u64;
        let start = self.held.arena().memory().pointer_to(self.held.object().offset + ELEMENTS, bytes);
        start.expect("checked when the handle was made").cast()
    }
}

impl<T: Pod> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array").field("id", &self.held.object().index).field("len", &self.len).finish_non_exhaustive()
    }
}

/// Holds an [`Array`]'s lock and derefs to its elements; dropping it releases. Bound to its thread.
#[must_use = "the lock is released when the guard is dropped"]
pub struct ArrayGuard<'a, T: Pod> {
    array: &'a Array<T>,
    /// Who holds it; makes the guard stay on its thread.
    thread: Thread,
    life: u32,
}

impl<T: Pod> Deref for ArrayGuard<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: in bounds of the object, aligned, mapped for ever and any bit pattern is a `T`. This guard's thread has the lock, under which alone
        // elements are reached, in each process; the object lives as long as the handle that the guard borrows.
        unsafe { slice::from_raw_parts(self.array.elements(), self.array.len) }
    }
}

impl<T: Pod> DerefMut for ArrayGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; the guard is borrowed exclusively, and there is one guard at a time.
        unsafe { slice::from_raw_parts_mut(self.array.elements(), self.array.len) }
    }
}

impl<T: Pod> Drop for ArrayGuard<'_, T> {
    fn drop(&mut self) {
        crash::point("array.unlocking");
        // In a process made by fork() it is the parent's.
        if robust::life() == self.life {
            self.array.cell.lock.unlock(self.thread);
        }
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for ArrayGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Holds an [`Array`] after an owner's death, and derefs to its elements. Dropped as it is, it leaves the array as it was found.
#[must_use = "without `make_consistent` the array goes on reporting the death"]
pub struct ArrayRecovery<'a, T: Pod> {
    /// Reaches the elements; what its drop would do is done here.
    guard: ManuallyDrop<ArrayGuard<'a, T>>,
    died: Option<Death>,
}

impl<'a, T: Pod> ArrayRecovery<'a, T> {
    /// Who died; `None` when nobody did, or another process was quicker to recover.
    pub fn died(&self) -> Option<Death> {
        self.died
    }

    /// Vouches for the elements: from now on it is an array like any other, and locked.
    pub fn make_consistent(self) -> ArrayGuard<'a, T> {
        let this = ManuallyDrop::new(self);
        let ArrayGuard { array, thread, life } = *this.guard;
        if robust::life() == life {
            array.cell.lock.forget_death();
        }
        crash::point("array.vouched");
        ArrayGuard { array, thread, life }
    }
}

impl<T: Pod> Deref for ArrayRecovery<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.guard
    }
}

impl<T: Pod> DerefMut for ArrayRecovery<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.guard
    }
}

impl<T: Pod> Drop for ArrayRecovery<'_, T> {
    fn drop(&mut self) {
        let ArrayGuard { array, thread, life } = *self.guard;
        if robust::life() != life {
            return;
        }
        if self.died.is_some() {
            array.cell.lock.unlock_inconsistent(thread);
        } else {
            array.cell.lock.unlock(thread);
        }
    }
}

impl<T: Pod> fmt::Debug for ArrayRecovery<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrayRecovery").field("died", &self.died).finish_non_exhaustive()
    }
}
