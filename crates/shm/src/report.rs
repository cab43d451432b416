//! A survey of the tree for people: its processes, who holds what, who waits for what.
//!
//! It takes no lock and waits for nobody: all of it are single reads of words that others may be changing, checked before they are used. What
//! cannot be read is counted and left out. Waits are read before and after everything else and count if they are the same ones: so whoever waits in a
//! survey has waited while the objects were looked at, and what such a thread held then it held all the time.

use crate::arena::{Arena, SlotId};
use crate::error::Error;
use crate::holds::Table;
use crate::notes::{Awaited, Op, Waits};
use crate::objects::Object;
use crate::raw::RawLock;
use crate::roster::SlotState;
use multiproc_sys::clock::now_nanos;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// How an object stands.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Such as "3 of 100 items".
    pub state: Cow<'static, str>,
    /// Operations that need not wait at this moment, unless somebody in `holdings` holds them up: for the process in a slot, or for all.
    open: Vec<Open>,
    /// Who has what of it.
    pub holdings: Vec<Holding>,
    /// Whether what is missing may turn up with somebody who is not among the holders: in a message on its way.
    pub astray: bool,
    /// Whether whoever has a handle may bring what an acquirer waits for.
    pub ownerless: bool,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    to: Option<u32>,
    op: Op,
    /// Known because nobody sleeps; it says nothing of one who has given up.
    awake: bool,
}

impl Open {
    fn fits(&self, slot: u32, op: Op) -> bool {
        self.op == op && self.to.is_none_or(|to| to == slot)
    }
}

/// Something that a process or one of its threads has of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Roster slot of the process; `None` when a thread has not named itself yet.
    pub slot: Option<u32>,
    /// The thread, where it belongs to one.
    pub thread: Option<u32>,
    /// Such as "2 permits"; empty for the whole object.
    pub what: String,
    /// Operations that wait until it is given back: by this thread alone, or by any of those who hold up the same.
    pub holds_up: Vec<Op>,
}

impl Standing {
    /// Enters who holds a lock of the object; until it is released these operations wait.
    pub fn lock(&mut self, lock: &RawLock, what: &str, holds_up: &[Op]) {
        if let Some(holder) = lock.holder() {
            self.holdings.push(Holding {
                slot: holder.process.map(|(slot, _)| slot),
                thread: Some(holder.thread),
                what: what.to_owned(),
                holds_up: holds_up.to_vec(),
            });
        }
    }

    /// Enters that an operation need not wait.
    pub fn open(&mut self, op: Op) {
        self.open.push(Open { to: None, op, awake: false });
    }

    /// Enters that an operation of one process need not wait.
    pub fn open_to(&mut self, slot: u32, op: Op) {
        self.open.push(Open { to: Some(slot), op, awake: false });
    }

    /// Enters that whoever waits (of one process, or of all) for this operation has been woken, or is about to look again.
    pub fn awake(&mut self, to: Option<u32>, op: Op) {
        self.open.push(Open { to, op, awake: true });
    }

    /// Whether an operation of the process in `slot` need not wait.
    pub fn is_open_to(&self, slot: u32, op: Op) -> bool {
        self.open.iter().any(|open| open.fits(slot, op))
    }

    fn is_over(&self, slot: u32, waits: &Waits) -> bool {
        self.open.iter().any(|open| open.fits(slot, waits.op) && !(open.awake && waits.gave_up.is_some()))
    }

    /// Enters what a process has, whichever of its threads; one of those who hold up these operations must give something back.
    pub fn share(&mut self, slot: u32, what: String, holds_up: &[Op]) {
        self.holdings.push(Holding { slot: Some(slot), thread: None, what, holds_up: holds_up.to_vec() });
    }
}

/// For [`Kind::report`](crate::objects::Kind::report) of objects that begin with their lock.
pub fn lock_first(arena: &Arena, object: Object, standing: &mut Standing) -> Result<(), Error> {
    let lock = arena.memory().at::<RawLock>(object.offset)?;
    standing.lock(lock, "", &[Op::Lock]);
    standing.state = if !standing.holdings.is_empty() {
        "held"
    } else if lock.owner_died() {
        "free, its owner died"
    } else {
        "free"
    }
    .into();
    Ok(())
}

