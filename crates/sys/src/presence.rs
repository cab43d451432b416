//! A byte of a shared file that a process keeps locked until the last of its threads is gone, or until it becomes another program.
//!
//! The kernel takes the threads of a killed process apart one after another: a thread may still run an instruction, or have words in a robust list that
//! was not walked, when another is gone already. A record lock goes with the process's table of descriptors, which the kernel lets go of after a
//! thread's memory and its robust list; and execve(2) closes the descriptor (close-on-exec) after all other threads and the old memory are gone. So
//! who finds the byte free knows that nothing of the process runs, and no list of it is left to walk. A pidfd tells the same, but not of exec, and only who
//! knows that its pid has not become another's.
//!
//! The lock belongs to the process, not to the descriptor: children do not inherit it, and a process does not see its own. Closing *any*
//! descriptor of the file in the process gives it up. See fcntl(2), "Advisory record locking".

use libc::flock;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::io;
use std::os::fd::BorrowedFd;

fn byte(kind: i32, at: u32) -> flock {
    flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: i64::from(at), l_len: 1, l_pid: 0 }
}

/// Locks byte `at` for the calling process; false when another process has it.
///
/// # Errors
/// The system has no such locks, or no room for one.
pub fn take(file: BorrowedFd<'_>, at: u32) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_SETLK(&byte(libc::F_WRLCK, at))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Gives up byte `at`, which the calling process may have locked.
///
/// # Errors
/// As [`take`].
pub fn give_back(file: BorrowedFd<'_>, at: u32) -> io::Result<()> {
    fcntl(file, FcntlArg::F_SETLK(&byte(libc::F_UNLCK, at)))?;
    Ok(())
}

/// Whether another process has byte `at` locked.
///
/// # Errors
/// As [`take`].
pub fn is_taken(file: BorrowedFd<'_>, at: u32) -> io::Result<bool> {
    let mut found = byte(libc::F_RDLCK, at);
    fcntl(file, FcntlArg::F_GETLK(&mut found))?;
    Ok(i32::from(found.l_type) != libc::F_UNLCK)
}

/// The id of the other process that has byte `at` locked, by what the kernel says.
///
/// # Errors
/// As [`take`].
pub fn holder(file: BorrowedFd<'_>, at: u32) -> io::Result<Option<u32>> {
    let mut found = byte(libc::F_RDLCK, at);
    fcntl(file, FcntlArg::F_GETLK(&mut found))?;
    let taken = i32::from(found.l_type) != libc::F_UNLCK;
    Ok(u32::try_from(found.l_pid).ok().filter(|_| taken))
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use crate::memfd;
    use std::os::fd::AsFd;

    /// To a descriptor's own locks, those of a process are another's.
    fn is_locked(file: BorrowedFd<'_>, at: u32) -> bool {
        let mut found = byte(libc::F_WRLCK, at);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)).unwrap();
        i32::from(found.l_type) != libc::F_UNLCK
    }

    #[test]
    fn a_process_has_its_byte_and_none_besides() {
        let file = memfd::create_sealed(c"presence", 4096).unwrap();
        assert!(take(file.as_fd(), 7).unwrap() && take(file.as_fd(), 7).unwrap());
        assert!(is_locked(file.as_fd(), 7) && !is_locked(file.as_fd(), 6) && !is_locked(file.as_fd(), 8));
        assert!(!is_taken(file.as_fd(), 7).unwrap(), "by another process");
        give_back(file.as_fd(), 7).unwrap();
        assert!(!is_locked(file.as_fd(), 7) && take(file.as_fd(), 7).unwrap());
        drop(file.try_clone().unwrap());
        assert!(!is_locked(file.as_fd(), 7), "given up with any descriptor of the file");
    }

    #[test]
    fn another_process_has_it_until_it_is_gone() {
        let file = memfd::create_sealed(c"presence", 4096).unwrap();
        // SAFETY: the child makes system calls only.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let _ = take(file.as_fd(), 3);
            loop {
                // SAFETY: no arguments.
                unsafe { libc::pause() };
            }
        }
        while !is_taken(file.as_fd(), 3).unwrap() {
            std::thread::yield_now();
        }
        assert!(!take(file.as_fd(), 3).unwrap());
        assert_eq!(holder(file.as_fd(), 3).unwrap(), Some(child as u32));
        assert_eq!(holder(file.as_fd(), 4).unwrap(), None);
        // SAFETY: a child of this test, which nobody else waits for.
        assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
        // SAFETY: a null status is allowed.
        assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
        assert!(!is_taken(file.as_fd(), 3).unwrap());
    }
}
