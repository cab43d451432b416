//! Queues as their users see them: bounds, order, time, ends, handles inside messages, sizes.
//!
//! One test after the other: some compare what the arena holds before and after.

mod common_queue;

use common_queue::{LIMIT, Watchdog, alone, eventually, sleeps_on};
use multiproc::{
    Bincode, Buffer, Codec, CodecError, GetError, MAX_CAPACITY, Process, Queue, Raw, Receiver, Sender, channel, testing,
};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(30);

#[test]
fn capacities_out_of_range_are_errors() {
    let _one = alone();
    assert!(Queue::<u8>::bounded(0).is_err());
    assert!(Queue::<u8>::bounded(MAX_CAPACITY + 1).is_err());
    assert_eq!(Queue::<u8>::bounded(MAX_CAPACITY).unwrap().capacity(), MAX_CAPACITY);
}

#[test]
fn first_in_first_out_and_the_length_is_exact() {
    let _one = alone();
    let q = Queue::bounded(100).unwrap();
    let mut next = 0;
    for n in 0..1000u64 {
        q.put(n).unwrap();
        if n % 3 > 0 || q.is_full() {
            assert_eq!(q.get().unwrap(), next);
            next += 1;
        }
        assert_eq!(q.len() as u64, n + 1 - next);
        assert_eq!(q.is_empty(), n + 1 == next);
    }
    assert!(q.iter().take(q.len()).map(Result::unwrap).eq(next..1000));
}

#[test]
fn only_the_number_of_items_bounds() {
    let _one = alone();
    let q = Queue::bounded(1_000_000).unwrap();
    for n in 0..1_000_000u32 {
        q.try_put(n as u8).unwrap();
    }
    assert!(q.is_full() && q.try_put(0).unwrap_err().is_full());
    for n in 0..1_000_000u32 {
        assert_eq!(q.try_get().unwrap(), n as u8);
    }
    let q = Queue::<Vec<u8>, Raw>::with_codec(1000).unwrap();
    for round in 0..3 {
        for n in 0..1000 {
            q.try_put(vec![(n + round) as u8; 4000]).unwrap();
        }
        assert!(q.try_put(Vec::new()).unwrap_err().is_full());
        for n in 0..1000 {
            assert_eq!(q.try_get().unwrap(), vec![(n + round) as u8; 4000]);
        }
    }
}

#[test]
fn a_message_above_the_limit_is_handed_back() {
    let _one = alone();
    let q = Queue::<String>::with_max_message(4, 100).unwrap();
    let e = q.put("x".repeat(200)).unwrap_err();
    assert!(e.is_too_large());
    assert_eq!(e.to_string(), "the message is larger than the 100 bytes that the queue takes");
    assert_eq!(e.into_inner().len(), 200);
    q.put("x".repeat(92)).unwrap();
    assert_eq!(q.get().unwrap().len(), 92);
}

/// Decodes even numbers only, and encodes none above a thousand.
#[derive(Debug)]
struct Picky;

impl Codec<u32> for Picky {
    fn encode(value: &u32, into: &mut Buffer) -> Result<(), CodecError> {
        into.append(&value.to_le_bytes())?;
        if *value > 1000 { Err(CodecError::encode("too many")) } else { Ok(()) }
    }

    fn decode(bytes: &[u8]) -> Result<u32, CodecError> {
        let n = u32::from_le_bytes(bytes.try_into().map_err(CodecError::decode)?);
        if n % 2 == 0 { Ok(n) } else { Err(CodecError::decode("odd")) }
    }
}

#[test]
fn what_does_not_decode_is_that_messages_error() {
    let _one = alone();
    let q = Queue::<u32, Picky>::with_codec(10).unwrap();
    for n in 1..=8 {
        q.put(n).unwrap();
    }
    assert!(matches!(q.get(), Err(GetError::Decode(_))));
    assert_eq!(q.get().unwrap(), 2);
    assert!(matches!(q.lease(), Err(GetError::Decode(_))));
    assert_eq!(q.lease().unwrap().ack(), 4);
    assert_eq!((q.len(), q.leased()), (4, 0));
    q.close().unwrap();
    let rest: Vec<_> = q.iter().map(|m| m.ok()).collect();
    assert_eq!(rest, [None, Some(6), None, Some(8)]);
    assert_eq!(q.take_losses(), 0);
    let q = Queue::<u32, Picky>::with_codec(10).unwrap();
    let e = q.put(1001).unwrap_err();
    assert!(e.is_codec() && e.into_inner() == 1001 && q.is_empty());
}

