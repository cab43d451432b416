//! What this process holds: one [`Held`] for each object and role, shared by all its handles.
//!
//! Clones are counted in private memory (an `Arc`). The shared hold bit changes only when the first handle appears or the last
//! one goes, both under a private mutex, so two threads cannot cross. An object whose handles never left the
//! process is freed with the last of them; any other one waits for a collection.

use crate::arena::Arena;
use crate::error::Error;
use crate::holds::Table;
use crate::memory::Shared;
use crate::objects::{Kind, Object, ObjectState, RawRef};
use multiproc_sys::{crash, robust};
use std::cell::Cell;
use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

/// What the holder of a reference may do with a channel. Bit 0: send, bit 1: receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// The object is no channel.
    Plain = 0,
    /// May send.
    Sender = 1,
    /// May receive.
    Receiver = 2,
    /// Both.
    Both = 3,
}

impl Role {
    pub(crate) fn from_bits(bits: u8) -> Option<Role> {
        [Role::Plain, Role::Sender, Role::Receiver, Role::Both].into_iter().find(|r| *r as u8 == bits)
    }

    /// Whether this role may do what `other` may.
    pub fn includes(self, other: Role) -> bool {
        self as u8 & other as u8 == other as u8
    }
}

impl Role {
    /// The tables in which a holder with this role has its bit.
    pub(crate) fn tables(self) -> impl Iterator<Item = Table> {
        let channel = CHANNEL_ROLES.into_iter().filter(move |(part, _)| self.includes(*part)).map(|(_, table)| table);
        std::iter::once(Table::Hold).chain(channel)
    }
}

const CHANNEL_ROLES: [(Role, Table); 2] = [(Role::Sender, Table::Sender), (Role::Receiver, Table::Receiver)];

/// A reference of this process to a live object.
#[derive(Debug)]
pub struct Held {
    arena: &'static Arena,
    object: Object,
    role: Role,
    /// Another process may have a reference too.
    shared: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) generation: u32,
    pub(crate) shared: bool,
    /// [`Arena::forks`] when this process got it.
    forks: u32,
    /// By role. `Some` until the `Drop` of that `Held` has run.
    pub(crate) held: [Option<Weak<Held>>; 4],
}

impl Local {
    fn any(&self, role: Role) -> bool {
        self.held.iter().enumerate().any(|(bits, h)| h.is_some() && bits as u8 & role as u8 == role as u8)
    }
}

thread_local! {
    // Const and without Drop, so that handles may be dropped in exit handlers too. See [`returning`].
    static LENT: Cell<bool> = const { Cell::new(false) };
}

/// Whether what is dropped on this thread at this moment stands in a record as well.
pub(crate) fn is_lent() -> bool {
    LENT.get()
}

/// Drops what stands in a record as well: what has one owner is not let go of, and nobody looks for what it leaves.
pub fn returning(drop: impl FnOnce()) {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            LENT.set(self.0);
        }
    }
    let _reset = Reset(LENT.replace(true));
    drop();
}

const SHARDS: usize = 16;

/// All that this process holds in one arena.
#[derive(Debug, Default)]
pub struct Registry {
    shards: [Mutex<HashMap<u32, Local>>; SHARDS],
}

