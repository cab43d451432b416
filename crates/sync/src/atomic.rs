//! [`Atomic`]: one of std's atomics, shared between processes.

use crate::handle::handle;
use multiproc_shm::memory::Shared;
use multiproc_shm::objects::{Kind, type_hash};
use multiproc_shm::{Arena, Error, Held, Role};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::SeqCst,
};

#[cfg(not(target_has_atomic = "64"))]
compile_error!("multiproc needs 64-bit atomics, which work across processes");

/// Atomics in the object table.
pub(crate) static ATOMIC: Kind = Kind::plain(3, "Atomic");

mod sealed {
    pub trait Sealed {}
}

/// The integers that [`Atomic`] takes. Sealed.
pub trait AtomicPrimitive: sealed::Sealed + Copy + Send + Sync + fmt::Debug + 'static {
    /// std's atomic for it.
    #[allow(private_bounds, reason = "what may lie in shared memory is this crate's affair")]
    type Std: Shared + fmt::Debug;

    #[doc(hidden)]
    fn load(on: &Self::Std) -> Self;
    #[doc(hidden)]
    fn store(self, on: &Self::Std);
    #[doc(hidden)]
    fn add(self, on: &Self::Std) -> Self;
}

macro_rules! primitives {
    ($($T:ty => $Std:ty),*) => { $(
        impl sealed::Sealed for $T {}
        impl AtomicPrimitive for $T {
            type Std = $Std;

            fn load(on: &$Std) -> $T {
                on.load(SeqCst)
            }

            fn store(self, on: &$Std) {
                on.store(self, SeqCst);
            }

            fn add(self, on: &$Std) -> $T {
                on.fetch_add(self, SeqCst)
            }
        }
    )* };
}

primitives!(
    u8 => AtomicU8, u16 => AtomicU16, u32 => AtomicU32, u64 => AtomicU64, usize => AtomicUsize,
    i8 => AtomicI8, i16 => AtomicI16, i32 => AtomicI32, i64 => AtomicI64, isize => AtomicIsize
);

/// An integer that processes and threads change atomically. Derefs to std's atomic, so its whole API is there.
///
/// A handle is two words, cheap to clone, and travels in arguments, results and messages.
///
/// # Crash safety
/// Each operation has happened or has not; there is nothing to report.
///
/// # Python
/// What `Value('Q', lock=False)` is used for, without the lost updates.
///
/// # Examples
/// ```
/// use multiproc::{Atomic, Process};
/// use std::sync::atomic::Ordering;
///
/// let hits = Atomic::new(0u64)?;
/// let workers = [0; 3].map(|_| Process::spawn((hits.clone(),), |hits| { hits.fetch_add(2, Ordering::Relaxed); }).unwrap());
/// for worker in workers {
///     worker.join()?;
/// }
/// hits.add(1);
/// assert_eq!(hits.get(), 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Atomic<T: AtomicPrimitive> {
    held: Arc<Held>,
    cell: &'static T::Std,
}

handle!(Atomic<T: AtomicPrimitive>, &ATOMIC, type_hash::<Atomic<T>>());

impl<T: AtomicPrimitive> Atomic<T> {
    /// An atomic that begins as `initial`.
    ///
    /// # Errors
    /// The arena is full.
    pub fn new(initial: T) -> Result<Atomic<T>, Error> {
        Atomic::new_in(Arena::of_the_tree()?, initial)
    }

    /// As [`new`](Atomic::new), in a given arena.
    ///
    /// # Errors
    /// As [`new`](Atomic::new).
    #[doc(hidden)]
    pub fn new_in(arena: &'static Arena, initial: T) -> Result<Atomic<T>, Error> {
        let size = size_of::<T::Std>() as u64;
        let atomic = Atomic::<T>::from_held(arena.new_object(&ATOMIC, type_hash::<Atomic<T>>(), size, Role::Plain, |_| Ok(()))?)?;
        atomic.set(initial);
        Ok(atomic)
    }

    fn from_held(held: Arc<Held>) -> Result<Atomic<T>, Error> {
        let cell = held.cell()?;
        Ok(Atomic { held, cell })
    }

    /// The value, sequentially consistent: short for `load(SeqCst)`.
    pub fn get(&self) -> T {
        T::load(self.cell)
    }

    /// Replaces the value, sequentially consistent: short for `store(value, SeqCst)`.
    pub fn set(&self, value: T) {
        value.store(self.cell);
    }

    /// Adds, wrapping, and returns the value before, sequentially consistent: short for `fetch_add(by, SeqCst)`.
    pub fn add(&self, by: T) -> T {
        by.add(self.cell)
    }
}

impl<T: AtomicPrimitive> Deref for Atomic<T> {
    type Target = T::Std;

    #[inline]
    fn deref(&self) -> &T::Std {
        self.cell
    }
}

impl<T: AtomicPrimitive> fmt::Debug for Atomic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Atomic").field(&self.get()).finish()
    }
}
