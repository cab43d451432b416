//! Pipes that are read without waiting.
//!
//! See pipe(7), fcntl(2), FIONREAD in ioctl_tty(2).
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Has reads and writes on this end return EAGAIN instead of waiting. The other end is not touched.
///
/// # Errors
/// EBADF for what is no open descriptor.
pub fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// How many bytes a pipe holds at this moment.
///
/// # Errors
/// ENOTTY for what is no pipe.
pub fn bytes_held(fd: &impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the request stores an int, and the place is ours.
    Errno::result(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn an_empty_pipe_says_so() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        set_nonblocking(&reader).unwrap();
        assert_eq!(reader.read(&mut [0; 4]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(bytes_held(&reader).unwrap(), 0);
        writer.write_all(b"abc").unwrap();
        assert_eq!(bytes_held(&reader).unwrap(), 3);
    }
}
