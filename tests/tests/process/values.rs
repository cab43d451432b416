//! Arguments and results.

use multiproc::{Process, ProcessError, Run};
use multiproc_tests::watch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[test]
fn functions_of_0_to_12_arguments() {
    let _watched = watch(60);
    macro_rules! try_it {
        ($($n:literal $name:ident),*) => {
            let p = Process::spawn(($($n,)*), |$($name: u64),*| -> u64 { let all: &[u64] = &[$($name),*]; all.iter().sum() }).unwrap();
            let expected: &[u64] = &[$($n),*];
            assert_eq!(p.join().unwrap(), expected.iter().sum::<u64>());
        };
    }
    try_it!();
    try_it!(1 a);
    try_it!(1 a, 2 b);
    try_it!(1 a, 2 b, 3 c);
    try_it!(1 a, 2 b, 3 c, 4 d);
    try_it!(1 a, 2 b, 3 c, 4 d, 5 e);
    try_it!(1 a, 2 b, 3 c, 4 d, 5 e, 6 f);
    try_it!(1 a, 2 b, 3 c, 4 d, 5 e, 6 f, 7 g);
    try_it!(1 a, 2 b, 3 c, 4 d, 5 e, 6 f, 7 g, 8 h);
    try_it!(1 a, 2 b, 3 c, 4 d, 5 e, 6 f, 7 g, 8 h, 9 i);
    try_it!(1 a, 2 b, 3 c, 4 d, 5 e, 6 f, 7 g, 8 h, 9 i, 10 j);
    try_it!(1 a, 2 b, 3 c, 4 d, 5 e, 6 f, 7 g, 8 h, 9 i, 10 j, 11 k);
    try_it!(1 a, 2 b, 3 c, 4 d, 5 e, 6 f, 7 g, 8 h, 9 i, 10 j, 11 k, 12 l);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Dot,
    Circle { radius: f64, name: Option<String> },
    Group(Vec<Shape>, BTreeMap<String, (i8, char)>),
}

fn some_shape() -> Shape {
    let circle = Shape::Circle { radius: 1.5, name: Some("größer".into()) };
    Shape::Group(vec![Shape::Dot, circle, Shape::Circle { radius: f64::MAX, name: None }], [("x".into(), (-1, 'ß'))].into())
}

#[test]
fn arguments_of_different_types_arrive() {
    let _watched = watch(60);
    let args = (
        (),
        true,
        'x',
        -5i8,
        u128::MAX,
        0.5f32,
        String::from("text"),
        Some(some_shape()),
        vec![(1u8, "a".to_owned())],
        [1u16; 7],
    );
    type A = (bool, char, i8, u128, f32, String, Option<Shape>, Vec<(u8, String)>, [u16; 7]);
    #[expect(clippy::too_many_arguments, reason = "that is the point")]
    fn give_back(
        _: (),
        a: bool,
        b: char,
        c: i8,
        d: u128,
        e: f32,
        f: String,
        g: Option<Shape>,
        h: Vec<(u8, String)>,
        i: [u16; 7],
    ) -> A {
        (a, b, c, d, e, f, g, h, i)
    }
    let expected = (args.1, args.2, args.3, args.4, args.5, args.6.clone(), args.7.clone(), args.8.clone(), args.9);
    assert_eq!(Process::spawn(args, give_back).unwrap().join().unwrap(), expected);
}

fn generic<T: std::ops::Add<Output = T> + Copy>(x: T) -> T {
    x + x
}

fn of_a_trait(x: impl ToString + Serialize + for<'a> Deserialize<'a> + 'static) -> String {
    x.to_string()
}

