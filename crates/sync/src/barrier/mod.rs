//! [`Barrier`]: a point at which processes and threads wait until all have come.
//!
//! The words, and what a death at each step leaves, are in `raw`. A process takes part from its first wait until it drops the handle by which it
//! waited; its death while it takes part breaks the barrier, which is the cleaner's work.

mod raw;

use crate::error::BarrierError;
use multiproc_shm::memory::Shared;
use multiproc_shm::notes::Op;
use multiproc_shm::objects::{Kind, Object, type_hash};
use multiproc_shm::report::Standing;
use multiproc_shm::{Arena, Error, Held, Role, scope, waiting};
use multiproc_sys::clock::Deadline;
use multiproc_sys::{age, robust};
use raw::{Arrival, Ended, MAX_PARTIES, RawBarrier};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug)]
#[repr(C)]
struct BarrierCell {
    raw: RawBarrier,
    /// What `wait` waits at most, in nanoseconds; 0: for ever. A constant.
    timeout: AtomicU64,
}

#[allow(unsafe_code)]
// SAFETY: `repr(C)` of atomics.
unsafe impl Shared for BarrierCell {}

/// Barriers in the object table.
pub(crate) static BARRIER: Kind = Kind { slot_died, report, ..Kind::plain(21, "Barrier") };

fn cell_of(arena: &Arena, object: Object) -> Result<&'static BarrierCell, Error> {
    if object.size < size_of::<BarrierCell>() as u64 {
        return Err(Error::Corrupted(&"a barrier's cell"));
    }
    arena.memory().at(object.offset)
}

fn slot_died(arena: &Arena, object: Object, slot: u32) -> Result<(), Error> {
    cell_of(arena, object)?.raw.slot_died(slot, arena.slot(slot)?.pid.load(Ordering::Relaxed));
    Ok(())
}

fn report(arena: &Arena, object: Object, standing: &mut Standing) -> Result<(), Error> {
    let raw = &cell_of(arena, object)?.raw;
    let (arrived, parties) = (raw.arrived(), raw.parties());
    standing.state = match raw.is_broken() {
        true => "broken".into(),
        false => format!("{arrived} of {parties} have come").into(),
    };
    if arrived == 0 {
        // Whoever waited is about to go on.
        standing.awake(None, Op::Wait);
    }
    Ok(())
}

/// A point at which a number of threads, of whichever processes, wait until all of them have come; then all go on, and the next round begins. A handle is a
/// few words, cheap to clone, and travels in arguments, results and messages.
///
/// Broken, it lets everybody go with [`BarrierError::Broken`], those who wait and those who come, until somebody calls [`reset`](Barrier::reset).
///
/// # Crash safety
/// The death of a process that takes part breaks the barrier, whether it waits in it at that moment or does something else, as soon as the death is
/// cleaned up after (within a millisecond, or as long as the kernel takes to end a large process); the error names it. A process takes part from its
/// first wait until it drops the handle by which it waited: one that ends in good order before that counts as dead. Of a round, all go on or all are told that it is broken; a round that all have come to
/// is not broken by a death that is noticed later. A process that has never waited is not missed: give [`wait_timeout`](Barrier::wait_timeout) a limit.
/// A *stopped* process (SIGSTOP) is waited for.
///
/// # Python
/// `multiprocessing.Barrier`, which waits for ever for a killed process. `Barrier(n, timeout=t)` is [`with_timeout`](Barrier::with_timeout). `Barrier(n, action=f)` is [`wait_with`](Barrier::wait_with):
/// each hands in what to do if it comes last, which may use what it has at hand. `threading.BrokenBarrierError` is [`BarrierError::Broken`].
///
/// # Examples
/// ```
/// use multiproc::{Atomic, Barrier, Process};
///
/// let (barrier, sum) = (Barrier::new(2)?, Atomic::new(0u64)?);
/// let worker = Process::spawn((barrier.clone(), sum.clone()), |barrier, sum| {
///     sum.add(1);
///     barrier.wait().unwrap();
///     sum.get()
/// })?;
/// sum.add(1);
/// barrier.wait()?;
/// assert_eq!(sum.get(), 2); // both have added
/// assert_eq!(worker.join()?, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Barrier {
    held: Arc<Held>,
    cell: &'static BarrierCell,
    member: Arc<Member>,
}

/// Takes part from the first wait on, until the last clone of the handle is gone.
#[derive(Debug)]
struct Member {
    arena: &'static Arena,
    cell: &'static BarrierCell,
    /// The life in which it has joined; 0: it has not. In a process made by fork() it has to do so again.
    life: AtomicU32,
}

impl Member {
    fn join(&self) {
        let (life, joined) = (robust::life(), self.life.load(Ordering::Relaxed));
        if joined == life {
            return;
        }
        // Counted first: who is killed in between is missed all the same.
        self.cell.raw.join(self.arena.my_slot());
        // Relaxed: among the threads of this process, of which one count stays.
        if self.life.compare_exchange(joined, life, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            self.cell.raw.quit(self.arena.my_slot());
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let joined = *self.life.get_mut();
        if joined != 0 && joined == robust::life() {
            self.cell.raw.quit(self.arena.my_slot());
        }
    }
}

/// Who came through a [`Barrier`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierWaitResult {
    index: u32,
    parties: u32,
}

