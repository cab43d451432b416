//! Messages per second in steady state: consumers count, the bench looks at the clock.

use crate::{
    effort::Effort,
    row::{Measured, median},
    segment::Shared,
};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread::sleep,
    time::{Duration, Instant},
};

/// Messages received, one counter for each consumer, each on a cache line of its own.
///
/// In a [`Segment`](crate::segment::Segment) it is shared between processes.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Meter {
    counters: [Counter; 4],
}

#[repr(C, align(128))]
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Meter {
    /// Sets the counter of one consumer, which alone writes it.
    // Relaxed: a statistic that orders nothing else.
    #[inline]
    pub fn set(&self, consumer: usize, received: u64) {
        self.counters[consumer].0.store(received, Relaxed);
    }

    /// Messages received by all consumers.
    pub fn total(&self) -> u64 {
        self.counters.iter().map(|c| c.0.load(Relaxed)).sum()
    }
}

// SAFETY: only atomics, for which all bytes zero is a value and any byte pattern is valid.
#[allow(unsafe_code)]
unsafe impl Shared for Meter {}

/// A warm-up followed by windows of equal length.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// Time between the first message and the first window.
    pub warm_up: Duration,
    /// Length of a window.
    pub each: Duration,
    /// Number of windows.
    pub count: usize,
}

impl Windows {
    /// Nine windows of 100 ms after 100 ms of warm-up, scaled by `effort`.
    pub fn new(effort: Effort) -> Windows {
        Windows { warm_up: effort.time(Duration::from_millis(100)), each: effort.time(Duration::from_millis(100)), count: 9 }
    }

    /// The median rate of the windows, once the first message has arrived.
    ///
    /// # Errors
    /// No message arrives within ten seconds, or in the middle window.
    pub fn rate(&self, meter: &Meter) -> Measured {
        let start = Instant::now();
        while meter.total() == 0 {
            if start.elapsed() > Duration::from_secs(10) {
                return Err("no message within ten seconds".into());
            }
            sleep(Duration::from_millis(1));
        }
        sleep(self.warm_up);
        let mut rates = Vec::with_capacity(self.count);
        let (mut seen, mut at) = (meter.total(), Instant::now());
        for _ in 0..self.count {
            sleep(self.each);
            let (n, now) = (meter.total(), Instant::now());
            rates.push((n - seen) as f64 / (now - at).as_secs_f64());
            (seen, at) = (n, now);
        }
        median(&rates).filter(|rate| *rate > 0.0).ok_or_else(|| "the messages stopped".into())
    }
}
