//! Waiting, and who is who.

use crate::helpers::*;
use multiproc::{Process, ProcessError, Signal, Stdio};
use multiproc_tests::watch;
use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

#[test]
fn waiting_and_joining() {
    let _watched = watch(60);
    let mut p = Process::builder().stdin(Stdio::Piped).spawn((), || {
        std::io::stdin().read_to_string(&mut String::new()).unwrap();
        "done".to_owned()
    });
    let p = p.as_mut().unwrap();
    assert!(p.is_alive() && p.exit_status().is_none());
    assert!(p.try_join().unwrap().is_none());
    let start = Instant::now();
    assert!(p.join_timeout(Duration::from_millis(50)).unwrap().is_none());
    assert!(p.wait_timeout(Duration::from_millis(50)).is_none());
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert!(p.join_timeout(Duration::ZERO).unwrap().is_none());
    drop(p.stdin.take());
    assert!(p.wait().unwrap().success());
    assert!(p.wait().unwrap().success());
    assert!(p.wait_timeout(Duration::MAX).unwrap().success());
    assert!(!p.is_alive() && p.exit_status().unwrap().success());
    assert_eq!(p.join_timeout(Duration::from_secs(1)).unwrap().as_deref(), Some("done"));
    assert!(matches!(p.try_join(), Err(ProcessError::AlreadyJoined { .. })));
    assert!(matches!(p.join_timeout(Duration::ZERO), Err(ProcessError::AlreadyJoined { .. })));
    assert!(p.exit_status().unwrap().success());
}

#[test]
fn a_failure_is_told_again() {
    let _watched = watch(60);
    let mut p = Process::spawn((3,), leave).unwrap();
    p.wait();
    for _ in 0..2 {
        assert!(matches!(p.try_join(), Err(ProcessError::Exited { code: 3, .. })));
    }
}

#[test]
fn an_endless_timeout_waits() {
    let _watched = watch(60);
    let mut p = Process::spawn((5u32,), |x: u32| x).unwrap();
    assert_eq!(p.join_timeout(Duration::MAX).unwrap(), Some(5));
}

#[test]
fn signals_by_name() {
    let _watched = watch(60);
    for (send, expected) in [
        (Process::interrupt as fn(&Process<()>) -> Result<(), multiproc::Error>, Signal::INT),
        (Process::terminate, Signal::TERM),
        (Process::kill, Signal::KILL),
    ] {
        let p = begun();
        send(&p).unwrap();
        p.wait();
        let e = send(&p).unwrap_err();
        assert!(e.is_ended(), "{e}");
        let end = p.join();
        assert!(matches!(end, Err(ProcessError::Signaled { signal, .. }) if signal == expected), "{end:?}");
    }
    let p = begun();
    assert!(!p.signal(Signal(1000)).unwrap_err().is_ended());
    p.signal(Signal::STOP).unwrap();
    assert!(p.is_alive());
    p.signal(Signal::CONT).unwrap();
    p.kill().unwrap();
    p.wait();
}

#[test]
fn a_handler_of_the_worker_is_respected() {
    let _watched = watch(60);
    let mut p = Process::builder().stdout(Stdio::Piped).spawn((), || {
        extern "C" fn leave_well(_: i32) {
            // SAFETY: ends the process.
            unsafe { libc::_exit(44) };
        }
        let handler: extern "C" fn(i32) = leave_well;
        // SAFETY: the handler is async-signal-safe.
        unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
        ready_for_ever();
    });
    let p = p.as_mut().unwrap();
    BufReader::new(p.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    p.terminate().unwrap();
    assert_eq!(p.wait().unwrap().code(), Some(44));
}

#[test]
fn relatives() {
    let _watched = watch(60);
    assert_eq!(multiproc::current_process().name, "MainProcess");
    assert!(multiproc::parent_process().is_none());
    assert!(multiproc::cpu_count() >= 1);
    let p = Process::builder().name("middle").spawn((), || {
        let inner =
            Process::builder().name("inner").spawn((), || (multiproc::current_process(), multiproc::parent_process().unwrap()));
        let inner = inner.unwrap();
        let pid = inner.pid();
        let (me, parent) = inner.join().unwrap();
        assert_eq!((me.pid, me.name.as_str(), parent.name.as_str()), (pid, "inner", "middle"));
        assert_eq!(parent.pid, std::process::id());
        let above = multiproc::parent_process().unwrap();
        (above.pid, above.name, multiproc::current_process().pid, multiproc::active_children().len())
    });
    let p = p.unwrap();
    let pid = p.pid();
    assert_eq!(p.join().unwrap(), (std::process::id(), "MainProcess".into(), pid, 0));
}

#[test]
fn active_children_are_those_that_live() {
    let _watched = watch(60);
    let p = Process::builder().name("active").daemon(true).spawn((), for_ever).unwrap();
    let find = || multiproc::active_children().into_iter().find(|c| c.name() == "active");
    let child = find().unwrap();
    assert_eq!((child.pid(), child.is_daemon(), child.is_alive(), p.is_daemon()), (p.pid(), true, true, true));
    let pid = p.pid();
    drop(p);
    assert_eq!(find().map(|c| c.pid()), Some(pid), "dropping the handle ends nothing");
    child.signal(Signal::KILL).unwrap();
    child.wait();
    assert!(!child.is_alive() && find().is_none());
}
