//! The handles of a queue: [`Queue`], which may do everything, and the one-sided [`Sender`] and [`Receiver`].

use crate::batch::{Arrivals, Batch};
use crate::codec::{Bincode, Codec, EncodeRef};
use crate::dead::DeadLetters;
use crate::error::{GetError, PutError, PutFailed, PutManyError};
use crate::lease::Lease;
use crate::message::{self, Arrival, OpenFailed, Parcel};
use crate::ring::cell::{CLOSED, End, MAX_CAPACITY, QueueCell};
use crate::ring::kind::QUEUE;
use crate::ring::{Bounds, Patience, Ring, Usual, dead};
use multiproc_shm::raw::Who;
use multiproc_shm::scope;
use multiproc_shm::watching::{Source, WaitOn};
use multiproc_shm::{Arena, Error, Role};
use multiproc_sys::clock::Deadline;
use multiproc_sys::robust;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::any::TypeId;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A message may have this many bytes when encoded, unless the queue was built with another limit: 1 GiB.
pub const DEFAULT_MAX_MESSAGE: u64 = 1 << 30;

/// Bytes are counted in 40 bits.
const MAX_BYTES: u64 = 1 << 39;

/// Words of the longest payload that is taken the short way.
const SMALL_WORDS: usize = 8;

/// What the types of a queue hash to: both ends agree on them, in one program.
fn type_hash<T: 'static, C: 'static>() -> u64 {
    let mut hasher = DefaultHasher::new();
    (TypeId::of::<T>(), TypeId::of::<C>()).hash(&mut hasher);
    hasher.finish()
}

/// Values cross as bytes, so a handle is `Send` and `Sync` whatever `T` is.
pub(crate) type Carries<T, C> = PhantomData<fn(T, C) -> (T, C)>;

pub(crate) fn until(timeout: Duration) -> Patience {
    Patience::Until(Deadline::after(timeout))
}

fn until_instant(deadline: Instant) -> Patience {
    Patience::Until(Deadline::at(deadline))
}

impl Ring {
    fn create<T: 'static, C: 'static>(arena: &'static Arena, bounds: Bounds) -> Result<Ring, Error> {
        let Bounds { capacity, fails_when_full, max_message, max_bytes, attempts } = bounds;
        let limit = arena.usage().1;
        // A small message takes 16 bytes at least, payload and head. Of payload, half of the memory is left to all else.
        let (capacity, max_bytes, segment_bits) = match capacity {
            Some(capacity) => (capacity, max_bytes, 0),
            None => {
                let capacity = (limit / 32).clamp(1, MAX_CAPACITY as u64) as usize;
                (capacity, max_bytes.or(Some((limit / 2).clamp(1, MAX_BYTES))), arena.piece_shift())
            }
        };
        if capacity == 0 || capacity > MAX_CAPACITY {
            return Err(Error::Invalid(&"a queue's capacity is 1 to 8,388,607 items"));
        }
        if max_bytes.is_some_and(|bytes| bytes == 0 || bytes > MAX_BYTES) {
            return Err(Error::Invalid(&"a queue's byte limit is 1 to 2^39"));
        }
        let size = size_of::<QueueCell>() as u64;
        let held = arena.new_object(&QUEUE, type_hash::<T, C>(), size, Role::Both, |object| {
            let cell = arena.memory().at::<QueueCell>(object.offset)?;
            // Relaxed: the object is published later.
            cell.capacity.store(capacity as u64, Ordering::Relaxed);
            cell.max_message.store(max_message.min(max_bytes.unwrap_or(u64::MAX)), Ordering::Relaxed);
            cell.max_bytes.store(max_bytes.unwrap_or(0), Ordering::Relaxed);
            cell.max_attempts.store(attempts, Ordering::Relaxed);
            cell.segment_bits.store(segment_bits, Ordering::Relaxed);
            cell.fails_when_full.store(u32::from(fails_when_full), Ordering::Relaxed);
            cell.begin_at(End::first(segment_bits), segment_bits);
            Ok(())
        })?;
        Ring::new(held)
    }