#[test]
fn generics_methods_and_chosen_functions() {
    let _watched = watch(60);
    assert_eq!(Process::spawn((21u64,), generic).unwrap().join().unwrap(), 42);
    assert_eq!(Process::spawn((1.25f64,), generic::<f64>).unwrap().join().unwrap(), 2.5);
    assert_eq!(Process::spawn((7u8,), of_a_trait).unwrap().join().unwrap(), "7");
    assert_eq!(Process::spawn(("abc".to_owned(),), |s: String| s.len()).unwrap().join().unwrap(), 3);
    assert_eq!(Process::spawn((Resize { width: 80 },), Resize::run).unwrap().join().unwrap(), 40);
    let table: [fn(u64) -> u64; 3] = [|x| x + 1, |x| x * x, generic];
    for (f, expected) in table.into_iter().zip([6, 25, 10]) {
        assert_eq!(Process::spawn((5,), f).unwrap().join().unwrap(), expected);
    }
}

#[derive(Serialize, Deserialize)]
struct Resize {
    width: u32,
}

impl Run for Resize {
    type Output = u32;
    fn run(mut self) -> u32 {
        self.width /= 2;
        self.width
    }
}

#[derive(Serialize, Deserialize)]
struct Twice<T>(T);

impl<T: Clone + Serialize + for<'a> Deserialize<'a> + 'static> Run for Twice<T> {
    type Output = (T, T);
    fn run(self) -> (T, T) {
        (self.0.clone(), self.0)
    }
}

#[test]
fn structs_with_state() {
    let _watched = watch(60);
    assert_eq!(Process::start(Resize { width: 80 }).unwrap().join().unwrap(), 40);
    assert_eq!(Process::start(Twice("a".to_owned())).unwrap().join().unwrap(), ("a".into(), "a".into()));
    let p = Process::builder().name("resizer").start(Resize { width: 2 }).unwrap();
    assert_eq!(p.name(), "resizer");
    assert_eq!(p.join().unwrap(), 1);
}

#[test]
fn values_of_any_size() {
    let _watched = watch(120);
    for size in [0, 1, 63, 64, 65, 4095, 4096, 70_000, 1 << 20, 5 << 20] {
        let sent: Vec<u64> = (0..size).collect();
        let back = Process::spawn((sent.clone(),), |v: Vec<u64>| v).unwrap().join().unwrap();
        assert!(back == sent, "{size} words");
    }
}

#[test]
fn results_and_errors_are_values() {
    let _watched = watch(60);
    fn parse(text: String) -> Result<u32, String> {
        text.parse().map_err(|e| format!("{e}"))
    }
    assert_eq!(Process::spawn(("17".to_owned(),), parse).unwrap().join().unwrap(), Ok(17));
    assert!(Process::spawn(("x".to_owned(),), parse).unwrap().join().unwrap().is_err());
}

/// A type that can be encoded, or decoded, only sometimes.
struct Moody<const ENCODES: bool>;

impl<const ENCODES: bool> Serialize for Moody<ENCODES> {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if ENCODES { s.serialize_u8(1) } else { Err(serde::ser::Error::custom("in no mood to travel")) }
    }
}

impl<'a, const ENCODES: bool> Deserialize<'a> for Moody<ENCODES> {
    fn deserialize<D: serde::Deserializer<'a>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("in no mood to arrive"))
    }
}

#[test]
fn what_cannot_travel_is_an_error() {
    let _watched = watch(60);
    let e = Process::spawn((Moody::<false>,), |_: Moody<false>| ()).unwrap_err();
    assert!(e.is_codec() && e.to_string().contains("in no mood to travel"), "{e}");
    let e = Process::spawn((Moody::<true>,), |_: Moody<true>| ()).unwrap().join().unwrap_err();
    assert!(matches!(&e, ProcessError::NotStarted { reason, .. } if reason.contains("in no mood to arrive")), "{e:?}");
    let e = Process::spawn((), || Moody::<false>).unwrap().join().err().unwrap();
    assert!(matches!(&e, ProcessError::Unsendable { reason, .. } if reason.contains("in no mood to travel")), "{e:?}");
    let e = Process::spawn((), || Moody::<true>).unwrap().join().err().unwrap();
    assert!(matches!(&e, ProcessError::Undecodable { .. }), "{e:?}");
}
