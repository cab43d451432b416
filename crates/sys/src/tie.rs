//! A tie between a parent and a child, which breaks when the child ends or becomes another program.
//!
//! A pidfd lives through exec(2), so it does not tell of it. This is a pipe that nothing is ever written to: the child has its writing
//! end, close-on-exec, and the parent sees it hang up. A copy that the child's own fork keeps open holds it together; the end of
//! the process is known by its pidfd all the same. See pipe(2), poll(2).

use crate::memfd;
use crate::own_fd::OwnFd;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The parent's end; readable in poll(2) once the tie is broken.
#[derive(Debug)]
pub struct Tie(OwnFd);

impl Tie {
    /// A tie, and the end of it for the child: at least 10 and close-on-exec.
    ///
    /// # Errors
    /// EMFILE or ENFILE without two free descriptors.
    pub fn new() -> io::Result<(Tie, OwnedFd)> {
        let (parents, childs) = io::pipe()?;
        Ok((Tie(OwnFd::new(memfd::move_high(parents.into())?)?), memfd::move_high(childs.into())?))
    }
}

impl AsFd for Tie {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::poll_readable;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    #[test]
    fn it_breaks_with_its_last_holder() {
        let (tie, end) = Tie::new().unwrap();
        let whole = || poll_readable(&[tie.as_fd()], Some(Duration::ZERO), &mut Vec::new()).unwrap() == 0;
        assert!(whole());
        // Another program does not get it.
        let mut other = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        drop(end);
        assert_eq!(poll_readable(&[tie.as_fd()], None, &mut Vec::new()).unwrap(), 1);
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
