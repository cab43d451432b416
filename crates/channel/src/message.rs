//! What may travel, and the two steps every message goes through: packing with its references, opening with them.
//!
//! Queues and pipes share these: a `Parcel` is an encoded message that its channel puts into a ring or hands over as a block, an
//! `Arrival` one that has been taken out of it and is still to be decoded. Whatever fails, is dropped or panics in between, a block
//! belongs to one of them and is freed with it.

use crate::codec::{Buffer, BufferFailed, Codec, CodecError, EncodeRef};
use crate::ring::bytes::INLINE_REFERENCES;
use crate::scratch::Scratch;
use crate::view;
use multiproc_shm::blocks::BlockId;
use multiproc_shm::scope::{self, Outgoing, References};
use multiproc_shm::{Arena, Error, Held};
use multiproc_sys::{crash, robust};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Larger messages travel as blocks of their own.
pub(crate) const INLINE_BYTES: usize = 4096;
/// A message of so many words needs no memory but the stack on its way out of a pipe.
const SMALL_WORDS: usize = 16;

/// What can travel to another process: arguments, results, messages. Implemented for every type that owns its data and derives serde's traits.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel to another process",
    label = "not a message type",
    note = "messages, arguments and results need `#[derive(Serialize, Deserialize)]` and must own their data (`String`, not `&str`)"
)]
pub trait Message: Serialize + DeserializeOwned + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + 'static> Message for T {}

/// Encodes `value` behind what `into` holds, and collects the handles in it.
#[inline]
pub fn encode<T, C: Codec<T>>(arena: &'static Arena, value: &T, into: &mut Buffer) -> Result<Outgoing, CodecError> {
    let (done, outgoing) = scope::encoding(arena, || C::encode(value, into));
    done.map(|()| outgoing)
}

/// Decodes `bytes`; handles in them take from `references`.
#[inline]
pub fn decode<T, C: Codec<T>>(arena: &'static Arena, bytes: &[u8], references: &[Arc<Held>]) -> Result<T, CodecError> {
    scope::decoding(arena, references, || C::decode(bytes))
}

/// Why a value was not packed.
#[derive(Debug)]
pub(crate) enum PackFailed {
    /// The limit, in bytes.
    TooLarge(u64),
    Codec(CodecError),
    Shared(Error),
}

/// Why a message was not opened.
#[derive(Debug)]
pub(crate) enum OpenFailed {
    Codec(CodecError),
    Shared(Error),
}

/// A block that this process has to itself; freed with it.
#[derive(Debug)]
pub(crate) struct OwnBlock {
    arena: &'static Arena,
    block: BlockId,
    life: u32,
}

impl OwnBlock {
    pub(crate) fn new(arena: &'static Arena, block: BlockId) -> OwnBlock {
        OwnBlock { arena, block, life: robust::life() }
    }

    pub(crate) fn id(&self) -> BlockId {
        self.block
    }

    /// It is another's now.
    pub(crate) fn handed_over(self) {
        std::mem::forget(self);
    }
}

impl Drop for OwnBlock {
    fn drop(&mut self) {
        // In a process made by fork() the block is the parent's.
        if robust::life() == self.life {
            crash::point("block.let_go");
            // Fails only in corrupted memory, of which the next operation tells.
            let _ = self.arena.free(self.block);
        }
    }
}

/// What a ring needs to know of a message that is put into it.
pub(crate) trait Load {
    /// Bytes of the payload.
    fn size(&self) -> u64;
    /// The payload, if it is small enough to lie in a ring.
    fn inline(&self) -> Option<&[u8]>;
    /// The references, by position.
    fn references(&self) -> &[Arc<Held>];
    /// The block of this process with the whole record. Made if the message is small; otherwise it has been there since it was encoded.
    fn block(&mut self) -> Result<BlockId, Error>;
}

/// An encoded message with its references, ready to leave.
#[derive(Debug)]
pub(crate) struct Parcel {
    buffer: Buffer,
    outgoing: Outgoing,
}

impl Parcel {
    /// Room for a message of at most `max` bytes. Filled in its place, since moving it costs as much as encoding a small message.
    #[inline]
    pub(crate) fn new(arena: &'static Arena, max: u64) -> Parcel {
        Parcel { buffer: Buffer::for_message(arena, max), outgoing: Outgoing::default() }
    }

    /// Encodes `value`.
    #[inline]
    pub(crate) fn pack<B: ?Sized, T, C: EncodeRef<B, T>>(&mut self, arena: &'static Arena, value: &B) -> Result<(), PackFailed> {
        let (done, outgoing) = scope::encoding(arena, || C::encode_ref(value, &mut self.buffer));
        self.outgoing = outgoing;
        if done.is_ok() && !self.buffer.has_failed() { Ok(()) } else { Err(self.refused(done.err())) }
    }

