//! The handle of a child process, and the builder that starts one.

use crate::args::{Args, Run};
use crate::error::{Error, Kind, ProcessError};
use crate::job::{self, Prepared};
use crate::keeper::{self, ChildSeed};
use crate::marker::Marker;
use crate::signal::Signal;
use crate::start::{Start, StartMethod, Stream};
use crate::stdio::Stdio;
use crate::worker::Outcome;
use crate::{exit, hook, tree};
use multiproc_channel::{Bincode, Message, message};
use multiproc_shm::arena::SlotId;
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::roster::SlotState;
use multiproc_shm::scope::References;
use multiproc_shm::{Arena, Held, record};
use multiproc_sys::clock::Deadline;
use multiproc_sys::pidfd::{ExitEvidence, PidFd};
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io::{PipeReader, PipeWriter};
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A child as this process knows it; shared by its handle and the keeper.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) slot: SlotId,
    pub(crate) pid: u32,
    pub(crate) name: String,
    pub(crate) daemon: bool,
    /// Until the end has been told: handles that are kept cost no descriptor.
    pidfd: Mutex<Option<Arc<PidFd>>>,
    ended: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
enum State {
    Running,
    /// Known to the keeper, which has not finished cleaning up.
    Ending(Ended),
    Ended(Ended),
}

#[derive(Debug)]
struct Ended {
    evidence: ExitEvidence,
    outcome: Outcome,
    last_words: Option<String>,
    began: bool,
    value: Option<ResultBlock>,
}

/// A return value that waits in the arena; this process owns the block and the references in it.
#[derive(Debug)]
struct ResultBlock {
    arena: &'static Arena,
    block: BlockId,
    references: References,
}

impl ResultBlock {
    /// Takes the result over from a dead child: references first, then the block.
    fn claim(arena: &'static Arena, slot: u32, word: u64) -> Option<ResultBlock> {
        let block = BlockId::from_word(word)?;
        let references = record::adopt(arena, block).ok()?;
        let mine = BlockState::Filling(arena.my_slot());
        if !arena.change_block_state(block, BlockState::Slot(slot), mine).ok()? {
            return None;
        }
        let _ = record::arrived(arena, &references);
        Some(ResultBlock { arena, block, references })
    }

    fn decode<R: Message>(self) -> Result<R, multiproc_channel::CodecError> {
        let corrupted = multiproc_channel::CodecError::decode;
        let head = record::head(self.arena, self.block).map_err(corrupted)?;
        let mut bytes = Vec::new();
        self.arena.memory().read(head.payload, head.len, &mut bytes).map_err(corrupted)?;
        message::decode::<R, Bincode>(self.arena, &bytes, &self.references)
    }
}

impl Drop for ResultBlock {
    fn drop(&mut self) {
        if !multiproc_sys::robust::forked() {
            let _ = self.arena.free(self.block);
        }
    }
}

impl Child {
    pub(crate) fn new(seed: ChildSeed, pid: u32, pidfd: PidFd) -> Child {
        let ChildSeed { slot, name, daemon } = seed;
        let state = Mutex::new(State::Running);
        let pidfd = Mutex::new(Some(Arc::new(pidfd)));
        Child { slot, pid, name, daemon, pidfd, ended: AtomicBool::new(false), state, changed: Condvar::new() }
    }

