//! A task's panic, as text: message, place, backtrace.

use serde::{Deserialize, Serialize};
use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::panic;
use std::sync::Once;

/// What is known of a panic.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Panic {
    pub(crate) message: String,
    pub(crate) location: String,
    pub(crate) backtrace: String,
}

thread_local! {
    /// Where the last panic of this thread was, and its backtrace.
    static PLACE: Cell<Option<(String, String)>> = const { Cell::new(None) };
}

/// From now on it is known where a panic was; then the hook that stands now is called.
pub(crate) fn remember_places() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let trace = Backtrace::capture();
            let trace = if trace.status() == BacktraceStatus::Captured { trace.to_string() } else { String::new() };
            let location = info.location().map(ToString::to_string).unwrap_or_default();
            let _ = PLACE.try_with(|last| last.set(Some((location, trace))));
            next(info);
        }));
    });
}

impl Panic {
    /// The last panic of this thread, which has just been caught.
    pub(crate) fn taken(payload: &(dyn Any + Send)) -> Panic {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        multiproc_process::forget_panic();
        let (location, backtrace) = PLACE.take().unwrap_or_default();
        Panic { message: text.unwrap_or("a panic without a text").to_owned(), location, backtrace }
    }
}
