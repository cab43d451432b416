//! The end of a tree in order: on request, by Ctrl-C on a terminal, by SIGTERM to one, to a group, to all at once.

use multiproc_tests::{Scene, eventually, is_gone, watch};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

const TREES: &str = env!("CARGO_BIN_EXE_trees");

fn send(pid: i32, signal: i32) {
    // SAFETY: touches no memory; pid and group are those of processes that the scene has just named.
    unsafe { libc::kill(pid, signal) };
}

/// Async-signal-safe.
fn by_default(signal: i32) {
    // SAFETY: restoring the default installs no code.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// As a program is started by hand, whatever this one ignores; in a process group of its own.
fn fresh(scene: &str) -> Command {
    fn prepare() -> std::io::Result<()> {
        by_default(libc::SIGINT);
        by_default(libc::SIGTERM);
        Ok(())
    }
    let mut command = Command::new(TREES);
    command.arg(scene).process_group(0);
    // SAFETY: `prepare` is async-signal-safe.
    unsafe { command.pre_exec(prepare) };
    command
}

fn pids(scene: &mut Scene) -> Vec<i32> {
    scene.line().split(' ').map(|pid| pid.parse().unwrap()).collect()
}

/// One clean end: the exit handlers of the coordinator and of the careful worker have run, once, the latter's unfinished line is there, nobody is left.
fn one_clean_end(scene: Scene, pids: &[i32], code: i32) {
    let me = scene.pid();
    let (text, status) = scene.end();
    let expected = format!("not finished, {} leaves\n{me} leaves\n", pids[1]);
    assert_eq!((text, status.code()), (expected, Some(code)));
    assert!(pids.iter().all(|&pid| is_gone(pid.cast_unsigned())), "{pids:?}");
}

#[test]
fn shutdown_tells_how_each_ended() {
    let _watched = watch(60);
    let (text, status) = Scene::play(TREES, "report").end();
    let expected = "willing signal: 15 (SIGTERM) false\nstubborn signal: 9 (SIGKILL) true\nstopped signal: 15 (SIGTERM) false\n\
                    42\nsignal: 9 (SIGKILL)\n";
    assert_eq!(text, expected);
    assert!(status.success());
}

#[test]
fn no_handler_is_installed_unasked() {
    let _watched = watch(60);
    let (text, status) = Scene::start(&mut fresh("handlers")).end();
    // SIGINT is 2 and SIGTERM is 15.
    assert_eq!(text, "true\n4002\n");
    assert!(status.success());
    // What the program was started with as ignored stays so.
    let (text, _) = Scene::play_after("trap '' INT", TREES, "handlers").end();
    assert_eq!(text, "true\n4000\n");
}

#[test]
fn sigterm_to_the_coordinator() {
    let _watched = watch(60);
    for _ in 0..5 {
        let mut scene = Scene::start(&mut fresh("caught"));
        let pids = pids(&mut scene);
        send(scene.pid() as i32, libc::SIGTERM);
        one_clean_end(scene, &pids, 143);
    }
}

#[test]
fn sigint_and_sigterm_to_the_group() {
    let _watched = watch(60);
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let mut scene = Scene::start(&mut fresh("caught"));
        let pids = pids(&mut scene);
        send(-(scene.pid() as i32), signal);
        one_clean_end(scene, &pids, code);
    }
}

/// As a service manager does that signals everything in the control group, in any order.
#[test]
fn sigterm_to_all_at_once() {
    let _watched = watch(120);
    for round in 0..10 {
        let mut scene = Scene::start(&mut fresh("caught"));
        let pids = pids(&mut scene);
        let mut all = vec![scene.pid() as i32];
        all.extend(&pids);
        all.rotate_left(round % 4);
        if round >= 5 {
            all.reverse();
        }
        all.iter().for_each(|&pid| send(pid, libc::SIGTERM));
        one_clean_end(scene, &pids, 143);
    }
}

/// timeout(1) sends to the process and to its group.
#[test]
fn the_same_signal_twice_is_one() {
    let _watched = watch(60);
    let mut scene = Scene::start(&mut fresh("caught"));
    let pids = pids(&mut scene);
    send(scene.pid() as i32, libc::SIGTERM);
    send(-(scene.pid() as i32), libc::SIGTERM);
    one_clean_end(scene, &pids, 143);
}

