//! The roster: one slot for each process of the tree.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | state `Free` | no process | cleaner, last | - |
//! | state `Reserved` | a child is being started; the word names its parent's slot and the end of that slot's generation | its parent by CAS from `Free` | the cleaner of the parent frees it; the child then cannot go live and leaves |
//! | state `Reserved` by itself | a process that a plain fork made takes the slot; it has `life` already | that process by CAS from `Free` | `life` tells; the cleaner frees it |
//! | state `Live` | the process takes part | the child by CAS from `Reserved` | `life` tells |
//! | state `Live` and gone | somebody has seen the end of the process by its pidfd | who has, by CAS from `Live` of the same generation: the slot may be another's by then | as it is |
//! | `life` | held by the process's keeper thread as long as it lives | keeper | the kernel marks it: the slot is dead |
//! | `args` | block with what to run | parent, before the start | freed with the slot |
//! | `result` | block with the return value; its store is the commit | child | not returned |
//! | `outcome` | how the process ended, in the code of floor 4 | child | what the kernel says decides |
//! | `last_words` | block with a panic's text | child | no text |
//! | flag `RELEASED` | the parent has taken what a dead child left behind | parent | who cleans the parent's slot frees the child's |
//! | flag `FORKED` | a plain fork made the process: nobody starts it, joins it, or takes anything from it | that process | as it is |
//! | flag `DETACHED` | the process may outlive its parent | parent | the process is ended with its parent, or is not |
//! | flag `CONFIRMED` | it has taken back its death signal | its keeper | it is dead |
//! | `keeper` | thread id of the keeper, 0 until it can be rung | keeper | of a dead thread |
//! | flag `CLEANED` | everything but the slot itself has been taken back | cleaner, last | done again, which is harmless |
//! | flag `ATTENDED` | a byte of the arena is locked as long as a thread of the process is left: see [`crate::gone`] | that process, when it has the slot and before it does anything else | as it is |
//! | `bits_high` | hold bits of objects at or above this index have never been set | that process, before it sets one | as it is |
//! | `hands` | queue and item that a thread has taken and not yet handed to its caller | that thread, around the commit of a get | reported as lost, if the commit came |
//! | `notes` | what its threads wait for: see [`crate::notes`] | those threads | see there |
//! | `started` | since when it takes part, CLOCK_MONOTONIC in ns | keeper | as it is |
//! | `pid`, name, `parent` with its generation | who it is, and whose child | the parent before or right after the start; the child its pid too | as it is |

use crate::error::Error;
use crate::layout::SLOT_SIZE;
use crate::memory::Shared;
use crate::notes::Notes;
use crate::raw::RawLock;
use multiproc_sys::clock::Deadline;
use multiproc_sys::futex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of a process's name in the roster; longer names are cut at a character.
pub const NAME_BYTES: usize = 64;
/// Threads of one process that can have items in hand without covering each other's note: see [`crate::hands`].
pub const HANDS: usize = 16;

/// See the module head.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Slot {
    /// See the module head.
    pub life: RawLock,
    state: AtomicU64,
    /// The process's id, in its own pid namespace.
    pub pid: AtomicU32,
    /// Slot of the parent; its own for the coordinator. While the slot is reserved, `reserved_by` counts.
    pub parent: AtomicU32,
    /// Generation of the parent's slot.
    pub parent_generation: AtomicU32,
    flags: AtomicU32,
    bits_high: AtomicU32,
    /// See the module head.
    pub keeper: AtomicU32,
    /// See the module head.
    pub args: AtomicU64,
    /// See the module head.
    pub result: AtomicU64,
    /// See the module head.
    pub outcome: AtomicU64,
    /// See the module head.
    pub last_words: AtomicU64,
    /// See the module head.
    pub started: AtomicU64,
    pub(crate) notes: Notes,
    /// See the module head.
    pub hands: [AtomicU64; HANDS],
    name: [AtomicU64; NAME_BYTES / 8],
}

#[allow(unsafe_code)]
// SAFETY: `repr(C)` of atomics.
unsafe impl Shared for Slot {}

const _: () = assert!(size_of::<Slot>() as u64 <= SLOT_SIZE);

/// What a slot stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// No process.
    Free,
    /// A child that has not reported yet.
    Reserved,
    /// A process of the tree, alive or dead but not cleaned up after.
    Live,
}

