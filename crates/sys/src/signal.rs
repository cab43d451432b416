//! Signals, and the ends of threads and processes that go with them.
//!
//! What a worker needs before main has run (std sets it up only for main): an ignored SIGPIPE, open standard
//! streams, an alternate stack and a word on stack overflow. Functions marked async-signal-safe may be called
//! from handlers. See signal-safety(7), sigaltstack(2), prctl(2).
#![allow(unsafe_code)]

use crate::{limits, memfd::PAGE};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::unistd::Pid;
use std::ffi::{CString, c_int, c_void};
use std::io;
use std::marker::PhantomData;
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::OnceLock;

/// While it lives, the thread that made it receives no signal.
#[derive(Debug)]
#[must_use = "signals are blocked until this is dropped"]
pub struct AllBlocked {
    old: Option<SigSet>,
    // The mask belongs to one thread.
    _not_send: PhantomData<*mut ()>,
}

/// Blocks all signals in the calling thread.
pub fn block_all() -> AllBlocked {
    let old = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).ok();
    AllBlocked { old, _not_send: PhantomData }
}

impl Drop for AllBlocked {
    fn drop(&mut self) {
        if let Some(old) = &self.old {
            let _ = old.thread_set_mask();
        }
    }
}

/// Ignores SIGPIPE, as std does before main: a write to a closed pipe is an error.
pub fn ignore_sigpipe() {
    // SAFETY: ignoring installs no code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Runs `f` and leaves errno as it was, for what a handler calls. Async-signal-safe if `f` is.
pub fn keeping_errno<R>(f: impl FnOnce() -> R) -> R {
    let errno = Errno::last_raw();
    let r = f();
    Errno::set_raw(errno);
    r
}

/// The name of a signal, such as "SIGKILL"; `None` for real-time signals and numbers that are none.
pub fn name(sig: i32) -> Option<&'static str> {
    Signal::try_from(sig).ok().map(Signal::as_str)
}

/// Asks the kernel to send `sig` to this process when the thread that started it ends; 0 takes that back.
///
/// It belongs to the calling thread, and a change of user or group id clears it.
///
/// # Errors
/// EINVAL if `sig` is no signal.
pub fn set_parent_death_signal(sig: i32) -> io::Result<()> {
    let signal = if sig == 0 { None } else { Some(Signal::try_from(sig)?) };
    Ok(prctl::set_pdeathsig(signal)?)
}

/// Names the calling thread for ps and debuggers. The first 15 bytes count, up to a zero.
pub fn set_thread_name(name: &str) {
    let name = &name[..name.floor_char_boundary(15)];
    let bytes = name.split('\0').next().unwrap_or_default();
    if let Ok(name) = CString::new(bytes) {
        let _ = prctl::set_name(&name);
    }
}

/// Opens /dev/null as each of the descriptors 0 to 2 that is closed, lest a file of the program takes the number.
pub fn open_missing_stdio() {
    for fd in 0..=2 {
        // SAFETY: F_GETFD takes any number and touches no memory.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1 {
            continue;
        }
        // SAFETY: the path is a constant.
        let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
        // The lowest free number is `fd`, unless another thread was faster and has filled the gap itself.
        if null > 2 {
            // SAFETY: opened above and not passed on.
            unsafe { libc::close(null) };
        }
    }
}

/// Writes to stderr without a lock or a buffer. Async-signal-safe; errors are dropped.
pub fn stderr_write(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the slice is valid for its length.
        let written = unsafe { libc::write(2, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            Ok(n) if n > 0 => bytes = bytes.get(n..).unwrap_or_default(),
            Err(_) if Errno::last() == Errno::EINTR => {}
            _ => return,
        }
    }
}

/// Ends the process at once: no destructors, no exit handlers, no buffers. Async-signal-safe.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Ends the process as `kill -9` does. Async-signal-safe.
pub fn kill_self() -> ! {
    loop {
        let _ = kill(Pid::this(), Signal::SIGKILL);
        // Reached by PID 1 of a namespace alone: the kernel shields it from its own signals.
        // SAFETY: exit_group takes a number and ends the process.
        unsafe { libc::syscall(libc::SYS_exit_group, 128 + libc::SIGKILL) };
    }
}