/// Makes the caller the leader of a session on this terminal, in its foreground. Async-signal-safe.
fn take_terminal(name: *const libc::c_char) -> std::io::Result<()> {
    by_default(libc::SIGINT);
    // SAFETY: touches no memory.
    unsafe { libc::setsid() };
    // The first terminal that a session's leader opens becomes the session's, and the leader's group its foreground.
    // SAFETY: the caller's name ends with a zero.
    let terminal = unsafe { libc::open(name, libc::O_RDWR) };
    // SAFETY: touches no memory.
    let foreground = unsafe { libc::tcgetpgrp(terminal) };
    if foreground == std::process::id() as i32 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// A terminal of our own with the scene in its foreground: `(our side, scene)`.
fn on_a_terminal(scene: &str) -> (std::fs::File, Scene) {
    // SAFETY: touches no memory.
    let master = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
    assert!(master >= 0, "a pseudo-terminal");
    // SAFETY: just opened, owned by nobody else.
    let master = unsafe { OwnedFd::from_raw_fd(master) };
    // SAFETY: touches no memory.
    assert_eq!(unsafe { libc::grantpt(master.as_raw_fd()) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::unlockpt(master.as_raw_fd()) }, 0);
    let mut name = [0; 64];
    // SAFETY: the place is valid for its length.
    assert_eq!(unsafe { libc::ptsname_r(master.as_raw_fd(), name.as_mut_ptr(), name.len()) }, 0);
    let mut command = Command::new(TREES);
    command.arg(scene);
    // SAFETY: `take_terminal` is async-signal-safe.
    unsafe { command.pre_exec(move || take_terminal(name.as_ptr())) };
    let scene = Scene::start(&mut command);
    (master.into(), scene)
}

#[test]
fn ctrl_c_on_a_terminal() {
    let _watched = watch(60);
    for _ in 0..5 {
        let (mut terminal, mut scene) = on_a_terminal("caught");
        let pids = pids(&mut scene);
        terminal.write_all(b"\x03").unwrap();
        one_clean_end(scene, &pids, 130);
        // The echo, and nothing else: nobody in the background has written there.
        let mut echo = [0; 16];
        let n = terminal.read(&mut echo).unwrap_or(0);
        assert_eq!(&echo[..n], b"^C");
    }
}

/// Without `shutdown_on`, Ctrl-C ends the coordinator by the signal, and the kernel all the others.
#[test]
fn ctrl_c_unasked() {
    let _watched = watch(60);
    use std::os::unix::process::ExitStatusExt;
    let (mut terminal, mut scene) = on_a_terminal("uncaught");
    scene.line();
    terminal.write_all(b"\x03").unwrap();
    let (rest, status) = scene.end();
    assert_eq!((rest.as_str(), status.signal()), ("", Some(libc::SIGINT)));
}

/// The exit code is the signal's also if `main` ends because its workers do, or waits for them in its exit already.
#[test]
fn the_exit_code_is_kept() {
    let _watched = watch(120);
    for _ in 0..10 {
        for how in ["caught and main returns", "caught late"] {
            let mut scene = Scene::start(&mut fresh(how));
            let pids = pids(&mut scene);
            send(scene.pid() as i32, libc::SIGTERM);
            one_clean_end(scene, &pids, 143);
        }
    }
}

/// A worker that does not end when asked: the second signal kills at once.
#[test]
fn the_second_signal_kills() {
    let _watched = watch(60);
    let mut scene = Scene::start(&mut fresh("caught with stubborn workers"));
    let pids = pids(&mut scene);
    let me = scene.pid() as i32;
    send(me, libc::SIGINT);
    eventually(|| is_gone(pids[0].cast_unsigned()) && is_gone(pids[1].cast_unsigned()));
    assert!(!is_gone(pids[3].cast_unsigned()) && !is_gone(me.cast_unsigned()), "it has a grace of hours");
    // Those that come at once are the same.
    eventually(|| {
        send(me, libc::SIGTERM);
        is_gone(pids[3].cast_unsigned())
    });
    let (text, status) = scene.end();
    // On a slow machine some of these came late enough to be the third, which spares the exit handlers.
    let careful = format!("not finished, {} leaves\n", pids[1]);
    assert!(text == careful || text == format!("{careful}{me} leaves\n"), "{text}");
    assert_eq!(status.code(), Some(130), "{status}");
}
