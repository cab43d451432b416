//! Queues in arenas of their own: two in one process, and one whose memory is used up.

use multiproc_channel::{KINDS, Queue, Raw};
use multiproc_shm::{Arena, Options};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

fn arena(limit: Option<u64>) -> &'static Arena {
    Arena::create(&Options { size: 1 << 30, limit, build: 1, kinds: KINDS }).unwrap()
}

#[test]
fn two_arenas_live_side_by_side_and_do_not_mix() {
    let (one, two) = (arena(None), arena(None));
    assert_ne!(one.tree(), two.tree());
    let a: Queue<u32> = Queue::bounded_in(one, 4).unwrap();
    let b: Queue<u32> = Queue::bounded_in(two, 4).unwrap();
    std::thread::scope(|s| {
        s.spawn(|| (0..1000).for_each(|n| a.put(n).unwrap()));
        s.spawn(|| (0..1000).for_each(|_| b.put(a.get().unwrap() + 1).unwrap()));
        assert!((1..=1000).all(|n| b.get().unwrap() == n));
    });
    let carrier: Queue<Queue<u32>> = Queue::bounded_in(one, 4).unwrap();
    let e = carrier.put(b).unwrap_err();
    assert!(e.is_codec() && e.to_string().contains("another process tree"), "{e}");
    assert_eq!(e.into_inner().len(), 0);
    carrier.put(a.clone()).unwrap();
    a.put(5).unwrap();
    assert_eq!(carrier.get().unwrap().get().unwrap(), 5);
    drop((a, carrier));
    one.collect().unwrap();
    assert_eq!(one.audit().unwrap().objects, 0);
}

/// A message that may carry its own queue: what then nobody else has, only a collection finds.
#[derive(serde::Serialize, serde::Deserialize)]
struct Circle {
    home: Option<Queue<Circle>>,
    pad: Vec<u8>,
}

#[test]
fn memory_that_somebody_else_is_about_to_collect_is_waited_for() {
    let arena = arena(Some(8 << 20));
    let make = || Queue::<Circle>::bounded_in(arena, 1000).unwrap();
    let pad = || vec![0; 50_000];
    let garbage = make();
    garbage.put(Circle { home: Some(garbage.clone()), pad: Vec::new() }).unwrap();
    let other = make();
    while garbage.put(Circle { home: None, pad: pad() }).is_ok() {}
    let (held, hold) = std::sync::mpsc::channel();
    std::thread::scope(|s| {
        s.spawn(|| {
            let none = arena.hold_collections().unwrap();
            held.send(()).unwrap();
            // A collection that takes its time; the wish for another stands until it has ended.
            std::thread::sleep(Duration::from_millis(20));
            drop(none);
            arena.collect().unwrap();
        });
        hold.recv().unwrap();
        drop(garbage);
        other.put(Circle { home: None, pad: pad() }).unwrap();
    });
    assert_eq!(other.get().unwrap().pad, pad());
}

#[test]
fn memory_that_is_used_up_hands_the_value_back_and_comes_again() {
    const MEGABYTE: usize = 1 << 20;
    let arena = arena(Some(64 << 20));
    let q: Queue<Vec<u8>, Raw> = Queue::bounded_in(arena, 1000).unwrap();
    for round in 0..3 {
        let mut fitted = 0;
        let e = loop {
            match q.put(vec![fitted as u8; MEGABYTE]) {
                Ok(()) => fitted += 1,
                Err(e) => break e,
            }
        };
        assert!(e.is_out_of_memory(), "{e}");
        assert_eq!(e.into_inner(), vec![fitted as u8; MEGABYTE]);
        assert!((20..64).contains(&fitted), "{fitted} messages of a megabyte fitted in round {round}");
        // Small ones go on, and whoever waits is told at once.
        q.put(vec![1; 10]).unwrap();
        let wait = Duration::from_secs(60);
        assert!(q.put_timeout(vec![0; MEGABYTE], wait).unwrap_err().is_out_of_memory());
        for n in 0..fitted {
            assert_eq!(q.get().unwrap(), vec![n as u8; MEGABYTE]);
        }
        assert_eq!(q.get().unwrap(), vec![1; 10]);
    }
    assert!(arena.usage().0 <= arena.usage().1);
    // A lease of an inline message needs a block: where there is none, the message stays.
    for _ in 0..60 {
        q.put(vec![7; 100]).unwrap();
    }
    while q.try_put(vec![0; MEGABYTE]).is_ok() {}
    while q.try_put(vec![0; 5000]).is_ok() {}
    let leases: Vec<_> = std::iter::from_fn(|| q.try_lease().ok()).take(60).collect();
    let taken = leases.len();
    drop(leases);
    let mut small = 0;
    while let Ok(m) = q.try_get() {
        small += usize::from(m == vec![7; 100]);
    }
    assert_eq!(small, 60, "after {taken} leases");
    assert_eq!((q.len(), q.leased(), q.take_losses()), (0, 0, 0));
    drop(q);
    arena.collect().unwrap();
    assert_eq!(arena.audit().unwrap().of_messages, 0);
    assert_eq!(arena.audit().unwrap().of_objects, 0);
}

