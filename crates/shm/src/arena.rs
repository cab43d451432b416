//! The arena: one sparse memfd that all processes of a tree map, and everything in it.
//!
//! No floor below the fourth has an arena of its own accord: all code is given the one it works in. The one of the process
//! tree is asked for through [`Arena::of_the_tree`], whose provider floor 4 installs; a process may have others beside it.

use crate::blocks::{BlockId, BlockState, Blocks};
use crate::error::Error;
use crate::held::{Registry, Role};
use crate::holds::{Holds, Table};
use crate::layout::{CLASSES, DEFAULT_SIZE, Layout, MIN_SIZE, PAGE, SLOT_SIZE};
use crate::losses::Losses;
use crate::memory::{Account, Memory, Shared};
use crate::moves;
use crate::objects::{Entry, Kind, Object, ObjectState, RawRef};
use crate::pace::Pace;
use crate::raw::{RawLock, Who};
use crate::roster::{Slot, SlotState};
use crate::slab::{Slab, SlabControl, TAG_SHIFT};
use multiproc_sys::robust;
use multiproc_sys::{age, crash, limits};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};

/// So long who needs memory waits for a collection that is somebody else's, which may have been stopped in it.
const OTHERS_COLLECT: Duration = Duration::from_millis(250);
const NOT_YET: Duration = Duration::from_millis(1);

const MAGIC: u64 = u64::from_le_bytes(*b"mltiproc");
/// Changes whenever the meaning of shared memory does.
pub const PROTOCOL: u64 = 1;

/// The first page of an arena.
#[derive(Debug)]
#[repr(C)]
struct Header {
    magic: AtomicU64,
    protocol: AtomicU64,
    build: AtomicU64,
    tree: AtomicU64,
    account: Account,
    slots_high: AtomicU64,
    /// See [`crate::collect`].
    collection: AtomicU32,
    epoch: AtomicU32,
    sliced: AtomicU32,
    /// Somebody asked for a collection while one was running.
    again: AtomicU32,
    /// See [`crate::pace`].
    settled: AtomicU64,
    given_back: AtomicU64,
    collector: RawLock,
    objects: SlabControl,
    classes: [SlabControl; CLASSES],
    /// How many processes that a plain fork made have joined: see [`crate::rejoin`].
    forks: AtomicU32,
    /// How many wait words have got a second watcher: see [`crate::raw::WaitWord`].
    seconds: AtomicU32,
    losses: Losses,
}

#[allow(unsafe_code)]
// SAFETY: `repr(C)` of atomics.
unsafe impl Shared for Header {}

const _: () = assert!(size_of::<Header>() as u64 <= PAGE);

/// The collector's words.
///
/// | word | meaning | written by | if the writer dies there |
/// |---|---|---|---|
/// | `lock` | one collection at a time | collector | the next one starts anew |
/// | `active` | epoch of the running collection, 0 for none | collector | movers stamp in vain until the next |
/// | `epoch` | of the last collection | collector | as it is |
/// | `again` | a collection was asked for meanwhile | who asks; collector | the keeper of the dead process's parent collects |
/// | `settled` | bytes in use after the last collection | collector, last | that of an earlier one: the next is due early or late |
/// | `given_back` | when idle memory was last given back, CLOCK_MONOTONIC in ns | who gives it back, before it does | a later collection does it |
#[derive(Clone, Copy, Debug)]
pub(crate) struct Collection {
    pub(crate) lock: &'static RawLock,
    pub(crate) active: &'static AtomicU32,
    pub(crate) epoch: &'static AtomicU32,
    pub(crate) again: &'static AtomicU32,
    pub(crate) settled: &'static AtomicU64,
    pub(crate) given_back: &'static AtomicU64,
}

/// How an arena is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address space, in bytes; halved until the system grants it.
    pub size: u64,
    /// Bytes of memory it may use; `None`: half of what the cgroup or the machine has at present.
    pub limit: Option<u64>,
    /// Identifies the executable.
    pub build: u64,
    /// Kinds of objects that may live in it.
    pub kinds: &'static [&'static Kind],
}

impl Options {
    /// The usual size and limit.
    pub fn new(build: u64, kinds: &'static [&'static Kind]) -> Options {
        Options { size: DEFAULT_SIZE, limit: None, build, kinds }
    }
}

