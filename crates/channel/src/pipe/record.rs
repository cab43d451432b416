//! Records in a pipe's ring: positions count on for ever, a record may wrap round the end, and its head is its commit.
//!
//! A record is a head of 8 bytes {length:32, references:16, form:8, check:8}, then the payload padded to 8, then the references. The word
//! at the position of the next record is 0 until that one is committed: the sender clears it before it stores the head of the record in front.
//! So the receiver looks at one word, on the line where the message begins, and nowhere else.
//!
//! Nothing here is trusted: a head with another check than its position asks for, or with a size that no sender may use, is corruption.

use crate::beneath::{Arena, AtomicU64, BlockId, Error, Ordering, RawRef, cache};

const HEAD: u64 = 8;
/// A payload of so many bytes is copied by words, as it was written a moment ago: a wider load of them would wait until they, and all that was stored
/// before them, have left the processor for the cache.
const BY_WORDS: usize = 128;
/// Bytes of a record that names a block, or a death.
pub(crate) const WORD_RECORD: u64 = 16;
/// Behind each record stays room for the word of the next one, and for the mark of a death with its own next.
pub(crate) const RESERVE: u64 = HEAD + WORD_RECORD;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// An encoded value.
    Value = 1,
    /// Bytes from `send_bytes`.
    Bytes = 2,
    /// The name of a block with an encoded value.
    ValueBlock = 3,
    /// The name of a block with bytes.
    BytesBlock = 4,
    /// The pid of a sender that died after the record before this one.
    Death = 5,
}

impl Form {
    #[inline]
    fn from_bits(bits: u64) -> Option<Form> {
        Some(match bits {
            1 => Form::Value,
            2 => Form::Bytes,
            3 => Form::ValueBlock,
            4 => Form::BytesBlock,
            5 => Form::Death,
            _ => return None,
        })
    }

    pub(crate) fn is_block(self) -> bool {
        matches!(self, Form::ValueBlock | Form::BytesBlock)
    }

    /// The same kind of message in a block.
    pub(crate) fn as_block(self) -> Form {
        match self {
            Form::Value => Form::ValueBlock,
            Form::Bytes => Form::BytesBlock,
            other => other,
        }
    }
}

/// The head of a record without its check: one word, so that it stays in a register. Several small fields that are stored one by one and loaded as one
/// would wait until they, and all that was stored before them, have left the processor for the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head(u64);

impl Head {
    /// `len` in bytes of the payload, and the number of references behind it.
    #[inline]
    pub(crate) fn new(form: Form, len: u32, references: u16) -> Head {
        Head(u64::from(len) | u64::from(references) << 32 | (form as u64) << 48)
    }

    #[inline]
    pub(crate) fn form(self) -> Form {
        // A head is made of a form, or of a word whose form has been looked at.
        Form::from_bits(self.0 >> 48).unwrap_or(Form::Death)
    }

    /// Bytes of the payload.
    #[inline]
    pub(crate) fn len(self) -> u32 {
        self.0 as u32
    }

    /// Number of references behind it.
    #[inline]
    pub(crate) fn references(self) -> u16 {
        (self.0 >> 32) as u16
    }

    #[inline]
    pub(crate) fn size(self) -> u64 {
        HEAD + u64::from(self.len()).next_multiple_of(8) + u64::from(self.references()) * 8
    }

    #[inline]
    fn to_word(self, at: u64) -> u64 {
        self.0 | check(at) << 56
    }

    #[inline]
    fn from_word(word: u64, at: u64) -> Option<Head> {
        Form::from_bits(word >> 48 & 0xff)?;
        (word >> 56 == check(at)).then_some(Head(word & u64::MAX >> 8))
    }
}

#[inline]
fn check(at: u64) -> u64 {
    at >> 3 & 0xff
}

/// A position that a peer may have written: a multiple of 8, and so far from the last one that adding to it is safe.
#[inline]
pub(crate) fn position(word: u64) -> Result<u64, Error> {
    const FAR: u64 = 1 << 62;
    if word.is_multiple_of(8) && word < FAR { Ok(word) } else { Err(Error::Corrupted(&"a pipe's ends")) }
}

