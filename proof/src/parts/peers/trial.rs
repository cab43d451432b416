//! One try: a program in a session of its own, with a time after which all its processes are looked at, and ended.

use crate::interrupt;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// When it is looked at who sleeps.
const LOOK: Duration = Duration::from_millis(1000);
/// How long nobody may run, or wait for a processor or a disk, for it to be a hang.
const STILL: Duration = Duration::from_millis(400);
/// Ticks of processors' time, of 10 ms, after which it hangs though somebody runs: far more than any case needs.
const BUSY: u64 = 100;
/// After which it hangs whatever it does.
const AT_LAST: Duration = Duration::from_secs(120);

/// What a try came to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The rest goes on.
    Progress,
    /// It ended otherwise, and says how.
    Fails(String),
    /// It ended without a word: the program may be what is wrong.
    Breaks(String),
    /// Nothing moves; what its processes do.
    Hangs(String),
}

/// Runs the program to its end, or until it is seen to hang. No process of its session is left.
pub fn attempt(mut command: Command) -> Outcome {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // SAFETY: what runs between fork and exec is one bare system call.
    unsafe { command.pre_exec(own_session) };
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => return Outcome::Breaks(format!("does not start: {e}")),
    };
    let session = child.id();
    let _undo = interrupt::undo(move || end(session));
    let seen = watch(&mut child, session);
    end(session);
    let status = child.wait();
    let mut said = String::new();
    if let Some(mut out) = child.stdout.take() {
        // Fails on what is no text, of which there is none.
        let _ = out.read_to_string(&mut said);
    }
    match (seen, status) {
        (Some(hang), _) => Outcome::Hangs(hang),
        (None, Ok(status)) => verdict(status, said.trim()),
        (None, Err(e)) => Outcome::Breaks(e.to_string()),
    }
}

fn own_session() -> std::io::Result<()> {
    // SAFETY: no arguments. It fails only for the leader of a group, which a new child is not.
    unsafe { libc::setsid() };
    Ok(())
}

fn verdict(status: ExitStatus, said: &str) -> Outcome {
    match said.lines().last() {
        Some("progress") if status.success() => Outcome::Progress,
        Some(why) if status.code() == Some(3) => Outcome::Fails(why.to_owned()),
        _ => Outcome::Breaks(status.to_string()),
    }
}

/// Waits for the end of the program; what its processes do if it does not come.
fn watch(child: &mut Child, session: u32) -> Option<String> {
    let begin = Instant::now();
    let mut last = (Instant::now(), u64::MAX);
    loop {
        if !matches!(child.try_wait(), Ok(None)) {
            return None;
        }
        if begin.elapsed() < LOOK {
            thread::sleep(Duration::from_millis(3));
            continue;
        }
        let members = members(session);
        let used = members.iter().map(|m| m.used).sum();
        // If none is left, the kernel is still taking the last one apart.
        let moves = used != last.1 || members.is_empty() || members.iter().any(|m| m.runs);
        if moves {
            last = (Instant::now(), used);
        }
        if last.0.elapsed() >= STILL || used >= BUSY || begin.elapsed() >= AT_LAST {
            return Some(describe(&members));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A process, as /proc shows it.
struct Member {
    pid: i32,
    /// A thread of it runs, or waits for a processor or a disk.
    runs: bool,
    /// Ticks of processors' time.
    used: u64,
}

/// The fields of a `stat` file from the state on: state ppid pgrp session tty_nr tpgid flags minflt cminflt majflt cmajflt utime stime.
fn stat(path: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

fn member(pid: i32, session: u32) -> Option<Member> {
    let fields = stat(&format!("/proc/{pid}/stat"))?;
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    if number(3)? != u64::from(session) {
        return None;
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().map(|thread| thread.path());
    let state = |thread: &Path| stat(&thread.join("stat").display().to_string())?.into_iter().next();
    let states = threads.filter_map(|thread| Some((state(&thread)?, thread)));
    // One whose first thread has ended may have others that are waiting for a processor to end as well.
    let living: Vec<_> = states.filter(|(state, _)| !matches!(state.as_str(), "Z" | "X")).collect();
    // A thread that was about to sleep, and has to wait for a processor before it does, is called asleep; the kernel names no place where it sleeps.
    let nowhere = |thread: &Path| fs::read_to_string(thread.join("wchan")).is_ok_and(|place| place == "0") && tells_places();
    let runs = living.iter().any(|(state, thread)| matches!(state.as_str(), "R" | "D") || nowhere(thread));
    (!living.is_empty()).then_some(Member { pid, runs, used: number(11)? + number(12)? })
}

/// Whether the kernel says where somebody sleeps; a hardened one never does.
fn tells_places() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| {
        let ((tell, told), (end, ended)) = (mpsc::channel(), mpsc::channel::<()>());
        let sleeper = thread::spawn(move || {
            let _ = tell.send(fs::read_link("/proc/thread-self"));
            let _ = ended.recv();
        });
        let place = told.recv().ok().and_then(Result::ok).map(|thread| Path::new("/proc").join(thread).join("wchan"));
        let limit = Instant::now() + Duration::from_secs(5);
        let mut tells = false;
        while let (Some(place), false, true) = (&place, tells, Instant::now() < limit) {
            tells = fs::read_to_string(place).is_ok_and(|place| place != "0");
            thread::sleep(Duration::from_millis(1));
        }
        drop(end);
        let _ = sleeper.join();
        tells
    })
}

/// The living processes of a session.
fn members(session: u32) -> Vec<Member> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| member(pid, session)).collect()
}

/// How many processes do what.
fn describe(members: &[Member]) -> String {
    let mut kinds = BTreeMap::new();
    for member in members {
        let place = fs::read_to_string(format!("/proc/{}/wchan", member.pid)).unwrap_or_default();
        let what = if member.runs || place.len() < 2 { "running".to_owned() } else { format!("asleep in {place}") };
        *kinds.entry(what).or_insert(0) += 1;
    }
    kinds.iter().map(|(what, n)| format!("{n} {what}")).collect::<Vec<_>>().join(", ")
}

/// Ends all processes of a session, one by one.
fn end(session: u32) {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(10) {
        let left = members(session);
        if left.is_empty() {
            return;
        }
        for member in left {
            // SAFETY: numbers. It is a member of a session that `attempt` made, as of a moment ago.
            unsafe { libc::kill(member.pid, libc::SIGKILL) };
        }
        thread::sleep(Duration::from_millis(2));
    }
}
