//! `TestNoForkBomb`: a program that does not guard its main starts no processes without end.

use crate::stage::{alone, watched};
use multiproc::{Atomic, Process};

/// A worker runs its function and never reaches `main`, so a start at the top of `main` happens once.
#[test]
fn main_runs_once() {
    let _watched = watched();
    let text = alone("fork_bomb::starts_at_the_top");
    assert_eq!(text.matches("main runs").count(), 1, "{text}");
}

#[test]
#[ignore = "a program of its own"]
fn starts_at_the_top() {
    println!("main runs");
    let starts = Atomic::new(0u64).unwrap();
    Process::spawn((starts.clone(),), |starts: Atomic<u64>| starts.add(1)).unwrap().join().unwrap();
    assert_eq!(starts.get(), 1);
}
