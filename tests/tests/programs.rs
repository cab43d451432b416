//! What kinds of programs multiproc works in, and what it says in the others. The rows of `docs/PLATFORM.md`, section "Programs".

use multiproc_tests::{Scene, empty_dir, watch};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

const PROGRAM: &str = env!("CARGO_BIN_EXE_program");

fn play(kind: &str) -> (String, ExitStatus) {
    Scene::play(PROGRAM, kind).end()
}

/// A new directory that every user can enter.
fn public_dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("multiproc-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn copy_to(dir: &Path, name: &str) -> PathBuf {
    let to = dir.join(name);
    copy(Path::new(PROGRAM), &to);
    to
}

/// By a process of its own: a child that another test starts while this process writes a program has that open until its exec, and then the program cannot be executed.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").args([from, to]).status().unwrap().success());
}

fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

// --- what a worker does to itself -----------------------------------------------------------------

#[test]
fn workers_that_become_other_programs() {
    let _watched = watch(60);
    let (text, status) = play("execs");
    let expected = ["exited with 7", "exited with 0", "ended by SIGKILL", "0", "exited with 3", "returned 42", "exited with 0"];
    assert_eq!((lines(&text), status.success()), (expected.to_vec(), true));
}

/// The new program lives on meanwhile, and nobody waits for its end.
#[test]
fn what_a_worker_held_comes_back_when_it_becomes_another_program() {
    let _watched = watch(60);
    let (text, status) = play("execs with ends");
    let text = lines(&text);
    assert!(text[0].starts_with("get: ") && text[1].starts_with("put: ") && text[2].starts_with("lock: "), "{text:?}");
    assert_eq!((&text[3..], status.success()), (&["lease: 9", "alive: true", "exited with 5"][..], true));
}

#[test]
fn a_worker_of_another_user() {
    let _watched = watch(60);
    if !is_root() {
        eprintln!("skipped: only root can change its user");
        return;
    }
    let (text, status) = play("other user");
    let text = lines(&text);
    // Whether another user may execute the program's file is up to the file.
    assert!(text[0] == "returned 42" || text[0].starts_with("refused") && text[0].contains("Permission denied"), "{text:?}");
    assert_eq!((&text[1..], status.success()), (&["1 1048576", "ended by SIGKILL"][..], true));
}

#[test]
fn a_worker_that_closes_every_descriptor() {
    let _watched = watch(60);
    let mut scene = Scene::play(PROGRAM, "closes everything");
    let refused = scene.line();
    assert!(refused.starts_with("refused") && refused.contains("Bad file descriptor"), "{refused}");
    assert_eq!([scene.line(), scene.line()], ["1 3 true", "closed"]);
    // It still ends with its parent.
    scene.kill();
    assert_eq!(scene.rest().0, "");
}

#[test]
fn a_coordinator_that_closes_every_descriptor() {
    let _watched = watch(60);
    let (text, status) = play("closes its children's");
    assert_eq!((lines(&text), status.success()), (vec!["true"; 3], true));
}

#[test]
fn workers_in_other_directories_and_roots() {
    let _watched = watch(60);
    let dir = empty_dir(env!("CARGO_TARGET_TMPDIR"), "other_root");
    let (text, status) = Scene::start(Command::new(PROGRAM).arg("moves").arg(&dir)).end();
    let text = lines(&text);
    assert_eq!(text[0], "returned 42");
    if text[1] == "not allowed" {
        eprintln!("skipped: no right to chroot");
    } else {
        assert!(text[1].starts_with("refused, unsupported false") && text[1].contains("/proc is not mounted"), "{text:?}");
    }
    assert!(status.success());
}

/// Runs as a user whose processes are counted, and to whom nothing belongs.
fn as_nobody(program: &Path, kind: &str) -> Option<Scene> {
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let allowed = Command::new("setpriv").args(nobody).args(["test", "-x"]).arg(program).status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: nobody else can run a program here");
        return None;
    }
    Some(Scene::start(Command::new("setpriv").args(nobody).arg(program).arg(kind)))
}

#[test]
fn a_worker_that_may_have_no_further_process() {
    let _watched = watch(60);
    let dir = public_dir("nproc");
    if let Some(scene) = as_nobody(&copy_to(&dir, "program"), "no more processes") {
        let (text, status) = scene.end();
        assert!(text.starts_with("refused, unsupported false resources true") && status.success(), "{text}");
    }
    fs::remove_dir_all(dir).unwrap();
}

// --- what happens to the program's file -----------------------------------------------------------

