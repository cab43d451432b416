//! Cleaning up after dead processes, and freeing what nobody references (Protocol T).
//!
//! # The one rule for every move of a reference
//! (1) write the new reference: a hold bit, or the commit of a record; (2) `fence(SeqCst)`; (3) if a collection is active, stamp
//! the object with its epoch by `fetch_max`; (4) only then remove the old reference. A death leaves one reference too many, never one too few.
//!
//! # A collection
//! One process at a time, under a robust lock; it waits for nobody. First the slots of processes that are dead and gone ([`crate::gone`]) are cleaned (only here: bits that
//! vanish while others are read would let a moving reference slip by). Then the epoch rises; roots are the hold bits and blocks of all slots
//! and, again and again until a pass adds nothing, the objects stamped with this epoch; edges are the references in records. What is neither
//! reached nor stamped is freed. A collector that dies is followed by the next with a new epoch: nothing was freed that was referenced.

use crate::arena::{Arena, Collection, SlotId, is_free};
use crate::blocks::{BlockId, BlockState};
use crate::error::Error;
use crate::held::Role;
use crate::holds::Table;
use crate::moves;
use crate::objects::{ObjectState, RawRef};
use crate::raw::{LockFailed, Who};
use crate::record;
use crate::roster::{Slot, SlotState};
use multiproc_sys::clock::thread_nanos;
use multiproc_sys::crash;
use std::sync::atomic::{Ordering, fence};

/// Traffic in handles can ask for one collection after the other: so many are its caller's, or as many as take it so long (where long queues of handles are followed
/// each time, few do). The rest is for this process's keeper, or without one for the next caller.
const MAX_ROUNDS: u32 = 100;
const ENOUGH_NANOS: u64 = 10_000_000;

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Slots of dead processes that were cleaned.
    pub slots: u32,
    /// Objects freed.
    pub objects: u32,
    /// Slots whose process is alive though its parent is gone; it is about to end.
    pub orphans: u32,
    /// How often it went round; 0: another process was at it.
    pub rounds: u32,
}

impl Arena {
    /// Cleans up after dead processes and frees what nobody references. Returns at once when another process is at it.
    ///
    /// What is to be told of the dead is told when no lock of this thread's is held, the collector's included: it may run a subscriber of the user's.
    pub fn collect(&self) -> Result<Collected, Error> {
        self.collect_and(true)
    }

    /// As [`collect`](Arena::collect); `always` gives back idle memory though it has been given back a moment ago.
    pub(crate) fn collect_and(&self, always: bool) -> Result<Collected, Error> {
        let done = self.collect_in_rounds();
        self.give_back(always, done.as_ref().is_ok_and(|done| done.slots > 0));
        if self.who()?.thread.holds() == 0 {
            self.tell();
        } else {
            self.have_it_told();
        }
        done
    }

    /// As [`collect`](Arena::collect), for a keeper: it holds its process's life word and no other lock.
    pub fn collect_as_keeper(&self) -> Result<Collected, Error> {
        self.keep(true)
    }

    pub(crate) fn keep(&self, always: bool) -> Result<Collected, Error> {
        let done = self.collect_in_rounds();
        self.give_back(always, done.as_ref().is_ok_and(|done| done.slots > 0));
        self.tell();
        done
    }

