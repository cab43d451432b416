//! [`SharedVec`] and [`Frozen`]: filled by one process, read by others in place, and gone with whoever had them.

use multiproc::bytemuck::{Pod, Zeroable};
use multiproc::{Atomic, Event, Frozen, Process, Queue, Receiver, SharedVec, dump, pipe, stats, testing};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Audits look at the whole arena.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn audit() -> testing::Audit {
    testing::collect().unwrap();
    testing::audit().unwrap()
}

fn leaves_nothing(before: &testing::Audit) {
    multiproc_tests::eventually(|| audit() == *before);
}

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Point {
    x: f64,
    id: u32,
    y: [i16; 2],
}

const MIB: usize = 1 << 20;

#[test]
fn any_length_of_any_plain_data() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let before = audit();
    for len in [0, 1, 7, 63, 64, 100, 4032, 4033, 5000, 1_000_003] {
        // The next one is made where this one lay.
        drop(SharedVec::from_fn(len, |_| 0xffffu16).unwrap());
        let mut v = SharedVec::<u16>::zeroed(len).unwrap();
        assert_eq!((v.len(), v.as_ptr().addr() % 64), (len, 0));
        assert!(v.iter().all(|n| *n == 0));
        for (n, x) in v.iter_mut().enumerate() {
            *x = n as u16;
        }
        let frozen = v.freeze();
        assert_eq!((frozen.len(), frozen.as_ptr().addr() % 64), (len, 0));
        assert!(frozen.iter().enumerate().all(|(n, x)| *x == n as u16));
        let copy = SharedVec::from_slice(&frozen).unwrap();
        assert!(copy[..] == frozen[..]);
    }
    let p = |id| Point { x: f64::from(id) / 2.0, id, y: [1, -1] };
    let mut v = SharedVec::from_slice(&[p(0), p(1), p(2)]).unwrap();
    v.reverse();
    assert_eq!(v[..], [p(2), p(1), p(0)]);
    assert_eq!((v.as_ref().len(), v.as_mut().len(), (&v).into_iter().count()), (3, 3, 3));
    drop(v);
    assert_eq!(SharedVec::from_fn(2, |n| [n as f32; 3]).unwrap()[1], [1.0; 3]);
    assert!(SharedVec::<()>::zeroed(usize::MAX).unwrap().len() == usize::MAX);
    for len in [usize::MAX, usize::MAX / 8, 1 << 30] {
        let e = SharedVec::<u64>::zeroed(len).unwrap_err();
        assert_eq!(e.to_string(), "a shared vector has at most 8 GiB");
    }
    // What never left the process goes at once, without a collection.
    assert_eq!(testing::audit().unwrap(), before);
    let panicked = std::panic::catch_unwind(|| SharedVec::from_fn(1000, |n| if n == 500 { panic!("half way") } else { n }));
    assert!(panicked.is_err());
    assert_eq!(testing::audit().unwrap(), before);
}

#[test]
fn it_travels_everywhere_and_its_bytes_stay() {
    #[derive(Clone, Serialize, Deserialize)]
    struct Picture {
        name: String,
        pixels: Frozen<u8>,
    }
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let before = audit();
    let pixels = SharedVec::from_fn(8 * MIB, |n| (n / 3) as u8).unwrap().freeze();
    let picture = Picture { name: "a".into(), pixels: pixels.clone() };
    // In an argument, and back in a result.
    let p = Process::spawn((picture.clone(),), |p: Picture| {
        assert!(p.pixels.iter().enumerate().all(|(n, x)| *x == (n / 3) as u8));
        (p.pixels.clone(), p)
    });
    let (alone, within) = p.unwrap().join().unwrap();
    // It is the same memory, also here.
    assert_eq!((alone.as_ptr(), within.pixels.as_ptr(), within.name.as_str()), (pixels.as_ptr(), pixels.as_ptr(), "a"));
    // Through a queue, on lease, and through a pipe.
    let queue = Queue::<Picture>::bounded(100).unwrap();
    for _ in 0..100 {
        queue.put_ref(&picture).unwrap();
    }
    // A hundred of them on the way are no more bytes.
    let bytes: u64 = stats().unwrap().kinds.iter().map(|kind| kind.bytes).sum();
    assert!((8 << 20..9 << 20).contains(&bytes), "{bytes}");
    let lease = queue.lease().unwrap();
    assert_eq!(lease.pixels.as_ptr(), pixels.as_ptr());
    lease.requeue();
    assert!((0..100).all(|_| queue.get().unwrap().pixels.as_ptr() == pixels.as_ptr()));
    let (a, b) = pipe::<Frozen<u8>, ()>().unwrap();
    a.send_ref(&pixels).unwrap();
    assert_eq!(b.recv().unwrap().as_ptr(), pixels.as_ptr());
    // Between threads as well.
    let sum = std::thread::scope(|s| s.spawn(|| pixels.iter().map(|x| u64::from(*x)).sum::<u64>()).join().unwrap());
    assert!(sum > 0);
    let outside = serde_json::to_string(&pixels).unwrap_err().to_string();
    assert!(outside.contains("can only be sent through multiproc's own queues"), "{outside}");
    drop((queue, a, b, alone, within, picture, pixels));
    leaves_nothing(&before);
}

