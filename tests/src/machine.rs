//! Guards for what a test changes of the machine: a memory cgroup of its own, a sysctl.
//!
//! A process beside the test gives it back as soon as the test lets go of a pipe, which it does also when it is killed.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A shell that has done something and undoes it when this is dropped, or its owner has died.
#[derive(Debug)]
struct Guard(Child);

impl Guard {
    /// Has `change` done now, and `undo` then; both see `args` as `$0`, `$1`, and so on.
    fn start(change: &str, undo: &str, args: &[&str]) -> io::Result<Guard> {
        let script = format!("trap '' INT TERM HUP\n{change}\necho done\nread line\n{undo}");
        let mut shell = Command::new("sh");
        let mut shell = shell.args(["-c", &script]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("a pipe")).read_line(&mut line)?;
        if line != "done\n" {
            shell.wait()?;
            return Err(io::Error::other("refused"));
        }
        Ok(Guard(shell))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A memory cgroup below that of this process (version 1), or beside it (version 2, where only leaves have processes). The processes in it have ended when it
/// is dropped.
#[derive(Debug)]
pub struct MemoryGroup {
    dir: PathBuf,
    _guard: Guard,
}

impl MemoryGroup {
    /// Makes one that grants `limit` bytes, and no swap; the reason if this process may not.
    pub fn make(name: &str, limit: u64) -> Result<MemoryGroup, String> {
        let membership = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let candidates: Vec<_> = membership.lines().filter_map(place_of).collect();
        let mut why = "no cgroup has a memory controller".to_owned();
        for (dir, limit_file, swap_file) in candidates {
            let dir = dir.join(format!("{name}-{}", std::process::id()));
            // Not there without swap accounting; version 1 counts memory and swap together.
            let swap = if swap_file.contains("memsw") { limit } else { 0 };
            let change = "mkdir \"$0\" || exit 1\necho \"$1\" > \"$0/$2\" && test -w \"$0/cgroup.procs\" || { rmdir \"$0\"; exit 1; }\n\
                          echo \"$3\" > \"$0/$4\" 2> /dev/null";
            // A process leaves its group a moment after it was waited for.
            let undo = "i=0; until rmdir \"$0\" 2> /dev/null || [ $i = 400 ]; do i=$((i + 1)); sleep 0.05; done";
            let dir_text = dir.to_string_lossy();
            match Guard::start(change, undo, &[&dir_text, &limit.to_string(), limit_file, &swap.to_string(), swap_file]) {
                Ok(guard) => return Ok(MemoryGroup { dir, _guard: guard }),
                Err(e) => why = format!("{dir_text}: {e}"),
            }
        }
        Err(why)
    }

    /// A process that writes its pid here moves in.
    pub fn entrance(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }
}

/// Where a group can be made, and its files for the limits of memory and of swap.
fn place_of(line: &str) -> Option<(PathBuf, &'static str, &'static str)> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
    if controllers.split(',').any(|c| c == "memory") {
        return Some((Path::new("/sys/fs/cgroup/memory").join(path), "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"));
    }
    let own = Path::new("/sys/fs/cgroup").join(path);
    let gives_memory = |dir: &Path| {
        fs::read_to_string(dir.join("cgroup.subtree_control")).is_ok_and(|list| list.split_whitespace().any(|c| c == "memory"))
    };
    let dir = [own.as_path(), own.parent()?].into_iter().find(|dir| gives_memory(dir))?;
    controllers.is_empty().then(|| (dir.to_owned(), "memory.max", "memory.swap.max"))
}

/// A setting of the whole system, changed while this lives.
#[derive(Debug)]
pub struct Sysctl(Guard);

impl Sysctl {
    /// Changes `file`.
    ///
    /// # Errors
    /// This process may not.
    pub fn set(file: &str, value: &str) -> io::Result<Sysctl> {
        // What has the value already may be another's change, which is not ours to undo.
        let change = r#"old=$(cat "$0") || exit 1; [ "$old" = "$1" ] || echo "$1" > "$0" || exit 1"#;
        let undo = r#"[ "$old" = "$1" ] || echo "$old" > "$0""#;
        Guard::start(change, undo, &[file, value]).map(Sysctl)
    }

    /// Lets go as a process does that is killed: the pipe is closed, nobody waits.
    pub fn let_go(mut self) {
        drop(self.0.0.stdin.take());
        std::mem::forget(self);
    }

    /// Whether all that is committed at present, and `spare` bytes more, is within what strict overcommit would grant; the reason if not.
    pub fn room_for_strict_overcommit(spare: u64) -> Result<(), String> {
        let text = fs::read_to_string("/proc/meminfo").map_err(|e| e.to_string())?;
        let field = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix("kB")?.trim().parse().ok()
        };
        match (field("Committed_AS:"), field("CommitLimit:")) {
            (Some(now), Some(limit)) if now + spare / 1024 <= limit => Ok(()),
            (now, limit) => Err(format!("strict overcommit would harm others: {now:?} of {limit:?} KiB are committed")),
        }
    }
}
