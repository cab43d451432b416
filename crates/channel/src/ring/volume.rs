//! [`Volume`]: how many bytes have passed one end of a queue, exact at each commit.
//!
//! The total belongs to an end, that is to an item number, and the end's own store is the only commit. So there are two words
//! {item number:24, bytes:40}: the one whose item number is the end's is valid; before the next commit its side's owner writes the other. A death in
//! between leaves a word of an item number that the end has not reached, which the next owner writes anew.

use super::cell::End;
use multiproc_shm::memory::Shared;
use std::sync::atomic::AtomicU64;

/// See the module head.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Volume([AtomicU64; 2]);

#[allow(unsafe_code)]
// SAFETY: an array of atomics.
unsafe impl Shared for Volume {}

impl Volume {
    fn valid(&self, end: End) -> Option<(usize, End)> {
        let words = self.0.iter().map(End::load).enumerate();
        words.into_iter().find(|(_, total)| total.seq() == end.seq())
    }

    /// Where the total as of the first end stands.
    pub(crate) fn first_word(&self) -> &AtomicU64 {
        &self.0[0]
    }

    /// The total as of `end`; `None` when the end has moved on.
    pub(crate) fn at(&self, end: End) -> Option<End> {
        self.valid(end).map(|(_, total)| total)
    }

    /// Before `next` is committed, by the owner of the side's lock: `bytes` more than as of `now`.
    pub(crate) fn prepare(&self, now: End, next: End, bytes: u64) {
        // In corrupted memory the count begins anew.
        let (place, total) = self.valid(now).unwrap_or((0, now));
        // Release: who sees this word sees the commit before, and looks again.
        End::new(next.seq(), total.position() + bytes).store(&self.0[1 - place]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_belongs_to_its_end() {
        let volume = Volume::default();
        let mut end = End::new(0, 0);
        let mut sum = 0;
        for n in [1u32, 2, 1, 4, 2, 6] {
            // Somebody dies before the commit.
            volume.prepare(end, End::new(end.seq() + 3, 0), 1 << 30);
            let next = End::new(end.seq() + n, 0);
            volume.prepare(end, next, u64::from(n) * 10);
            assert_eq!(volume.at(end).map(End::position), Some(sum));
            (end, sum) = (next, sum + u64::from(n) * 10);
            assert_eq!(volume.at(end).map(End::position), Some(sum));
        }
        let last = End::new(u32::MAX, 0);
        volume.prepare(end, last, 0);
        volume.prepare(last, last.after(8), 5);
        assert_eq!(volume.at(End::new(0, 0)).map(End::position), Some(sum + 5));
    }
}
