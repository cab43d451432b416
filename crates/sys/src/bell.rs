//! A bell at a thread: another process rings it, the thread hears it in poll(2).
//!
//! It is a signal directed at that one thread, which has it blocked and reads it from a descriptor; the rest of the program never
//! sees it. SIGURG, since it does nothing to a process that does not ask for it. A program that sets SIGURG to be ignored discards a ring that nobody
//! has heard yet, so who waits for an answer rings again. See signalfd(2), tgkill(2).
#![allow(unsafe_code)]

use crate::memfd;
use crate::own_fd::OwnFd;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// The bell of the thread that polls it, which has SIGURG blocked.
#[derive(Debug)]
pub struct Bell(OwnFd);

impl Bell {
    /// A bell that nobody has rung yet.
    ///
    /// # Errors
    /// EMFILE or ENFILE without a free descriptor.
    pub fn new() -> io::Result<Bell> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGURG);
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Bell(OwnFd::new(memfd::move_high(fd.into())?)?))
    }

    /// Makes it silent until the next ring.
    pub fn drain(&self) {
        // The one possible error is that there is nothing to drain.
        while self.0.get().is_ok_and(|fd| nix::unistd::read(fd, &mut [0; 512]).is_ok_and(|n| n > 0)) {}
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Rings the bell of thread `tid` of process `pid`, which the caller knows not to have been reaped.
///
/// # Errors
/// ESRCH when the thread has ended, EPERM when it belongs to another user.
pub fn ring(pid: u32, tid: u32) -> io::Result<()> {
    // SAFETY: tgkill touches no memory.
    let r = unsafe { libc::syscall(libc::SYS_tgkill, pid as libc::pid_t, tid as libc::pid_t, libc::SIGURG) };
    Errno::result(r)?;
    Ok(())
}

/// The calling thread's id, to be rung by.
pub fn thread_id() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::gettid() }.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::poll_readable;
    use crate::signal;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn only_the_rung_thread_hears_it() {
        let (to, from) = mpsc::channel();
        let blocked = signal::block_all();
        let own = Bell::new().unwrap();
        let other = std::thread::spawn(move || {
            let bell = Bell::new().unwrap();
            to.send(thread_id()).unwrap();
            poll_readable(&[bell.as_fd()], None, &mut Vec::new()).unwrap();
            bell.drain();
            poll_readable(&[bell.as_fd()], Some(Duration::ZERO), &mut Vec::new()).unwrap()
        });
        ring(std::process::id(), from.recv().unwrap()).unwrap();
        assert_eq!(other.join().unwrap(), 0);
        assert_eq!(poll_readable(&[own.as_fd()], Some(Duration::ZERO), &mut Vec::new()).unwrap(), 0);
        drop(blocked);
    }
}
