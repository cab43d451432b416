//! Sealed memory files and their mappings.
//!
//! A memory file is sealed against resizing the moment it exists, so a mapping of it never faults for a peer's
//! ftruncate; and a mapping is never removed, so a pointer into one stays good. Stands on the kernel alone.
//! See memfd_create(2), fcntl(2) on file seals, fallocate(2), madvise(2).
#![allow(unsafe_code)]

use crate::limits;
use crate::probe::{self, Feature};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate as nix_fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{
    MRemapFlags, MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, mremap, munlock, munmap,
};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::ftruncate;
use std::ffi::CStr;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

/// Size of a page on x86-64.
pub const PAGE: usize = 4096;

/// Descriptors below this are left to the program: a closed stdin must not be replaced by one of ours, which a
/// child would then read as its stdin.
const FIRST_FD: i32 = 10;

/// Creates a memory file of `size` bytes, all zero and none of them allocated, that can never change its size.
///
/// The descriptor is close-on-exec and at least 10. The file cannot be made executable where the kernel knows
/// that flag (Linux 6.3).
///
/// # Errors
/// The caller keeps `size` within [`limits::file_size_limit`]; above it the result is EFBIG, since the kernel
/// would answer with SIGXFSZ. Otherwise those of memfd_create(2).
pub fn create_sealed(name: &CStr, size: u64) -> io::Result<OwnedFd> {
    #[cfg(miri)]
    return crate::interpreted::file();
    let length = i64::try_from(size).map_err(|_| Errno::EFBIG)?;
    if limits::file_size_limit().is_some_and(|limit| size > limit) {
        return Err(Errno::EFBIG.into());
    }
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let no_exec = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let sealed = || if probe::is_denied(Feature::NoexecSeal) { Err(Errno::EINVAL) } else { memfd_create(name, flags | no_exec) };
    let file = match sealed() {
        Err(Errno::EINVAL) => memfd_create(name, flags),
        other => other,
    }?;
    let file = move_high(file)?;
    ftruncate(&file, length)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// The size of a memory file whose size can never change.
///
/// # Errors
/// EINVAL if `fd` is no memory file, or one that could still shrink or grow.
pub fn sealed_size(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let seals = SealFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GET_SEALS)?);
    // A file of a tmpfs answers as well, but never with these two.
    if !seals.contains(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW) {
        return Err(Errno::EINVAL.into());
    }
    let stat = fstat(fd)?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return Err(Errno::EINVAL.into());
    }
    u64::try_from(stat.st_size).map_err(|_| Errno::EINVAL.into())
}

/// A descriptor for the same file that is at least 10 and close-on-exec.
pub(crate) fn move_high(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= FIRST_FD {
        return Ok(fd);
    }
    duplicate_high(fd.as_fd())
}

/// A second descriptor for the same file, at least 10 and close-on-exec.
pub(crate) fn duplicate_high(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // EINVAL says that RLIMIT_NOFILE allows no such number: none is left.
    let new = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(FIRST_FD)).map_err(|e| if e == Errno::EINVAL { Errno::EMFILE } else { e })?;
    // SAFETY: the kernel has just made this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// A range of memory that stays mapped until the process ends.
///
/// It is never unmapped: locks and values in it are reached by plain pointers from statics, from exit handlers
/// and from the kernel's walk of the robust list, and no count could prove that the last of them is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is an address and a length, good in every thread until the process ends.
unsafe impl Send for Mapping {}
// SAFETY: as above; it gives no access by itself.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// The first byte; aligned to a page.
    #[inline]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Always false: an empty range cannot be mapped.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Maps the first `len` bytes of `fd` for reading and writing, shared, without touching or reserving a page.
///
/// Bytes beyond the end of the file fault with SIGBUS, so callers take `len` from [`sealed_size`]. The
/// mapping stays out of core dumps.
///
/// # Errors
/// EINVAL for a length of 0; otherwise those of mmap(2), ENOMEM above all (RLIMIT_AS).
pub fn map_shared(fd: BorrowedFd<'_>, len: usize) -> io::Result<Mapping> {
    if len == 0 {
        return Err(Errno::EINVAL.into());
    }
    #[cfg(miri)]
    return crate::interpreted::map(len).map(|base| Mapping { base, len });
    let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
    let page = const { NonZeroUsize::new(PAGE).unwrap() };
    // After mlockall(MCL_FUTURE) the kernel would fill a readable mapping of the whole sparse file at once, and count all of it against
    // RLIMIT_MEMLOCK. So one page is mapped without access and unlocked; what it then grows to is not locked either.
    // SAFETY: the kernel chooses the address, so no mapping in use is replaced.
    let first = unsafe { mmap(None, page, ProtFlags::PROT_NONE, flags, fd, 0) }?;
    let base = grow(first, len).inspect_err(|_| {
        // SAFETY: the mapping was made above and nothing points into it.
        let _ = unsafe { munmap(first, PAGE) };
    })?;
    make_usable(base, len).inspect_err(|_| {
        // SAFETY: the mapping was made above and nothing points into it.
        let _ = unsafe { munmap(base, len) };
    })?;
    Ok(Mapping { base: base.cast(), len })
}

fn grow(first: NonNull<libc::c_void>, len: usize) -> nix::Result<NonNull<libc::c_void>> {
    // SAFETY: the page is our own fresh mapping.
    unsafe { munlock(first, PAGE) }?;
    // SAFETY: as above; nothing points into it, so it may move.
    unsafe { mremap(first, PAGE, len, MRemapFlags::MREMAP_MAYMOVE, None) }
}

