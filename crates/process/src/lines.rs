//! Output line by line: one thread for all children of this process reads their pipes and calls back with whole lines.
//!
//! What a child has written when it dies is delivered before anybody who joins it returns, the unfinished last line included. Whether a pipe ever
//! ends is another matter: a program that the child has started may have it still. So it is the child's death that ends the wait, and the
//! bytes that the pipe holds at that moment that are read for it; what comes later is delivered too, as long as somebody writes.
//!
//! The thread calls back while it reads nothing, so a slow callback fills the pipes, and then the writers wait: nothing is dropped, and the
//! keeper is not involved. Stands on [`multiproc_sys::stream`].

use crate::child::Child;
use crate::error::{Error, Kind};
use crate::replaceable::Replaceable;
use multiproc_sys::clock::Deadline;
use multiproc_sys::poll::{Kick, poll_readable};
use multiproc_sys::signal;
use multiproc_sys::stream::Stream as PipeEnd;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

const EBADF: i32 = 9;
/// A line of more bytes is delivered in pieces: 1 MiB.
const LONGEST: usize = 1 << 20;
/// Bytes that are read from one stream before the next has its turn.
const TURN: usize = 64 << 10;

type Callback = Box<dyn FnMut(&str, &str) + Send>;

/// What [`Stdio::lines`](crate::Stdio::lines) was given.
// The mutex is never contended: it makes the settings of a process `Sync`.
pub struct Lines(Mutex<Callback>);

impl Lines {
    pub(crate) fn new(callback: impl FnMut(&str, &str) + Send + 'static) -> Lines {
        Lines(Mutex::new(Box::new(callback)))
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}

struct Stream {
    pipe: PipeEnd,
    child: Arc<Child>,
    callback: Callback,
    /// Read and not yet delivered, and how much of it is known to hold no end of line.
    held: Vec<u8>,
    searched: usize,
    /// Everything that the child itself has written is delivered.
    told: bool,
}

struct Deliverer {
    kick: Kick,
    thread: OnceLock<ThreadId>,
    /// `None` when nobody delivers any more.
    new: Mutex<Option<Vec<Stream>>>,
    /// Children with lines to come.
    awaited: Mutex<Vec<Arc<Child>>>,
}

static DELIVERER: Replaceable<Deliverer> = Replaceable::new();
static STARTING: Mutex<()> = Mutex::new(());

/// In a process that a plain fork made: the thread that delivered has remained in the parent.
pub(crate) fn begin_another_life() {
    DELIVERER.forget();
}

/// Makes sure that there is somebody to deliver. To be called before a child with such a stream is started.
pub(crate) fn prepare() -> Result<(), Error> {
    let failed = |e: io::Error| Error::because(Kind::Resources, "no thread to deliver the lines of children", e);
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if DELIVERER.get().is_none() {
        let kick = Kick::new().map_err(failed)?;
        let _ = DELIVERER.set(Deliverer {
            kick,
            thread: OnceLock::new(),
            new: Mutex::new(Some(Vec::new())),
            awaited: Mutex::default(),
        });
    }
    let Some(deliverer) = DELIVERER.get() else { return Ok(()) };
    if deliverer.thread.get().is_none() {
        // Signals are the program's other threads' business.
        let _blocked = signal::block_all();
        let thread = thread::Builder::new().name("multiproc-lines".into()).spawn(|| deliver(deliverer)).map_err(failed)?;
        let _ = deliverer.thread.set(thread.thread().id());
    }
    Ok(())
}

/// A pipe for a child to write to.
pub(crate) fn pipe() -> io::Result<(PipeEnd, io::PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    Ok((PipeEnd::new(reader)?, writer))
}

/// Has the lines of a child's stream delivered.
pub(crate) fn follow(child: &Arc<Child>, pipe: PipeEnd, Lines(callback): Lines) {
    let Some(deliverer) = DELIVERER.get() else { return };
    let callback = callback.into_inner().unwrap_or_else(PoisonError::into_inner);
    let stream = Stream { pipe, child: child.clone(), callback, held: Vec::new(), searched: 0, told: false };
    deliverer.awaited.lock().unwrap_or_else(PoisonError::into_inner).push(child.clone());
    match &mut *deliverer.new.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(new) => new.push(stream),
        None => child.line_end_delivered(),
    }
    let _ = deliverer.kick.kick();
}

/// A child has ended.
pub(crate) fn look() {
    if let Some(deliverer) = DELIVERER.get() {
        let _ = deliverer.kick.kick();
    }
}

