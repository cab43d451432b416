//! [`SharedVec`]: many elements that one process fills, and then everybody may read as [`Frozen`].
//!
//! An object whose block is its memory. Until it is frozen there is one handle to it, which cannot be cloned and does not travel, so its `&mut [T]` is
//! the only reference to the elements in any process; once frozen, nobody writes there again. So neither side takes a lock.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `len` | number of elements, a constant | the creator | - |
//! | `frozen` 0 | the elements are being written | - | - |
//! | `frozen` 1 | nobody writes them any more | the owner, before a reference can leave it | as it is |
//! | elements | the content | the owner while `frozen` is 0 | nobody has seen them |
//!
//! | killed | left behind | who repairs |
//! |---|---|---|
//! | while the memory is taken or filled | a block of the slot's, an entry `Filling(slot)`, or an object that it alone holds | the next collection frees it |
//! | after the freeze, before a message with it commits | the same | the same |
//! | after that | a frozen vector in a message | whoever gets it; the collector, if nobody does |
#![allow(unsafe_code)]

use crate::frozen::Frozen;
use bytemuck::Pod;
use multiproc_shm::memory::Shared;
use multiproc_shm::objects::{Kind, Object, type_hash};
use multiproc_shm::report::Standing;
use multiproc_shm::{Arena, Error, Held, Role};
use multiproc_sys::{crash, robust};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct VecCell {
    pub(crate) len: AtomicU64,
    pub(crate) frozen: AtomicU32,
}

// SAFETY: `repr(C)` of atomics.
unsafe impl Shared for VecCell {}

/// Where the elements begin. Blocks are aligned to their size, and none that has room for an element is smaller than two of these.
pub(crate) const ELEMENTS: u64 = 64;
const _: () = assert!(size_of::<VecCell>() as u64 == ELEMENTS);

/// Vectors in the object table, frozen or not.
pub(crate) static SHARED_VEC: Kind = Kind { report, ..Kind::plain(12, "SharedVec") };

fn report(arena: &Arena, object: Object, standing: &mut Standing) -> Result<(), Error> {
    let cell = arena.memory().at::<VecCell>(object.offset)?;
    let bytes = object.size - ELEMENTS.min(object.size);
    // Relaxed: a figure.
    if cell.frozen.load(Ordering::Relaxed) != 0 {
        standing.state = format!("frozen, in {bytes} bytes").into();
        return Ok(());
    }
    standing.state = format!("being filled, {bytes} bytes").into();
    for slot in 0..arena.slots_high() {
        if arena.slot_has(slot, Role::Plain, object.index)? {
            standing.share(slot, String::new(), &[]);
        }
    }
    Ok(())
}

/// Memory for many elements that one process fills and others then read, without a copy. It derefs to `&mut [T]`, aligned to 64 bytes; [`freeze`](SharedVec::freeze)
/// makes a [`Frozen`] of it, which can be cloned and travels in arguments, results and messages: the memory goes, not the bytes.
///
/// It is unique, so it can be neither cloned nor sent. It has up to 8 GiB less 64 bytes, taken when it is made. `T` is `bytemuck`'s `Pod`: numbers, arrays of them, and
/// structs that derive it. Where several processes write, take an [`Array`](crate::Array), which has a lock.
///
/// Memory goes when the handle is dropped; once a frozen one has left the process, at the next collection after the last handle has gone.
///
/// # Panics
/// In the child of a plain `fork()`, on every access: the memory is its parent's.
///
/// # Crash safety
/// Killed while it fills a vector, a process leaves nothing: nobody else has seen it.
///
/// # Python
/// `shared_memory.SharedMemory` with an array of `numpy` over it, without the name, the `close` and the `unlink`.
///
/// # Examples
/// ```
/// use multiproc::{Frozen, Process, SharedVec};
///
/// let mut samples = SharedVec::<f32>::zeroed(1_000_000)?;
/// for (n, sample) in samples.iter_mut().enumerate() {
///     *sample = n as f32;
/// }
/// let samples = samples.freeze();
/// let max = Process::spawn((samples.clone(),), |s: Frozen<f32>| s.iter().copied().fold(0.0, f32::max))?;
/// assert_eq!(max.join()?, samples[999_999]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It cannot be sent before it is frozen:
/// ```compile_fail,E0277
/// use multiproc::{Process, SharedVec};
///
/// Process::spawn((SharedVec::<f32>::zeroed(10).unwrap(),), |s: SharedVec<f32>| s.len());
/// ```
#[doc(alias = "SharedMemory")]
#[doc(alias = "RawArray")]
pub struct SharedVec<T: Pod> {
    held: Arc<Held>,
    elements: NonNull<T>,
    len: usize,
    /// In another one it is the parent's.
    life: u32,
}

// SAFETY: it owns its elements, as a `Vec` does, and the handle is one of those that all threads may have.
unsafe impl<T: Pod + Send> Send for SharedVec<T> {}
// SAFETY: as above; shared, it gives out shared references to elements alone.
unsafe impl<T: Pod + Sync> Sync for SharedVec<T> {}

impl<T: Pod> SharedVec<T> {
    /// `len` elements of zeroes.
    ///
    /// # Errors
    /// The arena is full, or more than 8 GiB were asked for.
    pub fn zeroed(len: usize) -> Result<SharedVec<T>, Error> {
        SharedVec::zeroed_in(Arena::of_the_tree()?, len)
    }

