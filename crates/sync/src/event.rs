//! [`Event`]: a flag that processes wait for. What it is in shared memory: `raw::event`.

use crate::describe::{Waiters, close};
use crate::handle::handle;
use crate::raw::event::RawEvent;
use multiproc_shm::memory::Shared;
use multiproc_shm::notes::Op;
use multiproc_shm::objects::{Kind, Object, type_hash};
use multiproc_shm::report::Standing;
use multiproc_shm::watching::{Seen, Source, WaitOn, Watched, Watchlist};
use multiproc_shm::{Arena, Error, Held, Role, waiting};
use multiproc_sys::clock::Deadline;
use multiproc_sys::{robust, signal, spin};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[allow(unsafe_code)]
// SAFETY: `repr(C)` of atomics and types that are `Shared`.
unsafe impl Shared for RawEvent {}

/// Events in the object table.
pub(crate) static EVENT: Kind = Kind { slot_died, report, ..Kind::plain(4, "Event") };

/// The dead process may have set it and not told, while a waiter was about to sleep.
fn slot_died(arena: &Arena, object: Object, _slot: u32) -> Result<(), Error> {
    arena.memory().at::<RawEvent>(object.offset)?.owner_died();
    Ok(())
}

fn report(arena: &Arena, object: Object, standing: &mut Standing) -> Result<(), Error> {
    let set = arena.memory().at::<RawEvent>(object.offset)?.is_set();
    standing.state = if set { "set" } else { "not set" }.into();
    if set {
        standing.open(Op::Wait);
    }
    Ok(())
}

/// A flag that any process sets, clears or waits for. A handle is two words, cheap to clone, and travels in arguments, results and messages.
///
/// A `set` is never missed: a wait returns if the event is set when it begins, or is set at any time until it ends, also when it was cleared again at once. A
/// set that was cleared before the wait began is past.
///
/// # Crash safety
/// Killed in `set`, the caller has set the event for everybody or for nobody. A killed waiter swallows nothing.
///
/// # Python
/// `multiprocessing.Event`, whose `set` waits for each sleeper to wake, and for ever if one was killed. `repr` says set or not, and so does `Debug`, with how
/// many wait.
///
/// # Examples
/// ```
/// use multiproc::{Event, Process};
///
/// let go = Event::new()?;
/// let worker = Process::spawn((go.clone(),), |go| go.wait().unwrap())?;
/// go.set()?;
/// worker.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Event {
    held: Arc<Held>,
    cell: &'static RawEvent,
}

handle!(Event, &EVENT, type_hash::<Event>());

impl Event {
    /// An event that is not set.
    ///
    /// # Errors
    /// The arena is full.
    pub fn new() -> Result<Event, Error> {
        Event::new_in(Arena::of_the_tree()?)
    }

    /// As [`new`](Event::new), in a given arena.
    ///
    /// # Errors
    /// As [`new`](Event::new).
    #[doc(hidden)]
    pub fn new_in(arena: &'static Arena) -> Result<Event, Error> {
        let size = size_of::<RawEvent>() as u64;
        Event::from_held(arena.new_object(&EVENT, type_hash::<Event>(), size, Role::Plain, |_| Ok(()))?)
    }

    fn from_held(held: Arc<Held>) -> Result<Event, Error> {
        let cell = held.cell()?;
        Ok(Event { held, cell })
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.cell.is_set()
    }

    /// Sets it and lets all waiters go. Waits for nobody.
    ///
    /// # Errors
    /// Only in a process that was made by a plain `fork()`.
    #[inline]
    pub fn set(&self) -> Result<(), Error> {
        self.cell.set(robust::current()?);
        Ok(())
    }

    /// As [`set`](Event::set), to be called in a signal handler: async-signal-safe, whatever the handler has interrupted, an operation on this event
    /// or on a lock of the same thread included. It leaves `errno` alone.
    ///
    /// The handler finds the event in a `static`, and must not be the one who drops its last handle, nor print the error.
    ///
    /// # Errors
    /// As [`set`](Event::set).
    ///
    /// # Crash safety
    /// One system call sets it and wakes those who wait. Killed in the handler, the process leaves an operation that it had interrupted as if it were killed in
    /// that.
    ///
    /// # Python
    /// `Event.set()` in a handler may wait for ever for the condition that the interrupted code holds.
    ///
    /// # Examples
    /// ```
    /// use multiproc::Event;
    /// use std::sync::OnceLock;
    ///
    /// static STOP: OnceLock<Event> = OnceLock::new();
    ///
    /// extern "C" fn on_signal(_: i32) {
    ///     if let Some(stop) = STOP.get() {
    ///         let _ = stop.set_from_signal();
    ///     }
    /// }
    ///
    /// let stop = STOP.get_or_init(|| Event::new().unwrap());
    /// // .. sigaction(SIGTERM, on_signal), here called by hand:
    /// on_signal(15);
    /// stop.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_from_signal(&self) -> Result<(), Error> {
        signal::keeping_errno(|| {
            if robust::forked() {
                return Err(Error::Forked);
            }
            self.cell.set_from_signal();
            Ok(())
        })
    }

    /// Clears it. Who was waiting when it was set goes on all the same.
    #[inline]
    pub fn clear(&self) {
        self.cell.clear();
    }

    /// Waits until it is set.
    ///
    /// # Errors
    /// Only in a process that was made by a plain `fork()`.
    pub fn wait(&self) -> Result<(), Error> {
        self.wait_within(None).map(|_| ())
    }

    /// Waits until it is set, at most for `timeout`; whether it was.
    ///
    /// # Errors
    /// As [`wait`](Event::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool, Error> {
        self.wait_within(Deadline::after(timeout))
    }

    /// Waits until it is set, at most until `deadline`; whether it was.
    ///
    /// # Errors
    /// As [`wait`](Event::wait).
    pub fn wait_deadline(&self, deadline: Instant) -> Result<bool, Error> {
        self.wait_within(Deadline::at(deadline))
    }

    fn wait_within(&self, deadline: Option<Deadline>) -> Result<bool, Error> {
        let before = self.cell.state();
        if spin::until(|| self.cell.is_over(before)) {
            return Ok(true);
        }
        let arena = self.held.arena();
        let me = arena.who()?.thread;
        let note = arena.note_wait(Op::Wait, self.held.object().index, deadline);
        let set = self.cell.wait(me, before, deadline);
        waiting::end(note, !set);
        Ok(set)
    }
}

impl WaitOn for Event {
    fn source(&self) -> Source<'_> {
        Source::Object(self)
    }

    fn is_idle(&self) -> bool {
        !self.is_set()
    }
}

/// A watcher has seen {1, the state} when its wait began.
impl Watched for Event {
    fn arena(&self) -> Option<&'static Arena> {
        Some(self.held.arena())
    }

    fn is_ready(&self, seen: &Seen) -> bool {
        self.cell.is_set() || seen[0] != 0 && self.cell.is_over(seen[1] as u32)
    }

    fn watch(&self, seen: &mut Seen, list: &mut Watchlist) {
        if seen[0] == 0 {
            *seen = [1, u64::from(self.cell.state())];
        }
        list.watch(Some(self.held.arena()), &self.cell.sleepers);
    }

    fn woken(&self, seen: &Seen) {
        if self.is_ready(seen) {
            self.cell.sleepers.pass_on_if_owed();
        }
    }
}

impl fmt::Debug for Event {
    /// Such as `Event(id: 4, not set, 2 waiting)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = self.held.object().index;
        write!(f, "Event(id: {index}, {}", if self.is_set() { "set" } else { "not set" })?;
        close(f, Waiters::of(self.held.arena(), index))
    }
}
