//! Queues and pipes among threads of one process, in an arena of their own: what Miri and the sanitizers of rustc can look at, who see one process only.
//!
//! What passes through guards a plain cell, so that they tell when a message does not carry what its sender did before.

use multiproc_channel::{Connection, KINDS, PipeBuilder, Queue, Raw};
use multiproc_shm::{Arena, Options};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

fn arena() -> &'static Arena {
    Arena::create(&Options { size: 16 << 20, limit: Some(12 << 20), build: 1, kinds: KINDS }).unwrap()
}

/// So many, and few where each instruction is interpreted.
const fn rounds(usual: u64, interpreted: u64) -> u64 {
    if cfg!(miri) { interpreted } else { usual }
}

/// In the ring, across its end, and in a block of its own.
fn message(n: u64) -> Vec<u8> {
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.resize([8, 40, 300, 6000][n as usize % 4], n as u8);
    bytes
}

fn number(bytes: &[u8]) -> u64 {
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(bytes, message(n));
    n
}

/// Two put and two take; what they took is each message once.
fn crowd(q: &Queue<Vec<u8>, Raw>, take: impl Fn() -> u64 + Sync) {
    const EACH: u64 = rounds(2_000, 6);
    let sum = AtomicU64::new(0);
    thread::scope(|s| {
        for first in [0, EACH] {
            s.spawn(move || (first..first + EACH).for_each(|n| q.put(message(n)).unwrap()));
        }
        for _ in 0..2 {
            s.spawn(|| (0..EACH).for_each(|_| _ = sum.fetch_add(take(), Ordering::Relaxed)));
        }
    });
    assert_eq!(sum.into_inner(), (0..2 * EACH).sum());
    assert!(q.is_empty());
}

#[test]
fn a_bounded_queue() {
    let q = Queue::bounded_in(arena(), 3).unwrap();
    crowd(&q, || number(&q.get().unwrap()));
}

#[test]
fn a_queue_of_bytes() {
    let q = Queue::builder().capacity(64).byte_limit(20_000).build_in(arena()).unwrap();
    crowd(&q, || number(&q.get().unwrap()));
}

#[test]
fn an_unbounded_queue() {
    let q = Queue::builder().unbounded().byte_limit(200_000).build_in(arena()).unwrap();
    crowd(&q, || number(&q.get().unwrap()));
}

#[test]
fn leases() {
    let q: Queue<Vec<u8>, Raw> = Queue::bounded_in(arena(), 3).unwrap();
    let count = AtomicU64::new(0);
    crowd(&q, || {
        loop {
            let lease = q.lease().unwrap();
            // Each fifth goes back, and comes again to anybody.
            if count.fetch_add(1, Ordering::Relaxed) % 5 != 4 {
                return number(&lease.ack());
            }
            lease.requeue();
        }
    });
}

#[test]
fn many_at_once() {
    const ALL: u64 = rounds(2_000, 60);
    let q: Queue<Vec<u8>, Raw> = Queue::bounded_in(arena(), 9).unwrap();
    thread::scope(|s| {
        s.spawn(|| {
            for from in (0..ALL).step_by(20) {
                assert_eq!(q.put_many((from..from + 20).map(message)).unwrap(), 20);
            }
        });
        let mut next = 0;
        while next < ALL {
            for got in q.get_many(7).unwrap() {
                assert_eq!(number(&got.unwrap()), next);
                next += 1;
            }
        }
    });
}

#[test]
fn who_joins_has_what_was_done_before() {
    const EACH: u64 = rounds(1_000, 8);
    let q: Queue<Vec<u8>, Raw> = Queue::bounded_in(arena(), 3).unwrap();
    let done = AtomicU64::new(0);
    thread::scope(|s| {
        s.spawn(|| {
            for _ in 0..EACH {
                let lease = q.lease().unwrap();
                done.store(done.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                drop(lease.ack());
            }
        });
        for n in 1..=EACH {
            q.put(message(n)).unwrap();
            q.join().unwrap();
            assert_eq!(done.load(Ordering::Relaxed), n);
        }
    });
}

#[test]
fn a_pipe_to_and_fro() {
    const ALL: u64 = rounds(2_000, 12);
    let (a, b) = PipeBuilder::new().ring_bytes(16 << 10).codec::<Raw>().pipe_in::<Vec<u8>, Vec<u8>>(arena()).unwrap();
    thread::scope(|s| {
        s.spawn(|| {
            for n in 0..ALL {
                assert_eq!(number(&b.recv().unwrap()), n);
                b.send(message(n)).unwrap();
            }
        });
        for n in 0..ALL {
            a.send(message(n)).unwrap();
            assert_eq!(number(&a.recv().unwrap()), n);
        }
    });
}

#[test]
fn a_pipe_that_fills() {
    const EACH: u64 = rounds(2_000, 6);
    let (a, b) = PipeBuilder::new().ring_bytes(16 << 10).codec::<Raw>().pipe_in::<Vec<u8>, Vec<u8>>(arena()).unwrap();
    let sum = AtomicU64::new(0);
    let send =
        |from: u64, end: &Connection<Vec<u8>, Vec<u8>, Raw>| (from..from + EACH).for_each(|n| end.send(message(n)).unwrap());
    thread::scope(|s| {
        // Two threads at each end.
        s.spawn(|| send(0, &a));
        s.spawn(|| send(EACH, &a));
        for _ in 0..2 {
            s.spawn(|| (0..EACH).for_each(|_| _ = sum.fetch_add(number(&b.recv().unwrap()), Ordering::Relaxed)));
        }
    });
    assert_eq!(sum.into_inner(), (0..2 * EACH).sum());
}

#[test]
fn handles_on_their_way_while_somebody_collects() {
    const ALL: u64 = rounds(200, 3);
    let arena = arena();
    let there: Queue<Queue<u32>> = Queue::bounded_in(arena, 2).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|s| {
        s.spawn(|| {
            for n in 0..ALL as u32 {
                let one = Queue::bounded_in(arena, 1).unwrap();
                one.put(n).unwrap();
                there.put(one).unwrap();
            }
        });
        let collector = s.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                arena.collect().unwrap();
                thread::yield_now();
            }
        });
        (0..ALL as u32).for_each(|n| assert_eq!(there.get().unwrap().get().unwrap(), n));
        done.store(true, Ordering::Relaxed);
        collector.join().unwrap();
    });
    drop(there);
    arena.collect().unwrap();
    assert_eq!(arena.audit().unwrap().objects, 0);
}
