//! Files in `/dev/shm`, where shm_open(3) has its segments: opened, locked, linked and removed by name.
//!
//! Locks are of two kinds that know nothing of each other. flock(2) says who uses a file: it belongs to the descriptor, and the kernel releases it
//! at its user's death. A fcntl(2) lock on its open file description says who is just changing its names. No call here waits for a lock.
#![allow(unsafe_code)]

use crate::limits;
use crate::memfd;
use crate::pidfd::PidFd;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, lstat};
use nix::unistd::ftruncate;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

/// Where they are.
pub const DIRECTORY: &str = "/dev/shm";
/// The longest name of a file, in bytes.
pub const NAME_MAX: usize = 255;
/// A signal makes the kernel undo a step of taking memory and begin again, so steps are small.
const STEP: u64 = 1 << 20;

/// What a file is, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Its file system.
    pub device: u64,
    /// Its number there; that of no other as long as it is open or has a name.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// How many names it has.
    pub names: u64,
    /// Not a directory, a pipe, or the like.
    pub regular: bool,
}

impl From<FileStat> for FileFacts {
    fn from(stat: FileStat) -> FileFacts {
        let regular = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        FileFacts { device: stat.st_dev, inode: stat.st_ino, size, names: stat.st_nlink, regular }
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// A new, empty file that its user alone may open; EEXIST where there is one. The descriptor is close-on-exec and at least 10.
///
/// # Errors
/// Those of open(2).
pub fn create(name: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    memfd::move_high(open(&path(name), flags, Mode::S_IRUSR | Mode::S_IWUSR)?)
}

/// The file of that name, for reading and writing. The descriptor is close-on-exec and at least 10.
///
/// # Errors
/// ENOENT, EACCES above all; ELOOP for a symbolic link.
pub fn open_existing(name: &str) -> io::Result<OwnedFd> {
    // Nothing is waited for where the name is that of a pipe.
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    memfd::move_high(open(&path(name), flags, Mode::empty())?)
}

/// Gives an empty file its size, with memory for all of it: later there is none missing.
///
/// # Errors
/// EFBIG beyond `ulimit -f`, where the kernel would answer with SIGXFSZ; ENOMEM for more than seven eighths of what the machine or the memory cgroup has to
/// spare, since the file system may be larger than that, and the kernel would then kill whoever is in the way; ENOSPC.
pub fn allocate(fd: BorrowedFd<'_>, size: u64) -> io::Result<()> {
    if i64::try_from(size).is_err() || limits::file_size_limit().is_some_and(|limit| size > limit) {
        return Err(Errno::EFBIG.into());
    }
    if size > limits::available_memory() / 8 * 7 {
        return Err(Errno::ENOMEM.into());
    }
    for done in (0..size).step_by(STEP as usize) {
        memfd::allocate(fd, done, STEP.min(size - done))?;
    }
    ftruncate(fd, size as i64)?;
    Ok(())
}

/// What an open file is.
///
/// # Errors
/// EBADF.
pub fn facts(fd: BorrowedFd<'_>) -> io::Result<FileFacts> {
    Ok(fstat(fd)?.into())
}

/// What has this name; `None` if nothing does.
///
/// # Errors
/// Those of stat(2), but for ENOENT.
pub fn facts_of(name: &str) -> io::Result<Option<FileFacts>> {
    match lstat(&path(name)) {
        Ok(stat) => Ok(Some(stat.into())),
        Err(Errno::ENOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Gives a file a second name; EEXIST where that is taken.
///
/// # Errors
/// Those of link(2).
pub fn link(name: &str, another: &str) -> io::Result<()> {
    fs::hard_link(path(name), path(another))
}

/// Replaces a file's name.
///
/// # Errors
/// Those of rename(2).
pub fn rename(name: &str, another: &str) -> io::Result<()> {
    fs::rename(path(name), path(another))
}

/// Takes a name away; false when there is none.
///
/// # Errors
/// Those of unlink(2), but for ENOENT.
pub fn unlink(name: &str) -> io::Result<bool> {
    match fs::remove_file(path(name)) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// All names that begin so. Those that are no UTF-8 are none of ours.
///
/// # Errors
/// Those of opendir(3).
pub fn names(prefix: &str) -> io::Result<Vec<String>> {
    let all = fs::read_dir(DIRECTORY)?;
    let names = all.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with(prefix)).collect())
}

/// Which lock of flock(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// One user among others.
    Shared,
    /// The only one. Who had the other kind before has lost that, whether this is granted or not.
    Alone,
}

/// Takes the lock that says who uses the file; false when another descriptor's is in the way.
///
/// # Errors
/// EBADF, ENOLCK.
pub fn try_use(fd: BorrowedFd<'_>, how: Use) -> io::Result<bool> {
    let operation = match how {
        Use::Shared => libc::LOCK_SH,
        Use::Alone => libc::LOCK_EX,
    };
    // SAFETY: touches no memory.
    match Errno::result(unsafe { libc::flock(fd.as_raw_fd(), operation | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(Errno::EWOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// The processes that took the lock of flock(2) which is on a file; copies of their descriptors hold it as well, and are not told. Without those that have
/// died, or live where this process cannot see them. `None` where the kernel does not say.
pub fn lockers(file: &FileFacts) -> Option<Vec<u32>> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let living = |pid: &u32| PidFd::open(*pid).map_or_else(|e| e.raw_os_error() != Some(libc::ESRCH), |p| !p.is_dead());
    Some(lockers_in(&locks, file).filter(living).collect())
}

/// Lines are `1: FLOCK  ADVISORY  READ 123 00:1a:4567 0 EOF`, those of waiters `1: -> FLOCK ..`; a file's name is its device's two numbers in hex, and its own.
fn lockers_in<'a>(locks: &'a str, file: &FileFacts) -> impl Iterator<Item = u32> + use<'a> {
    let name = format!("{:02x}:{:02x}:{}", libc::major(file.device), libc::minor(file.device), file.inode);
    locks.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, pid, found, ..] = fields[..] else { return None };
        pid.parse().ok().filter(|_| found == name)
    })
}

/// Takes (or gives back) the lock that says who is changing the file's names; false when another descriptor has it.
///
/// # Errors
/// EBADF, ENOLCK.
pub fn try_claim_names(fd: BorrowedFd<'_>, take: bool) -> io::Result<bool> {
    let kind = if take { libc::F_WRLCK } else { libc::F_UNLCK };
    let lock = libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 1, l_pid: 0 };
    match fcntl(fd, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// A shared mapping, which its drop removes.
#[derive(Debug)]
pub struct FileMap {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an address and a length, good in every thread as long as it lives.
unsafe impl Send for FileMap {}
// SAFETY: as above; it gives no access by itself.
unsafe impl Sync for FileMap {}

impl FileMap {
    /// Maps the first `len` bytes for reading and writing. What others cut off the file then raises SIGBUS where it is touched.
    ///
    /// # Errors
    /// EINVAL for a length of 0; otherwise those of mmap(2).
    pub fn new(fd: BorrowedFd<'_>, len: usize) -> io::Result<FileMap> {
        let length = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the address, so no mapping in use is replaced.
        let base = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE, fd, 0) }?;
        // SAFETY: the mapping made above; the advice only concerns core dumps, and to be without it does no harm.
        let _ = unsafe { madvise(base, len, MmapAdvise::MADV_DONTDUMP) };
        Ok(FileMap { base: base.cast(), len })
    }

    /// The first byte; aligned to a page.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Always false: an empty range cannot be mapped.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        // SAFETY: our own mapping, whose users have borrowed this.
        let _ = unsafe { munmap(self.base.cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;

    fn name(test: &str) -> String {
        format!("multiproc-test-{test}-{}", std::process::id())
    }

    #[test]
    fn a_file_has_names_and_a_size() {
        let first = name("names");
        let second = format!("{first}-2");
        let fd = create(&first).unwrap();
        assert!(fd.as_raw_fd() >= 10);
        assert_eq!(create(&first).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        allocate(fd.as_fd(), 5000).unwrap();
        link(&first, &second).unwrap();
        let found = facts(fd.as_fd()).unwrap();
        assert_eq!((found.size, found.names, found.regular), (5000, 2, true));
        assert_eq!(facts_of(&second).unwrap(), Some(found));
        let mut listed = names(&first).unwrap();
        listed.sort();
        assert_eq!(listed, [first.clone(), second.clone()]);
        assert!(unlink(&first).unwrap() && !unlink(&first).unwrap());
        rename(&second, &first).unwrap();
        assert!(unlink(&first).unwrap());
        assert_eq!(facts(fd.as_fd()).unwrap().names, 0);
        assert_eq!(allocate(fd.as_fd(), u64::MAX).unwrap_err().raw_os_error(), Some(libc::EFBIG));
        assert_eq!(allocate(fd.as_fd(), 1 << 60).unwrap_err().raw_os_error(), Some(libc::ENOMEM));
    }

    #[test]
    fn locks_tell_users_apart() {
        let name = name("locks");
        let (a, b) = (create(&name).unwrap(), open_existing(&name).unwrap());
        unlink(&name).unwrap();
        assert!(try_use(a.as_fd(), Use::Shared).unwrap() && try_use(b.as_fd(), Use::Shared).unwrap());
        assert!(!try_use(a.as_fd(), Use::Alone).unwrap());
        // It has lost what it had.
        assert!(try_use(b.as_fd(), Use::Alone).unwrap());
        assert!(!try_use(a.as_fd(), Use::Shared).unwrap());
        assert!(try_claim_names(a.as_fd(), true).unwrap() && !try_claim_names(b.as_fd(), true).unwrap());
        assert!(try_claim_names(a.as_fd(), false).unwrap() && try_claim_names(b.as_fd(), true).unwrap());
    }

    #[test]
    fn who_locked_is_known() {
        let name = name("lockers");
        let (a, b) = (create(&name).unwrap(), open_existing(&name).unwrap());
        unlink(&name).unwrap();
        let file = facts(a.as_fd()).unwrap();
        assert_eq!(lockers(&file).unwrap(), []);
        assert!(try_use(a.as_fd(), Use::Shared).unwrap() && try_use(b.as_fd(), Use::Shared).unwrap());
        assert_eq!(lockers(&file).unwrap(), [std::process::id(); 2]);
        let text = "1: FLOCK  ADVISORY  READ 12 00:1a:7 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 13 00:1a:7 0 EOF\n\
                    2: POSIX  ADVISORY  READ 14 00:1a:7 0 EOF\n3: FLOCK  ADVISORY  READ 15 00:1a:77 0 EOF\n4: FLOCK  ADVISORY  READ 16 00:1a:7 0 EOF\n";
        let file = FileFacts { device: libc::makedev(0, 0x1a), inode: 7, ..file };
        assert_eq!(lockers_in(text, &file).collect::<Vec<_>>(), [12, 16]);
    }

    #[test]
    fn mapped_bytes_are_the_files() {
        let name = name("map");
        let fd = create(&name).unwrap();
        unlink(&name).unwrap();
        allocate(fd.as_fd(), 10).unwrap();
        let map = FileMap::new(fd.as_fd(), 10).unwrap();
        assert_eq!((map.len(), map.is_empty(), FileMap::new(fd.as_fd(), 0).is_err()), (10, false, true));
        // SAFETY: the first byte of the mapping, which this thread alone uses.
        unsafe { map.base().write_volatile(7) };
        let mut bytes = Vec::new();
        fs::File::from(fd).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [7, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
