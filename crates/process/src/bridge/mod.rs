//! `tracing` events of workers reach the coordinator's subscriber.
//!
//! One bounded queue of the tree carries them: workers put, never waiting, and the coordinator's thread gets and gives each to the subscriber there.
//! What does not fit is counted in a shared counter, and the loss is an event of its own. Every child is given queue and counter with its
//! job. Reading order: `record`, what travels; `worker`, the subscriber of workers; `emit`, how an event comes to life again.

mod emit;
mod record;
mod worker;

use crate::error::{Error, Kind};
use multiproc_channel::{Bincode, Buffer, CodecError, GetError, Queue, Sender, message};
use multiproc_shm::scope::Outgoing;
use multiproc_shm::{Arena, Held};
use multiproc_sync::Atomic;
use multiproc_sys::clock::Deadline;
use multiproc_sys::signal;
use record::Message;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// Events that wait at most.
const CAPACITY: usize = 4096;
/// Bytes of an encoded event; texts are cut, so that no event has more.
const MAX_MESSAGE: u64 = 1 << 20;

/// What a worker needs.
#[derive(Serialize, Deserialize)]
struct Line {
    events: Sender<Message>,
    dropped: Atomic<u64>,
    /// See [`record::level_word`]; 0 for nothing.
    level: u8,
}

/// What the coordinator has.
struct Hub {
    queue: Queue<Message>,
    dropped: Atomic<u64>,
    emitted: Mutex<Emitted>,
    changed: Condvar,
}

#[derive(Default)]
struct Emitted {
    /// Number of the last mark that came through.
    mark: u64,
    marks_given: u64,
    ended: bool,
}

static HUB: OnceLock<Hub> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());
/// In a worker.
static LINE: OnceLock<Line> = OnceLock::new();

/// The bridge from workers' `tracing` events to this process's subscriber: see [`tracing_bridge`].
#[derive(Clone, Copy, Debug)]
pub struct TracingBridge(());

/// Has the `tracing` events of all workers that are started from now on, and of their children, handed to this process's own global subscriber.
/// To be called in the coordinator; further calls change nothing.
///
/// Needs the feature `tracing-bridge`.
///
/// An event arrives as what it was: level, target, module, file, line and fields, so filters and formats work on it. Added are the fields
/// `worker.name`, `worker.pid`, and inside of spans `worker.spans`, their names from the outermost, separated by `:`. Its time
/// is that of the arrival. A worker sends what passes the maximum level that this process's subscriber has at the worker's start; the finer filters
/// work here. Texts of more than 8 KiB are cut, and more than 28 fields are left out.
///
/// A worker never waits: the bridge holds 4096 events, and what does not fit is dropped, counted ([`TracingBridge::dropped`]) and reported by a warning with the
/// target `multiproc`. A worker that sets a subscriber of its own in [`worker_init`](crate::worker_init) keeps it, and sends nothing.
///
/// # Errors
/// No thread or shared memory is left, or this is a worker.
///
/// # Crash safety
/// What a worker has sent before it is killed arrives. At the coordinator's exit what is under way is delivered first, for at
/// most 10 s: a subscriber that is slower loses the rest.
///
/// # Python
/// `logging.handlers.QueueHandler` and `QueueListener`.
///
/// # Examples
/// ```
/// // In a program: use multiproc::{Process, tracing_bridge};
/// use multiproc_process::{Process, tracing_bridge};
///
/// // Here a subscriber is set, such as `tracing_subscriber::fmt::init()`.
/// let bridge = tracing_bridge()?;
/// // Workers now call `tracing::info!(..)` and the like.
/// Process::spawn((), || ())?.join()?;
/// bridge.flush();
/// assert_eq!(bridge.dropped(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "log_to_stderr")]
#[doc(alias = "get_logger")]
pub fn tracing_bridge() -> Result<TracingBridge, Error> {
    if crate::current::parent_process().is_some() {
        return Err(Error::new(Kind::Invalid, "a worker's events go to the coordinator, where the bridge is made"));
    }
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if HUB.get().is_none() {
        let hub = Hub {
            queue: Queue::with_max_message(CAPACITY, MAX_MESSAGE)?,
            dropped: Atomic::new(0)?,
            emitted: Mutex::default(),
            changed: Condvar::new(),
        };
        let hub = HUB.get_or_init(|| hub);
        // Signals are the program's other threads' business.
        let _blocked = signal::block_all();
        let thread = thread::Builder::new().name("multiproc-trace".into()).spawn(|| emit_all(hub));
        thread.map_err(|e| Error::because(Kind::Resources, "no thread for the events of workers", e))?;
    }
    Ok(TracingBridge(()))
}

