//! How a process with children ends: it leaves its channels, ends its daemons, and waits for the others, as Python does.
//!
//! The handler is registered with libc when the first child starts, so it also runs for `std::process::exit` and knows the
//! status: with one other than 0 the others are ended too. `_exit`, abort and signals do not run it: then the kernel ends the children.
#![allow(unsafe_code)]

use crate::child::Child;
use crate::signal::Signal;
use crate::worker::Outcome;
use crate::{keeper, tree};
use multiproc_shm::roster::Slot;
use multiproc_sys::clock::Deadline;
use std::ffi::{c_int, c_void};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

/// How long children have after SIGTERM before SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// When a process that waits for children at its exit says so.
const SAY_AFTER: Duration = Duration::from_secs(5);

static EXITING: AtomicBool = AtomicBool::new(false);
static REGISTER: Once = Once::new();
static OWN_SLOT: AtomicPtr<Slot> = AtomicPtr::new(std::ptr::null_mut());

unsafe extern "C" {
    fn on_exit(function: extern "C" fn(c_int, *mut c_void), arg: *mut c_void) -> c_int;
}

/// Whether the process is exiting.
pub(crate) fn is_exiting() -> bool {
    EXITING.load(Ordering::Acquire)
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

extern "C" fn handler(status: c_int, _: *mut c_void) {
    if tree::existing().is_none() {
        return;
    }
    note_code(status);
    EXITING.store(true, Ordering::Release);
    if let Some(arena) = tree::existing() {
        let _ = arena.leave_channels();
    }
    let children = keeper::children();
    let (ended, awaited): (Vec<_>, Vec<_>) = children.into_iter().partition(|c| c.daemon || status != 0);
    end(&ended);
    wait_for(&awaited);
}

fn note_code(status: c_int) {
    // SAFETY: null, or a slot of the arena, which is never unmapped.
    if let Some(slot) = unsafe { OWN_SLOT.load(Ordering::Acquire).as_ref() } {
        let none = Outcome::None.to_word();
        let exited = Outcome::Exited(status).to_word();
        let _ = slot.outcome.compare_exchange(none, exited, Ordering::AcqRel, Ordering::Relaxed);
    }
}

fn end(children: &[Arc<Child>]) {
    for child in children {
        let _ = child.signal(Signal::TERM);
    }
    let grace = Deadline::after(GRACE);
    for child in children {
        if child.wait(grace) {
            continue;
        }
        // Who cannot be signalled (a filter, another user) ends with this process, not before it.
        match child.signal(Signal::KILL) {
            Err(e) if !e.is_ended() => {}
            _ => _ = child.wait(None),
        }
    }
}

fn wait_for(children: &[Arc<Child>]) {
    let soon = Deadline::after(SAY_AFTER);
    let late: Vec<_> = children.iter().filter(|c| !c.wait(soon)).collect();
    for child in &late {
        let waits = crate::current::blocked_on(child.slot).map(|on| format!(", which waits on {on}")).unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "waiting for process {} (pid {}){waits}", child.name, child.pid);
    }
    for child in late {
        child.wait(None);
    }
}
