//! What a child's standard streams are connected to.

use std::fs::File;
use std::os::fd::OwnedFd;

/// A standard stream of a child. By default stdin is the null device and the others are inherited.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stdio {
    /// The parent's own stream.
    Inherit,
    /// The null device.
    Null,
    /// A pipe whose other end is the parent's: see [`Process::stdout`](crate::Process#structfield.stdout).
    Piped,
    /// This descriptor.
    Fd(OwnedFd),
}

impl From<File> for Stdio {
    fn from(file: File) -> Stdio {
        Stdio::Fd(file.into())
    }
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Stdio {
        Stdio::Fd(fd)
    }
}

impl From<std::io::PipeReader> for Stdio {
    fn from(pipe: std::io::PipeReader) -> Stdio {
        Stdio::Fd(pipe.into())
    }
}

impl From<std::io::PipeWriter> for Stdio {
    fn from(pipe: std::io::PipeWriter) -> Stdio {
        Stdio::Fd(pipe.into())
    }
}
