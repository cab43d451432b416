//! What is in use and who has it, for people: nothing here changes anything but for the collection that comes first.

use crate::arena::Arena;
use crate::blocks::BlockState;
use crate::error::Error;
use crate::holds::Table;
use crate::roster::SlotState;
use multiproc_sys::clock::Deadline;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// A collector may have been stopped, and then its figures are as good as can be had.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_micros(100);

/// What the shared objects of a process tree take, by kind, and which process holds how many of them.
///
/// Its `Display` is a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Bytes in use, or kept for the next use.
    pub used: u64,
    /// The bound of `used`.
    pub limit: u64,
    /// Bytes of `used` that are only kept for the next use. What stays so until the next collection goes back to the kernel.
    pub idle: u64,
    /// Bytes that the kernel has given to the arena: its own figure. Above `used` by what the arena needs to keep its books.
    pub backed: u64,
    /// Messages lost since the tree began, of all queues: each died with a process between its taking and the return of `get`. The sum of what the queues' `take_losses` tell.
    pub lost: u64,
    /// Live objects by kind, those with most bytes first.
    pub kinds: Vec<KindStats>,
    /// The tree's processes, the coordinator first.
    pub holders: Vec<HolderStats>,
}

/// The live objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KindStats {
    /// As the type is called: `"Queue"`, `"Lock"`.
    pub name: &'static str,
    /// How many there are.
    pub objects: u64,
    /// Messages and other blocks that belong to them, besides one cell for each.
    pub blocks: u64,
    /// Bytes of all that, as they are backed by memory.
    pub bytes: u64,
}

/// A process of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HolderStats {
    /// Its pid, in its own pid namespace.
    pub pid: u32,
    /// Its name, cut to 64 bytes.
    pub name: String,
    /// Objects that it has a handle to. One that two processes hold counts for each.
    pub objects: u64,
}

impl Stats {
    /// Live objects of all kinds.
    pub fn objects(&self) -> u64 {
        self.kinds.iter().map(|k| k.objects).sum()
    }

    /// The objects of the kind with that name; `None` when there are none.
    pub fn kind(&self, name: &str) -> Option<&KindStats> {
        self.kinds.iter().find(|k| k.name == name)
    }

    /// The process with that pid.
    pub fn holder(&self, pid: u32) -> Option<&HolderStats> {
        self.holders.iter().find(|h| h.pid == pid)
    }
}

impl Arena {
    /// What is in use and who has it, after a collection. Another process that is collecting at this moment is waited for, but not for long.
    pub fn stats(&self) -> Result<Stats, Error> {
        let limit = Deadline::after(PATIENCE);
        while self.collect()?.rounds == 0 && limit.is_some_and(|limit| !limit.passed()) {
            thread::sleep(LOOK_AGAIN);
        }
        let mut kinds: BTreeMap<&'static str, KindStats> = BTreeMap::new();
        let mut of_object = Vec::with_capacity(self.objects_high() as usize);
        for index in 0..self.objects_high() as u32 {
            let name = if self.object(index)?.is_some() { Some(self.kind_of(index)?.name) } else { None };
            if let Some(name) = name {
                kinds.entry(name).or_insert(KindStats { name, objects: 0, blocks: 0, bytes: 0 }).objects += 1;
            }
            of_object.push(name);
        }
        self.blocks.for_each(&self.memory, |block, word| {
            let (object, is_cell) = match BlockState::from_word(word)? {
                BlockState::Object(index) => (index, self.entry(index)?.block.load(Ordering::Relaxed) == block.raw()),
                BlockState::Queue { queue, .. }
                | BlockState::Taken { queue, .. }
                | BlockState::Leased { queue, .. }
                | BlockState::Returned { queue, .. }
                | BlockState::Segment { queue, .. } => (queue, false),
                BlockState::Free | BlockState::Filling(_) | BlockState::Slot(_) => return Ok(()),
            };
            // An object that others have made since is not counted.
            if let Some(kind) = of_object.get(object as usize).copied().flatten().and_then(|name| kinds.get_mut(name)) {
                kind.blocks += u64::from(!is_cell);
                kind.bytes += self.place(block)?.1;
            }
            Ok(())
        })?;
        let mut kinds: Vec<_> = kinds.into_values().collect();
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.bytes));
        let (used, limit) = self.usage();
        Ok(Stats {
            used,
            limit,
            idle: self.blocks.warm(),
            backed: self.memory.backed()?,
            lost: self.lost(),
            kinds,
            holders: self.holders()?,
        })
    }

    fn holders(&self) -> Result<Vec<HolderStats>, Error> {
        let mut holders = Vec::new();
        for index in 0..self.slots_high() {
            let slot = self.slot(index)?;
            if slot.state()?.0 != SlotState::Live || slot.is_dead() {
                continue;
            }
            let mut objects = 0;
            self.each_bit(index, Table::Hold, self.objects_high(), |_| {
                objects += 1;
                Ok(())
            })?;
            // As everywhere: the coordinator has not written its own.
            let name = Some(slot.name()).filter(|name| !name.is_empty() || index != 0).unwrap_or_else(|| "MainProcess".into());
            holders.push(HolderStats { pid: slot.pid.load(Ordering::Relaxed), name, objects });
        }
        Ok(holders)
    }
}

/// `n` bytes, for people.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            n if n < 10 << 10 => format!("{n} B"),
            n if n < 10 << 20 => format!("{} KiB", n >> 10),
            n if n < 10 << 30 => format!("{} MiB", n >> 20),
            n => format!("{} GiB", n >> 30),
        };
        f.pad(&text)
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { used, limit, idle, backed, lost, .. } = *self;
        let [used, limit, idle, backed] = [used, limit, idle, backed].map(Bytes);
        writeln!(f, "memory: {used} of {limit} in use, {idle} of it idle; {backed} given by the kernel")?;
        if lost > 0 {
            writeln!(f, "messages lost with a process that had just taken them: {lost}")?;
        }
        writeln!(f, "{:<24} {:>10} {:>10} {:>10}", "kind", "objects", "blocks", "memory")?;
        for KindStats { name, objects, blocks, bytes } in &self.kinds {
            writeln!(f, "{name:<24} {objects:>10} {blocks:>10} {:>10}", Bytes(*bytes))?;
        }
        writeln!(f, "{:<24} {:>10} {:>10}", "process", "pid", "holds")?;
        for (i, HolderStats { pid, name, objects }) in self.holders.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{name:<24} {pid:>10} {objects:>10}")?;
        }
        Ok(())
    }
}
