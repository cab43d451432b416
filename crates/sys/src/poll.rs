//! Waiting for descriptors, and a descriptor to be woken by.
//!
//! See ppoll(2) and eventfd(2). Stands on [`crate::clock`].

use crate::clock::Deadline;
use crate::memfd;
use crate::own_fd::OwnFd;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Wakes a thread of this process that waits in [`poll_readable`]: readable from a kick until it is drained.
#[derive(Debug)]
pub struct Kick(OwnFd);

impl Kick {
    /// A kick that nobody has given yet.
    ///
    /// # Errors
    /// EMFILE or ENFILE without a free descriptor.
    pub fn new() -> io::Result<Kick> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Kick(OwnFd::new(memfd::move_high(event.into())?)?))
    }

    /// Makes it readable. Never blocks; async-signal-safe.
    ///
    /// # Errors
    /// EBADF when the program has closed the descriptor, which is not its own.
    pub fn kick(&self) -> io::Result<()> {
        match nix::unistd::write(self.0.get()?, &1u64.to_ne_bytes()) {
            // A full counter is readable already.
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes it unreadable until the next kick. What the kicks announced is looked for afterwards, so that a
    /// kick in between is not lost.
    pub fn drain(&self) {
        // The one possible error is that there is nothing to drain.
        let _ = self.0.get().map(|fd| nix::unistd::read(fd, &mut [0; 8]));
    }

    /// Whether the descriptor still is this kick's: the program may have closed it, and others been given its number.
    pub fn is_ours(&self) -> bool {
        self.0.get().is_ok()
    }
}

impl AsFd for Kick {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of `fds` is readable, hung up or broken, and returns how many are; 0 after `timeout`.
///
/// `ready` is overwritten with one entry per descriptor. Signals do not end or prolong the wait; without a
/// `timeout` it lasts for ever.
///
/// # Errors
/// EINVAL for more descriptors than RLIMIT_NOFILE; EBADF when the program has closed one of them, which is not its own.
pub fn poll_readable(fds: &[BorrowedFd<'_>], timeout: Option<Duration>, ready: &mut Vec<bool>) -> io::Result<usize> {
    let deadline = timeout.and_then(Deadline::after);
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|&fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    loop {
        let left = deadline.map(|d| TimeSpec::from_duration(d.remaining()));
        match ppoll(&mut polled, left, None) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(count) => {
                if polled.iter().any(is_closed) {
                    return Err(Errno::EBADF.into());
                }
                ready.clear();
                // `any` is None for bits that nix does not name: something happened all the same.
                ready.extend(polled.iter().map(|fd| fd.any().unwrap_or(true)));
                return Ok(count as usize);
            }
        }
    }
}

/// As [`poll_readable`] without a timeout, for a few descriptors that are known beforehand; it allocates nothing.
///
/// # Errors
/// For want of kernel memory; EBADF as [`poll_readable`].
pub fn poll_each<const N: usize>(fds: [BorrowedFd<'_>; N]) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    loop {
        match ppoll(&mut polled, None, None) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) if polled.iter().any(is_closed) => return Err(Errno::EBADF.into()),
            Ok(_) => return Ok(polled.map(|fd| fd.any().unwrap_or(true))),
        }
    }
}

fn is_closed(fd: &PollFd<'_>) -> bool {
    fd.revents().is_some_and(|events| events.contains(PollFlags::POLLNVAL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::time::Instant;

    #[test]
    fn kick_wakes_until_drained() {
        let (a, b) = (Kick::new().unwrap(), Kick::new().unwrap());
        assert!(a.as_fd().as_raw_fd() >= 10);
        let mut ready = vec![true; 7];
        let fds = [a.as_fd(), b.as_fd()];
        assert_eq!(poll_readable(&fds, Some(Duration::ZERO), &mut ready).unwrap(), 0);
        assert_eq!(ready, [false, false]);
        b.kick().unwrap();
        b.kick().unwrap();
        assert_eq!(poll_readable(&fds, None, &mut ready).unwrap(), 1);
        assert_eq!(ready, [false, true]);
        b.drain();
        b.drain();
        assert_eq!(poll_readable(&fds, Some(Duration::ZERO), &mut ready).unwrap(), 0);
    }

    #[test]
    fn timeout_is_waited_for() {
        let kick = Kick::new().unwrap();
        let start = Instant::now();
        let timeout = Duration::from_millis(20);
        assert_eq!(poll_readable(&[kick.as_fd()], Some(timeout), &mut Vec::new()).unwrap(), 0);
        assert!(start.elapsed() >= timeout);
    }

    #[test]
    fn hang_up_is_ready() {
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        let mut ready = Vec::new();
        assert_eq!(poll_readable(&[reader.as_fd()], Some(Duration::MAX), &mut ready).unwrap(), 1);
        assert_eq!(ready, [true]);
    }
}