const FAULTS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// How far the address that faulted may lie below the stack pointer: code without stack probes may skip so much.
const REACH: usize = 1 << 20;

/// What lies between the stack's limit and what its size says: arguments, environment, the kernel's guard gap.
const SLACK: usize = 4 << 20;

/// What the handler needs, complete before it is installed.
struct Watch {
    report: fn(),
    thread: libc::pid_t,
    low: usize,
    high: usize,
    /// The dispositions found, for faults that are not ours.
    old: [libc::sigaction; 2],
}

static WATCH: OnceLock<Watch> = OnceLock::new();

/// Calls `report` when the calling thread, which must be the main one, overflows its stack; then the process dies
/// by the signal all the same, with a core dump if enabled.
///
/// `report` must be async-signal-safe; it runs on a stack of its own with at least 16 KiB. Any other SIGSEGV
/// or SIGBUS goes to whoever handled it before, the default action included. The first call counts, later
/// ones do nothing. Without memory for the stack nothing is installed.
pub fn install_overflow_handler(report: fn()) {
    let local = 0u8;
    let here = &raw const local as usize;
    let size = limits::stack_limit().and_then(|s| usize::try_from(s).ok()).unwrap_or(usize::MAX);
    let mut first = false;
    WATCH.get_or_init(|| {
        first = true;
        Watch {
            report,
            // SAFETY: no arguments, cannot fail.
            thread: unsafe { libc::gettid() },
            low: here.saturating_sub(size).saturating_sub(SLACK),
            high: here.saturating_add(SLACK),
            old: FAULTS.map(|sig| set_action(sig, None)),
        }
    });
    if first && install_stack().is_ok() {
        let on_fault: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_fault;
        // SAFETY: zeros are a sigaction with an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = on_fault as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        for sig in FAULTS {
            set_action(sig, Some(&action));
        }
    }
}

/// Returns what was installed for `sig`. Async-signal-safe.
fn set_action(sig: c_int, new: Option<&libc::sigaction>) -> libc::sigaction {
    let mut old = MaybeUninit::zeroed();
    // SAFETY: `new` is null or valid, `old` is ours; a handler in it is either ours or was installed before.
    unsafe { libc::sigaction(sig, new.map_or(ptr::null(), ptr::from_ref), old.as_mut_ptr()) };
    // SAFETY: zeros are a sigaction too: the default action.
    unsafe { old.assume_init() }
}

/// Gives the calling thread an alternate signal stack with a guard page below it, for good.
fn install_stack() -> io::Result<()> {
    // SAFETY: getauxval takes any number.
    let frame = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
    let size = (frame + (16 << 10)).max(32 << 10).next_multiple_of(PAGE);
    let base = crate::thread::guarded_stack(size)?;
    let stack = libc::stack_t { ss_sp: base, ss_flags: 0, ss_size: size };
    // SAFETY: the memory is ours, large enough and never unmapped.
    Errno::result(unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) })?;
    Ok(())
}

extern "C" fn on_fault(sig: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(watch) = WATCH.get() else { return };
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo.
    let info = unsafe { &*info };
    // SAFETY: any bits are an address; for a signal that was sent they mean something else and are not used.
    let addr = unsafe { info.si_addr() } as usize;
    // SAFETY: the third argument of such a handler is a valid ucontext.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let sp = context.uc_mcontext.gregs[libc::REG_RSP as usize] as usize;
    // A positive code is a fault of this very thread; others are signals that somebody sent.
    if info.si_code > 0 && watch.is_overflow(addr, sp) {
        (watch.report)();
        // SAFETY: restoring the default installs no code.
        unsafe { libc::signal(sig, libc::SIG_DFL) };
    } else {
        set_action(sig, Some(&watch.old[usize::from(sig == libc::SIGBUS)]));
        if info.si_code <= 0 {
            // Nothing faults again on return; what was sent is sent again, and waits until this handler ends.
            // SAFETY: raise is async-signal-safe.
            unsafe { libc::raise(sig) };
        }
    }
}

