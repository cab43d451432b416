//! What a child's standard streams are connected to.

use crate::lines::Lines;
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
    /// A pipe that is read line by line: see [`Stdio::lines`].
    Lines(Lines),
}

impl Stdio {
    /// Has each line that the process writes delivered to `f`, with the process's name. For stdout or stderr; each has its own callback, and
    /// their order among each other is not kept.
    ///
    /// Lines come without their end (`\n` or `\r\n`), whole, in order, in the parent, on one thread that serves all its children. Bytes that are not UTF-8
    /// are replaced by U+FFFD. A line of more than 1 MiB comes in pieces of about that size. When the process has ended, however it did,
    /// what it had written is delivered before [`join`](crate::Process::join) and its like return, also a last line without an end. What other programs
    /// that have inherited the pipe write after that is delivered as it comes, and nobody waits for it.
    ///
    /// Nothing is dropped: while `f` runs nothing is read, and when a pipe is full (64 KiB) its writer waits. So an `f` that never returns
    /// stops everybody who writes. `f` may join processes; a panic in it is printed, and the next line is delivered.
    ///
    /// # Examples
    /// ```
    /// use multiproc::{Process, Stdio};
    /// use std::sync::{Arc, Mutex};
    ///
    /// let seen = Arc::new(Mutex::new(Vec::new()));
    /// let log = seen.clone();
    /// let to_log = Stdio::lines(move |who, line| log.lock().unwrap().push(format!("{who}: {line}")));
    /// let worker = Process::builder().name("speaker").stdout(to_log).spawn((), || print!("one\ntwo"))?;
    /// worker.join()?;
    /// assert_eq!(*seen.lock().unwrap(), ["speaker: one", "speaker: two"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lines(f: impl FnMut(&str, &str) + Send + 'static) -> Stdio {
        Stdio::Lines(Lines::new(f))
    }
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