/// A process in the roster.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// Its slot.
    pub id: SlotId,
    /// Reserved for a process that has not reported, or live.
    pub state: SlotState,
    /// The kernel has marked it dead; it is not cleaned up after.
    pub dead: bool,
    /// Its id; 0 before it has reported.
    pub pid: u32,
    /// Its name; empty for the coordinator.
    pub name: String,
    /// Slot of its parent, if that is still there.
    pub parent: Option<u32>,
    /// Since when it takes part, CLOCK_MONOTONIC in ns; 0 before.
    pub started: u64,
    /// What its threads wait for.
    pub waits: Vec<Waits>,
    /// How many more of its threads wait.
    pub unnoted: u32,
}

/// An object that somebody has something of, or waits for.
#[derive(Clone, Debug)]
pub struct Described {
    /// [`Kind::name`](crate::objects::Kind::name).
    pub kind: &'static str,
    /// How it stands.
    pub standing: Standing,
    /// Slots of the processes with a handle; that may send; that may receive. Only of objects that are waited for.
    pub holders: [Vec<u32>; 3],
}

/// See the module head.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// When it was taken, CLOCK_MONOTONIC in ns.
    pub now: u64,
    /// By slot.
    pub processes: Vec<Surveyed>,
    /// By index.
    pub objects: BTreeMap<u32, Described>,
    /// Slots and objects that hold what no correct process writes.
    pub unreadable: u32,
}

/// Who must do something for a wait to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocker {
    /// Nobody: it is about to end.
    Nobody,
    /// A thread. Without a slot it is one that has not named itself yet.
    Thread {
        /// Of its process.
        slot: Option<u32>,
        /// Its id.
        thread: u32,
    },
    /// Any one of the processes in these slots.
    AnyOf {
        /// Their slots.
        slots: Vec<u32>,
        /// Whether it can be nobody else.
        all: bool,
    },
}

impl Survey {
    /// The process in a slot.
    pub fn process(&self, slot: u32) -> Option<&Surveyed> {
        let at = self.processes.binary_search_by_key(&slot, |p| p.id.index).ok()?;
        Some(&self.processes[at])
    }

    /// Who must do something for a wait of a thread of the process in `slot` to end.
    pub fn blocker(&self, slot: u32, waits: &Waits) -> Blocker {
        let index = match waits.on {
            // Nobody knows which things those are.
            Awaited::Debugger | Awaited::AnyOf(_) => return Blocker::AnyOf { slots: Vec::new(), all: false },
            Awaited::Process { slot, generation } => {
                let running = self.process(slot).filter(|p| p.id.generation as u16 == generation && !p.dead);
                // A worker ends when its main thread does, whose id is the process's.
                return running.map_or(Blocker::Nobody, |p| Blocker::Thread { slot: Some(slot), thread: p.pid });
            }
            Awaited::Object(index) => index,
        };
        let Some(Described { standing, holders: [any, senders, receivers], .. }) = self.objects.get(&index) else {
            return Blocker::Nobody;
        };
        let holds_up = |h: &&Holding| h.holds_up.contains(&waits.op);
        let turn = standing.holdings.iter().filter(holds_up).find_map(|h| Some((h.slot, h.thread?)));
        match turn {
            Some((slot, thread)) if thread != waits.thread => return Blocker::Thread { slot, thread },
            // Taken or released this moment.
            _ if waits.op == Op::Lock => return Blocker::Nobody,
            _ => {}
        }
        if standing.is_over(slot, waits) {
            return Blocker::Nobody;
        }
        let shares = standing.holdings.iter().filter(holds_up).filter(|h| h.thread.is_none()).filter_map(|h| h.slot);
        let slots = match waits.op {
            Op::Acquire if !standing.ownerless => shares.collect(),
            Op::Get => senders.clone(),
            // Who has a lease can receive, too.
            Op::Put | Op::JoinQueue => receivers.clone(),
            // The roles stand for the two ends of a pipe: whoever has the other one.
            Op::Recv | Op::Send => match (senders.contains(&slot), receivers.contains(&slot)) {
                (true, false) => receivers.clone(),
                (false, true) => senders.clone(),
                _ => any.clone(),
            },
            _ => any.clone(),
        };
        Blocker::AnyOf { slots, all: !standing.astray }
    }
}

