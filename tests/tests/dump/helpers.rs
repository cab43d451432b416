//! What these tests share.

use multiproc::{Circle, Lock, Process, ProcessReport, ProcessState, WaitReport, dump};
use multiproc_tests::eventually;
use std::fmt::Debug;

pub(crate) const DEBUGGED: &str = env!("CARGO_BIN_EXE_debugged");

pub(crate) fn for_ever() {
    loop {
        std::thread::park();
    }
}

/// What a report calls a handle's object.
pub(crate) fn object(handle: &impl Debug) -> String {
    let text = format!("{handle:?}");
    let (kind, rest) = text.split_once("id: ").expect("a handle's Debug names its id");
    let kind = kind.trim_end_matches([' ', '{', '(']);
    let kind = if ["Sender", "Receiver"].contains(&kind) { "Queue" } else { kind };
    format!("{kind} {}", rest.split([',', ' ']).next().unwrap())
}

pub(crate) fn report(pid: u32) -> ProcessReport {
    dump().process(pid).unwrap_or_else(|| panic!("{pid} is not in the dump")).clone()
}

/// The first wait of a process, once it has one that `is_it` accepts.
pub(crate) fn wait_of(pid: u32, is_it: impl Fn(&WaitReport) -> bool) -> WaitReport {
    let mut found = None;
    eventually(|| {
        found = dump().process(pid).and_then(|p| p.waits.iter().find(|w| is_it(w)).cloned());
        found.is_some()
    });
    found.unwrap()
}

pub(crate) fn holds(pid: u32, what: &str, object: &str) -> bool {
    dump().process(pid).is_some_and(|p| p.holds.iter().any(|h| h.what == what && h.object == object))
}

pub(crate) fn pids(dump_of: &[multiproc::ProcessInfo]) -> Vec<u32> {
    dump_of.iter().map(|p| p.pid).collect()
}

pub(crate) fn end<R>(process: Process<R>) {
    // It may have ended by itself.
    let _ = process.kill();
    process.wait();
}

pub(crate) fn take_lock(lock: Lock) {
    drop(lock.lock());
}

pub(crate) fn stop_and_await(pid: u32) {
    // SAFETY: a child of ours that has not been reaped.
    unsafe { libc::kill(pid as i32, libc::SIGSTOP) };
    eventually(|| report(pid).state == ProcessState::Stopped);
}

/// The circle that goes through a process, once there is one.
pub(crate) fn circle_of(pid: u32) -> Circle {
    let mut found = None;
    eventually(|| {
        found = dump().circles().iter().find(|c| c.links.iter().any(|l| l.process.pid == pid)).cloned();
        found.is_some()
    });
    found.unwrap()
}
