//! [`Semaphore`]: a number of permits, each of which knows who has it.
//!
//! There is no counter. Each process has an entry in the ledger with the permits it has, each owned permit an entry of its own; what is
//! free is the rest. So a dead process's permits come back by clearing its entry, and nothing can drift.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `gate` | one waiting taker at a time, who keeps it; the rest wait for it | takers that found none free | `OWNER_DIED`: nothing to mend |
//! | `freed` | the waiting taker, a [`WaitWord`] | see there | see there; the cleaner wakes it too |
//! | `ledger[slot]` | permits of that process, and those of which it looks whether they exist: see `raw::ledger` | takers and releasers of that process | it had the permit, or none: its entry is cleared by the cleaner |
//! | `owned[i]` | reference of an owned permit; its store is the commit | owner of `gate`; who drops the permit; the collector | a permit object that is not entered: it is freed and was never counted |
//! | `owned_high` | entries of `owned` in use | owner of `gate` | one too many |
//! | `permits` | how many there are, a constant | creator | - |
//! | `recovered` | permits that came back from the dead | cleaner | one report less |
//!
//! While nobody waits, taking needs no lock: see `raw::ledger`. Who finds somebody in the gate, or no permit, goes through the gate, so no one who waits is passed
//! over by those who come later.

use crate::beneath::SLOTS;
use crate::describe::{InSlot, Waiters, close};
use crate::error::AcquireError;
use crate::events;
use crate::handle::handle;
use crate::permit::OwnedPermit;
use crate::raw::ledger;
use multiproc_shm::holds::Table;
use multiproc_shm::memory::Shared;
use multiproc_shm::notes::Op;
use multiproc_shm::objects::{Kind, Object, RawRef, type_hash};
use multiproc_shm::raw::{LockFailed, RawLock, WaitWord, Who};
use multiproc_shm::report::Standing;
use multiproc_shm::{Arena, Error, Held, Role, waiting};
use multiproc_sys::clock::Deadline;
use multiproc_sys::robust::Thread;
use multiproc_sys::{crash, robust};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Owned permits of one semaphore that can be out at the same time.
const MAX_OWNED: usize = 1024;
/// How often who would not wait looks again, about a microsecond.
const LOOKS: u32 = 64;
/// So often a permit seems free and is none only where a peer has written over the count.
const MOST_LOOKS: u32 = 1 << 20;

/// See the module head.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct SemaphoreCell {
    gate: RawLock,
    freed: WaitWord,
    permits: AtomicU32,
    owned_high: AtomicU32,
    recovered: AtomicU32,
    ledger: [AtomicU32; SLOTS],
    owned: [AtomicU64; MAX_OWNED],
}

#[allow(unsafe_code)]
// SAFETY: `repr(C)` of atomics and types that are `Shared`.
unsafe impl Shared for SemaphoreCell {}

impl SemaphoreCell {
    /// The entries of all processes.
    #[inline]
    fn entries(&self, arena: &Arena) -> &[AtomicU32] {
        &self.ledger[..(arena.slots_high() as usize).min(SLOTS)]
    }

    /// The owned permits that are out.
    #[inline]
    fn owned(&self) -> impl Iterator<Item = u64> {
        // SeqCst, here and below: as in `ledger::sum`.
        let high = (self.owned_high.load(Ordering::SeqCst) as usize).min(MAX_OWNED);
        self.owned[..high].iter().map(|e| e.load(Ordering::SeqCst)).filter(|&id| id != 0)
    }

    /// How many are taken, or about to be.
    #[inline]
    fn taken(&self, arena: &Arena) -> u32 {
        ledger::sum(self.entries(arena)).saturating_add(self.owned().count() as u32)
    }

    fn available(&self, arena: &Arena) -> u32 {
        self.permits.load(Ordering::Relaxed).saturating_sub(self.taken(arena))
    }

