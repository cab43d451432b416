//! Processes whose parent is gone: those that are about to end with it, and those that were detached and live on.
//!
//! Nobody's keeper has a detached process as its child any more, so others watch it: see the keeper on floor 4.

use crate::arena::{Arena, SlotId};
use crate::error::Error;
use crate::roster::SlotState;
use std::sync::atomic::Ordering;

/// A process without a parent that is not gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bereaved {
    /// Its place in the roster.
    pub slot: SlotId,
    /// Its id. Whoever opens it asks [`Arena::is_live`] afterwards: then it was not given to another.
    pub pid: u32,
    /// Whether it may live on.
    pub detached: bool,
    /// Whether it is dead, and about to be gone: then it is cleaned up after.
    pub dying: bool,
}

impl Arena {
    /// The processes that live, or are not gone yet, though their parent is; the caller and the coordinator not among them.
    pub fn bereaved(&self) -> Result<Vec<Bereaved>, Error> {
        let mut all = Vec::new();
        for index in (1..self.slots_high()).filter(|&index| index != self.my_slot()) {
            let slot = self.slot(index)?;
            let (state, generation) = slot.state()?;
            let dying = self.is_dying(index)?;
            if state == SlotState::Live && (dying || !slot.is_dead()) && self.parent_gone(slot)? {
                // Relaxed: stored before the slot became live.
                let pid = slot.pid.load(Ordering::Relaxed);
                all.push(Bereaved { slot: SlotId { index, generation }, pid, detached: slot.is_detached(), dying });
            }
        }
        Ok(all)
    }

    /// Whether the process in a slot is still the same, and alive.
    pub fn is_live(&self, id: SlotId) -> Result<bool, Error> {
        let slot = self.slot(id.index)?;
        Ok(slot.state()? == (SlotState::Live, id.generation) && !slot.is_dead())
    }
}
