//! [`Lease`]: a message that comes back unless it is acknowledged.

use crate::codec::Codec;
use crate::error::GetError;
use crate::message;
use crate::ring::lease::Leased;
use crate::ring::{Patience, Ring};
use multiproc_shm::scope;
use multiproc_sys::robust;
use std::fmt;
use std::ops::Deref;

/// A message on lease: see [`Queue::lease`](crate::Queue::lease). Derefs to the message.
///
/// A lease belongs to the process, not to the thread: it may be sent to another thread. Forgetting it keeps the message until the
/// process ends.
///
/// # Crash safety
/// If the process dies before [`ack`](Lease::ack), the message is delivered again, first, with `attempt` one higher. If it dies in `ack`,
/// it is acknowledged or it is not.
#[must_use = "a lease that is dropped is delivered again"]
pub struct Lease<T> {
    ring: Ring,
    leased: Option<Leased>,
    value: Option<T>,
    life: u32,
}

impl<T> Lease<T> {
    pub(crate) fn take<C: Codec<T>>(ring: &Ring, patience: Patience) -> Result<Lease<T>, GetError> {
        let (leased, references) = ring.lease(patience)?;
        // Made first, so that a message whose `Deserialize` panics goes back.
        let block = leased.block;
        let mut lease = Lease { ring: ring.clone(), leased: Some(leased), value: None, life: robust::life() };
        drop(ring.in_hand());
        match message::open_block::<T, C>(ring.arena(), block, &references).map_err(GetError::from) {
            Ok(value) => {
                lease.value = Some(value);
                Ok(lease)
            }
            Err(e) => {
                // It would not decode the next time either.
                lease.leased.take().map_or(Ok(()), |leased| ring.acknowledge(&leased))?;
                Err(e)
            }
        }
    }

    /// Done: the message is not delivered again.
    #[doc(alias = "task_done")]
    pub fn ack(mut self) -> T {
        if let Some(leased) = self.leased.take().filter(|_| robust::life() == self.life) {
            // Fails only in corrupted memory, of which the next operation tells.
            let _ = self.ring.acknowledge(&leased);
        }
        self.value.take().expect("a lease has its value until it is acknowledged")
    }

    /// Gives the message back at once, to be delivered again before all others. The same as dropping the lease.
    pub fn requeue(self) {}

    /// The how-manieth delivery of the message this is; the first is 1. A death at the moment of delivery may count one too many.
    pub fn attempt(&self) -> u32 {
        self.leased.as_ref().map_or(1, |l| l.attempt)
    }
}

impl<T> Deref for Lease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("a lease has its value until it is acknowledged")
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        // In a process made by fork() the lease is the parent's.
        if robust::life() != self.life {
            return;
        }
        // What moves with the message goes first: the next holder decodes it anew.
        scope::returning(|| self.value = None);
        if let Some(leased) = self.leased.take() {
            let _ = self.ring.give_back(&leased);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("message", &self.value).field("attempt", &self.attempt()).finish()
    }
}
