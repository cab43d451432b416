//! Bytes that claim to be messages: each codec decodes them into values of many shapes, with handles among them, and what comes out is encoded again.

use crate::Postcard;
use crate::input::Input;
use crate::things::Parcel;
use multiproc_channel::{Bincode, Buffer, Codec, Plain, PlainVec, Raw, message};
use multiproc_shm::{Arena, Options, scope};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// A shape with everything that a decoder has to find its way through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Deep {
    name: String,
    numbers: Vec<u32>,
    table: BTreeMap<String, Vec<Option<i64>>>,
    shape: Shape,
    within: Option<Box<Deep>>,
    sign: char,
    ratio: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    One(u8),
    Two { bytes: [u8; 7], text: String },
    Many(Vec<Shape>),
}

fn arena() -> &'static Arena {
    static ARENA: OnceLock<&Arena> = OnceLock::new();
    ARENA.get_or_init(|| {
        let kinds = [multiproc_sync::KINDS, multiproc_channel::KINDS].concat().leak();
        Arena::create(&Options { size: 32 << 20, limit: Some(24 << 20), build: 1, kinds }).expect("an arena of its own")
    })
}

/// What decodes is encoded, and decodes to the same bytes again.
fn round<T, C: Codec<T>>(bytes: &[u8]) {
    let Ok(value) = C::decode(bytes) else { return };
    let (mut once, mut twice) = (Buffer::new(), Buffer::new());
    C::encode(&value, &mut once).expect("what was decoded encodes");
    let again = C::decode(once.as_slice()).expect("what was encoded decodes");
    C::encode(&again, &mut twice).expect("what was decoded encodes");
    assert_eq!(once.as_slice(), twice.as_slice(), "two encodings of one value");
}

/// The target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let what = input.byte();
    let bytes = input.rest();
    match what % 12 {
        0 => round::<Deep, Bincode>(bytes),
        1 => round::<Deep, Postcard>(bytes),
        2 => round::<Vec<String>, Bincode>(bytes),
        3 => round::<(u8, Vec<(String, u16)>, Option<bool>), Bincode>(bytes),
        4 => round::<Vec<Vec<u64>>, Postcard>(bytes),
        5 => round::<[u64; 5], Plain>(bytes),
        6 => round::<PlainVec<u32>, Bincode>(bytes),
        7 => round::<PlainVec<u16>, Postcard>(bytes),
        8 => round::<Vec<u8>, Raw>(bytes),
        9 => round::<Vec<[u8; 3]>, Bincode>(bytes),
        // Handles: their positions lie in lists that are empty, or have two objects of other kinds.
        10 => drop(message::decode::<Vec<Parcel>, Bincode>(arena(), bytes, &[])),
        _ => with_references(bytes),
    }
}

fn with_references(bytes: &[u8]) {
    let arena = arena();
    let lock = multiproc_sync::Lock::new_in(arena).expect("a lock");
    let queue = multiproc_channel::Queue::<Vec<u8>, Raw>::bounded_in(arena, 2).expect("a queue");
    let mut buffer = Buffer::new();
    let (_, outgoing) = scope::encoding(arena, || {
        <Bincode as Codec<_>>::encode(&(lock.clone(), queue.clone()), &mut buffer).expect("handles of this arena");
    });
    let held = outgoing.references().to_vec();
    drop(message::decode::<Vec<Parcel>, Bincode>(arena, bytes, &held));
    drop(message::decode::<(multiproc_sync::Lock, Parcel), Postcard>(arena, bytes, &held));
    drop((held, outgoing, lock, queue));
    let _ = arena.collect();
}
