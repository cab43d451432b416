//! Processes on a bare ring for one sender and one receiver: raw bytes, no locks, no sleeping; and two words that are passed to and fro.
//!
//! A process killed inside stalls the other for ever, and one that waits keeps its cpu busy: that is what a pipe has in addition.
//!
//! | word | values | written by | paired with |
//! |---|---|---|---|
//! | `tail` | records ever put | the sender | its release with the receiver's acquire |
//! | `head` | records ever got | the receiver | its release with the sender's acquire |
//! | `there`, `back` | number of the last ball | each by one process | release and acquire of the two |
#![allow(unsafe_code)]

use crate::{
    effort::Effort,
    machine::pin,
    row::Measured,
    segment::{Segment, Shared},
    windows::{Meter, Windows},
    worker::{Worker, command},
};
use std::{
    cell::UnsafeCell,
    error::Error,
    hint::{black_box, spin_loop},
    ptr,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
    time::Instant,
};

pub(super) const PRODUCER: &str = "bare_spsc_producer";
pub(super) const CONSUMER: &str = "bare_spsc_consumer";
pub(super) const PARTNER: &str = "bare_partner";

const RECORD: usize = 64;
/// 64 KiB, as a pipe's ring.
const RECORDS: u64 = 1024;

/// All zero is an empty one.
#[repr(C)]
#[derive(Debug)]
struct Spsc {
    tail: Position,
    head: Position,
    records: Records,
}

#[repr(C, align(128))]
#[derive(Debug)]
struct Position(AtomicU64);

#[repr(C, align(128))]
#[derive(Debug)]
struct Records(UnsafeCell<[[u8; RECORD]; RECORDS as usize]>);

// SAFETY: records in [head, tail) are read only by the receiver, all others written only by the sender.
unsafe impl Sync for Records {}

// SAFETY: integers and bytes, valid when zero; who may touch which is said above.
unsafe impl Shared for Spsc {}

impl Records {
    fn at(&self, n: u64) -> *mut u8 {
        // SAFETY: below RECORDS.
        unsafe { self.0.get().cast::<[u8; RECORD]>().add((n % RECORDS) as usize) }.cast()
    }
}

/// The two words of ping and pong.
#[repr(C)]
#[derive(Debug)]
struct Words {
    there: Position,
    back: Position,
}

// SAFETY: atomics.
unsafe impl Shared for Words {}

/// Messages of 64 bytes per second from one process to the other.
pub fn rate(windows: &Windows) -> Measured {
    let ring = Segment::<Spsc>::new()?;
    let meter = Segment::<Meter>::new()?;
    let _consumer = Worker::start(command(CONSUMER)?.args([ring.path(), meter.path()]))?;
    let _producer = Worker::start(command(PRODUCER)?.arg(ring.path()))?;
    windows.rate(&meter)
}

pub(super) fn produce(ring: &str) -> Result<(), Box<dyn Error>> {
    let ring = Segment::<Spsc>::open(ring)?;
    pin(1)?;
    let payload = [7; RECORD];
    let mut head = 0;
    for tail in 0.. {
        // The other side's position is looked at only when what was seen there last looks full.
        while tail - head == RECORDS {
            head = ring.head.0.load(Acquire);
            spin_loop();
        }
        let from: &[u8; RECORD] = black_box(&payload);
        // SAFETY: the record is free, and the sender's until the tail passes it.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), ring.records.at(tail), RECORD) };
        ring.tail.0.store(tail + 1, Release);
    }
    Ok(())
}

pub(super) fn consume(ring: &str, meter: &str) -> Result<(), Box<dyn Error>> {
    let ring = Segment::<Spsc>::open(ring)?;
    let meter = Segment::<Meter>::open(meter)?;
    pin(0)?;
    let mut buffer = [0; RECORD];
    let mut tail = 0;
    for head in 0.. {
        while head == tail {
            tail = ring.tail.0.load(Acquire);
            spin_loop();
        }
        // SAFETY: the record is filled, and the receiver's until the head passes it.
        unsafe { ptr::copy_nonoverlapping(ring.records.at(head), buffer.as_mut_ptr(), RECORD) };
        ring.head.0.store(head + 1, Release);
        black_box(&buffer);
        meter.set(0, head + 1);
    }
    Ok(())
}

/// Nanoseconds for a word to go to another process and one to come back.
pub fn round_trip(effort: Effort) -> Measured {
    let words = Segment::<Words>::new()?;
    let _partner = Worker::start(command(PARTNER)?.arg(words.path()))?;
    // A thread of its own, so that the bench itself stays where it is.
    let count = effort.count(200_000);
    let words: &Words = &words;
    std::thread::scope(|s| {
        let timed = s.spawn(|| -> std::io::Result<f64> {
            pin(0)?;
            let play = |from: u64, to: u64| {
                for n in from..to {
                    words.there.0.store(n, Release);
                    while words.back.0.load(Acquire) != n {
                        spin_loop();
                    }
                }
            };
            // Begins when the partner answers.
            play(1, 1 + count / 10);
            let start = Instant::now();
            play(1 + count / 10, 1 + count / 10 + count);
            Ok(start.elapsed().as_nanos() as f64 / count as f64)
        });
        Ok(timed.join().map_err(|_| "the timer panicked")??)
    })
}

pub(super) fn answer(words: &str) -> Result<(), Box<dyn Error>> {
    let words = Segment::<Words>::open(words)?;
    pin(1)?;
    let mut last = 0;
    loop {
        let now = words.there.0.load(Acquire);
        if now != last {
            words.back.0.store(now, Release);
            last = now;
        }
        spin_loop();
    }
}
