//! Records in blocks: a payload and, in the clear behind it, the references that it carries.
//!
//! `payload length u64 | references u32 | attempt u32 | note u64 | holder u64 | payload, padded to 8 | references, 8 bytes each`
//!
//! The serialised form of a handle inside the payload is its position in that list, so payload bytes cannot forge one,
//! and the collector finds the references without knowing the payload's format.

use crate::arena::Arena;
use crate::blocks::BlockId;
use crate::error::Error;
use crate::held::Held;
use crate::objects::RawRef;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes before the payload.
pub const HEADER: u64 = 32;

/// The head of a record in a block, checked against the block's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// Where the payload begins in the arena.
    pub payload: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Number of references behind it.
    pub references: u32,
}

/// Bytes of a record with this payload and so many references.
pub fn size(payload: u64, references: u64) -> u64 {
    HEADER + payload.next_multiple_of(8) + references * 8
}

/// Writes a record into a new block of this process.
pub fn write(arena: &Arena, payload: &[u8], references: impl ExactSizeIterator<Item = RawRef>) -> Result<BlockId, Error> {
    let count = references.len() as u64;
    let block = arena.allocate(size(payload.len() as u64, count))?;
    let written = arena.place(block).and_then(|(at, _)| arena.memory().write(at + HEADER, payload));
    match written.and_then(|()| seal(arena, block, payload.len() as u64, references)) {
        Ok(()) => Ok(block),
        Err(e) => {
            arena.free(block)?;
            Err(e)
        }
    }
}

/// Makes a record of a block of this process in which the payload lies already, [`HEADER`] bytes from its beginning.
pub fn seal(arena: &Arena, block: BlockId, len: u64, references: impl ExactSizeIterator<Item = RawRef>) -> Result<(), Error> {
    let (at, room) = arena.place(block)?;
    if size(len, references.len() as u64) > room {
        return Err(Error::Corrupted(&"a record is larger than its block"));
    }
    let memory = arena.memory();
    // Relaxed: the block is private until its state, or a commit, publishes it.
    memory.at::<AtomicU64>(at)?.store(len, Ordering::Relaxed);
    memory.at::<AtomicU32>(at + 8)?.store(references.len() as u32, Ordering::Relaxed);
    attempt(arena, block)?.store(1, Ordering::Relaxed);
    note(arena, block)?.store(0, Ordering::Relaxed);
    let list = at + HEADER + len.next_multiple_of(8);
    for (i, reference) in references.enumerate() {
        memory.at::<AtomicU64>(list + i as u64 * 8)?.store(reference.0, Ordering::Relaxed);
    }
    Ok(())
}

/// How often the message has been given out; kept by leases.
pub fn attempt(arena: &Arena, block: BlockId) -> Result<&'static AtomicU32, Error> {
    arena.memory().at(arena.place(block)?.0 + 12)
}

/// A word for the owner's use; leases keep the place in their table there.
pub fn note(arena: &Arena, block: BlockId) -> Result<&'static AtomicU64, Error> {
    arena.memory().at(arena.place(block)?.0 + 16)
}

/// A second word for the owner's use, written before it is read; leases keep there who has, or had, the message.
pub fn holder(arena: &Arena, block: BlockId) -> Result<&'static AtomicU64, Error> {
    arena.memory().at(arena.place(block)?.0 + 24)
}

/// Reads and checks the head.
pub fn head(arena: &Arena, block: BlockId) -> Result<RecordHead, Error> {
    let (at, room) = arena.place(block)?;
    let len = arena.memory().at::<AtomicU64>(at)?.load(Ordering::Relaxed);
    let references = arena.memory().at::<AtomicU32>(at + 8)?.load(Ordering::Relaxed);
    let need = HEADER.checked_add(len.checked_next_multiple_of(8).ok_or(Error::Corrupted(&"a record's length"))?);
    let need = need.and_then(|n| n.checked_add(u64::from(references) * 8));
    if need.is_none_or(|n| n > room) {
        return Err(Error::Corrupted(&"a record's length"));
    }
    Ok(RecordHead { payload: at + HEADER, len, references })
}

/// Calls `visit` for each reference of a record.
pub fn references(arena: &Arena, block: BlockId, mut visit: impl FnMut(RawRef)) -> Result<(), Error> {
    let head = head(arena, block)?;
    let list = head.payload + head.len.next_multiple_of(8);
    for i in 0..u64::from(head.references) {
        visit(RawRef(arena.memory().at::<AtomicU64>(list + i * 8)?.load(Ordering::Relaxed)));
    }
    Ok(())
}

/// Takes over all references of a record.
pub fn adopt(arena: &'static Arena, block: BlockId) -> Result<Vec<Arc<Held>>, Error> {
    let mut list = Vec::new();
    references(arena, block, |r| list.push(r))?;
    list.into_iter().map(|r| arena.adopt(r)).collect()
}

/// Before a record with these references commits: channels learn that somebody's role is under way.
#[inline]
pub fn announce(arena: &Arena, held: &[Arc<Held>]) -> Result<(), Error> {
    for h in held {
        h.mark_shared();
        // SeqCst: counted before the reference leaves, as `Arena::role_of_anybody` reads it.
        arena.entry(h.object().index)?.sent.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

/// The record did not commit after all.
pub fn withdraw(arena: &Arena, held: &[Arc<Held>]) -> Result<(), Error> {
    for h in held {
        arena.entry(h.object().index)?.sent.fetch_sub(1, Ordering::SeqCst);
    }
    Ok(())
}

/// After a record with these references has committed, while the sender still holds them.
#[inline]
pub fn committed(arena: &Arena, held: &[Arc<Held>]) -> Result<(), Error> {
    held.iter().try_for_each(|h| arena.stamp(h.object().index))
}

/// As [`arrived`], for all references of the record in `block`.
pub fn arrived_with(arena: &Arena, block: BlockId) -> Result<(), Error> {
    references(arena, block, |r| {
        // An index outside the table was refused when the reference was taken over.
        if let Ok(entry) = arena.entry(r.index()) {
            entry.received.fetch_add(1, Ordering::Release);
        }
    })
}

/// After the record was consumed for good: its references are this process's own now.
#[inline]
pub fn arrived(arena: &Arena, held: &[Arc<Held>]) -> Result<(), Error> {
    for h in held {
        arena.entry(h.object().index)?.received.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}
