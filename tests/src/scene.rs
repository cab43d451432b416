//! Scenes: what a process of its own plays, since it has limits, a tree or an end that the test process must not have.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Waits until `done` says so. For what no event announces; the watchdog ends it.
pub fn eventually(mut done: impl FnMut() -> bool) {
    while !done() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether all threads of a process sleep.
pub fn all_sleep(pid: u32) -> bool {
    let sleeps = |entry: io::Result<fs::DirEntry>| {
        let stat = entry.and_then(|entry| fs::read_to_string(entry.path().join("stat"))).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" S"))
    };
    fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|mut tasks| tasks.all(sleeps))
}

/// Whether a process has ended, or runs no code of its own any more: the kernel is taking it apart.
pub fn is_gone(pid: u32) -> bool {
    const PF_EXITING: u64 = 4;
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect::<Vec<_>>();
    let exiting = rest.get(6).and_then(|flags| flags.parse::<u64>().ok()).is_some_and(|flags| flags & PF_EXITING != 0);
    exiting || matches!(rest.first(), Some(&("Z" | "X")))
}

/// Deaths by signal shall leave no files.
pub fn no_core_dumps() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads the struct.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
}

/// A new empty directory for `TMPDIR`, so that what others put into the machine's own is not counted. `parent` is `CARGO_TARGET_TMPDIR`.
pub fn empty_dir(parent: &str, name: &str) -> PathBuf {
    let dir = Path::new(parent).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a directory");
    dir
}

/// A scene that is being played: its stdin and stdout are pipes of ours. All processes of its tree share stdout, so its end of file says
/// that none of them is left.
#[derive(Debug)]
pub struct Scene {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Scene {
    /// Has `stage` play `name`.
    pub fn play(stage: &str, name: &str) -> Scene {
        let mut command = Command::new(stage);
        command.arg(name);
        Scene::start(&mut command)
    }

    /// As [`play`](Scene::play), after shell commands that prepare the process.
    pub fn play_after(preparation: &str, stage: &str, name: &str) -> Scene {
        Scene::start(Command::new("sh").args(["-c", &format!("{preparation}\nexec \"$0\" \"$1\""), stage, name]))
    }

    /// Runs a command as a scene.
    pub fn start(command: &mut Command) -> Scene {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the scene starts");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        Scene { child, stdin, stdout }
    }

    /// The pid of the process that was started.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that any process of the scene writes, without its end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("stdout of the scene");
        assert!(line.ends_with('\n'), "the scene ended after {line:?}");
        line.trim_end().to_owned()
    }

    /// Writes a line to the scene.
    pub fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().expect("stdin is open"), "{line}").expect("the scene reads");
    }

    /// Ends the scene's stdin.
    pub fn close_stdin(&mut self) {
        drop(self.stdin.take());
    }

    /// SIGKILL for the process that was started, and for no other.
    pub fn kill(&mut self) {
        self.child.kill().expect("the scene is killed");
    }

    /// What is still written until no process of the scene is left, and how long that took.
    pub fn rest(&mut self) -> (String, Duration) {
        let (start, mut text) = (Instant::now(), String::new());
        self.stdout.read_to_string(&mut text).expect("stdout of the scene");
        (text, start.elapsed())
    }

    /// Waits for the end: everything that was written meanwhile, and the status of the process that was started.
    pub fn end(mut self) -> (String, ExitStatus) {
        let (text, _) = self.rest();
        drop(self.stdin.take());
        (text, self.child.wait().expect("our child"))
    }
}