impl Arena {
    /// Looks at everything: see the module head.
    pub fn survey(&self) -> Survey {
        let mut survey = Survey { now: now_nanos(), ..Survey::default() };
        for slot in 0..self.slots_high() {
            match self.survey_slot(slot) {
                Ok(process) => survey.processes.extend(process),
                Err(_) => survey.unreadable += 1,
            }
        }
        let mine = self.my_slot();
        if let (Some(waits), Some(me)) = (self.gave_up(), survey.processes.iter_mut().find(|p| p.id.index == mine)) {
            me.waits.push(waits);
        }
        let awaited: BTreeSet<u32> = survey
            .processes
            .iter()
            .flat_map(|p| &p.waits)
            .filter_map(|w| match w.on {
                Awaited::Object(index) => Some(index),
                _ => None,
            })
            .collect();
        for index in 0..self.objects_high() as u32 {
            match self.survey_object(index, awaited.contains(&index)) {
                Ok(Some(described)) => _ = survey.objects.insert(index, described),
                Ok(None) => {}
                Err(_) => survey.unreadable += 1,
            }
        }
        for process in &mut survey.processes {
            let again = self.survey_slot(process.id.index).ok().flatten().filter(|again| again.id == process.id);
            let now = again.map(|p| p.waits).unwrap_or_default();
            process.waits.retain(|w| w.gave_up.is_some() || w.since != 0 && now.contains(w));
        }
        survey
    }

    /// How many threads wait for an object, as far as the notes tell.
    pub fn waiters(&self, index: u32) -> usize {
        let slots = (0..self.slots_high()).filter_map(|slot| self.survey_slot(slot).ok().flatten());
        slots.flat_map(|process| process.waits).filter(|waits| waits.on == Awaited::Object(index)).count()
    }

    fn survey_slot(&self, index: u32) -> Result<Option<Surveyed>, Error> {
        let slot = self.slot(index)?;
        let (state, generation) = slot.state()?;
        if state == SlotState::Free {
            return Ok(None);
        }
        let dead = slot.life.owner_died();
        // While a slot is reserved its other words may be those of an earlier process.
        let (parent, same) = if state == SlotState::Reserved {
            let (parent, end) = slot.reserved_by();
            (parent, crate::roster::Slot::generation_ends_in(self.slot(parent)?.state()?.1, end))
        } else {
            let parent = slot.parent.load(Ordering::Relaxed);
            let generation = slot.parent_generation.load(Ordering::Relaxed);
            (parent, self.slot(parent).and_then(|p| p.state()).is_ok_and(|(_, now)| now == generation))
        };
        let live = state == SlotState::Live && !dead;
        Ok(Some(Surveyed {
            id: SlotId { index, generation },
            state,
            dead,
            pid: slot.pid.load(Ordering::Relaxed),
            name: slot.name(),
            parent: (same && parent != index).then_some(parent),
            started: slot.started.load(Ordering::Relaxed),
            waits: if live { slot.notes.read() } else { Vec::new() },
            unnoted: if live { slot.notes.unnoted() } else { 0 },
        }))
    }

    /// `None` for what no report mentions.
    fn survey_object(&self, index: u32, awaited: bool) -> Result<Option<Described>, Error> {
        let Some(object) = self.object(index)? else { return Ok(None) };
        let kind = self.kind_of(index)?;
        let mut standing = Standing::default();
        (kind.report)(self, object, &mut standing)?;
        let alive = |slot: u32| self.slot(slot).is_ok_and(|s| !s.life.owner_died());
        standing.holdings.retain(|h| h.slot.is_none_or(alive));
        if standing.holdings.is_empty() && !awaited {
            return Ok(None);
        }
        let mut holders = [Vec::new(), Vec::new(), Vec::new()];
        if awaited {
            let entry = self.entry(index)?;
            standing.astray |= entry.sent.load(Ordering::Acquire) != entry.received.load(Ordering::Acquire);
            for (list, table) in holders.iter_mut().zip([Table::Hold, Table::Sender, Table::Receiver]) {
                *list = self.slots_with(table, index)?;
            }
        }
        Ok(Some(Described { kind: kind.name, standing, holders }))
    }

    /// Slots of the living processes that have a handle of `index` in this role.
    pub fn slots_with(&self, table: Table, index: u32) -> Result<Vec<u32>, Error> {
        let mut list = Vec::new();
        for slot in 0..self.slots_high() {
            let s = self.slot(slot)?;
            let may_have = s.state()?.0 == SlotState::Live && !s.life.owner_died() && s.bits_high() > u64::from(index);
            if may_have && self.holds.get(&self.memory, slot, table, index)? {
                list.push(slot);
            }
        }
        Ok(list)
    }
}