    fn with_role(&self, role: Role) -> Result<Ring, Error> {
        Ring::new(self.held.with_role(role)?)
    }

    #[inline]
    pub(crate) fn put_value<B: ?Sized, T, C: EncodeRef<B, T>>(&self, value: &B, patience: Patience) -> Result<(), PutFailed> {
        let mut parcel = Parcel::new(self.arena(), self.max_message());
        parcel.pack::<B, T, C>(self.arena(), value)?;
        self.put(&mut parcel, patience)?;
        parcel.gone();
        Ok(())
    }

    #[inline]
    fn get_value<T, C: Codec<T>>(&self, patience: Patience) -> Result<T, GetError> {
        let who = self.arena().who()?;
        let mut small = [0_u64; SMALL_WORDS];
        match self.get_usual(who, &mut small) {
            Usual::Done((len, _hand)) => {
                let value = message::decode::<T, C>(self.arena(), &bytemuck::must_cast_slice(&small)[..len], &[]);
                value.map_err(|e| OpenFailed::Codec(e).into())
            }
            short => self.get_any::<T, C>(who, patience, matches!(short, Usual::Locked)),
        }
    }

    #[inline(never)]
    fn get_any<T, C: Codec<T>>(&self, who: Who, patience: Patience, locked: bool) -> Result<T, GetError> {
        let _hand = self.in_hand();
        let mut arrival = Arrival::new(self.arena());
        self.get(who, &mut arrival, patience, locked)?;
        Ok(arrival.open::<T, C>()?)
    }

    fn put_values<I: Iterator, C: Codec<I::Item>>(&self, mut values: I, patience: Patience) -> Result<usize, PutManyError<I>> {
        let (mut batch, mut count, mut ended) = (Batch::new(), 0, false);
        loop {
            let mut refused = None;
            while !batch.is_full() && !ended && refused.is_none() {
                match values.next() {
                    Some(value) => refused = batch.add::<C>(self.arena(), value, self.max_message()).err(),
                    None => ended = true,
                }
            }
            let (done, put) = if batch.is_empty() { (0, Ok(())) } else { self.put_batch(&mut batch, patience) };
            count += done;
            batch.gone(done);
            let why = match (put, &refused) {
                (Ok(()), None) if ended => return Ok(count),
                (Ok(()), None) => continue,
                (Err(why), _) => Some(why),
                (Ok(()), Some(_)) => None,
            };
            let mut rest = batch.into_values();
            let refused = refused.map(|(value, why)| {
                rest.push_back(value);
                PutFailed::from(why)
            });
            let why = why.or(refused).unwrap_or(PutFailed::Full);
            return Err(PutManyError::new(count, why, rest, values));
        }
    }

    fn get_values<T, C: Codec<T>>(&self, max: usize, patience: Patience) -> Result<Vec<Result<T, GetError>>, GetError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let hand = self.in_hand();
        let mut arrivals = Arrivals::new(self.arena());
        self.get_batch(&mut arrivals, max, patience)?;
        let values = arrivals.open::<T, C>();
        drop(arrivals);
        drop(hand);
        Ok(values.into_iter().map(|value| value.map_err(GetError::from)).collect())
    }

    fn len(&self) -> usize {
        let returned = self.count_leases().map_or(0, |leases| leases.returned);
        (self.items() + returned) as usize
    }

    fn close(&self) -> Result<(), Error> {
        let me = self.arena().who()?.thread;
        let cell = self.cell;
        // Release pairs with the Acquire in `Ring::ended`.
        let mark = || {
            cell.ended.fetch_or(CLOSED, Ordering::Release);
        };
        cell.produced.cw.commit_and_kick(me, mark);
        cell.consumed.pw.commit_and_kick(me, mark);
        dead::raise(cell, self.arena().who()?, mark);
        Ok(())
    }
}