    /// As [`zeroed`](SharedVec::zeroed), in a given arena.
    ///
    /// # Errors
    /// As [`zeroed`](SharedVec::zeroed).
    #[doc(hidden)]
    pub fn zeroed_in(arena: &'static Arena, len: usize) -> Result<SharedVec<T>, Error> {
        SharedVec::make(arena, len, None)
    }

    /// A copy of `elements`.
    ///
    /// # Errors
    /// As [`zeroed`](SharedVec::zeroed).
    pub fn from_slice(elements: &[T]) -> Result<SharedVec<T>, Error> {
        SharedVec::make(Arena::of_the_tree()?, elements.len(), Some(bytemuck::must_cast_slice(elements)))
    }

    /// `len` elements, each made by `f` from its index, in order. If `f` panics, the memory is given back.
    ///
    /// # Errors
    /// As [`zeroed`](SharedVec::zeroed).
    pub fn from_fn(len: usize, mut f: impl FnMut(usize) -> T) -> Result<SharedVec<T>, Error> {
        let mut made = SharedVec::zeroed(len)?;
        for (n, element) in made.iter_mut().enumerate() {
            *element = f(n);
        }
        Ok(made)
    }

    /// Of these bytes, or zeroes.
    fn make(arena: &'static Arena, len: usize, bytes: Option<&[u8]>) -> Result<SharedVec<T>, Error> {
        const { assert!(align_of::<T>() as u64 <= ELEMENTS, "elements are aligned to 64 bytes at most") };
        const { assert!(align_of::<VecCell>() as u64 == ELEMENTS, "elements come right behind the cell") };
        let size = (len as u64).checked_mul(size_of::<T>() as u64).and_then(|n| n.checked_add(ELEMENTS));
        let size = size
            .filter(|n| *n <= 1 << multiproc_shm::layout::MAX_CLASS)
            .ok_or(Error::Invalid(&"a shared vector has at most 8 GiB"))?;
        let zeroed = if bytes.is_some() { ELEMENTS } else { size };
        let held = arena.new_object_within(&SHARED_VEC, type_hash::<Frozen<T>>(), (size, zeroed), Role::Plain, |object| {
            // Relaxed: the object is published later.
            arena.memory().at::<VecCell>(object.offset)?.len.store(len as u64, Ordering::Relaxed);
            arena.memory().write(object.offset + ELEMENTS, bytes.unwrap_or_default())?;
            crash::point("shared_vec.filled");
            Ok(())
        })?;
        let elements = elements_of(arena, held.object(), len)?;
        Ok(SharedVec { held, elements, len, life: robust::life() })
    }

    /// Makes it one that everybody may read, and that travels. Its bytes stay where they are; it takes no time.
    ///
    /// # Panics
    /// In the child of a plain `fork()`: the memory is its parent's.
    pub fn freeze(self) -> Frozen<T> {
        self.check();
        let cell = self.held.cell::<VecCell>().expect("checked when the vector was made");
        crash::point("shared_vec.freezing");
        // Release pairs with the Acquire in `Frozen::from_held`: whoever finds it frozen finds the elements as they are.
        cell.frozen.store(1, Ordering::Release);
        crash::point("shared_vec.frozen");
        Frozen::new(self.held, self.elements, self.len)
    }

    fn check(&self) {
        if robust::life() != self.life {
            another_life();
        }
    }
}

#[cold]
fn another_life() -> ! {
    panic!("this SharedVec belongs to the process that fork() has made this one of")
}

/// The first of the object's `len` elements, all of which lie in its block.
pub(crate) fn elements_of<T: Pod>(arena: &Arena, object: Object, len: usize) -> Result<NonNull<T>, Error> {
    let bytes = (len as u64).checked_mul(size_of::<T>() as u64);
    let bytes = bytes.filter(|n| n.checked_add(ELEMENTS).is_some_and(|end| end <= object.size));
    let bytes = bytes.ok_or(Error::Corrupted(&"a shared vector's length"))?;
    let first = arena.memory().pointer_to(object.offset + ELEMENTS, bytes)?.cast();
    NonNull::new(first).ok_or(Error::Corrupted(&"a shared vector's place"))
}

impl<T: Pod> Deref for SharedVec<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.check();
        // SAFETY: checked when it was made; every bit pattern is a `T`. The object lives as long as this handle, the only one, through which alone
        // the elements are written.
        unsafe { slice::from_raw_parts(self.elements.as_ptr(), self.len) }
    }
}

impl<T: Pod> DerefMut for SharedVec<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        self.check();
        // SAFETY: as in `deref`; the only handle is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.elements.as_ptr(), self.len) }
    }
}

impl<T: Pod> AsRef<[T]> for SharedVec<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T: Pod> AsMut<[T]> for SharedVec<T> {
    fn as_mut(&mut self) -> &mut [T] {
        self
    }
}

impl<'a, T: Pod> IntoIterator for &'a SharedVec<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> slice::Iter<'a, T> {
        self.iter()
    }
}

impl<'a, T: Pod> IntoIterator for &'a mut SharedVec<T> {
    type Item = &'a mut T;
    type IntoIter = slice::IterMut<'a, T>;

    fn into_iter(self) -> slice::IterMut<'a, T> {
        self.iter_mut()
    }
}

impl<T: Pod> fmt::Debug for SharedVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedVec").field("id", &self.held.object().index).field("len", &self.len).finish_non_exhaustive()
    }
}
