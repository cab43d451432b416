//! `ExecutorDeadlockTest`: whatever goes wrong on the way of a task to its worker and back, it has an outcome, and the pool goes on.

use crate::stage::{program, said, watched};
use multiproc::{Pool, Signal, Task, TaskError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::process::{abort, exit};

/// What a value does when it is encoded or decoded, in a worker or out of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bad {
    Error,
    Panic,
    Exit,
    Crash,
}

impl Bad {
    fn strike<E>(self, error: impl Fn(&str) -> E) -> Result<(), E> {
        match self {
            Bad::Error => Err(error("refuses")),
            Bad::Panic => panic!("panics"),
            Bad::Exit => exit(1),
            Bad::Crash => abort(),
        }
    }
}

const BAD: [Bad; 4] = [Bad::Error, Bad::Panic, Bad::Exit, Bad::Crash];

/// Strikes when it is encoded.
#[derive(Debug)]
struct BadOut(u8);
/// Strikes when it is decoded.
#[derive(Debug)]
struct BadIn(u8);

impl Serialize for BadOut {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        BAD[usize::from(self.0)].strike(|text| serde::ser::Error::custom(text))?;
        s.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for BadOut {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<BadOut, D::Error> {
        u8::deserialize(d).map(BadOut)
    }
}

impl Serialize for BadIn {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for BadIn {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<BadIn, D::Error> {
        let kind = u8::deserialize(d)?;
        BAD[usize::from(kind)].strike(|text| serde::de::Error::custom(text))?;
        Ok(BadIn(kind))
    }
}

/// That one fails as it should; those before and after it are done.
fn check<R: std::fmt::Debug>(submit: impl Fn(&Pool) -> Task<R>, expected: impl Fn(&TaskError) -> bool) {
    let _watched = watched();
    let pool = Pool::builder().workers(2).initializer((), multiproc_tests::no_core_dumps).build().unwrap();
    let before: Vec<_> = (0..10u32).map(|n| pool.submit((n,), |n: u32| n).unwrap()).collect();
    let bad = submit(&pool);
    let after: Vec<_> = (0..10u32).map(|n| pool.submit((n,), |n: u32| n).unwrap()).collect();
    let e = bad.join().unwrap_err();
    assert!(expected(&e), "{e:?}");
    assert!(before.into_iter().chain(after).all(|task| task.join().is_ok()));
    pool.close();
    pool.join().unwrap();
}

fn exited(e: &TaskError) -> bool {
    e.exit_code() == Some(1)
}

fn crashed(e: &TaskError) -> bool {
    e.signal() == Some(Signal::ABRT)
}

fn argument(bad: Bad, expected: impl Fn(&TaskError) -> bool) {
    let kind = BAD.iter().position(|b| *b == bad).unwrap() as u8;
    check(|pool| pool.submit((BadIn(kind),), |_: BadIn| 1u32).unwrap(), expected);
}

fn value(bad: Bad, expected: impl Fn(&TaskError) -> bool) {
    let kind = BAD.iter().position(|b| *b == bad).unwrap() as u8;
    check(|pool| pool.submit((kind,), |kind: u8| BadOut(kind)).unwrap(), expected);
}

#[test]
fn error_at_task_pickle() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    let e = pool.submit((BadOut(0),), |_: BadOut| 1u32).unwrap_err();
    assert!(e.is_codec() && e.to_string().contains("refuses"), "{e}");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.submit((BadOut(1),), |_: BadOut| 1u32).map(drop)));
    assert!(!matches!(caught, Ok(Ok(()))));
    assert_eq!(pool.apply((), || 2).unwrap(), 2);
    pool.close();
    pool.join().unwrap();
}

#[test]
fn exit_at_task_unpickle() {
    argument(Bad::Exit, exited);
}

#[test]
fn error_at_task_unpickle() {
    argument(Bad::Error, |e| matches!(e, TaskError::Unreadable(why) if why.contains("refuses")));
    argument(Bad::Panic, |e| matches!(e, TaskError::Unreadable(why) if why.contains("panics")));
}