/// `Clone`, `Serialize` and `Deserialize` of a handle in a role.
macro_rules! travels {
    ($Name:ident, $role:expr) => {
        impl<T, C> Clone for $Name<T, C> {
            fn clone(&self) -> Self {
                $Name { ring: self.ring.clone(), _type: PhantomData }
            }
        }

        impl<T, C> Serialize for $Name<T, C> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                scope::serialize(&self.ring.held, serializer)
            }
        }

        impl<'de, T: 'static, C: 'static> Deserialize<'de> for $Name<T, C> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let held = scope::deserialize(&QUEUE, type_hash::<T, C>(), deserializer)?;
                if held.role() != $role {
                    return Err(serde::de::Error::custom("the handle is for another side of the queue"));
                }
                let ring = Ring::new(held).map_err(serde::de::Error::custom)?;
                Ok($Name { ring, _type: PhantomData })
            }
        }
    };
}

macro_rules! handle {
    ($Name:ident, $role:expr) => {
        travels!($Name, $role);

        impl<T, C> fmt::Debug for $Name<T, C> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Name))
                    .field("id", &self.ring.index())
                    .field("len", &self.ring.len())
                    .field("capacity", &self.ring.capacity())
                    .field("ended", &(self.ring.ended() != 0))
                    .finish()
            }
        }

        impl<T, C> $Name<T, C> {
            /// Items that wait, exactly: put and not yet got, and leases that have come back. Leases that are out are not counted.
            #[doc(alias = "qsize")]
            pub fn len(&self) -> usize {
                self.ring.len()
            }

            /// Whether nothing waits, exactly; leases that are out do not.
            #[doc(alias = "empty")]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// How many items fit. Of an unbounded queue the most that it keeps.
            #[doc(alias = "maxsize")]
            pub fn capacity(&self) -> usize {
                self.ring.capacity() as usize
            }

            /// Whether a bound is reached, so that `put` would wait.
            #[doc(alias = "full")]
            pub fn is_full(&self) -> bool {
                self.ring.is_full()
            }

            /// Whether somebody has closed the queue.
            pub fn is_closed(&self) -> bool {
                self.ring.ended() & CLOSED != 0
            }

            /// Closes the queue for everybody: from now on `put` fails, and `get` fails once the queue is drained. Cannot be undone.
            ///
            /// # Errors
            /// Only in a process that was made by a plain `fork()`.
            pub fn close(&self) -> Result<(), Error> {
                self.ring.close()
            }

            /// The number under which reports name the queue.
            #[doc(hidden)]
            pub fn id(&self) -> u32 {
                self.ring.index()
            }

            /// Leases that are out at this moment.
            pub fn leased(&self) -> usize {
                self.ring.count_leases().map_or(0, |leases| leases.out as usize)
            }

            /// Messages that have been put and neither got nor acknowledged: those that wait, and leases that are out and may come back. One that is being
            /// leased at this moment may count twice, but none is left out: at the end of a closed queue 0 says that nothing can come any more, which
            /// [`len`](Self::len) and [`leased`](Self::leased), asked one after the other, cannot.
            pub fn unfinished(&self) -> usize {
                // The items first: one that is leased is in the table before it leaves the ring.
                let items = self.ring.items() as usize;
                self.ring.count_leases().map_or(items, |leases| items + leases.out as usize + leases.returned as usize)
            }

            /// How many messages were lost since the last call, because a process died between taking one and returning it from `get`.
            ///
            /// Each is also a `tracing` event. Messages under lease are not lost but delivered again, of which an event tells as well.
            pub fn take_losses(&self) -> u32 {
                if robust::forked() {
                    return 0;
                }
                let cell = &self.ring.cell;
                let mut told = cell.told.load(Ordering::Acquire);
                loop {
                    // Read after `told`, which never gets past it.
                    let lost = cell.lost.load(Ordering::Relaxed);
                    // AcqRel: who sees what was told sees no less lost.
                    match cell.told.compare_exchange(told, lost, Ordering::AcqRel, Ordering::Acquire) {
                        Ok(_) => return lost.wrapping_sub(told),
                        Err(now) => told = now,
                    }
                }
            }
        }
    };
}

