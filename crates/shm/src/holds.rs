//! Who holds what: for each roster slot one bit for each object, in three tables: holds it, may send, may receive.
//!
//! | bit | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | hold | the process has at least one handle | that process, under a private mutex; the cleaner of a dead slot | the slot is dead: all its bits go |
//! | sender, receiver | one of the handles has that role | the same | the same |
//!
//! Tables are sparse: a page is backed when this process first sets a bit in it. Nobody looks above the slot's `bits_high`: in a shared file
//! looking at a hole fills it.

use crate::error::Error;
use crate::layout::{HOLD_TABLES, Layout, PAGE};
use crate::memory::Memory;
use crate::moves;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// One of a slot's bit tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Table {
    /// Has a handle.
    Hold = 0,
    /// Has a handle that may send.
    Sender = 1,
    /// Has a handle that may receive.
    Receiver = 2,
}

/// The tables of all slots, as this process sees them.
#[derive(Debug)]
pub struct Holds {
    start: u64,
    table: u64,
    /// Pages of the own slot's tables that this process has backed.
    backed: Vec<AtomicBool>,
}

impl Holds {
    /// The tables of `layout`.
    pub fn new(layout: &Layout) -> Holds {
        let pages = (HOLD_TABLES * layout.hold_table).div_ceil(PAGE) + 1;
        Holds { start: layout.holds, table: layout.hold_table, backed: (0..pages).map(|_| AtomicBool::new(false)).collect() }
    }

    /// The own slot is another from now on.
    pub(crate) fn forget_backed(&self) {
        self.backed.iter().for_each(|page| page.store(false, Ordering::Relaxed));
    }

    fn offset(&self, slot: u32, table: Table, word: u64) -> u64 {
        self.start + (u64::from(slot) * HOLD_TABLES + table as u64) * self.table + word * 8
    }

    fn word(&self, memory: &Memory, slot: u32, table: Table, word: u64) -> Result<&'static AtomicU64, Error> {
        if word * 8 >= self.table {
            return Err(Error::Corrupted(&"an object's index"));
        }
        memory.at(self.offset(slot, table, word))
    }

    /// Sets a bit of the process's own slot.
    pub fn set(&self, memory: &Memory, slot: u32, table: Table, index: u32) -> Result<(), Error> {
        let word = u64::from(index) / 64;
        let bits = self.word(memory, slot, table, word)?;
        let page = self.offset(slot, table, word) / PAGE - self.offset(slot, Table::Hold, 0) / PAGE;
        let backed = self.backed.get(page as usize).ok_or(Error::Corrupted(&"an object's index"))?;
        // Relaxed: at worst the page is asked for twice.
        if !backed.load(Ordering::Relaxed) {
            memory.back(self.offset(slot, table, word) / PAGE * PAGE, PAGE)?;
            backed.store(true, Ordering::Relaxed);
        }
        moves::set_bit(bits, 1 << (index % 64));
        Ok(())
    }

    /// Clears a bit.
    pub fn clear(&self, memory: &Memory, slot: u32, table: Table, index: u32) -> Result<(), Error> {
        let bits = self.word(memory, slot, table, u64::from(index) / 64)?;
        moves::clear_bit(bits, 1 << (index % 64));
        Ok(())
    }

    /// Whether a bit is set.
    pub fn get(&self, memory: &Memory, slot: u32, table: Table, index: u32) -> Result<bool, Error> {
        let bits = self.word(memory, slot, table, u64::from(index) / 64)?;
        Ok(moves::bits(bits) & (1 << (index % 64)) != 0)
    }

    /// Calls `visit` for each set bit below `high`.
    pub fn for_each(
        &self,
        memory: &Memory,
        slot: u32,
        table: Table,
        high: u64,
        mut visit: impl FnMut(u32) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for word in 0..high.div_ceil(64) {
            let mut bits = moves::bits(self.word(memory, slot, table, word)?);
            while bits != 0 {
                visit(word as u32 * 64 + bits.trailing_zeros())?;
                bits &= bits - 1;
            }
        }
        Ok(())
    }
}