#[test]
fn waiting_ends_in_time_and_not_before() {
    let _one = alone();
    let q = Queue::bounded(1).unwrap();
    assert!(q.try_get().unwrap_err().is_empty());
    assert!(q.try_lease().unwrap_err().is_empty());
    let not_early = |f: &dyn Fn()| {
        let start = Instant::now();
        f();
        assert!(start.elapsed() >= SOON);
    };
    not_early(&|| assert!(q.get_timeout(SOON).unwrap_err().is_timeout()));
    not_early(&|| assert!(q.lease_timeout(SOON).unwrap_err().is_timeout()));
    not_early(&|| assert!(q.get_deadline(Instant::now() + SOON).unwrap_err().is_timeout()));
    q.put(1).unwrap();
    let e = q.try_put(2).unwrap_err();
    assert!(e.is_full() && !e.is_timeout() && e.into_inner() == 2);
    not_early(&|| assert!(q.put_timeout(3, SOON).unwrap_err().is_timeout()));
    not_early(&|| assert!(q.put_deadline(4, Instant::now() + SOON).unwrap_err().is_timeout()));
    let past = Instant::now() - SOON;
    assert!(q.put_deadline(5, past).unwrap_err().is_timeout());
    assert_eq!(q.get_deadline(past).unwrap(), 1);
    assert!(q.get_deadline(past).unwrap_err().is_timeout());
    assert!(q.get_timeout(Duration::ZERO).unwrap_err().is_timeout());
    // Behind another waiter as well, who sleeps with the getters' lock.
    std::thread::scope(|s| {
        let first = s.spawn(|| q.get());
        let me = std::process::id();
        assert!(eventually(LIMIT, || testing::waits_for(me).unwrap() == Some(q.id())));
        not_early(&|| assert!(q.get_timeout(SOON).unwrap_err().is_timeout()));
        assert!(q.try_get().unwrap_err().is_empty());
        q.put_timeout(6, Duration::MAX).unwrap();
        assert_eq!(first.join().unwrap().unwrap(), 6);
    });
}

#[test]
fn a_closed_queue_is_drained() {
    let _one = alone();
    let q = Queue::bounded(3).unwrap();
    for n in 0..3 {
        q.put(n).unwrap();
    }
    std::thread::scope(|s| {
        let putter = s.spawn(|| q.put(9).unwrap_err());
        let me = std::process::id();
        assert!(eventually(LIMIT, || testing::waits_for(me).unwrap() == Some(q.id())));
        q.close().unwrap();
        let e = putter.join().unwrap();
        assert!(e.is_closed() && e.into_inner() == 9);
    });
    assert!(q.is_closed() && q.put(9).unwrap_err().is_closed());
    q.close().unwrap();
    let lease = q.lease().unwrap();
    assert!(q.iter().map(Result::unwrap).eq([1, 2]));
    assert!(matches!(q.get(), Err(GetError::Closed)));
    drop(lease);
    assert_eq!(q.lease().unwrap().ack(), 0);
    assert!(q.try_get().unwrap_err().is_end());

    let q = Queue::<u8>::bounded(1).unwrap();
    let p = Process::spawn((q.clone(),), |q: Queue<u8>| q.get().unwrap_err().is_end()).unwrap();
    assert!(eventually(LIMIT, || sleeps_on(p.pid(), q.id())));
    q.close().unwrap();
    assert!(p.join().unwrap());
}

fn ends<T: std::fmt::Debug + Serialize + serde::de::DeserializeOwned>(rx: &Receiver<T>) -> bool {
    match rx.get_timeout(LIMIT) {
        Err(GetError::Disconnected) => true,
        other => panic!("{other:?} instead of the end"),
    }
}

#[test]
fn a_side_that_is_gone_ends_the_other() {
    let _one = alone();
    let (tx, rx) = channel::<u32>(2).unwrap();
    let second = tx.clone();
    tx.put(1).unwrap();
    drop((tx, second));
    assert_eq!(rx.get().unwrap(), 1);
    assert!(ends(&rx));
    let (tx, rx) = channel::<u32>(2).unwrap();
    drop(rx);
    let e = tx.put(7).unwrap_err();
    assert!(e.is_disconnected() && e.into_inner() == 7);
}