fn make_usable(base: NonNull<libc::c_void>, len: usize) -> nix::Result<()> {
    // SAFETY: the range is our own fresh mapping.
    unsafe { mprotect(base, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) }?;
    // SAFETY: as above; the advice only concerns core dumps.
    unsafe { madvise(base, len, MmapAdvise::MADV_DONTDUMP) }
}

/// Allocates the pages of a range, so that touching them later cannot fail for want of space.
///
/// A signal makes the kernel undo the step and start again: callers allocate in steps of a few MiB.
///
/// # Errors
/// ENOSPC or ENOMEM when there is no memory. A memory cgroup kills instead.
pub fn allocate(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    change_range(fd, FallocateFlags::empty(), offset, len)
}

/// Gives the pages of a range back; they read as zero afterwards.
///
/// # Errors
/// Those of fallocate(2).
pub fn punch(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    change_range(fd, FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, len)
}

/// Bytes that the kernel keeps for the file: whole pages, those of holes not among them.
///
/// # Errors
/// Those of fstat(2).
pub fn backed(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(fstat(fd)?.st_blocks as u64 * 512)
}

/// How many bytes from `offset` on have pages, up to the first that has none (lseek(2), SEEK_HOLE). Moves the file's position, which nobody uses.
pub fn backed_from(fd: BorrowedFd<'_>, offset: u64) -> io::Result<u64> {
    if cfg!(miri) {
        return Ok(u64::MAX - offset);
    }
    let at = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
    // SAFETY: an open descriptor; only its position changes.
    let hole = unsafe { libc::lseek(fd.as_raw_fd(), at, libc::SEEK_HOLE) };
    let hole = u64::try_from(hole).map_err(|_| io::Error::last_os_error())?;
    Ok(hole.saturating_sub(offset))
}

fn change_range(fd: BorrowedFd<'_>, mode: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
    if cfg!(miri) {
        return Ok(());
    }
    let offset = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
    let len = i64::try_from(len).map_err(|_| Errno::EFBIG)?;
    loop {
        match nix_fallocate(fd, mode, offset, len) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

/// One private page of zeros that is all zero again in a child made by fork(2), however it was called.
///
/// It is never unmapped.
///
/// # Errors
/// ENOMEM.
pub fn map_wipe_on_fork() -> io::Result<NonNull<u8>> {
    #[cfg(miri)]
    return crate::interpreted::map(PAGE);
    let length = const { NonZeroUsize::new(PAGE).unwrap() };
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: the kernel chooses the address, so no mapping in use is replaced.
    let page = unsafe { mmap_anonymous(None, length, access, MapFlags::MAP_PRIVATE) }?;
    // SAFETY: the page is our own fresh mapping.
    let advised = unsafe { madvise(page, PAGE, MmapAdvise::MADV_WIPEONFORK) };
    advised.inspect_err(|_| {
        // SAFETY: the mapping was made above and nothing points into it.
        let _ = unsafe { munmap(page, PAGE) };
    })?;
    Ok(page.cast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn sealed_file_keeps_its_size() {
        let fd = create_sealed(c"test", 1 << 40).unwrap();
        assert!(fd.as_raw_fd() >= FIRST_FD);
        assert_eq!(sealed_size(fd.as_fd()).unwrap(), 1 << 40);
        assert_eq!(ftruncate(&fd, 1 << 41), Err(Errno::EPERM));
        assert_eq!(ftruncate(&fd, 0), Err(Errno::EPERM));
    }

    #[test]
    fn other_files_are_not_sealed() {
        let file = File::open("/proc/self/exe").unwrap();
        assert!(sealed_size(file.as_fd()).is_err());
        let loose = memfd_create(c"loose", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        assert!(sealed_size(loose.as_fd()).is_err());
    }

    #[test]
    fn pages_come_and_go() {
        let fd = create_sealed(c"test", 64 * PAGE as u64).unwrap();
        let map = map_shared(fd.as_fd(), 64 * PAGE).unwrap();
        assert_eq!((map.len(), map.is_empty()), (64 * PAGE, false));
        let file = File::from(fd.try_clone().unwrap());
        assert_eq!(file.metadata().unwrap().blocks(), 0);
        allocate(fd.as_fd(), PAGE as u64, PAGE as u64).unwrap();
        assert_eq!(file.metadata().unwrap().blocks(), 8);
        // SAFETY: the byte lies inside the mapping.
        let byte = unsafe { map.base().add(PAGE) };
        // SAFETY: as above, and this thread alone uses it.
        unsafe { byte.write_volatile(7) };
        punch(fd.as_fd(), PAGE as u64, PAGE as u64).unwrap();
        assert_eq!(file.metadata().unwrap().blocks(), 0);
        // SAFETY: as above.
        assert_eq!(unsafe { byte.read_volatile() }, 0);
    }

    #[test]
    fn impossible_sizes_are_errors() {
        assert!(create_sealed(c"test", u64::MAX).is_err());
        let fd = create_sealed(c"test", 4096).unwrap();
        assert!(map_shared(fd.as_fd(), 0).is_err());
        assert!(map_shared(fd.as_fd(), usize::MAX / 2).is_err());
    }

    #[test]
    fn wiped_page_starts_as_zero() {
        let page = map_wipe_on_fork().unwrap();
        // SAFETY: the page is mapped for good.
        assert_eq!(unsafe { page.read() }, 0);
    }
}
