//! The byte ring: positions count on for ever, a record may wrap round the end.
//!
//! A record is a head of 8 bytes {length:32, references:16, form:8, check:8}, then the payload padded to 8, then the references. In
//! form `Block` the payload is the name of a block with the message. Nothing here is trusted: a head that does not fit between `head`
//! and `tail` is corruption, found before anything is copied.

use super::cell::End;
use multiproc_shm::blocks::BlockId;
use multiproc_shm::memory::Round;
use multiproc_shm::objects::RawRef;
use multiproc_shm::{Arena, Error};
use std::sync::atomic::Ordering;

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
pub(crate) struct Bytes(Round);

impl Bytes {
    pub(crate) fn new(arena: &Arena, block: BlockId) -> Result<Bytes, Error> {
        let (start, len) = arena.range(block)?;
        Ok(Bytes(arena.memory().round(start, len)?))
    }

    /// Bytes of the ring.
    #[inline]
    pub(crate) fn size(self) -> u64 {
        self.0.size()
    }

    /// Appends the payload of the record at `at` to `into`.
    #[inline]
    pub(crate) fn read_payload(self, at: End, head: Head, into: &mut Vec<u8>) {
        self.0.read(at.position() + HEAD, head.len(), into);
    }

    /// Copies the payload of the record at `at`, padded to words, if it fits.
    #[inline]
    pub(crate) fn read_small(self, at: End, head: Head, into: &mut [u64]) -> bool {
        let Some(words) = into.get_mut(..(head.padded() / 8) as usize) else { return false };
        for (i, word) in words.iter_mut().enumerate() {
            *word = self.0.word(at.position() + HEAD + i as u64 * 8).load(Ordering::Relaxed);
        }
        true
    }

    /// Writes a record at `at`, beyond the tail, where nobody looks.
    #[inline]
    pub(crate) fn write_record(self, at: End, head: Head, payload: &[u8], references: impl Iterator<Item = RawRef>) {
        // Relaxed: the commit publishes.
        self.0.word(at.position()).store(head.to_word(at.seq()), Ordering::Relaxed);
        self.0.write(at.position() + HEAD, payload);
        let list = at.position() + HEAD + head.padded();
        for (i, reference) in references.enumerate() {
            self.0.word(list + i as u64 * 8).store(reference.0, Ordering::Relaxed);
        }
    }

    /// The head of the record at `at`, which must end before `tail`.
    #[inline]
    pub(crate) fn read_head(self, at: End, tail: End) -> Result<Head, Error> {
        let word = self.0.word(at.position()).load(Ordering::Relaxed);
        let head = Head::from_word(word, at.seq()).ok_or(Error::Corrupted(&"a record's head"))?;
        let fits = head.size() <= tail.bytes_since(at)
            && head.size() <= self.size()
            && (head.form() == Form::Inline || (head.len() == 8 && head.references() == 0));
        if fits { Ok(head) } else { Err(Error::Corrupted(&"a record's length")) }
    }

    /// Calls `visit` for each reference of the record at `at`.
    pub(crate) fn references(self, at: End, head: Head, visit: &mut dyn FnMut(RawRef)) {
        let list = at.position() + HEAD + head.padded();
        for i in 0..head.references() {
            visit(RawRef(self.0.word(list + i * 8).load(Ordering::Relaxed)));
        }
    }

    /// The first word of the payload: the block of a record in that form.
    pub(crate) fn payload_word(self, at: End) -> u64 {
        self.0.word(at.position() + HEAD).load(Ordering::Relaxed)
    }
}
