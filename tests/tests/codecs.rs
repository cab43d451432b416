//! Codecs through queues between processes: what travels, where large messages lie, and what a failure in the middle leaves.

mod common_queue;

use common_queue::alone;
use multiproc::bytemuck::{CheckedBitPattern, NoUninit};
use multiproc::{
    Array, Atomic, Bincode, Buffer, Codec, CodecError, Event, GetError, Lock, OwnedPermit, Plain, PlainVec, Process, Queue, Raw,
    Receiver, Semaphore, Sender, Value, testing,
};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Sends the values to another process and back, in order.
fn round_trip<T: PartialEq + Debug + 'static, C: Codec<T>>(values: &[T]) {
    let (there, back) = (Queue::<T, C>::with_codec(2).unwrap(), Queue::<T, C>::with_codec(2).unwrap());
    let p = Process::spawn((there.receiver().unwrap(), back.sender().unwrap()), |rx: Receiver<T, C>, tx: Sender<T, C>| {
        for m in &rx {
            tx.put(m.unwrap()).unwrap();
        }
    })
    .unwrap();
    for value in values {
        there.put_ref(value).unwrap();
        assert_eq!(back.get().unwrap(), *value);
    }
    there.close().unwrap();
    p.join().unwrap();
}

#[derive(Clone, Copy, Debug, PartialEq, NoUninit, CheckedBitPattern)]
#[repr(C)]
struct Sample {
    at: u64,
    level: f32,
    valid: bool,
    channel: [u8; 3],
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Series {
    name: String,
    levels: PlainVec<f64>,
}

#[test]
fn values_come_back_from_another_process() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let sample = Sample { at: u64::MAX, level: -0.5, valid: true, channel: *b"xyz" };
    round_trip::<_, Plain>(&[sample; 3]);
    round_trip::<_, Plain>(&[[7u64; 1000]]);
    let levels = |n: usize| PlainVec((0..n).map(|i| i as f64 / 3.0).collect());
    round_trip::<_, Plain>(&[levels(0), levels(3), levels(100_000)]);
    let series = |n| Series { name: "x".repeat(n), levels: levels(n) };
    round_trip::<_, Bincode>(&[series(0), series(100), series(50_000)]);
    #[cfg(feature = "postcard")]
    round_trip::<_, multiproc::Postcard>(&[series(0), series(100), series(50_000)]);
    round_trip::<_, Raw>(&[vec![], vec![1], vec![2; 4096], vec![3; 4097], vec![4; 1 << 20]]);
}

#[cfg(feature = "postcard")]
#[test]
fn handles_travel_through_postcard_too() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let q = Queue::<(u8, Queue<u32>), multiproc::Postcard>::with_codec(2).unwrap();
    let inner = Queue::bounded(9).unwrap();
    let p = Process::spawn((q.clone(),), |q: Queue<(u8, Queue<u32>), multiproc::Postcard>| {
        q.get().unwrap().1.put(5).unwrap();
    })
    .unwrap();
    q.put((1, inner.clone())).unwrap();
    p.join().unwrap();
    assert_eq!(inner.try_get().unwrap(), 5);
}

#[test]
fn borrowed_forms_are_the_same_messages() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let raw = Queue::<Vec<u8>, Raw>::with_codec(4).unwrap();
    raw.put_ref(b"slice".as_slice()).unwrap();
    raw.put_ref(&b"vector".to_vec()).unwrap();
    assert_eq!((raw.get().unwrap(), raw.get().unwrap()), (b"slice".to_vec(), b"vector".to_vec()));
    let text = Queue::<String>::bounded(4).unwrap();
    text.put_ref("str").unwrap();
    text.put_ref(&"String".to_string()).unwrap();
    assert_eq!((text.get().unwrap(), text.get().unwrap()), ("str".to_string(), "String".to_string()));
    let list = Queue::<Vec<(u8, f64)>>::bounded(4).unwrap();
    list.put_ref([(1, 0.5)].as_slice()).unwrap();
    assert_eq!(list.get().unwrap(), [(1, 0.5)]);
    let plain = Queue::<PlainVec<u32>, Plain>::with_codec(4).unwrap();
    plain.put_ref([1, 2, 3].as_slice()).unwrap();
    assert_eq!(*plain.get().unwrap(), [1, 2, 3]);
    // What is no reference to a borrowed form needs no type.
    let number = Queue::<u64>::bounded(4).unwrap();
    number.put_ref(&5).unwrap();
    assert_eq!(number.get().unwrap(), 5);
}

/// Compiles only if the type does not implement the trait: otherwise the name has two meanings.
macro_rules! is_not {
    ($Trait:path: $($T:ty)*) => { $({
        trait Ambiguous<A> {
            fn name() {}
        }
        impl<T: ?Sized> Ambiguous<()> for T {}
        struct Implements;
        impl<T: ?Sized + $Trait> Ambiguous<Implements> for T {}
        <$T as Ambiguous<_>>::name();
    })* };
}

/// Plain data travels without serde, so a handle that were plain data would travel uncounted.
#[test]
fn no_handle_is_plain_data() {
    is_not!(NoUninit: Queue<u8> Sender<u8> Receiver<u8> Lock Event Semaphore OwnedPermit Value<u8> Atomic<u64> Array<u8>);
    is_not!(CheckedBitPattern: Queue<u8> Sender<u8> Receiver<u8> Lock Event Semaphore OwnedPermit Value<u8> Atomic<u64> Array<u8>);
    is_not!(multiproc::bytemuck::AnyBitPattern: Queue<u8> Sender<u8> Receiver<u8> Lock Event Semaphore OwnedPermit Value<u8> Atomic<u64> Array<u8>);
}

