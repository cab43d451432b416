//! Guards for what a test changes of the machine: a memory cgroup of its own, a sysctl. Dropped, also by a panic, they give it back.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A memory cgroup below that of this process (version 1), or beside it (version 2, where only leaves have processes). The processes in it have ended when it
/// is dropped.
#[derive(Debug)]
pub struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// Makes one that grants `limit` bytes, and no swap; the reason if this process may not.
    pub fn make(name: &str, limit: u64) -> Result<MemoryGroup, String> {
        let membership = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let candidates: Vec<_> = membership.lines().filter_map(place_of).collect();
        let mut why = "no cgroup has a memory controller".to_owned();
        for (dir, limit_file, swap_file) in candidates {
            let group = MemoryGroup(dir.join(format!("{name}-{}", std::process::id())));
            let made = fs::create_dir(&group.0)
                .and_then(|()| fs::write(group.0.join(limit_file), limit.to_string()))
                .and_then(|()| fs::OpenOptions::new().append(true).open(group.entrance()).map(|_| ()));
            match made {
                Ok(()) => {
                    // Not there without swap accounting; version 1 counts memory and swap together.
                    let bound = if swap_file.contains("memsw") { limit } else { 0 };
                    let _ = fs::write(group.0.join(swap_file), bound.to_string());
                    return Ok(group);
                }
                Err(e) => why = format!("{}: {e}", group.0.display()),
            }
        }
        Err(why)
    }

    /// A process that writes its pid here moves in.
    pub fn entrance(&self) -> PathBuf {
        self.0.join("cgroup.procs")
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

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A process leaves its group a moment after it was waited for.
        for _ in 0..2000 {
            match fs::remove_dir(&self.0) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(Duration::from_millis(5)),
                _ => return,
            }
        }
        eprintln!("the cgroup {} could not be removed", self.0.display());
    }
}

/// A setting of the whole system, changed while this lives. A process of its own has the old value and writes it back as soon as this one lets go, which
/// it does also when it is killed.
#[derive(Debug)]
pub struct Sysctl(Child);

impl Sysctl {
    /// Changes `file`.
    pub fn set(file: &str, value: &str) -> io::Result<Sysctl> {
        // What has the value already may be another's change, which is not ours to undo.
        let script = r#"
            trap '' INT TERM HUP
            old=$(cat "$0") || exit 1
            [ "$old" = "$1" ] || echo "$1" > "$0" || exit 1
            echo set
            read line
            [ "$old" = "$1" ] || echo "$old" > "$0""#;
        let mut command = Command::new("sh");
        let mut guard = command.args(["-c", script, file, value]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(guard.stdout.take().expect("a pipe")).read_line(&mut line)?;
        if line != "set\n" {
            guard.wait()?;
            return Err(io::Error::other(format!("{file} cannot be written")));
        }
        Ok(Sysctl(guard))
    }

    /// Lets go as a process does that is killed: the pipe is closed, nobody waits.
    pub fn forget(mut self) {
        drop(self.0.stdin.take());
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

impl Drop for Sysctl {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.0.stdin.take() {
            let _ = writeln!(stdin);
        }
        let _ = self.0.wait();
    }
}
