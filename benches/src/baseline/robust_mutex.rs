//! glibc's robust process-shared mutex (pthread_mutexattr_setrobust(3)) in shared memory.
#![allow(unsafe_code)]

use crate::segment::{Segment, Shared};
use std::{cell::UnsafeCell, io, mem::MaybeUninit};

/// A robust mutex that another process could use as well.
#[derive(Debug)]
pub struct RobustMutex(Segment<Memory>);

#[repr(C)]
#[derive(Debug)]
struct Memory(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a pthread mutex may be used by several threads through one address.
unsafe impl Sync for Memory {}

// SAFETY: integers and list pointers that only the C library follows, valid when zero; initialised
// as process-shared.
unsafe impl Shared for Memory {}

impl RobustMutex {
    /// A new mutex.
    pub fn new() -> io::Result<RobustMutex> {
        let memory = Segment::<Memory>::new()?;
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: room for the attributes.
        check(unsafe { libc::pthread_mutexattr_init(attributes) })?;
        // SAFETY: initialised above.
        check(unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) })?;
        // SAFETY: initialised above.
        check(unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) })?;
        // SAFETY: the memory is ours alone until this returns.
        check(unsafe { libc::pthread_mutex_init(memory.0.get(), attributes) })?;
        // SAFETY: initialised above and not used again.
        check(unsafe { libc::pthread_mutexattr_destroy(attributes) })?;
        Ok(RobustMutex(memory))
    }

    /// Locks and unlocks once.
    ///
    /// # Panics
    /// The C library reports an error.
    #[inline]
    pub fn pair(&self) {
        let mutex = self.0.0.get();
        // SAFETY: `new` initialised it, and nobody holds it across calls.
        let locked = unsafe { libc::pthread_mutex_lock(mutex) };
        // SAFETY: locked by this thread just now.
        let unlocked = unsafe { libc::pthread_mutex_unlock(mutex) };
        assert!(locked | unlocked == 0);
    }
}

fn check(error: libc::c_int) -> io::Result<()> {
    match error {
        0 => Ok(()),
        e => Err(io::Error::from_raw_os_error(e)),
    }
}