impl BarrierWaitResult {
    /// In which order it came, from 0; each number is one thread's in a round.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether it came last: one thread in each round did.
    pub fn is_leader(&self) -> bool {
        self.index + 1 == self.parties
    }
}

/// Breaks the round if the action panics.
struct Acting<'a> {
    raw: &'a RawBarrier,
    round: u32,
}

impl Drop for Acting<'_> {
    fn drop(&mut self) {
        self.raw.break_round(Some(self.round));
    }
}

impl Barrier {
    /// A barrier for so many threads. Takes 8 KiB of the arena.
    ///
    /// # Errors
    /// No parties at all, or more than 65,535; or the arena is full.
    pub fn new(parties: usize) -> Result<Barrier, Error> {
        Barrier::make(Arena::of_the_tree()?, parties, 0)
    }

    /// As [`new`](Barrier::new); [`wait`](Barrier::wait) and [`wait_with`](Barrier::wait_with) wait at most `timeout`.
    ///
    /// # Errors
    /// As [`new`](Barrier::new).
    pub fn with_timeout(parties: usize, timeout: Duration) -> Result<Barrier, Error> {
        // 0 stands for none, and more than half a millennium is none.
        let nanos = u64::try_from(timeout.as_nanos()).map_or(0, |nanos| nanos.max(1));
        Barrier::make(Arena::of_the_tree()?, parties, nanos)
    }

    /// As [`new`](Barrier::new), in a given arena.
    ///
    /// # Errors
    /// As [`new`](Barrier::new).
    #[doc(hidden)]
    pub fn new_in(arena: &'static Arena, parties: usize) -> Result<Barrier, Error> {
        Barrier::make(arena, parties, 0)
    }

    fn make(arena: &'static Arena, parties: usize, nanos: u64) -> Result<Barrier, Error> {
        if parties == 0 {
            return Err(Error::Invalid(&"a barrier has at least one party"));
        }
        let parties = u32::try_from(parties).ok().filter(|&n| n <= MAX_PARTIES);
        let parties = parties.ok_or(Error::Invalid(&"a barrier has at most 65,535 parties"))?;
        let size = size_of::<BarrierCell>() as u64;
        let held = arena.new_object(&BARRIER, type_hash::<Barrier>(), size, Role::Plain, |object| {
            let cell = cell_of(arena, object)?;
            // Relaxed: published with the object.
            cell.raw.parties.store(parties, Ordering::Relaxed);
            cell.timeout.store(nanos, Ordering::Relaxed);
            cell.raw.begin_at(age::first(32) as u32);
            Ok(())
        })?;
        Barrier::from_held(held)
    }

    fn from_held(held: Arc<Held>) -> Result<Barrier, Error> {
        let (arena, cell) = (held.arena(), held.cell()?);
        Ok(Barrier { held, cell, member: Arc::new(Member { arena, cell, life: AtomicU32::new(0) }) })
    }

    /// Waits until all have come.
    ///
    /// # Errors
    /// [`BarrierError::Broken`]; [`BarrierError::TimedOut`] for one made [`with_timeout`](Barrier::with_timeout).
    pub fn wait(&self) -> Result<BarrierWaitResult, BarrierError> {
        self.pass(self.usual_deadline(), None::<fn()>)
    }

