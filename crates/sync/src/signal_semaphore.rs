//! [`SignalSemaphore`]: a number that any process raises and any process takes from. What it is in shared memory: `raw::signals`.

use crate::describe::{Waiters, close};
use crate::error::{AcquireError, ReleaseError};
use crate::handle::handle;
use crate::raw::signals::RawSignals;
use multiproc_shm::memory::Shared;
use multiproc_shm::notes::Op;
use multiproc_shm::objects::{Kind, Object, type_hash};
use multiproc_shm::raw::LockFailed;
use multiproc_shm::report::Standing;
use multiproc_shm::{Arena, Error, Held, Role, waiting};
use multiproc_sys::clock::Deadline;
use multiproc_sys::{robust, spin};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[allow(unsafe_code)]
// SAFETY: `repr(C)` of atomics and types that are `Shared`.
unsafe impl Shared for RawSignals {}

/// Semaphores without owners in the object table.
pub(crate) static SIGNALS: Kind = Kind { slot_died, in_use, report, ..Kind::plain(9, "SignalSemaphore") };

fn slot_died(arena: &Arena, object: Object, slot: u32) -> Result<(), Error> {
    let cell = arena.memory().at::<RawSignals>(object.offset)?;
    cell.gate.mark_dead(slot);
    cell.owner_died();
    Ok(())
}

fn in_use(arena: &Arena, object: Object) -> Result<bool, Error> {
    Ok(arena.memory().at::<RawSignals>(object.offset)?.gate.is_held())
}

fn report(arena: &Arena, object: Object, standing: &mut Standing) -> Result<(), Error> {
    let cell = arena.memory().at::<RawSignals>(object.offset)?;
    let value = cell.value();
    standing.state = format!("value {value}").into();
    standing.ownerless = true;
    if value > 0 {
        standing.open(Op::Acquire);
    }
    standing.lock(&cell.gate, "the turn to acquire", &[Op::Acquire]);
    Ok(())
}

/// A number that any process raises and any process takes from, waiting while it is 0: a semaphore used as a signal. A handle is two words, cheap to clone, and
/// travels in arguments, results and messages.
///
/// Nobody owns what it counts: who acquires need not release, and who releases need not have acquired. For permits that are given back, also when their holder dies,
/// see [`Semaphore`](crate::Semaphore).
///
/// # Crash safety
/// Each acquire and each release is done or not done, whenever its process is killed, and nobody who waits is stranded by it: killed in `release(n)`, the caller
/// has raised the value by `n` or not at all; killed while it waits or as it is woken, it has taken one or none, and the next one is woken. As nobody owns
/// anything, what a dead process had taken does not come back, and what it would have released is not released. A *stopped* process that waits may hold up others
/// that wait, until it continues; who finds the value above 0 does not wait for it.
///
/// # Python
/// `multiprocessing.Semaphore` where one process acquires and another releases. With a bound ([`bounded`](SignalSemaphore::bounded)), `BoundedSemaphore`, whose
/// `ValueError` is [`ReleaseError::BeyondBound`].
///
/// # Examples
/// ```
/// use multiproc::{Process, SignalSemaphore};
///
/// let ready = SignalSemaphore::new(0)?;
/// let worker = Process::spawn((ready.clone(),), |ready| ready.release(2).unwrap())?;
/// ready.acquire()?;
/// ready.acquire()?;
/// assert!(ready.try_acquire().is_err());
/// worker.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Semaphore")]
#[doc(alias = "BoundedSemaphore")]
pub struct SignalSemaphore {
    held: Arc<Held>,
    cell: &'static RawSignals,
}

handle!(SignalSemaphore, &SIGNALS, type_hash::<SignalSemaphore>());

impl SignalSemaphore {
    /// A semaphore with this value. It can rise to `u32::MAX`.
    ///
    /// # Errors
    /// The arena is full.
    pub fn new(value: u32) -> Result<SignalSemaphore, Error> {
        SignalSemaphore::bounded(value, u32::MAX)
    }

    /// A semaphore with this value, which never rises above `bound`. Python's `BoundedSemaphore(n)` is `bounded(n, n)`.
    ///
    /// # Errors
    /// The value is above the bound, the bound is 0, or the arena is full.
    pub fn bounded(value: u32, bound: u32) -> Result<SignalSemaphore, Error> {
        SignalSemaphore::new_in(Arena::of_the_tree()?, value, bound)
    }

