//! A robust lock without its inside, for models of what stands on it: it is let go when its owner dies. The lock itself has models of its own.

use super::Thread;
use crate::checker::sync::{Condvar, Mutex};
use crate::checker::thread_local;
use std::cell::Cell;

thread_local! {
    static GATE: Cell<Option<&'static RawLock>> = Cell::new(None);
}

#[derive(Debug, Default)]
pub(crate) struct RawLock {
    held: Mutex<bool>,
    freed: Condvar,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    pub(crate) thread: Thread,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockFailed {
    Held,
}

impl RawLock {
    pub(crate) fn lock(&'static self) {
        let mut held = self.held.lock().unwrap();
        while *held {
            held = self.freed.wait(held).unwrap();
        }
        *held = true;
        GATE.with(|gate| gate.set(Some(self)));
    }

    pub(crate) fn try_lock(&self, _who: Who) -> Result<(), LockFailed> {
        Err(LockFailed::Held)
    }

    pub(crate) fn unlock(&self, _me: Thread) {
        GATE.with(|gate| gate.set(None));
        self.free();
    }

    fn free(&self) {
        *self.held.lock().unwrap() = false;
        self.freed.notify_one();
    }
}

/// The calling thread has died.
pub(crate) fn owner_died() {
    if let Some(gate) = GATE.with(Cell::take) {
        gate.free();
    }
}
