//! Messages that are taken now and decoded later, or never: [`Sealed`] and [`SealedLease`].
//!
//! For floors above that send different types through one queue: the beginning of the message says what the rest is, and so what decodes it. The
//! bytes lie where they came: in the block of a large message, or of a lease.

use crate::codec::{Codec, EncodeRef};
use crate::error::{GetError, PutError, PutFailed};
use crate::message::Arrival;
use crate::queue::{Queue, Receiver, Sender, until};
use crate::ring::cell::NO_RECEIVER;
use crate::ring::lease::Leased;
use crate::ring::{Patience, Ring};
use crate::view;
use multiproc_shm::scope::References;
use multiproc_shm::{Arena, Error};
use multiproc_sys::robust;
use std::time::Duration;

/// How long to wait for a sealed message.
#[derive(Clone, Copy, Debug)]
pub enum Within {
    /// Not at all.
    Now,
    /// So long.
    Time(Duration),
    /// For ever.
    Ever,
}

impl Within {
    fn patience(self) -> Patience {
        match self {
            Within::Now => Patience::None,
            Within::Time(time) => until(time),
            Within::Ever => Patience::Until(None),
        }
    }
}

/// A message that has been got and not decoded.
#[derive(Debug)]
pub struct Sealed(Arrival);

impl Sealed {
    /// Lends out the bytes, with the references that handles in them take from.
    ///
    /// # Errors
    /// The shared memory is corrupted.
    pub fn open<R>(&self, look: impl FnOnce(&[u8], &References) -> R) -> Result<R, Error> {
        self.0.look(look)
    }
}

/// A message on lease that has not been decoded: see [`Lease`](crate::Lease).
#[derive(Debug)]
#[must_use = "a lease that is dropped is delivered again"]
pub struct SealedLease {
    ring: Ring,
    leased: Option<Leased>,
    references: References,
    life: u32,
}

impl SealedLease {
    /// As [`Sealed::open`].
    ///
    /// # Errors
    /// The shared memory is corrupted.
    pub fn open<R>(&self, look: impl FnOnce(&[u8], &References) -> R) -> Result<R, Error> {
        let Some(leased) = &self.leased else { return Err(Error::Corrupted(&"a lease without a message")) };
        view::with_payload(self.arena(), leased.block, |bytes| look(bytes, &self.references))
    }

    /// As [`Lease::attempt`](crate::Lease::attempt).
    pub fn attempt(&self) -> u32 {
        self.leased.as_ref().map_or(1, |leased| leased.attempt)
    }

    /// As [`Lease::ack`](crate::Lease::ack).
    pub fn ack(mut self) {
        if let Some(leased) = self.leased.take().filter(|_| robust::life() == self.life) {
            // Fails only in corrupted memory, of which the next operation tells.
            let _ = self.ring.acknowledge(&leased);
        }
    }

    fn arena(&self) -> &'static Arena {
        self.ring.arena()
    }
}

impl Drop for SealedLease {
    fn drop(&mut self) {
        // In a process made by fork() the lease is the parent's.
        if robust::life() == self.life
            && let Some(leased) = self.leased.take()
        {
            let _ = self.ring.give_back(&leased);
        }
    }
}

impl<T, C> Receiver<T, C> {
    /// As [`get`](Receiver::get), without decoding.
    ///
    /// # Errors
    /// As [`get`](Receiver::get).
    #[doc(hidden)]
    pub fn get_sealed(&self, within: Within) -> Result<Sealed, GetError> {
        let ring = &self.ring;
        let _hand = ring.in_hand();
        let mut arrival = Arrival::new(ring.arena());
        ring.get(ring.arena().who()?, &mut arrival, within.patience(), false)?;
        Ok(Sealed(arrival))
    }

