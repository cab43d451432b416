//! What the kernel says about an idle process: proc_pid_smaps(5) and proc_pid_status(5).

use std::{collections::BTreeMap, ffi::OsString, fs, io};

/// Memory of a process in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Pages that nobody else has mapped, clean and dirty: what goes away with the process.
    pub private: u64,
    /// Private memory plus a fair share of the shared.
    pub pss: u64,
}

/// Memory of a process, from `/proc/PID/smaps_rollup`.
pub fn memory(pid: u32) -> io::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(Memory { private: field(&text, "Private_Clean:")? + field(&text, "Private_Dirty:")?, pss: field(&text, "Pss:")? })
}

/// Memory of a process that is in RAM, its own and what it shares, in KiB.
pub fn resident(pid: u32) -> io::Result<u64> {
    field(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?, "Rss:")
}

/// Context switches so far, voluntary and not, of each thread of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switches(BTreeMap<OsString, u64>);

impl Switches {
    /// Reads them from `/proc/PID/task/TID/status`.
    pub fn of(pid: u32) -> io::Result<Switches> {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?;
            let text = match fs::read_to_string(task.path().join("status")) {
                Ok(text) => text,
                // The thread ended since the directory was read.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) if e.raw_os_error() == Some(libc::ESRCH) => continue,
                Err(e) => return Err(e),
            };
            let switches = field(&text, "voluntary_ctxt_switches:")? + field(&text, "nonvoluntary_ctxt_switches:")?;
            threads.insert(task.file_name(), switches);
        }
        Ok(Switches(threads))
    }

    /// How many there were since `before`. A thread that has ended since then made at least one.
    pub fn since(&self, before: &Switches) -> u64 {
        let ended = before.0.keys().filter(|t| !self.0.contains_key(*t)).count() as u64;
        let made = |(thread, now): (&OsString, &u64)| now.saturating_sub(before.0.get(thread).copied().unwrap_or(0));
        ended + self.0.iter().map(made).sum::<u64>()
    }
}

fn field(text: &str, name: &str) -> io::Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no field {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_full_name() {
        let text = "nonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t3\nPss: 12 kB\n";
        assert_eq!(field(text, "voluntary_ctxt_switches:").unwrap(), 3);
        assert_eq!(field(text, "nonvoluntary_ctxt_switches:").unwrap(), 7);
        assert_eq!(field(text, "Pss:").unwrap(), 12);
        assert!(field(text, "Rss:").is_err());
    }

    #[test]
    fn this_process_has_memory() {
        let m = memory(std::process::id()).unwrap();
        assert!(m.private > 0 && m.pss >= m.private);
    }

    #[test]
    fn threads_that_end_meanwhile_are_no_error() {
        std::thread::scope(|s| {
            let churn = s.spawn(|| {
                for _ in 0..2000 {
                    std::thread::spawn(|| ()).join().unwrap();
                }
            });
            while !churn.is_finished() {
                Switches::of(std::process::id()).unwrap();
            }
        });
    }

    #[test]
    fn switches_of_old_new_and_ended_threads_count() {
        let of = |threads: &[(&str, u64)]| Switches(threads.iter().map(|(t, n)| (t.into(), *n)).collect());
        let before = of(&[("1", 5), ("2", 7)]);
        assert_eq!(before.since(&before), 0);
        assert_eq!(of(&[("1", 8), ("2", 7)]).since(&before), 3);
        assert_eq!(of(&[("1", 5), ("2", 7), ("3", 2)]).since(&before), 2);
        assert_eq!(of(&[("1", 5)]).since(&before), 1);
    }
}