impl Registry {
    /// All that is held, for a process that a plain fork made; `None` when another thread of its parent had some of it in its hands at that moment.
    pub(crate) fn after_fork(&self) -> Option<Vec<MutexGuard<'_, HashMap<u32, Local>>>> {
        self.shards
            .iter()
            .map(|shard| match shard.try_lock() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            })
            .collect()
    }

    fn shard(&self, index: u32) -> MutexGuard<'_, HashMap<u32, Local>> {
        // A panic under the lock leaves a map that is as good as before: each step is one insertion or removal.
        self.shards[index as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arena {
    /// A new object of `kind`; `init` fills its zeroed cell.
    pub fn new_object(
        &'static self,
        kind: &'static Kind,
        type_hash: u64,
        size: u64,
        role: Role,
        init: impl FnOnce(Object) -> Result<(), Error>,
    ) -> Result<Arc<Held>, Error> {
        self.new_object_within(kind, type_hash, (size, size), role, init)
    }

    /// As [`new_object`](Arena::new_object), of `size` bytes of which the first `zeroed` are zero; `init` writes the others.
    pub fn new_object_within(
        &'static self,
        kind: &'static Kind,
        type_hash: u64,
        (size, zeroed): (u64, u64),
        role: Role,
        init: impl FnOnce(Object) -> Result<(), Error>,
    ) -> Result<Arc<Held>, Error> {
        if robust::forked() {
            return Err(Error::Forked);
        }
        let made = self.make_object(kind, type_hash, (size, zeroed), role, init)?;
        self.acquire(made, false)
    }

    /// Takes over a reference that a record carries: the hold bit is set before the record may go.
    pub fn adopt(&'static self, reference: RawRef) -> Result<Arc<Held>, Error> {
        self.acquire(reference, true)
    }

    fn acquire(&'static self, reference: RawRef, shared: bool) -> Result<Arc<Held>, Error> {
        if robust::forked() {
            return Err(Error::Forked);
        }
        let (index, generation, role) = (reference.index(), reference.generation(), reference.role()?);
        let mut shard = self.registry.shard(index);
        if let Some(local) = shard.get(&index) {
            if local.generation != generation {
                return Err(Error::Corrupted(&"a stale reference"));
            }
            if let Some(held) = local.held[role as usize].as_ref().and_then(Weak::upgrade) {
                held.shared.fetch_or(shared, Ordering::Relaxed);
                self.stamp(index)?;
                return Ok(held);
            }
        }
        if self.object_state(index)? != (ObjectState::Live, generation) {
            return Err(Error::Corrupted(&"a reference to an object that is gone"));
        }
        for table in role.tables() {
            self.set_bit(table, index)?;
        }
        let object = self.object_at(index, generation)?;
        let held = Arc::new(Held { arena: self, object, role, shared: AtomicBool::new(shared) });
        // Relaxed: who joins by a fork joins with what is in the registry then.
        let forks = self.forks().load(Ordering::Relaxed);
        let local = shard.entry(index).or_insert_with(|| Local { generation, shared, forks, held: Default::default() });
        local.held[role as usize] = Some(Arc::downgrade(&held));
        self.stamp(index)?;
        Ok(held)
    }

    /// Gives up every channel role of this process, as if all its handles were dropped: at the end of a process whose statics never are. The object `except` it
    /// keeps.
    pub fn leave_channels(&'static self, except: Option<u32>) -> Result<(), Error> {
        let mut undecided = false;
        for shard in &self.registry.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (&index, local) in shard.iter().filter(|&(&index, _)| Some(index) != except) {
                for (part, table) in CHANNEL_ROLES {
                    if local.any(part) {
                        let object = self.object_at(index, local.generation)?;
                        (self.kind_of(index)?.left)(self, object, part)?;
                        self.holds.clear(&self.memory, self.my_slot(), table, index)?;
                        undecided |= !self.role_cleared(object, part, table)?;
                    }
                }
            }
        }
        if undecided {
            self.collect()?;
        }
        Ok(())
    }

    /// Whether there are records in the object, and references in them.
    fn carries_references(&self, object: Object) -> Result<bool, Error> {
        let (kind, mut any) = (self.kind_of(object.index)?, false);
        if kind.channel {
            (kind.trace)(self, object, &mut |_| any = true)?;
        }
        Ok(any)
    }

    /// After a role bit was cleared: if it was the last, the channel ends. False when only a collection can tell, since a reference may be under way.
    fn role_cleared(&self, object: Object, role: Role, table: Table) -> Result<bool, Error> {
        if self.anybody_has(table, object.index)? {
            return Ok(true);
        }
        let certain = self.nobody_has(table, object.index)?;
        if certain {
            (self.kind_of(object.index)?.role_gone)(self, object, role)?;
        }
        Ok(certain)
    }
}

