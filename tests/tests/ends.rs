//! How trees end: by `kill -9` of the coordinator, by its exit, by an early death of a child. Nothing stays.

use multiproc_tests::{Scene, empty_dir, eventually, is_gone, watch};
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

const STAGE: &str = env!("CARGO_BIN_EXE_stage");

/// Plays a tree of depth 3, kills its coordinator, and sees all of it gone within a second.
fn kill_tree(how: &str) {
    let mut scene = Scene::play(STAGE, how);
    let mut pids = BTreeSet::new();
    // Each of three says whom it has started, and the last that it is there, unless it is stopped.
    let lines = if how.contains("stopped") { 3 } else { 4 };
    for _ in 0..lines {
        let line = scene.line();
        let pair = line.split_once(" has ").map(|(parent, child)| [parent, child].map(|p| p.parse::<u32>().unwrap()));
        pids.extend(pair.into_iter().flatten());
    }
    assert_eq!(pids.len(), 4);
    assert!(pids.iter().all(|&pid| !is_gone(pid)), "{how}: {pids:?}");
    scene.kill();
    let (rest, took) = scene.rest();
    let left: Vec<_> = pids.iter().filter(|&&pid| !is_gone(pid)).collect();
    assert!(took < Duration::from_secs(1) && rest.is_empty(), "{how}: {took:?}, {rest:?}");
    eventually(|| pids.iter().all(|&pid| is_gone(pid)));
    assert!(left.is_empty() || took < Duration::from_secs(1), "{how}: {left:?}");
    assert_eq!(scene.end().1.signal(), Some(9));
}

#[test]
fn a_tree_ends_with_its_coordinator() {
    let _watched = watch(60);
    for _ in 0..5 {
        kill_tree("tree");
    }
}

#[test]
fn so_do_stopped_processes() {
    let _watched = watch(60);
    kill_tree("tree stopped");
}

#[test]
fn so_does_one_that_blocks_signals_and_never_sleeps() {
    let _watched = watch(60);
    kill_tree("tree busy");
}

/// A change of user clears the death signal that the kernel would send.
#[test]
fn so_do_processes_of_another_user() {
    let _watched = watch(60);
    // SAFETY: no arguments, cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: only root can become another user");
        return;
    }
    kill_tree("tree other user");
    kill_tree("tree stopped other user");
}

#[test]
fn a_process_in_the_middle_takes_its_branch_along() {
    let _watched = watch(60);
    let mut scene = Scene::play(STAGE, "tree");
    let mut pairs = Vec::new();
    while pairs.len() < 3 {
        let line = scene.line();
        pairs.extend(line.split_once(" has ").map(|(p, c)| (p.parse::<u32>().unwrap(), c.parse::<u32>().unwrap())));
    }
    let child = pairs.iter().find(|(p, _)| *p == scene.pid()).unwrap().1;
    let below: Vec<_> = pairs.iter().map(|(_, c)| *c).filter(|&c| c != child).collect();
    // SAFETY: the scene has not reaped its child, so the pid is still its own.
    unsafe { libc::kill(child as i32, libc::SIGKILL) };
    eventually(|| below.iter().all(|&pid| is_gone(pid)));
    assert!(!is_gone(scene.pid()));
    scene.kill();
    scene.end();
}

#[test]
fn exit_ends_daemons_and_awaits_the_others() {
    let _watched = watch(60);
    let mut scene = Scene::play(STAGE, "exit well");
    let mut lines = [scene.line(), scene.line()];
    lines.sort();
    assert_eq!(lines[1], "ignores");
    let pids: Vec<u32> = lines[0].split(' ').map(|p| p.parse().unwrap()).collect();
    eventually(|| is_gone(pids[0]));
    assert!(!is_gone(pids[1]) && !is_gone(scene.pid()), "the coordinator waits for the child that is no daemon");
    scene.say("the line");
    assert_eq!(scene.line(), "child read the line");
    let (rest, status) = scene.end();
    assert!(rest.is_empty() && status.success(), "{rest} {status}");
}

#[test]
fn a_failing_exit_ends_all() {
    let _watched = watch(60);
    let mut scene = Scene::play(STAGE, "exit badly");
    assert_eq!(scene.line(), "child");
    scene.say("now");
    let (rest, status) = scene.end();
    assert_eq!((rest.as_str(), status.code()), ("", Some(3)));
    for (how, code) in [("panic at exit", 101), ("no exit handlers", 4)] {
        let mut scene = Scene::play(STAGE, how);
        assert_eq!(scene.line(), "child");
        let (rest, status) = scene.end();
        assert_eq!((rest.as_str(), status.code()), ("", Some(code)), "{how}");
    }
}

#[test]
fn who_exits_starts_nothing() {
    let _watched = watch(60);
    let (text, status) = Scene::play(STAGE, "late spawn").end();
    assert_eq!(text, "true this process is exiting and starts no more children\n");
    assert!(status.success());
}

#[test]
fn a_death_before_the_first_word() {
    let _watched = watch(60);
    let (text, status) = Scene::play(STAGE, "early death").end();
    assert_eq!(text, "not started: it exited with code 9 before it reported\nsignal SIGKILL\n42\n");
    assert!(status.success());
}

#[test]
fn nothing_stays() {
    let _watched = watch(120);
    let dir = empty_dir(env!("CARGO_TARGET_TMPDIR"), "nothing_stays");
    let mut command = std::process::Command::new(STAGE);
    let (text, status) = Scene::start(command.arg("leaks").env("TMPDIR", &dir)).end();
    assert_eq!(text, "nothing stays\n");
    assert!(status.success());
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn statuses_arrive_whoever_reaps() {
    let _watched = watch(60);
    for how in ["ignored children", "foreign wait"] {
        let (text, status) = Scene::play(STAGE, how).end();
        assert_eq!(text, "42\nexited 5\nSIGKILL\n", "{how}");
        assert!(status.success());
    }
    // Before Linux 6.15 the worker's own record says what it can.
    let mut command = std::process::Command::new(STAGE);
    let (text, status) = Scene::start(command.arg("ignored children").env("MULTIPROC_FORCE_OLD_KERNEL", "exit-info")).end();
    assert!(text.starts_with("42\nexited 5\n") && status.success(), "{text}");
}

#[test]
fn a_plain_fork_owns_nothing() {
    let _watched = watch(60);
    let (text, status) = Scene::play(STAGE, "fork").end();
    assert_eq!(text, "fork 40 alive true\n");
    assert!(status.success());
}
