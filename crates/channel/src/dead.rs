//! [`DeadLetters`]: messages that were given out in vain as often as their queue allows.

use crate::codec::{Bincode, Codec};
use crate::error::GetError;
use crate::message::Arrival;
use crate::queue::{Carries, until};
use crate::ring::{Patience, Ring};
use multiproc_shm::Arena;
use multiproc_shm::watching::{Seen, Source, WaitOn, Watched, Watchlist};
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

/// What is dead of a queue whose builder set [`attempts`](crate::QueueBuilder::attempts): see [`Queue::dead`](crate::Queue::dead).
///
/// A handle like the queue's others: cheap to clone, and it travels. It counts neither as a putter nor as a getter of the queue. A dead letter keeps the place
/// of a lease until it is taken; leases and dead letters together are at most 65,536.
///
/// # Examples
/// ```
/// use multiproc::{Process, Queue, Receiver};
///
/// let q = Queue::<String>::builder().attempts(2).build()?;
/// q.put("poison".into())?;
/// for _ in 0..2 {
///     let worker = Process::spawn((q.receiver()?,), |jobs: Receiver<String>| -> () {
///         let _job = jobs.lease().unwrap();
///         std::process::abort();
///     })?;
///     assert!(worker.join().is_err());
/// }
/// let letter = q.dead()?.get()?;
/// assert_eq!((letter.as_str(), letter.attempts()), ("poison", 2));
/// assert!(letter.died());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DeadLetters<T, C = Bincode> {
    pub(crate) ring: Ring,
    pub(crate) _type: Carries<T, C>,
}

/// A message that is delivered no more, and why. Derefs to the message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter<T> {
    message: T,
    attempts: u32,
    pid: u32,
    died: bool,
}

impl<T> DeadLetter<T> {
    /// The message.
    pub fn into_inner(self) -> T {
        self.message
    }

    /// How often it was given out.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The id of the process that had it last.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether that process died with it; otherwise it gave it back.
    pub fn died(&self) -> bool {
        self.died
    }
}

impl<T> Deref for DeadLetter<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.message
    }
}

impl<T, C> DeadLetters<T, C> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ring.count_leases().map_or(0, |count| count.dead as usize)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T, C: Codec<T>> DeadLetters<T, C> {
    /// Takes the oldest, waiting while there is none.
    ///
    /// # Errors
    /// [`GetError::is_end`] when none is there and none can come any more: the queue has ended, is drained, and no lease is out.
    /// [`GetError::Decode`] for one that is no `T`; it is gone.
    ///
    /// # Crash safety
    /// As [`Queue::get`](crate::Queue::get): killed in the middle, the caller leaves the letter, or loses it, which the queue's `take_losses` counts.
    pub fn get(&self) -> Result<DeadLetter<T>, GetError> {
        self.get_with(Patience::Until(None))
    }

    /// As [`get`](DeadLetters::get) without waiting.
    ///
    /// # Errors
    /// [`GetError::Empty`], and as [`get`](DeadLetters::get).
    pub fn try_get(&self) -> Result<DeadLetter<T>, GetError> {
        self.get_with(Patience::None)
    }

    /// As [`get`](DeadLetters::get), waiting at most `timeout`.
    ///
    /// # Errors
    /// [`GetError::TimedOut`], never early, and as [`get`](DeadLetters::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<DeadLetter<T>, GetError> {
        self.get_with(until(timeout))
    }

    fn get_with(&self, patience: Patience) -> Result<DeadLetter<T>, GetError> {
        let _hand = self.ring.in_hand();
        let mut arrival = Arrival::new(self.ring.arena());
        let (attempts, holder) = self.ring.get_dead(&mut arrival, patience)?;
        let message = arrival.open::<T, C>()?;
        Ok(DeadLetter { message, attempts, pid: holder.pid, died: !holder.gave_back })
    }
}

impl<T, C> WaitOn for DeadLetters<T, C> {
    fn source(&self) -> Source<'_> {
        Source::Object(self)
    }
}

impl<T, C> Watched for DeadLetters<T, C> {
    fn arena(&self) -> Option<&'static Arena> {
        Some(self.ring.arena())
    }

    fn is_ready(&self, _seen: &Seen) -> bool {
        self.ring.would_get_dead()
    }

    fn watch(&self, _seen: &mut Seen, list: &mut Watchlist) {
        list.watch(Some(self.ring.arena()), &self.ring.cell.dead.wake);
    }

    fn woken(&self, seen: &Seen) {
        if self.is_ready(seen) {
            self.ring.cell.dead.wake.pass_on_if_owed();
        }
    }
}

impl<T, C> fmt::Debug for DeadLetters<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters").field("queue", &self.ring.index()).field("len", &self.len()).finish()
    }
}
