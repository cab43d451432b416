//! [`Event`]: a flag that processes wait for.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `state` | {times set:63, is set:1}; its change is the commit | setter, clearer | set or not set |
//! | `sleepers` | a wait word on which many sleep | see [`WaitWord`]; each woken sleeper wakes one more | the setter's or sleeper's pending word: the kernel wakes one, who wakes the next |
//!
//! A waiter notes how often the event had been set, so a `set` that is followed at once by `clear` still lets it go. A wake may reach a waiter that came
//! later and waits for the next `set`: it hands the first such wake on, to those the dead setter owed it to.

use crate::handle::handle;
use multiproc_shm::memory::Shared;
use multiproc_shm::notes::Op;
use multiproc_shm::objects::{Kind, Object, type_hash};
use multiproc_shm::raw::WaitWord;
use multiproc_shm::report::Standing;
use multiproc_shm::watching::{Seen, Source, WaitOn, Watched, Watchlist};
use multiproc_shm::{Arena, Error, Held, Role, waiting};
use multiproc_sys::clock::Deadline;
use multiproc_sys::futex::Wait;
use multiproc_sys::spin;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug)]
#[repr(C)]
struct EventCell {
    state: AtomicU64,
    sleepers: WaitWord,
}

#[allow(unsafe_code)]
// SAFETY: `repr(C)` of atomics and types that are `Shared`.
unsafe impl Shared for EventCell {}

const SET: u64 = 1;

/// Events in the object table.
pub(crate) static EVENT: Kind = Kind { slot_died, report, ..Kind::plain(4, "Event") };

/// The dead process may have set it and not told, while a waiter was about to sleep.
fn slot_died(arena: &Arena, object: Object, _slot: u32) -> Result<(), Error> {
    arena.memory().at::<EventCell>(object.offset)?.sleepers.pass_on_to_all();
    Ok(())
}

fn report(arena: &Arena, object: Object, standing: &mut Standing) -> Result<(), Error> {
    let set = arena.memory().at::<EventCell>(object.offset)?.state.load(Ordering::Acquire) & SET != 0;
    standing.state = if set { "set" } else { "not set" }.into();
    if set {
        standing.open(Op::Wait);
    }
    Ok(())
}

/// A flag that any process sets, clears or waits for. A handle is two words, cheap to clone, and travels in arguments, results and messages.
///
/// # Crash safety
/// Killed in `set`, the caller has set the event for everybody or for nobody. A killed waiter swallows nothing.
///
/// # Python
/// `multiprocessing.Event`. A `set` that is cleared at once is not missed by who was waiting.
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
    cell: &'static EventCell,
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
        let size = size_of::<EventCell>() as u64;
        Event::from_held(arena.new_object(&EVENT, type_hash::<Event>(), size, Role::Plain, |_| Ok(()))?)
    }

    fn from_held(held: Arc<Held>) -> Result<Event, Error> {
        let cell = held.cell()?;
        Ok(Event { held, cell })
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        // Acquire pairs with the AcqRel in `set`.
        self.cell.state.load(Ordering::Acquire) & SET != 0
    }

    /// Sets it and lets all waiters go.
    ///
    /// # Errors
    /// Only in a process that was made by a plain `fork()`.
    pub fn set(&self) -> Result<(), Error> {
        let me = self.held.arena().who()?.thread;
        let cell = self.cell;
        cell.sleepers.commit_and_kick_all(me, || {
            let _ =
                cell.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |s| (s & SET == 0).then(|| s.wrapping_add(2) | SET));
        });
        Ok(())
    }

    /// Clears it.
    pub fn clear(&self) {
        self.cell.state.fetch_and(!SET, Ordering::AcqRel);
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
        let cell = self.cell;
        let before = cell.state.load(Ordering::Acquire);
        // Set now, or set since: also if it has been cleared again.
        let done = || before & SET != 0 || cell.state.load(Ordering::Acquire) >> 1 != before >> 1;
        if spin::until(done) {
            return Ok(true);
        }
        let arena = self.held.arena();
        let me = arena.who()?.thread;
        let note = arena.note_wait(Op::Wait, self.held.object().index, deadline);
        // While this thread may have swallowed a wake, its death passes it on.
        let set = cell.sleepers.guarded(me, || {
            let mut handed_on = false;
            loop {
                cell.sleepers.prepare();
                let timed_out = !done() && cell.sleepers.sleep(deadline, false) == Wait::TimedOut;
                if done() {
                    cell.sleepers.pass_on();
                    break true;
                }
                if timed_out {
                    break false;
                }
                if !handed_on {
                    handed_on = true;
                    cell.sleepers.pass_on();
                }
            }
        });
        waiting::end(note, !set);
        Ok(set)
    }
}

impl WaitOn for Event {
    fn source(&self) -> Source<'_> {
        Source::Object(self)
    }
}

/// A watcher has seen {1, times set} when its wait began.
impl Watched for Event {
    fn arena(&self) -> Option<&'static Arena> {
        Some(self.held.arena())
    }

    fn is_ready(&self, seen: &Seen) -> bool {
        let now = self.cell.state.load(Ordering::Acquire);
        now & SET != 0 || seen[0] != 0 && now >> 1 != seen[1]
    }

    fn watch(&self, seen: &mut Seen, list: &mut Watchlist) {
        if seen[0] == 0 {
            *seen = [1, self.cell.state.load(Ordering::Acquire) >> 1];
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
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("id", &self.held.object().index).field("set", &self.is_set()).finish()
    }
}
