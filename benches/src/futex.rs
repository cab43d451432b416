//! futex(2) between processes, without time-outs: all that the bare ring needs.
#![allow(unsafe_code)]

use std::{ptr, sync::atomic::AtomicU32};

/// FUTEX_WAIT: sleeps while the word is `expected`; may also return for no reason.
pub fn wait(word: &AtomicU32, expected: u32) {
    // SAFETY: the word outlives the call, and a null time-out is none.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, ptr::null::<libc::timespec>()) };
}

/// FUTEX_WAKE: wakes one sleeper, if there is any.
pub fn wake_one(word: &AtomicU32) {
    // SAFETY: the kernel uses only the address of the word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}