    /// As [`bounded`](SignalSemaphore::bounded), in a given arena.
    ///
    /// # Errors
    /// As [`bounded`](SignalSemaphore::bounded).
    #[doc(hidden)]
    pub fn new_in(arena: &'static Arena, value: u32, bound: u32) -> Result<SignalSemaphore, Error> {
        if bound == 0 {
            return Err(Error::Invalid(&"a semaphore's bound is at least one"));
        }
        if value > bound {
            return Err(Error::Invalid(&"a semaphore's first value is not above its bound"));
        }
        let size = size_of::<RawSignals>() as u64;
        let held = arena.new_object(&SIGNALS, type_hash::<SignalSemaphore>(), size, Role::Plain, |object| {
            arena.memory().at::<RawSignals>(object.offset)?.init(value, bound);
            Ok(())
        })?;
        SignalSemaphore::from_held(held)
    }

    fn from_held(held: Arc<Held>) -> Result<SignalSemaphore, Error> {
        let cell = held.cell()?;
        Ok(SignalSemaphore { held, cell })
    }

    /// Takes one, waiting while the value is 0.
    ///
    /// # Errors
    /// Only in a process that was made by a plain `fork()`, in a signal handler that has interrupted the same on its thread
    /// ([`AcquireError::WouldBlock`]), or if shared memory is corrupted.
    #[inline]
    pub fn acquire(&self) -> Result<(), AcquireError> {
        self.acquire_within(None)
    }

    /// Takes one if the value is above 0.
    ///
    /// # Errors
    /// [`AcquireError::WouldBlock`]: it is 0.
    #[inline]
    pub fn try_acquire(&self) -> Result<(), AcquireError> {
        if robust::forked() {
            return Err(Error::Forked.into());
        }
        if self.cell.try_take() { Ok(()) } else { Err(AcquireError::WouldBlock) }
    }

    /// As [`acquire`](SignalSemaphore::acquire), waiting at most `timeout`.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`], never early.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<(), AcquireError> {
        self.acquire_within(Deadline::after(timeout))
    }

    /// As [`acquire`](SignalSemaphore::acquire), waiting at most until `deadline`.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`], never early.
    pub fn acquire_deadline(&self, deadline: Instant) -> Result<(), AcquireError> {
        self.acquire_within(Deadline::at(deadline))
    }

    #[inline]
    fn acquire_within(&self, deadline: Option<Deadline>) -> Result<(), AcquireError> {
        match self.try_acquire() {
            Err(AcquireError::WouldBlock) => self.wait(deadline),
            other => other,
        }
    }

    #[cold]
    fn wait(&self, deadline: Option<Deadline>) -> Result<(), AcquireError> {
        let (arena, index, cell) = (self.held.arena(), self.held.object().index, self.cell);
        if spin::until(|| cell.value() > 0) && cell.try_take() {
            return Ok(());
        }
        let who = arena.who()?;
        let entered = match cell.try_enter(who) {
            Err(LockFailed::Held) => {
                let note = arena.note_wait(Op::Acquire, index, deadline);
                // A dead predecessor leaves nothing to mend.
                let entered = cell.gate.lock_until(who, deadline).map(|_| ());
                waiting::end(note, entered == Err(LockFailed::TimedOut));
                entered
            }
            other => other,
        };
        match entered {
            // Whoever has the turn has not taken what there is.
            Err(LockFailed::TimedOut) if cell.try_take() => return Ok(()),
            other => other.map_err(AcquireError::from_raw)?,
        }
        let taken = cell.take_in_turn(|word, ready| arena.wait_alone(Op::Acquire, index, word, deadline, ready));
        cell.open(who);
        if taken { Ok(()) } else { Err(AcquireError::TimedOut) }
    }

    /// Raises the value by `n` and lets as many go that wait. Waits for nobody, and is any process's to call.
    ///
    /// # Errors
    /// [`ReleaseError::BeyondBound`]: the value would rise above the bound; it is as it was. Otherwise only in a process that was made by a plain `fork()`.
    #[inline]
    pub fn release(&self, n: u32) -> Result<(), ReleaseError> {
        let me = robust::current().map_err(Error::from)?;
        if self.cell.release(me, n) { Ok(()) } else { Err(ReleaseError::BeyondBound(self.bound())) }
    }

    /// The value at this moment.
    #[doc(alias = "get_value")]
    pub fn value(&self) -> u32 {
        self.cell.value()
    }

    /// What the value never rises above.
    pub fn bound(&self) -> u32 {
        self.cell.bound()
    }
}

impl fmt::Debug for SignalSemaphore {
    /// Such as `SignalSemaphore(id: 5, value 0, 2 waiting)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = self.held.object().index;
        write!(f, "SignalSemaphore(id: {index}, value {}", self.value())?;
        if self.bound() != u32::MAX {
            write!(f, " of at most {}", self.bound())?;
        }
        close(f, Waiters::of(self.held.arena(), index))
    }
}
