//! Starting a program: posix_spawn and nothing else.
//!
//! fork is never called: it costs time in proportion to the parent's memory and runs our code in a child that
//! has one thread of many. posix_spawn borrows the parent's memory until the exec. The child starts with no
//! signal blocked, each at its default, as leader of its own process group. Of our descriptors it gets those
//! that the request names, since all are close-on-exec; what the program itself keeps open across exec goes along.
//! See posix_spawn(3).
#![allow(unsafe_code)]

use crate::memfd::duplicate_high;
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::ffi::{CStr, CString, c_char, c_int, c_short};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

/// A program to start.
#[derive(Debug)]
pub struct SpawnRequest<'a> {
    /// The program's file; not searched for in `PATH`.
    pub path: &'a CStr,
    /// Its arguments, the zeroth included.
    pub argv: &'a [&'a CStr],
    /// Its whole environment, as `name=value`.
    pub envp: &'a [CString],
    /// Where it starts; `None` is where the caller is.
    pub cwd: Option<&'a CStr>,
    /// Its standard input, output and error.
    pub stdio: [StdioAction<'a>; 3],
    /// Descriptors it gets besides, under the same numbers, which are above 2.
    pub inherit: &'a [BorrowedFd<'a>],
}

/// What becomes of one of the descriptors 0 to 2 in the child.
#[derive(Clone, Copy, Debug)]
pub enum StdioAction<'a> {
    /// The caller's; /dev/null if the caller has closed it.
    Inherit,
    /// /dev/null.
    Null,
    /// A duplicate of this one.
    Fd(BorrowedFd<'a>),
}

/// Starts a program and returns its pid, which stays its own until it is waited for.
///
/// # Errors
/// Those of the exec and of each step before it: ENOENT for `path` or `cwd`, EACCES, E2BIG, ENOMEM, EAGAIN
/// (RLIMIT_NPROC). EINVAL if `inherit` names one of the descriptors 0 to 2.
pub fn spawn(req: &SpawnRequest<'_>) -> io::Result<u32> {
    let mut attributes = MaybeUninit::uninit();
    let attributes = Attributes::new(&mut attributes)?;
    let mut actions = MaybeUninit::uninit();
    let mut actions = Actions::new(&mut actions)?;
    // Lives until the child has its own copies.
    let _moved = actions.add_stdio(&req.stdio)?;
    for fd in req.inherit {
        if fd.as_raw_fd() <= 2 {
            return Err(Errno::EINVAL.into());
        }
        // Onto itself: that clears close-on-exec, in the child alone.
        actions.add_dup2(fd.as_raw_fd(), fd.as_raw_fd())?;
    }
    if let Some(cwd) = req.cwd {
        actions.add_chdir(cwd)?;
    }
    let argv = null_terminated(req.argv.iter().copied());
    let envp = null_terminated(req.envp.iter().map(CString::as_c_str));
    let mut pid = 0;
    // SAFETY: both objects are initialised, both arrays end with null and, like the path, outlive the call.
    let error = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            req.path.as_ptr(),
            actions.0.as_ptr(),
            attributes.0.as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
        )
    };
    check(error)?;
    Ok(pid.unsigned_abs())
}

fn null_terminated<'a>(strings: impl Iterator<Item = &'a CStr>) -> Vec<*mut c_char> {
    // posix_spawn does not write to the strings; its type is older than const.
    strings.map(|s| s.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
}

/// The posix_spawn family returns its errors and leaves errno alone.
fn check(error: c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// An initialised posix_spawnattr_t. It stays where it is, since it may point into itself.
struct Attributes<'a>(&'a mut MaybeUninit<libc::posix_spawnattr_t>);

impl<'a> Attributes<'a> {
    fn new(place: &'a mut MaybeUninit<libc::posix_spawnattr_t>) -> io::Result<Attributes<'a>> {
        // SAFETY: the place is valid for writing.
        check(unsafe { libc::posix_spawnattr_init(place.as_mut_ptr()) })?;
        let this = Attributes(place);
        let object = this.0.as_mut_ptr();
        let (none, all) = (signal_set(false), signal_set(true));
        // SAFETY: the object is initialised, the set is read only.
        check(unsafe { libc::posix_spawnattr_setsigmask(object, &raw const none) })?;
        // libc skips those that cannot be changed (SIGKILL, SIGSTOP) and those it keeps for itself.
        // SAFETY: as above.
        check(unsafe { libc::posix_spawnattr_setsigdefault(object, &raw const all) })?;
        // SAFETY: the object is initialised. Group 0 means one of its own.
        check(unsafe { libc::posix_spawnattr_setpgroup(object, 0) })?;
        let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETPGROUP;
        // SAFETY: the object is initialised.
        check(unsafe { libc::posix_spawnattr_setflags(object, flags as c_short) })?;
        Ok(this)
    }
}

impl Drop for Attributes<'_> {
    fn drop(&mut self) {
        // SAFETY: `new` initialised the object, and it is not used afterwards.
        unsafe { libc::posix_spawnattr_destroy(self.0.as_mut_ptr()) };
    }
}

fn signal_set(full: bool) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    if full {
        // SAFETY: the place is valid for writing.
        unsafe { libc::sigfillset(set.as_mut_ptr()) };
    } else {
        // SAFETY: the place is valid for writing.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    }
    // SAFETY: either call has written the set; neither can fail.
    unsafe { set.assume_init() }
}

/// An initialised posix_spawn_file_actions_t: steps that the child takes in this order before the exec.
struct Actions<'a>(&'a mut MaybeUninit<libc::posix_spawn_file_actions_t>);