macro_rules! putting {
    ($Name:ident) => {
        impl<T, C: Codec<T>> $Name<T, C> {
            /// Puts `value`, waiting while the queue is full. It is encoded at the call and visible to `get` when `put` returns.
            ///
            /// # Errors
            /// The queue is closed, nobody is left who could get, the encoded value is too large or cannot be encoded, or memory is used up. The
            /// error hands the value back.
            ///
            /// # Crash safety
            /// Killed in the middle, the caller has put the whole message or nothing; others go on at once.
            pub fn put(&self, value: T) -> Result<(), PutError<T>> {
                self.put_with(value, Patience::Until(None))
            }

            /// As [`put`](Self::put) without waiting for room.
            ///
            /// # Errors
            /// [`PutError::is_full`]; also `is_would_block` when another process is putting at that moment.
            #[doc(alias = "put_nowait")]
            pub fn try_put(&self, value: T) -> Result<(), PutError<T>> {
                self.put_with(value, Patience::None)
            }

            /// As [`put`](Self::put), waiting at most `timeout`.
            ///
            /// # Errors
            /// [`PutError::is_timeout`], never early.
            pub fn put_timeout(&self, value: T, timeout: Duration) -> Result<(), PutError<T>> {
                self.put_with(value, until(timeout))
            }

            /// As [`put`](Self::put), waiting at most until `deadline`.
            ///
            /// # Errors
            /// [`PutError::is_timeout`], never early.
            pub fn put_deadline(&self, value: T, deadline: Instant) -> Result<(), PutError<T>> {
                self.put_with(value, until_instant(deadline))
            }

            /// As [`put`](Self::put), for a value that the caller keeps; also for a borrowed form of it: `&str` for `String`, `&[E]` for `Vec<E>`.
            ///
            /// # Errors
            /// As [`put`](Self::put).
            pub fn put_ref<B: ?Sized>(&self, value: &B) -> Result<(), PutError<()>>
            where
                C: EncodeRef<B, T>,
            {
                self.ring.put_value::<B, T, C>(value, Patience::Until(None)).map_err(|why| PutError::new((), why))
            }

            /// Puts many values in order, waiting while the queue is full: cheaper than one by one, and visible to `get` in batches. Gives their number.
            ///
            /// Values are taken from the iterator up to 128 at a time, encoded, and put together as far as there is room. Others may put between
            /// two batches, not within one. An iterator that waits for something holds back the values before it.
            ///
            /// # Errors
            /// As [`put`](Self::put), for the first value that was not put: the error says how many were before it, and has the rest.
            ///
            /// # Crash safety
            /// Killed in the middle, the caller has put the first values up to some point, each whole, and none behind it.
            ///
            /// # Examples
            /// ```
            /// let q = multiproc::Queue::<u64>::bounded(10)?;
            /// assert_eq!(q.put_many(0..7)?, 7);
            /// let e = q.try_put_many(7..20).unwrap_err();
            /// assert!(e.error().is_full());
            /// assert_eq!((e.put(), e.into_rest().next()), (3, Some(10)));
            /// let got = q.get_many(100)?;
            /// assert_eq!(got.into_iter().collect::<Result<Vec<_>, _>>()?, (0..10).collect::<Vec<_>>());
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn put_many<I: IntoIterator<Item = T>>(&self, values: I) -> Result<usize, PutManyError<I::IntoIter>> {
                self.ring.put_values::<_, C>(values.into_iter(), Patience::Until(None))
            }

            /// As [`put_many`](Self::put_many) without waiting for room.
            ///
            /// # Errors
            /// As [`try_put`](Self::try_put), for the first value that was not put.
            pub fn try_put_many<I: IntoIterator<Item = T>>(&self, values: I) -> Result<usize, PutManyError<I::IntoIter>> {
                self.ring.put_values::<_, C>(values.into_iter(), Patience::None)
            }

            /// As [`put_many`](Self::put_many), waiting at most `timeout` for all of them together.
            ///
            /// # Errors
            /// As [`put_timeout`](Self::put_timeout), for the first value that was not put.
            pub fn put_many_timeout<I: IntoIterator<Item = T>>(
                &self,
                values: I,
                timeout: Duration,
            ) -> Result<usize, PutManyError<I::IntoIter>> {
                self.ring.put_values::<_, C>(values.into_iter(), until(timeout))
            }

            #[inline]
            fn put_with(&self, value: T, patience: Patience) -> Result<(), PutError<T>> {
                match self.ring.put_value::<T, T, C>(&value, patience) {
                    Ok(()) => Ok(()),
                    Err(why) => Err(PutError::new(value, why)),
                }
            }
        }
    };
}

