//! ptrace(2): a process that runs one machine instruction at a time, and dies after one of them.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// A process that the calling thread traces.
pub struct Traced {
    pid: i32,
}

/// Where stepping ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// All steps have been done; the process stands behind the last.
    So,
    /// What was to be stepped through was over after so many.
    Over(u64),
}

/// Stops the calling thread where [`Traced::await_begin`] waits for it.
pub fn stop_here() {
    // SAFETY: no arguments, cannot fail.
    let thread = unsafe { libc::gettid() };
    // SAFETY: takes integers; the tracer swallows the signal.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, libc::SIGTRAP) };
}

impl Traced {
    /// The main thread of a child of this process; it runs on.
    pub fn seize(pid: u32) -> io::Result<Traced> {
        let traced = Traced { pid: pid.cast_signed() };
        traced.ask(libc::PTRACE_SEIZE, 0)?;
        traced.hurry();
        Ok(traced)
    }

    /// Each step is two switches, here and there and back: both go on at once, on one core, also where others keep it busy. As far as the system allows.
    fn hurry(&self) {
        // SAFETY: all zeroes is an empty set.
        let mut here: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: no arguments, cannot fail here.
        let core = unsafe { libc::sched_getcpu() }.max(0) as usize;
        // SAFETY: a core that runs this thread has a place in the set.
        unsafe { libc::CPU_SET(core, &mut here) };
        for who in [0, self.pid] {
            // SAFETY: the set is valid for the call.
            unsafe { libc::sched_setaffinity(who, size_of::<libc::cpu_set_t>(), &raw const here) };
            // SAFETY: takes integers.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, who.cast_unsigned(), -15) };
        }
    }

    fn ask(&self, request: libc::c_uint, signal: i32) -> io::Result<()> {
        let data = ptr::without_provenance_mut::<libc::c_void>(signal.cast_unsigned() as usize);
        // SAFETY: the requests used here read no memory of this process.
        match unsafe { libc::ptrace(request, self.pid, ptr::null_mut::<libc::c_void>(), data) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Waits until it stops, and tells with which signal; leaves its end to the library.
    fn await_stop(&self) -> io::Result<i32> {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: the out-pointer is valid.
        let r = unsafe { libc::waitid(libc::P_PID, self.pid.cast_unsigned(), info.as_mut_ptr(), libc::WSTOPPED | libc::__WALL) };
        if r != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: waitid has filled it; zeroes are valid too.
        let info = unsafe { info.assume_init() };
        // SAFETY: of a child's change.
        Ok(unsafe { info.si_status() } & 0xff)
    }

    /// Waits until it has come to [`stop_here`].
    pub fn await_begin(&self) -> io::Result<()> {
        loop {
            match self.await_stop()? {
                libc::SIGTRAP => return Ok(()),
                other => self.ask(libc::PTRACE_CONT, other)?,
            }
        }
    }

    /// Runs up to `steps` instructions. A system call is one.
    pub fn step(&self, steps: u64, is_over: impl Fn() -> bool) -> io::Result<Stepped> {
        let mut signal = 0;
        for done in 0..steps {
            if is_over() {
                return Ok(Stepped::Over(done));
            }
            self.ask(libc::PTRACE_SINGLESTEP, signal)?;
            signal = match self.await_stop()? {
                libc::SIGTRAP => 0,
                other => other,
            };
        }
        Ok(Stepped::So)
    }

    /// It goes on by itself.
    pub fn let_go(self) -> io::Result<()> {
        self.ask(libc::PTRACE_DETACH, 0)
    }
}
