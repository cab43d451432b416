//! Crash points: named steps at which a test lets a process die.
//!
//! Each protocol calls [`point`] between any two steps that another process could see apart. Without the
//! feature `crash-points` the call is empty. With it, a test arms the calling thread: at the k-th point from
//! there, or at the k-th pass of one named point, the process ends as by `kill -9`, with whatever it held.
//! Or all threads of a process dawdle there now and then, as where the kernel gives the core to others for a while: what one has looked at is then old when it acts on it. So do
//! those of a process with `MULTIPROC_DAWDLE=N:US` in its environment: at N of 65,536 points, for up to US microseconds.
//! What is passed and died at is noted where the tests ask for it (`notes`).

/// Whether crash points are compiled in; benchmarks assert that they are not.
pub const ENABLED: bool = cfg!(feature = "crash-points");

/// A step of a protocol. `id` is unique in the source.
#[inline(always)]
pub fn point(id: &'static str) {
    #[cfg(feature = "crash-points")]
    armed::pass(id);
    #[cfg(not(feature = "crash-points"))]
    let _ = id;
}

/// A place at which a death says nothing new, but where being slow may.
#[inline(always)]
pub fn moment() {
    #[cfg(feature = "crash-points")]
    armed::dawdle_now_and_then();
}

/// The calling thread does part of the work of the one that started it: what `arm_next_thread` asked for is meant for it.
#[inline(always)]
pub fn begin_thread() {
    #[cfg(feature = "crash-points")]
    armed::begin_thread();
}

/// A wait is about to look again by itself: with crash points that is noted, since it would hide a wake that is missing.
#[inline(always)]
pub fn sliced() {
    #[cfg(feature = "crash-points")]
    note("slice", "");
}

#[cfg(feature = "crash-points")]
pub use armed::{arm_at, arm_next_thread, arm_signal, arm_step, disarm, named, passed};

#[cfg(feature = "crash-points")]
mod notes;
#[cfg(feature = "crash-points")]
pub use notes::note;

#[cfg(feature = "crash-points")]
mod armed {
    use nix::sys::signal::{Signal, raise};
    use std::cell::Cell;
    use std::hash::{BuildHasher, RandomState};
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    use std::thread;
    use std::time::Duration;

    /// Of 65,536 passes so many are slow, [`UNKNOWN`] before the environment was asked; and how slow at most, in microseconds.
    static SLOW: AtomicU32 = AtomicU32::new(UNKNOWN);
    static PAUSE: AtomicU32 = AtomicU32::new(0);
    const UNKNOWN: u32 = u32::MAX;

    static NEXT_THREAD: AtomicU64 = AtomicU64::new(0);

    thread_local! {
        static STEPS_LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
        static PASSED: Cell<u64> = const { Cell::new(0) };
        /// The hash of the one point that counts; 0: all do.
        static ONLY: Cell<u32> = const { Cell::new(0) };
        static SIGNAL: Cell<Option<Signal>> = const { Cell::new(None) };
        /// Xorshift, 0 before its first draw; after a fork both go on with the same numbers, at other places.
        static DRAWN: Cell<u64> = const { Cell::new(0) };
    }

    /// Of an id; never 0.
    const fn hash(id: &str) -> u32 {
        let (bytes, mut hash, mut i) = (id.as_bytes(), 0x811c_9dc5_u32, 0);
        while i < bytes.len() {
            hash = (hash ^ bytes[i] as u32).wrapping_mul(0x0100_0193);
            i += 1;
        }
        hash | 1
    }

    /// As a number of a step: the first pass of the point of that name, whatever its number is this time.
    pub fn named(id: &str) -> u64 {
        u64::from(hash(id)) << 32 | 1
    }

    /// Dies at the `k`-th crash point that this thread passes from now on, the first is 1; or at a [`named`] one.
    pub fn arm_step(k: u64) {
        ONLY.set((k >> 32) as u32);
        SIGNAL.set(None);
        PASSED.set(0);
        STEPS_LEFT.set(k & u64::from(u32::MAX));
    }

    /// Raises a signal at the `k`-th crash point that this thread passes, in place of a death. Its handler may arm the thread anew.
    pub fn arm_signal(signal: i32, k: u64) {
        arm_step(k);
        SIGNAL.set(Signal::try_from(signal).ok());
    }

    /// Dies at the `k`-th time that this thread passes the point named `id`.
    pub fn arm_at(id: &'static str, k: u64) {
        arm_step(k);
        ONLY.set(hash(id));
    }

    /// As [`arm_step`], for the next thread that calls [`begin_thread`](super::begin_thread).
    pub fn arm_next_thread(k: u64) {
        NEXT_THREAD.store(k, Ordering::Relaxed);
    }

    pub(super) fn begin_thread() {
        match NEXT_THREAD.swap(0, Ordering::Relaxed) {
            0 => {}
            k => arm_step(k),
        }
    }

    /// Dies no more.
    pub fn disarm() {
        NEXT_THREAD.store(0, Ordering::Relaxed);
        STEPS_LEFT.set(u64::MAX);
    }

    /// How many points this thread has passed since it was armed.
    pub fn passed() -> u64 {
        PASSED.get()
    }

    #[cold]
    fn ask_environment() -> u32 {
        let asked = std::env::var("MULTIPROC_DAWDLE").unwrap_or_default();
        let numbers = asked.split_once(':').and_then(|(slow, pause)| Some((slow.parse().ok()?, pause.parse().ok()?)));
        let (slow, pause): (u32, u32) = numbers.unwrap_or((0, 0));
        PAUSE.store(pause, Ordering::Relaxed);
        SLOW.store(slow.min(1 << 16), Ordering::Relaxed);
        slow
    }

    fn draw() -> u64 {
        let mut x = DRAWN.get();
        if x == 0 {
            x = RandomState::new().hash_one(0) | 1;
        }
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        DRAWN.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    #[inline]
    pub(super) fn dawdle_now_and_then() {
        let slow = match SLOW.load(Ordering::Relaxed) {
            0 => return,
            UNKNOWN => ask_environment(),
            slow => slow,
        };
        let drawn = draw();
        if (drawn & 0xffff) < u64::from(slow) {
            let pause = (drawn >> 32) % u64::from(PAUSE.load(Ordering::Relaxed).max(1));
            thread::sleep(Duration::from_micros(pause));
        }
    }

    pub(super) fn pass(id: &'static str) {
        dawdle_now_and_then();
        let left = STEPS_LEFT.get();
        if left == u64::MAX {
            return;
        }
        if ONLY.get() != 0 && ONLY.get() != hash(id) {
            return;
        }
        if SIGNAL.get().is_none() {
            super::note("pass", id);
        }
        PASSED.set(PASSED.get() + 1);
        if left == 1 {
            let Some(signal) = SIGNAL.take() else {
                super::note("dies", id);
                crate::signal::kill_self()
            };
            STEPS_LEFT.set(u64::MAX);
            let _ = raise(signal);
            return;
        }
        STEPS_LEFT.set(left - 1);
    }
}