macro_rules! getting {
    ($Name:ident) => {
        impl<T, C> WaitOn for $Name<T, C> {
            fn source(&self) -> Source<'_> {
                Source::Object(&self.ring)
            }

            fn is_idle(&self) -> bool {
                self.ring.is_idle()
            }
        }

        impl<T, C: Codec<T>> $Name<T, C> {
            /// Takes the first message, waiting while there is none.
            ///
            /// # Errors
            /// [`GetError::is_end`] when the queue is drained and closed, or nobody is left who could put: dropped or dead.
            /// [`GetError::Decode`] for a message that is no `T`; it is gone, the queue goes on.
            ///
            /// # Panics
            /// If a `Deserialize` panics; the message is then gone, as one that is no `T`, and counts as lost as little as that.
            ///
            /// # Crash safety
            /// Killed before `get` has returned, the caller leaves the message in the queue, or loses that one message, which
            /// [`take_losses`](Self::take_losses) counts. [`lease`](Self::lease) loses none. A *stopped* process (SIGSTOP, a debugger) that waits
            /// here may hold up the other getters until it continues.
            pub fn get(&self) -> Result<T, GetError> {
                self.ring.get_value::<T, C>(Patience::Until(None))
            }

            /// As [`get`](Self::get) without waiting.
            ///
            /// # Errors
            /// [`GetError::Empty`]; [`GetError::WouldBlock`] when there is something but another process is getting at that moment.
            #[doc(alias = "get_nowait")]
            pub fn try_get(&self) -> Result<T, GetError> {
                self.ring.get_value::<T, C>(Patience::None)
            }

            /// As [`get`](Self::get), waiting at most `timeout`.
            ///
            /// # Errors
            /// [`GetError::TimedOut`], never early.
            pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
                self.ring.get_value::<T, C>(until(timeout))
            }

            /// As [`get`](Self::get), waiting at most until `deadline`.
            ///
            /// # Errors
            /// [`GetError::TimedOut`], never early.
            pub fn get_deadline(&self, deadline: Instant) -> Result<T, GetError> {
                self.ring.get_value::<T, C>(until_instant(deadline))
            }

            /// Takes what is there, at most `max` messages and never more than 1024, waiting while there is none. In order, at least one unless `max` is 0.
            ///
            /// Each is a `Result`: one that does not decode is an `Err` among the others. A message that came back from a lease comes alone.
            ///
            /// # Errors
            /// As [`get`](Self::get).
            ///
            /// # Panics
            /// If a `Deserialize` panics; the messages of the batch are then gone.
            ///
            /// # Crash safety
            /// Killed before `get_many` has returned, the caller leaves each message in the queue or loses it, the first ones first;
            /// [`take_losses`](Self::take_losses) counts them.
            pub fn get_many(&self, max: usize) -> Result<Vec<Result<T, GetError>>, GetError> {
                self.ring.get_values::<T, C>(max, Patience::Until(None))
            }

            /// As [`get_many`](Self::get_many) without waiting.
            ///
            /// # Errors
            /// As [`try_get`](Self::try_get).
            pub fn try_get_many(&self, max: usize) -> Result<Vec<Result<T, GetError>>, GetError> {
                self.ring.get_values::<T, C>(max, Patience::None)
            }

            /// As [`get_many`](Self::get_many), waiting at most `timeout` for the first message.
            ///
            /// # Errors
            /// As [`get_timeout`](Self::get_timeout).
            pub fn get_many_timeout(&self, max: usize, timeout: Duration) -> Result<Vec<Result<T, GetError>>, GetError> {
                self.ring.get_values::<T, C>(max, until(timeout))
            }

            /// The queue's dead letters: what was given out on lease as often as [`QueueBuilder::attempts`](crate::QueueBuilder::attempts) allows.
            ///
            /// # Errors
            /// Memory for the process's table of handles is used up.
            pub fn dead(&self) -> Result<DeadLetters<T, C>, Error> {
                Ok(DeadLetters { ring: self.ring.with_role(Role::Plain)?, _type: PhantomData })
            }

            /// Takes the first message on lease: it is delivered again, before all others, if this process dies or drops the lease
            /// before [`Lease::ack`].
            ///
            /// # Errors
            /// As [`get`](Self::get). At the end of a closed queue, leases that other processes have out may still come back: see
            /// [`unfinished`](Self::unfinished).
            ///
            /// # Examples
            /// ```
            /// let q = multiproc::Queue::<String>::bounded(10)?;
            /// q.put("job".into())?;
            /// let lease = q.lease()?;
            /// assert_eq!((lease.as_str(), lease.attempt()), ("job", 1));
            /// drop(lease); // not acknowledged: it comes again
            /// let lease = q.lease()?;
            /// assert_eq!(lease.attempt(), 2);
            /// assert_eq!(lease.ack(), "job");
            /// assert!(q.is_empty());
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn lease(&self) -> Result<Lease<T>, GetError> {
                Lease::take::<C>(&self.ring, Patience::Until(None))
            }

            /// As [`lease`](Self::lease) without waiting.
            ///
            /// # Errors
            /// As [`try_get`](Self::try_get).
            pub fn try_lease(&self) -> Result<Lease<T>, GetError> {
                Lease::take::<C>(&self.ring, Patience::None)
            }

            /// As [`lease`](Self::lease), waiting at most `timeout`.
            ///
            /// # Errors
            /// As [`get_timeout`](Self::get_timeout).
            pub fn lease_timeout(&self, timeout: Duration) -> Result<Lease<T>, GetError> {
                Lease::take::<C>(&self.ring, until(timeout))
            }

            /// Messages until the end of the queue. Each is a `Result`: one that does not decode is an `Err`, and the next call goes on.
            pub fn iter(&self) -> Iter<'_, T, C> {
                Iter { ring: &self.ring, ended: false, _type: PhantomData }
            }
        }

        impl<'a, T, C: Codec<T>> IntoIterator for &'a $Name<T, C> {
            type Item = Result<T, GetError>;
            type IntoIter = Iter<'a, T, C>;

            fn into_iter(self) -> Iter<'a, T, C> {
                self.iter()
            }
        }
    };
}

