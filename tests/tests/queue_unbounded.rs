//! Queues without a bound of items: they grow with what waits, stop at their limit, and give memory back.

mod common_queue;

use common_queue::{Form, LIMIT, Msg, alone, eventually, sleeps_on};
use multiproc::{Event, Process, Queue, Raw, Receiver, Sender, WhenFull, stats, testing};
use std::time::Duration;

/// Bytes that the kernel has given, after what is idle has gone back.
fn backed() -> u64 {
    // What has been idle from one collection to the next goes back.
    stats().unwrap();
    stats().unwrap();
    stats().unwrap().backed
}

const MIB: u64 = 1 << 20;

#[test]
fn memory_follows_what_waits() {
    let _one = alone();
    let _watched = multiproc_tests::watch(300);
    let q = Queue::<Vec<u8>, Raw>::builder().unbounded().build().unwrap();
    q.put(vec![1; 100]).unwrap();
    q.get().unwrap();
    let before = backed();
    for round in 0..3 {
        let message = |n: usize| vec![n as u8; 400 + n % 300];
        let count = 60_000;
        assert_eq!(q.put_many((0..count).map(message)).unwrap(), count);
        let full = backed();
        assert!(full > before + 30 * MIB, "{before} {full}");
        // Half of it is got: half of it goes back.
        (0..count / 2).for_each(|n| assert_eq!(q.get().unwrap(), message(n)));
        let half = backed();
        assert!(half < before + (full - before) * 6 / 10, "{before} {half} {full}");
        (count / 2..count).for_each(|n| assert_eq!(q.get().unwrap(), message(n)));
        let after = backed();
        assert!(after < before + MIB, "round {round}: {before} {full} {after}");
    }
    drop(q);
    assert!(backed() <= before + MIB);
}

#[test]
fn a_small_queue_stays_small_and_makes_no_system_calls() {
    let _one = alone();
    let _watched = multiproc_tests::watch(300);
    let q = Queue::<Vec<u8>, Raw>::builder().unbounded().build().unwrap();
    q.put(vec![0; 1000]).unwrap();
    let first = testing::usage().unwrap().0;
    let mut most = 0;
    // Goes through a hundred segments.
    for n in 0..30_000u32 {
        q.put(vec![n as u8; 1000]).unwrap();
        assert_eq!(q.get().unwrap()[0], n.wrapping_sub(1) as u8 * u8::from(n > 0));
        if n == 2000 {
            most = testing::usage().unwrap().0;
        }
    }
    // Since then nothing was asked of the kernel.
    assert_eq!(testing::usage().unwrap().0, most);
    assert!(most < first + MIB, "{first} {most}");
}

#[test]
fn eight_million_messages_wait() {
    let _one = alone();
    let _watched = multiproc_tests::watch(500);
    let q = Queue::<u32>::unbounded().unwrap();
    let most = q.capacity();
    assert!(most == 8_388_607 || testing::usage().unwrap().1 < 256 * MIB);
    let most = most as u32;
    assert_eq!(q.put_many(0..most).unwrap(), most as usize);
    assert!(q.is_full() && q.len() == most as usize);
    assert!(q.try_put(most).unwrap_err().is_full());
    for next in 0..100_000 {
        assert_eq!(q.get().unwrap(), next);
    }
    assert_eq!(q.put_many(most..most + 100_000).unwrap(), 100_000);
    assert!(q.is_full());
}

#[test]
fn messages_without_a_byte() {
    let _one = alone();
    let _watched = multiproc_tests::watch(300);
    // Their records are a head alone, so that one of them ends where its segment does.
    const COUNT: usize = 200_000;
    let q = Queue::<()>::unbounded().unwrap();
    (0..COUNT / 2).for_each(|_| q.put(()).unwrap());
    assert_eq!(q.put_many((COUNT / 2..COUNT).map(|_| ())).unwrap(), COUNT / 2);
    drop(q.lease().unwrap());
    assert_eq!((q.len(), q.lease().unwrap().attempt()), (COUNT, 2));
    let mut got = 0;
    while got < COUNT / 2 {
        q.get().unwrap();
        q.lease().unwrap().ack();
        got += 2 + q.get_many(100).unwrap().into_iter().map(Result::unwrap).count();
    }
    got += std::iter::from_fn(|| q.try_get().ok()).count();
    assert_eq!((got, q.len()), (COUNT, 0));
}

