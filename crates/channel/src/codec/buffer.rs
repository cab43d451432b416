//! [`Buffer`]: where a message is encoded.
//!
//! A small message is encoded inside of it. It grows in private memory up to what travels inside a ring. Beyond that it moves into a block of the arena, behind the head of a
//! record, and grows there: a large message is written where it will lie, once. The block is this process's own (`Filling`) until it is handed
//! to a channel, so a death in the middle leaves a block that goes with the slot.
//!
//! Blocks come in powers of two of address space, which is free, and are backed page by page, which is not: a buffer that grows takes 64
//! times the range it needs and a quarter more memory, so that what is copied from block to block is a small part of the message.
#![allow(unsafe_code)]

use super::CodecError;
use crate::message::INLINE_BYTES;
use crate::scratch::Scratch;
use multiproc_shm::blocks::BlockId;
use multiproc_shm::objects::RawRef;
use multiproc_shm::{Arena, Error, record};
use multiproc_sys::{crash, robust};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::slice;

/// Address space that a growing message takes, in units of what it needs; where that is used up it gets what it needs.
const ROOMY: u64 = 64;
/// Bytes that a message may have without any memory being asked for.
const SMALL: usize = 128;
/// No block has a larger range.
const MAX_RANGE: u64 = 1 << multiproc_shm::layout::MAX_CLASS;

/// Where a [`Codec`](super::Codec) writes: bytes are appended, and lie where the message will be read.
///
/// Also an [`io::Write`]. Appending fails when the message becomes larger than its channel takes, or when memory is used up; the
/// codec passes the error on, and whoever puts sees which it was.
pub struct Buffer {
    /// Of the bytes: that of `private`, or the payload's in the block; null: they are in `small`.
    start: *mut u8,
    len: usize,
    /// Bytes that fit at `start`.
    room: usize,
    small: MaybeUninit<[u8; SMALL]>,
    /// Once `small` is too small. Its length stays 0; `len` counts.
    private: Scratch,
    target: Option<Target>,
    block: Option<BlockId>,
    failed: Option<Box<BufferFailed>>,
}

/// What the buffer is for: `None` grows privately and without limit.
#[derive(Clone, Copy)]
struct Target {
    arena: &'static Arena,
    max: u64,
}

/// Why a buffer did not take more.
#[derive(Debug)]
pub(crate) enum BufferFailed {
    /// The limit, in bytes.
    TooLarge(u64),
    Shared(Error),
}

impl Buffer {
    /// An empty buffer in private memory that takes any number of bytes: to try out a codec.
    pub fn new() -> Buffer {
        Buffer::with(None)
    }

    /// A buffer for a message of at most `max` bytes through `arena`.
    #[inline]
    pub(crate) fn for_message(arena: &'static Arena, max: u64) -> Buffer {
        Buffer::with(Some(Target { arena, max }))
    }

    #[inline]
    fn with(target: Option<Target>) -> Buffer {
        let room = target.map_or(SMALL, |t| t.max.min(SMALL as u64) as usize);
        let (start, small) = (ptr::null_mut(), MaybeUninit::uninit());
        Buffer { start, len: 0, room, small, private: Scratch::NONE, target, block: None, failed: None }
    }

