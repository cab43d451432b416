//! Many messages at once: order, what a refusal hands back, and batches between processes.

mod common_queue;

use common_queue::{Form, LIMIT, Msg, alone, eventually, sleeps_on};
use multiproc::{Buffer, Codec, CodecError, GetError, Process, Queue, Raw, Receiver, Sender, testing};
use std::time::Duration;

fn values<T, E: std::fmt::Debug>(got: Vec<Result<T, E>>) -> Vec<T> {
    got.into_iter().map(Result::unwrap).collect()
}

#[test]
fn batches_keep_the_order_whatever_the_form() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    testing::collect().unwrap();
    let before = testing::audit().unwrap();
    {
        let q = Queue::<Msg>::bounded(500).unwrap();
        let handle = Queue::bounded(7).unwrap();
        let forms = [Form::Inline, Form::Inline, Form::Block, Form::Handle, Form::BlockAndHandle, Form::Inline];
        let message = |id: u64| Msg::new(id, forms[id as usize % forms.len()], &handle);
        assert_eq!(q.put_many((0..400).map(message)).unwrap(), 400);
        assert_eq!(q.len(), 400);
        let mut ids = Vec::new();
        for max in [1, 2, 3, 100, 1000, 5] {
            ids.extend(values(q.try_get_many(max).unwrap_or_default()).iter().map(|m| m.check().unwrap()));
        }
        assert!(ids.into_iter().eq(0..400));
        assert!(matches!(q.try_get_many(1), Err(GetError::Empty)));
        assert!(q.get_many(0).unwrap().is_empty());
        assert_eq!(q.put_many(Vec::new()).unwrap(), 0);
        // Full of bytes: what does not fit inline any more moves into blocks.
        let q = Queue::<Vec<u8>, Raw>::with_codec(200).unwrap();
        assert_eq!(q.put_many((0..200).map(|n| vec![n as u8; 3000])).unwrap(), 200);
        assert!(values(q.get_many(1000).unwrap()).into_iter().eq((0..200).map(|n| vec![n as u8; 3000])));
        assert_eq!(q.take_losses(), 0);
    }
    testing::collect().unwrap();
    assert_eq!(testing::audit().unwrap(), before);
}

#[test]
fn a_refusal_has_the_count_and_the_rest() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let q = Queue::<u32>::bounded(10).unwrap();
    let e = q.try_put_many(0..1000).unwrap_err();
    assert!(e.error().is_full());
    assert_eq!(e.put(), 10);
    assert!(e.into_rest().eq(10..1000));
    let e = q.put_many_timeout(0..5, Duration::from_millis(5)).unwrap_err();
    assert!(e.error().is_timeout());
    assert!(e.into_rest().eq(0..5));
    assert!(values(q.get_many(4).unwrap()).into_iter().eq(0..4));
    q.close().unwrap();
    let e = q.put_many(0..).unwrap_err();
    assert_eq!((e.error().is_closed(), e.put()), (true, 0));
    assert_eq!(e.to_string(), "the queue is closed, after 0 had been put");
    assert!(e.into_rest().take(300).eq(0..300));
    assert!(values(q.get_many(100).unwrap()).into_iter().eq(4..10));
    assert!(q.get_many(1).unwrap_err().is_end());
}

#[test]
fn one_that_does_not_encode_or_decode_is_alone_with_it() {
    #[derive(Debug)]
    struct Picky;
    impl Codec<u8> for Picky {
        fn encode(value: &u8, into: &mut Buffer) -> Result<(), CodecError> {
            if *value == 200 { Err(CodecError::encode("two hundred")) } else { into.append(&[*value]) }
        }
        fn decode(bytes: &[u8]) -> Result<u8, CodecError> {
            if bytes == [5] { Err(CodecError::decode("five")) } else { Ok(bytes[0]) }
        }
    }
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let q = Queue::<u8, Picky>::with_codec(100).unwrap();
    let e = q.put_many([1, 2, 200, 3]).unwrap_err();
    assert_eq!((e.error().is_codec(), e.put()), (true, 2));
    assert!(e.into_rest().eq([200, 3]));
    q.put_many([5, 6]).unwrap();
    let got = q.get_many(10).unwrap();
    assert!(matches!(got[..], [Ok(1), Ok(2), Err(GetError::Decode(_)), Ok(6)]), "{got:?}");
}

#[test]
fn a_batch_waits_for_room_and_wakes_who_waits_for_it() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let q = Queue::<u64>::bounded(16).unwrap();
    let getter = Process::spawn((q.receiver().unwrap(),), |q: Receiver<u64>| {
        let mut all = Vec::new();
        while let Ok(got) = q.get_many(1000) {
            all.extend(values(got));
        }
        all
    })
    .unwrap();
    assert!(eventually(LIMIT, || sleeps_on(getter.pid(), q.id())));
    let putter = Process::spawn((q.sender().unwrap(),), |q: Sender<u64>| q.put_many(0..10_000).unwrap()).unwrap();
    assert_eq!(putter.join().unwrap(), 10_000);
    q.close().unwrap();
    assert!(getter.join().unwrap().into_iter().eq(0..10_000));
}

#[test]
fn what_came_back_from_a_lease_comes_first_and_alone() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let q = Queue::<u32>::bounded(10).unwrap();
    q.put_many(0..4).unwrap();
    drop((q.lease().unwrap(), q.lease().unwrap()));
    assert_eq!(values(q.get_many(10).unwrap()), [0]);
    assert_eq!(values(q.get_many(10).unwrap()), [1]);
    assert_eq!(values(q.get_many(10).unwrap()), [2, 3]);
}
