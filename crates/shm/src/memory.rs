//! The mapping, checked access to it, and which of its pages are backed.
//!
//! A reference into the arena is made only after its offset has been checked against private bounds, and only to
//! types that consist of atomics, for which every bit pattern is valid. The mapping is never removed, so such
//! references are `'static`. Bytes that one owner has to itself (a block being filled or taken, the free part of a ring under
//! its lock) are read and written through raw copies.
//!
//! Pages are asked of the kernel by fallocate before they are first used, so that running out of memory is an error there and no
//! SIGBUS later, and are counted against the arena's own limit (in a memory cgroup fallocate does not fail: it kills).
#![allow(unsafe_code)]

use crate::error::Error;
use multiproc_sys::memfd::{self, Mapping};
use multiproc_sys::own_fd::OwnFd;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::slice;
use std::sync::atomic::{
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

/// Types that may lie in shared memory: atomics and arrays and `repr(C)` structs of them.
///
/// # Safety
/// Every bit pattern is valid, all fields may be changed by others at any time, and alignment is at most 128.
pub unsafe trait Shared: Sync + 'static {}

macro_rules! shared_atomics {
    ($($Atomic:ty)*) => { $(
        // SAFETY: an atomic integer, valid in every bit pattern.
        unsafe impl Shared for $Atomic {}
    )* };
}
shared_atomics!(AtomicU8 AtomicU16 AtomicU32 AtomicU64 AtomicUsize AtomicI8 AtomicI16 AtomicI32 AtomicI64 AtomicIsize);
// SAFETY: `repr(C)` of atomics.
unsafe impl Shared for crate::raw::RawLock {}
// SAFETY: `repr(C)` of atomics.
unsafe impl Shared for crate::raw::WaitWord {}
// SAFETY: an array of such.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// Takes the kernel about a quarter of a millisecond.
const BACKING_STEP: u64 = 1 << 20;

/// A mapped arena.
#[derive(Debug)]
pub struct Memory {
    fd: OwnFd,
    map: Mapping,
}

impl Memory {
    /// A new sealed memfd of `size` bytes, mapped.
    pub fn create(size: u64) -> Result<Memory, Error> {
        let fd = memfd::create_sealed(c"multiproc", size).map_err(|e| Error::system(&"memfd_create", &e))?;
        Memory::map(fd, size)
    }

    /// Maps an inherited arena; an error when `fd` is not a memfd that is sealed against resizing.
    pub fn attach(fd: OwnedFd) -> Result<Memory, Error> {
        let size = memfd::sealed_size(fd.as_fd()).map_err(|e| Error::system(&"fcntl(F_GET_SEALS)", &e))?;
        Memory::map(fd, size)
    }

    fn map(fd: OwnedFd, size: u64) -> Result<Memory, Error> {
        let map = memfd::map_shared(fd.as_fd(), size as usize).map_err(|e| Error::system(&"mmap", &e))?;
        let fd = OwnFd::new(fd).map_err(|e| Error::system(&"fstat", &e))?;
        Ok(Memory { fd, map })
    }

    /// Bytes mapped.
    #[inline]
    pub fn size(&self) -> u64 {
        self.map.len() as u64
    }

    /// The memfd, to be passed on to children; an error when the program has closed it.
    pub fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.fd.get().map_err(|e| Error::system(&"use of its descriptor", &e))
    }

    #[inline]
    fn pointer(&self, offset: u64, len: u64) -> Result<*mut u8, Error> {
        let end = offset.checked_add(len).filter(|&end| end <= self.size());
        if end.is_none() {
            return Err(Error::Corrupted(&"an offset lies outside the arena"));
        }
        // SAFETY: the sum was checked against the length of the mapping.
        Ok(unsafe { self.map.base().as_ptr().add(offset as usize) })
    }

    /// The shared `T` at `offset`.
    #[inline]
    pub fn at<T: Shared>(&self, offset: u64) -> Result<&'static T, Error> {
        let p = self.pointer(offset, size_of::<T>() as u64)?.cast::<T>();
        if !p.is_aligned() {
            return Err(Error::Corrupted(&"an offset is not aligned"));
        }
        // SAFETY: in bounds, aligned, mapped for ever, and `Shared` allows any content and concurrent change.
        Ok(unsafe { &*p })
    }

    /// The words of 8 bytes in a range.
    pub fn words(&self, offset: u64, len: u64) -> Result<&'static [AtomicU64], Error> {
        let p = self.pointer(offset, len)?.cast::<AtomicU64>();
        if !p.is_aligned() {
            return Err(Error::Corrupted(&"an offset is not aligned"));
        }
        // SAFETY: in bounds, aligned, mapped for ever, and atomics allow any content and concurrent change.
        Ok(unsafe { std::slice::from_raw_parts(p, len as usize / 8) })
    }

    /// The first of `len` bytes at `offset`, for an owner that reads or writes them in place.
    #[inline]
    pub fn pointer_to(&self, offset: u64, len: u64) -> Result<*mut u8, Error> {
        self.pointer(offset, len)
    }

    /// Copies `bytes` to `offset`. The caller has that range to itself by protocol.
    #[inline]
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let p = self.pointer(offset, bytes.len() as u64)?;
        // SAFETY: in bounds; a private slice does not overlap the mapping.
        unsafe { p.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Appends `len` bytes at `offset` to `into`. By protocol nobody writes them meanwhile.
    #[inline]
    pub fn read(&self, offset: u64, len: u64, into: &mut Vec<u8>) -> Result<(), Error> {
        let p = self.pointer(offset, len)?;
        let (len, old) = (len as usize, into.len());
        into.reserve(len);
        // SAFETY: the reserved room lies in the vector's allocation.
        let to = unsafe { into.as_mut_ptr().add(old) };
        // SAFETY: source in bounds, target reserved, and they do not overlap.
        unsafe { to.copy_from_nonoverlapping(p, len) };
        // SAFETY: these bytes have just been written.
        unsafe { into.set_len(old + len) };
        Ok(())
    }

    /// The `len` bytes at `offset` as a ring: checked once, so that going round it needs no check.
    pub fn round(&self, offset: u64, len: u64) -> Result<Round, Error> {
        let p = self.pointer(offset, len)?.cast::<AtomicU64>();
        if !p.is_aligned() || !len.is_power_of_two() || len < WORD {
            return Err(Error::Corrupted(&"a ring's place"));
        }
        // SAFETY: in bounds, aligned, mapped for ever, and atomics allow any content and concurrent change.
        Ok(Round(unsafe { slice::from_raw_parts(p, (len / WORD) as usize) }))
    }

    /// Zeroes `len` bytes at `offset`. The caller has that range to itself by protocol.
    pub fn zero(&self, offset: u64, len: u64) -> Result<(), Error> {
        let p = self.pointer(offset, len)?;
        // SAFETY: in bounds.
        unsafe { p.write_bytes(0, len as usize) };
        Ok(())
    }

    /// Asks the kernel for the pages of a range; those that are there already stay as they are.
    pub fn back(&self, offset: u64, len: u64) -> Result<(), Error> {
        // In steps: a signal makes the kernel undo a step and begin again, and with a timer of 1 kHz a large one would never end.
        for done in (0..len).step_by(BACKING_STEP as usize) {
            let step = BACKING_STEP.min(len - done);
            memfd::allocate(self.fd()?, offset + done, step).map_err(|e| Error::system(&"fallocate", &e))?;
        }
        Ok(())
    }

    /// How many bytes from `offset` on are backed without a gap, by what the kernel says.
    pub fn backed_from(&self, offset: u64) -> Result<u64, Error> {
        memfd::backed_from(self.fd()?, offset).map_err(|e| Error::system(&"lseek(SEEK_HOLE)", &e))
    }

    /// Bytes that the kernel keeps for the arena: its own figure, not our account.
    pub fn backed(&self) -> Result<u64, Error> {
        memfd::backed(self.fd()?).map_err(|e| Error::system(&"fstat", &e))
    }

    /// Gives the pages of a range back; they read as zero afterwards.
    pub fn punch(&self, offset: u64, len: u64) -> Result<(), Error> {
        if cfg!(miri) {
            return self.zero(offset, len);
        }
        memfd::punch(self.fd()?, offset, len).map_err(|e| Error::system(&"fallocate(PUNCH_HOLE)", &e))
    }
}