    /// Bytes written.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What has been written.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        let start = if self.start.is_null() { self.small.as_ptr().cast() } else { self.start.cast_const() };
        // SAFETY: `len` bytes at `start` have been written, by this buffer, which owns them.
        unsafe { slice::from_raw_parts(start, self.len) }
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// The message becomes too large for its channel, or memory is used up. An encoder passes it on.
    #[inline]
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        if self.fits(bytes) { Ok(()) } else { self.append_growing(bytes) }
    }

    /// Appends `bytes` if there is room for them already. A field of a value comes down to a few instructions where this is compiled into its encoder.
    #[inline(always)]
    pub(super) fn fits(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.room - self.len {
            return false;
        }
        let start = if self.start.is_null() { self.small.as_mut_ptr().cast() } else { self.start };
        // SAFETY: `room` bytes at `start` are this buffer's, and `len` is at most `room`.
        let to = unsafe { start.add(self.len) };
        // SAFETY: that much room is left; the source is borrowed, so it does not lie in this buffer.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.len += bytes.len();
        true
    }

    #[cold]
    pub(super) fn append_growing(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        self.grow(bytes.len(), false)?;
        if self.fits(bytes) { Ok(()) } else { Err(CodecError::encode("the message does not fit")) }
    }

    /// Says that about `more` bytes will follow. A hint: a large message that is announced lies at its final place from the first byte.
    pub fn reserve(&mut self, more: usize) {
        let max = self.target.map_or(u64::MAX, |t| t.max);
        let more = (more as u64).min(max.saturating_sub(self.len as u64)) as usize;
        if more > self.room - self.len && self.grow(more, true).is_err() {
            // What is really appended may fit.
            self.failed = None;
        }
    }

    /// The bytes as a vector; copies what is small or has moved into a block.
    pub fn into_vec(mut self) -> Vec<u8> {
        if self.block.is_some() || !self.private.is_there() {
            return self.as_slice().to_vec();
        }
        // SAFETY: so many bytes have been written there.
        unsafe { self.private.set_len(self.len) };
        std::mem::take(&mut *self.private)
    }

    /// Why the buffer refused, if it has.
    pub(crate) fn take_failure(&mut self) -> Option<BufferFailed> {
        self.failed.take().map(|why| *why)
    }

    #[inline]
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Whether the bytes lie in a block.
    #[inline]
    pub(crate) fn is_block(&self) -> bool {
        self.block.is_some()
    }

    /// The block with the finished record, made if there is none yet. It stays this buffer's until [`handed_over`](Buffer::handed_over).
    pub(crate) fn seal(&mut self, references: impl ExactSizeIterator<Item = RawRef>) -> Result<BlockId, Error> {
        let Some(Target { arena, .. }) = self.target else { return Err(Error::Invalid(&"a buffer without an arena")) };
        if let Some(block) = self.block {
            self.settle(arena, record::size(self.len as u64, references.len() as u64), true)?;
            let block = self.block.unwrap_or(block);
            record::seal(arena, block, self.len as u64, references)?;
            crash::point("buffer.sealed");
            return Ok(block);
        }
        let block = record::write(arena, self.as_slice(), references)?;
        self.block = Some(block);
        self.lies_in(arena, block)?;
        Ok(block)
    }

    /// The block is the channel's now.
    #[inline]
    pub(crate) fn handed_over(&mut self) {
        self.block = None;
        (self.start, self.len, self.room) = (ptr::null_mut(), 0, 0);
    }

    /// Makes room for `more` bytes, all of them at once if `exact`.
    #[cold]
    fn grow(&mut self, more: usize, exact: bool) -> Result<(), CodecError> {
        let refuse = |this: &mut Buffer, why| {
            this.failed = Some(Box::new(why));
            Err(CodecError::encode("the message does not fit"))
        };
        let Some(need) = self.len.checked_add(more) else { return refuse(self, BufferFailed::TooLarge(u64::MAX)) };
        if !self.private.is_there() && self.block.is_none() {
            self.move_to_private();
            if more <= self.room - self.len {
                return Ok(());
            }
        }
        let Some(Target { arena, max }) = self.target else {
            // SAFETY: so many bytes have been written there.
            unsafe { self.private.set_len(self.len) };
            self.private.reserve(more);
            self.private.clear();
            (self.start, self.room) = (self.private.as_mut_ptr(), self.private.capacity());
            return Ok(());
        };
        if need as u64 > max {
            return refuse(self, BufferFailed::TooLarge(max));
        }
        match self.settle(arena, record::size(need as u64, 0), exact) {
            Ok(()) => Ok(()),
            Err(e) => refuse(self, BufferFailed::Shared(e)),
        }
    }

    fn move_to_private(&mut self) {
        let mut private = if self.target.is_some() { Scratch::take() } else { Scratch::with_capacity(2 * SMALL) };
        private.extend_from_slice(self.as_slice());
        private.clear();
        let limit = self.target.map_or(usize::MAX, |t| t.max.min(INLINE_BYTES as u64) as usize);
        (self.start, self.room) = (private.as_mut_ptr(), private.capacity().min(limit));
        self.private = private;
    }

    /// Sees to a block with room for a record of `size` bytes.
    fn settle(&mut self, arena: &'static Arena, size: u64, exact: bool) -> Result<(), Error> {
        let backing = if exact { size } else { size + size / 4 };
        if let Some(block) = self.block {
            let (_, range) = arena.range(block)?;
            if size <= range {
                if size > arena.place(block)?.1 {
                    arena.extend(block, backing.min(range))?;
                    crash::point("buffer.extended");
                }
                return self.lies_in(arena, block);
            }
        }
        let roomy = if exact { None } else { arena.try_allocate_range((size * ROOMY).min(self.widest(size)), backing)? };
        let block = match roomy {
            Some(block) => block,
            None => arena.allocate(size)?,
        };
        crash::point("buffer.allocated");
        let moved = arena.place(block).and_then(|(at, _)| arena.memory().write(at + record::HEADER, self.as_slice()));
        let (old, moved) = (self.block.replace(block), moved.and_then(|()| self.lies_in(arena, block)));
        crash::point("buffer.moved");
        if let Some(old) = old {
            arena.free(old)?;
        }
        moved
    }

    /// The range that the largest message of the channel needs.
    fn widest(&self, size: u64) -> u64 {
        let max = self.target.map_or(0, |t| t.max);
        record::size(max.min(MAX_RANGE), 0).max(size).min(MAX_RANGE)
    }

    fn lies_in(&mut self, arena: &Arena, block: BlockId) -> Result<(), Error> {
        let (at, usable) = arena.place(block)?;
        let room = usable.checked_sub(record::HEADER).ok_or(Error::Corrupted(&"a block's size"))?;
        let max = self.target.map_or(u64::MAX, |t| t.max);
        self.start = arena.memory().pointer_to(at + record::HEADER, room)?;
        self.room = room.min(max) as usize;
        Ok(())
    }
}

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer::new()
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        if let (Some(block), Some(Target { arena, .. })) = (self.block, self.target)
            && !robust::forked()
        {
            // Nobody else knows of it. Fails only in corrupted memory, of which the next operation tells.
            let _ = arena.free(block);
        }
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).field("block", &self.block).finish_non_exhaustive()
    }
}