    fn collect_in_rounds(&self) -> Result<Collected, Error> {
        let mut sum = Collected::default();
        let words = self.collection();
        let mut begun = thread_nanos();
        let enough = begun + ENOUGH_NANOS;
        // SeqCst: either we get the lock, or its owner sees the wish after it has unlocked.
        words.again.store(1, Ordering::SeqCst);
        loop {
            let who = self.who()?;
            match words.lock.try_lock(who) {
                // A predecessor that died may have left `active` set; this collection sets it anew.
                Ok(_) => {}
                Err(LockFailed::Unusable(why)) => return Err(why.into()),
                Err(_) => return Ok(sum),
            }
            let unlock = Unlock(words, who);
            // Pairs with the fence in `end_own_object`.
            fence(Ordering::SeqCst);
            words.again.store(0, Ordering::SeqCst);
            let done = self.collect_locked()?;
            self.note_settled();
            drop(unlock);
            sum.slots += done.slots;
            sum.objects += done.objects;
            sum.orphans = done.orphans;
            sum.rounds += 1;
            let now = thread_nanos();
            self.note_pace(now - begun);
            begun = now;
            if words.again.swap(0, Ordering::SeqCst) == 0 {
                return Ok(sum);
            }
            if sum.rounds == MAX_ROUNDS || now > enough {
                self.leave_to_keeper();
                return Ok(sum);
            }
        }
    }

    pub(crate) fn collect_locked(&self) -> Result<Collected, Error> {
        let mut done = Collected::default();
        self.finish_counting()?;
        for slot in 0..self.slots_high() {
            match self.condition_of(slot)? {
                Condition::Dead => {
                    self.clean_slot(slot)?;
                    done.slots += 1;
                }
                Condition::Orphan => done.orphans += 1,
                Condition::Fine => {}
            }
        }
        crash::point("collect.cleaned");
        let marked = self.mark()?;
        crash::point("collect.marked");
        done.objects = self.sweep(&marked)?;
        Ok(done)
    }

    /// Tells the tree that the process that has this slot, or had it, is dead, whatever its life word says: the kernel may not have walked its list.
    ///
    /// To be called by who has seen its pidfd end. Others may have cleaned up after it in the meantime, and the slot may be a living process's: so this says only of
    /// whom it speaks, and the rest is done by the cleaner, under whose lock no slot is given to another.
    pub fn slot_is_dead(&self, id: SlotId) -> Result<(), Error> {
        let s = self.slot(id.index)?;
        crash::moment();
        if !s.mark_gone(id.generation) {
            return Ok(());
        }
        crash::moment();
        // Whatever the life word says: the list of the thread that had it may have been lost alone, and the cleaner needs it. As long as the slot is that
        // process's, no other has named itself by it.
        self.collection().lock.mark_dead_if(id.index, || s.state().is_ok_and(|now| now == (SlotState::Live, id.generation)));
        if !s.life.owner_died() {
            self.collect()?;
        }
        Ok(())
    }

    pub(crate) fn parent_gone(&self, slot: &Slot) -> Result<bool, Error> {
        let parent = self.slot(slot.parent.load(Ordering::Relaxed))?;
        let (state, generation) = parent.state()?;
        let same = generation == slot.parent_generation.load(Ordering::Relaxed);
        Ok(!same || state == SlotState::Free || parent.is_dead())
    }

    /// The other words of a slot are those of an earlier process until who has reserved it has gone on.
    fn reserver_gone(&self, slot: &Slot) -> Result<bool, Error> {
        let (by, end) = slot.reserved_by();
        let parent = self.slot(by)?;
        if std::ptr::eq(parent, slot) {
            return Ok(slot.life.owner_died());
        }
        let (state, generation) = parent.state()?;
        let same = state != SlotState::Free && Slot::generation_ends_in(generation, end);
        // A thread of it may still be filling the slot.
        Ok(!same || parent.is_dead() && self.is_gone(by, parent))
    }

    fn condition_of(&self, slot: u32) -> Result<Condition, Error> {
        let s = self.slot(slot)?;
        Ok(match s.state()?.0 {
            SlotState::Free => Condition::Fine,
            // Who is dying still has what it has.
            SlotState::Live if s.is_dead() && !self.is_gone(slot, s) => Condition::Fine,
            SlotState::Live if s.is_dead() => Condition::Dead,
            SlotState::Live if slot != 0 && !s.is_detached() && self.parent_gone(s)? => Condition::Orphan,
            SlotState::Reserved if self.reserver_gone(s)? => Condition::Dead,
            _ => Condition::Fine,
        })
    }

