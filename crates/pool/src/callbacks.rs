//! The thread on which callbacks run: one for all pools of the process, started with the first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// A callback with what it is given.
pub(crate) type Call = Box<dyn FnOnce() + Send>;

static CALLS: Mutex<Option<Sender<Call>>> = Mutex::new(None);

/// Has `call` run, after those before it; here and now if the system grants no thread.
pub(crate) fn call(call: Call) {
    let mut calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    if calls.is_none() {
        let (to, from) = channel::<Call>();
        let run = move || {
            for call in from {
                // The panic's hook has said what there is to say.
                let _ = catch_unwind(AssertUnwindSafe(call));
            }
        };
        if thread::Builder::new().name("multiproc-done".into()).spawn(run).is_ok() {
            *calls = Some(to);
        }
    }
    let refused = match &*calls {
        Some(calls) => calls.send(call).err().map(|refused| refused.0),
        None => Some(call),
    };
    drop(calls);
    if let Some(call) = refused {
        let _ = catch_unwind(AssertUnwindSafe(call));
    }
}
