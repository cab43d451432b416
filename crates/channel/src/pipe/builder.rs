//! Making pipes: [`pipe`], [`one_way`], and [`PipeBuilder`] for what is not usual.

#![allow(clippy::type_complexity, reason = "functions that return both ends of a pipe")]

use super::cell::PipeCell;
use super::connection::{Connection, PipeReceiver, PipeSender};
use super::kind::{PIPE, ROLES};
use super::local::Local;
use crate::codec::Bincode;
use crate::queue::DEFAULT_MAX_MESSAGE;
use multiproc_shm::{Arena, Error, Role};
use multiproc_sys::age;
use std::any::TypeId;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of each way's ring: 64 KiB, as a pipe of the kernel.
const DEFAULT_RING: u64 = 64 << 10;
pub(super) const MIN_RING: u64 = 16 << 10;
pub(super) const MAX_RING: u64 = 1 << 30;

/// What an end carries in one direction: the type and its codec, as a number. Never 0, which stands for nothing.
pub(super) fn carries<T: 'static, C: 'static>() -> u64 {
    let mut hasher = DefaultHasher::new();
    (TypeId::of::<T>(), TypeId::of::<C>()).hash(&mut hasher);
    hasher.finish() | 1
}

/// What both ends of a pipe hash to, whichever is asked.
pub(super) fn type_hash(ways: [u64; 2]) -> u64 {
    ways[0].wrapping_add(ways[1])
}

/// A new pipe between two ends: `a` sends `A` and receives `B`, `b` sends `B` and receives `A`.
///
/// Either end, or both, may go to other processes, in arguments and messages; the process that made them need not keep any. An end is
/// used by one process at a time, by any number of its threads. Each way holds 64 KiB of small messages; one of more than 4 KiB lies in
/// memory of its own, up to 1 GiB. [`PipeBuilder`] makes others.
///
/// # Errors
/// The arena is full.
///
/// # Python
/// `multiprocessing.Pipe()`. [`one_way`] is `Pipe(duplex=False)`.
///
/// # Examples
/// ```
/// use multiproc::{Connection, Process, pipe};
///
/// let (here, there) = pipe::<u64, String>()?;
/// let worker = Process::spawn((there,), |parent: Connection<String, u64>| {
///     for n in &parent {
///         parent.send(format!("got {}", n.unwrap())).unwrap();
///     }
/// })?;
/// here.send(7)?;
/// assert_eq!(here.recv()?, "got 7");
/// drop(here); // the worker sees the end
/// worker.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Pipe")]
pub fn pipe<A: 'static, B: 'static>() -> Result<(Connection<A, B>, Connection<B, A>), Error> {
    PipeBuilder::new().pipe()
}

/// A new pipe in one direction: the end that sends, and the end that receives.
///
/// As [`pipe`] in everything else.
///
/// # Errors
/// The arena is full.
///
/// # Python
/// `multiprocessing.Pipe(duplex=False)`, which returns them in the other order.
///
/// # Examples
/// ```
/// let (tx, rx) = multiproc::one_way::<u32>()?;
/// tx.send(1)?;
/// tx.send(2)?;
/// drop(tx);
/// assert_eq!(rx.iter().collect::<Result<Vec<_>, _>>()?, [1, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Pipe")]
pub fn one_way<T: 'static>() -> Result<(PipeSender<T>, PipeReceiver<T>), Error> {
    PipeBuilder::new().one_way()
}

/// Makes pipes with another codec, with larger or smaller rings, for larger or smaller messages.
///
/// # Examples
/// ```
/// use multiproc::{PipeBuilder, Raw};
///
/// let (tx, rx) = PipeBuilder::new().codec::<Raw>().max_message(10).one_way::<Vec<u8>>()?;
/// tx.send_ref(b"ten bytes!".as_slice())?;
/// assert!(tx.send(vec![0; 11]).unwrap_err().is_too_large());
/// assert_eq!(rx.recv()?, b"ten bytes!");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct PipeBuilder<C = Bincode> {
    ring: u64,
    max_message: u64,
    _codec: PhantomData<fn() -> C>,
}

