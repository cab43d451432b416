//! Processes as descriptors: signals, death and exit status without the races of pids.
//!
//! A [`PidFd`] names one process for ever, also after its pid serves another. How it ended is taken from waitid,
//! and where somebody else has reaped it (SIGCHLD ignored, a waitpid for any child) from the descriptor
//! itself, which keeps the status since Linux 6.15. See pidfd_open(2), waitid(2), and PIDFD_GET_INFO in
//! linux/pidfd.h.
#![allow(unsafe_code)]

use crate::memfd;
use crate::own_fd::OwnFd;
use crate::poll::poll_readable;
use crate::probe::{self, Feature};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::thread;
use std::time::Duration;

/// A descriptor for a process. Readable in poll(2) once the process is dead.
#[derive(Debug)]
pub struct PidFd(OwnFd);

/// What is known about how a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitEvidence {
    /// It left with this status.
    Exited(i32),
    /// A signal killed it.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether it left a core dump.
        core: bool,
    },
    /// It is dead, and its status went to somebody else.
    Unknown,
}

impl ExitEvidence {
    /// The status in the encoding of wait(2), which `ExitStatusExt::from_raw` takes; `None` if unknown.
    pub fn to_wait_status(&self) -> Option<i32> {
        match *self {
            ExitEvidence::Exited(code) => Some((code & 0xff) << 8),
            ExitEvidence::Signaled { signal, core } => Some(signal & 0x7f | if core { 0x80 } else { 0 }),
            ExitEvidence::Unknown => None,
        }
    }

    fn from_wait_status(status: i32) -> ExitEvidence {
        match status & 0x7f {
            0 => ExitEvidence::Exited(status >> 8 & 0xff),
            signal => ExitEvidence::Signaled { signal, core: status & 0x80 != 0 },
        }
    }
}

impl PidFd {
    /// Names the process that has the pid `pid` now.
    ///
    /// Whether that is the process the caller means, only a parent can tell: a child that was not waited for
    /// keeps its pid, see [`is_child`](PidFd::is_child).
    ///
    /// # Errors
    /// ESRCH if there is none, EMFILE or ENFILE without a free descriptor.
    pub fn open(pid: u32) -> io::Result<PidFd> {
        // SAFETY: pidfd_open touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
        let fd = Errno::result(fd)? as i32;
        // SAFETY: the kernel has just made this descriptor, nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(PidFd(OwnFd::new(memfd::move_high(fd)?)?))
    }

    /// Names the child that was started with the pid `pid` and that this process does not wait for otherwise.
    ///
    /// It may have ended, and where SIGCHLD is ignored or somebody waits for any child, its pid may be another's by now.
    ///
    /// # Errors
    /// ESRCH if it has ended and somebody has reaped it; otherwise as [`open`](PidFd::open).
    pub fn of_child(pid: u32) -> io::Result<PidFd> {
        let pidfd = PidFd::open(pid)?;
        // In this order: one that is no child any more has died before.
        if !pidfd.is_child() && !pidfd.is_dead() {
            return Err(Errno::ESRCH.into());
        }
        Ok(pidfd)
    }

    /// Whether a descriptor is a pidfd, of whatever process.
    pub fn is_pidfd(fd: BorrowedFd<'_>) -> bool {
        let info = ptr::null::<libc::siginfo_t>();
        // Signal 0 is never delivered: the kernel only looks at the descriptor (EBADF if it is none) and at our rights (EPERM).
        // SAFETY: a null siginfo asks the kernel to fill one in as kill(2) does.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), 0, info, 0) };
        sent == 0 || Errno::last() != Errno::EBADF
    }

    /// Names the calling process.
    ///
    /// # Errors
    /// As [`open`](PidFd::open).
    pub fn open_self() -> io::Result<PidFd> {
        PidFd::open(std::process::id())
    }