const WORD: u64 = 8;

/// A part of the arena that positions, in bytes, go round for ever. A power of two of words.
#[derive(Clone, Copy)]
pub struct Round(&'static [AtomicU64]);

impl Round {
    /// Bytes once round.
    #[inline]
    pub fn size(self) -> u64 {
        self.0.len() as u64 * WORD
    }

    #[inline]
    fn place(self, position: u64) -> usize {
        position as usize & (self.size() as usize - 1)
    }

    /// The word in which `position` lies.
    #[inline]
    pub fn word(self, position: u64) -> &'static AtomicU64 {
        // SAFETY: a place lies below the size.
        unsafe { self.0.get_unchecked(self.place(position) / WORD as usize) }
    }

    /// Bytes from `position` to where the ring begins anew, and a pointer to the first of them.
    #[inline]
    fn straight(self, position: u64) -> (*mut u8, usize) {
        let place = self.place(position);
        (self.0.as_ptr().cast_mut().cast::<u8>().wrapping_add(place), self.size() as usize - place)
    }

    /// Copies `bytes`, which are at most [`size`](Round::size), to `position`. The caller has that range to itself by protocol.
    #[inline]
    pub fn write(self, position: u64, bytes: &[u8]) {
        if let Ok(word) = bytes.try_into()
            && position.is_multiple_of(WORD)
        {
            // Relaxed: the commit publishes.
            self.word(position).store(u64::from_ne_bytes(word), Ordering::Relaxed);
            return;
        }
        let (to, straight) = self.straight(position);
        let (first, rest) = bytes.split_at(bytes.len().min(straight).min(self.size() as usize));
        // SAFETY: so many bytes lie there before the ring's end; a private slice does not overlap the mapping.
        unsafe { to.copy_from_nonoverlapping(first.as_ptr(), first.len()) };
        if !rest.is_empty() {
            let rest = &rest[..rest.len().min(self.size() as usize)];
            // SAFETY: at most the ring, from its beginning.
            unsafe { self.straight(0).0.copy_from_nonoverlapping(rest.as_ptr(), rest.len()) };
        }
    }

    /// Appends `len` bytes at `position`, at most [`size`](Round::size), to `into`. By protocol nobody writes them meanwhile.
    #[inline]
    pub fn read(self, position: u64, len: u64, into: &mut Vec<u8>) {
        let len = len.min(self.size()) as usize;
        let old = into.len();
        into.reserve(len);
        let (from, straight) = self.straight(position);
        let first = len.min(straight);
        let to = into.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        // SAFETY: so many bytes lie there before the ring's end; the room is reserved; a private vector does not overlap the mapping.
        unsafe { to.copy_from_nonoverlapping(from, first) };
        if first < len {
            // SAFETY: the rest lies at the ring's beginning, and behind the first part in the reserved room.
            unsafe { to.wrapping_add(first).copy_from_nonoverlapping(self.straight(0).0, len - first) };
        }
        // SAFETY: these bytes have just been written.
        unsafe { into.set_len(old + len) };
    }
}

