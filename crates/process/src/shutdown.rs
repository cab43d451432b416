//! Ending the tree below this process in order, on request or when a signal asks for it.
//!
//! Each child is asked by SIGTERM, all at once; who has not ended when the grace is over is killed. A child's own children end with it; a child
//! that has called [`shutdown_on`] itself ends them in the same way first. [`shutdown_on`] installs a handler that writes to a pipe
//! and a thread that reads it; nothing of either exists before it is called.

use crate::child::Child;
use crate::error::{Error, Kind};
use crate::signal::Signal;
use crate::{exit, keeper, lines, threads, tree};
use multiproc_sys::caught::{self, Caught};
use multiproc_sys::clock::Deadline;
use multiproc_sys::pidfd::PidFd;
use multiproc_sys::poll::poll_readable;
use multiproc_sys::signal as system;
use std::fmt;
use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// A signal that comes so many ns after the first is taken for the same: timeout(1) and others send to the process and to its group.
const SAME: u64 = 500_000_000;
/// How long lines of output are still delivered before the process leaves.
const LAST_LINES: Duration = Duration::from_secs(10);

/// How one child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChildEnd {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Its status; `None` when nobody can say.
    pub status: Option<ExitStatus>,
    /// It had not ended when the grace was over.
    pub killed: bool,
}

/// How the children of a process ended: what [`shutdown`] returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// Every child that was alive, in the order of their starts.
    pub children: Vec<ChildEnd>,
}

impl Shutdown {
    /// Whether all ended within the grace.
    pub fn in_time(&self) -> bool {
        self.children.iter().all(|child| !child.killed)
    }
}

impl fmt::Display for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, child) in self.children.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{} (pid {}): ", child.name, child.pid)?;
            match child.status {
                Some(status) => write!(f, "{status}")?,
                None => f.write_str("ended in an unknown way")?,
            }
            if child.killed {
                f.write_str(", killed after the grace")?;
            }
        }
        Ok(())
    }
}

/// Ends all children of this process, and with them theirs: SIGTERM to each, and SIGKILL to those that have not ended after `grace`.
///
/// Returns when the whole tree below this process is gone, reaped and cleaned up after; what the children had written to
/// [`Stdio::lines`](crate::Stdio::lines) has been delivered. Meanwhile no further child can be started ([`Error::is_exiting`]); afterwards it
/// can. Stopped children are continued, so that they can act on the signal. Detached processes are left alone. With a grace of zero all are
/// killed at once.
///
/// By default SIGTERM ends a worker at once, wherever it is: what it held comes back (leases, permits, locks), a line that it has not
/// finished is lost. A worker that shall end its own children in order, or flush what it has printed, calls [`shutdown_on`] as well.
///
/// # Python
/// `terminate()` and `join(timeout)` for each of `active_children()`, then `kill()`.
///
/// # Examples
/// ```
/// use multiproc::{Process, shutdown};
/// use std::time::Duration;
///
/// let worker = Process::builder().name("sleeper").spawn((), || std::thread::sleep(Duration::from_secs(1000)))?;
/// let report = shutdown(Duration::from_secs(5));
/// assert!(report.in_time());
/// assert_eq!(report.children[0].name, "sleeper");
/// assert!(worker.join().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "terminate")]
#[doc(alias = "active_children")]
pub fn shutdown(grace: Duration) -> Shutdown {
    let _nobody_starts = exit::hold_starts();
    let ended = end_children(grace, |_| true);
    await_descendants();
    if !lines::is_delivering() {
        for (child, _) in &ended {
            child.wait(None);
        }
    }
    let end = |(child, killed): (Arc<Child>, bool)| ChildEnd {
        pid: child.pid,
        name: child.name.clone(),
        status: child.exit_status(),
        killed,
    };
    Shutdown { children: ended.into_iter().map(end).collect() }
}

/// Asks the chosen children to end, kills those that have not after `grace`, and returns when they are gone; with each, whether it was
/// killed. One that cannot be signalled (a filter of system calls, another user) is not waited for any longer.
pub(crate) fn end_children(grace: Duration, chosen: impl Fn(&Child) -> bool) -> Vec<(Arc<Child>, bool)> {
    let deadline = Deadline::after(grace);
    let mut done: Vec<(Arc<Child>, bool)> = Vec::new();
    loop {
        // A start that was under way may have come through meanwhile.
        let known = |child: &Arc<Child>| done.iter().any(|(other, _)| Arc::ptr_eq(child, other));
        let children = keeper::children().into_iter();
        let children: Vec<_> = children.filter(|c| !c.is_detached() && chosen(c) && !known(c)).collect();
        if children.is_empty() {
            return done;
        }
        if !grace.is_zero() {
            for child in &children {
                let _ = child.signal(Signal::TERM);
                let _ = child.signal(Signal::CONT);
            }
        }
        let late: Vec<bool> = children.iter().map(|child| !child.wait_for_end(deadline)).collect();
        let killed =
            |(child, late): (&Arc<Child>, &bool)| !late || child.signal(Signal::KILL).map_or_else(|e| e.is_ended(), |()| true);
        let ending: Vec<bool> = children.iter().zip(&late).map(killed).collect();
        for (child, _) in children.iter().zip(ending).filter(|(_, ending)| *ending) {
            child.wait_for_end(None);
        }
        done.extend(children.into_iter().zip(late));
    }
}