#[test]
fn a_message_that_grows_beyond_the_memory_is_handed_back() {
    use multiproc_channel::{Buffer, Codec, CodecError};
    /// Does not say how much will come.
    #[derive(Debug)]
    struct Unannounced;
    impl Codec<Vec<u8>> for Unannounced {
        fn encode(value: &Vec<u8>, into: &mut Buffer) -> Result<(), CodecError> {
            value.chunks(1000).try_for_each(|piece| into.append(piece))
        }
        fn decode(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
            Ok(bytes.to_vec())
        }
    }
    let arena = Arena::create(&Options { size: 64 << 30, limit: Some(16 << 20), build: 1, kinds: KINDS }).unwrap();
    let q: Queue<Vec<u8>, Unannounced> = Queue::bounded_in(arena, 1000).unwrap();
    // Most of the memory fits into one message, in spite of what is copied on the way.
    for _ in 0..3 {
        q.put(vec![3; 3 << 20]).unwrap();
        let e = q.put(vec![7; 20 << 20]).unwrap_err();
        assert!(e.is_out_of_memory(), "{e}");
        assert_eq!(e.into_inner().len(), 20 << 20);
        assert!(q.get().unwrap() == vec![3; 3 << 20]);
    }
    drop(q);
    assert_eq!(arena.audit().unwrap(), multiproc_shm::audit::Audit { slots: 1, ..Default::default() });
}

/// Protocol T on the shipping code: a handle that is always on its way is never freed, and one that is dropped always is.
#[test]
fn handles_move_while_collections_run() {
    const ROUNDS: u32 = 20_000;
    let arena = arena(None);
    // What is inside a parcel is referred to by the parcel's record alone.
    type Parcel = Queue<Queue<u32>>;
    let there: Queue<Parcel> = Queue::bounded_in(arena, 4).unwrap();
    let back: Queue<Parcel> = Queue::bounded_in(arena, 4).unwrap();
    for n in 0..2 {
        let inside = Queue::bounded_in(arena, 2).unwrap();
        inside.put(n).unwrap();
        let parcel = Queue::bounded_in(arena, 2).unwrap();
        parcel.put(inside).unwrap();
        there.put(parcel).unwrap();
    }
    let done = AtomicBool::new(false);
    let moves = |from: &Queue<Parcel>, to: &Queue<Parcel>, by_lease: bool| {
        for round in 0..ROUNDS {
            let parcel = if by_lease { from.lease().map(|l| l.ack()) } else { from.get() };
            let parcel = parcel.expect("a handle on its way was freed");
            if round % 64 == 0 {
                let inside = parcel.get().expect("what a handle on its way refers to was freed");
                let n = inside.get().unwrap();
                inside.put(n).unwrap();
                parcel.put(inside).unwrap();
            }
            to.put(parcel).unwrap();
        }
    };
    let collections = std::thread::scope(|s| {
        let collector = s.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                arena.collect().unwrap();
                n += 1;
            }
            n
        });
        let movers = [s.spawn(|| moves(&there, &back, false)), s.spawn(|| moves(&back, &there, true))];
        let ended = movers.map(|m| m.join());
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
        collector.join().unwrap()
    });
    println!("{ROUNDS} rounds, {collections} collections");
    let left = there.len() + back.len();
    assert_eq!(left, 2);
    drop((there, back));
    arena.collect().unwrap();
    assert_eq!(arena.audit().unwrap().objects, 0);
}

/// Who collects goes round again for those who have wished for it meanwhile; where each round is long, not for long.
#[test]
fn who_collects_beside_a_long_queue_of_handles_is_not_held_up_by_others() {
    let arena = arena(None);
    let inside: Queue<u32> = Queue::bounded_in(arena, 2).unwrap();
    let long: Queue<Queue<u32>> = Queue::bounded_in(arena, 1 << 15).unwrap();
    (0..1 << 15).for_each(|_| long.put(inside.clone()).unwrap());
    let begun = multiproc_sys::clock::thread_nanos();
    arena.collect().unwrap();
    let one = multiproc_sys::clock::thread_nanos() - begun;
    let all = AtomicU32::new(0);
    let collect_often = || {
        let mut most = 0;
        while all.load(Ordering::Relaxed) < 30 {
            let rounds = arena.collect().unwrap().rounds;
            all.fetch_add(rounds, Ordering::Relaxed);
            most = most.max(rounds);
        }
        most
    };
    let most = std::thread::scope(|s| [(); 2].map(|()| s.spawn(collect_often)).map(|c| c.join().unwrap()).into_iter().max());
    println!("a collection takes {} us, at most {most:?} rounds", one / 1000);
    // It ends with the round that comes to ten milliseconds; half as long as the first one each takes at least.
    assert!(most.is_some_and(|most| u64::from(most) <= 2 + 20_000_000 / one));
}
