//! What Miri, which interprets a program to find undefined behaviour and data races in it, has no system call for.
//!
//! There is one process, nobody dies, and memory is the heap's. What is above this crate runs as it does elsewhere; what it is told of the kernel is as
//! little as that needs. Compiled under Miri only.
#![allow(unsafe_code)]

use crate::futex;
use crate::memfd::PAGE;
use std::alloc::{Layout, alloc_zeroed};
use std::fs::File;
use std::io::{self, Error, ErrorKind};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// `len` bytes of zeros that stay for good.
pub(crate) fn map(len: usize) -> io::Result<NonNull<u8>> {
    let layout = Layout::from_size_align(len, PAGE).map_err(|_| Error::from(ErrorKind::OutOfMemory))?;
    // SAFETY: callers ask for at least a byte.
    let base = unsafe { alloc_zeroed(layout) };
    NonNull::new(base).ok_or_else(|| ErrorKind::OutOfMemory.into())
}

/// A descriptor that is good for nothing but to be kept.
pub(crate) fn file() -> io::Result<OwnedFd> {
    Ok(File::open("/dev/null")?.into())
}

/// In place of FUTEX_WAKE_OP, which is one step: nobody dies in between.
pub(crate) fn change_and_wake_all(word: &AtomicU32, clear: u32, set: u32, sleepers: &AtomicU32) {
    // SeqCst: as the kernel does it.
    let _ = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| Some(old & !clear | set));
    futex::wake_all(sleepers);
}