/// The number of a record's block: its position, counted round, and the way.
pub(crate) fn seq(way: usize, at: u64) -> u32 {
    (at >> 3) as u32 & 0x7f_ffff | (way as u32) << 23
}

/// A ring's place in the arena. `len` is a power of two.
#[derive(Debug)]
pub(crate) struct Ring {
    start: u64,
    pub(crate) len: u64,
    /// All of it. Looked up once, so that a word of it is found by its position alone.
    words: &'static [AtomicU64],
}

impl Ring {
    /// The ring in a block that a peer has named.
    pub(crate) fn in_block(arena: &Arena, word: u64) -> Result<Option<Ring>, Error> {
        let Some(block) = BlockId::from_word(word) else { return Ok(None) };
        Ring::new(arena, block).map(Some)
    }

    /// The ring in a block.
    pub(crate) fn new(arena: &Arena, block: BlockId) -> Result<Ring, Error> {
        let (start, len) = arena.range(block)?;
        if !len.is_power_of_two() {
            return Err(Error::Corrupted(&"a ring's size"));
        }
        Ok(Ring { start, len, words: arena.memory().words(start, len)? })
    }

    #[inline]
    fn place(&self, position: u64) -> u64 {
        position & (self.len - 1)
    }

    /// The word at a position, which is a multiple of 8.
    #[inline]
    fn word(&self, position: u64) -> Result<&'static AtomicU64, Error> {
        self.words.get((self.place(position) / 8) as usize).ok_or(Error::Corrupted(&"a ring's size"))
    }

    #[inline]
    fn write(&self, arena: &Arena, position: u64, bytes: &[u8]) -> Result<(), Error> {
        let at = self.place(position);
        if bytes.len() <= BY_WORDS && bytes.len() as u64 <= self.len - at {
            return self.write_by_words(at, bytes);
        }
        let first = bytes.len().min((self.len - at) as usize);
        arena.memory().write(self.start + at, &bytes[..first])?;
        if first < bytes.len() {
            arena.memory().write(self.start, &bytes[first..])?;
        }
        Ok(())
    }

    /// What is smaller than a word at the end is padded by zeroes, as there is room.
    #[inline]
    fn write_by_words(&self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        let (words, rest) = bytes.as_chunks::<8>();
        let first = (at / 8) as usize;
        let to = self.words.get(first..first + bytes.len().div_ceil(8)).ok_or(Error::Corrupted(&"a ring's size"))?;
        for (to, word) in to.iter().zip(words) {
            // Relaxed: the commit publishes.
            to.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
        }
        if let (false, Some(last)) = (rest.is_empty(), to.last()) {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            last.store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
        Ok(())
    }

    /// What lies at a position will be written soon.
    #[inline]
    pub(crate) fn will_write(&self, position: u64) {
        cache::will_write(self.words.as_ptr().wrapping_add((self.place(position) / 8) as usize).cast());
    }

    /// What lies at a position will be read soon.
    #[inline]
    pub(crate) fn will_read(&self, position: u64) {
        cache::will_read(self.words.as_ptr().wrapping_add((self.place(position) / 8) as usize).cast());
    }

    /// Whether a record is committed at `at`. A word that is none counts: reading it tells.
    #[inline]
    pub(crate) fn is_committed(&self, at: u64) -> Result<bool, Error> {
        Ok(self.word(at)?.load(Ordering::Relaxed) != 0)
    }

    /// The record at `at`, if one is committed there.
    #[inline]
    pub(crate) fn head(&self, at: u64) -> Result<Option<Head>, Error> {
        // Acquire pairs with the Release in `commit`.
        let word = self.word(at)?.load(Ordering::Acquire);
        if word == 0 {
            return Ok(None);
        }
        let head = Head::from_word(word, at).ok_or(Error::Corrupted(&"a record's head"))?;
        let as_its_form = match head.form() {
            Form::Value | Form::Bytes => true,
            _ => head.size() == WORD_RECORD && head.references() == 0,
        };
        if head.size() + HEAD <= self.len && as_its_form { Ok(Some(head)) } else { Err(Error::Corrupted(&"a record's length")) }
    }

    /// Copies the first words of the payload of the record at `at`, if they lie in one piece.
    #[inline]
    pub(crate) fn read_words(&self, at: u64, into: &mut [u64]) -> bool {
        let first = (self.place(at + HEAD) / 8) as usize;
        let Some(from) = self.words.get(first..first + into.len()) else { return false };
        for (to, from) in into.iter_mut().zip(from) {
            // Relaxed: published by the commit, which has been seen.
            *to = from.load(Ordering::Relaxed);
        }
        true
    }

    /// Appends the payload of the record at `at` to `into`.
    #[inline]
    pub(crate) fn read_payload(&self, arena: &Arena, at: u64, head: Head, into: &mut Vec<u8>) -> Result<(), Error> {
        let (place, len) = (self.place(at + HEAD), u64::from(head.len()));
        let first = len.min(self.len - place);
        arena.memory().read(self.start + place, first, into)?;
        if first < len {
            arena.memory().read(self.start, len - first, into)?;
        }
        Ok(())
    }

    /// Calls `visit` for each reference of the record at `at`.
    pub(crate) fn references(&self, at: u64, head: Head, visit: &mut dyn FnMut(RawRef)) -> Result<(), Error> {
        let list = at + HEAD + u64::from(head.len()).next_multiple_of(8);
        for i in 0..u64::from(head.references()) {
            visit(RawRef(self.word(list + i * 8)?.load(Ordering::Relaxed)));
        }
        Ok(())
    }

    /// The first word of the payload: a block's name, or a pid.
    pub(crate) fn payload_word(&self, at: u64) -> Result<u64, Error> {
        Ok(self.word(at + HEAD)?.load(Ordering::Relaxed))
    }

    /// Writes all of a record but its head, which [`commit`](Ring::commit) stores, and clears the word of the next.
    #[inline]
    pub(crate) fn write_record(
        &self,
        arena: &Arena,
        at: u64,
        head: Head,
        payload: &[u8],
        references: impl Iterator<Item = RawRef>,
    ) -> Result<(), Error> {
        self.write(arena, at + HEAD, payload)?;
        let list = at + HEAD + u64::from(head.len()).next_multiple_of(8);
        for (i, reference) in references.enumerate() {
            // Relaxed: the commit publishes.
            self.word(list + i as u64 * 8)?.store(reference.0, Ordering::Relaxed);
        }
        self.clear(at + head.size())
    }

    /// No record is committed at `at`.
    #[inline]
    pub(crate) fn clear(&self, at: u64) -> Result<(), Error> {
        // Relaxed: published by the commit of the record in front, or of the ring.
        self.word(at)?.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// The word whose store commits a record, and what to store.
    #[inline]
    pub(crate) fn commit_word(&self, at: u64, head: Head) -> Result<(&'static AtomicU64, u64), Error> {
        Ok((self.word(at)?, head.to_word(at)))
    }

    /// The position behind the last committed record, from one that was it at some time. Nobody sends meanwhile.
    pub(crate) fn end_from(&self, at: u64) -> Result<u64, Error> {
        let mut end = at;
        while end - at < self.len {
            let Some(head) = self.head(end)? else { return Ok(end) };
            end += head.size();
        }
        Err(Error::Corrupted(&"a pipe's records"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_survive_the_word_and_know_their_place() {
        for form in [Form::Value, Form::Bytes, Form::ValueBlock, Form::BytesBlock, Form::Death] {
            let head = Head::new(form, 4096, 64);
            for at in [0, 8, 8 * 255, u64::MAX - 7] {
                let word = head.to_word(at);
                assert!(word != 0);
                assert_eq!(Head::from_word(word, at), Some(head));
                assert_eq!(Head::from_word(word, at.wrapping_add(8)), None);
            }
        }
        assert_eq!(Head::from_word(6 << 48, 0), None);
        assert_ne!(seq(0, 8), seq(1, 8));
    }
}
