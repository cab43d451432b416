//! The handle of a thread, its settings, and its start: [`Process`](crate::Process) and [`Builder`](crate::Builder) for threads.

use super::twin::{self, State, Twin};
use crate::args::{Args, Run};
use crate::current::ProcessInfo;
use crate::error::{Error, ProcessError};
use crate::{exit, panics};
use multiproc_channel::Message;
use multiproc_shm::watching::{Source, WaitOn};
use multiproc_sys::clock::Deadline;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// What a process that panicked exits with, too.
const EXIT_PANIC: i32 = 101;

/// A thread that runs a function and returns an `R`, in the shape of a [process](crate::Process).
///
/// Dropping the handle neither ends nor detaches the thread: the program waits for it when it exits with status 0, unless it is a
/// [daemon](Builder::daemon). An exit with another status, and one after a signal, waits for no thread; [`exit_grace`](crate::exit_grace) bounds the wait.
/// (Of a program that is exiting already, std lets no other thread call `std::process::exit`: the call blocks, and with it the exit that waits for its thread.)
///
/// `terminate`, `kill`, `interrupt`, `signal` and `detach` do not exist: a thread cannot be ended from outside, and does not outlive its program. Tell it by an
/// [`Event`](multiproc_sync::Event) or by closing its queue.
///
/// # Crash safety
/// A panic ends the thread alone: its guards are released, and what it had on lease comes again. Whatever ends a process by a signal ends the
/// program with all its threads.
///
/// # Python
/// `multiprocessing.dummy.Process`.
///
/// # Examples
/// ```
/// use multiproc::threads::Process;
///
/// let p = Process::spawn((20,), |x: u64| x * 2 + 2)?;
/// assert_eq!(p.join()?, 42);
///
/// let p = Process::spawn((), || -> () { panic!("no luck") })?;
/// assert!(p.join().unwrap_err().to_string().ends_with("no luck"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A thread's function captures nothing either, so that it may become a process's again:
/// ```compile_fail,E0308
/// let n = 5;
/// multiproc::threads::spawn((), move || n)?.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// ```
/// let n = 5;
/// multiproc::threads::spawn((n,), |n: i32| n)?.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping the handle discards the return value; the thread goes on"]
pub struct Process<R> {
    twin: Arc<Twin>,
    outcome: Arc<Mutex<Outcome<R>>>,
}

enum Outcome<R> {
    None,
    Returned(R),
    Fetched,
    Panicked { message: String, location: String, backtrace: String },
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut d = f.debug_struct("Process");
        d.field("name", &self.twin.name).field("thread", &true);
        match self.exit_status() {
            Some(status) => d.field("ended", &format_args!("{status}")),
            None => d.field("alive", &self.is_alive()),
        };
        d.field("daemon", &self.twin.daemon).finish()
    }
}

/// Starts `f(args..)` in a new thread: [`Process::spawn`].
///
/// # Errors
/// As [`Process::spawn`].
///
/// # Examples
/// ```
/// let twice = multiproc::threads::spawn((4, "ab".to_owned()), |n: usize, text: String| text.repeat(n))?;
/// assert_eq!(twice.join()?, "abababab");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn spawn<A: Args + Send, R: Message + Send>(args: A, f: A::Fn<R>) -> Result<Process<R>, Error> {
    Builder::new().spawn(args, f)
}

impl Process<()> {
    /// Starts `f(args..)` in a new thread.
    ///
    /// `f` is any function, or a closure that captures nothing; `args` a tuple of up to 12 values, as for a process. They are moved, not encoded.
    ///
    /// # Errors
    /// The system has no thread left; the process was made by a plain `fork()` and has not called [`after_fork_child`](crate::after_fork_child).
    pub fn spawn<A: Args + Send, R: Message + Send>(args: A, f: A::Fn<R>) -> Result<Process<R>, Error> {
        Builder::new().spawn(args, f)
    }