    pub(crate) fn pidfd(&self) -> Option<Arc<PidFd>> {
        self.pidfd.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.pidfd().is_some_and(|pidfd| !pidfd.is_dead())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn end_is_known(&self) -> bool {
        matches!(*self.state(), State::Ending(_))
    }

    /// The keeper has seen the pidfd end: takes the exit status and what the child left in its slot.
    pub(crate) fn collect_end(&self, arena: &'static Arena) {
        let evidence = self.pidfd().and_then(|pidfd| pidfd.reap().ok()).unwrap_or(ExitEvidence::Unknown);
        let ended = self.read_slot(arena, evidence);
        *self.state() = State::Ending(ended);
    }

    fn read_slot(&self, arena: &'static Arena, evidence: ExitEvidence) -> Ended {
        let SlotId { index, generation } = self.slot;
        let nothing = Ended { evidence, outcome: Outcome::None, last_words: None, began: false, value: None };
        let Ok(slot) = arena.slot(index) else { return nothing };
        let (state, now) = slot.state().unwrap_or((SlotState::Free, generation));
        if now != generation {
            return nothing;
        }
        // Acquire pairs with the Release of the child's last stores, which its death has ended anyway.
        let value = ResultBlock::claim(arena, index, slot.result.load(Ordering::Acquire));
        let ended = Ended {
            evidence,
            outcome: Outcome::from_word(slot.outcome.load(Ordering::Acquire)),
            last_words: read_text(arena, slot.last_words.load(Ordering::Acquire)),
            began: state == SlotState::Live,
            value,
        };
        if state == SlotState::Reserved {
            let _ = arena.abandon_slot(index, generation);
        } else {
            let _ = arena.slot_is_dead(index);
            slot.release();
        }
        ended
    }

    /// Whether everything that the dead child held has been given back.
    pub(crate) fn is_cleaned_up(&self, arena: &Arena) -> bool {
        let state = arena.slot(self.slot.index).and_then(|slot| slot.state());
        state.map_or(true, |(state, generation)| generation != self.slot.generation || state == SlotState::Free)
    }

    /// Tells who waits. After the slot was cleaned, so that who joins finds leases returned and channels closed.
    pub(crate) fn announce_end(&self) {
        *self.pidfd.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut state = self.state();
        if let State::Ending(ended) = std::mem::replace(&mut *state, State::Running) {
            *state = State::Ended(ended);
            self.ended.store(true, Ordering::Release);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until the child has ended and everything is cleaned up; false when time is up.
    pub(crate) fn wait(&self, deadline: Option<Deadline>) -> bool {
        let mut state = self.state();
        while !matches!(*state, State::Ended(_)) {
            match deadline {
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(d) if d.passed() => return false,
                Some(d) => state = self.changed.wait_timeout(state, d.remaining()).unwrap_or_else(PoisonError::into_inner).0,
            }
        }
        true
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        let ended = |e| Error::because(Kind::Ended, format!("process {} has ended", self.name), e);
        let Some(pidfd) = self.pidfd() else {
            return Err(Error::new(Kind::Ended, format!("process {} has ended", self.name)));
        };
        match pidfd.send_signal(signal.0) {
            Ok(()) => Ok(()),
            Err(e) if e.raw_os_error() == Some(3) => Err(ended(e)),
            Err(e) => Err(Error::because(Kind::System, format!("{signal} could not be sent to process {}", self.name), e)),
        }
    }

    fn exit_status(&self) -> Option<ExitStatus> {
        match &*self.state() {
            State::Ended(ended) => ended.evidence.to_wait_status().map(ExitStatus::from_raw),
            _ => None,
        }
    }

    /// The value or the reason for its absence, once.
    fn take<R: Message>(&self) -> Result<R, ProcessError> {
        let (name, pid) = (self.name.clone(), self.pid);
        let mut state = self.state();
        let State::Ended(ended) = &mut *state else { return Err(ProcessError::Unknown { name, pid }) };
        if let Some(value) = ended.value.take() {
            ended.outcome = Outcome::Fetched;
            drop(state);
            return value.decode().map_err(|source| ProcessError::Undecodable { name, source });
        }
        let words = ended.last_words.clone();
        let (message, location, backtrace) = words.as_deref().map(crate::panics::split).unwrap_or_default();
        let aborted = matches!(ended.evidence, ExitEvidence::Signaled { signal: 6, .. });
        Err(match (ended.outcome, ended.evidence) {
            (Outcome::Fetched, _) => ProcessError::AlreadyJoined { name },
            (Outcome::Panicked, _) => ProcessError::Panicked { name, pid, message, location, backtrace },
            (_, _) if aborted && words.is_some() => ProcessError::Panicked { name, pid, message, location, backtrace },
            (Outcome::StackOverflow, _) => ProcessError::StackOverflow { name, pid },
            (Outcome::Arguments | Outcome::Refused, _) => ProcessError::NotStarted { name, pid, reason: message },
            (Outcome::Result, _) => ProcessError::Unsendable { name, reason: message },
            (_, ExitEvidence::Exited(code)) if !ended.began => {
                ProcessError::NotStarted { name, pid, reason: format!("it exited with code {code} before it reported") }
            }
            (_, ExitEvidence::Exited(code)) => ProcessError::Exited { name, pid, code },
            (_, ExitEvidence::Signaled { signal, core }) => {
                ProcessError::Signaled { name, pid, signal: Signal(signal), core_dumped: core }
            }
            (Outcome::Exited(code), ExitEvidence::Unknown) => ProcessError::Exited { name, pid, code },
            (_, ExitEvidence::Unknown) => ProcessError::Unknown { name, pid },
        })
    }
}

fn read_text(arena: &Arena, word: u64) -> Option<String> {
    let block = BlockId::from_word(word)?;
    let head = record::head(arena, block).ok()?;
    let mut bytes = Vec::new();
    arena.memory().read(head.payload, head.len, &mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

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
    child: Arc<Child>,
    /// The child's stdin, when the builder asked for [`Stdio::Piped`].
    pub stdin: Option<PipeWriter>,
    /// The child's stdout, when the builder asked for [`Stdio::Piped`].
    pub stdout: Option<PipeReader>,
    /// The child's stderr, when the builder asked for [`Stdio::Piped`].
    pub stderr: Option<PipeReader>,
    _returns: PhantomData<fn() -> R>,
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
    pub fn join(self) -> Result<R, ProcessError> {
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

    /// As [`join_timeout`](Process::join_timeout) without waiting.
    ///
    /// # Errors
    /// As [`join_timeout`](Process::join_timeout).
    pub fn try_join(&mut self) -> Result<Option<R>, ProcessError> {
        if self.child.has_ended() { self.child.take().map(Some) } else { Ok(None) }
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

    /// Whether the process has not ended. Does not block.
    pub fn is_alive(&self) -> bool {
        self.child.is_alive()
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

    /// How it ended; `None` while it runs. Does not block.
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
}

/// Settings for a process; [`spawn`](Builder::spawn) or [`start`](Builder::start) starts it.
///
/// # Examples
/// ```
/// use multiproc::{Process, Stdio};
/// use std::io::Read;
///
/// let mut p = Process::builder().name("speaker").env("WORD", "hello").stdout(Stdio::Piped)
///     .spawn((), || print!("{}", std::env::var("WORD").unwrap()))?;
/// let mut said = String::new();
/// p.stdout.take().unwrap().read_to_string(&mut said)?;
/// p.join()?;
/// assert_eq!(said, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Builder {
    name: Option<String>,
    daemon: bool,
    method: StartMethod,
    env: Vec<(OsString, Option<OsString>)>,
    cwd: Option<PathBuf>,
    stdio: [Stdio; 3],
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// The default settings.
    pub fn new() -> Builder {
        Builder {
            name: None,
            daemon: false,
            method: StartMethod::default(),
            env: Vec::new(),
            cwd: None,
            stdio: [Stdio::Null, Stdio::Inherit, Stdio::Inherit],
        }
    }

    /// The process's name, in errors and reports; the first 64 bytes count, the first 15 in `ps`.
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Whether the parent's exit ends the process (SIGTERM, then SIGKILL) instead of waiting for it. Default: no.
    pub fn daemon(mut self, daemon: bool) -> Builder {
        self.daemon = daemon;
        self
    }

    /// How the process is started.
    pub fn start_method(mut self, method: StartMethod) -> Builder {
        self.method = method;
        self
    }

    /// Sets a variable in the child's environment, which is otherwise the parent's at the time of the start.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Builder {
        self.env.push((key.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Removes a variable from the child's environment.
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Builder {
        self.env.push((key.as_ref().to_owned(), None));
        self
    }

    /// The child's working directory.
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Builder {
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// The child's stdin; the null device by default.
    pub fn stdin(mut self, stdio: impl Into<Stdio>) -> Builder {
        self.stdio[0] = stdio.into();
        self
    }

    /// The child's stdout; inherited by default.
    pub fn stdout(mut self, stdio: impl Into<Stdio>) -> Builder {
        self.stdio[1] = stdio.into();
        self
    }

    /// The child's stderr; inherited by default.
    pub fn stderr(mut self, stdio: impl Into<Stdio>) -> Builder {
        self.stdio[2] = stdio.into();
        self
    }

    /// Starts `f(args..)`: see [`Process::spawn`].
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn spawn<A: Args, R: Message>(self, args: A, f: A::Fn<R>) -> Result<Process<R>, Error> {
        self.launch(|arena, name| job::of_function::<A, R>(arena, name, &args, f))
    }

    /// Starts a struct: see [`Process::start`].
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn start<T: Run>(self, task: T) -> Result<Process<T::Output>, Error> {
        self.launch(|arena, name| job::of_struct(arena, name, &task))
    }

    fn launch<R>(self, prepare: impl FnOnce(&'static Arena, &str) -> Result<Prepared, Error>) -> Result<Process<R>, Error> {
        tree::check_can_start()?;
        if exit::is_exiting() {
            return Err(Error::new(Kind::Exiting, "this process is exiting and starts no more children"));
        }
        let arena = tree::arena()?;
        exit::register();
        let name = self.name.unwrap_or_else(crate::current::next_child_name);
        let Prepared { payload, outgoing } = prepare(arena, &name)?;
        let [(stdin, ours_in), (stdout, ours_out), (stderr, ours_err)] = streams(self.stdio)?;
        let parent = keeper::own_pidfd()?;
        let slot = arena.reserve_slot()?;
        let started = (|| {
            let marker =
                Marker { arena: arena.fd().as_raw_fd(), parent: parent.as_raw_fd(), slot, in_main: hook::init_was_called() };
            let env = environment(&self.env, marker)?;
            let cwd = self.cwd.map(|d| c_string("as the working directory:", d.as_os_str())).transpose()?;
            hand_over(arena, slot, &name, &payload, outgoing.references())?;
            let start = Start { method: self.method, env, cwd, stdio: [stdin, stdout, stderr] };
            keeper::request(start, ChildSeed { slot, name, daemon: self.daemon })
        })();
        let child = match started {
            Ok(child) => child,
            Err(e) => {
                let _ = arena.abandon_slot(slot.index, slot.generation);
                let _ = record::withdraw(arena, outgoing.references());
                return Err(e);
            }
        };
        outgoing.gone();
        Ok(Process {
            child,
            stdin: ours_in.map(Into::into),
            stdout: ours_out.map(Into::into),
            stderr: ours_err.map(Into::into),
            _returns: PhantomData,
        })
    }
}

/// Puts the job into the child's slot. Killed in between, the parent's slot or the child's names every block.
fn hand_over(arena: &'static Arena, slot: SlotId, name: &str, payload: &[u8], references: &[Arc<Held>]) -> Result<(), Error> {
    record::announce(arena, references)?;
    let block = record::write(arena, payload, references.iter().map(|h| h.reference()))?;
    arena.set_block_state(block, BlockState::Slot(slot.index))?;
    let entry = arena.slot(slot.index)?;
    entry.set_name(name);
    // Release: the commit of the arguments.
    entry.args.store(BlockId::to_word(Some(block)), Ordering::Release);
    record::committed(arena, references)?;
    Ok(())
}

type Ends = (Stream, Option<std::os::fd::OwnedFd>);

fn streams(stdio: [Stdio; 3]) -> Result<[Ends; 3], Error> {
    let [stdin, stdout, stderr] = stdio;
    let one = |stdio: Stdio, reads: bool| -> Result<Ends, Error> {
        Ok(match stdio {
            Stdio::Inherit => (Stream::Inherit, None),
            Stdio::Null => (Stream::Null, None),
            Stdio::Fd(fd) => (Stream::Fd(fd), None),
            Stdio::Piped => {
                let (reader, writer) =
                    std::io::pipe().map_err(|e| Error::because(Kind::Resources, "no pipe for the child", e))?;
                if reads {
                    (Stream::Fd(reader.into()), Some(writer.into()))
                } else {
                    (Stream::Fd(writer.into()), Some(reader.into()))
                }
            }
        })
    };
    Ok([one(stdin, true)?, one(stdout, false)?, one(stderr, false)?])
}

fn c_string(what: &str, text: &OsStr) -> Result<CString, Error> {
    CString::new(text.as_bytes()).map_err(|e| Error::because(Kind::Invalid, format!("{what} {text:?}"), e))
}

/// The parent's environment with these changes; the marker is ours alone.
fn environment(changes: &[(OsString, Option<OsString>)], marker: Marker) -> Result<Vec<CString>, Error> {
    let mut env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    for (key, value) in changes {
        env.retain(|(k, _)| k != key);
        if let Some(value) = value {
            if key.is_empty() || key.as_bytes().contains(&b'=') {
                return Err(Error::new(Kind::Invalid, format!("no name for a variable of the environment: {key:?}")));
            }
            env.push((key.clone(), value.clone()));
        }
    }
    env.retain(|(k, _)| k != crate::marker::VARIABLE);
    let mut out = Vec::with_capacity(env.len() + 1);
    for (mut key, value) in env {
        key.push("=");
        key.push(value);
        out.push(c_string("for the environment:", &key)?);
    }
    out.push(marker.to_env());
    Ok(out)
}
