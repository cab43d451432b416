//! A descriptor of ours that the program may have closed behind our back.
//!
//! A program that closes all descriptors from 3 on (`closefrom(3)`, as daemons do) closes ours among them, and what it opens later may be given their
//! numbers. A write, a read or a fallocate by such a number would hit a file of the program's. So each use asks first whether
//! the number still names the same file, and so does the end: std's own type closes what it finds, or aborts the program when
//! it finds nothing and has debug assertions. See fstat(2).
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::sys::stat::fstat;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A descriptor and what it named when it was made. Dropped, it is closed if it names that still.
#[derive(Debug)]
pub struct OwnFd {
    fd: ManuallyDrop<OwnedFd>,
    file: FileId,
}

/// Device, inode and mode. Event descriptors and their kind share an inode, so one is not told from the other; they are told from everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
    mode: u32,
}

impl FileId {
    fn of(fd: BorrowedFd<'_>) -> io::Result<FileId> {
        if cfg!(miri) {
            return Ok(FileId { device: 0, inode: 0, mode: 0 });
        }
        let stat = fstat(fd)?;
        Ok(FileId { device: stat.st_dev, inode: stat.st_ino, mode: stat.st_mode })
    }
}

impl OwnFd {
    /// Remembers what `fd` names.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn new(fd: OwnedFd) -> io::Result<OwnFd> {
        let file = FileId::of(fd.as_fd())?;
        Ok(OwnFd { fd: ManuallyDrop::new(fd), file })
    }

    /// The descriptor, if it is still ours.
    ///
    /// # Errors
    /// EBADF when the program has closed it, whether or not its number has been given to another file.
    pub fn get(&self) -> io::Result<BorrowedFd<'_>> {
        if FileId::of(self.fd.as_fd())? != self.file {
            return Err(Errno::EBADF.into());
        }
        Ok(self.fd.as_fd())
    }
}

impl Drop for OwnFd {
    fn drop(&mut self) {
        if self.get().is_ok() {
            // SAFETY: dropped once, and not used afterwards.
            let fd = unsafe { ManuallyDrop::take(&mut self.fd) };
            // Not by std's drop: another thread may close it in this very moment.
            let _ = nix::unistd::close(fd);
        }
    }
}

/// For polling, which changes nothing of what it is told to watch.
impl AsFd for OwnFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::{AsRawFd, FromRawFd};

    /// A copy of what `file` names under the number of `own`.
    fn put_in_its_place(own: &OwnFd, file: &File) {
        // SAFETY: the number stays open; whose it is, is what the test is about.
        assert!(unsafe { libc::dup2(file.as_raw_fd(), own.fd.as_raw_fd()) } >= 0);
    }

    #[test]
    fn another_file_under_the_number_is_neither_used_nor_closed() {
        let (ours, theirs) = (File::open("/proc/self/exe").unwrap(), File::open("/dev/null").unwrap());
        let own = OwnFd::new(ours.into()).unwrap();
        assert!(own.get().is_ok());
        put_in_its_place(&own, &theirs);
        assert_eq!(own.get().unwrap_err().raw_os_error(), Some(libc::EBADF));
        let number = own.fd.as_raw_fd();
        drop(own);
        // SAFETY: nobody else owns the number now.
        let left = File::from(unsafe { OwnedFd::from_raw_fd(number) });
        assert_eq!(fstat(&left).unwrap().st_rdev, fstat(&theirs).unwrap().st_rdev);
    }

    #[test]
    fn what_is_ours_is_closed() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(OwnFd::new(reader.into()).unwrap());
        assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn one_that_is_closed_already_is_dropped_in_peace() {
        // A number that no other test is given.
        let high = crate::memfd::move_high(File::open("/dev/null").unwrap().into()).unwrap();
        let own = OwnFd::new(high).unwrap();
        // SAFETY: closes what another value owns, which is the point.
        unsafe { libc::close(own.fd.as_raw_fd()) };
        drop(own);
    }
}