/// Waits for processes whose parent is gone and which are about to end with it. The kernel ends them, or they themselves; neither ends one that has changed its
/// user and is stopped, so this does.
pub(crate) fn await_descendants() {
    let Some(arena) = tree::existing() else { return };
    loop {
        let bereaved = arena.bereaved().unwrap_or_default().into_iter().filter(|one| !one.detached && !one.dying);
        let dying = bereaved.filter_map(|one| PidFd::open(one.pid).ok().map(|pidfd| (one.slot, pidfd)));
        // Alive after it was opened: the pid was not another's. A process of another user that may not be signalled is not waited for.
        let mut dying = dying.filter(|(slot, _)| arena.is_live(*slot).unwrap_or(false));
        let Some((slot, pidfd)) = dying.find(|(_, pidfd)| pidfd.send_signal(Signal::KILL.0).is_ok()) else { return };
        // One after the other; and each that ends may leave children that are about to.
        let _ = poll_readable(&[pidfd.as_fd()], None, &mut Vec::new());
        if arena.slot_is_dead(slot).is_err() {
            return;
        }
    }
}

/// 0: no signal has come; else 128 and the first signal's number.
static CODE: AtomicU32 = AtomicU32::new(0);
static STATE: Mutex<State> = Mutex::new(State { grace: Duration::ZERO, ender: None, done: false });
static CHANGED: Condvar = Condvar::new();

#[derive(Debug)]
struct State {
    grace: Duration,
    ender: Option<thread::ThreadId>,
    /// All children are gone.
    done: bool,
}

fn state() -> std::sync::MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on each of `signals` ends the tree below this process as [`shutdown`] does, and then the process, with exit code 128 + the
/// signal's number.
///
/// Without this call multiproc installs no signal handler. With it, Ctrl-C and a service manager's SIGTERM make one clean end, also when the signal is sent to
/// all processes of the tree at once. Exit handlers run and standard output is flushed, as with [`std::process::exit`]. That is
/// the exit code even if `main` meanwhile returns or exits with another, because its workers end under it; `main` waits in its exit until the tree has ended.
///
/// Another signal of these that comes half a second or more after the first ends the grace: all children are killed. A third, half a second or more after that,
/// has the process leave at once, with the same code but without exit handlers. Those that come earlier, and those that the parent sends in the
/// course of its own shutdown, are taken for the first. The rest of the program runs on until the exit; new processes cannot be started.
///
/// A signal that the process was started with as ignored (nohup, a background job of a script) stays ignored; a handler that the program has
/// installed for one of `signals` is replaced. Further calls add signals and
/// replace the grace. A worker may call it too, best in [`worker_init`](crate::worker_init): it then ends its own children in order and exits with
/// 128 + n instead of dying by the signal.
///
/// # Errors
/// A signal that cannot be caught (SIGKILL, SIGSTOP) or that tells of a fault; no thread or descriptor is left.
///
/// # Python
/// `signal.signal(SIGTERM, ..)` with a handler that ends all children.
///
/// # Examples
/// ```
/// use multiproc::{Signal, shutdown_on};
/// use std::time::Duration;
///
/// shutdown_on(&[Signal::INT, Signal::TERM], Duration::from_secs(5))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn shutdown_on(signals: &[Signal], grace: Duration) -> Result<(), Error> {
    const FAULTS: [i32; 6] = [4, 5, 6, 7, 8, 11];
    if let Some(fault) = signals.iter().find(|s| FAULTS.contains(&s.0)) {
        return Err(Error::new(Kind::Invalid, format!("{fault} tells of a fault and does not ask for an end")));
    }
    let failed = |e| Error::because(Kind::Resources, "no thread to hear of signals", e);
    state().grace = grace;
    if let Some(caught) = Caught::open().map_err(failed)? {
        // Blocked in the thread that listens: the handler runs in the program's other threads.
        let _blocked = system::block_all();
        thread::Builder::new().name("multiproc-stop".into()).spawn(move || listen(&caught)).map_err(failed)?;
    }
    for signal in signals {
        caught::catch(signal.0).map_err(|e| Error::because(Kind::Invalid, format!("{signal} cannot be caught"), e))?;
    }
    Ok(())
}

fn listen(caught: &Caught) {
    let Some(first) = caught.next() else { return };
    let code = 128 + first.signal;
    CODE.store(code.unsigned_abs(), Ordering::Release);
    threads::look_again();
    exit::refuse_starts();
    let ender = thread::Builder::new().name("multiproc-end".into()).spawn(move || end(code));
    if ender.is_err() {
        end(code);
    }
    let parent = crate::current::parent_process().map(|parent| parent.pid);
    let (mut last, mut killed) = (first.at, false);
    while let Some(again) = caught.next() {
        // By when they came: this thread may have waited for a processor in between.
        if again.at.saturating_sub(last) < SAME || Some(again.sender) == parent {
            continue;
        }
        if killed {
            system::exit_now(code);
        }
        for child in keeper::children().iter().filter(|child| !child.is_detached()) {
            let _ = child.signal(Signal::KILL);
        }
        (last, killed) = (again.at, true);
    }
}

fn end(code: i32) -> ! {
    let grace = {
        let mut state = state();
        state.ender = Some(thread::current().id());
        state.grace
    };
    end_children(grace, |_| true);
    await_descendants();
    lines::flush(Deadline::after(LAST_LINES));
    state().done = true;
    CHANGED.notify_all();
    std::process::exit(code)
}

/// Whether a signal is ending the tree.
pub(crate) fn has_begun() -> bool {
    // Acquire pairs with the Release in `listen`.
    CODE.load(Ordering::Acquire) != 0
}

/// In the exit of this process: if a signal is ending the tree, waits until that is done. The exit code then.
pub(crate) fn await_end() -> Option<i32> {
    let code = CODE.load(Ordering::Acquire);
    if code == 0 {
        return None;
    }
    let mut state = state();
    if state.ender != Some(thread::current().id()) {
        while !state.done {
            state = CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
    i32::try_from(code).ok()
}