#[test]
fn a_dead_side_ends_the_other() {
    let _one = alone();
    let (tx, rx) = channel::<u32>(2).unwrap();
    let p = Process::spawn((tx,), |tx: Sender<u32>| -> () {
        tx.put(1).unwrap();
        std::mem::forget(tx);
        std::process::abort();
    })
    .unwrap();
    assert_eq!(rx.get().unwrap(), 1);
    assert!(ends(&rx));
    assert!(p.join().is_err());

    let (tx, rx) = channel::<u32>(2).unwrap();
    let p = Process::spawn((rx,), |rx: Receiver<u32>| -> () {
        rx.get().unwrap();
        std::process::abort();
    })
    .unwrap();
    let gone = (0..1000).map_while(|n| tx.put_timeout(n, LIMIT).err()).next();
    let mut n = 0;
    let e = gone.unwrap_or_else(|| {
        loop {
            n += 1;
            if let Err(e) = tx.put_timeout(n, LIMIT) {
                break e;
            }
        }
    });
    assert!(e.is_disconnected(), "{e}");
    assert!(p.join().is_err());
}

#[test]
fn a_worker_that_drops_its_sender_is_no_sender_any_more() {
    let _one = alone();
    let (tx, rx) = channel::<u32>(2).unwrap();
    let go = Queue::<()>::bounded(1).unwrap();
    let p = Process::spawn((tx, go.clone()), |tx: Sender<u32>, go: Queue<()>| {
        drop(tx);
        go.get().unwrap();
    })
    .unwrap();
    assert!(ends(&rx));
    assert!(p.is_alive());
    go.put(()).unwrap();
    p.join().unwrap();
}

#[test]
fn a_sender_on_its_way_keeps_its_channel() {
    let _one = alone();
    let q = Queue::<Sender<u32>>::bounded(4).unwrap();
    // In a message.
    let (tx, rx) = channel::<u32>(2).unwrap();
    q.put(tx).unwrap();
    assert!(rx.get_timeout(SOON).unwrap_err().is_timeout());
    let tx = q.get().unwrap();
    tx.put(5).unwrap();
    drop(tx);
    assert_eq!(rx.get().unwrap(), 5);
    assert!(ends(&rx));
    // In the arguments of a child, and in its result.
    let (tx, rx) = channel::<u32>(2).unwrap();
    let p = Process::spawn((tx,), |tx: Sender<u32>| {
        tx.put(6).unwrap();
        tx
    })
    .unwrap();
    assert_eq!(rx.get().unwrap(), 6);
    assert!(rx.get_timeout(SOON).unwrap_err().is_timeout());
    let tx = p.join().unwrap();
    tx.put(7).unwrap();
    assert_eq!(rx.get().unwrap(), 7);
    drop(tx);
    assert!(ends(&rx));
    // Under lease, and come back from it.
    let (tx, rx) = channel::<u32>(2).unwrap();
    q.put(tx).unwrap();
    drop(q.lease().unwrap());
    assert!(rx.get_timeout(SOON).unwrap_err().is_timeout());
    let lease = q.lease().unwrap();
    lease.put(8).unwrap();
    drop(lease.ack());
    assert_eq!(rx.get().unwrap(), 8);
    assert!(ends(&rx));
    // Under lease of a process that dies.
    let (tx, rx) = channel::<u32>(2).unwrap();
    q.put(tx).unwrap();
    let p = Process::spawn((q.clone(),), |q: Queue<Sender<u32>>| -> () {
        let _lease = q.lease().unwrap();
        std::process::abort();
    })
    .unwrap();
    assert!(p.join().is_err());
    assert!(rx.get_timeout(SOON).unwrap_err().is_timeout());
    let tx = q.get().unwrap();
    tx.put(9).unwrap();
    drop(tx);
    assert_eq!(rx.get().unwrap(), 9);
    assert!(ends(&rx));
}

#[test]
fn undelivered_messages_take_their_senders_along() {
    let _one = alone();
    let (tx, rx) = channel::<u32>(2).unwrap();
    // A queue that never left this process, one that did, and one inside the other.
    let q = Queue::<Sender<u32>>::bounded(4).unwrap();
    q.put(tx.clone()).unwrap();
    let shared = Queue::<Sender<u32>>::bounded(4).unwrap();
    Process::spawn((shared.clone(),), |_: Queue<Sender<u32>>| ()).unwrap().join().unwrap();
    shared.put(tx.clone()).unwrap();
    let outer = Queue::<Queue<Sender<u32>>>::bounded(4).unwrap();
    let inner = Queue::<Sender<u32>>::bounded(4).unwrap();
    inner.put(tx).unwrap();
    outer.put(inner).unwrap();
    drop((q, shared));
    assert!(rx.get_timeout(SOON).unwrap_err().is_timeout());
    drop(outer);
    assert!(ends(&rx));
}

