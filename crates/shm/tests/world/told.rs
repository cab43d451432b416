//! What has happened in the order of steps that is being tried, for who reads of one that went wrong.

use super::Thread;
use std::sync::{Mutex, PoisonError};

static TOLD: Mutex<Vec<(u32, &str)>> = Mutex::new(Vec::new());

fn told() -> std::sync::MutexGuard<'static, Vec<(u32, &'static str)>> {
    TOLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The calling thread has come to a step.
pub(super) fn note(what: &'static str) {
    let me = Thread.tid();
    told().push((me, what));
}

/// Another order begins.
pub(super) fn begin() {
    told().clear();
}

/// The last one.
pub(super) fn print() {
    for (thread, what) in told().iter() {
        println!("{thread} {what}");
    }
}
