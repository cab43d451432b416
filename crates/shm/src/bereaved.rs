//! Processes whose parent is gone: those that are about to end with it, and those that were detached and live on.
//!
//! Nobody's keeper has a detached process as its child any more, so others watch it: see the keeper on floor 4.

use crate::arena::{Arena, SlotId};
use crate::error::Error;
use crate::roster::SlotState;
use multiproc_sys::{presence, task};
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
                // Relaxed: 0, or its own: see `is_live`.
                let pid = slot.pid.load(Ordering::Relaxed);
                let detached = slot.is_detached();
                // Without a pid it has just begun, and is looked at again.
                if dying || pid == 0 || self.is_process_of(index, pid) && (detached || !self.has_parent_here(pid)) {
                    all.push(Bereaved { slot: SlotId { index, generation }, pid, detached, dying });
                }
            }
        }
        Ok(all)
    }

    /// Whether a pid is that of the process in a slot. Who is bereaved is killed, and a peer may have written any number over the roster's: so the kernel is
    /// asked who has the slot's byte, where it keeps such locks.
    fn is_process_of(&self, index: u32, pid: u32) -> bool {
        if !self.attends.load(Ordering::Relaxed) {
            return true;
        }
        self.fd().is_ok_and(|fd| presence::holder(fd, index).is_ok_and(|holder| holder == Some(pid)))
    }

    /// Whether the parent of a process, by what the kernel says, takes part: then it is no orphan, whatever the roster says.
    fn has_parent_here(&self, pid: u32) -> bool {
        let Some(parent) = task::parent_of(pid).filter(|_| self.attends.load(Ordering::Relaxed)) else { return false };
        let takes_part = |index| self.fd().is_ok_and(|fd| presence::holder(fd, index).is_ok_and(|holder| holder == Some(parent)));
        parent == std::process::id() || (0..self.slots_high()).any(takes_part)
    }

    /// Whether the process in a slot is still the same, and alive.
    pub fn is_live(&self, id: SlotId) -> Result<bool, Error> {
        let slot = self.slot(id.index)?;
        // The state last: that it is not dead would else be said of the next process there.
        Ok(!slot.is_dead() && slot.state()? == (SlotState::Live, id.generation))
    }
}