impl PipeBuilder {
    /// As [`pipe`] and [`one_way`] make them.
    pub fn new() -> PipeBuilder {
        PipeBuilder { ring: DEFAULT_RING, max_message: DEFAULT_MAX_MESSAGE, _codec: PhantomData }
    }
}

impl Default for PipeBuilder {
    fn default() -> PipeBuilder {
        PipeBuilder::new()
    }
}

impl<C: 'static> PipeBuilder<C> {
    /// Values travel through this codec.
    pub fn codec<D: 'static>(self) -> PipeBuilder<D> {
        PipeBuilder { ring: self.ring, max_message: self.max_message, _codec: PhantomData }
    }

    /// A message may have this many bytes when encoded; 1 GiB if nothing is said.
    pub fn max_message(self, bytes: u64) -> PipeBuilder<C> {
        PipeBuilder { max_message: bytes, ..self }
    }

    /// How many bytes of small messages each way holds, with 8 bytes for each message: 16 KiB to 1 GiB, rounded up to a power of two; 64 KiB if
    /// nothing is said. Memory is used as it is first needed.
    pub fn ring_bytes(self, bytes: u64) -> PipeBuilder<C> {
        PipeBuilder { ring: bytes, ..self }
    }

    /// Makes a pipe for both directions.
    ///
    /// # Errors
    /// The ring's size is out of its range, or the arena is full.
    pub fn pipe<A: 'static, B: 'static>(&self) -> Result<(Connection<A, B, C>, Connection<B, A, C>), Error> {
        self.pipe_in(Arena::of_the_tree()?)
    }

    /// Makes a pipe in one direction.
    ///
    /// # Errors
    /// The ring's size is out of its range, or the arena is full.
    pub fn one_way<T: 'static>(&self) -> Result<(PipeSender<T, C>, PipeReceiver<T, C>), Error> {
        self.one_way_in(Arena::of_the_tree()?)
    }

    /// As [`pipe`](PipeBuilder::pipe), in a given arena.
    ///
    /// # Errors
    /// As [`pipe`](PipeBuilder::pipe).
    #[doc(hidden)]
    pub fn pipe_in<A: 'static, B: 'static>(
        &self,
        arena: &'static Arena,
    ) -> Result<(Connection<A, B, C>, Connection<B, A, C>), Error> {
        let [a, b] = self.make(arena, [carries::<A, C>(), carries::<B, C>()])?;
        Ok((Connection::new(a), Connection::new(b)))
    }

    /// As [`one_way`](PipeBuilder::one_way), in a given arena.
    ///
    /// # Errors
    /// As [`one_way`](PipeBuilder::one_way).
    #[doc(hidden)]
    pub fn one_way_in<T: 'static>(&self, arena: &'static Arena) -> Result<(PipeSender<T, C>, PipeReceiver<T, C>), Error> {
        let [tx, rx] = self.make(arena, [carries::<T, C>(), 0])?;
        Ok((PipeSender::new(tx), PipeReceiver::new(rx)))
    }

    fn make(&self, arena: &'static Arena, ways: [u64; 2]) -> Result<[Arc<Local>; 2], Error> {
        if !(MIN_RING..=MAX_RING).contains(&self.ring) {
            return Err(Error::Invalid(&"a pipe's ring has 16 KiB to 1 GiB"));
        }
        let size = size_of::<PipeCell>() as u64;
        let held = arena.new_object(&PIPE, type_hash(ways), size, Role::Both, |object| {
            let cell = PipeCell::of(arena, object)?;
            // Relaxed: the object is published later.
            for (side, carries) in cell.sides.iter().zip(ways) {
                side.end.carries.store(carries, Ordering::Relaxed);
                side.end.max_message.store(self.max_message, Ordering::Relaxed);
                let ring = self.ring.next_power_of_two();
                side.end.ring_bytes.store(ring, Ordering::Relaxed);
                // The way from this end begins here, at a lap's beginning, and so does that to it. A position never wraps: of all that a pipe could carry in
                // centuries, half has been.
                let first = age::first(61 - ring.trailing_zeros()) * ring;
                side.sent.tail.store(first, Ordering::Relaxed);
                side.received.head.store(first, Ordering::Relaxed);
            }
            Ok(())
        })?;
        let [a, b] = ROLES.map(|role| held.with_role(role).and_then(Local::of));
        Ok([a?, b?])
    }
}
