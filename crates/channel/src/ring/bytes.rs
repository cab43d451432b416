//! The byte ring: positions count on for ever, a record may wrap round the end.
//!
//! A record is a head of 8 bytes {length:32, references:16, form:8, check:8}, then the payload padded to 8, then the references. In
//! form `Block` the payload is the name of a block with the message. Nothing here is trusted: a head that does not fit between `head`
//! and `tail` is corruption, found before anything is copied.

use super::cell::End;
use crate::beneath::{Arena, AtomicU64, BlockId, Error, Ordering, RawRef, Round};

/// A message with more references travels as a block.
pub(crate) const INLINE_REFERENCES: usize = 64;

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
        HEAD + self.padded() + self.references() * 8
    }

    /// Bytes of the payload, padded to words.
    #[inline]
    fn padded(self) -> u64 {
        (self.len() + 7) & !7
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

/// The ring's place in the arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes {
    /// The ring; the table, where the ring lies in segments.
    round: Round,
    /// Bytes of the ring, a power of two.
    len: u64,
    /// Segments are of `1 << segment_bits` bytes: see [`super::segments`]. 0: the ring is one piece.
    pub(crate) segment_bits: u32,
}

impl Bytes {
    /// The ring in a block, or that whose table is in a block.
    pub(crate) fn new(arena: &Arena, block: BlockId, segment_bits: u32) -> Result<Bytes, Error> {
        let (start, len) = arena.range(block)?;
        let round = arena.memory().round(start, len)?;
        // An entry of the table has 8 bytes.
        let len = if segment_bits == 0 { len } else { (len >> 3) << segment_bits };
        Ok(Bytes { round, len, segment_bits })
    }

    /// Bytes of the ring.
    #[inline]
    pub(crate) fn size(self) -> u64 {
        self.len
    }

    /// Bytes between head and tail for which there is room, wherever they begin: the segments in which they begin and end may have little of them.
    #[inline]
    pub(crate) fn room(self) -> u64 {
        if self.segment_bits == 0 { self.len } else { self.len.saturating_sub(2 << self.segment_bits) }
    }

    /// The ring itself, if it is one piece.
    #[inline]
    pub(crate) fn piece(self) -> Option<Round> {
        (self.segment_bits == 0).then_some(self.round)
    }

    /// The memory in which a position lies, and the position there.
    #[inline]
    fn at(self, arena: &Arena, position: u64) -> Result<Round, Error> {
        if self.segment_bits == 0 { Ok(self.round) } else { self.segment_at(arena, position) }
    }

    fn segment_at(self, arena: &Arena, position: u64) -> Result<Round, Error> {
        let number = ((position & (self.len - 1)) >> self.segment_bits) as u32;
        // Relaxed: an entry is written before the commit of what lies in its segment.
        let block = BlockId::from_word(self.entry(number).load(Ordering::Relaxed));
        let (start, len) = arena.range(block.ok_or(Error::Corrupted(&"a queue's segment"))?)?;
        if len >> self.segment_bits == 0 {
            return Err(Error::Corrupted(&"a queue's segment"));
        }
        arena.memory().round(start, 1 << self.segment_bits)
    }

    /// Bytes from a position on that lie in one segment.
    #[inline]
    fn together(self, position: u64) -> u64 {
        if self.segment_bits == 0 { u64::MAX } else { (1 << self.segment_bits) - (position & ((1 << self.segment_bits) - 1)) }
    }

    /// How many segments the table has room for.
    pub(crate) fn segments(self) -> u32 {
        (self.len >> self.segment_bits) as u32
    }

    /// The table's entry for the segment with that number.
    #[inline]
    pub(crate) fn entry(self, number: u32) -> &'static AtomicU64 {
        self.round.word(u64::from(number) * 8)
    }

    #[inline]
    fn word(self, arena: &Arena, position: u64) -> Result<&'static AtomicU64, Error> {
        Ok(self.at(arena, position)?.word(position))
    }

    #[inline]
    fn write(self, arena: &Arena, position: u64, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            // The record may end with its segment, and the next one need not be there.
            return Ok(());
        }
        let (first, rest) = bytes.split_at(bytes.len().min(self.together(position) as usize));
        self.at(arena, position)?.write(position, first);
        if !rest.is_empty() {
            let position = position + first.len() as u64;
            self.at(arena, position)?.write(position, rest);
        }
        Ok(())
    }

    /// Appends the payload of the record at `at` to `into`.
    #[inline]
    pub(crate) fn read_payload(self, arena: &Arena, at: End, head: Head, into: &mut Vec<u8>) -> Result<(), Error> {
        if head.len() == 0 {
            // As in `write`.
            return Ok(());
        }
        let position = at.position() + HEAD;
        let first = head.len().min(self.together(position));
        self.at(arena, position)?.read(position, first, into);
        if first < head.len() {
            self.at(arena, position + first)?.read(position + first, head.len() - first, into);
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
        // Relaxed: the commit publishes.
        self.word(arena, at.position())?.store(head.to_word(at.seq()), Ordering::Relaxed);
        self.write(arena, at.position() + HEAD, payload)?;
        let list = at.position() + HEAD + head.padded();
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
            && match head.form() {
                Form::Inline => head.references() <= INLINE_REFERENCES as u64,
                Form::Block => head.len() == 8 && head.references() == 0,
            };
        if fits { Ok(head) } else { Err(Error::Corrupted(&"a record's length")) }
    }

    /// Calls `visit` for each reference of the record at `at`.
    pub(crate) fn references(self, arena: &Arena, at: End, head: Head, visit: &mut dyn FnMut(RawRef)) -> Result<(), Error> {
        let list = at.position() + HEAD + head.padded();
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

/// Writes a record without references at `at` of a ring in one piece, beyond the tail, where nobody looks.
#[inline]
pub(crate) fn write_plain(ring: Round, at: End, head: Head, payload: &[u8]) {
    // Relaxed: the commit publishes.
    ring.word(at.position()).store(head.to_word(at.seq()), Ordering::Relaxed);
    ring.write(at.position() + HEAD, payload);
}

/// Copies the payload of the record at `at` of a ring in one piece, padded to words, if it fits.
#[inline]
pub(crate) fn read_small(ring: Round, at: End, head: Head, into: &mut [u64]) -> bool {
    let Some(words) = into.get_mut(..(head.padded() / 8) as usize) else { return false };
    for (i, word) in words.iter_mut().enumerate() {
        *word = ring.word(at.position() + HEAD + i as u64 * 8).load(Ordering::Relaxed);
    }
    true
}