    /// What each process has, owned permits included, by slot; and whether an owned one is in nobody's hands.
    fn holders(&self, arena: &Arena) -> Result<(BTreeMap<u32, u32>, bool), Error> {
        let entries = self.entries(arena).iter().map(|e| e.load(Ordering::Acquire));
        let mut had: BTreeMap<u32, u32> = (0..).zip(entries).filter(|&(_, n)| n > 0).collect();
        let mut astray = false;
        for id in self.owned() {
            let holders = arena.slots_with(Table::Hold, RawRef(id).index())?;
            astray |= holders.is_empty();
            for slot in holders {
                let n = had.entry(slot).or_default();
                *n = n.saturating_add(1);
            }
        }
        Ok((had, astray))
    }
}

fn so_many(n: u32) -> String {
    if n == 1 { "a permit".into() } else { format!("{n} permits") }
}

/// Semaphores in the object table.
pub(crate) static SEMAPHORE: Kind = Kind { slot_died, in_use, report, ..Kind::plain(5, "Semaphore") };

pub(crate) fn cell_of(arena: &Arena, object: Object) -> Result<&'static SemaphoreCell, Error> {
    if object.size < size_of::<SemaphoreCell>() as u64 {
        return Err(Error::Corrupted(&"a semaphore's cell"));
    }
    arena.memory().at(object.offset)
}

fn slot_died(arena: &Arena, object: Object, slot: u32) -> Result<(), Error> {
    let cell = cell_of(arena, object)?;
    cell.gate.mark_dead(slot);
    let Some(entry) = cell.ledger.get(slot as usize) else { return Ok(()) };
    // Of what it had entered, what was no permit of its own does not count as one.
    let others = cell.taken(arena).saturating_sub(entry.load(Ordering::SeqCst));
    let most = cell.permits.load(Ordering::Relaxed).saturating_sub(others);
    let mut had = 0;
    cell.freed.commit_and_kick_in_order(arena.who()?.thread, 1, || had = entry.swap(0, Ordering::SeqCst));
    // Whatever the word says: the dead may have cleared it, and owed a wake of which the kernel did not know.
    cell.freed.pass_on_to_all();
    let recovered = had.min(most);
    cell.recovered.fetch_add(recovered, Ordering::Relaxed);
    if recovered > 0 {
        events::permits_came_back(arena, object.index, recovered, arena.slot(slot)?.pid.load(Ordering::Relaxed));
    }
    Ok(())
}

fn in_use(arena: &Arena, object: Object) -> Result<bool, Error> {
    Ok(cell_of(arena, object)?.gate.is_held())
}

fn report(arena: &Arena, object: Object, standing: &mut Standing) -> Result<(), Error> {
    let cell = cell_of(arena, object)?;
    let (free, all) = (cell.available(arena), cell.permits.load(Ordering::Relaxed));
    standing.state = format!("{free} of {all} permits are free").into();
    if free > 0 {
        standing.open(Op::Acquire);
    }
    let (had, astray) = cell.holders(arena)?;
    standing.astray = astray;
    for (slot, n) in had {
        standing.share(slot, so_many(n), &[Op::Acquire]);
    }
    standing.lock(&cell.gate, "the turn to acquire", &[Op::Acquire]);
    Ok(())
}

/// A number of permits that processes and threads share. A handle is two words, cheap to clone, and travels in arguments, results and messages.
///
/// # Crash safety
/// The permits of a process that dies come back, and [`take_recovered`](Semaphore::take_recovered) counts them; a `tracing` event tells whose they were. Whoever
/// waits gets its permit before those who come later, so a *stopped* process (SIGSTOP) that waits holds up others, also who would not wait, until it continues.
///
/// # Python
/// `multiprocessing.Semaphore` and [`BoundedSemaphore`]: a permit is a value that is given back by dropping it, so there is nothing
/// to release too often. A killed holder loses nothing for the others. Where one process acquires and another releases, take
/// [`SignalSemaphore`](crate::SignalSemaphore).
///
/// # Examples
/// ```
/// let two = multiproc::Semaphore::new(2)?;
/// let a = two.acquire()?;
/// let b = two.acquire()?;
/// assert!(two.try_acquire().is_err());
/// drop(a);
/// assert_eq!(two.available(), 1);
/// # drop(b);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Semaphore {
    pub(crate) held: Arc<Held>,
    cell: &'static SemaphoreCell,
}