#[test]
fn all_forms_of_messages_and_all_ways_of_taking_them() {
    let _one = alone();
    let _watched = multiproc_tests::watch(300);
    testing::collect().unwrap();
    let before = testing::audit().unwrap();
    {
        let q = Queue::<Msg>::builder().unbounded().attempts(9).build().unwrap();
        let handle = Queue::bounded(7).unwrap();
        let forms = [Form::Inline, Form::Handle, Form::Block, Form::BlockAndHandle];
        let make = |id: u64| {
            let mut m = Msg::new(id, forms[id as usize % 4], &handle);
            if id % 4 < 2 {
                // Of every length: records lie across the ends of segments in every way.
                m.pad = vec![id as u8; (id * 37) as usize % 3000];
            }
            m
        };
        const COUNT: u64 = 4000;
        let mut next = 0;
        let mut expect = |m: &Msg| {
            assert_eq!(m.check().unwrap(), next);
            next += 1;
        };
        (0..COUNT / 2).for_each(|id| q.put(make(id)).unwrap());
        q.put_many((COUNT / 2..COUNT).map(make)).unwrap();
        testing::collect().unwrap();
        for _ in 0..COUNT / 4 {
            expect(&q.get().unwrap());
            let lease = q.lease().unwrap();
            drop(lease);
            let lease = q.lease().unwrap();
            assert_eq!(lease.attempt(), 2);
            expect(&lease.ack());
            q.get_many(2).unwrap().into_iter().for_each(|m| expect(&m.unwrap()));
        }
        while let Ok(m) = q.try_get() {
            expect(&m);
        }
        assert_eq!(next, COUNT);
        q.join().unwrap();
        // Some are left when it ends.
        (0..COUNT / 2).for_each(|id| q.put(make(id)).unwrap());
        let leases: Vec<_> = (0..500).map(|_| q.lease().unwrap()).collect();
        drop((q, leases));
    }
    testing::collect().unwrap();
    assert_eq!(testing::audit().unwrap(), before);
}

#[test]
fn at_its_limit_it_waits() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let q = Queue::<Vec<u8>, Raw>::builder().unbounded().byte_limit(4 * MIB).build().unwrap();
    let p = Process::spawn((q.sender().unwrap(),), |q: Sender<Vec<u8>, Raw>| {
        (0..8192).for_each(|n| q.put(vec![n as u8; 1024]).unwrap());
    })
    .unwrap();
    assert!(eventually(LIMIT, || sleeps_on(p.pid(), q.id())));
    assert!(q.is_full() && q.len() == 4096);
    let e = q.put_timeout(vec![5], Duration::from_millis(5)).unwrap_err();
    assert!(e.is_timeout());
    assert_eq!(e.into_inner(), [5]);
    // A slow consumer sets the pace.
    for n in 0..8192 {
        assert_eq!(q.get_timeout(LIMIT).unwrap(), vec![n as u8; 1024]);
        assert!(q.len() <= 4096);
    }
    p.join().unwrap();
}

#[test]
fn at_its_limit_it_fails_and_hands_the_message_back() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    for unbounded in [true, false] {
        let builder = Queue::<Vec<u8>, Raw>::builder().capacity(100).byte_limit(1000).when_full(WhenFull::Fail);
        let q = if unbounded { builder.unbounded() } else { builder }.build().unwrap();
        (0..10).for_each(|n| q.put(vec![n; 100]).unwrap());
        let e = q.put(vec![11]).unwrap_err();
        assert!(e.is_full() && e.into_inner() == [11]);
        assert!(q.put_timeout(vec![11], LIMIT).unwrap_err().is_full());
        assert!(q.put(vec![0; 1001]).unwrap_err().is_too_large());
        let e = q.put_many([vec![], vec![1]]).unwrap_err();
        assert!(e.error().is_full() && e.put() == 1);
        q.get().unwrap();
        q.put(vec![12; 100]).unwrap();
    }
}

