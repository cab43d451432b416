//! Finding a free entry of a table, without a lock.
//!
//! The truth is one state word for each entry: its top four bits are 0 when it is free. Beside it is one bit for each entry, which
//! says "probably free, look here", and a mark up to which entries have ever been handed out.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | state | who has the entry | taker by CAS from free; its owner | names its owner, who is cleaned up after |
//! | free bit | look here | taker clears it before the CAS, owner sets it after freeing | a free entry that nobody looks at, until [`Slab::repair`] |
//! | `high` | entries below it have been handed out | taker by CAS | the same |
//! | `free` | about how many bits are set | as the bits | a look too many or too few |

use crate::error::Error;
use crate::memory::{Account, Memory, Shared, back_up_to};
use multiproc_sys::crash;
use std::sync::atomic::{AtomicU64, Ordering};

/// Top four bits of a state word; 0 is free.
pub const TAG_SHIFT: u32 = 60;

/// The shared words of a slab, in the arena's header.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct SlabControl {
    high: AtomicU64,
    free: AtomicU64,
    states_backed: AtomicU64,
    bits_backed: AtomicU64,
    /// For the data that belongs to the entries; the slab itself does not use it.
    pub data_backed: AtomicU64,
    /// As `data_backed`: bytes that are free but stay backed.
    pub warm: AtomicU64,
    /// As `data_backed`: the least that `warm` has been since idle memory was last given back.
    pub idle: AtomicU64,
    _rest: AtomicU64,
}

#[allow(unsafe_code)]
// SAFETY: `repr(C)` of atomics.
unsafe impl Shared for SlabControl {}

/// One table, as this process sees it.
#[derive(Debug)]
pub struct Slab {
    control: &'static SlabControl,
    states: u64,
    bits: u64,
    max: u64,
    /// Where this process looks first: the last entry it freed or found. Private.
    cursor: AtomicU64,
    /// So many entries have a state word that is backed, as far as this process has asked the kernel. Private.
    known: AtomicU64,
}

impl Slab {
    /// The table whose state words lie at `states` and free bits at `bits`.
    pub fn new(control: &'static SlabControl, states: u64, bits: u64, max: u64) -> Slab {
        Slab { control, states, bits, max, cursor: AtomicU64::new(0), known: AtomicU64::new(0) }
    }