    /// Frees a slot that never went live; false when the child was quicker.
    pub fn abandon_slot(&self, slot: u32, generation: u32) -> Result<bool, Error> {
        let s = self.slot(slot)?;
        if s.state()? != (SlotState::Reserved, generation) {
            return Ok(false);
        }
        self.free_blocks_of(slot, false)?;
        Ok(s.change((SlotState::Reserved, generation), (SlotState::Free, generation.wrapping_add(1))))
    }

    /// Takes back all that a dead process had, but for what it left to a parent that has not looked yet. Each step may be repeated after a death in the middle; the slot stays dead until the last.
    fn clean_slot(&self, slot: u32) -> Result<(), Error> {
        let s = self.slot(slot)?;
        let (state, generation) = s.state()?;
        if state == SlotState::Reserved {
            self.abandon_slot(slot, generation)?;
            return Ok(());
        }
        if !s.life.owner_died() {
            self.mark_what_the_kernel_did_not(slot)?;
        }
        self.inherit_losses(SlotId { index: slot, generation });
        // The kernel has woken one of those who sleep until its death, and that one may have died as well.
        s.life.tell_of_death();
        let kept = !s.is_released() && !self.parent_gone(s)?;
        if s.is_cleaned() && kept {
            return Ok(());
        }
        let high = self.objects_high();
        self.each_bit(slot, Table::Hold, high, |index| match self.object(index)? {
            Some(object) => (self.kind_of(index)?.slot_died)(self, object, slot),
            None => Ok(()),
        })?;
        crash::point("clean.objects");
        self.free_blocks_of(slot, kept)?;
        crash::point("clean.blocks");
        for index in 0..high as u32 {
            match self.object_state(index)? {
                (ObjectState::Filling(by), generation) if by == slot => {
                    // Its cell may be the object's already. A word that an earlier object left in the entry names a block of another state.
                    if let Some(block) = BlockId::from_word(self.entry(index)?.block.load(Ordering::Relaxed)) {
                        self.free_if(block, BlockState::Object(index))?;
                    }
                    let free = ObjectState::Free.to_word(generation.wrapping_add(1));
                    self.objects.give_back(&self.memory, u64::from(index), free)?;
                }
                // Whoever has it has joined the tree by a fork, a moment before its parent let go of it: see `rejoin`.
                (ObjectState::Dying(by), generation) if by == slot && self.anybody_has(Table::Hold, index)? => {
                    self.revive(index, generation)?;
                }
                (ObjectState::Dying(by), generation) if by == slot => self.finish_end(index, generation)?,
                _ => {}
            }
        }
        crash::point("clean.entries");
        for (role, table) in [(Role::Sender, Table::Sender), (Role::Receiver, Table::Receiver)] {
            let mut had = Vec::new();
            self.each_bit(slot, table, high, |index| {
                had.push(index);
                Ok(())
            })?;
            for index in had {
                self.holds.clear(&self.memory, slot, table, index)?;
                // The mark phase that follows closes what lost its last holder; here only what is certain.
                if let Some(object) = self.object(index)?
                    && self.nobody_has(table, index)?
                {
                    (self.kind_of(index)?.role_gone)(self, object, role)?;
                }
            }
        }
        let mut held = Vec::new();
        self.each_bit(slot, Table::Hold, high, |index| {
            held.push(index);
            Ok(())
        })?;
        for index in held {
            self.holds.clear(&self.memory, slot, Table::Hold, index)?;
        }
        crash::point("clean.holds");
        if kept {
            s.mark_cleaned();
        } else {
            s.change((SlotState::Live, generation), (SlotState::Free, generation.wrapping_add(1)));
        }
        self.objects.repair(&self.memory)?;
        self.blocks.repair(&self.memory)
    }

