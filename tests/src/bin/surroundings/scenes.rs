//! Scenes of the platform tests.

use crate::core::{self, for_ever};
use crate::memory;
use crate::say;
use multiproc::{Process, Queue};
use multiproc_tests::{eventually, no_core_dumps};
use std::fs;
use std::process::Command;

pub fn play(scene: &str) {
    if scene != "abort with a lock" {
        no_core_dumps();
    }
    match scene {
        "core" => {
            core::everything();
            say("everything works");
        }
        "nothing can be written" => nothing_can_be_written(),
        "memfds" => memfds(),
        "no proc" => no_proc(),
        "refused" => refused(),
        "orphans" => orphans(),
        "a daemon that cannot be signalled" => daemon_without_signals(),
        "tree" => tree(),
        "lock future, then share" => memory::lock_then_share(),
        "lock little, then share" => memory::lock_little_then_share(),
        "share, then lock future" => memory::share_then_lock(libc::MCL_FUTURE),
        "share, then lock on fault" => memory::share_then_lock(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT),
        "a bounded group" => memory::in_a_group(),
        "abort with a lock" => memory::abort_with_a_lock(),
        other => panic!("no scene {other}"),
    }
}

fn nothing_can_be_written() {
    for dir in ["/", "/tmp", "/var/tmp", "/run", "/dev/shm", "/home", "."] {
        let file = format!("{dir}/multiproc-was-here");
        assert!(fs::write(&file, "").is_err(), "{file}");
    }
    core::everything();
    say("everything works");
}

/// A memfd that may be executed is refused at level 2, the arena is not.
fn memfds() {
    // SAFETY: the name ends with NUL.
    let executable = unsafe { libc::memfd_create(c"executable".as_ptr(), libc::MFD_EXEC) };
    say(format!("an executable memfd is {}", if executable < 0 { "refused" } else { "granted" }));
    core::everything();
    say("everything works");
}

/// An error, and no end, when what is needed is not there; also the second time.
fn refused() {
    let first = Process::spawn((), || ()).unwrap_err().to_string();
    let second = Process::spawn((), || ()).unwrap_err().to_string();
    assert_eq!(first, second);
    say(first);
}

/// No signal reaches the daemon, and this process ends all the same, and the daemon with it.
fn daemon_without_signals() {
    let daemon = Process::builder().daemon(true).spawn((), for_ever).unwrap();
    say(daemon.kill().unwrap_err());
    assert_eq!(Process::spawn((20,), |n: u32| n + 1).unwrap().join().unwrap(), 21);
}

/// Without /proc no process is started, and the rest works in this one.
fn no_proc() {
    let queue = Queue::bounded(2).unwrap();
    queue.put(1u32).unwrap();
    let limit = multiproc::memory_usage().unwrap().limit;
    assert!(limit > 1 << 20, "{limit}");
    let refused = Process::spawn((), || ()).unwrap_err();
    say(format!("{} {refused}", refused.is_unsupported()));
    assert_eq!(queue.get().unwrap(), 1);
    let again = Process::spawn((), || ()).unwrap_err();
    assert_eq!(again.to_string(), refused.to_string());
}

/// Processes whose parents end before them, ours and others', come to this one, which is process 1.
fn orphans() {
    assert_eq!(std::process::id(), 1);
    let pids = Queue::<(u32, u32)>::bounded(1).unwrap();
    for _ in 0..3 {
        let leave_orphans = |pids: Queue<(u32, u32)>| {
            // Its parent, the shell, is gone at once.
            let shell = Command::new("sh").args(["-c", "sleep 0.01 > /dev/null & echo $!"]).output().unwrap();
            let foreign: u32 = String::from_utf8_lossy(&shell.stdout).trim().parse().unwrap();
            let ours = Process::spawn((), for_ever).unwrap();
            pids.put((foreign, ours.pid())).unwrap();
            for_ever();
        };
        let worker = Process::spawn((pids.clone(),), leave_orphans).unwrap();
        let (foreign, ours) = pids.get().unwrap();
        worker.kill().unwrap();
        assert!(worker.join().is_err());
        // Dead, that is: reaped, or waiting for it.
        eventually(|| [foreign, ours].iter().all(|pid| matches!(state(*pid).as_deref(), None | Some("Z" | "X"))));
    }
    core::everything();
    say(format!("everything works, zombies: {}", children().len()));
}

/// What /proc says about the state of a process.
fn state(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').next()?.to_owned())
}

/// Children of process 1, whoever started them.
fn children() -> Vec<u32> {
    let list = fs::read_to_string("/proc/1/task/1/children").unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// A tree of three levels that ends with its root alone.
fn tree() {
    let nested = || {
        let child = Process::spawn((), for_ever).unwrap();
        say(format!("leaf {}", child.pid()));
        for_ever();
    };
    let child = Process::spawn((), nested).unwrap();
    say(format!("child {}", child.pid()));
    for_ever();
}
