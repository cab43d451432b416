//! The handle of a child process.

use crate::args::{Args, Run};
use crate::builder::Builder;
use crate::child::Child;
use crate::current::ProcessInfo;
use crate::error::{Error, Kind, ProcessError};
use crate::signal::Signal;
use multiproc_channel::Message;
use multiproc_shm::watching::{Source, WaitOn};
use multiproc_sys::clock::Deadline;
use std::fmt;
use std::io::{PipeReader, PipeWriter};
use std::marker::PhantomData;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A child process that runs a function and returns an `R`.
///
/// Dropping the handle neither kills nor detaches the child: like Python, the parent waits for it when it exits.
/// Children end with their parent: `kill -9` of the coordinator ends the whole tree.
///
/// # Crash safety
/// However the child ends, [`join`](Process::join) returns, and everything that the child held is given back before it does.
///
/// # Python
/// `multiprocessing.Process`; constructing and starting are one step.
///
/// # Examples
/// ```
/// use multiproc::Process;
///
/// let p = Process::spawn((20,), |x: u64| x * 2 + 2)?;
/// assert_eq!(p.join()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A closure that captures anything is refused by the compiler; what it would capture becomes an argument:
/// ```compile_fail,E0308
/// let n = 5;
/// multiproc::Process::spawn((), move || n)?.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// ```
/// let n = 5;
/// multiproc::Process::spawn((n,), |n: i32| n)?.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// So is a borrowed argument, since a process cannot see another's stack; it is sent as a value of its own:
/// ```compile_fail
/// let text = String::from("abc");
/// multiproc::Process::spawn((text.as_str(),), |t: &str| t.len())?.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// ```
/// let text = String::from("abc");
/// multiproc::Process::spawn((text.clone(),), |t: String| t.len())?.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A closure that never returns says what it would return, since `!` is not a message:
/// ```
/// let p = multiproc::Process::spawn((), || -> () { std::process::exit(3) })?;
/// assert!(p.join().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping the handle discards the return value; the process goes on"]
pub struct Process<R> {
    pub(crate) child: Arc<Child>,
    /// The child's stdin, when the builder asked for [`Stdio::Piped`](crate::Stdio::Piped).
    pub stdin: Option<PipeWriter>,
    /// The child's stdout, when the builder asked for [`Stdio::Piped`](crate::Stdio::Piped).
    pub stdout: Option<PipeReader>,
    /// The child's stderr, when the builder asked for [`Stdio::Piped`](crate::Stdio::Piped).
    pub stderr: Option<PipeReader>,
    pub(crate) _returns: PhantomData<fn() -> R>,
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut d = f.debug_struct("Process");
        d.field("name", &self.child.name).field("pid", &self.child.pid);
        match self.child.exit_status() {
            Some(status) => d.field("ended", &format_args!("{status}")),
            None => d.field("alive", &true),
        };
        d.field("daemon", &self.child.daemon).finish()
    }
}

impl Process<()> {
    /// Starts `f(args..)` in a new process.
    ///
    /// `f` is any function, or a closure that captures nothing; `args` a tuple of up to 12 values that own their data. Blocks
    /// until the process is being executed, not until `f` runs.
    ///
    /// # Errors
    /// The arguments cannot be encoded; this program cannot start workers (see [`Error::is_unsupported`]); no memory, process or
    /// descriptor is left.
    pub fn spawn<A: Args, R: Message>(args: A, f: A::Fn<R>) -> Result<Process<R>, Error> {
        Builder::new().spawn(args, f)
    }

    /// Starts a [`Run`] struct in a new process.
    ///
    /// # Errors
    /// As [`spawn`](Process::spawn).
    #[doc(alias = "Process.start")]
    pub fn start<T: Run>(task: T) -> Result<Process<T::Output>, Error> {
        Builder::new().start(task)
    }

    /// Settings for a process to be started.
    pub fn builder() -> Builder {
        Builder::new()
    }
}

impl<R: Message> Process<R> {
    /// Waits for the process to end and returns its value.
    ///
    /// # Errors
    /// How it ended instead: see [`ProcessError`]. A committed value counts even if the process was killed after it.
    pub fn join(mut self) -> Result<R, ProcessError> {
        // As std's `Child::wait`: a child that reads its stdin to the end would wait for us.
        drop(self.stdin.take());
        self.child.wait(None);
        self.child.take()
    }

    /// As [`join`](Process::join), at most for `timeout`; `Ok(None)` when time is up. The value is given out once.
    ///
    /// # Errors
    /// As [`join`](Process::join); [`ProcessError::AlreadyJoined`] after a value was returned.
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<Option<R>, ProcessError> {
        if self.child.wait(Deadline::after(timeout)) { self.child.take().map(Some) } else { Ok(None) }
    }

    /// As [`join_timeout`](Process::join_timeout), at most until `deadline`.
    ///
    /// # Errors
    /// As [`join_timeout`](Process::join_timeout).
    pub fn join_deadline(&mut self, deadline: Instant) -> Result<Option<R>, ProcessError> {
        if self.child.wait(Deadline::at(deadline)) { self.child.take().map(Some) } else { Ok(None) }
    }

    /// As [`join_timeout`](Process::join_timeout) without waiting.
    ///
    /// # Errors
    /// As [`join_timeout`](Process::join_timeout).
    pub fn try_join(&mut self) -> Result<Option<R>, ProcessError> {
        if self.child.has_ended() { self.child.take().map(Some) } else { Ok(None) }
    }
}

