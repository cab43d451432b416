//! The subscriber of a worker: it puts events into the queue, and waits for nothing and nobody.
//!
//! An event that multiproc itself emits while one is being sent is left out: it would be sent from inside of the sending. Of spans only the names are
//! kept: those of one place in the source have one id, so there is nothing to count, and their number is that of such places.

use super::Line;
use super::record::{Message, Record, level, level_word};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record as Values};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Metadata, Subscriber, dispatcher};

/// While another process puts at that moment, a put is tried again so often, each time after giving way.
const TRIES: u32 = 100;

thread_local! {
    // Const and without Drop: events come from exit handlers too.
    static SENDING: Cell<bool> = const { Cell::new(false) };
    /// The spans that this thread is in.
    static WITHIN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// See [`set_parent`].
static PARENT: AtomicU64 = AtomicU64::new(0);

/// What this worker's events belong to from now on: a span of the coordinator's, or 0. Gives what it was.
pub(super) fn set_parent(span: u64) -> u64 {
    PARENT.swap(span, Ordering::Relaxed)
}

pub(super) fn parent() -> u64 {
    // Relaxed: set by the thread that runs the task; its other threads may be a task behind.
    PARENT.load(Ordering::Relaxed)
}

struct ToParent {
    line: &'static Line,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    ids: HashMap<Identifier, u64>,
    /// By id - 1.
    names: Vec<&'static str>,
}

pub(super) fn subscribe(line: &'static Line) {
    // An error: the program has one already.
    let _ = dispatcher::set_global_default(Dispatch::new(ToParent { line, places: Mutex::default() }));
}

impl ToParent {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self, event: &Event<'_>) -> Vec<String> {
        let ids = match event.parent() {
            Some(parent) => vec![parent.into_u64()],
            None if event.is_root() => Vec::new(),
            // In exit handlers the thread's own list may be gone.
            None => WITHIN.try_with(|within| within.borrow().clone()).unwrap_or_default(),
        };
        if ids.is_empty() {
            return Vec::new();
        }
        let places = self.places();
        let name = |id: &u64| places.names.get(usize::try_from(*id).ok()?.checked_sub(1)?).map(|name| (*name).to_owned());
        ids.iter().filter_map(name).collect()
    }

    fn send(&self, mut message: Message) {
        for _ in 0..TRIES {
            match self.line.events.try_put(message) {
                Ok(()) => return,
                Err(e) if e.is_would_block() => message = e.into_inner(),
                Err(_) => break,
            }
            thread::yield_now();
        }
        // Relaxed: a counter.
        self.line.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl Subscriber for ToParent {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        level_word(metadata.level()) <= self.line.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(level(self.line.level).into())
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let metadata = span.metadata();
        let mut places = self.places();
        let next = places.names.len() as u64 + 1;
        let id = *places.ids.entry(metadata.callsite()).or_insert(next);
        if id == next {
            places.names.push(metadata.name());
        }
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Values<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Done;
        impl Drop for Done {
            fn drop(&mut self) {
                SENDING.set(false);
            }
        }
        if SENDING.replace(true) {
            return;
        }
        let _done = Done;
        let me = crate::current::current_process();
        self.send(Message::Event(Box::new(Record::of(event, (me.name, me.pid), self.names(event), parent()))));
    }

    fn enter(&self, span: &Id) {
        let _ = WITHIN.try_with(|within| within.borrow_mut().push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        let _ = WITHIN.try_with(|within| {
            let mut within = within.borrow_mut();
            if let Some(at) = within.iter().rposition(|&id| id == span.into_u64()) {
                within.remove(at);
            }
        });
    }
}