/// Python's `BoundedSemaphore`: it is the same as [`Semaphore`], of which each permit comes back once, so that no release goes beyond the bound.
///
/// Where releases are calls of their own, and one too many is to be an error (Python's `ValueError`), take
/// [`SignalSemaphore::bounded`](crate::SignalSemaphore::bounded).
pub type BoundedSemaphore = Semaphore;

handle!(Semaphore, &SEMAPHORE, type_hash::<Semaphore>());

/// How long to wait.
#[derive(Clone, Copy)]
enum Patience {
    None,
    Until(Option<Deadline>),
}

impl Semaphore {
    /// A semaphore with so many permits.
    ///
    /// # Errors
    /// No permits at all, or the arena is full.
    pub fn new(permits: u32) -> Result<Semaphore, Error> {
        Semaphore::new_in(Arena::of_the_tree()?, permits)
    }

    /// As [`new`](Semaphore::new), in a given arena.
    ///
    /// # Errors
    /// As [`new`](Semaphore::new).
    #[doc(hidden)]
    pub fn new_in(arena: &'static Arena, permits: u32) -> Result<Semaphore, Error> {
        if permits == 0 {
            return Err(Error::Invalid(&"a semaphore has at least one permit"));
        }
        let size = size_of::<SemaphoreCell>() as u64;
        let held = arena.new_object(&SEMAPHORE, type_hash::<Semaphore>(), size, Role::Plain, |object| {
            cell_of(arena, object)?.permits.store(permits, Ordering::Relaxed);
            Ok(())
        })?;
        Semaphore::from_held(held)
    }

    fn from_held(held: Arc<Held>) -> Result<Semaphore, Error> {
        let cell = held.cell()?;
        Ok(Semaphore { held, cell })
    }

    /// Takes a permit, waiting until one is free.
    ///
    /// # Errors
    /// Only in a process that was made by a plain `fork()`, or if shared memory is corrupted.
    #[inline]
    pub fn acquire(&self) -> Result<Permit, AcquireError> {
        match self.enter_free() {
            Some(permit) => Ok(permit),
            None => self.acquire_within(Patience::Until(None)),
        }
    }

    /// Takes a permit if one is free.
    ///
    /// # Errors
    /// [`AcquireError::WouldBlock`]: none is, or others are taking one at that moment.
    pub fn try_acquire(&self) -> Result<Permit, AcquireError> {
        self.enter_free().map_or_else(|| self.acquire_within(Patience::None), Ok)
    }

