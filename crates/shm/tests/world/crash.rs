//! Deaths: a thread ends at one of its steps, and the kernel does its part.

use super::{gate, robust, told};
use crate::checker::thread_local;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

struct Died;

thread_local! {
    static STEPS_LEFT: Cell<u32> = Cell::new(0);
    /// Whether each change of a word is a step, besides the crash points.
    static EVERY: Cell<bool> = Cell::new(false);
    /// To be [`STEPS_LEFT`] when it has slept.
    static WHEN_WOKEN: Cell<u32> = Cell::new(0);
}

/// A crash point of the shipping code.
pub(crate) fn point(id: &'static str) {
    told::note(id);
    pass();
}

/// Before a change that others can see, or the kernel.
pub(crate) fn step() {
    if EVERY.with(Cell::get) {
        pass();
    }
}

fn pass() {
    let left = STEPS_LEFT.with(|left| left.replace(left.get().saturating_sub(1)));
    if left == 1 {
        EVERY.with(|every| every.set(false));
        told::note("dies");
        // Past the panic hook, which would print each death.
        resume_unwind(Box::new(Died));
    }
}

/// Runs `body` with its `k`-th crash point deadly; 0: none. Whether it died; then the kernel has done its part.
pub(crate) fn dies_at(k: u32, body: impl FnOnce()) -> bool {
    dies(k, false, body)
}

/// As [`dies_at`], with each change of a word a step as well.
pub(crate) fn dies_anywhere(k: u32, body: impl FnOnce()) -> bool {
    dies(k, true, body)
}

/// As [`dies_anywhere`], with the steps counted from when it has slept.
pub(crate) fn dies_woken(k: u32, body: impl FnOnce()) -> bool {
    WHEN_WOKEN.with(|steps| steps.set(k));
    dies(0, false, body)
}

/// The calling thread has slept.
pub(super) fn woken() {
    match WHEN_WOKEN.with(Cell::take) {
        0 => {}
        k => {
            STEPS_LEFT.with(|left| left.set(k));
            EVERY.with(|every| every.set(true));
            pass();
        }
    }
}

fn dies(k: u32, every: bool, body: impl FnOnce()) -> bool {
    STEPS_LEFT.with(|left| left.set(k));
    EVERY.with(|each| each.set(every));
    let end = catch_unwind(AssertUnwindSafe(body));
    STEPS_LEFT.with(|left| left.set(0));
    EVERY.with(|each| each.set(false));
    WHEN_WOKEN.with(|steps| steps.set(0));
    let Err(why) = end else { return false };
    if !why.is::<Died>() {
        resume_unwind(why);
    }
    gate::owner_died();
    robust::exit();
    true
}