/// Whether there is more of it than fits is settled by collections on the way.
#[test]
fn a_stream_of_them_does_not_pile_up() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let before = audit();
    let (used, _) = testing::usage().unwrap();
    let frames = Queue::<Frozen<u64>>::bounded(2).unwrap();
    let p = Process::spawn((frames.sender().unwrap(),), |frames| {
        for n in 0..48u64 {
            let mut frame = SharedVec::<u64>::zeroed(2 * MIB).unwrap();
            (frame[0], frame[2 * MIB - 1]) = (n, n);
            frames.put(frame.freeze()).unwrap();
        }
    })
    .unwrap();
    let mut most = 0;
    for n in 0..48 {
        let frame = frames.get().unwrap();
        assert_eq!((frame[0], frame[1], frame[2 * MIB - 1], frame.len()), (n, 0, n, 2 * MIB));
        most = most.max(testing::usage().unwrap().0);
    }
    p.join().unwrap();
    drop(frames);
    // 768 MiB have gone by.
    let more = most.saturating_sub(used) >> 20;
    assert!(more < 320, "{more} MiB");
    leaves_nothing(&before);
}

#[test]
fn a_process_that_is_killed_while_it_fills_one_leaves_nothing() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let before = audit();
    let ready = Event::new().unwrap();
    let p = Process::spawn((ready.clone(),), |ready| -> () {
        let mut v = SharedVec::<u64>::zeroed(4 * MIB).unwrap();
        ready.set().unwrap();
        for n in 0.. {
            v[n % (4 * MIB)] = n as u64;
        }
    })
    .unwrap();
    ready.wait().unwrap();
    let line = |stats: &multiproc::Stats| stats.kind("SharedVec").map(|k| (k.objects, k.bytes >> 20));
    assert_eq!(line(&stats().unwrap()), Some((1, 32)));
    // Who is at it is known.
    let report = dump();
    let filling = report.processes.iter().find(|process| process.pid == p.pid()).unwrap();
    assert!(filling.holds.iter().any(|hold| hold.object.starts_with("SharedVec ")), "{report}");
    p.kill().unwrap();
    assert!(p.join().is_err());
    drop(ready);
    leaves_nothing(&before);
    assert_eq!(line(&stats().unwrap()), None);
}

#[test]
fn readers_keep_it_whoever_else_dies() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let before = audit();
    let (frames, seen) = (Queue::<Frozen<u32>>::bounded(10).unwrap(), Atomic::new(0u32).unwrap());
    let maker = Process::spawn((frames.clone(),), |frames| -> () {
        let v = SharedVec::from_fn(MIB, |n| n as u32).unwrap().freeze();
        for _ in 0..3 {
            frames.put(v.clone()).unwrap();
        }
        loop {
            std::thread::park();
        }
    })
    .unwrap();
    let mine = frames.get().unwrap();
    multiproc_tests::eventually(|| frames.len() == 2);
    maker.kill().unwrap();
    assert!(maker.join().is_err());
    // One reader has it out of a message, the other on lease.
    let reader = |keep: bool| {
        Process::spawn((frames.receiver().unwrap(), seen.clone(), keep), |frames: Receiver<Frozen<u32>>, seen, keep| -> () {
            let lease = frames.lease().unwrap();
            assert_eq!(lease[MIB - 1], MIB as u32 - 1);
            let _kept = if keep { Ok(lease.ack()) } else { Err(lease) };
            seen.add(1);
            loop {
                std::thread::park();
            }
        })
        .unwrap()
    };
    for (n, keep) in [(1, true), (2, false)] {
        let p = reader(keep);
        multiproc_tests::eventually(|| seen.get() == n);
        p.kill().unwrap();
        assert!(p.join().is_err());
        testing::collect().unwrap();
        assert!(mine.iter().enumerate().all(|(n, x)| *x == n as u32));
    }
    // What was on lease comes again.
    let again = frames.get().unwrap();
    assert_eq!((again.as_ptr(), frames.len()), (mine.as_ptr(), 0));
    drop((frames, again, seen));
    testing::collect().unwrap();
    assert_eq!(mine[77], 77);
    drop(mine);
    leaves_nothing(&before);
}
