//! `TestResourceTracker`: what stays behind after a death. There is no helper process: the kernel and those who are left clean up.

use crate::stage::{alone, program, said, watched};
use multiproc::{Event, Lock, Process, Queue, Semaphore, stats};
use multiproc_tests::empty_dir;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

fn wait_for_ever() {
    loop {
        std::thread::park();
    }
}

/// A directory for whatever a program might leave, and a command that has it for its temporary files.
fn with_a_directory(test: &str, name: &str) -> (std::path::PathBuf, std::process::Command) {
    let dir = empty_dir(env!("CARGO_TARGET_TMPDIR"), name);
    let mut command = program(test);
    command.env("TMPDIR", &dir);
    (dir, command)
}

fn assert_empty(dir: &std::path::Path) {
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0, "{}", dir.display());
}

/// A killed process leaves no object of its own.
#[test]
fn nothing_stays_of_who_was_killed() {
    let _watched = watched();
    alone("resource_tracker::kills_an_owner");
}

#[test]
#[ignore = "a program of its own"]
fn kills_an_owner() {
    let ready = Event::new().unwrap();
    let p = Process::spawn((ready.clone(),), |ready: Event| {
        let _mine: Vec<_> =
            (0..10).map(|_| (Queue::<u8>::bounded(10).unwrap(), Lock::new().unwrap(), Semaphore::new(1).unwrap())).collect();
        ready.set().unwrap();
        wait_for_ever();
    });
    let p = p.unwrap();
    ready.wait().unwrap();
    assert!(stats().unwrap().objects() > 30);
    p.kill().unwrap();
    assert!(p.join().is_err());
    drop(ready);
    assert_eq!(stats().unwrap().objects(), 0);
}

fn by_default(signal: i32) {
    // SAFETY: installs no code.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// A coordinator that is ended by a signal leaves no process and no file.
fn ended_by(signal: i32) {
    let _watched = watched();
    let (dir, mut command) = with_a_directory("resource_tracker::holds_all_kinds", &format!("ended_by_{signal}"));
    // Whoever runs the tests in the background of a script ignores SIGINT, and so would they.
    // SAFETY: sigaction is async-signal-safe, and installs no code.
    let command = unsafe {
        CommandExt::pre_exec(&mut command, move || {
            by_default(signal);
            Ok(())
        })
    };
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("worker ") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0, "it ended early");
    }
    // SAFETY: signals our child.
    unsafe { libc::kill(child.id() as i32, signal) };
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal));
    // All processes of the tree have this pipe open; its end says that none is left.
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).unwrap();
    assert_empty(&dir);
}

#[test]
#[ignore = "a program of its own"]
fn holds_all_kinds() {
    let _mine = (Queue::<u8>::bounded(10).unwrap(), Lock::new().unwrap(), Semaphore::new(1).unwrap());
    let p = Process::spawn((), wait_for_ever).unwrap();
    println!("\nworker {}", p.pid());
    p.join().unwrap();
}

#[test]
fn ended_by_sigint() {
    ended_by(libc::SIGINT);
}

#[test]
fn ended_by_sigterm() {
    ended_by(libc::SIGTERM);
}

#[test]
fn ended_by_sigkill() {
    ended_by(libc::SIGKILL);
}

/// All processes of a tree share one arena: a grandchild's objects are the coordinator's to see.
#[test]
fn one_arena_for_the_tree() {
    let _watched = watched();
    alone("resource_tracker::shares_with_a_grandchild");
}

#[test]
#[ignore = "a program of its own"]
fn shares_with_a_grandchild() {
    let p = Process::spawn((), || {
        let p = Process::spawn((), || {
            let queue = Queue::<u32>::bounded(1).unwrap();
            queue.put(6).unwrap();
            queue
        });
        p.unwrap().join().unwrap()
    });
    let queue = p.unwrap().join().unwrap();
    assert_eq!((queue.get().unwrap(), stats().unwrap().objects()), (6, 1));
}

/// What is left behind at the end of a program changes nothing about its exit code, and nothing is said about it.
#[test]
fn exit_code() {
    let _watched = watched();
    let (dir, mut command) = with_a_directory("resource_tracker::forgets_everything", "exit_code");
    let out = command.output().unwrap();
    assert_empty(&dir);
    assert_eq!(out.status.code(), Some(0), "{}", said(&out));
    assert!(!said(&out).contains("leak"), "{}", said(&out));
}

#[test]
#[ignore = "a program of its own"]
fn forgets_everything() {
    std::mem::forget(Queue::<u8>::bounded(10).unwrap());
    std::mem::forget(Semaphore::new(3).unwrap().acquire().unwrap());
    let lock = Box::leak(Box::new(Lock::new().unwrap()));
    std::mem::forget(lock.lock().unwrap());
}

/// What the library starts does not change which signals the caller's threads take.
#[test]
fn blocked_signals() {
    let _watched = watched();
    alone("resource_tracker::keeps_its_signal_mask");
}

#[test]
#[ignore = "a program of its own"]
fn keeps_its_signal_mask() {
    // SAFETY: all zeros is an empty set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: adds to it.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGUSR1) };
    // SAFETY: reads it.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    let mask = || {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    let before = mask();
    assert_eq!(before, 1 << (libc::SIGUSR1 - 1));
    let queue = Queue::<u8>::bounded(1).unwrap();
    Process::spawn((queue.clone(),), |queue: Queue<u8>| queue.put(1).unwrap()).unwrap().join().unwrap();
    assert_eq!((queue.get().unwrap(), mask()), (1, before));
}