    /// As [`wait`](Barrier::wait), at most for `timeout`: then the barrier is broken.
    ///
    /// Of more threads than parties one may come while the action of a full round runs. It waits for the next round, and if its time is up before that begins, it leaves the
    /// barrier as it is.
    ///
    /// # Errors
    /// [`BarrierError::TimedOut`], never early, and [`BarrierError::Broken`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult, BarrierError> {
        self.pass(Deadline::after(timeout), None::<fn()>)
    }

    /// As [`wait_timeout`](Barrier::wait_timeout), at most until `deadline`.
    ///
    /// # Errors
    /// As [`wait_timeout`](Barrier::wait_timeout).
    pub fn wait_deadline(&self, deadline: Instant) -> Result<BarrierWaitResult, BarrierError> {
        self.pass(Deadline::at(deadline), None::<fn()>)
    }

    /// As [`wait`](Barrier::wait); if this thread comes last it runs `action` before anybody goes on.
    ///
    /// If the action panics, or the process dies in it, the barrier is broken. It must not wait at the same barrier.
    ///
    /// # Errors
    /// As [`wait`](Barrier::wait).
    ///
    /// # Examples
    /// ```
    /// use multiproc::{Barrier, Value};
    ///
    /// let (barrier, phase) = (Barrier::new(1)?, Value::new(0u32)?);
    /// barrier.wait_with(|| phase.set(1).unwrap())?;
    /// assert_eq!(phase.get()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "action")]
    pub fn wait_with(&self, action: impl FnOnce()) -> Result<BarrierWaitResult, BarrierError> {
        self.pass(self.usual_deadline(), Some(action))
    }

    /// As [`wait_with`](Barrier::wait_with), at most for `timeout`, in which the action has to end as well.
    ///
    /// # Errors
    /// As [`wait_timeout`](Barrier::wait_timeout).
    pub fn wait_with_timeout(&self, timeout: Duration, action: impl FnOnce()) -> Result<BarrierWaitResult, BarrierError> {
        self.pass(Deadline::after(timeout), Some(action))
    }

    fn usual_deadline(&self) -> Option<Deadline> {
        match self.cell.timeout.load(Ordering::Relaxed) {
            0 => None,
            nanos => Deadline::after(Duration::from_nanos(nanos)),
        }
    }

    fn pass(&self, deadline: Option<Deadline>, action: Option<impl FnOnce()>) -> Result<BarrierWaitResult, BarrierError> {
        // Not in a process made by fork() that has not joined.
        self.held.arena().who()?;
        let (raw, parties) = (&self.cell.raw, self.cell.raw.parties());
        self.member.join();
        let came = |index| Ok(BarrierWaitResult { index, parties });
        loop {
            match raw.arrive(action.is_some()) {
                Arrival::Waits { round, index } => {
                    return match self.await_end(round, deadline)? {
                        Ended::Opened => came(index),
                        Ended::Broken => Err(self.broken(round)),
                    };
                }
                Arrival::Opened { index } => {
                    raw.tell();
                    return came(index);
                }
                Arrival::Leads { round, index } => {
                    let acting = Acting { raw, round };
                    if let Some(action) = action {
                        action();
                    }
                    std::mem::forget(acting);
                    return match raw.open(round) {
                        Ended::Opened => came(index),
                        Ended::Broken => Err(self.broken(round)),
                    };
                }
                Arrival::TooEarly { round } => {
                    // It is none of those: whether it waits or not, they go on.
                    self.ended_within(round, deadline).ok_or(BarrierError::TimedOut)?;
                }
                Arrival::Broken { round } => return Err(self.broken(round)),
            }
        }
    }

    /// Until the caller's round has ended; when time is up it is broken.
    fn await_end(&self, round: u32, deadline: Option<Deadline>) -> Result<Ended, BarrierError> {
        match self.ended_within(round, deadline) {
            Some(ended) => Ok(ended),
            None => self.cell.raw.break_round(Some(round)).ok_or(BarrierError::TimedOut),
        }
    }

    /// How the round has ended; `None` when time was up before.
    fn ended_within(&self, round: u32, deadline: Option<Deadline>) -> Option<Ended> {
        let raw = &self.cell.raw;
        if let Some(ended) = raw.ended_soon(round) {
            return Some(ended);
        }
        let note = self.held.arena().note_wait(Op::Wait, self.held.object().index, deadline);
        let ended = raw.sleep(round, deadline);
        waiting::end(note, ended.is_none());
        ended
    }

    fn broken(&self, round: u32) -> BarrierError {
        BarrierError::Broken { died: self.cell.raw.killer_of(round) }
    }

    /// Breaks the barrier: who waits, and who comes, is told so until a [`reset`](Barrier::reset). Never waits.
    ///
    /// # Errors
    /// Only in a process that was made by a plain `fork()`.
    pub fn abort(&self) -> Result<(), Error> {
        self.held.arena().who()?;
        self.cell.raw.break_round(None);
        Ok(())
    }

    /// Makes the barrier as new; who waits is told that it is broken. Never waits.
    ///
    /// # Errors
    /// Only in a process that was made by a plain `fork()`.
    pub fn reset(&self) -> Result<(), Error> {
        self.held.arena().who()?;
        self.cell.raw.reset();
        Ok(())
    }

    /// How many threads make a round.
    pub fn parties(&self) -> usize {
        self.cell.raw.parties() as usize
    }

    /// How many have come and wait at this moment.
    #[doc(alias = "n_waiting")]
    pub fn waiting(&self) -> usize {
        self.cell.raw.arrived() as usize
    }

    /// Whether it is broken, until a [`reset`](Barrier::reset).
    #[doc(alias = "broken")]
    pub fn is_broken(&self) -> bool {
        self.cell.raw.is_broken()
    }
}

impl Serialize for Barrier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        scope::serialize(&self.held, serializer)
    }
}

impl<'de> Deserialize<'de> for Barrier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Barrier, D::Error> {
        let held = scope::deserialize(&BARRIER, type_hash::<Barrier>(), deserializer)?;
        Barrier::from_held(held).map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for Barrier {
    /// Such as `Barrier(id: 4, 1 of 3 waiting)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, broken) = (self.held.object().index, if self.is_broken() { ", broken" } else { "" });
        write!(f, "Barrier(id: {index}, {} of {} waiting{broken})", self.waiting(), self.parties())
    }
}