#[derive(Serialize, Deserialize)]
struct Node {
    next: Option<Queue<Node>>,
    reply: Option<Sender<u8>>,
}

#[test]
fn a_queue_in_its_own_message_is_freed() {
    let _one = alone();
    testing::collect().unwrap();
    let before = testing::audit().unwrap();
    let (tx, rx) = channel::<u8>(1).unwrap();
    let (a, b) = (Queue::<Node>::bounded(2).unwrap(), Queue::<Node>::bounded(2).unwrap());
    a.put(Node { next: Some(a.clone()), reply: Some(tx) }).unwrap();
    a.put(Node { next: Some(b.clone()), reply: None }).unwrap();
    b.put(Node { next: Some(a.clone()), reply: None }).unwrap();
    assert!(rx.get_timeout(SOON).unwrap_err().is_timeout());
    drop((a, b));
    assert!(ends(&rx));
    drop(rx);
    testing::collect().unwrap();
    assert_eq!(testing::audit().unwrap(), before);
    // A receiver that gets its own last sender sees the end after dropping it.
    let (tx, rx) = channel::<Node>(1).unwrap();
    drop(rx);
    assert!(tx.put(Node { next: None, reply: None }).unwrap_err().is_disconnected());
}

#[derive(Serialize, Deserialize)]
struct Everything {
    sender: Sender<u32>,
    receiver: Receiver<u32>,
    queues: Vec<Queue<u32>>,
    twice: (Sender<u32>, Sender<u32>),
    text: String,
}

#[test]
fn any_handle_travels_in_any_number() {
    let _one = alone();
    let (tx, rx) = channel::<u32>(8).unwrap();
    let many: Vec<_> = (0..300).map(|_| Queue::<u32>::bounded(2).unwrap()).collect();
    let q = Queue::<Everything>::bounded(2).unwrap();
    let everything = Everything {
        sender: tx.clone(),
        receiver: rx.clone(),
        queues: many.clone(),
        twice: (tx.clone(), tx.clone()),
        text: "text".into(),
    };
    let p = Process::spawn((q.receiver().unwrap(),), |q: Receiver<Everything>| {
        let e = q.get().unwrap();
        e.sender.put(1).unwrap();
        e.twice.1.put(2).unwrap();
        for (n, q) in e.queues.iter().enumerate() {
            q.put(n as u32).unwrap();
        }
        (e.receiver.get().unwrap(), e.text)
    })
    .unwrap();
    q.put(everything).unwrap();
    assert_eq!(p.join().unwrap(), (1, "text".into()));
    assert_eq!(rx.get().unwrap(), 2);
    assert!(many.iter().map(|q| q.get().unwrap()).eq(0..300));
    drop((tx, many));
    assert!(ends(&rx));
}

#[test]
fn a_handle_does_not_serialise_outside_of_messages() {
    let _one = alone();
    let q = Queue::<u8>::bounded(1).unwrap();
    let e = <Bincode as Codec<Queue<u8>>>::encode(&q, &mut Buffer::new()).unwrap_err();
    assert!(e.to_string().contains("can only be sent through multiproc's own queues"), "{e}");
    assert!(<Bincode as Codec<Queue<u8>>>::decode(&[0, 0, 0, 0]).is_err());
}

