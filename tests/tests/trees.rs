//! Trees of processes: each ends with any of its ancestors, unless it was detached, and then it lives and works on.

use multiproc_tests::{Scene, eventually, is_gone, watch};
use std::os::unix::process::ExitStatusExt;

const TREES: &str = env!("CARGO_BIN_EXE_trees");

fn kill(pid: u32) {
    // SAFETY: touches no memory; the pid is one that the scene has just named, of a process that does not end by itself.
    assert_eq!(unsafe { libc::kill(pid as i32, libc::SIGKILL) }, 0);
}

fn numbers(line: &str) -> Vec<u32> {
    line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
}

/// A chain of depth 6, killed at each level in turn: who is below ends, who is above or beside does not.
#[test]
fn every_level_takes_what_is_below_along() {
    let _watched = watch(120);
    for level in 0..=6 {
        let mut scene = Scene::play(TREES, "deep");
        let mut chain: Vec<(u32, u32)> = vec![(0, 0); 7];
        for _ in 0..7 {
            let line = numbers(&scene.line());
            chain[line[0] as usize] = (line[1], line[2]);
        }
        assert_eq!(chain[0].0, scene.pid());
        kill(chain[level].0);
        let (above, below) = chain.split_at(level);
        let ended: Vec<u32> = below.iter().flat_map(|&(pid, daemon)| [pid, daemon]).filter(|&pid| pid != 0).collect();
        eventually(|| ended.iter().all(|&pid| is_gone(pid)));
        let spared: Vec<u32> = above.iter().flat_map(|&(pid, daemon)| [pid, daemon]).collect();
        assert!(spared.iter().all(|&pid| !is_gone(pid)), "level {level}: {spared:?}");
        if level > 0 {
            scene.kill();
        }
        let (rest, status) = scene.end();
        assert_eq!((rest.as_str(), status.signal()), ("", Some(9)), "level {level}");
        // Output ends a moment before they do.
        eventually(|| spared.iter().all(|&pid| is_gone(pid)));
    }
}

#[test]
fn exits_below_end_daemons_and_await_the_others() {
    let _watched = watch(60);
    let mut scene = Scene::play(TREES, "daemons below");
    let daemon = numbers(&scene.line())[0];
    eventually(|| is_gone(daemon));
    scene.say("now");
    assert_eq!(scene.line(), "read Some(\"now\")");
    assert_eq!(scene.line(), "joined");
    scene.say("");
    let (rest, status) = scene.end();
    assert!(rest.is_empty() && status.success(), "{rest} {status}");
}

/// Detached processes work on together when the coordinator has been killed, and clean up after each other.
#[test]
fn detached_processes_live_and_work_on() {
    let _watched = watch(120);
    let mut scene = Scene::play(TREES, "detached");
    let (mut pids, mut child) = (Vec::new(), 0);
    while pids.is_empty() || child == 0 {
        let line = scene.line();
        match line.strip_prefix("detached ") {
            Some(rest) => pids = numbers(rest),
            None => child = numbers(&line)[1],
        }
    }
    scene.kill();
    scene.say("7");
    let line = scene.line();
    assert!(line.ends_with("did 7 at attempt 1") && pids.contains(&numbers(&line)[0]), "{line}");
    // What a dead one had on lease comes back: another has cleaned up after it.
    scene.say("13");
    let line = scene.line();
    let holder = numbers(&line)[0];
    assert!(line.ends_with("holds 13"), "{line}");
    kill(holder);
    let line = scene.line();
    assert!(line.ends_with("did 13 at attempt 2") && numbers(&line)[0] != holder, "{line}");
    scene.say("8");
    assert!(scene.line().ends_with("did 8 at attempt 1"));
    // With the last sender the queue ends; and a detached process takes its own children along.
    assert!(!is_gone(child));
    kill(pids[2]);
    assert_eq!(scene.line(), "getter saw the end");
    eventually(|| is_gone(child));
    let (rest, status) = scene.end();
    assert_eq!((rest.as_str(), status.signal()), ("", Some(9)));
    eventually(|| pids.iter().all(|&pid| is_gone(pid)));
}

/// The parent and the coordinator are gone; the process reads, starts a child of its own, and joins it.
#[test]
fn a_process_detached_below_outlives_both() {
    let _watched = watch(60);
    for first in ["coordinator", "parent"] {
        let mut scene = Scene::play(TREES, "detached below");
        let pids = numbers(&scene.line());
        if first == "parent" {
            kill(pids[0]);
            eventually(|| is_gone(pids[0]));
            assert!(!is_gone(pids[1]) && !is_gone(scene.pid()));
        }
        scene.kill();
        eventually(|| is_gone(pids[0]));
        scene.say("on");
        assert_eq!(scene.line(), "below read Some(\"on\")");
        assert_eq!(scene.line(), "42");
        assert_eq!(scene.end().0, "");
    }
}

/// Detaching returns when nothing ends the process any more, however early it is.
#[test]
fn detaching_holds_at_once() {
    let _watched = watch(120);
    for _ in 0..10 {
        let mut scene = Scene::play(TREES, "detached at once");
        let line = scene.line();
        scene.kill();
        assert!(line.ends_with(" true"), "{line}");
        let pids = numbers(&line);
        assert_eq!(pids.len(), 5);
        eventually(|| is_gone(scene.pid()));
        assert!(pids.iter().all(|&pid| !is_gone(pid)), "{pids:?}");
        scene.close_stdin();
        eventually(|| pids.iter().all(|&pid| is_gone(pid)));
        assert_eq!(scene.end().0, "");
    }
}

#[test]
fn an_exit_leaves_detached_processes_alone() {
    let _watched = watch(60);
    let mut scene = Scene::play(TREES, "detached and exit");
    let line = numbers(&scene.line());
    assert_eq!(line[1], 0, "it is no active child");
    eventually(|| is_gone(scene.pid()));
    assert!(!is_gone(line[0]));
    scene.say("more");
    assert_eq!(scene.line(), "then read Some(\"more\")");
    let (rest, status) = scene.end();
    assert_eq!((rest.as_str(), status.code()), ("", Some(3)));
}

#[test]
fn the_exit_waits_as_long_as_it_may() {
    let _watched = watch(60);
    let (text, status) = Scene::play(TREES, "exit grace").end();
    assert!(matches!(text.as_str(), "ignores\n" | ""), "{text}");
    assert!(status.success(), "{status}");
}

/// After 5 s the exit says whom it waits for, and what that one waits on.
#[test]
fn a_long_exit_names_who_holds_it_up() {
    let _watched = watch(60);
    let mut scene = Scene::play_after("exec 2>&1", TREES, "late at exit");
    let line = scene.line();
    let pid = numbers(&line)[0];
    assert!(line.starts_with(&format!("waiting for process consumer (pid {pid}), which waits to get on Queue")), "{line}");
    // It is the one who could put, too.
    let line = scene.line();
    assert!(line.starts_with(&format!("deadlock: consumer (pid {pid}) waits to get on Queue")), "{line}");
    kill(pid);
    let (rest, status) = scene.end();
    assert!(rest.is_empty() && status.success(), "{rest} {status}");
}
