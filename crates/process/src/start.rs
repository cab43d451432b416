//! Start methods: how a new process of the same program comes to be.
//!
//! The keeper asks for a [`Start`] and gets a pid; everything else (arguments, watching, the end) is the same for all methods.

use multiproc_sys::image;
use multiproc_sys::spawn::{self, SpawnRequest, StdioAction};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How a process is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartMethod {
    /// A fresh process: `posix_spawn` of the running program's own file. Nothing of the parent's memory is copied, so its size and its
    /// threads do not matter; it works on when the file has been replaced or deleted.
    #[default]
    Exec,
}

/// What a start method needs to know.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) method: StartMethod,
    pub(crate) env: Vec<CString>,
    pub(crate) cwd: Option<CString>,
    pub(crate) stdio: [Stream; 3],
    /// The child's end of its tie.
    pub(crate) tie: OwnedFd,
}

/// A standard stream of the child.
#[derive(Debug)]
pub(crate) enum Stream {
    Inherit,
    Null,
    Fd(OwnedFd),
}

/// Starts the process and returns its pid. Runs on the keeper thread.
pub(crate) fn start(start: &Start, inherit: &[BorrowedFd<'_>]) -> io::Result<u32> {
    match start.method {
        StartMethod::Exec => exec(start, inherit),
    }
}

const SELF: &CStr = c"/proc/self/exe";

fn exec(start: &Start, inherit: &[BorrowedFd<'_>]) -> io::Result<u32> {
    let stdio = start.stdio.each_ref().map(|stream| match stream {
        Stream::Inherit => StdioAction::Inherit,
        Stream::Null => StdioAction::Null,
        Stream::Fd(fd) => StdioAction::Fd(fd.as_fd()),
    });
    let argv0 = image::argv0();
    spawn::spawn(&SpawnRequest { path: SELF, argv: &[&argv0], envp: &start.env, cwd: start.cwd.as_deref(), stdio, inherit })
}
