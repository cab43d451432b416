//! The bare ring: how fast two locks and a byte ring are without serde, handles or crash safety.
//!
//! Producers take one lock, consumers the other. Whoever finds the ring full or empty keeps his lock
//! and sleeps on the wait word of his side: so each side has at most one sleeper (the leader), and
//! the others queue on its lock. A process killed inside stalls the ring; that is what our queue has
//! in addition.
//!
//! | word | values | written by | paired with |
//! |---|---|---|---|
//! | `Mutex::word` | 0 free, 1 held, 2 held and somebody may sleep | who takes or frees it | acquire of the next owner with the release of the last |
//! | `tail` | bytes ever put | owner of `producers` | its release with the consumer's acquire |
//! | `head` | bytes ever got | owner of `consumers` | its release with the producer's acquire |
//! | `Side::asleep` | 0 nobody, 1 the leader may sleep | leader sets, other side clears | the SeqCst fences in `sleep_unless` and `notify` |
//!
//! A record is a length word (8 bytes) and the payload rounded up to 8. The mutex is the one of
//! Drepper, *Futexes Are Tricky*, section 5 ("mutex2").
#![allow(unsafe_code)]

use crate::{futex, segment::Shared};
use std::{
    cell::UnsafeCell,
    hint::spin_loop,
    ptr,
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
        fence,
    },
    time::{Duration, Instant},
};

const CAPACITY: u64 = 1 << 16;
const HEADER: u64 = 8;
const SPIN: Duration = Duration::from_micros(5);

/// A ring of 64 KiB; all zero is an empty one.
#[repr(C)]
#[derive(Debug)]
pub struct Ring {
    producers: Side,
    consumers: Side,
    tail: Position,
    head: Position,
    bytes: Bytes,
}

/// The lock of one side, and on another cache line the word its leader sleeps on.
#[repr(C)]
#[derive(Debug)]
struct Side {
    mutex: Mutex,
    asleep: WaitWord,
}

#[repr(C, align(128))]
#[derive(Debug)]
struct Mutex {
    word: AtomicU32,
}

#[repr(C, align(128))]
#[derive(Debug)]
struct WaitWord(AtomicU32);

#[repr(C, align(128))]
#[derive(Debug)]
struct Position(AtomicU64);

#[repr(C, align(128))]
#[derive(Debug)]
struct Bytes(UnsafeCell<[u8; CAPACITY as usize]>);

// SAFETY: bytes in [head, tail) are read only by the owner of `consumers`, all others are written
// only by the owner of `producers`.
unsafe impl Sync for Bytes {}

// SAFETY: integers and bytes, valid when zero; shared use is what the locks are for.
unsafe impl Shared for Ring {}

impl Ring {
    /// Puts one message; waits while the ring is full.
    ///
    /// # Panics
    /// The message is longer than the ring.
    #[inline]
    pub fn put(&self, payload: &[u8]) {
        let need = record(payload.len() as u64);
        assert!(need <= CAPACITY);
        self.producers.mutex.lock();
        // Relaxed: only the owner of the lock writes it.
        let tail = self.tail.0.load(Relaxed);
        self.producers.wait_until(|| CAPACITY - (tail - self.head.0.load(Acquire)) >= need);
        self.bytes.write(tail, &(payload.len() as u64).to_ne_bytes());
        self.bytes.write(tail + HEADER, payload);
        self.tail.0.store(tail + need, Release);
        self.consumers.notify();
        self.producers.mutex.unlock();
    }

    /// Gets one message into `buffer` and returns its length; waits while the ring is empty.
    ///
    /// # Panics
    /// The message is longer than the buffer.
    #[inline]
    pub fn get(&self, buffer: &mut [u8]) -> usize {
        self.consumers.mutex.lock();
        // Relaxed: only the owner of the lock writes it.
        let head = self.head.0.load(Relaxed);
        self.consumers.wait_until(|| self.tail.0.load(Acquire) != head);
        let mut len = [0; HEADER as usize];
        self.bytes.read(head, &mut len);
        let len = u64::from_ne_bytes(len);
        self.bytes.read(head + HEADER, &mut buffer[..len as usize]);
        self.head.0.store(head + record(len), Release);
        self.producers.notify();
        self.consumers.mutex.unlock();
        len as usize
    }
}

fn record(len: u64) -> u64 {
    HEADER + len.next_multiple_of(8)
}

impl Side {
    /// Returns when `ready`; the caller owns the mutex of this side.
    #[inline]
    fn wait_until(&self, ready: impl Fn() -> bool) {
        if !ready() {
            self.wait_slow(ready);
        }
    }

    #[cold]
    fn wait_slow(&self, ready: impl Fn() -> bool) {
        while !spin(&ready) {
            self.sleep_unless(&ready);
        }
    }

