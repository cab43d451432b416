//! futex(2): sleeping on a 32-bit word of shared memory, and waking whoever sleeps there.
//!
//! All words are process-shared. Waits take absolute deadlines (FUTEX_WAIT_BITSET, CLOCK_MONOTONIC), and
//! a wait may end for no reason: every caller loops over its own condition.
#![allow(unsafe_code)]

use crate::clock::Deadline;
use crate::crash;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Why [`wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Woken, or the word had changed, or a signal came: look again.
    LookAgain,
    /// The deadline passed.
    TimedOut,
}

/// Where the kernel does not wake on a thread's death as [`crate::robust`] needs it, waits look again this often.
const SLICE: Duration = Duration::from_millis(10);
static SLICED: AtomicBool = AtomicBool::new(false);

/// Makes every wait of this process look again at least each 10 ms.
pub fn wait_in_slices(on: bool) {
    // Relaxed: a setting that is made before the process's first wait.
    SLICED.store(on, Relaxed);
}

/// Until when one system call may sleep, and the end of the slice where waits are sliced.
pub(crate) fn until(deadline: Option<Deadline>, sliced: bool) -> (Option<Deadline>, Option<Deadline>) {
    if sliced || SLICED.load(Relaxed) {
        crash::sliced();
        let slice = Deadline::after(SLICE);
        (slice.map(|s| s.earlier(deadline)), slice)
    } else {
        (deadline, None)
    }
}

/// Sleeps while `word` holds `expected`, at most until `deadline`.
pub fn wait(word: &AtomicU32, expected: u32, deadline: Option<Deadline>) -> Wait {
    wait_sliced(word, expected, deadline, false)
}

/// As [`wait`]; if `sliced`, in slices of 10 ms whatever the kernel can do: a wake may have been missed.
pub fn wait_sliced(word: &AtomicU32, expected: u32, deadline: Option<Deadline>, sliced: bool) -> Wait {
    let (until, slice_end) = until(deadline, sliced);
    let time = until.map(Deadline::timespec);
    // SAFETY: the word is a live reference and the time, where given, lives on this stack; the kernel only reads both.
    let r = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET,
            expected,
            time.as_ref().map_or(ptr::null(), ptr::from_ref),
            ptr::null::<u32>(),
            u32::MAX,
        )
    };
    if r < 0 { after_no_wake(deadline, slice_end) } else { Wait::LookAgain }
}

/// A sleep ended, or did not begin, without a wake. A word that is changed again and again must not keep its sleeper beyond the deadline.
pub(crate) fn after_no_wake(deadline: Option<Deadline>, slice_end: Option<Deadline>) -> Wait {
    match deadline {
        Some(_) if errno() == libc::ETIMEDOUT && slice_end.is_none() => Wait::TimedOut,
        Some(d) if d.passed() => Wait::TimedOut,
        _ => Wait::LookAgain,
    }
}

/// Wakes up to `count` sleepers of `word` and says how many that were.
pub fn wake(word: &AtomicU32, count: u32) -> usize {
    let count = count.min(i32::MAX as u32);
    // SAFETY: the word is a live reference, and waking reads nothing from it.
    let r = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
    usize::try_from(r).unwrap_or(0)
}

/// Wakes all sleepers of `word`.
pub fn wake_all(word: &AtomicU32) -> usize {
    wake(word, u32::MAX)
}

/// Clears bit 31 of `word` and wakes all its sleepers, both in one system call: a caller that is killed has
/// done both or neither (FUTEX_WAKE_OP; a kill takes effect only when a system call returns).
pub fn clear_top_bit_and_wake_all(word: &AtomicU32) {
    const ANDN_SHIFTED: u32 = ((libc::FUTEX_OP_ANDN as u32) | (libc::FUTEX_OP_OPARG_SHIFT as u32)) << 28;
    const BIT_31: u32 = 31 << 12;
    #[cfg(miri)]
    return crate::interpreted::change_and_wake_all(word, 1 << 31, 0, word);
    // SAFETY: the word is a live reference; the kernel changes it atomically.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE_OP, i32::MAX, 0usize, word.as_ptr(), ANDN_SHIFTED | BIT_31)
    };
}

/// Sets `word` to 0 and wakes all its sleepers, both in one system call: as [`clear_top_bit_and_wake_all`].
pub fn clear_and_wake_all(word: &AtomicU32) {
    const SET_TO_0: u32 = (libc::FUTEX_OP_SET as u32) << 28;
    #[cfg(miri)]
    return crate::interpreted::change_and_wake_all(word, u32::MAX, 0, word);
    // SAFETY: the word is a live reference; the kernel changes it atomically.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE_OP, i32::MAX, 0usize, word.as_ptr(), SET_TO_0) };
}

/// Sets low `bits` (of 11) of `word` and wakes all sleepers of `sleepers`, both in one system call: as [`clear_top_bit_and_wake_all`].
pub fn set_bits_and_wake_all(word: &AtomicU32, bits: u32, sleepers: &AtomicU32) {
    let or_bits = (libc::FUTEX_OP_OR as u32) << 28 | (bits & 0x7ff) << 12;
    #[cfg(miri)]
    return crate::interpreted::change_and_wake_all(word, 0, bits & 0x7ff, sleepers);
    // SAFETY: the words are live references; the kernel changes the one atomically and reads nothing from the other.
    unsafe { libc::syscall(libc::SYS_futex, sleepers.as_ptr(), libc::FUTEX_WAKE_OP, i32::MAX, 0usize, word.as_ptr(), or_bits) };
}

pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_word_does_not_sleep() {
        assert_eq!(wait(&AtomicU32::new(1), 0, None), Wait::LookAgain);
    }

    #[test]
    fn a_deadline_is_never_early() {
        let start = std::time::Instant::now();
        let word = AtomicU32::new(0);
        let deadline = Deadline::after(Duration::from_millis(20));
        while wait(&word, 0, deadline) != Wait::TimedOut {}
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn the_bits_of_one_word_come_and_the_sleepers_of_the_other_wake() {
        let (state, word) = (AtomicU32::new(4), AtomicU32::new(0x8000_0000));
        std::thread::scope(|s| {
            let sleeper = s.spawn(|| wait(&word, 0x8000_0000, None));
            while !sleeper.is_finished() {
                set_bits_and_wake_all(&state, 1, &word);
                std::thread::yield_now();
            }
        });
        assert_eq!((state.into_inner(), word.into_inner()), (5, 0x8000_0000));
    }

    #[test]
    fn all_bits_go_and_all_sleepers_wake() {
        let word = AtomicU32::new(0xc000_0000);
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    while word.load(std::sync::atomic::Ordering::Acquire) != 0 {
                        wait(&word, 0xc000_0000, None);
                    }
                });
            }
            clear_and_wake_all(&word);
        });
        assert_eq!(word.into_inner(), 0);
    }

    #[test]
    fn the_top_bit_goes_and_the_sleeper_wakes() {
        let word = std::sync::Arc::new(AtomicU32::new(0x8000_0007));
        let sleeper = {
            let word = word.clone();
            std::thread::spawn(move || {
                while word.load(std::sync::atomic::Ordering::Acquire) == 0x8000_0007 {
                    wait(&word, 0x8000_0007, None);
                }
            })
        };
        clear_top_bit_and_wake_all(&word);
        sleeper.join().unwrap();
        assert_eq!(word.load(std::sync::atomic::Ordering::Acquire), 7);
    }
}