fn play_replaced(name: &str, replace: impl FnOnce(&Path)) {
    let dir = empty_dir(env!("CARGO_TARGET_TMPDIR"), name);
    let program = copy_to(&dir, "program");
    let mut scene = Scene::start(Command::new(&program).arg("replaced"));
    assert_eq!(scene.line(), "returned 42");
    replace(&program);
    scene.say("replaced");
    let (text, status) = scene.end();
    assert_eq!((text.as_str(), status.success()), ("1 2\n", true));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_program_whose_file_is_deleted() {
    let _watched = watch(60);
    play_replaced("deleted", |program| fs::remove_file(program).unwrap());
}

#[test]
fn a_program_whose_file_is_replaced() {
    let _watched = watch(60);
    play_replaced("replaced", |program| {
        fs::remove_file(program).unwrap();
        copy(Path::new("/bin/false"), program);
    });
    play_replaced("renamed_over", |program| {
        let other = program.with_extension("new");
        copy(Path::new("/bin/false"), &other);
        fs::rename(other, program).unwrap();
    });
    play_replaced("renamed", |program| fs::rename(program, program.with_extension("old")).unwrap());
}

// --- how the program is started -------------------------------------------------------------------

/// The dynamic loader that the program names.
fn loader() -> Option<PathBuf> {
    let image = fs::read(PROGRAM).unwrap();
    let word = |at: usize, len: usize| image[at..at + len].iter().rev().fold(0, |n, &b| n << 8 | usize::from(b));
    // Elf64_Ehdr: e_phoff, e_phentsize, e_phnum; Elf64_Phdr: p_type, p_offset, p_filesz. PT_INTERP is 3.
    let headers = (0..word(56, 2)).map(|i| word(32, 8) + i * word(54, 2));
    let interpreter = headers.into_iter().find(|&at| word(at, 4) == 3)?;
    let (start, len) = (word(interpreter + 8, 8), word(interpreter + 32, 8));
    Some(String::from_utf8(image[start..start + len - 1].to_vec()).unwrap().into())
}

#[test]
fn a_program_started_through_its_loader() {
    let _watched = watch(60);
    let Some(loader) = loader() else {
        eprintln!("skipped: the program has no loader");
        return;
    };
    let (text, status) = Scene::start(Command::new(loader).args([PROGRAM, "try"])).end();
    assert!(text.starts_with("refused, unsupported true") && text.contains("started through ld.so"), "{text}");
    assert!(status.success());
}

#[test]
fn a_program_without_arguments_or_with_an_empty_name() {
    let _watched = watch(60);
    assert_eq!(play("no arguments").0, "returned 42\n");
    use std::os::unix::process::CommandExt;
    for name in ["", "another name"] {
        let (text, _) = Scene::start(Command::new(PROGRAM).arg0(name).arg("try")).end();
        assert_eq!(text, "returned 42\n", "{name:?}");
    }
}

/// The kernel takes a quarter of the stack's limit for arguments and environment, but at least 128 KiB.
#[test]
fn a_program_with_hardly_any_room_for_arguments() {
    let _watched = watch(60);
    // By a short path, so that a worker's own does not make room for the marker.
    let dir = empty_dir(env!("CARGO_TARGET_TMPDIR"), "room");
    copy_to(&dir, "p");
    let start = |arguments: usize, environment: usize, more: usize| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -s 1024; exec 2>/dev/null; exec ./p \"$@\"", "sh", "try"]).current_dir(&dir).env_clear();
        command.args((0..arguments).map(|_| "a".repeat(999)));
        command.envs((0..environment).map(|n| (format!("V{n:04}"), "e".repeat(993)))).env("MORE", "e".repeat(more));
        Scene::start(&mut command).end()
    };
    // A worker gets the environment, not the arguments.
    assert_eq!(start(200, 0, 0).0, "returned 42\n");
    // As much as fits into the program's own environment leaves no room for the marker.
    let most = (200..270).rev().find(|&n| start(0, n, 0).1.success()).unwrap();
    let (text, status) = (0..1010).rev().step_by(10).map(|n| start(0, most, n)).find(|(_, status)| status.success()).unwrap();
    assert!(text.starts_with("refused, unsupported false resources true") && text.contains("environment"), "{text}");
    assert!(status.success());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn daemons() {
    let _watched = watch(60);
    assert_eq!(play("daemon").0, "true true\n");
    let (text, status) = play("late daemon");
    let text = lines(&text);
    assert_eq!((text[0], text.len(), status.success()), ("returned 42", 4, true));
    assert!(text[1..].iter().all(|line| line.contains("was made by fork()")), "{text:?}");
    assert!(text[3].starts_with("refused, unsupported false"), "{text:?}");
}

#[test]
fn programs_started_by_other_means_inherit_nothing() {
    let _watched = watch(60);
    let nothing = "[false, false, false, false]";
    assert_eq!(lines(&play("foreign children").0), [nothing, nothing, "true"]);
}

/// Copies of the program that run with more rights than their user has.
#[test]
fn set_uid_copies() {
    let _watched = watch(60);
    if !is_root() {
        eprintln!("skipped: only root can make a set-uid program");
        return;
    }
    let dir = public_dir("set-uid");
    for (name, mode) in [("uid", 0o4755), ("gid", 0o2755)] {
        let program = copy_to(&dir, name);
        chown(&program, Some(0), Some(0)).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        let Some(scene) = as_nobody(&program, "try") else { continue };
        let (text, status) = scene.end();
        if text == "returned 42\n" {
            eprintln!("skipped: set-uid programs have no effect in this file system");
            continue;
        }
        let refused = text.starts_with("refused, unsupported true") && text.contains("set-uid");
        assert!(refused && status.success(), "{name}: {text}");
        // Even a genuine marker does not make a worker of it.
        let marker = genuine_marker();
        let script =
            format!("export MULTIPROC_WORKER='{marker}'; exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" try");
        let (text, status) = Scene::start(Command::new("sh").args([OsStr::new("-c"), script.as_ref(), program.as_ref()])).end();
        assert!(text.contains("set-uid") && status.success(), "{name}: {text}");
    }
    fs::remove_dir_all(dir).unwrap();
}

/// What stands in the environment of a worker of this program.
fn genuine_marker() -> String {
    let (marker, _) = Scene::play(PROGRAM, "marker").end();
    marker.trim_end().to_owned()
}
