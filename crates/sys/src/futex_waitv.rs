//! futex_waitv(2): sleeping on several words at once, until the first of them is woken or has changed.
//!
//! Words are process-shared, deadlines absolute (CLOCK_MONOTONIC), and a wait may end for no reason, as in [`crate::futex`]. The kernel
//! wakes such a sleeper for a dead thread as it does any other. Kernels before 5.16 lack the call: there the sleeper watches the first word
//! only and looks at the others each 10 ms.
#![allow(unsafe_code)]

use crate::clock::Deadline;
use crate::futex::{self, Wait};
use crate::probe::{self, Feature};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// The kernel takes 128; nobody here needs more than a few.
pub const MAX_WORDS: usize = 128;

/// A word to sleep on while it has a value.
#[derive(Clone, Copy, Debug)]
pub struct Word<'a> {
    /// Where.
    pub word: &'a AtomicU32,
    /// The value with which to sleep.
    pub expected: u32,
}

/// struct futex_waitv of linux/futex.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Waiter {
    val: u64,
    uaddr: u64,
    flags: u32,
    reserved: u32,
}

/// FUTEX2_SIZE_U32, and not FUTEX2_PRIVATE.
const SHARED_U32: u32 = 2;
/// Beyond this the list lives on the heap.
const FEW: usize = 8;

static MISSING: AtomicBool = AtomicBool::new(false);

/// Sleeps while all words hold their values, at most until `deadline`. Of no words at all, it sleeps until then. `sliced`: it looks again
/// at least each 10 ms.
///
/// # Panics
/// There are more than [`MAX_WORDS`].
pub fn wait_any(words: &[Word<'_>], deadline: Option<Deadline>, sliced: bool) -> Wait {
    assert!(words.len() <= MAX_WORDS, "at most {MAX_WORDS} words");
    if let [one] = words {
        return futex::wait_sliced(one.word, one.expected, deadline, sliced);
    }
    // Relaxed: a fact about the kernel that never changes.
    if !MISSING.load(Relaxed) && !probe::is_denied(Feature::FutexWaitv) && !words.is_empty() {
        match wait_all_at_once(words, deadline, sliced) {
            Some(why) => return why,
            None => MISSING.store(true, Relaxed),
        }
    }
    let nothing = AtomicU32::new(0);
    let first = words.first().copied().unwrap_or(Word { word: &nothing, expected: 0 });
    if words.iter().any(|w| w.word.load(Relaxed) != w.expected) {
        return if deadline.is_some_and(Deadline::passed) { Wait::TimedOut } else { Wait::LookAgain };
    }
    futex::wait_sliced(first.word, first.expected, deadline, true)
}

/// `None`: the kernel does not know the call.
fn wait_all_at_once(words: &[Word<'_>], deadline: Option<Deadline>, sliced: bool) -> Option<Wait> {
    let waiter = |w: &Word<'_>| Waiter {
        val: u64::from(w.expected),
        uaddr: w.word.as_ptr().expose_provenance() as u64,
        flags: SHARED_U32,
        reserved: 0,
    };
    let mut few = [Waiter { val: 0, uaddr: 0, flags: 0, reserved: 0 }; FEW];
    let many: Vec<Waiter>;
    let waiters = match few.get_mut(..words.len()) {
        Some(few) => {
            few.iter_mut().zip(words).for_each(|(to, w)| *to = waiter(w));
            &*few
        }
        None => {
            many = words.iter().map(waiter).collect();
            &many
        }
    };
    let (until, slice_end) = futex::until(deadline, sliced);
    let time = until.map(Deadline::timespec);
    // SAFETY: the list and the time, where given, live on this stack or in `many`, and the words are live references; the kernel only reads.
    let r = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            waiters.as_ptr(),
            waiters.len() as libc::c_uint,
            0,
            time.as_ref().map_or(ptr::null(), ptr::from_ref),
            libc::CLOCK_MONOTONIC,
        )
    };
    match r {
        0.. => Some(Wait::LookAgain),
        _ if matches!(futex::errno(), libc::ENOSYS | libc::EPERM) => None,
        _ => Some(futex::after_no_wake(deadline, slice_end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn words(values: &[u32]) -> Vec<AtomicU32> {
        values.iter().map(|v| AtomicU32::new(*v)).collect()
    }

    #[test]
    fn any_changed_word_keeps_it_awake() {
        let words = words(&[1, 2, 3]);
        let list: Vec<_> = words.iter().zip([1, 2, 4]).map(|(word, expected)| Word { word, expected }).collect();
        assert_eq!(wait_any(&list, None, false), Wait::LookAgain);
    }

    #[test]
    fn a_deadline_is_never_early() {
        let words = words(&[0; 20]);
        let list: Vec<_> = words.iter().map(|word| Word { word, expected: 0 }).collect();
        for n in [0, 2, 20] {
            let start = Instant::now();
            let deadline = Deadline::after(Duration::from_millis(20));
            while wait_any(&list[..n], deadline, false) != Wait::TimedOut {}
            assert!(start.elapsed() >= Duration::from_millis(20));
        }
    }

    #[test]
    fn a_wake_of_each_word_ends_it() {
        let words = words(&[0; 3]);
        for woken in &words {
            std::thread::scope(|s| {
                let sleeper = s.spawn(|| {
                    let list: Vec<_> = words.iter().map(|word| Word { word, expected: word.load(Relaxed) }).collect();
                    let deadline = Deadline::after(Duration::from_secs(20));
                    wait_any(&list, deadline, false)
                });
                while !sleeper.is_finished() {
                    futex::wake_all(woken);
                    std::thread::yield_now();
                }
                assert_eq!(sleeper.join().unwrap(), Wait::LookAgain);
            });
        }
    }
}
