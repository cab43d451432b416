//! How a process with children ends: it waits for its threads, leaves its channels, ends its daemons, and waits for the others, as Python does.
//!
//! The handler is registered with libc when the first child, or [thread](crate::threads), starts, so it also runs for `std::process::exit` and knows the
//! status: with one other than 0 the others are ended too. Detached processes it leaves alone. `_exit`, abort and signals do not run it: then the kernel ends the children.
#![allow(unsafe_code)]

use crate::child::Child;
use crate::worker::Outcome;
use crate::{dump, keeper, lines, shutdown, threads, tree};
use multiproc_shm::Arena;
use multiproc_shm::roster::Slot;
use multiproc_sys::clock::Deadline;
use multiproc_sys::futex::{self, Wait};
use multiproc_sys::signal::stderr_write;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

/// How long children have after SIGTERM before SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// When a process that waits for children at its exit says so.
const SAY_AFTER: Duration = Duration::from_secs(5);

/// How long the exit waits for starts that are under way.
const LAST_STARTS: Duration = Duration::from_secs(1);
/// How long lines of output are still delivered when everybody has ended.
const LAST_LINES: Duration = Duration::from_secs(10);

static EXITING: AtomicBool = AtomicBool::new(false);
/// How many are ending the tree at this moment.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// How many starts are under way.
static STARTING: AtomicU32 = AtomicU32::new(0);
/// In ms.
static GRACE_AT_EXIT: AtomicU64 = AtomicU64::new(FOR_EVER);
const FOR_EVER: u64 = u64::MAX;
static REGISTER: Once = Once::new();
static OWN_SLOT: AtomicPtr<Slot> = AtomicPtr::new(std::ptr::null_mut());

unsafe extern "C" {
    fn on_exit(function: extern "C" fn(c_int, *mut c_void), arg: *mut c_void) -> c_int;
    fn exit(code: c_int) -> !;
}

/// Why no child can be started at this moment.
pub(crate) fn refusal() -> Option<&'static str> {
    // SeqCst, as everything about starts: who begins one is counted before it looks, who refuses has said so before it counts.
    if EXITING.load(Ordering::SeqCst) {
        return Some("this process is exiting and starts no more children");
    }
    (HELD.load(Ordering::SeqCst) > 0)
        .then_some("the processes below this one are being ended, and no others are started meanwhile")
}

/// A start that is under way: whoever refuses starts waits for it, and finds the child.
#[derive(Debug)]
pub(crate) struct Starting(());

/// Begins a start, unless there shall be none.
pub(crate) fn begin_start() -> Result<Starting, &'static str> {
    STARTING.fetch_add(1, Ordering::SeqCst);
    let starting = Starting(());
    refusal().map_or(Ok(starting), Err)
}

impl Drop for Starting {
    fn drop(&mut self) {
        if STARTING.fetch_sub(1, Ordering::SeqCst) == 1 && refusal().is_some() {
            futex::wake_all(&STARTING);
        }
    }
}

/// Waits for the starts that began before they were refused. The keeper makes them, so this ends soon.
fn await_starts(deadline: Option<Deadline>) {
    loop {
        let under_way = STARTING.load(Ordering::SeqCst);
        if under_way == 0 || futex::wait(&STARTING, under_way, deadline) == Wait::TimedOut {
            return;
        }
    }
}

/// From now on no child can be started, and none is about to be.
pub(crate) fn refuse_starts() {
    EXITING.store(true, Ordering::SeqCst);
    // Bounded: a program may call exit in a signal handler, which has interrupted a start.
    await_starts(Deadline::after(LAST_STARTS));
}

/// While it lives, no child can be started.
#[derive(Debug)]
pub(crate) struct NoStarts(());

/// Keeps everybody from starting children for a while, and returns when none is about to be.
pub(crate) fn hold_starts() -> NoStarts {
    HELD.fetch_add(1, Ordering::SeqCst);
    let held = NoStarts(());
    await_starts(None);
    held
}