impl<R> WaitOn for Process<R> {
    fn source(&self) -> Source<'_> {
        Source::Object(&*self.child)
    }
}

impl<R> Process<R> {
    /// Waits for the process to end; may be repeated and leaves the value where it is. `None` when nobody can say how it ended.
    pub fn wait(&self) -> Option<ExitStatus> {
        self.child.wait(None);
        self.child.exit_status()
    }

    /// As [`wait`](Process::wait), at most for `timeout`; `None` when time is up.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<ExitStatus> {
        self.child.wait(Deadline::after(timeout));
        self.child.exit_status()
    }

    /// As [`wait`](Process::wait), at most until `deadline`; `None` when the time has come.
    pub fn wait_deadline(&self, deadline: Instant) -> Option<ExitStatus> {
        self.child.wait(Deadline::at(deadline));
        self.child.exit_status()
    }

    /// Whether the process has not ended. Does not block.
    pub fn is_alive(&self) -> bool {
        self.child.is_alive()
    }

    /// Whether it has ended and been cleaned up after, so that [`join`](Process::join) would not wait.
    #[doc(hidden)]
    pub fn has_ended(&self) -> bool {
        self.child.has_ended()
    }

    /// Its id.
    #[doc(alias = "ident")]
    pub fn pid(&self) -> u32 {
        self.child.pid
    }

    /// Its name; `Process-1` and so on unless the builder gave one.
    pub fn name(&self) -> &str {
        &self.child.name
    }

    /// Whether the parent's exit ends it instead of waiting for it.
    pub fn is_daemon(&self) -> bool {
        self.child.daemon
    }

    /// How it ended; `None` while it runs, and when nobody can say. Does not block.
    ///
    /// | the worker | its status | what `join` gives |
    /// |---|---|---|
    /// | returned from its function | 0 | the value |
    /// | panicked | 101 (with `panic = "abort"`: SIGABRT) | [`Panicked`](ProcessError::Panicked) |
    /// | called `std::process::exit(n)` | n | [`Exited`](ProcessError::Exited) |
    /// | was ended by a signal | the signal | [`Signaled`](ProcessError::Signaled), or [`StackOverflow`](ProcessError::StackOverflow) |
    /// | has called [`shutdown_on`](crate::shutdown_on), and signal n came | 128 + n | [`Exited`](ProcessError::Exited) |
    /// | could not encode its value | 101 | [`Unsendable`](ProcessError::Unsendable) |
    /// | could not read its arguments or join its tree | 126 | [`NotStarted`](ProcessError::NotStarted) |
    /// | found that its parent was gone | 125 | nobody asks |
    ///
    /// A value that was returned counts, whatever came after. The coordinator's own status is what `main` makes of it: a child that fails does
    /// not change it. It waits for its children before it leaves, unless it leaves with another status than 0, and ends them then. A signal that
    /// [`shutdown_on`](crate::shutdown_on) has been told of makes it 128 + n, in every case.
    #[doc(alias = "exitcode")]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child.exit_status()
    }

    /// Sends SIGINT, as Ctrl-C would.
    ///
    /// # Errors
    /// [`Error::is_ended`] when it has ended. A pid that was given to another process is never hit.
    pub fn interrupt(&self) -> Result<(), Error> {
        self.signal(Signal::INT)
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// As [`interrupt`](Process::interrupt).
    pub fn terminate(&self) -> Result<(), Error> {
        self.signal(Signal::TERM)
    }

    /// Sends SIGKILL.
    ///
    /// # Errors
    /// As [`interrupt`](Process::interrupt).
    pub fn kill(&self) -> Result<(), Error> {
        self.signal(Signal::KILL)
    }

    /// Sends any signal.
    ///
    /// # Errors
    /// As [`interrupt`](Process::interrupt).
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.child.signal(signal)
    }

    /// Lets the process outlive this one: from now on it is ended neither with its parent nor with the coordinator, and no exit waits for
    /// it. Returns who it is; its return value goes nowhere.
    ///
    /// Blocks until the process has taken back what would have ended it: some microseconds once it runs, as long as its start takes, and
    /// while it is stopped. If this process dies during the call, the other may end or not.
    ///
    /// The detached process goes on as part of its tree: the shared memory lives while anybody has it, queues, locks and values work on between those that are
    /// left, and when one of them dies the others clean up after it. Its own children end with it. Its standard streams stay what they were: a pipe whose
    /// reader has gone is an error to write to. It has a process group of its own, but stays in the terminal's session.
    ///
    /// # Errors
    /// [`Error::is_ended`] when it has ended; or it has become another user's process, which this one may not signal.
    ///
    /// # Python
    /// None: there, a child that is no daemon keeps its parent from exiting, and outlives one that is killed.
    ///
    /// # Examples
    /// ```
    /// use multiproc::Process;
    ///
    /// let worker = Process::spawn((), || std::thread::sleep(std::time::Duration::from_millis(100)))?;
    /// let info = worker.detach()?;
    /// assert_ne!(info.pid, std::process::id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn detach(self) -> Result<ProcessInfo, Error> {
        let arena = crate::tree::existing()
            .ok_or_else(|| Error::new(Kind::System, "this process was made by fork(): the child is its parent's"))?;
        self.child.detach(arena)?;
        Ok(ProcessInfo { pid: self.child.pid, name: self.child.name.clone() })
    }
}