/// A queue for many putters and getters in any number of processes and threads, [`bounded`](Queue::bounded) or [`unbounded`](Queue::unbounded).
///
/// A handle is two words, cheap to clone, and travels in arguments, results and messages. Order is FIFO; returned leases come first. The
/// bound counts items; messages of more than 4 KiB lie in blocks of their own. Nothing is allocated until the first put.
///
/// A `Queue` may put and get, so while a process holds one the queue has a putter: for the end of the data to be seen when
/// the putters are gone, give out [`sender`](Queue::sender) and [`receiver`](Queue::receiver), or [`close`](Queue::close) it.
///
/// # Python
/// | Python | here |
/// |---|---|
/// | `Queue(maxsize)`, `Queue()` | [`bounded`](Queue::bounded), [`unbounded`](Queue::unbounded) |
/// | `SimpleQueue()` | the same; with time-outs, and `close` ends the loops of getters |
/// | `JoinableQueue()`, `task_done()`, `join()` | the same: [`lease`](Queue::lease), [`Lease::ack`], [`join`](Queue::join) |
/// | `qsize()`, `empty()`, `full()` | [`len`](Queue::len), [`is_empty`](Queue::is_empty), [`is_full`](Queue::is_full): exact at the moment they look, on every system. What has been put is counted when `put` returns, and `try_get` finds it |
/// | `join_thread()`, `cancel_join_thread()`, `close()` before them | not needed: there is no feeder thread and no private buffer. `put` has put when it returns, so a process may exit, or be killed, right after it without loss, and its exit waits for no reader |
///
/// # Crash safety
/// `kill -9` of anybody at any instruction: nobody hangs and nothing is corrupt. See [`put`](Queue::put), [`get`](Queue::get), [`lease`](Queue::lease).
///
/// # Examples
/// ```
/// use multiproc::{Process, Queue};
///
/// let jobs = Queue::<u64>::bounded(100)?;
/// let results = Queue::<u64>::bounded(100)?;
/// let worker = Process::spawn((jobs.receiver()?, results.sender()?), |jobs, results| {
///     for job in &jobs {
///         results.put(job.unwrap() * 2).unwrap();
///     }
/// })?;
/// for n in 1..=3 {
///     jobs.put(n)?;
/// }
/// jobs.close()?;
/// worker.join()?;
/// assert_eq!((results.get()?, results.get()?, results.get()?), (2, 4, 6));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "SimpleQueue")]
#[doc(alias = "JoinableQueue")]
#[doc(alias = "join_thread")]
#[doc(alias = "cancel_join_thread")]
pub struct Queue<T, C = Bincode> {
    pub(crate) ring: Ring,
    _type: Carries<T, C>,
}