const RELEASED: u32 = 1;
const CLEANED: u32 = 2;
const DETACHED: u32 = 4;
const CONFIRMED: u32 = 8;
const FORKED: u32 = 16;
const ATTENDED: u32 = 32;

// tag:8 | of a reserved slot, its parent's slot:12 and the end of that slot's generation:12; of a live one, 23 bits of nothing and whether its process is seen gone | generation:32.
const PARENT_SHIFT: u32 = 44;
const PARENT_GENERATION_SHIFT: u32 = 32;
const TWELVE: u32 = 0xfff;
const SEEN_GONE: u64 = 1 << 32;

fn state_word(state: SlotState, generation: u32) -> u64 {
    (state as u64) << 56 | u64::from(generation)
}

fn parent_bits(slot: u32, generation: u32) -> u64 {
    u64::from(slot & TWELVE) << PARENT_SHIFT | u64::from(generation & TWELVE) << PARENT_GENERATION_SHIFT
}

impl Slot {
    /// State and generation.
    #[inline]
    pub fn state(&self) -> Result<(SlotState, u32), Error> {
        // Acquire pairs with the AcqRel CAS in `change`.
        let word = self.state.load(Ordering::Acquire);
        let state = match word >> 56 {
            0 => SlotState::Free,
            1 => SlotState::Reserved,
            2 => SlotState::Live,
            _ => return Err(Error::Corrupted(&"a roster slot's state")),
        };
        Ok((state, word as u32))
    }

