//! Signals that wake a thread instead of ending the process.
//!
//! The handler does nothing but write to an eventfd, and call the handler that stood there before. A process made by fork() has the handler too; there it
//! wakes nobody. See sigaction(2), signal-safety(7).
#![allow(unsafe_code)]

use crate::poll::Kick;
use nix::errno::Errno;
use std::ffi::{c_int, c_void};
use std::mem::{self, MaybeUninit};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::{io, ptr};

/// Signal numbers end below this.
const SIGNALS: usize = 65;

/// What the handler needs; complete before the handler stands, and never freed.
struct Watched {
    kick: &'static Kick,
    pid: u32,
    old: libc::sigaction,
}

static WATCHED: [AtomicPtr<Watched>; SIGNALS] = [const { AtomicPtr::new(ptr::null_mut()) }; SIGNALS];
static INSTALLING: Mutex<()> = Mutex::new(());

/// Those that cannot be caught, and those whose handler must not return.
const REFUSED: [c_int; 9] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
];

/// From now on each `sig` to this process kicks `kick`, and system calls that it interrupts are restarted. A handler that stood there is
/// called as well; a default action or an ignored signal is replaced. Once for each signal: again with the same `kick` it does nothing.
///
/// # Errors
/// EINVAL for a number that is no signal, for one that cannot be caught, and for the signals of faults and `abort`; EBUSY when another kick watches it.
pub fn watch(sig: i32, kick: &'static Kick) -> io::Result<()> {
    let place = usize::try_from(sig).ok().filter(|&i| i > 0 && !REFUSED.contains(&sig)).and_then(|i| WATCHED.get(i));
    let place = place.ok_or(Errno::EINVAL)?;
    let _one = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: null, or leaked below.
    let there = unsafe { place.load(Ordering::Acquire).as_ref() };
    if let Some(there) = there
        && there.pid == std::process::id()
    {
        return if ptr::eq(there.kick, kick) { Ok(()) } else { Err(Errno::EBUSY.into()) };
    }
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the kernel fills in what stands there.
    Errno::result(unsafe { libc::sigaction(sig, ptr::null(), old.as_mut_ptr()) })?;
    // SAFETY: filled in above.
    let mut old = unsafe { old.assume_init() };
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_signal;
    if let Some(there) = there
        && old.sa_sigaction == handler as usize
    {
        // In a process made by fork(): our own handler does not call itself.
        old = there.old;
    }
    let watched = Box::leak(Box::new(Watched { kick, pid: std::process::id(), old }));
    place.store(watched, Ordering::Release);
    // SAFETY: zeros are a sigaction with an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as usize;
    // Not SA_ONSTACK: std's exit unmaps the main thread's alternate stack, in whichever thread it runs, and signals come until the end.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler is async-signal-safe and stays for the life of the program.
    match Errno::result(unsafe { libc::sigaction(sig, &raw const action, ptr::null_mut()) }) {
        Ok(_) => Ok(()),
        Err(e) => {
            place.store(ptr::null_mut(), Ordering::Release);
            Err(e.into())
        }
    }
}

extern "C" fn on_signal(sig: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(place) = WATCHED.get(sig as usize) else { return };
    // SAFETY: null, or leaked by `watch`.
    let Some(watched) = (unsafe { place.load(Ordering::Acquire).as_ref() }) else { return };
    let errno = Errno::last();
    if watched.pid == std::process::id() {
        let _ = watched.kick.kick();
    }
    errno.set();
    let old = watched.old.sa_sigaction;
    if old == libc::SIG_DFL || old == libc::SIG_IGN {
        return;
    }
    if watched.old.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: the flag says that what stood there is a handler of this signature.
        let old = unsafe { mem::transmute::<usize, extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void)>(old) };
        old(sig, info, context);
    } else {
        // SAFETY: without the flag it is a handler of this signature.
        let old = unsafe { mem::transmute::<usize, extern "C" fn(c_int)>(old) };
        old(sig);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::poll_readable;
    use std::os::fd::AsFd;
    use std::sync::OnceLock;
    use std::sync::atomic::AtomicU32;

    static BEFORE: AtomicU32 = AtomicU32::new(0);

    extern "C" fn earlier(_: c_int) {
        BEFORE.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn each_signal_kicks_and_the_earlier_handler_is_called() {
        static KICK: OnceLock<Kick> = OnceLock::new();
        static OTHER: OnceLock<Kick> = OnceLock::new();
        let kick = KICK.get_or_init(|| Kick::new().unwrap());
        let earlier: extern "C" fn(c_int) = earlier;
        // SAFETY: the handler only counts.
        unsafe { libc::signal(libc::SIGUSR1, earlier as usize) };
        watch(libc::SIGUSR1, kick).unwrap();
        watch(libc::SIGUSR1, kick).unwrap();
        assert_eq!(
            watch(libc::SIGUSR1, OTHER.get_or_init(|| Kick::new().unwrap())).unwrap_err().raw_os_error(),
            Some(libc::EBUSY)
        );
        for n in 1..=3 {
            // SAFETY: the signal is handled.
            unsafe { libc::raise(libc::SIGUSR1) };
            assert_eq!(poll_readable(&[kick.as_fd()], None, &mut Vec::new()).unwrap(), 1);
            kick.drain();
            assert_eq!(BEFORE.load(Ordering::Relaxed), n);
        }
        for sig in [0, -1, 65, libc::SIGKILL, libc::SIGSEGV, 33] {
            assert_eq!(watch(sig, kick).unwrap_err().raw_os_error(), Some(libc::EINVAL), "{sig}");
        }
    }
}
