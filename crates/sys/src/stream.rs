//! Pipes that are read without waiting.
//!
//! See pipe(7), fcntl(2), FIONREAD in ioctl_tty(2). Stands on [`crate::own_fd`].
#![allow(unsafe_code)]

use crate::own_fd::OwnFd;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Has reads and writes on this end return EAGAIN instead of waiting. The other end is not touched.
///
/// # Errors
/// EBADF for what is no open descriptor.
pub fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// The reading end of a pipe, which never waits.
#[derive(Debug)]
pub struct Stream(OwnFd);

impl Stream {
    /// Takes the end over.
    ///
    /// # Errors
    /// Those of fcntl(2) and fstat(2).
    pub fn new(pipe: PipeReader) -> io::Result<Stream> {
        set_nonblocking(&pipe)?;
        Ok(Stream(OwnFd::new(pipe.into())?))
    }

    /// Reads what there is, up to the length of `room`; 0 at the end of the pipe.
    ///
    /// # Errors
    /// EAGAIN when it is empty, EBADF when the program has closed it, EINTR.
    pub fn read(&self, room: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(self.0.get()?, room)?)
    }

    /// How many bytes it holds at this moment.
    ///
    /// # Errors
    /// EBADF when the program has closed it.
    pub fn bytes_held(&self) -> io::Result<usize> {
        let fd = self.0.get()?.as_raw_fd();
        let mut count: libc::c_int = 0;
        // SAFETY: the request stores an int, and the place is ours.
        Errno::result(unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut count) })?;
        Ok(usize::try_from(count).unwrap_or(0))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_empty_pipe_says_so() {
        let (reader, mut writer) = io::pipe().unwrap();
        let stream = Stream::new(reader).unwrap();
        assert_eq!(stream.read(&mut [0; 4]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(stream.bytes_held().unwrap(), 0);
        writer.write_all(b"abc").unwrap();
        assert_eq!(stream.bytes_held().unwrap(), 3);
        drop(writer);
        assert_eq!(stream.read(&mut [0; 4]).unwrap(), 3);
        assert_eq!(stream.read(&mut [0; 4]).unwrap(), 0);
    }
}
