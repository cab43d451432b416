//! Two processes that take turns by one word and futex(2): each sleeps until the word says that it is its turn.
#![allow(unsafe_code)]

use crate::effort::Effort;
use crate::futex;
use crate::machine::pin;
use crate::row::Measured;
use crate::segment::{Segment, Shared};
use crate::worker::{Worker, command};
use std::error::Error;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

pub(super) const PARTNER: &str = "futex-partner";
/// Whose turn it is comes again after this long, so that the other is asleep and has to be woken.
pub const HOLD: Duration = Duration::from_micros(20);

/// Runs for [`HOLD`].
pub fn hold() {
    let start = Instant::now();
    while start.elapsed() < HOLD {
        std::hint::spin_loop();
    }
}

/// 0 or 1: whose turn it is.
#[derive(Debug)]
#[repr(C)]
pub struct Turn(AtomicU32);

// SAFETY: an integer, for which zero is valid.
unsafe impl Shared for Turn {}

impl Turn {
    fn take(&self, me: u32) {
        // Pairs with the release of the other.
        while self.0.load(Acquire) != me {
            futex::wait(&self.0, 1 - me);
        }
    }

    fn pass(&self, me: u32) {
        // Pairs with the acquire of the other.
        self.0.store(1 - me, Release);
        futex::wake_one(&self.0);
    }
}

/// Microseconds for the turn to go to another process and come back, each asleep until it comes; what [`hold`] takes is not counted.
pub fn round_trip(effort: Effort) -> Measured {
    let turn = Segment::<Turn>::new()?;
    let _partner = Worker::start(command(PARTNER)?.arg(turn.path()))?;
    let count = effort.count(20_000);
    let turn: &Turn = &turn;
    // A thread of its own, so that the bench itself stays where it is.
    std::thread::scope(|s| {
        let timed = s.spawn(|| -> std::io::Result<f64> {
            pin(0)?;
            let play = |count: u64| {
                for _ in 0..count {
                    turn.take(0);
                    hold();
                    turn.pass(0);
                }
                turn.take(0);
            };
            // Begins when the partner answers.
            play(1 + count / 10);
            let start = Instant::now();
            play(count);
            Ok(per_round(start.elapsed(), count, 2))
        });
        Ok(timed.join().map_err(|_| "the timer panicked")??)
    })
}

/// Microseconds for each of so many rounds, without the times of [`hold`] in each.
pub fn per_round(elapsed: Duration, count: u64, holds: u32) -> f64 {
    let each = elapsed.as_secs_f64() / count as f64 - f64::from(holds) * HOLD.as_secs_f64();
    each * 1e6
}

pub(super) fn answer(turn: &str) -> Result<(), Box<dyn Error>> {
    let turn = Segment::<Turn>::open(turn)?;
    pin(1)?;
    loop {
        turn.take(1);
        hold();
        turn.pass(1);
    }
}