    /// Starts a [`Run`] struct in a new thread.
    ///
    /// # Errors
    /// As [`spawn`](Process::spawn).
    #[doc(alias = "Process.start")]
    pub fn start<T: Run<Output: Send> + Send>(task: T) -> Result<Process<T::Output>, Error> {
        Builder::new().start(task)
    }

    /// Settings for a thread to be started.
    pub fn builder() -> Builder {
        Builder::new()
    }
}

impl<R> WaitOn for Process<R> {
    fn source(&self) -> Source<'_> {
        Source::Object(&*self.twin)
    }
}

impl<R> Process<R> {
    /// Waits for the thread to end and returns its value.
    ///
    /// # Errors
    /// [`ProcessError::Panicked`], with the message and the place of the panic, and the program's own pid.
    pub fn join(self) -> Result<R, ProcessError> {
        self.twin.wait(None);
        self.take()
    }

    /// As [`join`](Process::join), at most for `timeout`; `Ok(None)` when time is up. The value is given out once.
    ///
    /// # Errors
    /// As [`join`](Process::join); [`ProcessError::AlreadyJoined`] after a value was returned.
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<Option<R>, ProcessError> {
        self.join_until(Deadline::after(timeout))
    }

    /// As [`join_timeout`](Process::join_timeout), at most until `deadline`.
    ///
    /// # Errors
    /// As [`join_timeout`](Process::join_timeout).
    pub fn join_deadline(&mut self, deadline: Instant) -> Result<Option<R>, ProcessError> {
        self.join_until(Deadline::at(deadline))
    }

    /// As [`join_timeout`](Process::join_timeout) without waiting.
    ///
    /// # Errors
    /// As [`join_timeout`](Process::join_timeout).
    pub fn try_join(&mut self) -> Result<Option<R>, ProcessError> {
        if self.twin.state() == State::Running { Ok(None) } else { self.join_until(None) }
    }

    fn join_until(&mut self, deadline: Option<Deadline>) -> Result<Option<R>, ProcessError> {
        match self.twin.wait(deadline) {
            Some(_) => self.take().map(Some),
            None => Ok(None),
        }
    }

    fn take(&self) -> Result<R, ProcessError> {
        let (name, pid) = (self.twin.name.clone(), std::process::id());
        if !self.twin.is_ours() {
            return Err(ProcessError::Unknown { name, pid });
        }
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        match &*outcome {
            Outcome::None => Err(ProcessError::Unknown { name, pid }),
            Outcome::Fetched => Err(ProcessError::AlreadyJoined { name }),
            Outcome::Panicked { message, location, backtrace } => Err(ProcessError::Panicked {
                name,
                pid,
                message: message.clone(),
                location: location.clone(),
                backtrace: backtrace.clone(),
            }),
            Outcome::Returned(_) => match std::mem::replace(&mut *outcome, Outcome::Fetched) {
                Outcome::Returned(value) => Ok(value),
                _ => unreachable!("seen above, under the lock"),
            },
        }
    }

    /// Waits for the thread to end; may be repeated and leaves the value where it is. The status is that of a process which ends so: 0 after a
    /// return, 101 after a panic.
    pub fn wait(&self) -> Option<ExitStatus> {
        self.twin.wait(None).and_then(status)
    }

    /// As [`wait`](Process::wait), at most for `timeout`; `None` when time is up.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<ExitStatus> {
        self.twin.wait(Deadline::after(timeout)).and_then(status)
    }

    /// As [`wait`](Process::wait), at most until `deadline`; `None` when the time has come.
    pub fn wait_deadline(&self, deadline: Instant) -> Option<ExitStatus> {
        self.twin.wait(Deadline::at(deadline)).and_then(status)
    }

    /// Whether the function has neither returned nor panicked. Does not block.
    pub fn is_alive(&self) -> bool {
        self.twin.is_alive()
    }

    /// The id of the process it runs in, which is this one.
    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    /// std's id of the thread; `None` when it has been waited for.
    #[doc(alias = "ident")]
    pub fn thread_id(&self) -> Option<ThreadId> {
        self.twin.id()
    }

    /// Its name; `Thread-1` and so on unless the builder gave one.
    pub fn name(&self) -> &str {
        &self.twin.name
    }

    /// Whether the program's exit does not wait for it.
    pub fn is_daemon(&self) -> bool {
        self.twin.daemon
    }

    /// How it ended, as [`wait`](Process::wait) gives it; `None` while it runs. Does not block.
    #[doc(alias = "exitcode")]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        status(self.twin.state())
    }
}

