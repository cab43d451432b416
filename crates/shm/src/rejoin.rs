//! How a process that a plain fork made becomes one of the tree: a slot of its own, and a hold on everything that its parent held.
//!
//! It comes with its parent's memory: handles that no bit stands for. So the keeper thread takes a slot, and then, under the collector's lock, the
//! bits of all handles are set in it and each object is looked at: one that its parent has let go of meanwhile may be gone, and then the process does not
//! join. Everything else is as with any other process: killed at any step, its slot is dead, and what was registered goes with it.
//!
//! | killed | left behind | who repairs |
//! |---|---|---|
//! | having locked `life` of a free slot, or of one that was free a moment ago | its mark, which the next owner takes over; that of who has died there | nobody need |
//! | with the slot reserved | a slot reserved by itself, `life` marked | the next collection frees it |
//! | with the slot live, before the last bit | a dead process that held a part | the next collection |
//! | with the collector's lock | `OWNER_DIED` | the next collection takes it |
//!
//! An object that never left its parent is freed by the parent at once when it lets go. `Arena::forks` tells it not to: it looks at
//! the count again after it has announced the object's end, we look at the object's state after we have counted ourselves.

use crate::arena::{Arena, SlotId};
use crate::error::Error;
use crate::hands;
use crate::holds::Table;
use crate::layout::{PAGE, SLOT_SIZE};
use crate::objects::ObjectState;
use crate::raw::{Acquired, Who};
use crate::roster::{Slot, SlotState};
use multiproc_sys::crash;
use multiproc_sys::robust::{self, Thread};
use std::sync::atomic::{Ordering, fence};

impl Arena {
    /// Slot and generation of this process; in one that a plain fork made, of its parent.
    pub fn my_id(&self) -> SlotId {
        SlotId { index: self.my_slot(), generation: self.generation.load(Ordering::Relaxed) }
    }

    /// The id under which this process is known in the roster; in one that a plain fork made, its parent's.
    pub fn my_pid(&self) -> u32 {
        self.known_pid()
    }

    /// A process that a plain fork made does not take part after all.
    pub fn remain(&self, parent: SlotId, pid: u32) {
        if self.my_id() != parent {
            // Its keeper has ended, so the slot is dead; and gone, though the process is not.
            self.leave(self.my_slot());
        }
        self.become_another(parent, pid);
        self.holds.forget_backed();
    }

    /// Takes a slot for this process, which a plain fork has made of the one in `parent`. The calling thread holds its life from here on.
    ///
    /// # Errors
    /// The parent is gone, or the roster is full.
    pub fn take_slot_after_fork(&self, parent: SlotId) -> Result<(), Error> {
        let thread = robust::current()?;
        for index in 1..self.layout.slots {
            if index >= self.slots_high() {
                let start = (self.layout.roster + u64::from(index) * SLOT_SIZE) / PAGE * PAGE;
                self.memory.back(start, PAGE)?;
            }
            let slot = self.slot(index)?;
            let (state, generation) = slot.state()?;
            let id = SlotId { index, generation };
            crash::moment();
            if state != SlotState::Free || !self.reserve_for_itself(slot, id, thread) {
                continue;
            }
            crash::point("rejoin.reserved");
            if let Err(e) = self.go_live_after_fork(slot, id, parent) {
                // Before the slot is another's, who would find the byte taken.
                self.leave(index);
                slot.change((SlotState::Reserved, generation), (SlotState::Free, generation.wrapping_add(1)));
                slot.life.unlock(thread);
                return Err(e);
            }
            crash::point("rejoin.live");
            self.become_another(id, std::process::id());
            hands::only_this_thread();
            self.holds.forget_backed();
            self.pace.begin_after_fork();
            return Ok(());
        }
        Err(Error::Full(&"processes"))
    }

    /// Takes the life word and then the slot, which was free when it was looked at; false when that is another's by now.
    fn reserve_for_itself(&self, slot: &Slot, SlotId { index, generation }: SlotId, thread: Thread) -> bool {
        let Ok(found) = slot.life.try_lock(Who::new(thread, Who::process(index, std::process::id()))) else { return false };
        crash::point("rejoin.life");
        self.raise_slots_high(index);
        let reserved = slot.reserve(generation, index, generation);
        match (reserved, found) {
            (true, _) => {}
            (false, Acquired::Clean) => slot.life.unlock(thread),
            // Who has had it since is dead already, which this word alone says.
            (false, Acquired::OwnerDied) => slot.life.unlock_inconsistent(thread),
        }
        reserved
    }