/// Whether an address lies in the mapping of the arena.
fn is_in_arena(address: *const u8) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| {
        let (range, rest) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let bound = |hex| usize::from_str_radix(hex, 16).unwrap();
        (bound(from)..bound(to)).contains(&address.addr()) && rest.contains("memfd:multiproc")
    })
}

/// Writes in pieces and notes where the bytes lie; `ONCE` is what it says of its reading.
#[derive(Debug)]
struct Pieces<const ONCE: bool>;

/// What is written in pieces of so many bytes, with a hint of so many, and where it was encoded and decoded.
#[derive(Clone, Debug, Default, PartialEq)]
struct Piecemeal {
    bytes: Vec<u8>,
    hint: usize,
    decoded_in_arena: bool,
    encoded_in_arena: bool,
}

impl<const ONCE: bool> Codec<Piecemeal> for Pieces<ONCE> {
    const READS_ONCE: bool = ONCE;

    fn encode(value: &Piecemeal, into: &mut Buffer) -> Result<(), CodecError> {
        into.reserve(value.hint);
        into.append(&[0])?;
        for piece in value.bytes.chunks(100) {
            into.append(piece)?;
        }
        let lies_there = is_in_arena(into.as_slice().as_ptr());
        into.append(&[u8::from(lies_there)])
    }

    fn decode(bytes: &[u8]) -> Result<Piecemeal, CodecError> {
        let [_, whole @ .., encoded] = bytes else { return Err(CodecError::decode("too short")) };
        assert_ne!(whole.first(), Some(&0xff), "a poor codec");
        let decoded_in_arena = is_in_arena(bytes.as_ptr());
        Ok(Piecemeal { bytes: whole.to_vec(), hint: 0, decoded_in_arena, encoded_in_arena: *encoded == 1 })
    }
}

fn pieces(len: usize, hint: usize) -> Piecemeal {
    Piecemeal { bytes: (0..len).map(|i| (i / 100) as u8 & 0x7f).collect(), hint, ..Piecemeal::default() }
}

fn large_messages_lie_in_the_arena<const ONCE: bool>() {
    testing::collect().unwrap();
    let before = testing::audit().unwrap();
    let q = Queue::<Piecemeal, Pieces<ONCE>>::with_codec(4).unwrap();
    for (len, hint) in [(10, 0), (4090, 0), (5000, 0), (5000, 6000), (1 << 20, 0), (1 << 20, 1 << 20), (3 << 20, 1 << 12)] {
        let m = pieces(len, hint);
        q.put_ref(&m).unwrap();
        let got = if len % 3 == 0 { q.get().unwrap() } else { q.lease().unwrap().ack() };
        assert!(got.bytes == m.bytes, "{len} bytes came back changed");
        let large = len > 4096;
        assert_eq!(got.encoded_in_arena, large, "{len}, {hint}");
        // A lease of a small message copies it into a block.
        assert_eq!(got.decoded_in_arena, ONCE && (large || len % 3 != 0), "{len}, {hint}");
    }
    // A message that was announced large travels so.
    q.put(pieces(10, 1 << 20)).unwrap();
    assert_eq!(q.get().unwrap().bytes.len(), 10);
    drop(q);
    assert_eq!(testing::audit().unwrap(), before);
}

#[test]
fn large_messages_are_written_and_read_where_they_lie() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    large_messages_lie_in_the_arena::<true>();
    large_messages_lie_in_the_arena::<false>();
}

#[test]
fn what_fails_or_panics_half_way_leaves_no_block() {
    /// Fails, panics or ignores the buffer's refusal after having written much.
    #[derive(Debug)]
    struct Poor;
    impl Codec<u32> for Poor {
        fn encode(value: &u32, into: &mut Buffer) -> Result<(), CodecError> {
            for _ in 0..1000 {
                let refused = into.append(&[0xff; 100]).is_err();
                assert!(*value != 1, "a poor codec");
                if refused {
                    return Ok(());
                }
            }
            Err(CodecError::encode("no more"))
        }
        fn decode(_: &[u8]) -> Result<u32, CodecError> {
            Ok(0)
        }
    }
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    testing::collect().unwrap();
    let before = testing::audit().unwrap();
    let q = Queue::<u32, Poor>::with_codec(4).unwrap();
    let e = q.put(0).unwrap_err();
    assert!(e.is_codec() && e.to_string().contains("no more"), "{e}");
    assert!(catch_unwind(AssertUnwindSafe(|| q.put(1))).is_err());
    let limited = Queue::<u32, Poor>::with_max_message(4, 50_000).unwrap();
    // The codec says that all is well, the buffer knows better.
    assert!(limited.put(0).unwrap_err().is_too_large());
    drop(limited);
    let bad = Queue::<Piecemeal, Pieces<true>>::with_codec(4).unwrap();
    let mut m = pieces(1 << 20, 0);
    m.bytes[0] = 0xff;
    bad.put_ref(&m).unwrap();
    bad.put_ref(&pieces(1 << 20, 0)).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| bad.get())).is_err());
    assert_eq!(bad.get().unwrap().bytes.len(), 1 << 20);
    assert!(matches!(bad.try_get(), Err(GetError::Empty)));
    drop((q, bad));
    assert_eq!(testing::audit().unwrap(), before);
}
