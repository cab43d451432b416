//! Settings for a child process, and starting it.

use crate::args::{Args, Run};
use crate::child::Child;
use crate::error::{Error, Kind};
use crate::job::{self, Prepared};
use crate::keeper::{self, ChildSeed};
use crate::lines::{self, Lines};
use crate::marker::Marker;
use crate::process::Process;
use crate::start::{Start, StartMethod, Stream};
use crate::stdio::Stdio;
use crate::{exit, hook, tree};
use multiproc_channel::Message;
use multiproc_shm::arena::SlotId;
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::{Arena, Held, record};
use multiproc_sys::crash;
use multiproc_sys::seal;
use multiproc_sys::stream;
use multiproc_sys::tie::Tie;
use std::ffi::{CString, OsStr, OsString};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
        if let Some(why) = exit::refusal() {
            return Err(Error::new(Kind::Exiting, why));
        }
        let arena = tree::arena()?;
        exit::register();
        let name = self.name.unwrap_or_else(crate::current::next_child_name);
        let prepared = prepare(arena, &name)?;
        let references = prepared.references();
        let [(stdin, ours_in), (stdout, ours_out), (stderr, ours_err)] = streams(self.stdio)?;
        let lines = [&ours_out, &ours_err].into_iter().filter(|ours| matches!(ours, Ours::Lines(..))).count();
        let parent = keeper::own_pidfd()?;
        let slot = arena.reserve_slot()?;
        let mut announced = false;
        let started = (|| {
            let (tie, childs) = Tie::new().map_err(|e| keeper::explain(&e))?;
            let marker = Marker {
                arena: arena.fd()?.as_raw_fd(),
                parent: parent.as_raw_fd(),
                tie: childs.as_raw_fd(),
                slot,
                key: seal::key(),
                in_main: hook::init_was_called(),
            };
            let env = environment(&self.env, marker)?;
            let cwd = self.cwd.map(|d| c_string("as the working directory:", d.as_os_str())).transpose()?;
            announced = true;
            hand_over(arena, slot, &name, &prepared.payload, &references)?;
            let start = Start { method: self.method, env, cwd, stdio: [stdin, stdout, stderr], tie: childs };
            // Not earlier: what a program does while its arguments are encoded takes as long as it likes.
            let _starting = exit::begin_start().map_err(|why| Error::new(Kind::Exiting, why))?;
            keeper::request(start, ChildSeed { slot, name, daemon: self.daemon, lines, tie })
        })();
        let child = match started {
            Ok(child) => child,
            Err(e) => {
                // It may have begun nevertheless, and been killed since.
                if !arena.abandon_slot(slot.index, slot.generation).unwrap_or(true)
                    && let Ok(slot) = arena.slot(slot.index)
                {
                    slot.release();
                    let _ = arena.collect();
                }
                if announced {
                    let _ = record::withdraw(arena, &references);
                }
                return Err(e);
            }
        };
        crash::point("spawn.started");
        prepared.gone();
        Ok(Process {
            stdin: ours_in.into_fd(&child).map(Into::into),
            stdout: ours_out.into_fd(&child).map(Into::into),
            stderr: ours_err.into_fd(&child).map(Into::into),
            child,
            _returns: PhantomData,
        })
    }
}

/// Puts the job into the child's slot. Killed in between, the parent's slot or the child's names every block.
fn hand_over(arena: &'static Arena, slot: SlotId, name: &str, payload: &[u8], references: &[Arc<Held>]) -> Result<(), Error> {
    record::announce(arena, references)?;
    let block = record::write(arena, payload, references.iter().map(|h| h.reference()))?;
    crash::point("spawn.args_written");
    arena.set_block_state(block, BlockState::Slot(slot.index))?;
    crash::point("spawn.args_owned");
    let entry = arena.slot(slot.index)?;
    entry.set_name(name);
    // Release: the commit of the arguments.
    entry.args.store(BlockId::to_word(Some(block)), Ordering::Release);
    crash::point("spawn.args_named");
    record::committed(arena, references)?;
    Ok(())
}

type Ends = (Stream, Ours);

/// This process's end of a child's stream.
enum Ours {
    None,
    Fd(OwnedFd),
    Lines(stream::Stream, Lines),
}

impl Ours {
    /// What the handle is given; lines are followed from now on.
    fn into_fd(self, child: &Arc<Child>) -> Option<OwnedFd> {
        match self {
            Ours::None => None,
            Ours::Fd(fd) => Some(fd),
            Ours::Lines(pipe, callback) => {
                lines::follow(child, pipe, callback);
                None
            }
        }
    }
}

fn streams(stdio: [Stdio; 3]) -> Result<[Ends; 3], Error> {
    let [stdin, stdout, stderr] = stdio;
    let no_pipe = |e| Error::because(Kind::Resources, "no pipe for the child", e);
    let one = |stdio: Stdio, reads: bool| -> Result<Ends, Error> {
        Ok(match stdio {
            Stdio::Inherit => (Stream::Inherit, Ours::None),
            Stdio::Null => (Stream::Null, Ours::None),
            Stdio::Fd(fd) => (Stream::Fd(fd), Ours::None),
            Stdio::Lines(_) if reads => {
                return Err(Error::new(Kind::Invalid, "a child reads its stdin: it writes no lines there"));
            }
            Stdio::Lines(callback) => {
                lines::prepare()?;
                let (reader, writer) = lines::pipe().map_err(no_pipe)?;
                (Stream::Fd(writer.into()), Ours::Lines(reader, callback))
            }
            Stdio::Piped => {
                let (reader, writer) = std::io::pipe().map_err(no_pipe)?;
                if reads {
                    (Stream::Fd(reader.into()), Ours::Fd(writer.into()))
                } else {
                    (Stream::Fd(writer.into()), Ours::Fd(reader.into()))
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