impl Watch {
    /// Whether a fault at `addr` with the stack pointer `sp` is this thread's stack running out. Within a page above
    /// `sp` too, because the frame being set up may be that large.
    fn is_overflow(&self, addr: usize, sp: usize) -> bool {
        // SAFETY: no arguments, cannot fail.
        let thread = unsafe { libc::gettid() };
        let near = sp.saturating_sub(REACH)..=sp.saturating_add(PAGE);
        thread == self.thread && (self.low..self.high).contains(&sp) && near.contains(&addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Command, Output};

    #[test]
    fn blocking_is_undone() {
        let before = SigSet::thread_get_mask().unwrap();
        let guard = block_all();
        assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM));
        drop(guard);
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }

    #[test]
    fn names_are_known() {
        assert_eq!(name(9), Some("SIGKILL"));
        assert_eq!(name(0), None);
        assert_eq!(name(40), None);
    }

    #[test]
    fn thread_names_are_cut_between_characters() {
        std::thread::spawn(|| {
            set_thread_name("abcdefghijklmnÄx");
            assert_eq!(prctl::get_name().unwrap().as_c_str(), c"abcdefghijklmn");
            set_thread_name("a\0b");
            assert_eq!(prctl::get_name().unwrap().as_c_str(), c"a");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn bad_death_signal_is_an_error() {
        assert!(set_parent_death_signal(1000).is_err());
    }

    /// Runs [`victim`] alone in a new process, in its main thread.
    fn die(how: &str, set_up: fn(&mut Command)) -> Output {
        let path = module_path!().split_once("::").unwrap().1;
        let mut command = Command::new("/proc/self/exe");
        command.args([&format!("{path}::victim"), "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        set_up(command.env("VICTIM", how));
        command.output().unwrap()
    }

    fn reported(output: &Output) -> bool {
        String::from_utf8_lossy(&output.stderr).contains("<overflow>")
    }

    #[test]
    #[ignore = "dies: the tests below run it in a process of its own"]
    fn victim() {
        #[inline(never)]
        fn recurse<const N: usize>(depth: usize) -> usize {
            let frame = std::hint::black_box([depth as u8; N]);
            if depth == usize::MAX { 0 } else { recurse::<N>(depth + 1) + usize::from(frame[depth % N]) }
        }
        let how = std::env::var("VICTIM").unwrap_or_default();
        if how == "stdio" {
            open_missing_stdio();
            assert!(std::fs::read_link("/proc/self/fd/0").unwrap().ends_with("null"));
            return;
        }
        // As before main: nobody handles faults.
        for sig in FAULTS {
            // SAFETY: restoring the default installs no code.
            unsafe { libc::signal(sig, libc::SIG_DFL) };
        }
        install_overflow_handler(|| stderr_write(b"<overflow>"));
        match how.as_str() {
            "small frames" => _ = recurse::<64>(0),
            "page frames" => _ = recurse::<4000>(0),
            "large frames" => _ = recurse::<300_000>(0),
            "null" => {
                // SAFETY: none: this is the fault that the test wants.
                unsafe { ptr::without_provenance::<u8>(8).read_volatile() };
            }
            // SAFETY: raise takes any number.
            "sent" => _ = unsafe { libc::raise(libc::SIGSEGV) },
            "kill" => kill_self(),
            "exit" => exit_now(42),
            _ => {}
        }
    }

    #[test]
    fn overflow_is_reported_and_kills() {
        for how in ["small frames", "page frames", "large frames"] {
            let output = die(how, |_| {});
            assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{how}: {output:?}");
            assert!(reported(&output), "{how}: {output:?}");
        }
    }

    #[test]
    fn other_faults_kill_unreported() {
        for how in ["null", "sent"] {
            let output = die(how, |_| {});
            assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{how}: {output:?}");
            assert!(!reported(&output), "{how}: {output:?}");
        }
    }

    #[test]
    fn ends_are_immediate() {
        assert_eq!(die("kill", |_| {}).status.signal(), Some(libc::SIGKILL));
        assert_eq!(die("exit", |_| {}).status.code(), Some(42));
    }

    #[test]
    fn closed_stdin_is_filled() {
        fn close_stdin() -> io::Result<()> {
            // SAFETY: close takes any number; this runs in the child alone.
            unsafe { libc::close(0) };
            Ok(())
        }
        let output = die("stdio", |command| {
            // SAFETY: `close_stdin` is async-signal-safe.
            unsafe { command.pre_exec(close_stdin) };
        });
        assert!(output.status.success(), "{output:?}");
    }
}