    /// Takes a descriptor that is a pidfd.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn from_owned(fd: OwnedFd) -> io::Result<PidFd> {
        Ok(PidFd(OwnFd::new(fd)?))
    }

    /// Sends the signal `sig`; 0 only checks.
    ///
    /// # Errors
    /// ESRCH if the process is dead and reaped, EPERM if it belongs to another user, EBADF when the program has closed the descriptor.
    pub fn send_signal(&self, sig: i32) -> io::Result<()> {
        let info = ptr::null::<libc::siginfo_t>();
        let fd = self.0.get()?.as_raw_fd();
        // SAFETY: a null siginfo asks the kernel to fill one in as kill(2) does.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, sig, info, 0) };
        Errno::result(sent)?;
        Ok(())
    }

    /// Whether all threads of the process have ended, reaped or not.
    pub fn is_dead(&self) -> bool {
        loop {
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::ZERO) {
                Err(Errno::EINTR) => {}
                Err(_) => return false,
                Ok(ready) => return ready > 0,
            }
        }
    }

    /// Whether it is dead, or becomes so within `time`.
    pub fn dies_within(&self, time: Duration) -> bool {
        poll_readable(&[self.0.as_fd()], Some(time), &mut Vec::new()).is_ok_and(|ready| ready > 0)
    }

    /// Whether the process is a child of this one that nobody has reaped.
    pub fn is_child(&self) -> bool {
        self.wait(libc::WNOHANG | libc::WNOWAIT) != Err(Errno::ECHILD)
    }

    /// Takes the exit status of a dead child. Call it once [`is_dead`](PidFd::is_dead) says so: it waits
    /// for one that lives.
    ///
    /// # Errors
    /// EBADF or EINVAL if the descriptor is no pidfd.
    pub fn reap(&self) -> io::Result<ExitEvidence> {
        match self.wait(0) {
            Err(Errno::ECHILD) => Ok(self.kept_status()),
            other => Ok(other?),
        }
    }

    fn wait(&self, options: i32) -> nix::Result<ExitEvidence> {
        let id = self.0.as_fd().as_raw_fd() as libc::id_t;
        // SAFETY: siginfo_t is plain data, zeros are a value of it.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        loop {
            // SAFETY: `info` is ours and large enough.
            let waited = unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED | options) };
            match Errno::result(waited) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        // SAFETY: waitid filled in the fields of SIGCHLD, or left zeros for a child that lives (WNOHANG).
        let status = unsafe { info.si_status() };
        Ok(match info.si_code {
            libc::CLD_EXITED => ExitEvidence::Exited(status),
            libc::CLD_KILLED => ExitEvidence::Signaled { signal: status, core: false },
            libc::CLD_DUMPED => ExitEvidence::Signaled { signal: status, core: true },
            _ => ExitEvidence::Unknown,
        })
    }

    /// The status that the kernel keeps with the descriptor after somebody has reaped the process.
    fn kept_status(&self) -> ExitEvidence {
        if probe::is_denied(Feature::ExitInfo) {
            return ExitEvidence::Unknown;
        }
        // A process whose parent ignores SIGCHLD reads as dead a moment before the kernel stores its status.
        for _ in 0..20 {
            match self.read_kept_status() {
                Ok(None) => thread::sleep(Duration::from_micros(500)),
                Ok(Some(evidence)) => return evidence,
                Err(_) => break,
            }
        }
        ExitEvidence::Unknown
    }

    fn read_kept_status(&self) -> nix::Result<Option<ExitEvidence>> {
        // SAFETY: pidfd_info is plain data, zeros are a value of it.
        let mut info: libc::pidfd_info = unsafe { mem::zeroed() };
        info.mask = u64::from(libc::PIDFD_INFO_EXIT);
        // SAFETY: the request names the size of `info`, which the kernel fills in.
        let asked = unsafe { libc::ioctl(self.0.as_fd().as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
        Errno::result(asked)?;
        let known = info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0;
        Ok(known.then(|| ExitEvidence::from_wait_status(info.exit_code)))
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::poll_readable;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, ExitStatus, Stdio};

    fn start(script: &str) -> (Child, PidFd) {
        let child = Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        let pidfd = PidFd::open(child.id()).unwrap();
        (child, pidfd)
    }

    fn wait_dead(pidfd: &PidFd) {
        poll_readable(&[pidfd.as_fd()], None, &mut Vec::new()).unwrap();
        assert!(pidfd.is_dead());
    }

    #[test]
    fn exit_code_is_reaped() {
        let (mut child, pidfd) = start("read line; exit 7");
        assert!(!pidfd.is_dead());
        assert!(pidfd.is_child());
        drop(child.stdin.take());
        wait_dead(&pidfd);
        let evidence = pidfd.reap().unwrap();
        assert_eq!(evidence, ExitEvidence::Exited(7));
        assert_eq!(ExitStatus::from_raw(evidence.to_wait_status().unwrap()).code(), Some(7));
        assert!(!pidfd.is_child());
        assert_eq!(pidfd.send_signal(0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn signal_is_reaped() {
        let (_child, pidfd) = start("read line");
        pidfd.send_signal(libc::SIGKILL).unwrap();
        wait_dead(&pidfd);
        let evidence = pidfd.reap().unwrap();
        assert_eq!(evidence, ExitEvidence::Signaled { signal: libc::SIGKILL, core: false });
        assert_eq!(ExitStatus::from_raw(evidence.to_wait_status().unwrap()).signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn status_survives_a_reaper_that_came_first() {
        let (mut child, pidfd) = start("exit 9");
        child.wait().unwrap();
        // Before Linux 6.15 nobody knows any more.
        let evidence = pidfd.reap().unwrap();
        assert!(matches!(evidence, ExitEvidence::Exited(9) | ExitEvidence::Unknown), "{evidence:?}");
    }

    #[test]
    fn only_an_own_child_is_taken_for_one() {
        let (mut child, _) = start("read line");
        PidFd::of_child(child.id()).unwrap();
        child.kill().unwrap();
        assert!(PidFd::of_child(child.id()).is_ok(), "dead, and nobody has reaped it");
        child.wait().unwrap();
        let parent = std::os::unix::process::parent_id();
        for pid in [child.id(), parent] {
            // Where the parent is in another pid namespace, there is no such pid.
            let error = PidFd::of_child(pid).unwrap_err();
            assert!(matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)), "{error}");
        }
    }

    #[test]
    fn wait_status_is_symmetric() {
        for status in [0, 7 << 8, 255 << 8, 9, 11 | 0x80] {
            assert_eq!(ExitEvidence::from_wait_status(status).to_wait_status(), Some(status));
        }
        assert_eq!(ExitEvidence::Unknown.to_wait_status(), None);
    }

    #[test]
    fn own_process_lives() {
        let me = PidFd::open_self().unwrap();
        assert!(!me.is_dead());
        me.send_signal(0).unwrap();
        assert!(PidFd::is_pidfd(me.as_fd()));
        assert!(!PidFd::is_pidfd(std::fs::File::open("/dev/null").unwrap().as_fd()));
    }
}
