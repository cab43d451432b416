//! `_TestSharedCTypes`: structs and arrays of plain data.

use crate::stage::watched;
use multiproc::bytemuck::{CheckedBitPattern, NoUninit, Pod, Zeroable};
use multiproc::{Array, Process, Value};

#[derive(Clone, Copy, Debug, PartialEq, NoUninit, CheckedBitPattern)]
#[repr(C)]
struct Foo {
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

const FOO: Foo = Foo { x: 3, known: false, pad: [0; 3], y: 2.0 };
const POINTS: [Point; 3] = [Point { x: 0.0, y: 0.5 }, Point { x: 1.0, y: -1.0 }, Point { x: 2.0, y: 4.0 }];

fn double(number: Value<f64>, foo: Value<Foo>, points: Array<Point>, text: Array<u8>) {
    number.set(number.get().unwrap() * 2.0).unwrap();
    let now = foo.get().unwrap();
    foo.set(Foo { x: now.x * 2, known: true, y: now.y * 2.0, ..now }).unwrap();
    for i in 0..points.len() {
        let Point { x, y } = points.get(i).unwrap();
        points.set(i, Point { x: x * 2.0, y: y * 2.0 }).unwrap();
    }
    let twice = text.to_vec().unwrap().to_ascii_uppercase();
    text.lock().unwrap().copy_from_slice(&twice);
}

fn double_locked(number: Value<f64>, foo: Value<Foo>, points: Array<Point>, text: Array<u8>) {
    number.update(|n| *n *= 2.0).unwrap();
    let mut guard = foo.lock().unwrap();
    guard.x *= 2;
    guard.known = true;
    guard.y *= 2.0;
    drop(guard);
    for point in &mut *points.lock().unwrap() {
        *point = Point { x: point.x * 2.0, y: point.y * 2.0 };
    }
    text.lock().unwrap().make_ascii_uppercase();
}

fn check(f: fn(Value<f64>, Value<Foo>, Array<Point>, Array<u8>)) {
    let number = Value::new(1.0 / 3.0).unwrap();
    let foo = Value::new(FOO).unwrap();
    let points = Array::from_slice(&POINTS).unwrap();
    let text = Array::from_slice(b"hello").unwrap();
    Process::spawn((number.clone(), foo.clone(), points.clone(), text.clone()), f).unwrap().join().unwrap();
    assert_eq!(number.get().unwrap(), 2.0 / 3.0);
    assert_eq!(foo.get().unwrap(), Foo { x: 6, known: true, pad: [0; 3], y: 4.0 });
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
    let foo = Value::new(Foo { x: 0, ..FOO }).unwrap();
    let all: Vec<_> = (0..3)
        .map(|_| {
            Process::spawn((foo.clone(),), |foo: Value<Foo>| (0..300).for_each(|_| foo.update(|foo| foo.x += 1).unwrap()))
                .unwrap()
        })
        .collect();
    all.into_iter().for_each(|p| p.join().unwrap());
    assert_eq!(foo.get().unwrap(), Foo { x: 900, ..FOO });
}

#[test]
fn copy() {
    let _watched = watched();
    let foo = Value::new(FOO).unwrap();
    let same = foo.clone();
    let copy = Value::new(foo.get().unwrap()).unwrap();
    foo.set(Foo { x: 0, y: 0.0, ..FOO }).unwrap();
    assert_eq!(same.get().unwrap().x, 0, "a handle is no copy");
    assert_eq!(copy.get().unwrap(), FOO);
    let points = Array::from_slice(&POINTS).unwrap();
    let copy = Array::new(points.to_vec().unwrap()).unwrap();
    points.set(0, Point { x: 9.0, y: 9.0 }).unwrap();
    assert_eq!(copy.to_vec().unwrap(), POINTS);
}