    /// As [`acquire`](Semaphore::acquire), waiting at most `timeout`.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`], never early.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit, AcquireError> {
        self.enter_free().map_or_else(|| self.acquire_within(Patience::Until(Deadline::after(timeout))), Ok)
    }

    /// As [`acquire`](Semaphore::acquire), waiting at most until `deadline`.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`], never early.
    pub fn acquire_deadline(&self, deadline: Instant) -> Result<Permit, AcquireError> {
        self.enter_free().map_or_else(|| self.acquire_within(Patience::Until(Deadline::at(deadline))), Ok)
    }

    /// Takes a permit that can travel in arguments, results and messages; it comes back when it is dropped, wherever it is then, or when
    /// whoever has it dies. At most 1,024 of them are out at a time.
    ///
    /// # Errors
    /// As [`acquire`](Semaphore::acquire), or the arena is full.
    pub fn acquire_owned(&self) -> Result<OwnedPermit, AcquireError> {
        self.taking(Patience::Until(None), |_| self.enter_owned())
    }

    /// As [`acquire_owned`](Semaphore::acquire_owned) if a permit is free.
    ///
    /// # Errors
    /// As [`try_acquire`](Semaphore::try_acquire).
    pub fn try_acquire_owned(&self) -> Result<OwnedPermit, AcquireError> {
        self.taking(Patience::None, |_| self.enter_owned())
    }

    /// As [`acquire_owned`](Semaphore::acquire_owned), waiting at most `timeout`.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`], never early.
    pub fn acquire_owned_timeout(&self, timeout: Duration) -> Result<OwnedPermit, AcquireError> {
        self.taking(Patience::Until(Deadline::after(timeout)), |_| self.enter_owned())
    }

    /// A permit without waiting, if nobody waits; `None` also when the caller must look more closely.
    #[inline]
    fn enter_free(&self) -> Option<Permit> {
        let (arena, cell) = (self.held.arena(), self.cell);
        let me = robust::current().ok()?;
        if cell.gate.is_held() {
            return None;
        }
        self.enter(me, arena)
    }

    /// A permit, if there is one.
    #[inline]
    fn enter(&self, me: Thread, arena: &Arena) -> Option<Permit> {
        let cell = self.cell;
        let entry = cell.ledger.get(arena.my_slot() as usize)?;
        // Relaxed: a constant.
        if !ledger::enter(entry, cell.permits.load(Ordering::Relaxed), || cell.taken(arena)) {
            // Who waits may have counted it.
            cell.freed.commit_and_kick_in_order(me, 1, || ledger::leave(entry));
            return None;
        }
        Some(Permit { semaphore: self.clone(), life: robust::life() })
    }

    #[cold]
    fn acquire_within(&self, patience: Patience) -> Result<Permit, AcquireError> {
        self.taking(patience, |who| Ok(self.enter(who.thread, self.held.arena())))
    }

    /// Waits at the gate until a permit is free, and takes it by `commit`, which may find that another one was quicker.
    fn taking<R>(&self, patience: Patience, mut commit: impl FnMut(Who) -> Result<Option<R>, Error>) -> Result<R, AcquireError> {
        let (arena, index, cell) = (self.held.arena(), self.held.object().index, self.cell);
        let who = arena.who()?;
        let found = match (cell.gate.try_lock(who), patience) {
            (Err(LockFailed::Held), Patience::Until(deadline)) => {
                let note = arena.note_wait(Op::Acquire, index, deadline);
                let found = cell.gate.lock_until(who, deadline);
                waiting::end(note, found == Err(LockFailed::TimedOut));
                found
            }
            (other, _) => other,
        };
        // A dead predecessor leaves nothing to mend.
        let _either = found.map_err(AcquireError::from_raw)?;
        let free = || self.available() > 0;
        if matches!(patience, Patience::Until(_)) && !free() && cell.owned_high.load(Ordering::Relaxed) > 0 {
            // A permit may have been lost with a message that nobody will ever get: only a collection finds it.
            let _ = arena.collect();
        }
        let mut looks = 0;
        let taken = loop {
            let there = match patience {
                _ if free() => true,
                Patience::None => false,
                Patience::Until(deadline) => arena.wait_alone(Op::Acquire, index, &cell.freed, deadline, free),
            };
            if !there {
                break Err(if matches!(patience, Patience::None) { AcquireError::WouldBlock } else { AcquireError::TimedOut });
            }
            match commit(who) {
                Ok(Some(taken)) => break Ok(taken),
                Err(why) => break Err(why.into()),
                // From before the gate was taken; each of them either has the permit or is about to take itself out. One that is stopped in between does not
                // hold up who would not wait.
                Ok(None) if matches!(patience, Patience::None) && looks == LOOKS => break Err(AcquireError::WouldBlock),
                Ok(None) if matches!(patience, Patience::Until(Some(deadline)) if deadline.passed()) => {
                    break Err(AcquireError::TimedOut);
                }
                Ok(None) if looks == MOST_LOOKS => break Err(Error::Corrupted(&"a semaphore's permits").into()),
                Ok(None) => looks += 1,
            }
        };
        cell.gate.unlock(who.thread);
        taken
    }

    /// An owned permit, entered; `None` if it was one too many. Under the gate.
    fn enter_owned(&self) -> Result<Option<OwnedPermit>, Error> {
        let cell = self.cell;
        let high = (cell.owned_high.load(Ordering::Relaxed) as usize).min(MAX_OWNED);
        let free = cell.owned[..high].iter().position(|e| e.load(Ordering::Acquire) == 0);
        let entry = free.or((high < MAX_OWNED).then_some(high)).ok_or(Error::Full(&"owned permits"))?;
        let (permit, id) = OwnedPermit::make(self, entry as u32)?;
        crash::point("semaphore.permit_made");
        cell.owned_high.fetch_max(entry as u32 + 1, Ordering::SeqCst);
        // SeqCst: as in `ledger::enter`; the commit. A swap, since a store and the loads after it may change places.
        cell.owned[entry].swap(id, Ordering::SeqCst);
        crash::point("semaphore.permit_entered");
        // Dropped, it is taken out again.
        Ok((cell.taken(self.held.arena()) <= self.permits()).then_some(permit))
    }

    /// How many permits are free at this moment.
    #[doc(alias = "get_value")]
    pub fn available(&self) -> u32 {
        self.cell.available(self.held.arena())
    }

    /// How many permits there are.
    pub fn permits(&self) -> u32 {
        self.cell.permits.load(Ordering::Relaxed)
    }

    /// How many permits came back from dead processes since the last call.
    pub fn take_recovered(&self) -> u32 {
        self.cell.recovered.swap(0, Ordering::Relaxed)
    }
}

