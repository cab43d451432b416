//! What reaches those who look from outside: a dump on a signal, the wait for a debugger, the words at the end.

use crate::helpers::*;
use multiproc::{Process, ProcessState, Signal, Stdio, worker_init};
use multiproc_tests::{Scene, eventually, watch};
use std::io::{BufRead, BufReader, PipeReader};
use std::process::Command;
use std::time::Duration;

/// A scene whose stderr is read here.
fn scene_with_stderr(name: &str, env: &[(&str, &str)]) -> (Scene, BufReader<PipeReader>) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new(DEBUGGED);
    command.arg(name).envs(env.iter().copied()).stderr(writer);
    (Scene::start(&mut command), BufReader::new(reader))
}

/// The next dump: up to the empty line behind it.
fn read_dump(stderr: &mut BufReader<PipeReader>) -> String {
    let mut text = String::new();
    loop {
        let before = text.len();
        assert!(stderr.read_line(&mut text).unwrap() > 0, "{text}");
        if &text[before..] == "\n" {
            return text;
        }
    }
}

fn send(pid: u32, signal: i32) {
    // SAFETY: a process that its parent, this one or a scene, has not reaped.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
}

#[test]
fn sigquit_shows_who_holds_what_is_waited_for() {
    let _watched = watch(60);
    let (mut scene, mut stderr) = scene_with_stderr("idle", &[]);
    let holder: u32 = scene.line().parse().unwrap();
    send(holder, libc::SIGSTOP);
    let wanted = format!("(held), held by holder (pid {holder})");
    let stopped = format!("holder (pid {holder}): stopped");
    eventually(|| {
        send(scene.pid(), libc::SIGQUIT);
        let text = read_dump(&mut stderr);
        assert!(text.starts_with("multiproc: 2 processes, "), "{text}");
        text.contains(&wanted) && text.contains(&stopped)
    });
    scene.kill();
    scene.end();
}

#[test]
fn a_hundred_dumps_under_traffic() {
    let _watched = watch(120);
    let (mut scene, mut stderr) = scene_with_stderr("traffic", &[]);
    assert_eq!(scene.line(), "runs");
    for _ in 0..100 {
        send(scene.pid(), libc::SIGQUIT);
        let text = read_dump(&mut stderr);
        assert!(text.starts_with("multiproc: ") && text.contains("stopped") && !text.contains("deadlock"), "{text}");
    }
    scene.kill();
    scene.end();
}

static RAN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

fn count_init() {
    RAN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    if std::env::var_os("SAY_INIT").is_some() {
        eprintln!("user code");
    }
}

/// A worker that waits before its code, and its stderr, whose first line has been read.
fn halted(name: &str, list: &str) -> (Process<u32>, BufReader<PipeReader>) {
    worker_init(count_init).unwrap();
    let mut p = Process::builder()
        .name(name)
        .env("MULTIPROC_WAIT", list)
        .env("SAY_INIT", "1")
        .stderr(Stdio::Piped)
        .spawn((), || RAN.load(std::sync::atomic::Ordering::Relaxed))
        .unwrap();
    let mut stderr = BufReader::new(p.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let pid = p.pid();
    let begin = format!("multiproc: {name} (pid {pid}) waits before its first line");
    assert!(line.starts_with(&begin) && line.contains(&format!("kill -CONT {pid}")), "{line}");
    (p, stderr)
}

fn rest(mut stderr: BufReader<PipeReader>) -> String {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stderr, &mut text).unwrap();
    text
}

#[test]
fn a_worker_waits_for_its_debugger_and_goes_on_by_sigcont() {
    let _watched = watch(60);
    for (name, list) in [("w1", "w1"), ("w 2", "x, w 2"), ("w3", "*")] {
        let (mut p, stderr) = halted(name, list);
        assert_eq!(report(p.pid()).state, ProcessState::Stopped);
        assert_eq!(report(p.pid()).waits[0].operation, "continue");
        assert!(p.join_timeout(Duration::from_millis(30)).unwrap().is_none());
        p.signal(Signal::CONT).unwrap();
        assert_eq!(p.join().unwrap(), 1);
        assert_eq!(rest(stderr), "user code\n");
    }
    // At once: the signal comes as soon as the line is there.
    for _ in 0..20 {
        let (p, _stderr) = halted("quick", "quick");
        p.signal(Signal::CONT).unwrap();
        p.join().unwrap();
    }
    let other = Process::builder().name("w1x").env("MULTIPROC_WAIT", "w1,x").spawn((), || 7).unwrap();
    assert_eq!(other.join().unwrap(), 7);
}

#[test]
fn a_waiting_worker_can_be_ended() {
    let _watched = watch(60);
    for signal in [Signal::TERM, Signal::KILL, Signal::INT] {
        let (p, stderr) = halted("w", "w");
        p.signal(signal).unwrap();
        let error = p.join().unwrap_err().to_string();
        assert!(error.contains(&signal.to_string()), "{error}");
        assert_eq!(rest(stderr), "");
    }
}

#[test]
fn a_debugger_that_attaches_lets_it_go_on() {
    let _watched = watch(60);
    let (p, stderr) = halted("w", "w");
    // SAFETY: attaches without stopping it; touches no memory.
    let r = unsafe { libc::ptrace(libc::PTRACE_SEIZE, p.pid() as i32, 0usize, 0usize) };
    if r != 0 {
        eprintln!("skipped: ptrace is not allowed: {}", std::io::Error::last_os_error());
        end(p);
        return;
    }
    assert_eq!(rest(stderr), "user code\n");
    // SAFETY: as above. The worker may have ended.
    unsafe { libc::ptrace(libc::PTRACE_DETACH, p.pid() as i32, 0usize, 0usize) };
    assert_eq!(p.join().unwrap(), 1);
}

#[test]
fn a_waiting_worker_ends_with_its_coordinator() {
    let _watched = watch(60);
    let (mut scene, mut stderr) = scene_with_stderr("waits for a debugger", &[("MULTIPROC_WAIT", "one")]);
    let pid: u32 = scene.line().parse().unwrap();
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains(&format!("one (pid {pid}) waits")), "{line}");
    scene.kill();
    // Its stdout is the scene's: the end of file says that the worker is gone too.
    assert_eq!(scene.rest().0, "");
    scene.end();
}

#[test]
fn the_variable_reaches_workers_by_the_coordinators_environment() {
    let _watched = watch(60);
    let (mut scene, mut stderr) = scene_with_stderr("waits for a debugger", &[("MULTIPROC_WAIT", "two, one")]);
    let pid: u32 = scene.line().parse().unwrap();
    stderr.read_line(&mut String::new()).unwrap();
    send(pid, libc::SIGCONT);
    assert_eq!(scene.line(), "one runs");
    assert!(scene.end().1.success());
}

#[test]
fn an_exit_that_waits_says_for_what() {
    let _watched = watch(60);
    let (mut scene, mut stderr) = scene_with_stderr("late at exit", &[]);
    let (mut first, mut second) = (String::new(), String::new());
    stderr.read_line(&mut first).unwrap();
    stderr.read_line(&mut second).unwrap();
    let me = format!("MainProcess (pid {})", scene.pid());
    assert!(first.starts_with("waiting for process late (pid ") && first.contains(", which waits to lock on Lock "), "{first}");
    assert!(first.contains(&format!("held by {me}")), "{first}");
    assert!(second.starts_with("deadlock: ") && second.contains(&format!("{me} waits for the end of late")), "{second}");
    scene.kill();
    scene.end();
}
