//! `_TestLogging`: what a worker writes, line by line, with its name. The `tracing` bridge has tests of its own.

use crate::stage::watched;
use multiproc::{Process, Stdio};
use std::sync::{Arc, Mutex};

#[test]
fn enable_logging() {
    let _watched = watched();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&lines);
    let p = Process::builder()
        .name("scribe")
        .stderr(Stdio::lines(move |name, line| kept.lock().unwrap().push(format!("{name}: {line}"))))
        .spawn((), || {
            eprintln!("one");
            eprint!("two\nwithout an end");
        });
    p.unwrap().join().unwrap();
    assert_eq!(*lines.lock().unwrap(), ["scribe: one", "scribe: two", "scribe: without an end"]);
}

/// A worker takes over what its parent has set: here by the environment, as `RUST_LOG` is.
#[test]
fn level() {
    let _watched = watched();
    fn level() -> Option<String> {
        std::env::var("LEDGER_LEVEL").ok()
    }
    let p = Process::builder()
        .env("LEDGER_LEVEL", "debug")
        .spawn((), || (level(), Process::spawn((), level).unwrap().join().unwrap()));
    let debug = Some("debug".to_owned());
    assert_eq!(p.unwrap().join().unwrap(), (debug.clone(), debug));
    assert_eq!(Process::spawn((), level).unwrap().join().unwrap(), None);
    let p = Process::builder().env("LEDGER_LEVEL", "debug").env_remove("LEDGER_LEVEL").spawn((), level);
    assert_eq!(p.unwrap().join().unwrap(), None);
}

/// The place in the source that a report names is the caller's.
#[test]
fn file_and_line() {
    let _watched = watched();
    let line = line!() + 1;
    let p = Process::spawn((), || -> () { panic!("here") });
    match p.unwrap().join().unwrap_err() {
        multiproc::ProcessError::Panicked { location, .. } => {
            assert!(location.contains(&format!("cpython/logging.rs:{line}:")), "{location}");
        }
        other => panic!("{other}"),
    }
}