    /// As [`lease`](Receiver::lease), without decoding.
    ///
    /// # Errors
    /// As [`lease`](Receiver::lease).
    #[doc(hidden)]
    pub fn lease_sealed(&self, within: Within) -> Result<SealedLease, GetError> {
        let (leased, references) = self.ring.lease(within.patience())?;
        let lease = SealedLease { ring: self.ring.clone(), leased: Some(leased), references, life: robust::life() };
        drop(self.ring.in_hand());
        Ok(lease)
    }
}

impl<T, C> Receiver<T, C> {
    /// As [`get_sealed`](Receiver::get_sealed), and gives up when `stop` is true: see [`poke`](Receiver::poke).
    ///
    /// # Errors
    /// As [`get`](Receiver::get); [`GetError::WouldBlock`] when it has given up.
    #[doc(hidden)]
    pub fn get_sealed_unless(&self, within: Within, stop: impl Fn() -> bool) -> Result<Sealed, GetError> {
        let patience = within.patience();
        loop {
            match self.get_sealed(Within::Now) {
                Err(GetError::Empty | GetError::WouldBlock) => {}
                got => return got,
            }
            let Patience::Until(deadline) = patience else { return Err(GetError::Empty) };
            if stop() {
                return Err(GetError::WouldBlock);
            }
            self.ring.await_message(deadline, &stop)?;
        }
    }

    /// Runs `change`, which makes true what somebody in this process looks at in [`get_sealed_unless`](Receiver::get_sealed_unless), and wakes him. Waits for nobody.
    ///
    /// # Errors
    /// Only in a process that was made by a plain `fork()`.
    #[doc(hidden)]
    pub fn poke(&self, change: impl FnOnce()) -> Result<(), Error> {
        let who = self.ring.arena().who()?;
        // All: a watcher would keep what is meant for another.
        self.ring.cell.produced.cw.commit_and_kick_all(who.thread, change);
        Ok(())
    }

    /// How many messages have been put so far, modulo 2^24.
    #[doc(hidden)]
    pub fn put_so_far(&self) -> u32 {
        self.ring.tail().seq()
    }

    /// How many messages have been got so far, modulo 2^24.
    #[doc(hidden)]
    pub fn got_so_far(&self) -> u32 {
        self.ring.head().seq()
    }
}

impl<T, C> Sender<T, C> {
    /// Whether nobody is left who could get.
    #[doc(hidden)]
    pub fn is_disconnected(&self) -> bool {
        self.ring.ended() & NO_RECEIVER != 0
    }
}

impl<T, C: Codec<T>> Sender<T, C> {
    /// As [`put_ref`](Sender::put_ref), without waiting for room.
    ///
    /// # Errors
    /// As [`try_put`](Sender::try_put).
    #[doc(hidden)]
    pub fn try_put_ref<B: ?Sized>(&self, value: &B) -> Result<(), PutError<()>>
    where
        C: EncodeRef<B, T>,
    {
        self.ring.put_value::<B, T, C>(value, Patience::None).map_err(|why| PutError::new((), why))
    }
}

impl<T, C: Codec<T>> Queue<T, C> {
    /// As [`put_ref`](Queue::put_ref), without waiting for room; another process that is putting is waited for.
    ///
    /// # Errors
    /// As [`try_put`](Queue::try_put).
    #[doc(hidden)]
    pub fn try_put_ref<B: ?Sized>(&self, value: &B) -> Result<(), PutError<()>>
    where
        C: EncodeRef<B, T>,
    {
        loop {
            match self.ring.put_value::<B, T, C>(value, Patience::None) {
                Err(PutFailed::WouldBlock) => std::thread::yield_now(),
                put => return put.map_err(|why| PutError::new((), why)),
            }
        }
    }
}

impl Arrival {
    fn look<R>(&self, look: impl FnOnce(&[u8], &References) -> R) -> Result<R, Error> {
        match self.block() {
            None => Ok(look(self.payload(), &self.references)),
            Some(block) => view::with_payload(self.arena(), block, |bytes| look(bytes, &self.references)),
        }
    }
}
