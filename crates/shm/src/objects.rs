//! The object table: what exists in the arena, found by a dense index.
//!
//! An object is one block (its cell) that never moves, and an entry here. A reference to it is {index, generation}; the generation
//! changes when the entry is used again, so a stale reference is told from a live one.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | state `Filling(slot)` | is being made | creator | freed with the slot |
//! | state `Live` | exists | creator, last | as it is |
//! | state `Dying(slot)` | its parts are being freed | who frees it, by CAS from `Live` | the cleaner of the slot goes on |
//! | `block`, `kind`, `type_hash` | constant while live | creator, before `Live` | - |
//! | `stamp` | the newest collection during which a reference moved | movers, by `fetch_max` | one collection later |
//! | `sent`, `received` | references with a channel role put into records, and taken out | sender before its commit, receiver after its own | they differ: a collection finds out |

use crate::arena::Arena;
use crate::blocks::BlockId;
use crate::error::Error;
use crate::held::Role;
use crate::memory::Shared;
use crate::pace::Notice;
use crate::report::Standing;
use crate::slab::TAG_SHIFT;
use std::any::TypeId;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// A number for a Rust type, the same in all processes of a program.
pub fn type_hash<T: 'static>() -> u64 {
    let mut hasher = DefaultHasher::new();
    TypeId::of::<T>().hash(&mut hasher);
    hasher.finish()
}

/// Calls back with each reference that an object's records carry.
pub type Trace = fn(&Arena, Object, &mut dyn FnMut(RawRef)) -> Result<(), Error>;

/// What a floor above knows of one kind of object; the collector and the cleaner call it. Nothing here may wait or lock.
pub struct Kind {
    /// Number in the table; unique.
    pub id: u32,
    /// For reports.
    pub name: &'static str,
    /// Whether holders have roles, and the object ends for one side when the other has gone.
    pub channel: bool,
    /// Calls back with each reference that the object's records carry.
    pub trace: Trace,
    /// A process that held the object is dead: take back what it had.
    pub slot_died: fn(&Arena, Object, u32) -> Result<(), Error>,
    /// A block of the object (a message being taken, a lease) was owned by a dead process.
    pub block_orphaned: fn(&Arena, Object, BlockId, u32) -> Result<(), Error>,
    /// This process gives up its role in the object, though it has handles: it exits in good order.
    pub left: fn(&Arena, Object, Role) -> Result<(), Error>,
    /// Nobody is left who could send (or receive).
    pub role_gone: fn(&Arena, Object, Role) -> Result<(), Error>,
    /// Whether the cell must not be freed yet although nobody references the object: a thread that forgot its guard holds a lock in it, whose word
    /// stands in that thread's robust list.
    pub in_use: fn(&Arena, Object) -> Result<bool, Error>,
    /// Whether somebody may wait for the object's end: then who drops the last reference to it in a process asks for a collection.
    pub awaited: fn(&Arena, Object) -> Result<bool, Error>,
    /// The object ends: free the blocks it owns besides its cell. May be called again after a death in the middle.
    pub end: fn(&Arena, Object) -> Result<(), Error>,
    /// Tells that messages were lost; of the object itself, which may be gone, only the index is known.
    pub tell_of_loss: fn(&Notice),
    /// Says for a report how the object stands, and who has what of it.
    pub report: fn(&Arena, Object, &mut Standing) -> Result<(), Error>,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Kind {
    /// A kind that owns nothing and refers to nothing; to be varied by struct update.
    pub const fn plain(id: u32, name: &'static str) -> Kind {
        Kind {
            id,
            name,
            channel: false,
            trace: |_, _, _| Ok(()),
            slot_died: |_, _, _| Ok(()),
            block_orphaned: |_, _, _, _| Ok(()),
            left: |_, _, _| Ok(()),
            role_gone: |_, _, _| Ok(()),
            in_use: |_, _| Ok(false),
            awaited: |_, _| Ok(false),
            end: |_, _| Ok(()),
            tell_of_loss: |_| {},
            report: |_, _, _| Ok(()),
        }
    }
}

/// A live object as the hooks of its [`Kind`] see it.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// Index in the table.
    pub index: u32,
    /// Its generation.
    pub generation: u32,
    /// Where its cell lies.
    pub offset: u64,
    /// Bytes of the cell.
    pub size: u64,
}

/// An entry of the table; its state word lies in the slab.
#[derive(Debug)]
#[repr(C)]
pub struct Entry {
    /// The cell.
    pub block: AtomicU64,
    /// Of the Rust type and codec.
    pub type_hash: AtomicU64,
    /// [`Kind::id`].
    pub kind: AtomicU32,
    /// See the module head.
    pub stamp: AtomicU32,
    /// See the module head.
    pub sent: AtomicU32,
    /// See the module head.
    pub received: AtomicU32,
}

#[allow(unsafe_code)]
// SAFETY: `repr(C)` of atomics.
unsafe impl Shared for Entry {}

const _: () = assert!(size_of::<Entry>() as u64 == crate::layout::ENTRY_SIZE);

/// State word of an entry: tag:4 | slot:12 | generation:32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectState {
    /// Nothing is here.
    Free,
    /// Being made by the process in this slot.
    Filling(u32),
    /// Exists.
    Live,
    /// Being freed by the process in this slot.
    Dying(u32),
}

impl ObjectState {
    /// The word for this state and generation.
    pub fn to_word(self, generation: u32) -> u64 {
        let (tag, slot) = match self {
            ObjectState::Free => (0u64, 0),
            ObjectState::Filling(slot) => (1, slot),
            ObjectState::Live => (2, 0),
            ObjectState::Dying(slot) => (3, slot),
        };
        tag << TAG_SHIFT | u64::from(slot & 0xfff) << 48 | u64::from(generation)
    }

    /// State and generation of a word.
    pub fn from_word(word: u64) -> Result<(ObjectState, u32), Error> {
        let slot = (word >> 48 & 0xfff) as u32;
        let state = match word >> TAG_SHIFT {
            0 => ObjectState::Free,
            1 => ObjectState::Filling(slot),
            2 => ObjectState::Live,
            3 => ObjectState::Dying(slot),
            _ => return Err(Error::Corrupted(&"an object's state")),
        };
        Ok((state, word as u32))
    }
}

/// A reference as it stands in a record: role:4 | index:28 | generation:32. Never trusted: checked where it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawRef(pub u64);

impl RawRef {
    /// Packs a reference.
    pub fn new(index: u32, generation: u32, role: Role) -> RawRef {
        RawRef(u64::from(role as u8) << 60 | u64::from(index & 0x0fff_ffff) << 32 | u64::from(generation))
    }

    /// Index in the object table.
    pub fn index(self) -> u32 {
        (self.0 >> 32 & 0x0fff_ffff) as u32
    }

    /// Generation of the entry.
    pub fn generation(self) -> u32 {
        self.0 as u32
    }

    /// What the holder may do with a channel.
    pub fn role(self) -> Result<Role, Error> {
        Role::from_bits((self.0 >> 60) as u8).ok_or(Error::Corrupted(&"a reference's role"))
    }
}
