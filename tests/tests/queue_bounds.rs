//! What a queue's builder bounds: items, bytes, the size of a message, and how often one is given out on lease.

mod common_queue;

use common_queue::{LIMIT, alone, eventually, sleeps_on};
use multiproc::{GetError, Process, Queue, Raw, Receiver, Sender, testing};
use std::time::Duration;

#[test]
fn bytes_bound_as_items_do() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let q = Queue::<Vec<u8>, Raw>::builder().capacity(1000).byte_limit(10_000).build().unwrap();
    let put = |len: usize| q.try_put(vec![7; len]);
    // Inline, in a block, on lease and back: what waits is counted, whatever its form.
    for _ in 0..3 {
        put(4000).unwrap();
        put(5000).unwrap();
        assert!(!q.is_full());
        let e = put(1001).unwrap_err();
        assert!(e.is_full(), "{e}");
        assert_eq!(e.into_inner().len(), 1001);
        put(1000).unwrap();
        assert!(q.is_full());
        assert!(put(1).unwrap_err().is_full());
        assert!(q.put_timeout(vec![1], Duration::from_millis(5)).unwrap_err().is_timeout());
        put(0).unwrap();
        let lease = q.lease().unwrap();
        // Leases that are out are not counted, and not when they come back.
        put(4000).unwrap();
        drop(lease);
        assert!(put(1).unwrap_err().is_full());
        let lens: Vec<usize> = (0..5).map(|_| q.get().unwrap().len()).collect();
        assert_eq!(lens, [4000, 5000, 1000, 0, 4000]);
    }
    assert!(put(10_001).unwrap_err().is_too_large());
    put(10_000).unwrap();
}

#[test]
fn bounds_are_checked_when_the_queue_is_built_in_whatever_order_they_came() {
    let build = |bytes: u64| Queue::<Vec<u8>, Raw>::builder().byte_limit(bytes).build();
    assert!(build(0).is_err() && build((1 << 39) + 1).is_err() && build(1 << 39).is_ok());
    // The last word counts, and a message is never larger than all that may wait.
    let larger = Queue::<Vec<u8>, Raw>::builder().byte_limit(10).byte_limit(1000).build().unwrap();
    larger.try_put(vec![0; 1000]).unwrap();
    let first = Queue::<Vec<u8>, Raw>::builder().max_message(500).byte_limit(100).byte_limit(1000).build().unwrap();
    let last = Queue::<Vec<u8>, Raw>::builder().byte_limit(1000).max_message(500).build().unwrap();
    for q in [first, last] {
        assert!(q.try_put(vec![0; 501]).unwrap_err().is_too_large());
        q.try_put(vec![0; 500]).unwrap();
    }
}

#[test]
fn who_waits_for_bytes_is_woken_by_those_who_take_them() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let q = Queue::<Vec<u8>, Raw>::builder().byte_limit(100).build().unwrap();
    q.put(vec![1; 50]).unwrap();
    q.put(vec![2; 50]).unwrap();
    let p = Process::spawn((q.sender().unwrap(),), |q: Sender<Vec<u8>, Raw>| q.put(vec![3; 80]).is_ok()).unwrap();
    assert!(eventually(LIMIT, || sleeps_on(p.pid(), q.id())));
    assert_eq!(q.get().unwrap(), [1; 50]);
    // Thirty bytes too few still.
    assert_eq!(q.len(), 1);
    assert_eq!(q.get_many(1).unwrap().pop().unwrap().unwrap(), [2; 50]);
    assert_eq!(q.get_timeout(LIMIT).unwrap(), [3; 80]);
    assert!(p.join().unwrap());
}

#[test]
fn many_putters_and_getters_keep_the_byte_limit() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    const EACH: usize = 2000;
    let q = Queue::<Vec<u8>, Raw>::builder().capacity(50).byte_limit(20_000).build().unwrap();
    let putters: Vec<_> = (0..2)
        .map(|side: usize| {
            Process::spawn((q.sender().unwrap(), side), |q: Sender<Vec<u8>, Raw>, side: usize| {
                let message = |n: usize| vec![side as u8; (n * 7919) % 6000];
                if side == 0 {
                    (0..EACH).for_each(|n| q.put(message(n)).unwrap());
                } else {
                    assert_eq!(q.put_many((0..EACH).map(message)).unwrap(), EACH);
                }
            })
            .unwrap()
        })
        .collect();
    let getters = [false, true].map(|by_lease| {
        Process::spawn((q.receiver().unwrap(), by_lease), |q: Receiver<Vec<u8>, Raw>, by_lease: bool| {
            let next = || if by_lease { q.lease().map(|m| vec![Ok(m.ack())]) } else { q.get_many(7) };
            let lens = std::iter::from_fn(|| next().ok()).flatten().map(|m| m.unwrap().len());
            lens.fold((0, 0), |(count, sum), len| (count + 1, sum + len))
        })
        .unwrap()
    });
    putters.into_iter().for_each(|p| p.join().unwrap());
    q.close().unwrap();
    let [one, other] = getters.map(|p| p.join().unwrap());
    let all: usize = (0..EACH).map(|n| (n * 7919) % 6000).sum();
    assert_eq!((one.0 + other.0, one.1 + other.1), (2 * EACH, 2 * all));
    assert!(!q.is_full());
}

