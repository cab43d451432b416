//! A message's bytes where they lie.
#![allow(unsafe_code)]

use multiproc_shm::blocks::BlockId;
use multiproc_shm::{Arena, Error, record};
use std::slice;

/// Calls `look` with the payload of the record in `block`, which this process owns by the block's state.
pub(crate) fn with_payload<R>(arena: &Arena, block: BlockId, look: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
    let head = record::head(arena, block)?;
    let start = arena.memory().pointer_to(head.payload, head.len)?;
    // SAFETY: in bounds and mapped for ever. Nobody writes a record between its commit and its end: what changes is its head. Memory safety within
    // a tree rests on its processes keeping that, as between threads; a codec that does not ask for the bytes themselves reads a copy.
    let payload = unsafe { slice::from_raw_parts(start, head.len as usize) };
    Ok(look(payload))
}