impl Held {
    /// Its arena.
    #[inline]
    pub fn arena(&self) -> &'static Arena {
        self.arena
    }

    /// The object.
    #[inline]
    pub fn object(&self) -> Object {
        self.object
    }

    /// What may be done with it.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The same object in another role.
    pub fn with_role(&self, role: Role) -> Result<Arc<Held>, Error> {
        let again = RawRef::new(self.object.index, self.object.generation, role);
        self.arena.acquire(again, self.shared.load(Ordering::Relaxed))
    }

    /// How the reference stands in a record.
    pub fn reference(&self) -> RawRef {
        RawRef::new(self.object.index, self.object.generation, self.role)
    }

    /// The object's cell.
    pub fn cell<T: Shared>(&self) -> Result<&'static T, Error> {
        self.part(0)
    }

    /// A part of the object's cell.
    pub fn part<T: Shared>(&self, at: u64) -> Result<&'static T, Error> {
        if at.saturating_add(size_of::<T>() as u64) > self.object.size {
            return Err(Error::Corrupted(&"an object is smaller than its kind"));
        }
        self.arena.memory().at(self.object.offset + at)
    }

    /// Whether the object is of this kind and type.
    pub fn is(&self, kind: &Kind, type_hash: u64) -> Result<bool, Error> {
        let entry = self.arena.entry(self.object.index)?;
        // Relaxed: constant while the object lives.
        Ok(entry.kind.load(Ordering::Relaxed) == kind.id && entry.type_hash.load(Ordering::Relaxed) == type_hash)
    }

    /// From now on another process may have a reference too.
    pub fn mark_shared(&self) {
        self.shared.store(true, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if robust::forked() {
            return;
        }
        // An error here means corrupted shared memory, of which the next operation tells.
        if self.release().unwrap_or(false) {
            self.arena.collect_soon();
        }
    }
}

impl Held {
    /// Whether a collection shall follow, which is no matter for the time under the private mutex.
    fn release(&self) -> Result<bool, Error> {
        let (arena, object) = (self.arena, self.object);
        let mut collect = false;
        let mut shard = arena.registry.shard(object.index);
        let Some(local) = shard.get_mut(&object.index) else { return Ok(false) };
        local.shared |= self.shared.load(Ordering::Relaxed);
        let place = &mut local.held[self.role as usize];
        if place.as_ref().is_some_and(|w| ptr::eq(w.as_ptr(), self)) {
            *place = None;
        }
        let going = CHANNEL_ROLES.map(|(part, table)| (part, table, self.role.includes(part) && !local.any(part)));
        let (shared, forks, last) = (local.shared, local.forks, local.held.iter().all(Option::is_none));
        if last {
            // Whatever comes of the rest: in corrupted memory the next object at this index would be taken for this one.
            shard.remove(&object.index);
        }
        // Roles first: the hold keeps the object alive while its end is announced.
        for (part, table, _) in going.into_iter().filter(|(.., goes)| *goes) {
            crash::point("held.before_role");
            arena.holds.clear(&arena.memory, arena.my_slot(), table, object.index)?;
            crash::point("held.role_cleared");
            collect |= !arena.role_cleared(object, part, table)?;
            crash::point("held.role_told");
        }
        if last {
            let awaited = shared && !LENT.get() && (arena.kind_of(object.index)?.awaited)(arena, object)?;
            let told = awaited || arena.carries_references(object)?;
            arena.holds.clear(&arena.memory, arena.my_slot(), Table::Hold, object.index)?;
            crash::point("held.let_go");
            if !shared {
                collect |= arena.end_own_object(object.index, object.generation, forks)?;
            }
            // What its records refer to may have lost its last sender or receiver with it.
            collect |= told && !(shared && arena.anybody_has(Table::Hold, object.index)?);
        }
        Ok(collect)
    }
}