#[test]
fn processes_put_and_get_at_their_own_pace() {
    let _one = alone();
    let _watched = multiproc_tests::watch(300);
    const EACH: u64 = 20_000;
    let q = Queue::<Vec<u8>, Raw>::builder().unbounded().build().unwrap();
    let putters: Vec<_> = (0..2u64)
        .map(|side| {
            Process::spawn((q.sender().unwrap(), side), |q: Sender<Vec<u8>, Raw>, side: u64| {
                for n in 0..EACH {
                    let mut m = vec![n as u8; 16 + (n % 700) as usize];
                    m[..8].copy_from_slice(&side.to_ne_bytes());
                    m[8..16].copy_from_slice(&n.to_ne_bytes());
                    q.put(m).unwrap();
                }
            })
            .unwrap()
        })
        .collect();
    let getters = [1, 50].map(|batch| {
        Process::spawn((q.receiver().unwrap(), batch), |q: Receiver<Vec<u8>, Raw>, batch: usize| {
            let mut last = [None; 2];
            let (mut count, mut sum) = (0, 0);
            while let Ok(messages) = q.get_many(batch) {
                for m in messages.into_iter().map(Result::unwrap) {
                    let word = |at: usize| u64::from_ne_bytes(m[at..at + 8].try_into().unwrap());
                    let (side, n) = (word(0) as usize, word(8));
                    assert!(m.len() == 16 + (n % 700) as usize && m[16..].iter().all(|b| *b == n as u8));
                    assert!(last[side].replace(n).is_none_or(|last| last < n));
                    (count, sum) = (count + 1, sum + n);
                }
            }
            (count, sum)
        })
        .unwrap()
    });
    putters.into_iter().for_each(|p| p.join().unwrap());
    q.close().unwrap();
    let [one, other] = getters.map(|p| p.join().unwrap());
    assert_eq!((one.0 + other.0, one.1 + other.1), (2 * EACH, EACH * (EACH - 1)));
}

#[test]
fn many_of_them_fit() {
    let _one = alone();
    let _watched = multiproc_tests::watch(300);
    testing::collect().unwrap();
    let before = testing::audit().unwrap();
    let queues: Vec<_> = (0..2000).map(|_| Queue::<u64>::unbounded().unwrap()).collect();
    for (n, q) in queues.iter().enumerate() {
        q.put(n as u64).unwrap();
    }
    for (n, q) in queues.iter().enumerate() {
        assert_eq!(q.get().unwrap(), n as u64);
    }
    drop(queues);
    testing::collect().unwrap();
    assert_eq!(testing::audit().unwrap(), before);
}

/// Killed while the queue grows and shrinks under their hands: messages come in order, and of memory nothing is left over.
#[test]
fn who_is_killed_leaves_no_memory_behind() {
    let _one = alone();
    let _watched = multiproc_tests::watch(300);
    testing::collect().unwrap();
    let (before, audit) = (backed(), testing::audit().unwrap());
    let q = Queue::<Vec<u8>, Raw>::builder().unbounded().byte_limit(64 * MIB).build().unwrap();
    let message = |n: u64| {
        let mut m = vec![n as u8; 3000];
        m[..8].copy_from_slice(&n.to_ne_bytes());
        m
    };
    let check = |m: Vec<u8>| {
        assert!(m.len() == 3000 && m[8..].iter().all(|b| *b == m[0]));
    };
    let (mut lost, mut killed) = (0, 0);
    for round in 0..60u64 {
        let begun = Event::new().unwrap();
        let p = if round % 2 == 0 {
            Process::spawn((q.sender().unwrap(), begun.clone()), |q: Sender<Vec<u8>, Raw>, begun: Event| {
                begun.set().unwrap();
                for n in 0.. {
                    let mut m = vec![n as u8; 3000];
                    m[..8].copy_from_slice(&u64::to_ne_bytes(n));
                    q.put(m).unwrap();
                }
            })
        } else {
            Process::spawn((q.receiver().unwrap(), begun.clone()), |q: Receiver<Vec<u8>, Raw>, begun: Event| {
                begun.set().unwrap();
                while q.get().is_ok() {}
            })
        }
        .unwrap();
        begun.wait().unwrap();
        (0..(round * 7) % 50).for_each(|n| q.put(message(n)).unwrap());
        (0..(round * 3) % 50).for_each(|_| _ = q.try_get().map(check));
        p.kill().unwrap();
        p.wait();
        killed += 1;
        lost += q.take_losses();
    }
    assert!(lost <= killed / 2);
    while let Ok(m) = q.try_get() {
        check(m);
    }
    let after = backed();
    assert!(after < before + 2 * MIB, "{before} {after}");
    drop(q);
    testing::collect().unwrap();
    assert!(eventually(LIMIT, || testing::audit().unwrap() == audit));
    assert!(backed() < before + MIB);
}
