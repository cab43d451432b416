//! Panics and other ends.

use crate::helpers::*;
use multiproc::{Process, ProcessError, Signal, Stdio};
use multiproc_tests::{no_core_dumps, watch};
use std::io::{BufRead, BufReader, Read, Write};

fn quiet<R>(p: Result<Process<R>, multiproc::Error>) -> Process<R> {
    p.unwrap()
}

#[test]
fn a_panic_arrives_with_message_and_place() {
    let _watched = watch(60);
    let silent = || Process::builder().name("fragile").stderr(Stdio::Null).env("RUST_BACKTRACE", "0");
    fn fail(n: u32) -> u32 {
        if n > 1 {
            panic!("n is {n}")
        }
        n
    }
    match quiet(silent().spawn((7,), fail)).join() {
        Err(e @ ProcessError::Panicked { .. }) => {
            let text = e.to_string();
            let ProcessError::Panicked { name, message, location, backtrace, .. } = e else { unreachable!() };
            assert_eq!((name.as_str(), message.as_str(), backtrace.as_str()), ("fragile", "n is 7", ""));
            let place: Vec<_> = location.split(':').collect();
            assert!(place[0].ends_with("tests/process/ends.rs") && place[1].parse::<u32>().unwrap() > 0, "{location}");
            assert!(text.contains("fragile") && text.contains("n is 7") && text.contains("ends.rs"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    let with_trace = silent().env("RUST_BACKTRACE", "1").spawn((7,), fail).unwrap().join();
    assert!(matches!(&with_trace, Err(ProcessError::Panicked { backtrace, .. }) if backtrace.contains("fail")), "{with_trace:?}");
    let unwrapped = silent().spawn((), || std::env::var("no such variable").ok().unwrap()).unwrap().join();
    assert!(matches!(&unwrapped, Err(ProcessError::Panicked { message, .. }) if message.contains("None")), "{unwrapped:?}");
    let no_text = silent().spawn((5,), |n: i32| std::panic::panic_any(n)).map(|p: Process<()>| p.join());
    assert!(matches!(no_text, Ok(Err(ProcessError::Panicked { .. }))), "{no_text:?}");
    let p = silent().spawn((7,), fail).unwrap();
    assert_eq!(p.wait().unwrap().code(), Some(101));
}

#[test]
fn a_panic_is_printed_with_the_name() {
    let _watched = watch(60);
    let mut p = Process::builder().name("speaker").stderr(Stdio::Piped).spawn((), || {
        if true {
            panic!("last words")
        }
    });
    let p = p.as_mut().unwrap();
    let mut text = String::new();
    p.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("speaker") && text.contains("last words") && text.contains("ends.rs"), "{text}");
}

#[test]
fn panics_elsewhere_are_not_the_process() {
    let _watched = watch(60);
    let silent = || Process::builder().stderr(Stdio::Null);
    fn second_thread() -> bool {
        std::thread::spawn(|| panic!("in a thread")).join().is_err()
    }
    assert!(silent().spawn((), second_thread).unwrap().join().unwrap());
    let caught = silent().spawn((), || std::panic::catch_unwind(|| panic!("caught")).is_err()).unwrap();
    assert!(caught.join().unwrap());
    let left = silent().spawn((), || {
        second_thread();
        std::process::exit(4)
    });
    let left = left.map(|p: Process<()>| p.join());
    assert!(matches!(left, Ok(Err(ProcessError::Exited { code: 4, .. }))), "{left:?}");
    let propagated =
        silent().spawn((), || std::thread::spawn(|| panic!("carried on")).join().unwrap()).map(|p: Process<()>| p.join());
    let Ok(Err(ProcessError::Panicked { message, .. })) = &propagated else { panic!("{propagated:?}") };
    assert!(message.contains("unwrap"), "{message}");
    let killed = silent().spawn((), || {
        second_thread();
        // SAFETY: touches no memory.
        unsafe { libc::raise(libc::SIGKILL) };
    });
    let killed = killed.unwrap().join();
    assert!(matches!(killed, Err(ProcessError::Signaled { signal: Signal::KILL, .. })), "{killed:?}");
}

#[test]
fn a_panic_while_panicking() {
    let _watched = watch(60);
    no_core_dumps();
    struct Fragile;
    impl Drop for Fragile {
        fn drop(&mut self) {
            panic!("the second");
        }
    }
    let p = Process::builder().stderr(Stdio::Null).spawn((), || {
        let _fragile = Fragile;
        if true {
            panic!("the first")
        }
    });
    let p = p.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&p.wait().unwrap()), Some(libc::SIGABRT));
    let end = p.join();
    assert!(matches!(&end, Err(ProcessError::Panicked { message, .. }) if !message.is_empty()), "{end:?}");
}

#[test]
fn exit_codes() {
    let _watched = watch(60);
    for code in [0, 1, 3, 101, 255] {
        let p = Process::spawn((code,), leave).unwrap();
        assert_eq!(p.wait().unwrap().code(), Some(code));
        let end = p.join();
        assert!(matches!(end, Err(ProcessError::Exited { code: c, .. }) if c == code), "{end:?}");
    }
    fn leave_at_once() {
        // SAFETY: ends the process.
        unsafe { libc::_exit(6) };
    }
    let p = Process::spawn((), leave_at_once);
    assert!(matches!(p.unwrap().join(), Err(ProcessError::Exited { code: 6, .. })));
    let from_a_thread = Process::spawn((), || {
        let _ = std::thread::spawn(|| std::process::exit(8)).join();
    });
    assert!(matches!(from_a_thread.unwrap().join(), Err(ProcessError::Exited { code: 8, .. })));
}

#[test]
fn every_end_by_signal() {
    let _watched = watch(60);
    no_core_dumps();
    // Not those that stop, continue or are ignored by default, nor libc's own two.
    let harmless =
        [libc::SIGCHLD, libc::SIGCONT, libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU, libc::SIGURG, libc::SIGWINCH];
    for sig in (1..=31).chain(34..=64).filter(|s| !harmless.contains(s) && *s != libc::SIGPIPE) {
        let p = Process::spawn((), for_ever).unwrap();
        p.signal(Signal(sig)).unwrap();
        let end = p.join();
        assert!(
            matches!(end, Err(ProcessError::Signaled { signal: Signal(s), core_dumped: false, .. }) if s == sig),
            "{sig}: {end:?}"
        );
    }
    let e = Process::spawn((), for_ever).map(|p| (p.kill().unwrap(), p.join().unwrap_err()).1).unwrap();
    assert!(e.to_string().contains("SIGKILL"), "{e}");
}

#[test]
fn faults_and_aborts() {
    let _watched = watch(60);
    no_core_dumps();
    let silent = || Process::builder().stderr(Stdio::Null);
    let p = silent().spawn((), || {
        if true {
            std::process::abort()
        }
    });
    assert!(matches!(p.unwrap().join(), Err(ProcessError::Signaled { signal: Signal::ABRT, .. })));
    let p = silent().spawn((), || {
        // SAFETY: none: this is the fault that the test wants.
        unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) }
    });
    assert!(matches!(p.unwrap().join(), Err(ProcessError::Signaled { signal: Signal::SEGV, .. })));
    #[inline(never)]
    fn deep(n: u64) -> u64 {
        let frame = std::hint::black_box([n; 100]);
        if n == u64::MAX { 0 } else { deep(n + 1) + frame[(n % 100) as usize] }
    }
    let mut p = Process::builder().name("deep").stderr(Stdio::Piped).spawn((0,), deep).unwrap();
    let mut text = String::new();
    p.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("overflowed its stack"), "{text}");
    let end = p.join();
    assert!(matches!(&end, Err(ProcessError::StackOverflow { name, .. }) if name == "deep"), "{end:?}");
    // In a thread of the worker too: std's own handler is not there before main, so it is a plain fault or says so.
    let p = silent().spawn((), || std::thread::spawn(|| deep(0)).join().unwrap()).unwrap();
    let end = p.join();
    assert!(matches!(end, Err(ProcessError::StackOverflow { .. } | ProcessError::Signaled { .. })), "{end:?}");
}

#[test]
fn a_value_counts_though_the_process_is_killed_later() {
    let _watched = watch(60);
    // After the result is left, exit handlers run: here one that never ends.
    fn value() -> u32 {
        extern "C" fn hang() {
            println!("left");
            let _ = std::io::stdout().flush();
            for_ever();
        }
        // SAFETY: the function lives as long as the program.
        unsafe { libc::atexit(hang) };
        17
    }
    let mut p = Process::builder().stdout(Stdio::Piped).spawn((), value).unwrap();
    let mut line = String::new();
    BufReader::new(p.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(p.is_alive());
    assert!(p.try_join().unwrap().is_none(), "join waits for the process, not for its value");
    p.kill().unwrap();
    assert_eq!(p.join().unwrap(), 17);
}
