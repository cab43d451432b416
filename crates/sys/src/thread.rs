//! A thread that costs next to nothing: its stack is one mapping of a few pages, and starting it neither allocates nor frees in it.
//!
//! std's threads free a block when they begin, and the first malloc or free of a thread makes glibc reserve an arena for it: 128 MiB of
//! address space, several system calls, and pages that stay. A thread that only sleeps in the kernel needs none of that.
//! See pthread_create(3), pthread_attr_setstack(3).
#![allow(unsafe_code)]

use crate::memfd::PAGE;
use crate::signal::AllBlocked;
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};
use nix::sys::prctl;
use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::{io, ptr};

/// A thread for the rest of the process's life.
#[derive(Debug)]
pub struct Lasting {
    /// For ps and debuggers; the first 15 bytes count.
    pub name: &'static CStr,
    /// Bytes of stack.
    pub stack: usize,
    /// What it runs. It returns only when the process may lose the thread's stack for good: nothing frees it.
    pub body: fn(),
}

/// Starts the thread. It has the signal mask of the caller, which is shown to be full.
///
/// # Errors
/// EAGAIN or ENOMEM when there is no room for another thread.
pub fn start(thread: &'static Lasting, _blocked: &AllBlocked) -> io::Result<()> {
    let size = thread.stack.next_multiple_of(PAGE);
    let stack = guarded_stack(size)?;
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the place is valid for writing.
    check(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) })?;
    // SAFETY: initialised above; the memory is ours, of that size, and is never unmapped.
    check(unsafe { libc::pthread_attr_setstack(attributes.as_mut_ptr(), stack, size) })?;
    // SAFETY: initialised above.
    check(unsafe { libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED) })?;
    let mut id = MaybeUninit::uninit();
    let thread = ptr::from_ref(thread).cast_mut().cast();
    // SAFETY: the attributes are initialised, and `enter` takes the pointer that is passed.
    let created = unsafe { libc::pthread_create(id.as_mut_ptr(), attributes.as_ptr(), enter, thread) };
    // SAFETY: initialised above and not used afterwards.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    check(created)
}

/// The process that started this one; 0 if it lies outside this one's pid namespace.
pub fn parent_process_id() -> u32 {
    nix::unistd::getppid().as_raw().unsigned_abs()
}

extern "C" fn enter(thread: *mut c_void) -> *mut c_void {
    // SAFETY: `start` passes a `&'static Lasting`.
    let thread = unsafe { &*thread.cast::<Lasting>() };
    let _ = prctl::set_name(thread.name);
    (thread.body)();
    ptr::null_mut()
}

/// Readable and writable memory of `size` bytes with an inaccessible page below.
pub(crate) fn guarded_stack(size: usize) -> io::Result<*mut c_void> {
    let length = NonZeroUsize::new(size + PAGE).ok_or(Errno::ENOMEM)?;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_STACK | MapFlags::MAP_NORESERVE;
    // SAFETY: the kernel chooses the address, so no mapping in use is replaced.
    let guard = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, flags) }?;
    // SAFETY: the mapping is one page longer than `size`.
    let base = unsafe { guard.byte_add(PAGE) };
    // SAFETY: the range is our own fresh mapping.
    unsafe { mprotect(base, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) }?;
    Ok(base.as_ptr())
}

/// The pthread family returns its errors and leaves errno alone.
fn check(error: i32) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal;
    use std::sync::{Condvar, Mutex};

    static SEEN: Mutex<Option<(bool, u64)>> = Mutex::new(None);
    static CHANGED: Condvar = Condvar::new();

    fn body() {
        let mask = nix::sys::signal::SigSet::thread_get_mask().unwrap();
        let here = 0u8;
        *SEEN.lock().unwrap() = Some((mask.contains(nix::sys::signal::SIGTERM), &raw const here as u64));
        CHANGED.notify_all();
        loop {
            std::thread::park();
        }
    }

    #[test]
    fn it_runs_on_its_own_stack_with_signals_blocked() {
        let blocked = signal::block_all();
        static THREAD: Lasting = Lasting { name: c"lasting", stack: 64 << 10, body };
        start(&THREAD, &blocked).unwrap();
        drop(blocked);
        let mut seen = SEEN.lock().unwrap();
        while seen.is_none() {
            seen = CHANGED.wait(seen).unwrap();
        }
        let (masked, address) = seen.unwrap();
        assert!(masked);
        let local = 0u8;
        assert!(address.abs_diff(&raw const local as u64) > 64 << 10);
    }
}
