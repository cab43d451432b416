//! `TestInitializers`: what runs in each worker before its function.

use crate::stage::{alone, watched};
use multiproc::{Process, worker_init};
use std::sync::atomic::{AtomicU32, Ordering};

static READY: AtomicU32 = AtomicU32::new(0);

#[test]
fn worker_initializer() {
    let _watched = watched();
    alone("initializers::initializes");
}

fn seen() -> u32 {
    READY.load(Ordering::Relaxed)
}

fn seen_in_worker() -> (u32, u32) {
    (seen(), Process::spawn((), seen).unwrap().join().unwrap())
}

#[test]
#[ignore = "a program of its own"]
fn initializes() {
    assert_eq!(Process::spawn((), seen_in_worker).unwrap().join().unwrap(), (0, 0));
    worker_init(|| READY.store(7, Ordering::Relaxed)).unwrap();
    // In each, and in their children, but not here.
    assert_eq!((Process::spawn((), seen_in_worker).unwrap().join().unwrap(), seen()), ((7, 7), 0));
    // One that fails is that worker's failure.
    worker_init(|| assert!(seen() != 7, "initializer fails")).unwrap();
    let e = Process::spawn((), seen_in_worker).unwrap().join().unwrap_err();
    assert!(e.to_string().ends_with("initializer fails"), "{e}");
}
