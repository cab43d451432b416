//! `join` of a queue's handles: waiting until everything that was put is finished.

use crate::error::JoinError;
use crate::queue::{Queue, Receiver, Sender};
use multiproc_sys::clock::Deadline;
use std::time::{Duration, Instant};

macro_rules! joining {
    ($($Name:ident)*) => { $(
        impl<T, C> $Name<T, C> {
            /// Waits until everything that has been put is finished: taken by [`get`](Queue::get), or leased and [acknowledged](crate::Lease::ack). Returns at
            /// once when nothing is unfinished. As long as others put, there may be no such moment.
            ///
            /// A lease that is dropped, or whose process dies, comes back and is waited for until somebody has acknowledged it; one that is
            /// [dead](Queue::dead) is not. What a plain `get` has taken is done, whatever becomes of it. Who holds a lease itself waits for itself.
            /// [`unfinished`](Self::unfinished) tells without waiting. Sleeps until all is finished; an idle joiner is not woken before.
            ///
            /// # Errors
            /// [`JoinError::Disconnected`] when something is unfinished and nobody is left who could get it, which a holder of a [`Queue`] or a [`Receiver`]
            /// never sees.
            ///
            /// # Crash safety
            /// Whoever dies, with a lease, in `ack` or in `join`: joiners go on when everything is finished, and not before. A killed joiner
            /// swallows nothing. [`take_losses`](Self::take_losses) counts what died in `get`.
            ///
            /// # Python
            /// `JoinableQueue.join()`, with [`Lease::ack`](crate::Lease::ack) for `task_done()`: it cannot be called too often, and if it is forgotten the message comes again. Any
            /// queue can be joined.
            ///
            /// # Examples
            /// ```
            /// use multiproc::{Process, Queue, Receiver};
            ///
            /// let q = Queue::<u64>::bounded(100)?;
            /// let worker = Process::spawn((q.receiver()?,), |jobs: Receiver<u64>| {
            ///     let mut sum = 0;
            ///     while let Ok(job) = jobs.lease() {
            ///         sum += *job;
            ///         job.ack();
            ///     }
            ///     sum
            /// })?;
            /// for n in 1..=10 {
            ///     q.put(n)?;
            /// }
            /// q.join()?;
            /// assert_eq!(q.unfinished(), 0);
            /// q.close()?;
            /// assert_eq!(worker.join()?, 55);
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            #[doc(alias = "JoinableQueue")]
            pub fn join(&self) -> Result<(), JoinError> {
                self.ring.join(None)
            }

            /// As [`join`](Self::join), waiting at most `timeout`.
            ///
            /// # Errors
            /// [`JoinError::TimedOut`], never early, and as [`join`](Self::join).
            pub fn join_timeout(&self, timeout: Duration) -> Result<(), JoinError> {
                self.ring.join(Deadline::after(timeout))
            }

            /// As [`join`](Self::join), waiting at most until `deadline`.
            ///
            /// # Errors
            /// [`JoinError::TimedOut`], never early, and as [`join`](Self::join).
            pub fn join_deadline(&self, deadline: Instant) -> Result<(), JoinError> {
                self.ring.join(Deadline::at(deadline))
            }
        }
    )* };
}

joining!(Queue Sender Receiver);