fn status(state: State) -> Option<ExitStatus> {
    match state {
        State::Running => None,
        State::Returned => Some(ExitStatus::from_raw(0)),
        State::Panicked => Some(ExitStatus::from_raw(EXIT_PANIC << 8)),
    }
}

/// Settings for a thread; [`spawn`](Builder::spawn) or [`start`](Builder::start) starts it.
///
/// # Examples
/// ```
/// use multiproc::threads::{Process, current_process};
///
/// let p = Process::builder().name("speaker").spawn((), || current_process().name)?;
/// assert_eq!(p.join()?, "speaker");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct Builder {
    name: Option<String>,
    daemon: bool,
    stack: Option<usize>,
}

impl Builder {
    /// The default settings.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// The thread's name, in errors and reports, and for std.
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Whether the program's exit does not wait for the thread, but ends it wherever it is. Default: no.
    pub fn daemon(mut self, daemon: bool) -> Builder {
        self.daemon = daemon;
        self
    }

    /// The size of its stack in bytes; 8 MiB by default, as the main thread of a process has.
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.stack = Some(bytes);
        self
    }

    /// Starts `f(args..)`: see [`Process::spawn`].
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn spawn<A: Args + Send, R: Message + Send>(self, args: A, f: A::Fn<R>) -> Result<Process<R>, Error> {
        self.launch(move || A::call(f, args))
    }

    /// Starts a struct: see [`Process::start`].
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn start<T: Run<Output: Send> + Send>(self, task: T) -> Result<Process<T::Output>, Error> {
        self.launch(move || task.run())
    }

    fn launch<R: Send + 'static>(self, run: impl FnOnce() -> R + Send + 'static) -> Result<Process<R>, Error> {
        exit::register();
        panics::remember_place();
        let outcome = Arc::new(Mutex::new(Outcome::None));
        let its = Arc::clone(&outcome);
        let name = self.name.unwrap_or_else(twin::next_name);
        let twin = Twin::start(name, self.daemon, self.stack, move || {
            let (outcome, state) = match catch_unwind(AssertUnwindSafe(run)) {
                Ok(value) => (Outcome::Returned(value), State::Returned),
                Err(panic) => {
                    let message = panics::message(&*panic).to_owned();
                    let (location, backtrace) = panics::take_place();
                    // Its destructor may panic too, and has nothing to say.
                    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
                    (Outcome::Panicked { message, location, backtrace }, State::Panicked)
                }
            };
            *its.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
            state
        })?;
        Ok(Process { twin, outcome })
    }
}

/// The calling thread, if it is one of these; otherwise the [process](crate::current_process). The pid is the program's in both cases.
pub fn current_process() -> ProcessInfo {
    let process = crate::current::current_process();
    match twin::current() {
        Some(twin) => ProcessInfo { name: twin.name.clone(), ..process },
        None => process,
    }
}

/// A thread of this kind, whoever has its [`Process`].
#[derive(Clone, Debug)]
pub struct ThreadInfo {
    twin: Arc<Twin>,
}

impl ThreadInfo {
    /// The id of the process it runs in, which is this one.
    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.twin.name
    }

    /// Whether the program's exit does not wait for it.
    pub fn is_daemon(&self) -> bool {
        self.twin.daemon
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        self.twin.is_alive()
    }

    /// Waits until it has ended.
    pub fn wait(&self) {
        self.twin.wait(None);
    }
}

/// The threads of this kind that have not ended, but for the calling one.
pub fn active_children() -> Vec<ThreadInfo> {
    twin::others().into_iter().map(|twin| ThreadInfo { twin }).collect()
}