    /// One step of the slot's life; the loser of a race gets false.
    pub fn change(&self, from: (SlotState, u32), to: (SlotState, u32)) -> bool {
        let (from, to) = (state_word(from.0, from.1), state_word(to.0, to.1));
        let step = |now: u64| (now & !parent_bits(TWELVE, TWELVE) == from).then_some(to);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).is_ok()
    }

    /// Reserves a free slot for a child of the process in `parent`, whose slot has that generation.
    pub(crate) fn reserve(&self, generation: u32, parent: u32, parent_generation: u32) -> bool {
        let from = state_word(SlotState::Free, generation);
        let to = state_word(SlotState::Reserved, generation) | parent_bits(parent, parent_generation);
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Marks the process as one that a plain fork made. It leaves nothing for its parent to take.
    pub(crate) fn mark_forked(&self) {
        self.flags.fetch_or(FORKED | RELEASED, Ordering::Release);
    }

    /// Whether a plain fork made the process.
    pub fn is_forked(&self) -> bool {
        self.flags.load(Ordering::Acquire) & FORKED != 0
    }

    /// Slot and last twelve bits of the generation of who has reserved it.
    pub(crate) fn reserved_by(&self) -> (u32, u32) {
        let word = self.state.load(Ordering::Acquire);
        ((word >> PARENT_SHIFT) as u32 & TWELVE, (word >> PARENT_GENERATION_SHIFT) as u32 & TWELVE)
    }

    /// Whether a generation ends in these bits.
    pub(crate) fn generation_ends_in(generation: u32, end: u32) -> bool {
        generation & TWELVE == end
    }

    /// Whether the slot's process took part and is dead.
    pub fn is_dead(&self) -> bool {
        matches!(self.state(), Ok((SlotState::Live, _))) && (self.life.owner_died() || self.is_seen_gone())
    }

    /// The parent needs the slot of its dead child no more.
    pub fn release(&self) {
        // Release pairs with the Acquire below: what the parent took, it has.
        let before = self.flags.fetch_or(RELEASED, Ordering::Release);
        if before & DETACHED != 0 {
            futex::wake_all(&self.flags);
        }
    }

    /// Its parent lets the process outlive it.
    pub fn detach(&self) {
        // SeqCst: either who rings sees the keeper's id, or the keeper, which looks after it has stored that, sees the flag.
        self.flags.fetch_or(DETACHED, Ordering::SeqCst);
    }

    /// Whether the process may outlive its parent.
    pub fn is_detached(&self) -> bool {
        self.flags.load(Ordering::SeqCst) & DETACHED != 0
    }

    /// The process has taken back its death signal: tells the parent that waits for it.
    pub fn confirm_detached(&self) {
        // Release pairs with the Acquire in `await_detached`.
        let before = self.flags.fetch_or(CONFIRMED, Ordering::Release);
        if before & CONFIRMED == 0 {
            futex::wake_all(&self.flags);
        }
    }

    /// Waits until the process has confirmed; `Some(false)` when it is dead instead, `None` when time is up. To be called by its parent, which
    /// releases the slot of a dead child.
    pub fn await_detached(&self, generation: u32, deadline: Option<Deadline>) -> Option<bool> {
        loop {
            let flags = self.flags.load(Ordering::Acquire);
            // Asked after the flags were read: so they are those of this process.
            if !self.state().is_ok_and(|(_, now)| now == generation) {
                return Some(false);
            }
            if flags & CONFIRMED != 0 {
                return Some(true);
            }
            // Without the first flag, the slot is already another's.
            if flags & DETACHED == 0 || flags & RELEASED != 0 {
                return Some(false);
            }
            if deadline.is_some_and(Deadline::passed) {
                return None;
            }
            futex::wait(&self.flags, flags, deadline);
        }
    }

    pub(crate) fn mark_attended(&self) {
        // Release: the byte is taken before that is said.
        self.flags.fetch_or(ATTENDED, Ordering::Release);
    }

    pub(crate) fn is_attended(&self) -> bool {
        self.flags.load(Ordering::Acquire) & ATTENDED != 0
    }

    /// Somebody has seen the end of the process that has the slot with this generation; false if it is another's by now.
    pub(crate) fn mark_gone(&self, generation: u32) -> bool {
        let live = state_word(SlotState::Live, generation);
        let gone = |now: u64| (now & !SEEN_GONE == live).then_some(live | SEEN_GONE);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, gone).is_ok()
    }

    /// Whether somebody has seen the end of the process that has the slot.
    pub(crate) fn is_seen_gone(&self) -> bool {
        let word = self.state.load(Ordering::Acquire);
        word >> 56 == SlotState::Live as u64 && word & SEEN_GONE != 0
    }

    pub(crate) fn is_released(&self) -> bool {
        self.flags.load(Ordering::Acquire) & RELEASED != 0
    }

    pub(crate) fn mark_cleaned(&self) {
        self.flags.fetch_or(CLEANED, Ordering::Release);
    }

    pub(crate) fn is_cleaned(&self) -> bool {
        self.flags.load(Ordering::Acquire) & CLEANED != 0
    }

    /// Notes that the bit of the object at `index` may be set from now on.
    pub(crate) fn note_bit(&self, index: u32) {
        // Relaxed: as the bits themselves, ordered by the fence in `Arena::stamp`.
        if self.bits_high.load(Ordering::Relaxed) <= index {
            self.bits_high.fetch_max(index + 1, Ordering::Relaxed);
        }
    }

    /// No bit of an object at or above this index is set.
    pub(crate) fn bits_high(&self) -> u64 {
        u64::from(self.bits_high.load(Ordering::SeqCst))
    }

    /// Empties everything but state and life word, for a new process.
    pub(crate) fn clear(&self) {
        // Relaxed: published by the CAS that follows.
        for word in [&self.args, &self.result, &self.outcome, &self.last_words, &self.started] {
            word.store(0, Ordering::Relaxed);
        }
        self.pid.store(0, Ordering::Relaxed);
        self.keeper.store(0, Ordering::Relaxed);
        self.notes.clear();
        self.flags.store(0, Ordering::Relaxed);
        self.bits_high.store(0, Ordering::Relaxed);
        self.hands.iter().chain(&self.name).for_each(|w| w.store(0, Ordering::Relaxed));
    }

    /// The process's name.
    pub fn name(&self) -> String {
        let bytes: Vec<u8> =
            self.name.iter().flat_map(|w| w.load(Ordering::Relaxed).to_ne_bytes()).take_while(|&b| b != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Stores the name, cut to [`NAME_BYTES`].
    pub fn set_name(&self, name: &str) {
        let cut = name.floor_char_boundary(NAME_BYTES);
        let mut bytes = [0; NAME_BYTES];
        bytes[..cut].copy_from_slice(&name.as_bytes()[..cut]);
        for (word, chunk) in self.name.iter().zip(bytes.chunks_exact(8)) {
            word.store(u64::from_ne_bytes(chunk.try_into().expect("chunks of 8")), Ordering::Relaxed);
        }
    }
}