/// The putting end of a queue.
///
/// When the last one is dropped or its process has died, and no [`Queue`] is left either, getters see the end after the last message.
pub struct Sender<T, C = Bincode> {
    pub(crate) ring: Ring,
    _type: Carries<T, C>,
}

/// The getting end of a queue.
///
/// When the last one is dropped or its process has died, and no [`Queue`] is left either, putters get [`PutError::is_disconnected`].
pub struct Receiver<T, C = Bincode> {
    pub(crate) ring: Ring,
    _type: Carries<T, C>,
}

handle!(Queue, Role::Both);
handle!(Sender, Role::Sender);
handle!(Receiver, Role::Receiver);
travels!(DeadLetters, Role::Plain);
putting!(Queue);
putting!(Sender);
getting!(Queue);
getting!(Receiver);

impl<T: 'static> Queue<T> {
    /// A queue of at most `capacity` items, 1 to 8,388,607.
    ///
    /// # Errors
    /// The capacity is out of range, or the arena is full.
    pub fn bounded(capacity: usize) -> Result<Queue<T>, Error> {
        Queue::bounded_in(Arena::of_the_tree()?, capacity)
    }

    /// A queue that grows with what waits, up to a limit of memory, and gives memory back when it is drained.
    ///
    /// The limit is half of what the shared memory of the tree may take (see `set_memory_limit` and `stats`), counted in bytes of encoded messages; and 8,388,607
    /// messages, or one for each 32 bytes of what the shared memory may take, if that is fewer. At the limit [`put`](Queue::put) waits, and [`is_full`](Queue::is_full) is true: so a producer that nobody keeps up with is slowed
    /// down before memory is gone. `Queue::builder().unbounded()` with [`byte_limit`](crate::QueueBuilder::byte_limit) and
    /// [`when_full`](crate::QueueBuilder::when_full) sets another limit, or has `put` fail there. If others have taken the rest of the memory, `put` fails before, with
    /// [`PutError::is_out_of_memory`]. Every error hands the message back.
    ///
    /// Messages lie in segments of 256 KiB, or less in a small arena, which are made as the queue grows. One that is drained is left with one of them.
    ///
    /// # Errors
    /// The arena is full.
    ///
    /// # Crash safety
    /// As a bounded queue; who is killed while the queue grows or shrinks leaves no memory behind.
    ///
    /// # Python
    /// `Queue()`, which has no bound of memory and a thread that buffers in each process that puts.
    ///
    /// # Examples
    /// ```
    /// use multiproc::{Queue, WhenFull};
    ///
    /// let q = Queue::<u64>::unbounded()?;
    /// q.put_many(0..100_000)?;
    /// assert_eq!((q.len(), q.is_full()), (100_000, false));
    ///
    /// let small = Queue::<u64>::builder().unbounded().byte_limit(1000).when_full(WhenFull::Fail).build()?;
    /// let e = small.put_many(0..).unwrap_err();
    /// assert_eq!((e.put(), e.error().is_full()), (125, true));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unbounded() -> Result<Queue<T>, Error> {
        Queue::builder().unbounded().build()
    }
}

