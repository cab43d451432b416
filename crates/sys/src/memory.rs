//! What memory a process has to itself, and who goes first when the machine runs out of it; and which processors it runs on.
//!
//! See proc_pid_statm(5), proc_pid_oom_score_adj(5), sched_setaffinity(2).

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::fs;
use std::io;
use std::sync::OnceLock;

fn page_size() -> u64 {
    static SIZE: OnceLock<u64> = OnceLock::new();
    *SIZE.get_or_init(|| sysconf(SysconfVar::PAGE_SIZE).ok().flatten().map_or(4096, |bytes| bytes as u64))
}

/// Bytes of resident memory that process `pid` shares with no file and no other process; `None` when it is gone or /proc does not tell.
///
/// Memory that it shares with processes of its tree is not counted.
pub fn private(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut numbers = text.split(' ').map(|number| number.trim().parse::<u64>().ok());
    let (resident, shared) = (numbers.nth(1)??, numbers.next()??);
    Some(resident.saturating_sub(shared) * page_size())
}

/// How often the kernel's OOM killer has killed on this machine, as far as it tells: since Linux 4.13.
pub fn oom_kills() -> Option<u64> {
    let text = fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

/// Makes this process likelier than it is to be chosen by the OOM killer, by `more` of 1000. Where /proc does not let it, nothing changes.
pub fn prefer_for_oom_kill(more: i32) {
    const PATH: &str = "/proc/self/oom_score_adj";
    let now = fs::read_to_string(PATH).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(now) = now {
        let _ = fs::write(PATH, (now + more).min(1000).to_string());
    }
}

/// Has this thread, and those that it starts, run on these processors only.
///
/// # Errors
/// EINVAL when none of them is there.
pub fn run_on(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_touched_is_counted() {
        let before = private(std::process::id()).unwrap();
        let block = std::hint::black_box(vec![1u8; 32 << 20]);
        let after = private(std::process::id()).unwrap();
        assert!(after >= before + (30 << 20), "{before} {after}");
        drop(block);
        assert_eq!(private(0), None);
    }

    #[test]
    fn a_thread_stays_where_it_is_told() {
        std::thread::spawn(|| {
            run_on(&[0]).unwrap();
            assert_eq!(std::thread::available_parallelism().unwrap().get(), 1);
            assert!(run_on(&[]).is_err());
        })
        .join()
        .unwrap();
    }
}
