//! The self-test at the start of a tree: who makes the arena tests the kernel, once, and everybody else goes by what it found.

use multiproc::{Process, Queue};
use multiproc_tests::watch;
use std::process::Command;
use std::time::Duration;

const OLD_KERNEL: &str = "MULTIPROC_FORCE_OLD_KERNEL";
/// Waits look again each 10 ms in it where the kernel does not wake for the dead.
const WAIT: Duration = Duration::from_secs(1);

/// How often a wait looks in vain.
fn looks() -> i64 {
    let switches = || {
        // SAFETY: plain numbers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: writes the struct.
        assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
        usage.ru_nvcsw
    };
    let empty = Queue::<u8>::bounded(1).unwrap();
    let before = switches();
    empty.get_timeout(WAIT).unwrap_err();
    switches() - before
}

#[test]
#[ignore = "run by another test, in a program of its own"]
fn those_of_parent_and_child() {
    let _watched = watch(60);
    let own = looks();
    let builder = Process::builder();
    let child = match std::env::var_os(OLD_KERNEL) {
        Some(_) => builder.env_remove(OLD_KERNEL),
        None => builder.env(OLD_KERNEL, "death-wakes"),
    };
    println!("looks: {own} {}", child.spawn((), looks).unwrap().join().unwrap());
}

/// Of a program on a kernel that lacks this, and of its child on one of the other kind.
fn looks_of_parent_and_child(lacks: Option<&str>) -> (i64, i64) {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "those_of_parent_and_child", "--ignored", "--nocapture"]).env_remove(OLD_KERNEL);
    let out = program.envs(lacks.map(|lacks| (OLD_KERNEL, lacks))).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    let numbers = text.lines().find_map(|line| line.split_once("looks: ")?.1.split_once(' '));
    let (own, childs) = numbers.unwrap_or_else(|| panic!("{text}"));
    (own.parse().unwrap(), childs.parse().unwrap())
}

#[test]
fn a_child_goes_by_what_its_tree_has_found() {
    let _watched = watch(120);
    let (own, childs) = looks_of_parent_and_child(Some("death-wakes"));
    assert!(own > 10 && childs > 10, "{own} and {childs} looks where the tree's kernel does not wake");
    let (own, childs) = looks_of_parent_and_child(None);
    assert!(own < 10 && childs < 10, "{own} and {childs} looks where it does");
}