    fn go_live_after_fork(&self, slot: &Slot, id: SlotId, parent: SlotId) -> Result<(), Error> {
        slot.clear();
        // Relaxed: published by the CAS that follows.
        slot.pid.store(std::process::id(), Ordering::Relaxed);
        slot.parent.store(parent.index, Ordering::Relaxed);
        slot.parent_generation.store(parent.generation, Ordering::Relaxed);
        slot.set_name(&self.slot(parent.index)?.name());
        slot.mark_forked();
        self.attend(id.index);
        fence(Ordering::SeqCst);
        if !self.is_live(parent)? {
            return Err(Error::Unavailable(&"the process that forked this one is gone"));
        }
        let (from, to) = ((SlotState::Reserved, id.generation), (SlotState::Live, id.generation));
        if slot.change(from, to) { Ok(()) } else { Err(Error::Corrupted(&"a slot that was reserved by itself")) }
    }

    /// Registers all that this process has handles of, in the slot that it has taken. Waits for a running collection to end.
    ///
    /// # Errors
    /// Something of it is gone: its parent has let go of it since the fork. Or another thread of the parent had some of it in its hands when it forked.
    pub fn register_again(&'static self) -> Result<(), Error> {
        let Some(mut shards) = self.registry.after_fork() else {
            return Err(Error::Unavailable(
                &"another thread of the parent was making or dropping a handle at the moment of the fork",
            ));
        };
        let who = self.who()?;
        let collector = self.collection().lock;
        // The one wait for this lock: nothing else is held, and nobody who has it waits for us.
        let _ = collector.lock(who).map_err(|_| Error::Unavailable(&"the collector's lock"))?;
        let done = (|| {
            self.forks().fetch_add(1, Ordering::SeqCst);
            // Pairs with the fence in `end_own_object`.
            fence(Ordering::SeqCst);
            for (&index, local) in shards.iter_mut().flat_map(|shard| shard.iter_mut()) {
                local.shared = true;
                // A thread that the fork left behind may have been about to drop the last one.
                local.held.iter_mut().for_each(|place| {
                    if let Some(held) = place.as_ref().map(std::sync::Weak::upgrade) {
                        *place = held.map(|held| {
                            held.mark_shared();
                            std::sync::Arc::downgrade(&held)
                        });
                    }
                });
                for (bits, _) in local.held.iter().enumerate().filter(|(_, held)| held.is_some()) {
                    let role = crate::held::Role::from_bits(bits as u8).ok_or(Error::Corrupted(&"a role"))?;
                    for table in role.tables() {
                        self.set_bit(table, index)?;
                    }
                }
                crash::point("rejoin.held");
                fence(Ordering::SeqCst);
                let held = local.held.iter().any(Option::is_some);
                if held && self.object_state(index)? != (ObjectState::Live, local.generation) {
                    return Err(Error::Unavailable(
                        &"something that this process inherited has been let go of by its parent since the fork",
                    ));
                }
            }
            shards.iter_mut().for_each(|shard| shard.retain(|_, local| local.held.iter().any(Option::is_some)));
            Ok(())
        })();
        if done.is_err() {
            self.forget_holds()?;
        }
        collector.unlock(who.thread);
        drop(shards);
        // Who wanted to collect meanwhile has left it to us.
        let _ = self.collect();
        done
    }

    /// Takes all bits of the own slot back.
    fn forget_holds(&self) -> Result<(), Error> {
        for table in [Table::Sender, Table::Receiver, Table::Hold] {
            let mut set = Vec::new();
            self.each_bit(self.my_slot(), table, self.objects_high(), |index| {
                set.push(index);
                Ok(())
            })?;
            for index in set {
                self.holds.clear(&self.memory, self.my_slot(), table, index)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use std::thread;

    #[test]
    fn who_comes_late_to_a_slot_leaves_the_mark_of_who_has_died_there() {
        let arena = Arena::create(&Options { size: 16 << 20, ..Options::new(0, &[]) }).unwrap();
        let seen = arena.reserve_slot().unwrap();
        let slot = arena.slot(seen.index).unwrap();
        // A process with this slot, whose keeper ends.
        let lives = || {
            assert_eq!(slot.life.try_lock(arena.who().unwrap()), Ok(Acquired::Clean));
            assert!(slot.change((SlotState::Reserved, seen.generation), (SlotState::Live, seen.generation)));
        };
        thread::scope(|scope| scope.spawn(lives).join().unwrap());
        while !slot.is_dead() {
            thread::yield_now();
        }
        assert!(!arena.reserve_for_itself(slot, seen, robust::current().unwrap()));
        assert!(slot.is_dead() && slot.life.owner_died());
    }
}
