//! Many messages at once: packed side by side before a putter takes its lock, and taken side by side before they are decoded.

use crate::codec::{Codec, EncodeRef};
use crate::message::{self, INLINE_BYTES, Load, OpenFailed, OwnBlock, PackFailed, Parcel};
use crate::scratch::Scratch;
use multiproc_shm::blocks::BlockId;
use multiproc_shm::scope::{Outgoing, References};
use multiproc_shm::{Arena, Error, Held, record};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Messages that are packed before the lock is taken.
const ITEMS: usize = 128;
/// Bytes of small ones, and of large ones.
const SMALL_BYTES: usize = 8 * INLINE_BYTES;
const LARGE_BYTES: u64 = 1 << 20;

/// Values with their encoded forms, in order, not yet put.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    /// The payloads of small messages.
    bytes: Vec<u8>,
    large: u64,
    values: VecDeque<T>,
    packed: VecDeque<Packed>,
}

#[derive(Debug)]
enum Packed {
    /// `spilled` when the ring had no room for its bytes.
    Small {
        at: Range<usize>,
        outgoing: Outgoing,
        spilled: Option<OwnBlock>,
    },
    Large(Parcel),
}

impl<T> Batch<T> {
    pub(crate) fn new() -> Batch<T> {
        Batch { bytes: Vec::new(), large: 0, values: VecDeque::new(), packed: VecDeque::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.packed.len()
    }

    /// Whether it is time to put.
    pub(crate) fn is_full(&self) -> bool {
        self.packed.len() >= ITEMS || self.bytes.len() >= SMALL_BYTES || self.large >= LARGE_BYTES
    }

    /// Packs a value; one that cannot be packed comes back.
    pub(crate) fn add<C: EncodeRef<T, T>>(&mut self, arena: &'static Arena, value: T, max: u64) -> Result<(), (T, PackFailed)> {
        let mut parcel = Parcel::new(arena, max);
        let packed = parcel.pack::<T, T, C>(arena, &value).and_then(|()| match parcel.inline() {
            Some(_) => Ok(()),
            None => parcel.block().map(drop).map_err(PackFailed::Shared),
        });
        if let Err(why) = packed {
            return Err((value, why));
        }
        let packed = match parcel.inline() {
            Some(payload) => {
                let at = self.bytes.len()..self.bytes.len() + payload.len();
                self.bytes.extend_from_slice(payload);
                Packed::Small { at, outgoing: parcel.into_outgoing(), spilled: None }
            }
            None => {
                self.large += parcel.size();
                Packed::Large(parcel)
            }
        };
        self.packed.push_back(packed);
        self.values.push_back(value);
        Ok(())
    }

    /// The message at a place in the order.
    pub(crate) fn at<'a>(&'a mut self, arena: &'static Arena, place: usize) -> Option<InBatch<'a>> {
        let packed = self.packed.get_mut(place)?;
        Some(InBatch { arena, bytes: &self.bytes, packed })
    }

    /// The first so many have committed.
    pub(crate) fn gone(&mut self, count: usize) {
        for packed in self.packed.drain(..count) {
            match packed {
                Packed::Small { outgoing, spilled, .. } => {
                    if let Some(block) = spilled {
                        block.handed_over();
                    }
                    outgoing.gone();
                }
                Packed::Large(mut parcel) => parcel.gone(),
            }
        }
        self.values.drain(..count);
        if self.packed.is_empty() {
            self.bytes.clear();
            self.large = 0;
        }
    }

    /// The values that were not put.
    pub(crate) fn into_values(self) -> VecDeque<T> {
        self.values
    }
}

/// A message of a batch.
pub(crate) struct InBatch<'a> {
    arena: &'static Arena,
    bytes: &'a [u8],
    packed: &'a mut Packed,
}

impl Load for InBatch<'_> {
    fn size(&self) -> u64 {
        match &self.packed {
            Packed::Small { at, .. } => at.len() as u64,
            Packed::Large(parcel) => parcel.size(),
        }
    }

    fn inline(&self) -> Option<&[u8]> {
        match &self.packed {
            Packed::Small { at, .. } => Some(&self.bytes[at.clone()]),
            Packed::Large(parcel) => parcel.inline(),
        }
    }

    fn references(&self) -> &[Arc<Held>] {
        match &self.packed {
            Packed::Small { outgoing, .. } => outgoing.references(),
            Packed::Large(parcel) => parcel.references(),
        }
    }

    fn block(&mut self) -> Result<BlockId, Error> {
        match self.packed {
            Packed::Small { spilled: Some(block), .. } => Ok(block.id()),
            Packed::Small { at, outgoing, spilled } => {
                let references = outgoing.references().iter().map(|h| h.reference());
                let block = record::write(self.arena, &self.bytes[at.clone()], references)?;
                Ok(spilled.insert(OwnBlock::new(self.arena, block)).id())
            }
            Packed::Large(parcel) => parcel.block(),
        }
    }
}

/// Messages that have been taken together, before they are decoded.
#[derive(Debug)]
pub(crate) struct Arrivals {
    arena: &'static Arena,
    /// The payloads of those that lay in the ring.
    pub(crate) bytes: Scratch,
    items: VecDeque<Arrived>,
}

#[derive(Debug)]
struct Arrived {
    at: Range<usize>,
    references: References,
    block: Option<OwnBlock>,
}

impl Arrivals {
    pub(crate) fn new(arena: &'static Arena) -> Arrivals {
        Arrivals { arena, bytes: Scratch::take(), items: VecDeque::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// A message whose payload lies there in `bytes`.
    pub(crate) fn inline(&mut self, at: Range<usize>, references: References) {
        self.items.push_back(Arrived { at, references, block: None });
    }

    /// A message in a block that is this process's own.
    pub(crate) fn in_block(&mut self, block: BlockId, references: References) {
        self.items.push_back(Arrived { at: 0..0, references, block: Some(OwnBlock::new(self.arena, block)) });
    }

    /// All references have reached this process.
    pub(crate) fn arrived(&self) -> Result<(), Error> {
        self.items.iter().try_for_each(|item| record::arrived(self.arena, &item.references))
    }

    /// The values, in order. Each block is freed when it has been decoded.
    pub(crate) fn open<T, C: Codec<T>>(&mut self) -> Vec<Result<T, OpenFailed>> {
        let mut values = Vec::with_capacity(self.items.len());
        while let Some(item) = self.items.pop_front() {
            values.push(match &item.block {
                None => {
                    message::decode::<T, C>(self.arena, &self.bytes[item.at.clone()], &item.references).map_err(OpenFailed::Codec)
                }
                Some(block) => message::open_block::<T, C>(self.arena, block.id(), &item.references),
            });
        }
        values
    }
}
