//! Descriptors that a parent passed on by number.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Borrows descriptor `fd` to look at it; an error when it is not open, or is one of the standard streams.
pub fn look_at(fd: RawFd) -> io::Result<BorrowedFd<'static>> {
    // SAFETY: F_GETFD takes any number and touches no memory.
    if fd <= 2 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and who looks at it does so before anything could close it.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Takes over descriptor `fd`, which the parent let this process inherit, and makes it close-on-exec again.
///
/// An error when no such descriptor is open. To be called once for each, before anything else opens descriptors.
pub fn claim(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: sets a flag of a descriptor number; a number that is not open is an error.
    let r = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the contract above nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