    /// Of a process that is gone though its life word says nothing: its list was lost. Also what it had no handle of any more, and so is not looked at
    /// otherwise: a guard may be forgotten. The life word last: who finds it marked finds the rest marked.
    fn mark_what_the_kernel_did_not(&self, slot: u32) -> Result<(), Error> {
        for index in 0..self.objects_high() as u32 {
            if let Some(object) = self.object(index)? {
                (self.kind_of(index)?.slot_died)(self, object, slot)?;
            }
        }
        self.slot(slot)?.life.mark_dead(slot);
        Ok(())
    }

    fn free_blocks_of(&self, slot: u32, keep_last_will: bool) -> Result<(), Error> {
        let mut mine = Vec::new();
        self.blocks.for_each(&self.memory, |block, word| {
            match BlockState::from_word(word)? {
                BlockState::Slot(s) if s == slot && keep_last_will => {}
                BlockState::Filling(s) | BlockState::Slot(s) if s == slot => mine.push((block, None)),
                BlockState::Taken { slot: s, queue, .. } | BlockState::Leased { slot: s, queue, .. } if s == slot => {
                    mine.push((block, Some(queue)));
                }
                _ => {}
            }
            Ok(())
        })?;
        for (block, queue) in mine {
            match queue.map(|q| self.object(q)).transpose()?.flatten() {
                Some(object) => (self.kind_of(object.index)?.block_orphaned)(self, object, block, slot)?,
                None => self.free(block)?,
            }
        }
        Ok(())
    }