#[test]
fn a_handle_of_another_type_or_side_is_an_error_of_its_message() {
    let _one = alone();
    /// The same bytes for each type.
    #[derive(Debug)]
    struct AnyType;
    impl<T: Serialize + serde::de::DeserializeOwned> Codec<T> for AnyType {
        fn encode(value: &T, into: &mut Buffer) -> Result<(), CodecError> {
            Bincode::encode(value, into)
        }
        fn decode(bytes: &[u8]) -> Result<T, CodecError> {
            Bincode::decode(bytes)
        }
    }
    #[derive(Debug)]
    struct Forger;
    impl Codec<Option<Queue<u8>>> for Forger {
        fn encode(value: &Option<Queue<u8>>, into: &mut Buffer) -> Result<(), CodecError> {
            match value {
                Some(q) => AnyType::encode(q, into),
                // A position of which there is none.
                None => AnyType::encode(&3u32, into),
            }
        }
        fn decode(bytes: &[u8]) -> Result<Option<Queue<u8>>, CodecError> {
            let wrong: Result<Queue<u16>, _> = AnyType::decode(bytes);
            assert!(wrong.is_err());
            let wrong: Result<Sender<u8>, _> = AnyType::decode(bytes);
            assert!(wrong.is_err());
            AnyType::decode(bytes).map(Some)
        }
    }
    let q = Queue::<Option<Queue<u8>>, Forger>::with_codec(4).unwrap();
    q.put(None).unwrap();
    assert!(matches!(q.get(), Err(GetError::Decode(_))));
    q.put(Some(Queue::bounded(9).unwrap())).unwrap();
    assert_eq!(q.get().unwrap().unwrap().capacity(), 9);
}

#[test]
fn messages_of_one_byte_to_200_mb() {
    let _one = alone();
    testing::collect().unwrap();
    let before = testing::audit().unwrap();
    let q = Queue::<Vec<u8>, Raw>::with_codec(2).unwrap();
    let back = Queue::<Vec<u8>, Raw>::with_codec(2).unwrap();
    let p = Process::spawn(
        (q.receiver().unwrap(), back.sender().unwrap()),
        |q: Receiver<Vec<u8>, Raw>, back: Sender<Vec<u8>, Raw>| {
            for m in &q {
                back.put(m.unwrap()).unwrap();
            }
        },
    )
    .unwrap();
    for len in [0, 1, 7, 8, 9, 4095, 4096, 4097, 65_535, 1 << 20, 20_000_001, 200_000_000] {
        let mut m = vec![0xa5; len];
        if let (Some(first), 2..) = (m.first_mut(), len) {
            *first = 1;
        }
        q.put_ref(&m).unwrap();
        assert!(back.get().unwrap() == m, "{len} bytes came back changed");
    }
    q.close().unwrap();
    p.join().unwrap();
    drop((q, back));
    testing::collect().unwrap();
    assert_eq!(testing::audit().unwrap(), before);
}

#[test]
fn many_threads_of_many_processes() {
    let _one = alone();
    const EACH: u64 = 3000;
    Watchdog::start(Duration::from_secs(120));
    let q = Queue::<(u64, Vec<u8>)>::bounded(10).unwrap();
    let sums = Queue::<(u64, u64)>::bounded(10).unwrap();
    let mut all = Vec::new();
    for side in 0..2u64 {
        let args = (q.receiver().unwrap(), sums.sender().unwrap());
        all.push(
            Process::spawn(args, |q: Receiver<(u64, Vec<u8>)>, sums: Sender<(u64, u64)>| {
                std::thread::scope(|s| {
                    for by_lease in [false, true, false] {
                        let (q, sums) = (&q, &sums);
                        s.spawn(move || {
                            let (mut count, mut sum) = (0, 0);
                            loop {
                                let m = if by_lease { q.lease().map(|l| l.ack()) } else { q.get() };
                                match m {
                                    Ok((n, pad)) => {
                                        assert!(pad.iter().all(|b| *b == n as u8));
                                        (count, sum) = (count + 1, sum + n);
                                    }
                                    Err(e) if e.is_end() => break,
                                    Err(e) => panic!("{e}"),
                                }
                            }
                            sums.put((count, sum)).unwrap();
                        });
                    }
                });
            })
            .unwrap(),
        );
        all.push(
            Process::spawn((q.sender().unwrap(), side), |q: Sender<(u64, Vec<u8>)>, side: u64| {
                std::thread::scope(|s| {
                    for t in 0..3 {
                        let q = &q;
                        s.spawn(move || {
                            for n in (side * 3 + t) * EACH..(side * 3 + t + 1) * EACH {
                                let len = if n % 100 == 0 { 6000 } else { n as usize % 50 };
                                q.put((n, vec![n as u8; len])).unwrap();
                            }
                        });
                    }
                });
            })
            .unwrap(),
        );
    }
    drop(q);
    for p in all {
        p.join().unwrap();
    }
    let total = 6 * EACH;
    let all = (0..6).map(|_| sums.get().unwrap()).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    assert_eq!(all, (total, total * (total - 1) / 2));
}