    /// Announces the sleep, looks once more, sleeps.
    fn sleep_unless(&self, ready: impl Fn() -> bool) {
        let asleep = &self.asleep.0;
        asleep.store(1, Relaxed);
        // Pairs with the fence in `notify`: either we see its position or it sees our word.
        fence(SeqCst);
        if !ready() {
            futex::wait(asleep, 1);
        }
        // Relaxed: at worst the other side makes one needless wake.
        asleep.store(0, Relaxed);
    }

    /// Wakes the leader of this side, after the other side moved its position.
    #[inline]
    fn notify(&self) {
        // Pairs with the fence in `sleep_unless`.
        fence(SeqCst);
        if self.asleep.0.load(Relaxed) != 0 {
            self.asleep.0.store(0, Relaxed);
            futex::wake_one(&self.asleep.0);
        }
    }
}

impl Mutex {
    #[inline]
    fn lock(&self) {
        if self.word.compare_exchange(0, 1, Acquire, Relaxed).is_err() {
            self.lock_slow();
        }
    }

    #[cold]
    fn lock_slow(&self) {
        // Relaxed: a guess, the exchange below decides.
        let free = || self.word.load(Relaxed) == 0;
        if spin(free) && self.word.compare_exchange(0, 1, Acquire, Relaxed).is_ok() {
            return;
        }
        while self.word.swap(2, Acquire) != 0 {
            futex::wait(&self.word, 2);
        }
    }

    #[inline]
    fn unlock(&self) {
        if self.word.swap(0, Release) == 2 {
            futex::wake_one(&self.word);
        }
    }
}

/// Looks for about [`SPIN`]; the clock is not read before a short wait has failed.
fn spin(ready: impl Fn() -> bool) -> bool {
    let mut end = None;
    loop {
        for _ in 0..32 {
            if ready() {
                return true;
            }
            spin_loop();
        }
        let now = Instant::now();
        if now >= *end.get_or_insert(now + SPIN) {
            return false;
        }
    }
}

impl Bytes {
    /// Copies in at `position`, in two pieces at the end of the ring.
    #[inline]
    fn write(&self, position: u64, from: &[u8]) {
        let (first, second) = from.split_at(self.before_end(position, from.len()));
        self.copy_in((position % CAPACITY) as usize, first);
        if !second.is_empty() {
            self.copy_in(0, second);
        }
    }

    /// Copies out from `position`, in two pieces at the end of the ring.
    #[inline]
    fn read(&self, position: u64, to: &mut [u8]) {
        let (first, second) = to.split_at_mut(self.before_end(position, to.len()));
        self.copy_out((position % CAPACITY) as usize, first);
        if !second.is_empty() {
            self.copy_out(0, second);
        }
    }

    #[inline]
    fn before_end(&self, position: u64, len: usize) -> usize {
        len.min((CAPACITY - position % CAPACITY) as usize)
    }

    #[inline]
    fn copy_in(&self, at: usize, from: &[u8]) {
        debug_assert!(at + from.len() <= CAPACITY as usize);
        // SAFETY: `at` is below CAPACITY.
        let to = unsafe { self.0.get().cast::<u8>().add(at) };
        // SAFETY: `before_end` keeps the range inside the ring, and the owner of `producers`, who
        // alone calls this, found it free.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
    }

    #[inline]
    fn copy_out(&self, at: usize, to: &mut [u8]) {
        debug_assert!(at + to.len() <= CAPACITY as usize);
        // SAFETY: `at` is below CAPACITY.
        let from = unsafe { self.0.get().cast::<u8>().add(at) };
        // SAFETY: `before_end` keeps the range inside the ring, and the owner of `consumers`, who
        // alone calls this, found it filled.
        unsafe { ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Segment;
    use std::thread;

    #[test]
    fn two_producers_two_consumers_lose_and_repeat_nothing() {
        const EACH: u64 = 100_000;
        let ring = Segment::<Ring>::new().unwrap();
        let ring: &Ring = &ring;
        let mut got: Vec<u64> = thread::scope(|s| {
            for p in 0..2 {
                s.spawn(move || {
                    for n in 0..EACH {
                        // Lengths 8..=80 make records straddle the end of the ring.
                        let mut payload = [n as u8; 80];
                        payload[..8].copy_from_slice(&(p * EACH + n).to_ne_bytes());
                        ring.put(&payload[..8 + (n % 73) as usize]);
                    }
                });
            }
            let consumers = [(); 2].map(|()| {
                s.spawn(move || {
                    let mut buffer = [0; 80];
                    let mut got = Vec::new();
                    for _ in 0..EACH {
                        let len = ring.get(&mut buffer);
                        let id = u64::from_ne_bytes(buffer[..8].try_into().unwrap());
                        let n = id % EACH;
                        assert_eq!(len, 8 + (n % 73) as usize);
                        assert!(buffer[8..len].iter().all(|b| *b == n as u8));
                        got.push(id);
                    }
                    got
                })
            });
            consumers.into_iter().flat_map(|c| c.join().unwrap()).collect()
        });
        got.sort_unstable();
        assert!(got.into_iter().eq(0..2 * EACH));
    }
}