impl Drop for NoStarts {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Bounds how long the exit of this process waits for children that are no daemons: those that have not ended after `limit` are sent SIGTERM,
/// and 2 s later SIGKILL.
///
/// Without this call the exit waits as long as they run, as Python's does, and after 5 s says on stderr whom it waits for and what each
/// is blocked on. It concerns the calling process's own children; the last call counts. The resolution is a millisecond; `Duration::MAX` is for ever.
///
/// # Examples
/// ```
/// use multiproc::{Process, exit_grace};
/// use std::time::Duration;
///
/// exit_grace(Duration::from_millis(100));
/// drop(Process::spawn((), || std::thread::sleep(Duration::from_secs(1000)))?);
/// // The exit now takes a tenth of a second.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "atexit")]
pub fn exit_grace(limit: Duration) {
    let ms = limit.as_nanos().div_ceil(1_000_000);
    // Relaxed: a setting.
    GRACE_AT_EXIT.store(u64::try_from(ms).unwrap_or(FOR_EVER), Ordering::Relaxed);
}

/// Has the end of this process look after its children.
pub(crate) fn register() {
    REGISTER.call_once(|| {
        // SAFETY: the function has the signature that on_exit(3) asks for and lives as long as the program.
        unsafe { on_exit(handler, std::ptr::null_mut()) };
    });
}

/// Has the end of this worker note its exit code in its slot, for kernels that cannot tell it.
pub(crate) fn record_exit_code(slot: &'static Slot) {
    OWN_SLOT.store(std::ptr::from_ref(slot).cast_mut(), Ordering::Release);
    register();
}

/// In a process that a plain fork made: what is noted at its end is its own.
pub(crate) fn begin_another_life(arena: &'static Arena) {
    if let Ok(slot) = arena.slot(arena.my_slot()) {
        OWN_SLOT.store(std::ptr::from_ref(slot).cast_mut(), Ordering::Release);
    }
    EXITING.store(false, Ordering::SeqCst);
    // Those of the parent's threads, which have remained there.
    HELD.store(0, Ordering::SeqCst);
    STARTING.store(0, Ordering::SeqCst);
    lines::begin_another_life();
    threads::begin_another_life();
}

extern "C" fn handler(status: c_int, _: *mut c_void) {
    if status == 0 {
        // While they run they may start children.
        wait_for_threads();
    }
    if tree::existing().is_none() {
        return;
    }
    refuse_starts();
    let ended_by_signal = shutdown::await_end();
    note_code(ended_by_signal.unwrap_or(status));
    if let Some(arena) = tree::existing() {
        #[cfg(feature = "tracing-bridge")]
        let _ = arena.leave_channels(crate::bridge::object());
        #[cfg(not(feature = "tracing-bridge"))]
        let _ = arena.leave_channels(None);
    }
    let ended = shutdown::end_children(GRACE, |child| child.daemon || status != 0);
    // Who could not be ended is not waited for: it ends with this process.
    let was_ended = |child: &Arc<Child>| ended.iter().any(|(one, _)| Arc::ptr_eq(one, child));
    let awaited: Vec<_> = keeper::children().into_iter().filter(|child| !child.is_detached() && !was_ended(child)).collect();
    wait_for(&awaited);
    shutdown::await_descendants();
    if !lines::is_delivering() && !lines::flush(Deadline::after(LAST_LINES)) {
        stderr_write(b"output of children is lost: what takes their lines does not return\n");
    }
    #[cfg(feature = "tracing-bridge")]
    crate::bridge::flush(Deadline::after(LAST_LINES));
    // A signal may have come while this waited for children.
    let ended_by_signal = ended_by_signal.or_else(shutdown::await_end);
    if let Some(code) = ended_by_signal.filter(|&code| code != status) {
        // From here on the rest of the exit handlers run, with the code that was promised.
        // SAFETY: glibc lets a handler call exit.
        unsafe { exit(code) }
    }
}

fn note_code(status: c_int) {
    // SAFETY: null, or a slot of the arena, which is never unmapped.
    if let Some(slot) = unsafe { OWN_SLOT.load(Ordering::Acquire).as_ref() } {
        let none = Outcome::None.to_word();
        let exited = Outcome::Exited(status).to_word();
        let _ = slot.outcome.compare_exchange(none, exited, Ordering::AcqRel, Ordering::Relaxed);
    }
}

fn limit() -> Option<Deadline> {
    let limit = Some(GRACE_AT_EXIT.load(Ordering::Relaxed)).filter(|&ms| ms != FOR_EVER);
    limit.and_then(|ms| Deadline::after(Duration::from_millis(ms)))
}

/// Waits for the [threads](threads) that are no daemons; those that are late end with the process.
fn wait_for_threads() {
    let limit = limit();
    let soon = Deadline::after(SAY_AFTER).map(|soon| soon.earlier(limit));
    let late = threads::await_all(soon, shutdown::has_begun);
    if late.is_empty() || shutdown::has_begun() || limit.is_some_and(|limit| limit.passed()) {
        return;
    }
    stderr_write(
        format!("waiting for thread {}\n", late.iter().map(|name| dump::printable(name)).collect::<Vec<_>>().join(", thread "))
            .as_bytes(),
    );
    threads::await_all(limit, shutdown::has_begun);
}

fn wait_for(children: &[Arc<Child>]) {
    let limit = limit();
    let soon = Deadline::after(SAY_AFTER).map(|soon| soon.earlier(limit));
    let late: Vec<_> = children.iter().filter(|c| !c.wait_for_end(soon)).collect();
    if !late.is_empty() && limit.is_none_or(|limit| !limit.passed()) {
        say_who_is_late(&late, limit);
    }
    let late: Vec<_> = late.into_iter().filter(|child| !child.wait_for_end(limit)).collect();
    if !late.is_empty() {
        shutdown::end_children(GRACE, |child| late.iter().any(|late| std::ptr::eq(&raw const ***late, child)));
    }
}

/// Names whom this process waits for, and what those wait for.
fn say_who_is_late(late: &[&Arc<Child>], limit: Option<Deadline>) {
    // It goes on waiting, and may be part of a circle.
    let note = tree::existing().and_then(|arena| arena.note_join(late[0].slot, limit));
    let dump = dump::dump();
    drop(note);
    let mut text = String::new();
    for child in late {
        text += &format!("waiting for process {} (pid {})", dump::printable(&child.name), child.pid);
        for (i, wait) in dump.process(child.pid).iter().flat_map(|p| &p.waits).enumerate() {
            text += &format!("{} {}", if i == 0 { ", which waits" } else { ", and" }, wait.in_words());
        }
        text.push('\n');
    }
    for circle in dump.circles() {
        text += &format!("{circle}\n");
    }
    // Without std's lock of stderr, which a thread of the program may hold for ever.
    stderr_write(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn who_refuses_starts_waits_for_those_under_way() {
        let starting = begin_start().unwrap();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let held = hold_starts();
            tell.send(()).unwrap();
            held
        });
        while refusal().is_none() {
            std::thread::yield_now();
        }
        assert!(begin_start().is_err());
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
        drop(starting);
        told.recv().unwrap();
        drop(thread.join().unwrap());
        assert!(begin_start().is_ok());
    }
}
