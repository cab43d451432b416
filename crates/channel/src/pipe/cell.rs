//! What a pipe is in shared memory: two ends, and for each way what its sender and what its receiver writes.
//!
//! End 0 is held with the role `Sender`, end 1 with the role `Receiver`, whatever they do: so the collector knows when nobody is left who could use
//! one of them. Way `i` leads from end `i` to the other.
//!
//! | word of an end | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `owner` 0 | nobody uses it | its owner when its last handle goes | as it is |
//! | `owner` {generation:30, slot:12, pid:22} | the process that uses it | that process, by CAS from 0 or from a grave | whoever looks at that slot sees a dead process |
//! | `owner`, a grave (`GRAVE` for the slot) | its last user has died | cleaner, by CAS | as it is |
//! | `flags` | closed; nobody left who has a handle; they never go | its owner; who drops the last handle, or the cleaner | as it is |
//! | `bereft` | a process that had a handle and had not used it has died: its pid | cleaner; 0 by the next user | as it is |
//! | `news` | sleepers of the other end watch it: `owner` or `flags` have changed ([`WaitWord`]) | see there | see there |
//! | `carries`, `max_message`, `ring_bytes` | constants | creator | - |
//!
//! | word of a sender | meaning | if the writer dies there |
//! |---|---|---|
//! | `tail` | position of the next record, or a little before: **the commit is in the ring**, see [`super::record`] | the next owner of the end looks for itself |
//! | `cw` | the waiting receiver sleeps there | see [`WaitWord`] |
//! | `ring` | the block with the records, made at the first send; it stays | `putting` names a ring that is not named here: the cleaner frees it |
//! | `backed` | how much of the ring may be used | too low, as before |
//! | `putting` | the block that is changing hands right now | tells the cleaner what to free |
//!
//! | word of a receiver | meaning | if the writer dies there |
//! |---|---|---|
//! | `head` | position of the first record; **its store commits a receive** | the record is taken or not |
//! | `pw` | the waiting sender sleeps there | see [`WaitWord`] |
//!
//! What the process of one end writes all the time lies together, and apart from what the other writes.

use super::way::{Received, Sent};
use multiproc_shm::Error;
use multiproc_shm::arena::Arena;
use multiproc_shm::memory::Shared;
use multiproc_shm::objects::Object;
use multiproc_shm::raw::WaitWord;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// See the module head.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct PipeCell {
    pub(crate) sides: [Side; 2],
}

/// One end, and what its process writes: as the sender of the way from it, and as the receiver of the way to it.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Side {
    pub(crate) sent: Sent,
    pub(crate) received: Received,
    pub(crate) end: End,
}

#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct End {
    pub(crate) owner: AtomicU64,
    pub(crate) flags: AtomicU32,
    pub(crate) news: WaitWord,
    pub(crate) bereft: AtomicU64,
    /// Hash of the type that the end sends, and of the codec.
    pub(crate) carries: AtomicU64,
    pub(crate) max_message: AtomicU64,
    pub(crate) ring_bytes: AtomicU64,
}

#[allow(unsafe_code)]
// SAFETY: `repr(C)` of atomics and types that are `Shared`.
unsafe impl Shared for PipeCell {}

const _: () = assert!(size_of::<PipeCell>() <= 512);

/// `close` was called on it.
pub(crate) const CLOSED: u32 = 1;
/// Nobody has a handle of it, nor does a record carry one.
pub(crate) const GONE: u32 = 2;

const PID_BITS: u32 = 22;
const SLOT_BITS: u32 = 12;
/// Stands for the slot of one that is dead and cleaned up after; no roster has so many.
const GRAVE: u64 = (1 << SLOT_BITS) - 1;
const GENERATION_MASK: u32 = (1 << 30) - 1;

/// Who uses an end: the word in [`End::owner`] when it is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u64);

impl Owner {
    /// The process in that slot.
    pub(crate) fn new(slot: u32, generation: u32, pid: u32) -> Owner {
        let slot = u64::from(slot) & GRAVE;
        Owner(u64::from(generation & GENERATION_MASK) << (PID_BITS + SLOT_BITS) | slot << PID_BITS | u64::from(pid) & PID_MASK)
    }

    pub(crate) fn from_word(word: u64) -> Option<Owner> {
        (word != 0).then_some(Owner(word))
    }

    pub(crate) fn word(self) -> u64 {
        self.0
    }

    pub(crate) fn pid(self) -> u32 {
        (self.0 & PID_MASK) as u32
    }

    pub(crate) fn is_grave(self) -> bool {
        self.0 >> PID_BITS & GRAVE == GRAVE
    }

    /// Its slot; `None` for a grave.
    pub(crate) fn slot(self) -> Option<u32> {
        (!self.is_grave()).then_some((self.0 >> PID_BITS & GRAVE) as u32)
    }

    /// The same when it is dead and cleaned up after.
    pub(crate) fn buried(self) -> Owner {
        Owner(self.0 | GRAVE << PID_BITS)
    }

    /// Whether this is a process in that slot.
    pub(crate) fn is_in(self, slot: u32, generation: u32) -> bool {
        self.slot() == Some(slot) && (self.0 >> (PID_BITS + SLOT_BITS)) as u32 == generation & GENERATION_MASK
    }
}

const PID_MASK: u64 = (1 << PID_BITS) - 1;

impl End {
    #[inline]
    pub(crate) fn owner(&self) -> Option<Owner> {
        // Acquire pairs with the CAS of who claims, lets go or buries.
        Owner::from_word(self.owner.load(Ordering::Acquire))
    }

    #[inline]
    pub(crate) fn flags(&self) -> u32 {
        // Acquire pairs with the Release of who sets one: what was sent before is there.
        self.flags.load(Ordering::Acquire)
    }

    /// Changes the owner, if it still is `from`.
    pub(crate) fn change_owner(&self, from: Option<Owner>, to: Option<Owner>) -> bool {
        let [from, to] = [from, to].map(|owner| owner.map_or(0, Owner::word));
        // AcqRel: the next owner goes on where the last one was.
        self.owner.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl PipeCell {
    pub(crate) fn of(arena: &Arena, object: Object) -> Result<&'static PipeCell, Error> {
        if object.size < size_of::<PipeCell>() as u64 {
            return Err(Error::Corrupted(&"a pipe's cell"));
        }
        arena.memory().at(object.offset)
    }

    /// What the receiver of way `way` writes.
    #[inline]
    pub(crate) fn received(&self, way: usize) -> &Received {
        &self.sides[1 - way].received
    }

    /// What the sender of way `way` writes.
    #[inline]
    pub(crate) fn sent(&self, way: usize) -> &Sent {
        &self.sides[way].sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_survive_the_word() {
        let owner = Owner::new(1023, u32::MAX, (1 << 22) - 1);
        assert_eq!(Owner::from_word(owner.word()), Some(owner));
        assert_eq!((owner.slot(), owner.pid(), owner.is_grave()), (Some(1023), (1 << 22) - 1, false));
        assert!(owner.is_in(1023, u32::MAX) && !owner.is_in(1022, u32::MAX) && !owner.is_in(1023, 0));
        let grave = owner.buried();
        assert_eq!((grave.slot(), grave.pid(), grave.is_grave()), (None, owner.pid(), true));
        assert!(Owner::new(0, 0, 1).word() != 0);
    }
}
