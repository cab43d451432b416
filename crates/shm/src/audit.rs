//! What an arena holds at this moment, for tests and reports: nothing here changes anything.

use crate::arena::Arena;
use crate::blocks::{BlockId, BlockState};
use crate::error::Error;
use crate::moves;
use crate::notes::{Awaited, Waits};
use crate::objects::ObjectState;
use crate::raw::{Acquired, Who};
use crate::roster::SlotState;
use std::sync::atomic::Ordering;

/// What is in use. Two audits of a quiet arena are equal when nothing leaked between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Blocks that a process has to itself.
    pub private: u32,
    /// Blocks of objects: cells, rings, tables.
    pub of_objects: u32,
    /// Blocks of messages: waiting, being taken, leased, returned.
    pub of_messages: u32,
    /// Live objects, and those being made or freed.
    pub objects: u32,
    /// Live objects whose cell is not theirs: none, whoever dies where. Who cleaned up after one's maker would free it, and end it with what another has written there since.
    pub astray: u32,
    /// Processes, dead ones that were not cleaned up after included.
    pub slots: u32,
}

/// While it lives no process collects or cleans: a test sees what the kernel alone does for the dead.
#[derive(Debug)]
pub struct NoCollection {
    arena: &'static Arena,
    who: Who,
}

impl NoCollection {
    /// As in the middle of a collection: whoever moves a reference meanwhile stamps it.
    pub fn begin(&self) {
        let words = self.arena.collection();
        // Relaxed: only who has the lock writes it.
        let now = words.epoch.load(Ordering::Relaxed).wrapping_add(1).max(1);
        words.epoch.store(now, Ordering::Relaxed);
        moves::begin(words.active, now);
    }

    /// Cleans up and collects, with the lock that it has.
    pub fn collect(&self) -> Result<(), Error> {
        self.arena.collect_locked().map(drop)
    }
}

impl Drop for NoCollection {
    fn drop(&mut self) {
        let words = self.arena.collection();
        words.active.store(0, Ordering::SeqCst);
        words.lock.unlock(self.who.thread);
    }
}

impl Arena {
    /// Counts what is in use.
    pub fn audit(&self) -> Result<Audit, Error> {
        let mut audit = Audit::default();
        self.blocks.for_each(&self.memory, |_, word| {
            let count = match BlockState::from_word(word)? {
                BlockState::Free => return Ok(()),
                BlockState::Filling(_) | BlockState::Slot(_) => &mut audit.private,
                BlockState::Object(_) | BlockState::Segment { .. } => &mut audit.of_objects,
                BlockState::Queue { .. } | BlockState::Taken { .. } | BlockState::Leased { .. } | BlockState::Returned { .. } => {
                    &mut audit.of_messages
                }
            };
            *count += 1;
            Ok(())
        })?;
        for index in 0..self.objects_high() as u32 {
            let state = self.object_state(index)?;
            audit.objects += u32::from(state.0 != ObjectState::Free);
            // Looked at twice: it may end meanwhile.
            let lives = |state: (ObjectState, u32)| state.0 == ObjectState::Live;
            audit.astray += u32::from(lives(state) && !self.has_its_cell(index)? && self.object_state(index)? == state);
        }
        for slot in 0..self.slots_high() {
            audit.slots += u32::from(self.slot(slot)?.state()?.0 != SlotState::Free);
        }
        Ok(audit)
    }

    fn has_its_cell(&self, index: u32) -> Result<bool, Error> {
        // Acquire pairs with the Release in `object_state`: what was there before it lived is seen.
        let block = BlockId::from_word(self.entry(index)?.block.load(Ordering::Acquire));
        Ok(block.is_some_and(|block| self.block_state(block).is_ok_and(|state| state == BlockState::Object(index))))
    }

    /// Waits for a running collection to end and keeps others from starting.
    pub fn hold_collections(&'static self) -> Result<NoCollection, Error> {
        let who = self.who()?;
        match self.collection().lock.lock(who) {
            Ok(Acquired::Clean | Acquired::OwnerDied) => Ok(NoCollection { arena: self, who }),
            Err(_) => Err(Error::Unavailable(&"the collector's lock")),
        }
    }

    /// The index of the object that a thread of a process notes to wait for.
    pub fn waits_for(&self, pid: u32) -> Result<Option<u32>, Error> {
        for slot in 0..self.slots_high() {
            let slot = self.slot(slot)?;
            if slot.state()?.0 == SlotState::Live && slot.pid.load(Ordering::Relaxed) == pid {
                let object = |waits: Waits| match waits.on {
                    Awaited::Object(index) => Some(index),
                    _ => None,
                };
                return Ok(slot.notes.read().into_iter().find_map(object));
            }
        }
        Ok(None)
    }
}