impl<'a> Actions<'a> {
    fn new(place: &'a mut MaybeUninit<libc::posix_spawn_file_actions_t>) -> io::Result<Actions<'a>> {
        // SAFETY: the place is valid for writing.
        check(unsafe { libc::posix_spawn_file_actions_init(place.as_mut_ptr()) })?;
        Ok(Actions(place))
    }

    /// Returns what must stay open until the spawn is over.
    fn add_stdio(&mut self, stdio: &[StdioAction<'_>; 3]) -> io::Result<Vec<OwnedFd>> {
        let mut moved = Vec::new();
        for (target, action) in (0..).zip(stdio) {
            match action {
                StdioAction::Null => self.add_null(target)?,
                StdioAction::Inherit if is_closed(target) => self.add_null(target)?,
                StdioAction::Inherit => self.add_dup2(target, target)?,
                // One of the three may be replaced before its duplicate is taken, so a copy serves.
                StdioAction::Fd(fd) if fd.as_raw_fd() <= 2 && fd.as_raw_fd() != target => {
                    let copy = duplicate_high(*fd)?;
                    self.add_dup2(copy.as_raw_fd(), target)?;
                    moved.push(copy);
                }
                StdioAction::Fd(fd) => self.add_dup2(fd.as_raw_fd(), target)?,
            }
        }
        Ok(moved)
    }

    fn add_null(&mut self, target: c_int) -> io::Result<()> {
        let mode = if target == 0 { libc::O_RDONLY } else { libc::O_WRONLY };
        let path = c"/dev/null".as_ptr();
        // SAFETY: the object is initialised and copies the path.
        check(unsafe { libc::posix_spawn_file_actions_addopen(self.0.as_mut_ptr(), target, path, mode, 0) })
    }

    fn add_dup2(&mut self, fd: c_int, target: c_int) -> io::Result<()> {
        // SAFETY: the object is initialised.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(self.0.as_mut_ptr(), fd, target) })
    }

    fn add_chdir(&mut self, path: &CStr) -> io::Result<()> {
        // SAFETY: the object is initialised and copies the path.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(self.0.as_mut_ptr(), path.as_ptr()) })
    }
}

impl Drop for Actions<'_> {
    fn drop(&mut self) {
        // SAFETY: `new` initialised the object, and it is not used afterwards.
        unsafe { libc::posix_spawn_file_actions_destroy(self.0.as_mut_ptr()) };
    }
}

fn is_closed(fd: c_int) -> bool {
    // SAFETY: F_GETFD takes any number and touches no memory.
    unsafe { libc::fcntl(fd, libc::F_GETFD) == -1 }
}

/// Kills a child that [`spawn`] has just started and that nobody watches, and waits for its end. Nothing is done when somebody else has reaped it
/// (SIGCHLD ignored, a waitpid for any child): then its pid may be another's.
pub fn end_unwatched(pid: u32) {
    let child =
        waitid(Id::Pid(Pid::from_raw(pid as libc::pid_t)), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT);
    if child.is_err() {
        return;
    }
    let pid = pid as libc::pid_t;
    // SAFETY: touches no memory.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    // SAFETY: a null status is allowed.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pidfd::{ExitEvidence, PidFd};
    use crate::{memfd, signal};
    use std::io::Read;
    use std::os::fd::AsFd;

    /// What a shell writes to stdout and stderr, and how it ends.
    fn run(script: &CStr, inherit: &[BorrowedFd<'_>]) -> (String, ExitEvidence) {
        let (mut reader, writer) = io::pipe().unwrap();
        let pid = spawn(&SpawnRequest {
            path: c"/bin/sh",
            argv: &[c"sh", c"-c", script],
            envp: &[c"COLOUR=blue".into()],
            cwd: Some(c"/proc"),
            stdio: [StdioAction::Null, StdioAction::Fd(writer.as_fd()), StdioAction::Fd(writer.as_fd())],
            inherit,
        })
        .unwrap();
        drop(writer);
        let pidfd = PidFd::open(pid).unwrap();
        assert!(pidfd.is_child());
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        (text, pidfd.reap().unwrap())
    }

    #[test]
    fn environment_directory_and_streams_arrive() {
        let script = c"echo $COLOUR; pwd; read x || echo no input; echo err >&2; exit 3";
        assert_eq!(run(script, &[]), ("blue\n/proc\nno input\nerr\n".into(), ExitEvidence::Exited(3)));
    }

    #[test]
    fn signals_are_clear_and_the_group_is_its_own() {
        let _blocked = signal::block_all();
        signal::ignore_sigpipe();
        let script = c"while read k v; do case $k in SigBlk:|SigIgn:) echo $k $v;; esac; done < self/status
            read pid name state ppid group rest < self/stat; [ $pid = $group ] || [ $group = $$ ] && echo leader";
        let (text, _) = run(script, &[]);
        // libc's own two signals, 32 and 33, may be ignored in the child until it sets them up.
        let expected = "SigBlk: 0000000000000000\nSigIgn: 0000000000000000\nleader\n";
        assert_eq!(text.replace("0000000180000000", "0000000000000000"), expected);
    }

    #[test]
    fn only_named_descriptors_arrive() {
        let (kept, left) = (memfd::create_sealed(c"kept", 1).unwrap(), memfd::create_sealed(c"left", 1).unwrap());
        let script = c"for f in self/fd/*; do readlink $f; done; exit 0";
        let (text, _) = run(script, &[kept.as_fd()]);
        assert!(text.contains("memfd:kept") && !text.contains("memfd:left"), "{text}");
        drop(left);
    }

    #[test]
    fn crossed_streams_are_not_lost() {
        // SAFETY: the test harness keeps its standard streams open.
        let [stdin, stdout, stderr] = [0, 1, 2].map(|n| unsafe { BorrowedFd::borrow_raw(n) });
        let target = |fd: BorrowedFd<'_>| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        let expected = [stderr, stdin, stdout].map(target);
        let (mut reader, writer) = io::pipe().unwrap();
        let script = format!("for n in 0 1 2; do x=$(readlink $$/fd/$n); echo $x >&{}; done", writer.as_raw_fd());
        let script = CString::new(script).unwrap();
        let pid = spawn(&SpawnRequest {
            path: c"/bin/sh",
            argv: &[c"sh", c"-c", &script],
            envp: &[],
            cwd: Some(c"/proc"),
            stdio: [StdioAction::Fd(stderr), StdioAction::Fd(stdin), StdioAction::Fd(stdout)],
            inherit: &[writer.as_fd()],
        })
        .unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        PidFd::open(pid).unwrap().reap().unwrap();
        let lines: Vec<_> = text.lines().map(std::path::PathBuf::from).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn only_an_own_child_is_ended() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sleep 100 & echo $!; wait $!; echo $?"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = io::BufRead::lines(io::BufReader::new(shell.stdout.take().unwrap()));
        let grandchild: u32 = lines.next().unwrap().unwrap().parse().unwrap();
        let pidfd = PidFd::open(grandchild).unwrap();
        end_unwatched(grandchild);
        pidfd.send_signal(libc::SIGTERM).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "143");
        shell.wait().unwrap();
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        end_unwatched(child.id());
        assert!(child.wait().is_err(), "it was waited for");
        assert!(PidFd::open(child.id()).is_err_and(|e| e.raw_os_error() == Some(libc::ESRCH)));
    }

    #[test]
    fn errors_come_back() {
        let request =
            |path, cwd, inherit| SpawnRequest { path, argv: &[c"x"], envp: &[], cwd, stdio: [StdioAction::Inherit; 3], inherit };
        let code = |r: SpawnRequest<'_>| spawn(&r).unwrap_err().raw_os_error();
        assert_eq!(code(request(c"/no/such/file", None, &[])), Some(libc::ENOENT));
        assert_eq!(code(request(c"/bin/sh", Some(c"/no/such/dir"), &[])), Some(libc::ENOENT));
        assert_eq!(code(request(c"/etc/passwd", None, &[])), Some(libc::EACCES));
        // SAFETY: the test harness keeps its standard streams open.
        let stdout = unsafe { BorrowedFd::borrow_raw(1) };
        assert_eq!(code(request(c"/bin/sh", None, &[stdout])), Some(libc::EINVAL));
    }
}