    #[cold]
    fn refused(&mut self, why: Option<CodecError>) -> PackFailed {
        match (self.buffer.take_failure(), why) {
            (Some(BufferFailed::TooLarge(limit)), _) => PackFailed::TooLarge(limit),
            (Some(BufferFailed::Shared(e)), _) => PackFailed::Shared(e),
            (None, Some(e)) => PackFailed::Codec(e),
            (None, None) => PackFailed::Codec(CodecError::encode("the codec did not say why")),
        }
    }

    /// The payload, if it is small enough to lie in a ring.
    #[inline]
    pub(crate) fn inline(&self) -> Option<&[u8]> {
        let small = !self.buffer.is_block() && self.outgoing.references().len() <= INLINE_REFERENCES;
        small.then(|| self.buffer.as_slice())
    }

    /// The payload of a message that is small and nothing else.
    #[inline]
    pub(crate) fn plain(&self) -> Option<&[u8]> {
        let plain = !self.buffer.is_block() && self.outgoing.is_empty();
        plain.then(|| self.buffer.as_slice())
    }

    /// The references, by position.
    #[inline]
    pub(crate) fn references(&self) -> &[Arc<Held>] {
        self.outgoing.references()
    }

    /// The block of this process with the whole record. Made if the message is small; otherwise it has been there since it was encoded.
    pub(crate) fn block(&mut self) -> Result<BlockId, Error> {
        self.buffer.seal(self.outgoing.references().iter().map(|h| h.reference()))
    }

    /// The references alone, of a message whose payload is kept elsewhere.
    pub(crate) fn into_outgoing(self) -> Outgoing {
        self.outgoing
    }

    /// The message has committed: its block, if it travels in one, and what moves with it belong to the receiver.
    #[inline]
    pub(crate) fn gone(&mut self) {
        self.buffer.handed_over();
        self.outgoing.gone();
    }
}

impl Load for Parcel {
    #[inline]
    fn size(&self) -> u64 {
        self.buffer.len() as u64
    }

    #[inline]
    fn inline(&self) -> Option<&[u8]> {
        Parcel::inline(self)
    }

    #[inline]
    fn references(&self) -> &[Arc<Held>] {
        Parcel::references(self)
    }

    fn block(&mut self) -> Result<BlockId, Error> {
        Parcel::block(self)
    }
}

/// A message that has been taken, before it is decoded.
#[derive(Debug)]
pub(crate) struct Arrival {
    arena: &'static Arena,
    /// The payload of a message that lay in a ring, if it is not in `bytes`: as words, which are how it was written and how most of it is read.
    small: [u64; SMALL_WORDS],
    /// Bytes in `small`.
    len: usize,
    /// Once there is something: the payload of a longer one.
    bytes: Scratch,
    pub(crate) references: References,
    block: Option<OwnBlock>,
}

impl Arrival {
    #[inline]
    pub(crate) fn new(arena: &'static Arena) -> Arrival {
        Arrival { arena, small: [0; SMALL_WORDS], len: 0, bytes: Scratch::NONE, references: References::new(), block: None }
    }

    /// Where a payload of `len` bytes goes, padded to words, if it is small.
    #[inline]
    pub(crate) fn small(&mut self, len: usize) -> Option<&mut [u64]> {
        let words = self.small.get_mut(..len.div_ceil(8))?;
        self.len = len;
        Some(words)
    }

    /// Where any payload may go.
    #[inline]
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        if !self.bytes.is_there() {
            self.bytes = Scratch::take();
        }
        &mut self.bytes
    }

    #[inline]
    pub(crate) fn payload(&self) -> &[u8] {
        if self.bytes.is_there() { &self.bytes } else { &bytemuck::must_cast_slice(&self.small)[..self.len] }
    }

    /// The message lies in this block, which is this process's own by its state and freed with the arrival.
    #[inline]
    pub(crate) fn in_block(&mut self, block: BlockId) {
        self.block = Some(OwnBlock::new(self.arena, block));
    }

    pub(crate) fn arena(&self) -> &'static Arena {
        self.arena
    }

    /// Where a large message lies.
    pub(crate) fn block(&self) -> Option<BlockId> {
        self.block.as_ref().map(OwnBlock::id)
    }

    /// The value.
    #[inline]
    pub(crate) fn open<T, C: Codec<T>>(&self) -> Result<T, OpenFailed> {
        match &self.block {
            None => decode::<T, C>(self.arena, self.payload(), &self.references).map_err(OpenFailed::Codec),
            Some(block) => open_block::<T, C>(self.arena, block.id(), &self.references),
        }
    }
}

/// Decodes the record in a block of this process, in place if the codec reads each byte once.
pub(crate) fn open_block<T, C: Codec<T>>(
    arena: &'static Arena,
    block: BlockId,
    references: &[Arc<Held>],
) -> Result<T, OpenFailed> {
    view::with_payload(arena, block, |payload| {
        if C::READS_ONCE {
            return decode::<T, C>(arena, payload, references);
        }
        let mut copy = Scratch::take();
        copy.extend_from_slice(payload);
        decode::<T, C>(arena, &copy, references)
    })
    .map_err(OpenFailed::Shared)?
    .map_err(OpenFailed::Codec)
}