    /// Epochs begin anew, and stamps only grow. A death in the middle leaves the epoch, so the next collection does it again.
    #[cold]
    fn clear_stamps(&self) -> Result<(), Error> {
        for index in 0..self.objects.high(&self.memory) {
            // Who is not backed has never been made.
            if let Ok(entry) = self.entry(index as u32) {
                // Relaxed: no collection is active. A mover that was held up since an earlier one may put its stamp back: see `moves::is_stamped`.
                entry.stamp.store(0, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn mark(&self) -> Result<Marks<'_>, Error> {
        let Collection { active, epoch, .. } = self.collection();
        let now = match epoch.load(Ordering::Relaxed) {
            u32::MAX => {
                self.clear_stamps()?;
                // Never 0, which means that no collection is active.
                1
            }
            last => last + 1,
        };
        epoch.store(now, Ordering::Relaxed);
        moves::begin(active, now);
        crash::point("collect.active");
        let high = self.objects_high();
        let mut marks = Marks { arena: self, epoch: now, flags: vec![0; high as usize], work: Vec::new() };
        for slot in 0..self.slots_high() {
            let s = self.slot(slot)?;
            if s.state()?.0 == SlotState::Free {
                continue;
            }
            for (table, flag) in [(Table::Hold, REACHED), (Table::Sender, SENDER), (Table::Receiver, RECEIVER)] {
                self.each_bit(slot, table, high, |index| {
                    marks.reach(index, flag);
                    Ok(())
                })?;
            }
            for block in [&s.args, &s.result] {
                if let Some(block) = BlockId::from_word(block.load(Ordering::Acquire)) {
                    // A block that is being handed over changes under us; its references are then stamped.
                    let _ = record::references(self, block, |r| marks.refer(r));
                }
            }
        }
        marks.follow();
        while marks.stamped()? {
            marks.follow();
        }
        Ok(marks)
    }

    fn sweep(&self, marks: &Marks<'_>) -> Result<u32, Error> {
        let mut freed = 0;
        for index in 0..marks.flags.len() as u32 {
            let (ObjectState::Live, generation) = self.object_state(index)? else { continue };
            let stamped = moves::is_stamped(&self.entry(index)?.stamp, marks.epoch);
            let flags = marks.flags[index as usize];
            if flags & REACHED == 0 {
                if !stamped && self.object_made_before(index, marks)? && self.end_object(index, generation)? {
                    freed += 1;
                }
                continue;
            }
            if !self.kind_of(index)?.channel {
                continue;
            }
            // Reached, but nobody who could send: neither a process nor a record on its way.
            for (flag, role, table) in [(SENDER, Role::Sender, Table::Sender), (RECEIVER, Role::Receiver, Table::Receiver)] {
                if flags & flag != 0 {
                    continue;
                }
                if !stamped || self.nobody_has(table, index)? {
                    let object = self.object_at(index, generation)?;
                    (self.kind_of(index)?.role_gone)(self, object, role)?;
                } else {
                    // It moved while we looked; who dropped the last of the role may have left the rest to us.
                    self.collection().again.store(1, Ordering::SeqCst);
                }
            }
        }
        Ok(freed)
    }

    /// An object that became live after the marks were drawn up lies beyond them or carries the stamp of its making.
    fn object_made_before(&self, index: u32, marks: &Marks<'_>) -> Result<bool, Error> {
        Ok((index as usize) < marks.flags.len()
            && !is_free(self.objects.state(&self.memory, u64::from(index))?.load(Ordering::Acquire)))
    }
}

/// Ends a collection, however it ends: the lock would outlive a panic.
struct Unlock(Collection, Who);

impl Drop for Unlock {
    fn drop(&mut self) {
        let Unlock(words, who) = self;
        words.active.store(0, Ordering::SeqCst);
        words.lock.unlock(who.thread);
    }
}

enum Condition {
    Fine,
    Dead,
    Orphan,
}

const REACHED: u8 = 1;
const SENDER: u8 = 2;
const RECEIVER: u8 = 4;

struct Marks<'a> {
    arena: &'a Arena,
    epoch: u32,
    flags: Vec<u8>,
    work: Vec<u32>,
}

impl Marks<'_> {
    fn reach(&mut self, index: u32, flag: u8) {
        let Some(flags) = self.flags.get_mut(index as usize) else { return };
        if *flags & REACHED == 0 {
            self.work.push(index);
        }
        *flags |= flag | REACHED;
    }

    fn refer(&mut self, reference: RawRef) {
        let alive =
            matches!(self.arena.object_state(reference.index()), Ok((ObjectState::Live, g)) if g == reference.generation());
        let Ok(role) = reference.role() else { return };
        if !alive {
            return;
        }
        self.reach(reference.index(), REACHED);
        for (flag, part) in [(SENDER, Role::Sender), (RECEIVER, Role::Receiver)] {
            if role.includes(part) {
                self.reach(reference.index(), flag);
            }
        }
    }

    fn follow(&mut self) {
        while let Some(index) = self.work.pop() {
            let Ok(Some(object)) = self.arena.object(index) else { continue };
            let Ok(kind) = self.arena.kind_of(index) else { continue };
            // Records are read while others change them; what was read wrong is not live, or harmless: it keeps something one collection longer.
            let _ = (kind.trace)(self.arena, object, &mut |reference| self.refer(reference));
        }
    }

    /// Objects whose references moved during this collection are roots too; whether a pass found any that were not reached yet.
    fn stamped(&mut self) -> Result<bool, Error> {
        let mut found = false;
        for index in 0..self.flags.len() as u32 {
            if self.flags[index as usize] & REACHED == 0 && moves::is_stamped(&self.arena.entry(index)?.stamp, self.epoch) {
                self.reach(index, REACHED);
                found = true;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::held::Held;
    use crate::objects::{Kind, Object};
    use std::sync::{Arc, Mutex};
    use std::thread;

    static OLD: Kind = Kind { end: make_another, ..Kind::plain(1, "Old") };
    static NEW: Kind = Kind::plain(2, "New");
    static KINDS: &[&Kind] = &[&OLD, &NEW];
    static MADE: Mutex<Option<RawRef>> = Mutex::new(None);

    /// As another process may at this moment.
    fn make_another(arena: &Arena, _: Object) -> Result<(), Error> {
        *MADE.lock().unwrap() = Some(arena.make_object(&NEW, 0, (64, 64), Role::Plain, |_| Ok(()))?);
        Ok(())
    }

    #[test]
    fn what_is_made_between_the_marks_and_the_sweep_lives() {
        let arena = Arena::create(&Options { size: 16 << 20, ..Options::new(0, KINDS) }).unwrap();
        let make = |kind| arena.new_object(kind, 0, 64, Role::Plain, |_| Ok(())).unwrap();
        // The entry of the second is free when the marks are drawn up, and has one in which it is not reached.
        let (old, before, last) = (make(&OLD), make(&NEW), make(&NEW));
        let places = [&old, &before, &last].map(|held| held.object().index);
        drop(before);
        old.mark_shared();
        drop(old);
        arena.collect().unwrap();
        let made = MADE.lock().unwrap().expect("the old one has ended");
        assert!(made.index() == places[1] && places[0] < places[1] && places[1] < places[2], "{places:?}, {}", made.index());
        assert_eq!(arena.object_state(made.index()).unwrap(), (ObjectState::Live, made.generation()));
    }

    static CHANNEL: Kind = Kind { channel: true, role_gone: drop_the_last_and_make_another, ..Kind::plain(1, "Channel") };
    static CHANNEL_KINDS: &[&Kind] = &[&CHANNEL, &NEW];
    static LAST: Mutex<Option<Arc<Held>>> = Mutex::new(None);

    /// As another thread may at this moment, which needs no lock for what is its process's own.
    fn drop_the_last_and_make_another(arena: &Arena, object: Object, _: Role) -> Result<(), Error> {
        let Some(last) = LAST.lock().unwrap().take() else { return Ok(()) };
        let made = thread::scope(|scope| {
            let other = scope.spawn(|| {
                drop(last);
                arena.make_object(&NEW, 0, (512, 512), Role::Plain, |_| Ok(()))
            });
            other.join().unwrap()
        })?;
        let at = arena.object_at(made.index(), made.generation())?.offset;
        assert_ne!(at, object.offset, "what the collector has in hand is another's");
        Ok(())
    }

    #[test]
    fn what_the_collector_looks_at_is_not_freed_by_its_owner() {
        let arena = Arena::create(&Options { size: 16 << 20, ..Options::new(0, CHANNEL_KINDS) }).unwrap();
        // Of this process alone, with a receiver and no sender.
        *LAST.lock().unwrap() = Some(arena.new_object(&CHANNEL, 0, 512, Role::Receiver, |_| Ok(())).unwrap());
        arena.collect().unwrap();
        assert!(LAST.lock().unwrap().is_none(), "it was looked at");
        arena.collect().unwrap();
        assert_eq!(arena.audit().unwrap().objects, 1);
    }

    static ASKING: Kind = Kind { end: drop_another_and_ask, ..Kind::plain(3, "Asking") };
    static ASKING_KINDS: &[&Kind] = &[&ASKING, &NEW];
    static LATE: Mutex<Option<Arc<Held>>> = Mutex::new(None);

    /// As another process may at this moment, which finds the lock taken.
    fn drop_another_and_ask(arena: &Arena, _: Object) -> Result<(), Error> {
        drop(LATE.lock().unwrap().take());
        let asked = thread::scope(|scope| scope.spawn(|| arena.collect()).join().unwrap())?;
        assert_eq!(asked, Collected::default());
        Ok(())
    }

    #[test]
    fn who_asks_while_another_collects_has_it_done_by_that_one() {
        let arena = Arena::create(&Options { size: 16 << 20, ..Options::new(0, ASKING_KINDS) }).unwrap();
        let make = |kind| arena.new_object(kind, 0, 64, Role::Plain, |_| Ok(())).unwrap();
        let (first, late) = (make(&ASKING), make(&NEW));
        late.mark_shared();
        *LATE.lock().unwrap() = Some(late);
        first.mark_shared();
        drop(first);
        let done = arena.collect().unwrap();
        assert_eq!((done.rounds, done.objects, arena.audit().unwrap().objects), (2, 2, 0));
    }
}