/// Whether an owned permit counts.
pub(crate) fn is_entered(cell: &SemaphoreCell, entry: u32, id: u64) -> bool {
    cell.owned.get(entry as usize).is_some_and(|entry| entry.load(Ordering::Acquire) == id)
}

/// Takes an owned permit's entry out, if it is still entered, and wakes a waiter. Whether it was.
pub(crate) fn leave_owned(arena: &Arena, cell: &SemaphoreCell, entry: u32, id: u64, died: bool) -> Result<bool, Error> {
    let Some(entry) = cell.owned.get(entry as usize) else { return Ok(false) };
    let mut was = false;
    cell.freed.commit_and_kick_in_order(arena.who()?.thread, 1, || {
        was = entry.compare_exchange(id, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok();
    });
    if was && died {
        cell.recovered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(was)
}

impl fmt::Debug for Semaphore {
    /// Such as `Semaphore(id: 4, 1 of 3 permits free, process "worker-1" (pid 123) has 2 permits)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (arena, index) = (self.held.arena(), self.held.object().index);
        write!(f, "Semaphore(id: {index}, {} of {} permits free", self.available(), self.permits())?;
        for (slot, n) in self.cell.holders(arena).map(|(had, _)| had).unwrap_or_default() {
            write!(f, ", {} has {}", InSlot(arena, slot), so_many(n))?;
        }
        close(f, Waiters::of(arena, index))
    }
}

/// A permit of a [`Semaphore`]; dropping it gives it back. Belongs to the process and may go to another thread of it.
#[must_use = "the permit is given back when it is dropped"]
#[derive(Debug)]
pub struct Permit {
    semaphore: Semaphore,
    life: u32,
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        // In a process made by fork() the permit is the parent's.
        let Some(me) = robust::current().ok().filter(|_| robust::life() == self.life) else { return };
        let cell = self.semaphore.cell;
        if let Some(entry) = cell.ledger.get(self.semaphore.held.arena().my_slot() as usize) {
            cell.freed.commit_and_kick_in_order(me, 1, || ledger::leave(entry));
        }
    }
}
