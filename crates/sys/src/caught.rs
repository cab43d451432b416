//! Signals that the program has asked to hear of: a handler that writes to a pipe, and the pipe's other end.
//!
//! The handler does nothing but write number and sender, to the pipe if that is still ours, so it is async-signal-safe. In a process that a
//! plain fork() made of this one the signal has its default effect: it was not meant for us. See sigaction(2), signal-safety(7).
#![allow(unsafe_code)]

use crate::clock::now_nanos;
use crate::memfd;
use crate::own_fd::OwnFd;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the handler writes, for good.
static WRITER: OnceLock<OwnFd> = OnceLock::new();
/// Whose handler it is.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// A signal that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its number.
    pub signal: i32,
    /// The process that sent it; 0 for the kernel, as for Ctrl-C.
    pub sender: u32,
    /// When it came, which may be long before anybody reads of it: see [`now_nanos`].
    pub at: u64,
}

/// The end that is read. One for each process.
#[derive(Debug)]
pub struct Caught(OwnFd);

impl Caught {
    /// Opens the pipe; `None` when that was done before.
    ///
    /// # Errors
    /// EMFILE or ENFILE without free descriptors.
    pub fn open() -> io::Result<Option<Caught>> {
        if WRITER.get().is_some() {
            return Ok(None);
        }
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        let (read, write) = (memfd::move_high(read)?, memfd::move_high(write)?);
        // A handler never waits: when thousands of signals are unread, no further one tells anything new.
        crate::stream::set_nonblocking(&write)?;
        OWNER.store(std::process::id(), Ordering::Release);
        let caught = Caught(OwnFd::new(read)?);
        Ok(WRITER.set(OwnFd::new(write)?).is_ok().then_some(caught))
    }

    /// Waits for the next signal; `None` only if the pipe is broken.
    pub fn next(&self) -> Option<Arrival> {
        let mut record = [0; 16];
        loop {
            match nix::unistd::read(self.0.as_fd(), &mut record) {
                // Records are written whole and read whole.
                Ok(16) => {
                    let [a, b, c, d, e, f, g, h, at @ ..] = record;
                    let (signal, sender) = (i32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
                    return Some(Arrival { signal, sender, at: u64::from_ne_bytes(at) });
                }
                Err(Errno::EINTR) => {}
                _ => return None,
            }
        }
    }
}

/// Has `signal` written to the pipe from now on. False for one that the process was told to ignore (nohup, a background job of a script): it
/// stays ignored. System calls that it interrupts go on.
///
/// # Errors
/// EINVAL for signals that cannot be caught.
pub fn catch(signal: i32) -> io::Result<bool> {
    // SAFETY: zeros are a sigaction: the default.
    let mut old: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: asks only; the place is ours.
    Errno::result(unsafe { libc::sigaction(signal, ptr::null(), &raw mut old) })?;
    if old.sa_sigaction == libc::SIG_IGN {
        return Ok(false);
    }
    let on_signal: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_signal;
    // SAFETY: as above.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_signal as usize;
    // Not SA_ONSTACK: std's exit unmaps the main thread's alternate stack, in whichever thread it runs, and signals come until the end.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler is async-signal-safe and lives as long as the program.
    Errno::result(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) })?;
    Ok(true)
}

extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    let error = Errno::last();
    if OWNER.load(Ordering::Acquire) != std::process::id() {
        // SAFETY: restoring the default installs no code.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        // Delivered when this handler has returned.
        // SAFETY: raise is async-signal-safe.
        unsafe { libc::raise(signal) };
        return;
    }
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo.
    let info = unsafe { &*info };
    // A positive code is the kernel's own, where no sender stands.
    let sender = match info.si_code {
        code if code > 0 => 0,
        // SAFETY: signals that processes send carry the sender.
        _ => unsafe { info.si_pid() }.unsigned_abs(),
    };
    let mut record = [0; 16];
    record[..4].copy_from_slice(&signal.to_ne_bytes());
    record[4..8].copy_from_slice(&sender.to_ne_bytes());
    record[8..].copy_from_slice(&now_nanos().to_ne_bytes());
    if let Some(Ok(writer)) = WRITER.get().map(OwnFd::get) {
        // A full pipe is an error that tells nothing new.
        let _ = nix::unistd::write(writer, &record);
    }
    error.set();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_arrive_with_their_sender() {
        let caught = Caught::open().unwrap().unwrap();
        assert!(Caught::open().unwrap().is_none());
        assert!(catch(libc::SIGUSR2).unwrap());
        assert!(catch(libc::SIGKILL).is_err());
        // SAFETY: the handler is installed.
        unsafe { libc::kill(std::process::id() as i32, libc::SIGUSR2) };
        let arrival = caught.next().unwrap();
        assert_eq!((arrival.signal, arrival.sender), (libc::SIGUSR2, std::process::id()));
        assert!(arrival.at <= now_nanos());
    }
}
