//! [`Frozen`]: elements that nobody writes any more, read in place by whoever has a handle.
//!
//! Made by [`SharedVec::freeze`], whose file says what lies where. A handle is made only of an object whose `frozen` word is set, and nothing unsets it.
#![allow(unsafe_code)]

#[cfg(doc)]
use crate::shared_vec::SharedVec;
use crate::shared_vec::{SHARED_VEC, VecCell, elements_of};
use bytemuck::Pod;
use multiproc_shm::objects::type_hash;
use multiproc_shm::{Error, Held, scope};
use multiproc_sys::robust;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Elements that nobody writes any more, read in place by processes and threads: made by [`SharedVec::freeze`]. It derefs to `&[T]`, aligned to 64 bytes.
///
/// A handle is a few words, cheap to clone, and travels in arguments, results and messages. Whatever its size, sending it takes as long as sending a number.
///
/// # Panics
/// In the child of a plain `fork()`, on every access, until it has called `after_fork_child()`.
///
/// # Crash safety
/// Its memory lives as long as a process has a handle or a message with one is under way, whoever made it; after that it goes at the next collection, or at once if it
/// never left its process. In a message on lease it comes again with the message.
///
/// # Examples
/// ```
/// use multiproc::{Frozen, Process, Queue, SharedVec};
///
/// let frames = Queue::<Frozen<u8>>::bounded(4)?;
/// let camera = Process::spawn((frames.clone(),), |frames: Queue<Frozen<u8>>| {
///     let frame = SharedVec::from_fn(1 << 20, |n| n as u8).unwrap();
///     frames.put(frame.freeze()).unwrap();
/// })?;
/// let frame = frames.get()?;
/// camera.join()?;
/// // Whoever made it is gone.
/// assert_eq!((frame.len(), frame[257]), (1 << 20, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Frozen<T: Pod> {
    held: Arc<Held>,
    elements: NonNull<T>,
    len: usize,
}

// SAFETY: it gives out shared references to elements that nobody writes, and may be the last of its handles.
unsafe impl<T: Pod + Send + Sync> Send for Frozen<T> {}
// SAFETY: as above.
unsafe impl<T: Pod + Send + Sync> Sync for Frozen<T> {}

impl<T: Pod> Frozen<T> {
    /// Of a vector that has just been frozen.
    pub(crate) fn new(held: Arc<Held>, elements: NonNull<T>, len: usize) -> Frozen<T> {
        Frozen { held, elements, len }
    }

    fn from_held(held: Arc<Held>) -> Result<Frozen<T>, Error> {
        let cell = held.cell::<VecCell>()?;
        // Acquire pairs with the Release in `SharedVec::freeze`.
        if cell.frozen.load(Ordering::Acquire) != 1 {
            return Err(Error::Corrupted(&"a shared vector that is not frozen has been sent"));
        }
        // Read once: what a peer writes there later bounds nothing.
        let len = usize::try_from(cell.len.load(Ordering::Relaxed)).map_err(|_| Error::Corrupted(&"a shared vector's length"))?;
        let elements = elements_of(held.arena(), held.object(), len)?;
        Ok(Frozen { held, elements, len })
    }
}

impl<T: Pod> Deref for Frozen<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        if robust::forked() {
            forked();
        }
        // SAFETY: in bounds of the object, aligned, mapped for ever and any bit pattern is a `T`: checked when the handle was made. It is frozen, so nobody
        // writes it, and lives as long as this handle, which a bit of this process stands for.
        unsafe { slice::from_raw_parts(self.elements.as_ptr(), self.len) }
    }
}

#[cold]
fn forked() -> ! {
    panic!("{}", Error::Forked)
}

impl<T: Pod> Clone for Frozen<T> {
    fn clone(&self) -> Frozen<T> {
        Frozen { held: self.held.clone(), ..*self }
    }
}

impl<T: Pod> Serialize for Frozen<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        scope::serialize(&self.held, serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Frozen<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Frozen<T>, D::Error> {
        let held = scope::deserialize(&SHARED_VEC, type_hash::<Frozen<T>>(), deserializer)?;
        Frozen::from_held(held).map_err(de::Error::custom)
    }
}

impl<T: Pod> AsRef<[T]> for Frozen<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<'a, T: Pod> IntoIterator for &'a Frozen<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> slice::Iter<'a, T> {
        self.iter()
    }
}

impl<T: Pod> fmt::Debug for Frozen<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frozen").field("id", &self.held.object().index).field("len", &self.len).finish_non_exhaustive()
    }
}
