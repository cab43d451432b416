//! [`QueueBuilder`]: a queue with bounds of its own.

use crate::codec::Bincode;
use crate::queue::{DEFAULT_MAX_MESSAGE, Queue};
use crate::ring::Bounds;
use multiproc_shm::{Arena, Error};
use std::fmt;
use std::marker::PhantomData;

/// Items of a queue whose builder is not told.
const DEFAULT_CAPACITY: usize = 1024;

/// What putting does when a bound of the queue is reached: see [`QueueBuilder::when_full`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// It waits for room: getters set the pace.
    #[default]
    Wait,
    /// It fails at once with [`PutError::is_full`](crate::PutError::is_full), as [`try_put`](Queue::try_put) does, and hands the message back.
    Fail,
}

/// How a queue is bounded: see [`Queue::builder`].
pub struct QueueBuilder<T, C = Bincode> {
    bounds: Bounds,
    _type: PhantomData<fn() -> (T, C)>,
}

impl<T: 'static, C: 'static> Queue<T, C> {
    /// A queue to be built: `Queue::<T>::builder()`, or with a codec `Queue::<T, C>::builder()`.
    ///
    /// # Examples
    /// ```
    /// use multiproc::{Queue, Raw};
    ///
    /// let q = Queue::<Vec<u8>, Raw>::builder().capacity(1000).byte_limit(1 << 20).attempts(3).build()?;
    /// q.put(vec![0; 1 << 20])?;
    /// assert!(q.is_full());
    /// assert!(q.try_put(vec![0]).unwrap_err().is_full());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder() -> QueueBuilder<T, C> {
        let bounds = Bounds {
            capacity: Some(DEFAULT_CAPACITY),
            fails_when_full: false,
            max_message: DEFAULT_MAX_MESSAGE,
            max_bytes: None,
            attempts: 0,
        };
        QueueBuilder { bounds, _type: PhantomData }
    }
}

impl<T: 'static, C: 'static> QueueBuilder<T, C> {
    /// How many items may wait, 1 to 8,388,607. 1024 unless it is called.
    #[doc(alias = "maxsize")]
    pub fn capacity(mut self, items: usize) -> Self {
        self.bounds.capacity = Some(items);
        self
    }

    /// No bound of items but what memory can bear: see [`Queue::unbounded`]. Of this and [`capacity`](QueueBuilder::capacity) the last call counts.
    pub fn unbounded(mut self) -> Self {
        self.bounds.capacity = None;
        self
    }

    /// What [`put`](Queue::put) does when a bound is reached; [`WhenFull::Wait`] unless it is called.
    pub fn when_full(mut self, policy: WhenFull) -> Self {
        self.bounds.fails_when_full = policy == WhenFull::Fail;
        self
    }

    /// How many bytes of encoded messages may wait, 1 to 2^39; `put` waits for room as it does for items. Unless it is called, any number, or half of what the
    /// arena may take if the queue is [`unbounded`](QueueBuilder::unbounded).
    ///
    /// A message that is larger by itself is [too large](crate::PutError::is_too_large). Each put and get then costs a few nanoseconds more.
    #[doc(alias = "max_bytes")]
    pub fn byte_limit(mut self, bytes: u64) -> Self {
        self.bounds.max_bytes = Some(bytes);
        self
    }

    /// How many bytes an encoded message may have. 1 GiB unless it is called; at most 8 GiB less what the arena needs for itself.
    pub fn max_message(mut self, bytes: u64) -> Self {
        self.bounds.max_message = bytes;
        self
    }

    /// How often a message is given out on lease before it is dead, at least once: then it is delivered no more and waits in
    /// [`Queue::dead`]. Any number of times unless it is called.
    pub fn attempts(mut self, deliveries: u32) -> Self {
        self.bounds.attempts = deliveries.max(1);
        self
    }

    /// The queue.
    ///
    /// # Errors
    /// A bound is out of range, or the arena is full.
    pub fn build(self) -> Result<Queue<T, C>, Error> {
        self.build_in(Arena::of_the_tree()?)
    }

    /// As [`build`](QueueBuilder::build), in a given arena.
    ///
    /// # Errors
    /// As [`build`](QueueBuilder::build).
    #[doc(hidden)]
    pub fn build_in(self, arena: &'static Arena) -> Result<Queue<T, C>, Error> {
        Queue::create(arena, self.bounds)
    }
}

impl<T, C> fmt::Debug for QueueBuilder<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueBuilder").field("bounds", &self.bounds).finish()
    }
}