    /// Its shared words.
    pub fn control(&self) -> &'static SlabControl {
        self.control
    }

    /// Entries below this index have been handed out at some time.
    pub fn high(&self, memory: &Memory) -> u64 {
        // Acquire pairs with the AcqRel CAS in `bump`.
        self.bounded(memory, self.control.high.load(Ordering::Acquire))
    }

    /// At most as many entries as have a state word: who believed a peer's number would look at gigabytes of nothing, and have the kernel fill them.
    #[inline]
    fn bounded(&self, memory: &Memory, high: u64) -> u64 {
        // Relaxed: what was backed once stays so.
        if high <= self.known.load(Ordering::Relaxed) { high } else { self.ask(memory, high) }
    }

    #[cold]
    fn ask(&self, memory: &Memory, high: u64) -> u64 {
        // Without the descriptor, what the other word says must do.
        let said = || self.control.states_backed.load(Ordering::Relaxed);
        let backed = (memory.backed_from(self.states).unwrap_or_else(|_| said()) / 8).min(self.max);
        self.known.fetch_max(backed, Ordering::Relaxed);
        high.min(backed)
    }

    /// The state word of an entry.
    #[inline]
    pub fn state(&self, memory: &Memory, index: u64) -> Result<&'static AtomicU64, Error> {
        if index >= self.max {
            return Err(Error::Corrupted(&"an index lies outside its table"));
        }
        memory.at(self.states + index * 8)
    }

    fn bit_word(&self, memory: &Memory, word: u64) -> Result<&'static AtomicU64, Error> {
        memory.at(self.bits + word * 8)
    }

    /// Takes a free entry: `claim` makes the new state from the old one. `None` when the table is full.
    pub fn take(&self, memory: &Memory, account: &Account, claim: impl Fn(u64) -> u64) -> Result<Option<u64>, Error> {
        // Relaxed: a hint.
        if self.control.free.load(Ordering::Relaxed) > 0
            && let Some(index) = self.reuse(memory, &claim)?
        {
            return Ok(Some(index));
        }
        match self.bump(memory, account, &claim)? {
            Some(index) => Ok(Some(index)),
            None => self.reuse(memory, &claim),
        }
    }

    fn reuse(&self, memory: &Memory, claim: &impl Fn(u64) -> u64) -> Result<Option<u64>, Error> {
        let words = self.high(memory).div_ceil(64);
        let start = self.cursor.load(Ordering::Relaxed) / 64;
        for i in 0..words {
            let word = (start + i) % words;
            let bits = self.bit_word(memory, word)?;
            // Relaxed: the state word decides and orders.
            let mut seen = bits.load(Ordering::Relaxed);
            while seen != 0 {
                let mask = 1 << seen.trailing_zeros();
                seen &= !mask;
                if bits.fetch_and(!mask, Ordering::Relaxed) & mask == 0 {
                    continue;
                }
                crash::point("slab.bit_cleared");
                self.count_free(-1);
                let index = word * 64 + u64::from(mask.trailing_zeros());
                if index < self.max && self.claim_at(memory, index, claim)? {
                    self.cursor.store(index, Ordering::Relaxed);
                    return Ok(Some(index));
                }
            }
        }
        Ok(None)
    }

    /// Takes this entry if it is free; its bit may stay set, which only costs the next who looks.
    pub(crate) fn claim_at(&self, memory: &Memory, index: u64, claim: &impl Fn(u64) -> u64) -> Result<bool, Error> {
        let state = self.state(memory, index)?;
        let old = state.load(Ordering::Relaxed);
        // Acquire pairs with the Release in `give_back`: what the last owner did is over.
        Ok(old >> TAG_SHIFT == 0 && state.compare_exchange(old, claim(old), Ordering::Acquire, Ordering::Relaxed).is_ok())
    }

    fn bump(&self, memory: &Memory, account: &Account, claim: &impl Fn(u64) -> u64) -> Result<Option<u64>, Error> {
        loop {
            let seen = self.control.high.load(Ordering::Acquire);
            let index = self.bounded(memory, seen);
            if index >= self.max {
                return Ok(None);
            }
            back_up_to(memory, account, &self.control.states_backed, self.states, (index + 1) * 8, 4096, self.max * 8)?;
            let bit_bytes = self.max.div_ceil(64) * 8;
            back_up_to(memory, account, &self.control.bits_backed, self.bits, (index / 64 + 1) * 8, 4096, bit_bytes)?;
            // AcqRel pairs with the loads of `high`: its tables are backed.
            if self.control.high.compare_exchange(seen, index + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                crash::point("slab.bumped");
                if self.claim_at(memory, index, claim)? {
                    return Ok(Some(index));
                }
            }
        }
    }

    /// Makes an entry free: `free` is the new state, whose tag is 0. The caller owns the entry.
    pub fn give_back(&self, memory: &Memory, index: u64, free: u64) -> Result<(), Error> {
        // Release pairs with the Acquire in `claim_at`.
        self.state(memory, index)?.store(free, Ordering::Release);
        crash::point("slab.freed");
        self.offer(memory, index)
    }

    /// Sets the bit of an entry that is free.
    pub fn offer(&self, memory: &Memory, index: u64) -> Result<(), Error> {
        let mask = 1 << (index % 64);
        let before = self.bit_word(memory, index / 64)?.fetch_or(mask, Ordering::Relaxed);
        if before & mask == 0 {
            self.count_free(1);
        }
        self.cursor.store(index, Ordering::Relaxed);
        Ok(())
    }

    fn count_free(&self, by: i64) {
        let _ = self.control.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add_signed(by));
    }

    /// Offers free entries that a process died over. Safe at any time: the state word decides who gets one.
    pub fn repair(&self, memory: &Memory) -> Result<(), Error> {
        for index in 0..self.high(memory) {
            let free = self.state(memory, index)?.load(Ordering::Relaxed) >> TAG_SHIFT == 0;
            if free && self.bit_word(memory, index / 64)?.load(Ordering::Relaxed) & (1 << (index % 64)) == 0 {
                self.offer(memory, index)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arena, Options};

    #[test]
    fn what_somebody_died_over_is_offered_again() {
        let arena = Arena::create(&Options { size: 16 << 20, ..Options::new(0, &[]) }).unwrap();
        let (slab, memory) = (&arena.objects, arena.memory());
        let take = || slab.take(memory, arena.account(), |_| 1 << TAG_SHIFT).unwrap().unwrap();
        let (first, second) = (take(), take());
        // As who frees it leaves it and dies before it sets the bit.
        slab.state(memory, first).unwrap().store(0, Ordering::Relaxed);
        let third = take();
        assert!(third > second && first != third);
        slab.repair(memory).unwrap();
        assert_eq!(take(), first);
        assert!(take() > third);
    }
}
