//! `_TestSharedCTypes`: structs and arrays of plain data.

use crate::stage::watched;
use multiproc::bytemuck::{CheckedBitPattern, NoUninit, Pod, Zeroable};
use multiproc::{Array, Process, Value};

#[derive(Clone, Copy, Debug, PartialEq, NoUninit, CheckedBitPattern)]
#[repr(C)]
struct Reading {
    x: i32,
    known: bool,
    pad: [u8; 3],
    y: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Point {
    x: f64,
    y: f64,
}

const READING: Reading = Reading { x: 3, known: false, pad: [0; 3], y: 2.0 };
const POINTS: [Point; 3] = [Point { x: 0.0, y: 0.5 }, Point { x: 1.0, y: -1.0 }, Point { x: 2.0, y: 4.0 }];

fn double(number: Value<f64>, reading: Value<Reading>, points: Array<Point>, text: Array<u8>) {
    number.set(number.get().unwrap() * 2.0).unwrap();
    let now = reading.get().unwrap();
    reading.set(Reading { x: now.x * 2, known: true, y: now.y * 2.0, ..now }).unwrap();
    for i in 0..points.len() {
        let Point { x, y } = points.get(i).unwrap();
        points.set(i, Point { x: x * 2.0, y: y * 2.0 }).unwrap();
    }
    let twice = text.to_vec().unwrap().to_ascii_uppercase();
    text.lock().unwrap().copy_from_slice(&twice);
}

fn double_locked(number: Value<f64>, reading: Value<Reading>, points: Array<Point>, text: Array<u8>) {
    number.update(|n| *n *= 2.0).unwrap();
    let mut guard = reading.lock().unwrap();
    guard.x *= 2;
    guard.known = true;
    guard.y *= 2.0;
    drop(guard);
    for point in &mut *points.lock().unwrap() {
        *point = Point { x: point.x * 2.0, y: point.y * 2.0 };
    }
    text.lock().unwrap().make_ascii_uppercase();
}

fn check(f: fn(Value<f64>, Value<Reading>, Array<Point>, Array<u8>)) {
    let number = Value::new(1.0 / 3.0).unwrap();
    let reading = Value::new(READING).unwrap();
    let points = Array::from_slice(&POINTS).unwrap();
    let text = Array::from_slice(b"hello").unwrap();
    Process::spawn((number.clone(), reading.clone(), points.clone(), text.clone()), f).unwrap().join().unwrap();
    assert_eq!(number.get().unwrap(), 2.0 / 3.0);
    assert_eq!(reading.get().unwrap(), Reading { x: 6, known: true, pad: [0; 3], y: 4.0 });
    assert_eq!(points.to_vec().unwrap(), POINTS.map(|p| Point { x: p.x * 2.0, y: p.y * 2.0 }));
    assert_eq!(text.to_vec().unwrap(), b"HELLO");
}

#[test]
fn structs_and_arrays() {
    let _watched = watched();
    check(double);
}

#[test]
fn synchronize() {
    let _watched = watched();
    check(double_locked);
    // The lock is for a whole change: none is lost.
    let reading = Value::new(Reading { x: 0, ..READING }).unwrap();
    let all: Vec<_> = (0..3)
        .map(|_| {
            Process::spawn((reading.clone(),), |reading: Value<Reading>| {
                (0..300).for_each(|_| reading.update(|reading| reading.x += 1).unwrap())
            })
            .unwrap()
        })
        .collect();
    all.into_iter().for_each(|p| p.join().unwrap());
    assert_eq!(reading.get().unwrap(), Reading { x: 900, ..READING });
}

#[test]
fn copy() {
    let _watched = watched();
    let reading = Value::new(READING).unwrap();
    let same = reading.clone();
    let copy = Value::new(reading.get().unwrap()).unwrap();
    reading.set(Reading { x: 0, y: 0.0, ..READING }).unwrap();
    assert_eq!(same.get().unwrap().x, 0, "a handle is no copy");
    assert_eq!(copy.get().unwrap(), READING);
    let points = Array::from_slice(&POINTS).unwrap();
    let copy = Array::new(points.to_vec().unwrap()).unwrap();
    points.set(0, Point { x: 9.0, y: 9.0 }).unwrap();
    assert_eq!(copy.to_vec().unwrap(), POINTS);
}
