//! Waiting for somebody who debugs the process: see sigtimedwait(2), PR_SET_PTRACER(2const).
#![allow(unsafe_code)]

use crate::task;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use std::ptr;

/// A debugger that has attached is noticed after at most this long.
const LOOK_NANOS: i64 = 100_000_000;

/// Calls `announce`, then waits until this process gets SIGCONT, or a debugger has attached and lets it run on. Meanwhile the process is no
/// different from one that sleeps: its other threads go on, and other signals do what they always do.
///
/// A SIGCONT that comes right after the announcement is not missed, as it would be by a process that stops itself. Where the kernel (Yama)
/// lets only ancestors debug a process, any process of the same user may as long as this one waits.
pub fn wait_for_continue(announce: impl FnOnce()) {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCONT);
    let Ok(old) = set.thread_swap_mask(SigmaskHow::SIG_BLOCK) else { return };
    set_tracer(libc::PR_SET_PTRACER_ANY);
    announce();
    let slice = libc::timespec { tv_sec: 0, tv_nsec: LOOK_NANOS };
    loop {
        // SAFETY: the set and the time live on this stack; no siginfo is asked for.
        let signal = unsafe { libc::sigtimedwait(set.as_ref(), ptr::null_mut(), &raw const slice) };
        if signal == libc::SIGCONT || task::is_traced() {
            break;
        }
    }
    set_tracer(0);
    let _ = old.thread_set_mask();
}

/// Fails where there is no Yama, and then nothing is needed.
fn set_tracer(who: libc::c_ulong) {
    // SAFETY: the call takes numbers.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, who, 0, 0, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_at_once_is_not_missed() {
        for _ in 0..3 {
            // SAFETY: raise takes any number; this thread blocks the signal by then.
            wait_for_continue(|| assert_eq!(unsafe { libc::raise(libc::SIGCONT) }, 0));
        }
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGCONT));
    }
}