/// Whether the calling thread is the one that delivers: it cannot wait for itself.
pub(crate) fn is_delivering() -> bool {
    DELIVERER.get().is_some_and(|d| d.thread.get() == Some(&thread::current().id()))
}

/// Waits until the lines of all children that have ended are delivered; false when time is up.
pub(crate) fn flush(deadline: Option<Deadline>) -> bool {
    let Some(deliverer) = DELIVERER.get() else { return true };
    let awaited = deliverer.awaited.lock().unwrap_or_else(PoisonError::into_inner).clone();
    awaited.iter().filter(|child| child.end_is_announced()).all(|child| child.wait(deadline))
}

fn deliver(deliverer: &'static Deliverer) {
    let mut streams: Vec<Stream> = Vec::new();
    let (mut ready, mut chunk) = (Vec::new(), vec![0; TURN]);
    loop {
        let mut fds = vec![deliverer.kick.as_fd()];
        fds.extend(streams.iter().map(|stream| stream.pipe.as_fd()));
        if let Err(e) = poll_readable(&fds, None, &mut ready) {
            if e.raw_os_error() == Some(EBADF) {
                // The program has closed descriptors that are not its own: nobody shall wait for these lines, nor for those of streams that are new.
                let new = deliverer.new.lock().unwrap_or_else(PoisonError::into_inner).take();
                streams.extend(new.into_iter().flatten());
                streams.iter().filter(|stream| !stream.told).for_each(|stream| stream.child.line_end_delivered());
                return;
            }
            // Only a lack of kernel memory; what is ready stays so.
            thread::yield_now();
            continue;
        }
        drop(fds);
        // Before the streams are looked at: what the kicks announced is seen now or kicks again.
        deliverer.kick.drain();
        ready.remove(0);
        let new = deliverer.new.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(std::mem::take).unwrap_or_default();
        ready.resize(streams.len() + new.len(), false);
        streams.extend(new);
        let mut ready = ready.iter();
        streams.retain_mut(|stream| {
            let more = stream.serve(ready.next() == Some(&true), &mut chunk);
            if stream.told && stream.child.has_ended() {
                let mut awaited = deliverer.awaited.lock().unwrap_or_else(PoisonError::into_inner);
                awaited.retain(|child| !Arc::ptr_eq(child, &stream.child));
            }
            more
        });
    }
}

impl Stream {
    /// Reads and delivers; false at the end of the pipe.
    fn serve(&mut self, ready: bool, chunk: &mut [u8]) -> bool {
        // Asked before anything is read: all that the dead child has written lies in the pipe.
        let last = !self.told && self.child.end_is_announced();
        let mut left = match last {
            true => self.pipe.bytes_held().unwrap_or(0),
            false if ready => chunk.len(),
            false => return true,
        };
        let mut open = true;
        while open && left > 0 {
            let room = left.min(chunk.len());
            match self.pipe.read(&mut chunk[..room]) {
                Ok(0) => open = false,
                Ok(n) => {
                    self.take(&chunk[..n]);
                    left -= n;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => open = false,
            }
            if !last {
                break;
            }
        }
        if last || !open {
            self.deliver_rest();
            if !self.told {
                self.told = true;
                self.child.line_end_delivered();
            }
        }
        open
    }

    fn take(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut start = 0;
        while let Some(length) = held[self.searched.max(start)..].iter().position(|&b| b == b'\n') {
            let end = self.searched.max(start) + length;
            let line = &held[start..end];
            self.tell(line.strip_suffix(b"\r").unwrap_or(line));
            start = end + 1;
        }
        while held.len() - start > LONGEST {
            let piece = whole_characters(&held[start..start + LONGEST]);
            self.tell(piece);
            start += piece.len();
        }
        self.held = held;
        self.held.drain(..start);
        self.searched = self.held.len();
    }

    fn deliver_rest(&mut self) {
        let rest = std::mem::take(&mut self.held);
        self.searched = 0;
        if !rest.is_empty() {
            self.tell(&rest);
        }
    }

    fn tell(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        // The panic's hook has said what there is to say; the next line is another.
        let _ = catch_unwind(AssertUnwindSafe(|| (self.callback)(&self.child.name, &line)));
    }
}

/// Without the beginning of a character at the end.
fn whole_characters(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(e) if e.error_len().is_none() && e.valid_up_to() > 0 => &bytes[..e.valid_up_to()],
        _ => bytes,
    }
}