#[test]
fn what_is_given_out_in_vain_is_a_dead_letter() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    testing::collect().unwrap();
    let before = testing::audit().unwrap();
    let q = Queue::<u32>::builder().attempts(3).build().unwrap();
    let dead = q.dead().unwrap();
    q.put(1).unwrap();
    q.put(2).unwrap();
    for attempt in 1..=3 {
        assert!(matches!(dead.try_get(), Err(GetError::Empty)));
        let lease = q.lease().unwrap();
        assert_eq!((*lease, lease.attempt()), (1, attempt));
        lease.requeue();
    }
    // It is in nobody's way.
    assert_eq!((q.len(), q.leased(), dead.len()), (1, 0, 1));
    assert_eq!(q.get().unwrap(), 2);
    assert!(matches!(q.try_get(), Err(GetError::Empty)));
    assert!(matches!(q.try_lease(), Err(GetError::Empty)));
    let letter = dead.get().unwrap();
    assert_eq!((*letter, letter.attempts(), letter.pid(), letter.died()), (1, 3, std::process::id(), false));
    assert!(dead.is_empty());
    // A message that came back less often may still be got.
    q.put(3).unwrap();
    drop(q.lease().unwrap());
    assert_eq!(q.get().unwrap(), 3);
    q.close().unwrap();
    assert!(matches!(dead.get(), Err(GetError::Closed)));
    drop((q, dead));
    assert_eq!(testing::audit().unwrap(), before);
}

#[test]
fn who_waits_for_dead_letters_is_told_of_deaths_and_of_the_end() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let q = Queue::<(u32, Queue<u8>)>::builder().attempts(1).build().unwrap();
    let inner = Queue::bounded(3).unwrap();
    q.put((5, inner.clone())).unwrap();
    let told = Queue::bounded(4).unwrap();
    let undertaker = Process::spawn((q.dead().unwrap(), told.sender().unwrap()), |dead, told: Sender<(u32, u32, bool)>| {
        loop {
            match dead.get() {
                Ok(letter) => {
                    letter.1.put(9).unwrap();
                    told.put((letter.0, letter.pid(), letter.died())).unwrap();
                }
                Err(e) => return e.is_end(),
            }
        }
    })
    .unwrap();
    assert!(eventually(LIMIT, || sleeps_on(undertaker.pid(), q.id())));
    let worker = Process::spawn((q.receiver().unwrap(),), |q: Receiver<(u32, Queue<u8>)>| -> () {
        let _lease = q.lease().unwrap();
        std::process::abort();
    })
    .unwrap();
    let pid = worker.pid();
    assert!(worker.join().is_err());
    assert_eq!(told.get_timeout(LIMIT).unwrap(), (5, pid, true));
    assert_eq!(inner.get_timeout(LIMIT).unwrap(), 9);
    // The end comes with the last acknowledgement, not before.
    q.put((6, inner.clone())).unwrap();
    let lease = q.lease().unwrap();
    q.close().unwrap();
    assert!(eventually(LIMIT, || sleeps_on(undertaker.pid(), q.id())));
    lease.ack();
    assert!(undertaker.join().unwrap());
}

#[test]
fn bounds_out_of_range_are_errors() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    assert!(Queue::<u8>::builder().capacity(0).build().is_err());
    assert!(Queue::<u8>::builder().byte_limit((1 << 39) + 1).build().is_err());
    let q = Queue::<u8>::builder().attempts(0).build().unwrap();
    q.put(1).unwrap();
    drop(q.lease().unwrap());
    assert_eq!(*q.dead().unwrap().try_get().unwrap(), 1);
}

#[test]
fn a_message_that_is_being_leased_is_not_taken_for_the_end() {
    let _one = alone();
    let _watched = multiproc_tests::watch(300);
    for _ in 0..1000 {
        let q = Queue::<u8>::builder().capacity(8).attempts(2).build().unwrap();
        let dead = q.dead().unwrap();
        (0..4).for_each(|n| q.put(n).unwrap());
        q.close().unwrap();
        let worker = q.clone();
        // Comes to stand in the ring, on lease, returned, and on lease again, before it is dead.
        let worker = std::thread::spawn(move || while worker.lease().is_ok() {});
        let mut letters = 0;
        while letters < 4 {
            assert!(q.unfinished() + dead.len() > 0);
            match dead.try_get() {
                Ok(_) => letters += 1,
                Err(e) => assert!(!e.is_end(), "after {letters} of 4"),
            }
        }
        assert_eq!(q.unfinished(), 0);
        assert!(dead.get().unwrap_err().is_end());
        worker.join().unwrap();
    }
}

#[test]
fn a_message_that_is_on_its_last_lease_is_no_dead_letter() {
    let _one = alone();
    let _watched = multiproc_tests::watch(300);
    let q = Queue::<u32>::builder().attempts(2).build().unwrap();
    let dead = q.dead().unwrap();
    let worker = q.clone();
    let worker = std::thread::spawn(move || {
        for n in 0..10_000 {
            worker.put(n).unwrap();
            drop(worker.lease().unwrap());
            let last = worker.lease().unwrap();
            assert_eq!((*last, last.attempt()), (n, 2));
            last.ack();
        }
        worker.close().unwrap();
    });
    let end = loop {
        match dead.try_get() {
            Ok(letter) => panic!("{letter:?}"),
            Err(e) if e.is_end() => break e,
            Err(_) => assert_eq!(dead.len(), 0),
        }
    };
    assert!(matches!(end, GetError::Closed), "{end}");
    worker.join().unwrap();
}