impl<T: 'static, C: 'static> Queue<T, C> {
    /// As [`bounded`](Queue::bounded), with any codec: `Queue::<T, C>::with_codec(n)`.
    ///
    /// # Errors
    /// As [`bounded`](Queue::bounded).
    pub fn with_codec(capacity: usize) -> Result<Queue<T, C>, Error> {
        Queue::bounded_in(Arena::of_the_tree()?, capacity)
    }

    /// As [`bounded`](Queue::bounded), in a given arena.
    ///
    /// # Errors
    /// As [`bounded`](Queue::bounded).
    #[doc(hidden)]
    pub fn bounded_in(arena: &'static Arena, capacity: usize) -> Result<Queue<T, C>, Error> {
        Queue::<T, C>::builder().capacity(capacity).build_in(arena)
    }

    /// As [`bounded`](Queue::bounded), for messages of at most `max_message` bytes when encoded.
    ///
    /// # Errors
    /// As [`bounded`](Queue::bounded).
    pub fn with_max_message(capacity: usize, max_message: u64) -> Result<Queue<T, C>, Error> {
        Queue::<T, C>::builder().capacity(capacity).max_message(max_message).build()
    }

    pub(crate) fn create(arena: &'static Arena, bounds: Bounds) -> Result<Queue<T, C>, Error> {
        Ok(Queue { ring: Ring::create::<T, C>(arena, bounds)?, _type: PhantomData })
    }
}

impl<T, C> Queue<T, C> {
    /// A handle that may only put.
    ///
    /// # Errors
    /// Memory for the process's table of handles is used up.
    pub fn sender(&self) -> Result<Sender<T, C>, Error> {
        Ok(Sender { ring: self.ring.with_role(Role::Sender)?, _type: PhantomData })
    }

    /// A handle that may only get.
    ///
    /// # Errors
    /// Memory for the process's table of handles is used up.
    pub fn receiver(&self) -> Result<Receiver<T, C>, Error> {
        Ok(Receiver { ring: self.ring.with_role(Role::Receiver)?, _type: PhantomData })
    }
}

/// The two ends of a new queue of at most `capacity` items.
///
/// # Errors
/// As [`Queue::bounded`].
///
/// # Examples
/// ```
/// let (tx, rx) = multiproc::channel::<u8>(10)?;
/// tx.put(1)?;
/// drop(tx);
/// assert_eq!(rx.iter().collect::<Result<Vec<_>, _>>()?, [1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn channel<T: 'static>(capacity: usize) -> Result<(Sender<T>, Receiver<T>), Error> {
    let queue = Queue::<T>::bounded(capacity)?;
    Ok((queue.sender()?, queue.receiver()?))
}

/// Messages of a queue until its end: see [`Queue::iter`].
#[derive(Debug)]
pub struct Iter<'a, T, C = Bincode> {
    ring: &'a Ring,
    ended: bool,
    _type: PhantomData<fn() -> (T, C)>,
}

impl<T, C: Codec<T>> Iterator for Iter<'_, T, C> {
    type Item = Result<T, GetError>;

    fn next(&mut self) -> Option<Result<T, GetError>> {
        if self.ended {
            return None;
        }
        match self.ring.get_value::<T, C>(Patience::Until(None)) {
            Err(e) if e.is_end() => {
                self.ended = true;
                None
            }
            // Shared memory that refuses will refuse again.
            Err(e @ GetError::Shared(_)) => {
                self.ended = true;
                Some(Err(e))
            }
            other => Some(other),
        }
    }
}

impl<T, C: Codec<T>> std::iter::FusedIterator for Iter<'_, T, C> {}
