//! The byte ring: positions count on for ever, a record may wrap round the end.
//!
//! A record is a head of 8 bytes {length:32, references:16, form:8, check:8}, then the payload padded to 8, then the references. In
//! form `Block` the payload is the name of a block with the message. Nothing here is trusted: a head that does not fit between `head`
//! and `tail` is corruption, found before anything is copied.

use super::cell::End;
use super::segments::Entry;
use multiproc_shm::objects::RawRef;
use multiproc_shm::{Arena, Error};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a record that names a block.
pub(crate) const BLOCK_RECORD: u64 = 16;
const HEAD: u64 = 8;

/// How a message lies in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Inline = 1,
    Block = 2,
}

/// The head of a record without its check. One word, so that it is moved whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head(u64);

impl Head {
    #[inline]
    pub(crate) fn new(form: Form, len: u32, references: u16) -> Head {
        Head(u64::from(len) | u64::from(references) << 32 | (form as u64) << 48)
    }

    #[inline]
    pub(crate) fn form(self) -> Form {
        if self.0 >> 48 == Form::Inline as u64 { Form::Inline } else { Form::Block }
    }

    /// Bytes of the payload.
    #[inline]
    pub(crate) fn len(self) -> u64 {
        u64::from(self.0 as u32)
    }

    /// Number of references behind it.
    #[inline]
    pub(crate) fn references(self) -> u64 {
        u64::from((self.0 >> 32) as u16)
    }

    #[inline]
    pub(crate) fn size(self) -> u64 {
        HEAD + self.len().next_multiple_of(8) + self.references() * 8
    }

    #[inline]
    fn to_word(self, seq: u32) -> u64 {
        self.0 | u64::from(seq & 0xff) << 56
    }

    #[inline]
    fn from_word(word: u64, seq: u32) -> Option<Head> {
        let form = word >> 48 & 0xff;
        let known = form == Form::Inline as u64 || form == Form::Block as u64;
        (known && word >> 56 == u64::from(seq & 0xff)).then_some(Head(word & ((1 << 56) - 1)))
    }
}

/// The ring's place in the arena. `len` is a power of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes {
    /// Of the ring; of the table, where the ring lies in segments.
    pub(crate) start: u64,
    pub(crate) len: u64,
    /// Segments are of `1 << segment_bits` bytes: see [`super::segments`]. 0: the ring is one piece.
    pub(crate) segment_bits: u32,
}

impl Bytes {
    #[inline]
    fn place(self, position: u64) -> u64 {
        position & (self.len - 1)
    }

    /// Bytes from a position on that lie together.
    #[inline]
    fn room(self, position: u64) -> u64 {
        let len = if self.segment_bits == 0 { self.len } else { 1 << self.segment_bits };
        len - (position & (len - 1))
    }

    /// Where a position lies in the arena.
    #[inline]
    fn offset(self, arena: &Arena, position: u64) -> Result<u64, Error> {
        if self.segment_bits == 0 { Ok(self.start + self.place(position)) } else { self.offset_in_segment(arena, position) }
    }

    #[inline]
    fn offset_in_segment(self, arena: &Arena, position: u64) -> Result<u64, Error> {
        let entry = self.entry(arena, (self.place(position) >> self.segment_bits) as u32)?;
        // Relaxed: an entry is written before the commit of what lies in its segment. A peer may have written over it: where it leads to is checked when
        // it is used, and one within the arena is as wrong as a wrong block would be.
        let start = entry.start.load(Ordering::Relaxed);
        Ok(start.saturating_add(position & ((1 << self.segment_bits) - 1)))
    }

    /// How many segments the table has room for.
    pub(crate) fn segments(self) -> u32 {
        (self.len >> self.segment_bits) as u32
    }

    /// The table's entry for the segment with that number.
    #[inline]
    pub(crate) fn entry(self, arena: &Arena, number: u32) -> Result<&'static Entry, Error> {
        arena.memory().at(self.start + u64::from(number & (self.segments() - 1)) * Entry::SIZE)
    }

    #[inline]
    fn word(self, arena: &Arena, position: u64) -> Result<&'static AtomicU64, Error> {
        arena.memory().at(self.offset(arena, position)?)
    }

    #[inline]
    fn write(self, arena: &Arena, position: u64, bytes: &[u8]) -> Result<(), Error> {
        let first = bytes.len().min(self.room(position) as usize);
        arena.memory().write(self.offset(arena, position)?, &bytes[..first])?;
        if first < bytes.len() {
            arena.memory().write(self.offset(arena, position + first as u64)?, &bytes[first..])?;
        }
        Ok(())
    }

    /// Appends the payload of the record at `at` to `into`.
    #[inline]
    pub(crate) fn read_payload(self, arena: &Arena, at: End, head: Head, into: &mut Vec<u8>) -> Result<(), Error> {
        let position = at.position() + HEAD;
        let first = head.len().min(self.room(position));
        arena.memory().read(self.offset(arena, position)?, first, into)?;
        if first < head.len() {
            arena.memory().read(self.offset(arena, position + first)?, head.len() - first, into)?;
        }
        Ok(())
    }

    /// Writes a record at `at`, beyond the tail, where nobody looks.
    #[inline]
    pub(crate) fn write_record(
        self,
        arena: &Arena,
        at: End,
        head: Head,
        payload: &[u8],
        references: impl Iterator<Item = RawRef>,
    ) -> Result<(), Error> {
        let (start, room) = (self.offset(arena, at.position())?, self.room(at.position()));
        // Relaxed: the commit publishes.
        arena.memory().at::<AtomicU64>(start)?.store(head.to_word(at.seq()), Ordering::Relaxed);
        if HEAD + payload.len() as u64 <= room {
            arena.memory().write(start + HEAD, payload)?;
        } else {
            self.write(arena, at.position() + HEAD, payload)?;
        }
        let list = at.position() + HEAD + head.len().next_multiple_of(8);
        for (i, reference) in references.enumerate() {
            self.word(arena, list + i as u64 * 8)?.store(reference.0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The head of the record at `at`, which must end before `tail`.
    #[inline]
    pub(crate) fn read_head(self, arena: &Arena, at: End, tail: End) -> Result<Head, Error> {
        let word = self.word(arena, at.position())?.load(Ordering::Relaxed);
        let head = Head::from_word(word, at.seq()).ok_or(Error::Corrupted(&"a record's head"))?;
        let fits = head.size() <= tail.bytes_since(at)
            && head.size() <= self.len
            && (head.form() == Form::Inline || (head.len() == 8 && head.references() == 0));
        if fits { Ok(head) } else { Err(Error::Corrupted(&"a record's length")) }
    }

    /// Calls `visit` for each reference of the record at `at`.
    pub(crate) fn references(self, arena: &Arena, at: End, head: Head, visit: &mut dyn FnMut(RawRef)) -> Result<(), Error> {
        let list = at.position() + HEAD + head.len().next_multiple_of(8);
        for i in 0..head.references() {
            visit(RawRef(self.word(arena, list + i * 8)?.load(Ordering::Relaxed)));
        }
        Ok(())
    }

    /// The first word of the payload: the block of a record in that form.
    pub(crate) fn payload_word(self, arena: &Arena, at: End) -> Result<u64, Error> {
        Ok(self.word(arena, at.position() + HEAD)?.load(Ordering::Relaxed))
    }
}
