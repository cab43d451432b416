//! [`Value`] and [`Atomic`].

use crate::helpers::*;
use bytemuck::{CheckedBitPattern, NoUninit};
use multiproc::{Atomic, Event, LockError, Process, Value};
use std::fmt::Debug;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;
use std::{mem, thread};

#[derive(Clone, Copy, Debug, PartialEq, NoUninit, CheckedBitPattern)]
#[repr(u8)]
enum Light {
    Red,
    Green,
}

#[derive(Clone, Copy, Debug, PartialEq, NoUninit, CheckedBitPattern)]
#[repr(C)]
struct State {
    counts: [u64; 24],
    letter: char,
    on: bool,
    light: Light,
    rest: [u8; 2],
}

#[test]
fn values_of_all_plain_types() {
    let _watch = watch();
    fn through<T: NoUninit + CheckedBitPattern + PartialEq + Debug>(first: T, second: T) {
        let value = Value::new(first).unwrap();
        assert_eq!(value.get().unwrap(), first);
        value.set(second).unwrap();
        assert_eq!(value.get().unwrap(), second);
        assert_eq!(*value.lock().unwrap(), second);
        let child = Process::spawn((value.clone(),), |v: Value<T>| v.update(|_| ()).unwrap()).unwrap();
        child.join().unwrap();
        assert_eq!(value.get().unwrap(), second);
        assert!(format!("{value:?}").contains(&format!("{second:?}")));
    }
    through(false, true);
    through('a', '\u{10ffff}');
    through(Light::Red, Light::Green);
    through((), ());
    through([1u8; 3], [2; 3]);
    through(1.5f32, -0.0);
    through(1u128, u128::MAX);
    through([7u64; 64], [8; 64]);
    assert_eq!(size_of::<State>(), 200);
    let state = State { counts: [1; 24], letter: 'x', on: true, light: Light::Green, rest: [0; 2] };
    through(state, State { on: false, letter: 'ß', ..state });
}

#[test]
fn no_reader_sees_a_torn_value() {
    let _watch = watch();
    let _crowd = crowd();
    let (value, stop) = (Value::new([0u64; 25]).unwrap(), Event::new().unwrap());
    let writer = Process::spawn((value.clone(), stop.clone()), |value: Value<[u64; 25]>, stop: Event| {
        let mut n = 0;
        while !stop.is_set() {
            n += 1;
            value.set([n; 25]).unwrap();
        }
        n
    });
    let read = |value: Value<[u64; 25]>, stop: Event| {
        let (mut reads, mut torn, mut last) = (0u64, 0u64, 0);
        while !stop.is_set() {
            let seen = value.get().unwrap();
            torn += u64::from(seen.iter().any(|w| *w != seen[0]) || seen[0] < last);
            last = seen[0];
            reads += 1;
        }
        (reads, torn)
    };
    let reader = Process::spawn((value.clone(), stop.clone()), read).unwrap();
    let here = thread::scope(|s| {
        let here = s.spawn(|| read(value.clone(), stop.clone()));
        thread::sleep(Duration::from_millis(500));
        stop.set().unwrap();
        here.join().unwrap()
    });
    let there = reader.join().unwrap();
    let written = writer.unwrap().join().unwrap();
    assert!(written > 100 && here.0 > 100 && there.0 > 100, "{written} {here:?} {there:?}");
    assert_eq!((here.1, there.1), (0, 0));
    assert_eq!(value.get().unwrap(), [written; 25]);
}

#[test]
fn updates_of_processes_and_threads_all_count() {
    let _watch = watch();
    let value = Value::new((0u64, 0u64).into_array()).unwrap();
    let work = |value: Value<[u64; 2]>| {
        thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| (0..3_000).for_each(|_| value.update(|[a, b]| (*a += 1, *b += 2)).map(drop).unwrap()));
            }
        });
    };
    let workers: Vec<_> = (0..2).map(|_| Process::spawn((value.clone(),), work).unwrap()).collect();
    work(value.clone());
    workers.into_iter().for_each(|w| w.join().unwrap());
    assert_eq!(value.get().unwrap(), [18_000, 36_000]);
}

trait IntoArray {
    fn into_array(self) -> [u64; 2];
}
impl IntoArray for (u64, u64) {
    fn into_array(self) -> [u64; 2] {
        [self.0, self.1]
    }
}

#[test]
fn a_value_guard_publishes_when_dropped_and_not_otherwise() {
    let _watch = watch();
    let value = Value::new(1u32).unwrap();
    let mut guard = value.lock().unwrap();
    *guard = 2;
    assert_eq!(value.get().unwrap(), 1, "a private copy");
    assert!(matches!(value.lock(), Err(LockError::WouldDeadlock)));
    assert!(matches!(value.set(9), Err(LockError::WouldDeadlock)));
    drop(guard);
    assert_eq!(value.get().unwrap(), 2);
    let mut guard = value.lock().unwrap();
    *guard = 3;
    guard.discard();
    assert_eq!(value.get().unwrap(), 2);
    thread::scope(|s| {
        s.spawn(|| {
            let mut guard = value.lock().unwrap();
            *guard = 4;
            mem::forget(guard);
            thread::scope(|s| {
                s.spawn(|| assert!(matches!(value.lock_timeout(Duration::from_millis(10)), Err(LockError::TimedOut))));
            });
        });
    });
    assert_eq!(*value.lock().unwrap(), 2, "the death of that thread is nobody's concern");
    killed_with(value.clone(), |value| {
        let mut guard = value.lock().unwrap();
        *guard = 5;
        die();
    });
    assert_eq!(*value.lock().unwrap(), 2);
    value.set(6).unwrap();
    assert_eq!(value.get().unwrap(), 6);
}

#[test]
fn atomics_of_all_types_add_up() {
    let _watch = watch();
    macro_rules! each {
        ($($T:ident)*) => { $(
            let atomic = Atomic::<$T>::new(5).unwrap();
            let child = Process::spawn((atomic.clone(),), |a: Atomic<$T>| { (0..50).for_each(|_| { a.add(1); }); a.get() });
            (0..50).for_each(|_| { atomic.fetch_add(1, Relaxed); });
            assert!(child.unwrap().join().unwrap() >= 55);
            assert_eq!(atomic.get(), 105);
            atomic.set($T::MAX);
            assert_eq!(atomic.add(1), $T::MAX);
            assert_eq!(atomic.load(SeqCst), $T::MIN);
            assert_eq!(format!("{atomic:?}"), format!("Atomic({})", $T::MIN));
        )* };
    }
    each!(u8 u16 u32 u64 usize i8 i16 i32 i64 isize);
}
