//! A descriptor of ours that the program may have closed behind our back.
//!
//! A program that closes all descriptors from 3 on (`closefrom(3)`, as daemons do) closes ours among them, and what it opens later may be given their
//! numbers. A write, a read or a fallocate by such a number would hit a file of the program's. So each use asks first whether
//! the number still names the same file. See fstat(2).

use nix::errno::Errno;
use nix::sys::stat::fstat;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A descriptor and what it named when it was made.
#[derive(Debug)]
pub struct OwnFd {
    fd: OwnedFd,
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
        Ok(OwnFd { fd, file })
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

    #[test]
    fn another_file_under_the_number_is_not_ours() {
        let (ours, theirs) = (File::open("/proc/self/exe").unwrap(), File::open("/dev/null").unwrap());
        let own = OwnFd::new(ours.into()).unwrap();
        assert!(own.get().is_ok());
        let mut number = own.fd.try_clone().unwrap();
        nix::unistd::dup2(&theirs, &mut number).unwrap();
        let moved = OwnFd { fd: number, file: own.file };
        assert_eq!(moved.get().unwrap_err().raw_os_error(), Some(Errno::EBADF as i32));
    }
}
