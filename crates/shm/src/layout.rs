//! Where things lie in an arena of a given size.
//!
//! The layout is a function of the size alone, which is sealed: each process computes it for itself and takes no
//! offset from shared memory. Address space costs nothing (pages are charged when touched), so each table
//! and each size class has its own range, large enough for its worst case; nothing is ever split or joined.
//!
//! `header | roster | hold bits | object table | per class: states, free bits, page counts | per class: data`

/// Pages of the system; everything is aligned to them.
pub const PAGE: u64 = 4096;
/// The smallest blocks are 2^6 = 64 bytes.
pub const MIN_CLASS: u32 = 6;
/// The largest blocks are 2^33 = 8 GiB.
pub const MAX_CLASS: u32 = 33;
/// Classes up to this one are backed in chunks, larger blocks each for itself.
pub const SMALL_CLASS: u32 = 12;
/// Number of size classes.
pub const CLASSES: usize = (MAX_CLASS - MIN_CLASS + 1) as usize;
/// No arena is smaller.
pub const MIN_SIZE: u64 = 8 << 20;
/// What an arena takes when nothing limits it. Address space, not memory.
pub const DEFAULT_SIZE: u64 = 1 << 40;
/// Bytes of one roster slot.
pub const SLOT_SIZE: u64 = 512;
/// Bit tables of each slot: holds, senders, receivers.
pub const HOLD_TABLES: u64 = 3;
/// Bytes of an object table entry.
pub const ENTRY_SIZE: u64 = 32;

/// The ranges of one size class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassLayout {
    /// Block size is `1 << shift`.
    pub shift: u32,
    /// Number of blocks; 0 where the arena is too small for the class.
    pub blocks: u64,
    /// A state word of 8 bytes for each block.
    pub states: u64,
    /// A bit for each block.
    pub free_bits: u64,
    /// A word of 4 bytes for each large block: pages that are backed.
    pub page_counts: u64,
    /// The blocks.
    pub data: u64,
}

/// The ranges of an arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// All of it.
    pub size: u64,
    /// Roster slots.
    pub slots: u32,
    /// Entries of the object table.
    pub objects: u32,
    /// Where the roster begins.
    pub roster: u64,
    /// Where the hold bits begin.
    pub holds: u64,
    /// Bytes of one bit table of one slot.
    pub hold_table: u64,
    /// State words of the object table.
    pub object_states: u64,
    /// Free bits of the object table.
    pub object_free_bits: u64,
    /// Entries of the object table.
    pub object_entries: u64,
    /// The size classes.
    pub classes: [ClassLayout; CLASSES],
}

fn pages(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE)
}

impl Layout {
    /// The layout of an arena of `size` bytes; `None` below [`MIN_SIZE`].
    pub fn plan(size: u64) -> Option<Layout> {
        if size < MIN_SIZE {
            return None;
        }
        let slots = (size >> 17).clamp(64, 1024);
        let objects = (size >> 14).clamp(512, 1 << 20);
        let mut end = PAGE;
        let mut take = |bytes: u64| {
            let start = end;
            end += pages(bytes);
            start
        };
        let roster = take(slots * SLOT_SIZE);
        let hold_table = objects.div_ceil(64) * 8;
        let holds = take(slots * HOLD_TABLES * hold_table);
        let object_states = take(objects * 8);
        let object_free_bits = take(objects.div_ceil(64) * 8);
        let object_entries = take(objects * ENTRY_SIZE);

        // Half a percent for the tables of the classes, then 1/64 for each small class, the rest to the large ones alike.
        let data = size - object_entries - pages(objects * ENTRY_SIZE);
        let small = data / 64;
        let large = (data - small * u64::from(SMALL_CLASS - MIN_CLASS + 1)) * 3 / 4 / u64::from(MAX_CLASS - SMALL_CLASS);
        let mut classes = [ClassLayout { shift: 0, blocks: 0, states: 0, free_bits: 0, page_counts: 0, data: 0 }; CLASSES];
        for (shift, class) in (MIN_CLASS..=MAX_CLASS).zip(&mut classes) {
            let range = if shift <= SMALL_CLASS { small * 3 / 4 } else { large };
            let blocks = range >> shift;
            *class = ClassLayout {
                shift,
                blocks,
                states: take(blocks * 8),
                free_bits: take(blocks.div_ceil(64) * 8),
                page_counts: take(if shift > SMALL_CLASS { blocks * 4 } else { 0 }),
                data: take(blocks << shift),
            };
        }
        (end <= size).then_some(Layout {
            size,
            slots: slots as u32,
            objects: objects as u32,
            roster,
            holds,
            hold_table,
            object_states,
            object_free_bits,
            object_entries,
            classes,
        })
    }
}

/// Pieces are at least this large: a few small messages.
const MIN_PIECE: u32 = 13;
/// And at most so.
const MAX_PIECE: u32 = 18;
/// There shall be so many of them.
const PIECES: u64 = 64;

impl Layout {
    /// In blocks of `1 << piece_shift()` bytes something is kept whose length nobody knows: 256 KiB, less in a small arena.
    pub fn piece_shift(&self) -> u32 {
        let large_enough = |shift: &u32| self.classes[(shift - MIN_CLASS) as usize].blocks >= PIECES;
        (MIN_PIECE..=MAX_PIECE).rev().find(large_enough).unwrap_or(MIN_PIECE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_fits_and_nothing_overlaps() {
        let mut size = MIN_SIZE;
        while size <= DEFAULT_SIZE {
            for size in [size, size + PAGE, size * 3 / 2 / PAGE * PAGE] {
                let l = Layout::plan(size).unwrap_or_else(|| panic!("{size} does not fit"));
                let mut end = PAGE;
                let mut next = |start: u64, len: u64| {
                    assert!(start >= end && start.is_multiple_of(PAGE), "{size}");
                    end = start + len;
                };
                next(l.roster, u64::from(l.slots) * SLOT_SIZE);
                next(l.holds, u64::from(l.slots) * HOLD_TABLES * l.hold_table);
                next(l.object_states, u64::from(l.objects) * 8);
                next(l.object_free_bits, u64::from(l.objects) / 8);
                next(l.object_entries, u64::from(l.objects) * ENTRY_SIZE);
                for c in l.classes {
                    next(c.states, c.blocks * 8);
                    next(c.free_bits, c.blocks / 8);
                    next(c.page_counts, if c.shift > SMALL_CLASS { c.blocks * 4 } else { 0 });
                    next(c.data, c.blocks << c.shift);
                }
                assert!(end <= size);
            }
            size *= 2;
        }
        assert_eq!(Layout::plan(MIN_SIZE - 1), None);
    }

    #[test]
    fn a_full_sized_arena_holds_messages_of_gigabytes() {
        let l = Layout::plan(DEFAULT_SIZE).unwrap();
        assert!(l.classes.iter().all(|c| c.blocks >= 3), "{:?}", l.classes);
        assert_eq!((l.slots, l.objects), (1024, 1 << 20));
        assert_eq!((l.piece_shift(), Layout::plan(MIN_SIZE).unwrap().piece_shift()), (MAX_PIECE, MIN_PIECE));
    }
}