impl fmt::Debug for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Round").field("size", &self.size()).finish()
    }
}

/// The arena's own account of backed bytes, in its header.
///
/// | word | meaning | written by | if the writer dies there |
/// |---|---|---|---|
/// | `used` | bytes backed or about to be | who backs or punches, next to the word that says what is backed | between the two stores: counts one request too many, until the tree ends |
/// | `limit` | bound of `used` | the creator, once | - |
#[derive(Debug, Default)]
#[repr(C)]
pub struct Account {
    /// Bytes backed.
    pub used: AtomicU64,
    /// The arena's limit.
    pub limit: AtomicU64,
}

// SAFETY: `repr(C)` of atomics.
unsafe impl Shared for Account {}

impl Account {
    /// Counts `bytes`, or says that the limit is reached.
    pub fn charge(&self, bytes: u64) -> Result<(), Error> {
        // Relaxed: a counter; the memory itself is handed over by other words.
        let limit = self.limit.load(Ordering::Relaxed);
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > limit {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Error::out_of_memory(bytes, limit));
        }
        Ok(())
    }

    /// Counts `bytes` off.
    pub fn credit(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Backs a table that grows from its beginning, in steps, whoever comes first. `backed` is the shared count of bytes.
///
/// Two processes that come together both ask for the same pages, which is harmless; `fetch_max` keeps the larger.
pub fn back_up_to(
    memory: &Memory,
    account: &Account,
    backed: &AtomicU64,
    start: u64,
    need: u64,
    step: u64,
    max: u64,
) -> Result<(), Error> {
    // Relaxed: the pages are there before the count says so to the process that uses them, and reading too low only asks again.
    let have = backed.load(Ordering::Relaxed);
    if need <= have {
        return Ok(());
    }
    let target = need.next_multiple_of(step).min(max.next_multiple_of(crate::layout::PAGE));
    if target < need {
        return Err(Error::Corrupted(&"a table is asked for more than it can hold"));
    }
    let have = have.min(target);
    account.charge(target - have)?;
    if let Err(e) = memory.back(start + have, target - have) {
        account.credit(target - have);
        return Err(e);
    }
    let before = backed.fetch_max(target, Ordering::Relaxed);
    // Another process counted the same pages meanwhile.
    let counted_twice = before.min(target).saturating_sub(have);
    if counted_twice > 0 {
        account.credit(counted_twice);
    }
    Ok(())
}