#[test]
fn crash_at_task_unpickle() {
    argument(Bad::Crash, crashed);
}

#[test]
fn crash_during_func_exec() {
    check(|pool| pool.submit((), || -> u32 { abort() }).unwrap(), crashed);
}

#[test]
fn exit_during_func_exec() {
    check(|pool| pool.submit((), || -> u32 { exit(1) }).unwrap(), exited);
}

#[test]
fn error_during_func_exec() {
    check(|pool| pool.submit((), || -> u32 { panic!("wrong") }).unwrap(), |e| matches!(e, TaskError::Panicked { .. }));
}

#[test]
fn crash_during_result_pickle() {
    value(Bad::Crash, crashed);
}

#[test]
fn exit_during_result_pickle() {
    value(Bad::Exit, exited);
}

#[test]
fn error_during_result_pickle() {
    value(Bad::Error, |e| matches!(e, TaskError::Unsendable(why) if why.contains("refuses")));
    value(Bad::Panic, |e| matches!(e, TaskError::Unsendable(why) if why.contains("panics")));
}

/// A value of a type that decodes nowhere: written by hand in the worker, as a number.
#[test]
fn error_during_result_unpickle() {
    check(|pool| pool.submit((), || BadIn(0)).unwrap(), |e| matches!(e, TaskError::Undecodable(why) if why.contains("refuses")));
    check(|pool| pool.submit((), || BadIn(1)).unwrap(), |e| matches!(e, TaskError::Undecodable(why) if why.contains("panics")));
}

/// The program that decodes asks to exit, and does.
#[test]
fn exit_during_result_unpickle() {
    let _watched = watched();
    let out = program("executor_deadlock::exits_while_it_decodes").output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
}

#[test]
#[ignore = "a program of its own"]
fn exits_while_it_decodes() {
    let pool = Pool::new(1).unwrap();
    let _ = pool.apply((), || BadIn(2));
    unreachable!("it has exited");
}

/// The drop of the pool while a worker dies.
#[test]
fn shutdown_with_a_crash() {
    let _watched = watched();
    for _ in 0..10 {
        let pool = Pool::builder().workers(2).initializer((), multiproc_tests::no_core_dumps).build().unwrap();
        let crash = pool.submit((), || -> u32 { abort() }).unwrap();
        let other = pool.submit((), || 4u32).unwrap();
        drop(pool);
        assert!(crashed(&crash.join().unwrap_err()));
        assert_eq!(other.join().unwrap(), 4);
    }
}

/// The drop of the pool while an argument cannot be encoded.
#[test]
fn shutdown_with_an_error_at_task_pickle() {
    let _watched = watched();
    let pool = Pool::new(2).unwrap();
    let other = pool.submit((), || 4u32).unwrap();
    assert!(pool.submit((BadOut(0),), |_: BadOut| 1u32).unwrap_err().is_codec());
    drop(pool);
    assert_eq!(other.join().unwrap(), 4);
}

#[test]
fn crash_with_large_data() {
    let text = "x".repeat(4 << 20);
    check(|pool| pool.submit((text.clone(),), |_: String| -> u32 { abort() }).unwrap(), crashed);
    check(|pool| pool.submit((text.clone(),), |text: String| (text, BadOut(3)).1).unwrap(), crashed);
}

/// More tasks, and more outcomes, than anything between the two has room for.
#[test]
fn more_than_there_is_room_for() {
    let _watched = watched();
    let pool = Pool::new(1).unwrap();
    let tasks: Vec<_> = (0..20_000u32).map(|n| pool.submit((n,), |n: u32| n).unwrap()).collect();
    assert!(tasks.into_iter().enumerate().all(|(n, task)| task.join().unwrap() == n as u32));
    drop((0..20_000u32).map(|n| pool.submit((n,), |n: u32| n).unwrap()).collect::<Vec<_>>());
    drop(pool);
}