/// See the module head. Lives as long as the process.
#[derive(Debug)]
pub struct Arena {
    pub(crate) memory: Memory,
    pub(crate) layout: Layout,
    header: &'static Header,
    pub(crate) blocks: Blocks,
    pub(crate) objects: Slab,
    pub(crate) holds: Holds,
    pub(crate) registry: Registry,
    pub(crate) pace: Pace,
    kinds: &'static [&'static Kind],
    /// Who this process is. Changed by [`Arena::rejoin`] alone, while the process has one thread.
    slot: AtomicU32,
    pub(crate) generation: AtomicU32,
    process: AtomicU64,
    /// This process has its byte locked: see [`crate::gone`].
    pub(crate) attends: AtomicBool,
    /// Slot 0.
    coordinator: &'static Slot,
}

type Provider = fn() -> Result<&'static Arena, Error>;
static PROVIDER: OnceLock<Provider> = OnceLock::new();

/// A slot and its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotId {
    /// Index in the roster.
    pub index: u32,
    /// Told apart from earlier and later processes in the same slot.
    pub generation: u32,
}

impl Arena {
    /// A new arena, with the calling process in its slot 0.
    pub fn create(options: &Options) -> Result<&'static Arena, Error> {
        // Here, where it is an error: the keeper thread, which needs it too, could only end the process.
        robust::current()?;
        let most = limits::file_size_limit().unwrap_or(u64::MAX);
        let mut size = options.size.min(most) / PAGE * PAGE;
        let memory = loop {
            if size < MIN_SIZE {
                return Err(Error::Unavailable(
                    &"no shared arena fits: at least 8 MiB of address space are needed (see ulimit -v and ulimit -f)",
                ));
            }
            match Memory::create(size) {
                Ok(memory) => break memory,
                Err(Error::System { errno: libc::ENOMEM | libc::EFBIG | libc::EINVAL, .. }) => size = size / 2 / PAGE * PAGE,
                Err(other) => return Err(other),
            }
        };
        let layout = Layout::plan(size).ok_or(Error::Unavailable(&"no shared arena of that size"))?;
        memory.back(0, layout.roster + PAGE)?;
        let limit = options.limit.unwrap_or_else(|| limits::available_memory() / 2);
        let header = memory.at::<Header>(0)?;
        // Relaxed: nobody else has the arena yet.
        header.protocol.store(PROTOCOL, Ordering::Relaxed);
        header.build.store(options.build, Ordering::Relaxed);
        header.tree.store(RandomState::new().hash_one(std::process::id()), Ordering::Relaxed);
        header.account.limit.store(limit, Ordering::Relaxed);
        header.slots_high.store(1, Ordering::Relaxed);
        header.epoch.store(age::first(32) as u32, Ordering::Relaxed);
        header.sliced.store(u32::from(!robust::wakes_for_the_dead()), Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release);
        let first = SlotId { index: 0, generation: 0 };
        let layout_slots = layout.slots;
        let arena = Arena::assemble(memory, layout, options.kinds, first)?;
        let slot = arena.slot(0)?;
        slot.pid.store(std::process::id(), Ordering::Relaxed);
        slot.change((SlotState::Free, 0), (SlotState::Live, 0));
        let generation = age::first(32) as u32;
        for index in 1..if generation == 0 { 1 } else { layout_slots } {
            arena.slot(index)?.change((SlotState::Free, 0), (SlotState::Free, generation));
        }
        Ok(arena)
    }

    /// Maps the arena that the parent passed; the caller is to live in `slot`.
    pub fn attach(fd: OwnedFd, options: &Options, slot: SlotId) -> Result<&'static Arena, Error> {
        robust::current()?;
        let memory = Memory::attach(fd)?;
        let layout = Layout::plan(memory.size()).ok_or(Error::Corrupted(&"the arena's size"))?;
        let header = memory.at::<Header>(0)?;
        // Acquire pairs with the Release in `create`.
        if header.magic.load(Ordering::Acquire) != MAGIC || header.protocol.load(Ordering::Relaxed) != PROTOCOL {
            return Err(Error::Corrupted(&"not an arena of this version"));
        }
        if header.build.load(Ordering::Relaxed) != options.build {
            return Err(Error::Unavailable(&"the arena belongs to another program"));
        }
        if slot.index >= layout.slots {
            return Err(Error::Corrupted(&"a slot's index"));
        }
        Arena::assemble(memory, layout, options.kinds, slot)
    }

    fn assemble(memory: Memory, layout: Layout, kinds: &'static [&'static Kind], slot: SlotId) -> Result<&'static Arena, Error> {
        let header = memory.at::<Header>(0)?;
        multiproc_sys::futex::wait_in_slices(header.sliced.load(Ordering::Relaxed) != 0);
        let objects = Slab::new(&header.objects, layout.object_states, layout.object_free_bits, u64::from(layout.objects));
        let coordinator = memory.at(layout.roster)?;
        let arena = Arena {
            blocks: Blocks::new(&layout, &header.classes),
            holds: Holds::new(&layout),
            registry: Registry::default(),
            pace: Pace::default(),
            header,
            objects,
            kinds,
            slot: AtomicU32::new(slot.index),
            generation: AtomicU32::new(slot.generation),
            process: AtomicU64::new(Who::process(slot.index, std::process::id())),
            attends: AtomicBool::new(false),
            coordinator,
            memory,
            layout,
        };
        // The mapping is never removed, and handles refer to it from anywhere, exit handlers included.
        Ok(Box::leak(Box::new(arena)))
    }

    /// The arena of this process's tree.
    pub fn of_the_tree() -> Result<&'static Arena, Error> {
        match PROVIDER.get() {
            Some(provide) => provide(),
            None => Err(Error::Unavailable(&"multiproc's start-up code did not run in this program")),
        }
    }

    /// Says where [`of_the_tree`](Arena::of_the_tree) gets it from; the first call counts.
    pub fn provide(provider: Provider) {
        let _ = PROVIDER.set(provider);
    }

    /// The calling thread as an owner of locks.
    #[inline]
    pub fn who(&self) -> Result<Who, Error> {
        // Relaxed: see the field.
        Ok(Who::new(robust::current()?, self.process.load(Ordering::Relaxed)))
    }

    /// The mapping.
    #[inline]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The memfd, for children; an error when the program has closed it.
    pub fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.memory.fd()
    }

    /// The random id of the tree.
    pub fn tree(&self) -> u64 {
        self.header.tree.load(Ordering::Relaxed)
    }

    pub(crate) fn account(&self) -> &'static Account {
        &self.header.account
    }

    /// Bytes of memory in use, and the limit.
    pub fn usage(&self) -> (u64, u64) {
        (self.account().used.load(Ordering::Relaxed), self.account().limit.load(Ordering::Relaxed))
    }

    // --- roster ---------------------------------------------------------------------------------

    /// The calling process's slot.
    #[inline]
    pub fn my_slot(&self) -> u32 {
        // Relaxed: see the field.
        self.slot.load(Ordering::Relaxed)
    }

    /// Tells the calling process from earlier and later ones in its slot.
    #[inline]
    pub fn my_generation(&self) -> u32 {
        // Relaxed: see the field.
        self.generation.load(Ordering::Relaxed)
    }

    /// From now on this process is the one in that slot.
    pub(crate) fn become_another(&self, slot: SlotId, pid: u32) {
        self.slot.store(slot.index, Ordering::Relaxed);
        self.generation.store(slot.generation, Ordering::Relaxed);
        self.process.store(Who::process(slot.index, pid), Ordering::Relaxed);
    }

    /// The id of the process in this slot.
    pub(crate) fn known_pid(&self) -> u32 {
        Who::pid_of(self.process.load(Ordering::Relaxed))
    }

    /// How many processes that a plain fork made have joined the tree.
    pub(crate) fn forks(&self) -> &'static AtomicU32 {
        &self.header.forks
    }

    /// Has the caller look at slots up to this one.
    pub(crate) fn raise_slots_high(&self, index: u32) {
        self.header.slots_high.fetch_max(u64::from(index) + 1, Ordering::AcqRel);
    }

    /// The calling process's own roster slot.
    #[inline]
    pub fn own_slot(&self) -> &'static Slot {
        // It is a slot of the roster: `attach` and `rejoin` have looked.
        self.slot(self.my_slot()).unwrap_or(self.coordinator)
    }

    /// A roster slot.
    #[inline]
    pub fn slot(&self, index: u32) -> Result<&'static Slot, Error> {
        if index >= self.layout.slots {
            return Err(Error::Corrupted(&"a slot's index"));
        }
        self.memory.at(self.layout.roster + u64::from(index) * SLOT_SIZE)
    }

    /// Slots below this index have been used.
    pub fn slots_high(&self) -> u32 {
        // Acquire pairs with the `fetch_max` in `reserve_slot`.
        (self.header.slots_high.load(Ordering::Acquire) as u32).min(self.layout.slots)
    }

    /// Takes a free slot for a child of this process.
    pub fn reserve_slot(&self) -> Result<SlotId, Error> {
        // The first is the coordinator's for good: who has it has no parent.
        for index in 1..self.layout.slots {
            if index >= self.slots_high() {
                let start = (self.layout.roster + u64::from(index) * SLOT_SIZE) / PAGE * PAGE;
                self.memory.back(start, PAGE)?;
            }
            let slot = self.slot(index)?;
            let (state, generation) = slot.state()?;
            let own = self.slot(self.my_slot())?.state()?.1;
            // Before it is reserved: a cleaner looks no further.
            self.header.slots_high.fetch_max(u64::from(index) + 1, Ordering::AcqRel);
            if state != SlotState::Free || !slot.reserve(generation, self.my_slot(), own) {
                continue;
            }
            crash::point("slot.reserved");
            slot.clear();
            slot.parent.store(self.my_slot(), Ordering::Relaxed);
            slot.parent_generation.store(own, Ordering::Relaxed);
            crash::point("slot.cleared");
            return Ok(SlotId { index, generation });
        }
        Err(Error::Full(&"processes"))
    }

    // --- blocks ---------------------------------------------------------------------------------

    /// A block of at least `bytes` bytes in state `Filling(this process)`; collects what is unreachable before it gives up.
    pub fn allocate(&self, bytes: u64) -> Result<BlockId, Error> {
        self.allocate_range(bytes, bytes)
    }

    /// As [`allocate`](Arena::allocate), with room for `range` bytes of which only the first `bytes` are backed: see [`extend`](Arena::extend).
    pub fn allocate_range(&self, range: u64, bytes: u64) -> Result<BlockId, Error> {
        let once = || self.blocks.allocate(&self.memory, self.account(), range, bytes, self.my_slot());
        match once() {
            Ok(block) => {
                self.note_allocated(bytes);
                Ok(block)
            }
            Err(Error::OutOfMemory(_)) => self.collect_for(once),
            other => other,
        }
    }

    /// Tries again after each collection; while somebody else is at one, until that one ends, or for [`OTHERS_COLLECT`].
    #[cold]
    fn collect_for<T>(&self, once: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        let begin = Instant::now();
        loop {
            let ours = self.who().is_ok_and(|who| self.collection().lock.held_by(who.thread));
            let elsewhere = !ours && self.collect().is_ok_and(|done| done.rounds == 0);
            self.blocks.trim(&self.memory, self.account(), self.my_slot())?;
            match once() {
                Err(Error::OutOfMemory(_)) if elsewhere && begin.elapsed() < OTHERS_COLLECT => thread::sleep(NOT_YET),
                other => return other,
            }
        }
    }

    /// As [`allocate_range`](Arena::allocate_range), for room that one could do without: `None` when it is used up, and nothing is collected for it.
    pub fn try_allocate_range(&self, range: u64, bytes: u64) -> Result<Option<BlockId>, Error> {
        match self.blocks.allocate(&self.memory, self.account(), range, bytes, self.my_slot()) {
            Ok(block) => Ok(Some(block)),
            Err(Error::OutOfMemory(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// In blocks of so many bytes, as a power of two, something is kept whose length nobody knows.
    pub fn piece_shift(&self) -> u32 {
        self.layout.piece_shift()
    }

    /// Frees a block that this process owns by protocol.
    pub fn free(&self, block: BlockId) -> Result<(), Error> {
        self.blocks.free(&self.memory, self.account(), block)
    }

    /// Frees a block if its state is still `from`; who changes it first owns it.
    pub fn free_if(&self, block: BlockId, from: BlockState) -> Result<bool, Error> {
        let mine = BlockState::Filling(self.my_slot());
        let won = self.blocks.change_state(&self.memory, block, from, mine)?;
        if won {
            self.free(block)?;
        }
        Ok(won)
    }

    /// Offset and usable size of a block.
    #[inline]
    pub fn place(&self, block: BlockId) -> Result<(u64, u64), Error> {
        self.blocks.place(&self.memory, block)
    }

    /// Offset and address range of a block, backed or not.
    #[inline]
    pub fn range(&self, block: BlockId) -> Result<(u64, u64), Error> {
        self.blocks.range(block)
    }

    /// Backs the first `bytes` bytes of a block that this process owns by protocol; collects what is unreachable before it gives up.
    pub fn extend(&self, block: BlockId, bytes: u64) -> Result<(), Error> {
        let once = || self.blocks.extend(&self.memory, self.account(), block, bytes);
        match once() {
            Err(Error::OutOfMemory(_)) => self.collect_for(once),
            other => other,
        }
    }

    /// Hands a block on; the caller owns it by its present state.
    pub fn set_block_state(&self, block: BlockId, state: BlockState) -> Result<(), Error> {
        self.blocks.set_state(&self.memory, block, state)
    }

    /// Hands a block on if its state is still `from`.
    pub fn change_block_state(&self, block: BlockId, from: BlockState, to: BlockState) -> Result<bool, Error> {
        self.blocks.change_state(&self.memory, block, from, to)
    }

    /// The state of a block.
    pub fn block_state(&self, block: BlockId) -> Result<BlockState, Error> {
        // Acquire pairs with the Release of who set it.
        BlockState::from_word(self.blocks.state(&self.memory, block)?.load(Ordering::Acquire))
    }

    // --- objects --------------------------------------------------------------------------------

    /// The entry of an object.
    pub fn entry(&self, index: u32) -> Result<&'static Entry, Error> {
        if index >= self.layout.objects {
            return Err(Error::Corrupted(&"an object's index"));
        }
        self.memory.at(self.layout.object_entries + u64::from(index) * crate::layout::ENTRY_SIZE)
    }

    /// Objects below this index have been made at some time.
    pub(crate) fn objects_high(&self) -> u64 {
        self.objects.high(&self.memory)
    }

    pub(crate) fn object_state(&self, index: u32) -> Result<(ObjectState, u32), Error> {
        // Acquire pairs with the Release of who made it live.
        ObjectState::from_word(self.objects.state(&self.memory, u64::from(index))?.load(Ordering::Acquire))
    }

    /// The object at `index`, if one lives there.
    pub fn object(&self, index: u32) -> Result<Option<Object>, Error> {
        match self.object_state(index)? {
            (ObjectState::Live, generation) => self.object_at(index, generation).map(Some),
            _ => Ok(None),
        }
    }

    pub(crate) fn object_at(&self, index: u32, generation: u32) -> Result<Object, Error> {
        let block = BlockId::from_word(self.entry(index)?.block.load(Ordering::Relaxed));
        let (offset, size) = self.place(block.ok_or(Error::Corrupted(&"an object without a cell"))?)?;
        Ok(Object { index, generation, offset, size })
    }

    /// The hooks of an object's kind.
    pub(crate) fn kind_of(&self, index: u32) -> Result<&'static Kind, Error> {
        let id = self.entry(index)?.kind.load(Ordering::Relaxed);
        self.kinds.iter().find(|k| k.id == id).copied().ok_or(Error::Corrupted(&"an object's kind"))
    }

    /// Makes an object of `size` bytes, the first `zeroed` of them zero, that `init` fills; nobody else sees it before `init` has returned.
    ///
    /// Killed before the end, it leaves an entry `Filling(slot)` and a block of this slot, which go with the slot.
    pub fn make_object(
        &self,
        kind: &'static Kind,
        type_hash: u64,
        (size, zeroed): (u64, u64),
        role: Role,
        init: impl FnOnce(Object) -> Result<(), Error>,
    ) -> Result<RawRef, Error> {
        let block = self.allocate(size)?;
        crash::point("object.block");
        match self.fill_object((kind, type_hash, role), zeroed, block, init) {
            Ok(made) => Ok(made),
            Err(e) => {
                self.free(block)?;
                Err(e)
            }
        }
    }

    fn fill_object(
        &self,
        (kind, type_hash, role): (&'static Kind, u64, Role),
        zeroed: u64,
        block: BlockId,
        init: impl FnOnce(Object) -> Result<(), Error>,
    ) -> Result<RawRef, Error> {
        let filling = |old: u64| ObjectState::Filling(self.my_slot()).to_word(old as u32);
        let index = match self.objects.take(&self.memory, self.account(), filling)? {
            Some(index) => index,
            None => {
                let _ = self.collect();
                self.objects.take(&self.memory, self.account(), filling)?.ok_or(Error::Full(&"objects"))?
            }
        };
        let state = self.objects.state(&self.memory, index)?;
        let generation = state.load(Ordering::Relaxed) as u32;
        let undo = |e: Error| -> Error {
            let _ = self.objects.give_back(&self.memory, index, ObjectState::Free.to_word(generation.wrapping_add(1)));
            e
        };
        let index = index as u32;
        self.back_entry(index).map_err(undo)?;
        let entry = self.entry(index).map_err(undo)?;
        // Relaxed: published by the Release store of `Live`.
        entry.block.store(BlockId::to_word(Some(block)), Ordering::Relaxed);
        entry.type_hash.store(type_hash, Ordering::Relaxed);
        entry.kind.store(kind.id, Ordering::Relaxed);
        entry.stamp.store(0, Ordering::Relaxed);
        entry.sent.store(0, Ordering::Relaxed);
        entry.received.store(0, Ordering::Relaxed);
        crash::point("object.entry");
        let object = self.object_at(index, generation).map_err(undo)?;
        self.memory.zero(object.offset, zeroed).map_err(undo)?;
        init(object).map_err(undo)?;
        crash::point("object.filled");
        // All bits before it lives: a collection that found the object without a sender would close it.
        for table in role.tables() {
            self.set_bit(table, index).map_err(undo)?;
        }
        self.set_block_state(block, BlockState::Object(index)).map_err(undo)?;
        crash::point("object.owned");
        // Before it is live: a sweep that finds it live finds it stamped, or its collection began after the hold bit was set.
        self.stamp(index).map_err(undo)?;
        // Release pairs with the Acquire in `object_state`.
        state.store(ObjectState::Live.to_word(generation), Ordering::Release);
        Ok(RawRef::new(index, generation, role))
    }

    fn back_entry(&self, index: u32) -> Result<(), Error> {
        let need = u64::from(index + 1) * crate::layout::ENTRY_SIZE;
        let max = u64::from(self.layout.objects) * crate::layout::ENTRY_SIZE;
        let start = self.layout.object_entries;
        let backed = &self.objects.control().data_backed;
        crate::memory::back_up_to(&self.memory, self.account(), backed, start, need, PAGE, max)
    }

    /// Frees an object whose references are gone; false when somebody else does, or when its cell is still in use: then a later collection asks again.
    pub(crate) fn end_object(&self, index: u32, generation: u32) -> Result<bool, Error> {
        let begun = self.begin_end(index, generation)?;
        if begun {
            self.finish_end(index, generation)?;
        }
        Ok(begun)
    }

    fn begin_end(&self, index: u32, generation: u32) -> Result<bool, Error> {
        if let (ObjectState::Live, now) = self.object_state(index)?
            && now == generation
            && (self.kind_of(index)?.in_use)(self, self.object_at(index, generation)?)?
        {
            return Ok(false);
        }
        let state = self.objects.state(&self.memory, u64::from(index))?;
        let live = ObjectState::Live.to_word(generation);
        let dying = ObjectState::Dying(self.my_slot()).to_word(generation);
        // Acquire pairs with the Release that made it live.
        if state.compare_exchange(live, dying, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return Ok(false);
        }
        crash::point("object.dying");
        Ok(true)
    }

    /// Frees an object of which this process alone had handles, the last of which has gone. `forks` is [`Arena::forks`] when it was made: if
    /// that has risen, a child by fork may have joined with them, and a collection finds out. Whether somebody is collecting, so that the collection has to end it.
    pub(crate) fn end_own_object(&self, index: u32, generation: u32, forks: u32) -> Result<bool, Error> {
        if self.forks().load(Ordering::Relaxed) != forks || !self.begin_end(index, generation)? {
            return Ok(false);
        }
        // Pairs with the fence in `register_again`: either this sees the child, or the child sees that the object is dying.
        fence(Ordering::SeqCst);
        if self.forks().load(Ordering::Relaxed) != forks {
            return self.revive(index, generation).map(|()| false);
        }
        // With the fence in `collect_in_rounds`: either who collects sees that the object is dying, or this sees that somebody collects, whose hooks may have its cell in hand.
        if self.collection().lock.is_held() {
            return self.revive(index, generation).map(|()| true);
        }
        self.finish_end(index, generation).map(|()| false)
    }

    /// Takes back the beginning of an object's end.
    pub(crate) fn revive(&self, index: u32, generation: u32) -> Result<(), Error> {
        // Release: as who made it live.
        self.objects.state(&self.memory, u64::from(index))?.store(ObjectState::Live.to_word(generation), Ordering::Release);
        Ok(())
    }

    /// The rest of [`end_object`](Arena::end_object); also for an object that a process died over.
    pub(crate) fn finish_end(&self, index: u32, generation: u32) -> Result<(), Error> {
        if let Ok(object) = self.object_at(index, generation) {
            (self.kind_of(index)?.end)(self, object)?;
        }
        crash::point("object.ended");
        if let Some(block) = BlockId::from_word(self.entry(index)?.block.load(Ordering::Relaxed)) {
            self.free_if(block, BlockState::Object(index))?;
        }
        crash::point("object.cell_freed");
        let free = ObjectState::Free.to_word(generation.wrapping_add(1));
        self.objects.give_back(&self.memory, u64::from(index), free)
    }

    // --- references -----------------------------------------------------------------------------

    /// Step 2 and 3 of every move of a reference: after the new reference is written, before the old one goes.
    #[inline]
    pub fn stamp(&self, index: u32) -> Result<(), Error> {
        let mut found = Ok(());
        let stamped = moves::stamp(&self.header.collection, || match self.entry(index) {
            Ok(entry) => Some(&entry.stamp),
            Err(e) => {
                found = Err(e);
                None
            }
        });
        if stamped {
            crash::point("reference.stamped");
        }
        found
    }

    /// Whether it is certain that neither a process has this role on `index` nor a record carries a reference to it.
    pub(crate) fn nobody_has(&self, table: Table, index: u32) -> Result<bool, Error> {
        let entry = self.entry(index)?;
        // SeqCst, as the counts around the records' commits. `received` follows `sent`: if they are equal in this order, nothing was under way in
        // between, and if `sent` has not risen when all bits have been looked at, none of them has moved behind the look.
        let received = entry.received.load(Ordering::SeqCst);
        let sent = entry.sent.load(Ordering::SeqCst);
        Ok(received == sent && !self.anybody_has(table, index)? && entry.sent.load(Ordering::SeqCst) == sent)
    }

    /// Whether the process of a slot has a handle to the object at `index` with (all of) this role.
    pub fn slot_has(&self, slot: u32, role: Role, index: u32) -> Result<bool, Error> {
        let may_have = self.slot(slot)?.bits_high() > u64::from(index);
        role.tables().try_fold(may_have, |all, table| Ok(all && self.holds.get(&self.memory, slot, table, index)?))
    }

    /// Whether some slot has this role on `index`.
    pub(crate) fn anybody_has(&self, table: Table, index: u32) -> Result<bool, Error> {
        fence(Ordering::SeqCst);
        for slot in 0..self.slots_high() {
            let s = self.slot(slot)?;
            let may_have = s.state()?.0 != SlotState::Free && s.bits_high() > u64::from(index);
            if may_have && self.holds.get(&self.memory, slot, table, index)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sets a hold bit of this process.
    pub(crate) fn set_bit(&self, table: Table, index: u32) -> Result<(), Error> {
        self.slot(self.my_slot())?.note_bit(index);
        self.holds.set(&self.memory, self.my_slot(), table, index)
    }

    /// Calls `visit` for each hold bit of a slot, of objects below `high`.
    pub(crate) fn each_bit(
        &self,
        slot: u32,
        table: Table,
        high: u64,
        visit: impl FnMut(u32) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let high = high.min(self.slot(slot)?.bits_high());
        self.holds.for_each(&self.memory, slot, table, high, visit)
    }

    /// Where second watchers of a [`WaitWord`](crate::raw::WaitWord) are announced.
    pub(crate) fn seconds(&self) -> &'static AtomicU32 {
        &self.header.seconds
    }

    /// The kind of that number.
    pub(crate) fn kind_with(&self, id: u32) -> Option<&'static Kind> {
        self.kinds.iter().find(|kind| kind.id == id).copied()
    }

    pub(crate) fn losses(&self) -> &Losses {
        &self.header.losses
    }

    pub(crate) fn collection(&self) -> Collection {
        let Header { collector, collection, epoch, again, settled, given_back, .. } = self.header;
        Collection { lock: collector, active: collection, epoch, again, settled, given_back }
    }
}

/// Whether a state word is that of a free entry.
pub(crate) fn is_free(word: u64) -> bool {
    word >> TAG_SHIFT == 0
}
