//! Where in an arena the words lie that its processes read, and what is written over them.

use crate::input::Input;
use multiproc_shm::layout::{ENTRY_SIZE, HOLD_TABLES, Layout, PAGE, SLOT_SIZE};
use multiproc_shm::{Arena, Error};
use std::sync::atomic::Ordering;

/// What a range of words is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The first page: limits, the collector's words, what each table has handed out.
    Header,
    /// Slots of processes: life words, notes, arguments, results.
    Roster,
    /// Bits of who holds what.
    Holds,
    /// State words and entries of objects.
    Objects,
    /// An object's cell: locks, wait words, ends, constants.
    Cell,
    /// State words, free bits and page counts of blocks.
    Blocks,
    /// Contents of blocks: records, tables, arguments, and what is free.
    Data,
}

impl Place {
    /// All of them.
    pub const ALL: [Place; 7] =
        [Place::Header, Place::Roster, Place::Holds, Place::Objects, Place::Cell, Place::Blocks, Place::Data];

    /// Whether processes read these words in nearly every operation; of `Data` they read what is in use.
    pub fn is_live(self) -> bool {
        self != Place::Data
    }
}

/// Ranges of words, in bytes from the arena's beginning.
#[derive(Clone, Debug, Default)]
pub struct Map {
    ranges: Vec<(Place, u64, u64)>,
}

impl Map {
    /// The ranges of an arena as it stands.
    pub fn of(arena: &Arena) -> Result<Map, Error> {
        let memory = arena.memory();
        let layout = Layout::plan(memory.size()).ok_or(Error::Corrupted(&"the arena's size"))?;
        let slots = u64::from(arena.slots_high().clamp(1, 16));
        let mut ranges = vec![(Place::Header, 0, 2048), (Place::Roster, layout.roster, slots * SLOT_SIZE)];
        for table in 0..slots * HOLD_TABLES {
            ranges.push((Place::Holds, layout.holds + table * layout.hold_table, 16));
        }
        let mut high = 0;
        for index in 0..layout.objects.min(512) {
            if let Some(object) = arena.object(index)? {
                ranges.push((Place::Cell, object.offset, object.size.min(1024)));
                high = u64::from(index) + 1;
            }
        }
        ranges.push((Place::Objects, layout.object_states, (high + 1) * 8));
        ranges.push((Place::Objects, layout.object_free_bits, (high / 64 + 1) * 8));
        ranges.push((Place::Objects, layout.object_entries, (high + 1) * ENTRY_SIZE));
        for class in layout.classes {
            let states = memory.words(class.states, class.blocks.min(512) * 8)?;
            // Relaxed: a look.
            let used = states.iter().rposition(|state| state.load(Ordering::Relaxed) != 0).map_or(0, |last| last as u64 + 1);
            if used == 0 {
                continue;
            }
            ranges.push((Place::Blocks, class.states, used * 8));
            ranges.push((Place::Blocks, class.free_bits, used.div_ceil(64) * 8));
            if class.page_counts != class.data {
                ranges.push((Place::Blocks, class.page_counts, used.next_multiple_of(2) * 4));
            }
            // The beginnings of blocks: heads of records, ends of rings, tables.
            for block in 0..used {
                ranges.push((Place::Data, class.data + (block << class.shift), (1u64 << class.shift).min(PAGE)));
            }
        }
        Ok(Map { ranges })
    }

    /// A word: seven of eight lie in places that are always read.
    pub fn pick(&self, input: &mut Input<'_>) -> (Place, u64) {
        let wanted = Place::ALL[usize::from(input.byte()) % 8 % Place::ALL.len()];
        let fitting = || self.ranges.iter().filter(|(place, ..)| *place == wanted);
        let at = input.below(fitting().count() as u64);
        let (place, start, len) = fitting().nth(at as usize).or(self.ranges.first()).copied().unwrap_or((Place::Header, 0, 8));
        (place, start + input.below(len / 8) * 8)
    }
}

/// A way to change a word. `other` gives a word from elsewhere in the arena.
pub fn scribbled(input: &mut Input<'_>, old: u64, other: impl FnOnce() -> u64) -> u64 {
    let half = |low: u64| old & !0xffff_ffff | low & 0xffff_ffff;
    match input.byte() % 12 {
        0..=2 => old ^ 1 << (input.byte() % 64),
        3 => input.word(),
        4 => half(input.word()),
        5 => half(u64::from(input.byte())),
        6 => other(),
        7 => old.wrapping_add(1),
        8 => old.wrapping_sub(1),
        9 => [0, u64::MAX, half(0), old << 32 >> 32, half(u64::MAX)][usize::from(input.byte()) % 5],
        10 => old.wrapping_add(u64::from(input.byte()) << 40),
        _ => half(half(0) | u64::from(input.byte()) << 24 | u64::from(input.byte())),
    }
}

/// Changes a word of the arena as `input` says; where it lies.
pub fn scribble(arena: &Arena, map: &Map, input: &mut Input<'_>) -> Result<Place, Error> {
    let (place, offset) = map.pick(input);
    let word = &arena.memory().words(offset, 8)?[0];
    let mut choice = input.clone();
    // Relaxed: nobody is to rely on it.
    let other = || {
        let (_, offset) = map.pick(&mut choice);
        arena.memory().words(offset, 8).map_or(0, |words| words[0].load(Ordering::Relaxed))
    };
    word.store(scribbled(input, word.load(Ordering::Relaxed), other), Ordering::Relaxed);
    Ok(place)
}