impl TracingBridge {
    /// How many events were dropped so far, because the bridge was full.
    pub fn dropped(&self) -> u64 {
        HUB.get().map_or(0, |hub| hub.dropped.get())
    }

    /// Waits until the subscriber has got every event that was sent before the call.
    pub fn flush(&self) {
        flush(None);
    }
}

/// As [`TracingBridge::flush`]; false when time is up.
pub(crate) fn flush(deadline: Option<Deadline>) -> bool {
    let Some(hub) = HUB.get() else { return true };
    if emit::is_emitting() {
        return true;
    }
    let lock = || hub.emitted.lock().unwrap_or_else(PoisonError::into_inner);
    let mark = {
        let mut emitted = lock();
        emitted.marks_given += 1;
        emitted.marks_given
    };
    let left = deadline.map_or(Duration::MAX, Deadline::remaining);
    if hub.queue.put_timeout(Message::Mark(mark), left).is_err() {
        return false;
    }
    let mut emitted = lock();
    while emitted.mark < mark && !emitted.ended {
        emitted = match deadline {
            None => hub.changed.wait(emitted).unwrap_or_else(PoisonError::into_inner),
            Some(d) if d.passed() => return false,
            Some(d) => hub.changed.wait_timeout(emitted, d.remaining()).unwrap_or_else(PoisonError::into_inner).0,
        };
    }
    true
}

/// For pools: the number of the span that this thread is in, and that an event of a worker may belong to; 0 for none.
#[doc(hidden)]
pub fn current_span(span: &tracing::Span) -> u64 {
    if HUB.get().is_some() { span.id().map_or(0, |id| id.into_u64()) } else { 0 }
}

/// For pools, in a worker: the coordinator's span that its events belong to from now on, or 0. Gives what it was.
#[doc(hidden)]
pub fn set_parent_span(span: u64) -> u64 {
    worker::set_parent(span)
}

/// For pools, in a worker: what [`set_parent_span`] was given last.
#[doc(hidden)]
pub fn parent_span() -> u64 {
    worker::parent()
}

/// The queue that must not end while this process exits.
pub(crate) fn object() -> Option<u32> {
    HUB.get().map(|hub| hub.queue.id()).or_else(|| LINE.get().map(|line| line.events.id()))
}

fn emit_all(hub: &'static Hub) {
    let mut reported = 0;
    loop {
        let message = hub.queue.get();
        match &message {
            Ok(Message::Event(record)) => emit::emit(record),
            Ok(Message::Mark(_)) | Err(GetError::Decode(_)) => {}
            Err(_) => break,
        }
        // Relaxed: a counter.
        let dropped = hub.dropped.load(Ordering::Relaxed);
        if dropped > reported {
            emit::emit(&record::loss(dropped - reported));
            reported = dropped;
        }
        if let Ok(Message::Mark(mark)) = message {
            let mut emitted = hub.emitted.lock().unwrap_or_else(PoisonError::into_inner);
            emitted.mark = emitted.mark.max(mark);
            drop(emitted);
            hub.changed.notify_all();
        }
    }
    hub.emitted.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
    hub.changed.notify_all();
}

/// What a child is given with its job: encoded, and the references in it.
pub(crate) fn for_child(arena: &'static Arena) -> Result<(Vec<u8>, Outgoing), Error> {
    let line = match (HUB.get(), LINE.get()) {
        (Some(hub), _) => {
            let level = LevelFilter::current().into_level().map_or(0, |level| record::level_word(&level));
            Line { events: hub.queue.sender()?, dropped: hub.dropped.clone(), level }
        }
        (None, Some(line)) => Line { events: line.events.clone(), dropped: line.dropped.clone(), level: line.level },
        (None, None) => return Ok((Vec::new(), Outgoing::default())),
    };
    let mut bytes = Buffer::new();
    let outgoing = message::encode::<Line, Bincode>(arena, &line, &mut bytes)
        .map_err(|e| Error::because(Kind::Codec, "the bridge of events", e))?;
    Ok((bytes.into_vec(), outgoing))
}

/// Takes what the parent gave.
pub(crate) fn inherit(arena: &'static Arena, bytes: &[u8], references: &[Arc<Held>]) -> Result<(), CodecError> {
    if !bytes.is_empty() {
        let _ = LINE.set(message::decode::<Line, Bincode>(arena, bytes, references)?);
    }
    Ok(())
}

/// Sends this worker's events from now on, unless the program has set a subscriber of its own.
pub(crate) fn subscribe() {
    if let Some(line) = LINE.get().filter(|line| line.level > 0) {
        worker::subscribe(line);
    }
}
