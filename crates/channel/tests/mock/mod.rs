//! What the words of a queue and of a pipe need of the arena: a ring of some words in one block, and nothing else.
#![allow(dead_code)]

use crate::world::{AtomicU64, Ordering};
use std::fmt::Debug;

/// As the original, of what lies in an arena.
///
/// # Safety
/// None.
#[allow(unsafe_code)]
pub(crate) unsafe trait Shared {}

#[derive(Debug)]
pub(crate) enum Error {
    Corrupted(&'static dyn Debug),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockId(u64);

impl BlockId {
    pub(crate) fn from_word(word: u64) -> Option<BlockId> {
        (word != 0).then_some(BlockId(word))
    }

    pub(crate) fn raw(self) -> u64 {
        self.0
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RawRef(pub(crate) u64);

/// The words of the ring, a power of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round(pub(crate) &'static [AtomicU64]);

impl Round {
    pub(crate) fn size(self) -> u64 {
        self.0.len() as u64 * 8
    }

    pub(crate) fn word(self, position: u64) -> &'static AtomicU64 {
        &self.0[(position / 8) as usize & (self.0.len() - 1)]
    }

    pub(crate) fn write(self, position: u64, bytes: &[u8]) {
        for (i, word) in bytes.chunks(8).enumerate() {
            let mut padded = [0; 8];
            padded[..word.len()].copy_from_slice(word);
            self.word(position + i as u64 * 8).store(u64::from_ne_bytes(padded), Ordering::Relaxed);
        }
    }

    pub(crate) fn read(self, position: u64, len: u64, into: &mut Vec<u8>) {
        for i in 0..len.div_ceil(8) {
            into.extend(self.word(position + i * 8).load(Ordering::Relaxed).to_ne_bytes());
        }
        into.truncate(len as usize);
    }
}

/// The arena, which is the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arena(pub(crate) Round);

impl Arena {
    pub(crate) fn range(&self, _block: BlockId) -> Result<(u64, u64), Error> {
        Ok((0, self.0.size()))
    }

    pub(crate) fn memory(&self) -> &Arena {
        self
    }

    pub(crate) fn round(&self, _start: u64, _len: u64) -> Result<Round, Error> {
        Ok(self.0)
    }

    pub(crate) fn words(&self, _start: u64, _len: u64) -> Result<&'static [AtomicU64], Error> {
        Ok(self.0.0)
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        self.0.write(at, bytes);
        Ok(())
    }

    pub(crate) fn read(&self, at: u64, len: u64, into: &mut Vec<u8>) -> Result<(), Error> {
        self.0.read(at, len, into);
        Ok(())
    }
}

/// Hints to the processor.
pub(crate) mod cache {
    pub(crate) fn will_write(_at: *const u8) {}
    pub(crate) fn will_read(_at: *const u8) {}
}

/// Counters begin at 0.
pub(crate) mod age {
    pub(crate) fn first(_bits: u32) -> u64 {
        0
    }
}
