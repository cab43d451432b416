//! When a process is dead, and when it is gone.
//!
//! | it is | that says | since when | what others may do |
//! |---|---|---|---|
//! | dead | its life word, marked by the kernel | the keeper thread has ended: others may still run an instruction, and hold what they had locked | tell who waits for it |
//! | gone | its byte of the arena, free again ([`presence`]); or a pidfd, to who has one ([`Arena::slot_is_dead`]) | no thread is left, and no robust list to walk | clean up after it, and free what it had reserved |
//!
//! Nobody need have a pidfd, and a pid may be another's by now: the byte tells everybody. A process that calls exec gives it up as well, when all of its other threads are gone.
//! A process that could not lock its byte, or has closed the arena's descriptor, is gone when it is dead; so is any, to a process that has closed it.

use crate::arena::Arena;
use crate::error::Error;
use crate::roster::{Slot, SlotState};
use multiproc_sys::pidfd::PidFd;
use multiproc_sys::presence;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// Between two looks at a process that is dying, at whose end nothing wakes who waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// While another process is collecting.
const COLLECTING: Duration = Duration::from_micros(200);

impl Arena {
    /// The calling process is in slot `index` until it is gone. Before any thread of it but the caller writes to shared memory.
    pub fn attend(&self, index: u32) {
        if let (Ok(fd), Ok(slot)) = (self.fd(), self.slot(index))
            && presence::take(fd, index).unwrap_or(false)
        {
            slot.mark_attended();
            self.attends.store(true, Ordering::Relaxed);
        }
    }

    /// The calling process gives up slot `index`, and lives on.
    pub(crate) fn leave(&self, index: u32) {
        if let Ok(fd) = self.fd() {
            let _ = presence::give_back(fd, index);
        }
    }

    /// Whether the process in a slot is dead but not gone.
    pub fn is_dying(&self, index: u32) -> Result<bool, Error> {
        let slot = self.slot(index)?;
        Ok(slot.is_dead() && !self.is_gone(index, slot))
    }

    /// Whether a process that is dead is gone.
    pub(crate) fn is_gone(&self, index: u32, slot: &Slot) -> bool {
        let taken = |fd| presence::is_taken(fd, index).unwrap_or(false);
        !slot.is_attended() || slot.is_seen_gone() || !self.fd().is_ok_and(taken)
    }

    /// Waits a moment for the end of a process that is dying, or for who is cleaning up after it. To be called again and again, with a collection in between: how long
    /// it takes is up to the kernel.
    pub fn await_cleaning(&self, index: u32) -> Result<(), Error> {
        if self.is_dying(index)? {
            // Relaxed: 0, of which there is no process, or its own.
            let pidfd = PidFd::open(self.slot(index)?.pid.load(Ordering::Relaxed));
            // Dying after it was opened: so the pid was not another's. If it was after all, that costs one look.
            if let Ok(pidfd) = pidfd
                && self.is_dying(index)?
                && !pidfd.is_dead()
            {
                pidfd.dies_within(LOOK_AGAIN);
                return Ok(());
            }
        }
        thread::sleep(COLLECTING);
        Ok(())
    }

    /// Whether the process in a slot is dead, gone, and cleaned up after.
    pub fn is_cleaned(&self, index: u32, generation: u32) -> Result<bool, Error> {
        let slot = self.slot(index)?;
        let (state, now) = slot.state()?;
        Ok(state == SlotState::Free || now != generation || slot.is_cleaned())
    }
}
