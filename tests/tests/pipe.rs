//! Pipes between processes: who uses an end, what the other end sees of drops, closes and deaths, threads, time-outs, large messages, handles.

mod common_queue;

use common_queue::{LIMIT, eventually, sleeps_on};
use multiproc::{Connection, PipeBuilder, PipeReceiver, PipeSender, Process, Queue, RecvError, one_way, pipe, testing};
use multiproc_tests::watch;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

type There = Connection<u64, u64>;

fn echo(there: There) -> u64 {
    let mut n = 0;
    for message in &there {
        there.send(message.unwrap()).unwrap();
        n += 1;
    }
    n
}

/// Says hello and waits for ever.
fn stay(there: There) {
    there.send(7).unwrap();
    let _ = there.recv();
}

#[test]
fn a_pipe_carries_both_ways_in_order() {
    let _watched = watch(60);
    let (here, there) = pipe::<u64, u64>().unwrap();
    let worker = Process::spawn((there,), echo).unwrap();
    for n in 0..2000 {
        here.send(n).unwrap();
        assert_eq!(here.recv().unwrap(), n);
    }
    for n in 0..100 {
        here.send(n).unwrap();
    }
    assert!((0..100).all(|n| here.recv().unwrap() == n));
    assert_eq!(here.peer_pid(), Some(worker.pid()));
    drop(here);
    assert_eq!(worker.join().unwrap(), 2100);
}

#[test]
fn both_ends_go_to_children_and_the_parent_keeps_copies_or_none() {
    let _watched = watch(60);
    for keep in [false, true] {
        let (a, b) = pipe::<u64, u64>().unwrap();
        let copies = keep.then(|| (a.clone(), b.clone()));
        let asks = Process::spawn((a,), |a: Connection<u64, u64>| {
            (1..=100).map(|n| a.send(n).map(|()| a.recv().unwrap()).unwrap()).sum::<u64>()
        })
        .unwrap();
        let answers = Process::spawn((b,), |b: There| {
            for n in 1..=100 {
                assert_eq!(b.recv().unwrap(), n);
                b.send(n * 2).unwrap();
            }
        })
        .unwrap();
        assert_eq!(asks.join().unwrap(), 10_100);
        answers.join().unwrap();
        drop(copies);
    }
}

#[test]
fn the_end_of_the_data_comes_after_the_data() {
    let _watched = watch(60);
    let (tx, rx) = one_way::<u64>().unwrap();
    let p = Process::spawn((tx,), |tx: PipeSender<u64>| (0..50).for_each(|n| tx.send(n).unwrap())).unwrap();
    assert_eq!(rx.iter().collect::<Result<Vec<_>, _>>().unwrap(), (0..50).collect::<Vec<_>>());
    assert!(matches!(rx.recv(), Err(RecvError::Eof)));
    assert!(matches!(rx.try_recv(), Err(RecvError::Eof)));
    assert!(rx.poll(Duration::ZERO).unwrap());
    p.join().unwrap();

    // The sender that exits without dropping anything leaves in good order, too.
    let (tx, rx) = one_way::<u64>().unwrap();
    let p = Process::spawn((tx,), |tx: PipeSender<u64>| -> () {
        tx.send(1).unwrap();
        std::process::exit(0);
    })
    .unwrap();
    assert_eq!(rx.recv().unwrap(), 1);
    assert!(matches!(rx.recv(), Err(RecvError::Eof)));
    assert!(p.join().is_err());

    // Also while others have handles of its end.
    let (tx, rx) = one_way::<u64>().unwrap();
    let p = Process::spawn((tx.clone(),), |tx: PipeSender<u64>| -> () {
        tx.send(1).unwrap();
        std::process::exit(0);
    })
    .unwrap();
    assert!(p.join().is_err());
    assert_eq!(rx.recv().unwrap(), 1);
    assert!(matches!(rx.try_recv(), Err(RecvError::WouldBlock)), "the end is anybody's");
    tx.send(2).unwrap();
    assert_eq!(rx.recv().unwrap(), 2);
    drop(tx);
    assert!(matches!(rx.recv(), Err(RecvError::Eof)));
}

#[test]
fn a_sender_sees_that_nobody_will_receive() {
    let _watched = watch(60);
    let (tx, rx) = one_way::<String>().unwrap();
    tx.send("before".into()).unwrap();
    drop(rx);
    let e = tx.send("after".into()).unwrap_err();
    assert!(e.is_broken_pipe() && e.peer_died().is_none(), "{e}");
    assert_eq!(e.into_inner(), "after");

    // Also while it waits for room.
    let (tx, rx) = PipeBuilder::new().ring_bytes(16 << 10).one_way::<u64>().unwrap();
    let id = tx.id();
    let p = Process::spawn((tx,), |tx: PipeSender<u64>| {
        let e = (0..).find_map(|n| tx.send(n).err()).unwrap();
        (e.is_broken_pipe(), e.into_inner())
    })
    .unwrap();
    assert!(eventually(LIMIT, || sleeps_on(p.pid(), id)));
    drop(rx);
    let (broken, sent) = p.join().unwrap();
    assert!(broken && (500..1024).contains(&sent), "{broken} {sent}");
}

#[test]
fn a_dead_peer_is_told_from_the_end() {
    let _watched = watch(60);
    for keep in [false, true] {
        let (here, there) = pipe::<u64, u64>().unwrap();
        let copy = keep.then(|| there.clone());
        let p = Process::spawn((there,), stay).unwrap();
        let pid = p.pid();
        assert!(eventually(LIMIT, || sleeps_on(pid, here.id())));
        p.kill().unwrap();
        p.wait();
        assert!(here.poll(LIMIT).unwrap());
        assert_eq!(here.recv().unwrap(), 7, "what it sent before comes first");
        for _ in 0..2 {
            let e = here.recv().unwrap_err();
            assert_eq!(e.peer_died(), Some(pid), "{e}");
        }
        let e = here.send(1).unwrap_err();
        assert!(e.is_broken_pipe() && e.peer_died() == Some(pid), "{e}");
        assert_eq!(here.iter().map(|r| r.unwrap_err().peer_died()).collect::<Vec<_>>(), [Some(pid)]);
        drop(copy);
        assert_eq!(here.recv().unwrap_err().peer_died(), Some(pid));
    }
}

/// Nobody cleans up, and nothing sleeps in slices: the kernel wakes who waits for a process that dies.
#[test]
fn a_death_ends_a_wait_without_anybody_elses_help() {
    let _watched = watch(60);
    let _one = common_queue::alone();
    let (here, there) = pipe::<u64, u64>().unwrap();
    let (other, beyond) = pipe::<u64, u64>().unwrap();
    let p = Process::spawn((there, beyond), |a: There, b: There| {
        a.send(1).unwrap();
        b.send(1).unwrap();
        let _ = a.recv();
    })
    .unwrap();
    for end in [&here, &other] {
        assert_eq!(end.recv().unwrap(), 1);
    }
    std::thread::scope(|s| {
        // Several sleep on the one life word.
        let waits = [&here, &other, &here].map(|end| s.spawn(move || end.recv().unwrap_err().peer_died()));
        let full = s.spawn(|| (0..).find_map(|n| other.send(n).err()).unwrap().peer_died());
        assert!(eventually(LIMIT, || sleeps_on(p.pid(), here.id())));
        let hold = testing::hold_collections().unwrap();
        p.kill().unwrap();
        for wait in waits.into_iter().chain([full]) {
            assert_eq!(wait.join().unwrap(), Some(p.pid()));
        }
        drop(hold);
    });
    p.wait();
}

#[test]
fn the_same_on_an_old_kernel() {
    let _watched = watch(60);
    let (here, there) = pipe::<u64, u64>().unwrap();
    let (tell, told) = one_way::<Option<u32>>().unwrap();
    let id = here.id();
    let watcher = Process::builder().env("MULTIPROC_FORCE_OLD_KERNEL", "futex-waitv");
    let watcher = watcher
        .spawn((here, tell), |here: Connection<u64, u64>, tell: PipeSender<Option<u32>>| {
            tell.send(None).unwrap();
            assert_eq!(here.recv().unwrap(), 7);
            tell.send(here.recv().unwrap_err().peer_died()).unwrap();
        })
        .unwrap();
    assert_eq!(told.recv().unwrap(), None);
    let p = Process::spawn((there,), stay).unwrap();
    assert!(eventually(LIMIT, || sleeps_on(p.pid(), id)));
    p.kill().unwrap();
    assert_eq!(told.recv().unwrap(), Some(p.pid()));
    watcher.join().unwrap();
}

#[test]
fn who_had_an_end_and_died_before_using_it_was_its_last_hope() {
    let _watched = watch(60);
    let (here, there) = pipe::<u64, u64>().unwrap();
    let (tell, told) = one_way::<()>().unwrap();
    let p = Process::spawn((there, tell), |_there: There, tell: PipeSender<()>| -> () {
        tell.send(()).unwrap();
        loop {
            std::thread::park();
        }
    })
    .unwrap();
    told.recv().unwrap();
    assert!(matches!(here.recv_timeout(Duration::from_millis(20)), Err(RecvError::TimedOut)));
    here.send(1).unwrap();
    p.kill().unwrap();
    assert_eq!(here.recv().unwrap_err().peer_died(), Some(p.pid()));
    assert_eq!(here.send(1).unwrap_err().peer_died(), Some(p.pid()));
}

#[test]
fn an_end_in_use_is_refused_until_it_is_let_go() {
    let _watched = watch(60);
    let (here, there) = pipe::<u64, u64>().unwrap();
    let p = Process::spawn((there.clone(),), echo).unwrap();
    here.send(1).unwrap();
    assert_eq!(here.recv().unwrap(), 1);
    assert!(matches!(there.recv(), Err(RecvError::InUse { pid, .. }) if pid == p.pid()));
    assert!(matches!(there.poll(Duration::ZERO), Err(RecvError::InUse { .. })));
    let e = there.try_send(1).unwrap_err();
    assert_eq!((e.in_use_by(), e.into_inner()), (Some(p.pid()), 1));

    // Dropped there, it can be used here; what is on its way is not lost.
    let (a, b) = pipe::<u64, u64>().unwrap();
    let q = Process::spawn((b.clone(),), |b: There| {
        assert_eq!(b.recv().unwrap(), 1);
        b.send(10).unwrap();
    })
    .unwrap();
    a.send(1).unwrap();
    a.send(2).unwrap();
    q.join().unwrap();
    b.send(20).unwrap();
    assert_eq!(b.recv().unwrap(), 2);
    assert_eq!((a.recv().unwrap(), a.recv().unwrap()), (10, 20));
    drop((b, here));
    p.join().unwrap();
    assert!(matches!(a.recv(), Err(RecvError::Eof)));
}

/// Who gets an end in a message may use it at once, though the sender has not come round to dropping what it put.
#[test]
fn an_end_that_is_handed_on_is_free_when_it_arrives() {
    let _watched = watch(60);
    let hand_over = Queue::<Option<There>>::bounded(1).unwrap();
    let back = Queue::<There>::bounded(1).unwrap();
    let p = Process::spawn((hand_over.clone(), back.clone()), |hand_over: Queue<Option<There>>, back: Queue<There>| {
        while let Some(end) = hand_over.get().unwrap() {
            end.send(end.recv().unwrap() + 1).unwrap();
            back.put(end).unwrap();
        }
    })
    .unwrap();
    let (a, mut b) = pipe::<u64, u64>().unwrap();
    for n in 0..300 {
        a.send(n).unwrap();
        a.send(n).unwrap();
        assert_eq!(b.recv().unwrap(), n);
        hand_over.put(Some(b)).unwrap();
        b = back.get().unwrap();
        assert_eq!(a.recv().unwrap(), n + 1);
    }
    // A message that does not leave changes nothing, nor does one that leaves a handle here, while nobody else uses it.
    let full = Queue::<There>::bounded(1).unwrap();
    full.put(b.clone()).unwrap();
    b.send(1).unwrap();
    let b = full.try_put(b).unwrap_err().into_inner();
    b.send(2).unwrap();
    assert_eq!((a.recv().unwrap(), a.recv().unwrap()), (1, 2));
    hand_over.put(None).unwrap();
    p.join().unwrap();
}

#[test]
fn who_takes_over_from_the_dead_is_announced() {
    let _watched = watch(60);
    let (a, b) = pipe::<u64, u64>().unwrap();
    let mut dead = Vec::new();
    for n in 0..3 {
        let p = Process::spawn((b.clone(), n), |b: There, n: u64| -> () {
            b.send(n * 10).unwrap();
            b.send(n * 10 + 1).unwrap();
            std::process::abort();
        })
        .unwrap();
        p.wait();
        dead.push(p.pid());
    }
    b.send(99).unwrap();
    for (n, pid) in dead.iter().enumerate() {
        for i in 0..2 {
            assert_eq!(a.recv().unwrap(), n as u64 * 10 + i);
        }
        assert_eq!(a.recv().unwrap_err().peer_died(), Some(*pid));
    }
    assert_eq!(a.recv().unwrap(), 99);
    assert!(matches!(a.try_recv(), Err(RecvError::WouldBlock)));
    a.send(1).unwrap();
    assert_eq!(b.recv().unwrap(), 1);
    drop(b);
    assert!(matches!(a.recv(), Err(RecvError::Eof)));
}

#[test]
fn a_full_pipe_is_taken_over_as_well() {
    let _watched = watch(60);
    let (tx, rx) = PipeBuilder::new().ring_bytes(16 << 10).one_way::<u64>().unwrap();
    let mut sent = Vec::new();
    for _ in 0..4 {
        let p = Process::spawn((tx.clone(),), |tx: PipeSender<u64>| -> () {
            let _ = (0..).find_map(|n| tx.try_send(n).err());
            std::process::abort();
        })
        .unwrap();
        p.wait();
        sent.push(p.pid());
        // Makes room for a few, so that the next dies of a full pipe again.
        if sent.len() == 2 {
            assert!((0..20).all(|n| rx.recv().unwrap() == n));
        }
    }
    drop(tx);
    let mut deaths = Vec::new();
    let mut numbers = 0;
    loop {
        match rx.recv() {
            Ok(_) => numbers += 1,
            Err(RecvError::PeerDied { pid, .. }) if deaths.last() != Some(&pid) => deaths.push(pid),
            Err(RecvError::PeerDied { .. }) => break,
            Err(e) => panic!("{e}"),
        }
    }
    // The second found no room for a message of its own: its death is not told apart from that of the first.
    assert!(numbers > 1000 && deaths.len() >= 2 && deaths.last() == sent.last(), "{numbers} {deaths:?} {sent:?}");
}

#[test]
fn threads_share_an_end_and_sending_does_not_wait_for_receiving() {
    let _watched = watch(60);
    let (here, there) = pipe::<u64, u64>().unwrap();
    let p = Process::spawn((there,), echo).unwrap();
    std::thread::scope(|s| {
        let receiver = s.spawn(|| (0..4000).map(|_| here.recv().unwrap()).sum::<u64>());
        for t in 0..4 {
            let here = here.clone();
            s.spawn(move || (0..1000).for_each(|n| here.send(t * 1000 + n).unwrap()));
        }
        assert_eq!(receiver.join().unwrap(), (0..4000).sum::<u64>());
    });
    // Whoever of two gets the turn, the other waits for it; both as long as they want.
    std::thread::scope(|s| {
        let waits = s.spawn(|| here.recv().unwrap());
        let start = Instant::now();
        assert!(matches!(here.try_recv(), Err(RecvError::WouldBlock)));
        assert!(matches!(here.recv_timeout(Duration::from_millis(20)), Err(RecvError::TimedOut)));
        assert!(start.elapsed() >= Duration::from_millis(20));
        here.send(5).unwrap();
        assert_eq!(waits.join().unwrap(), 5);
    });
    drop(here);
    p.join().unwrap();
}

#[test]
fn time_outs_are_never_early_and_nothing_is_lost_by_them() {
    let _watched = watch(60);
    let (a, b) = PipeBuilder::new().ring_bytes(16 << 10).pipe::<u64, u64>().unwrap();
    let timeout = Duration::from_millis(20);
    let waits = |what: &mut dyn FnMut()| {
        let start = Instant::now();
        what();
        assert!(start.elapsed() >= timeout);
    };
    waits(&mut || assert!(a.recv_timeout(timeout).unwrap_err().is_timeout()));
    waits(&mut || assert!(a.recv_deadline(Instant::now() + timeout).unwrap_err().is_timeout()));
    waits(&mut || assert!(!a.poll(timeout).unwrap()));
    waits(&mut || assert!(a.recv_bytes_timeout(timeout).unwrap_err().is_timeout()));
    assert!(a.try_recv().unwrap_err().is_would_block());
    let mut n = 0;
    while a.try_send(n).is_ok() {
        n += 1;
    }
    assert!(a.try_send(n).unwrap_err().is_would_block());
    waits(&mut || assert_eq!(a.send_timeout(n, timeout).map_err(|e| (e.is_timeout(), e.into_inner())), Err((true, n))));
    waits(&mut || assert!(a.send_deadline(n, Instant::now() + timeout).unwrap_err().is_timeout()));
    waits(&mut || assert!(a.send_bytes_timeout(&[0; 8], timeout).unwrap_err().is_timeout()));
    assert!(b.poll(Duration::ZERO).unwrap());
    assert!((0..n).all(|n| b.try_recv().unwrap() == n));
    assert!(!b.poll(Duration::ZERO).unwrap());
    a.send_timeout(n, timeout).unwrap();
    assert_eq!(b.recv_timeout(LIMIT).unwrap(), n);
}

#[test]
fn closing_ends_it_for_everybody() {
    let _watched = watch(60);
    let (a, b) = pipe::<u64, u64>().unwrap();
    let p = Process::spawn((b.clone(),), |b: There| {
        let error = b.recv().unwrap_err();
        (error.is_end(), b.send(1).unwrap_err().is_closed())
    })
    .unwrap();
    assert!(eventually(LIMIT, || sleeps_on(p.pid(), b.id())));
    // Closed here, where it is only kept, while another process waits there.
    b.close().unwrap();
    assert_eq!(p.join().unwrap(), (true, true));
    assert!(matches!(a.recv(), Err(RecvError::Eof)));
    assert!(a.send(1).unwrap_err().is_broken_pipe());
    assert!(matches!(b.recv(), Err(RecvError::Closed)));

    let (a, b) = pipe::<u64, u64>().unwrap();
    a.send(1).unwrap();
    a.close().unwrap();
    assert!(a.send(2).unwrap_err().is_closed());
    assert_eq!(b.recv().unwrap(), 1);
    assert!(matches!(b.recv(), Err(RecvError::Eof)));
    assert!(matches!(a.recv(), Err(RecvError::Closed)));
}

#[test]
fn bytes_and_values_keep_their_order_and_are_told_apart() {
    let _watched = watch(60);
    let (a, b) = pipe::<String, u64>().unwrap();
    let large = vec![3; 100_000];
    a.send_bytes(b"").unwrap();
    a.send_ref("text").unwrap();
    a.send_bytes(&large).unwrap();
    a.send_ref("lost").unwrap();
    a.send_bytes(&large).unwrap();
    a.try_send_bytes(b"end").unwrap();
    assert_eq!(b.recv_bytes().unwrap(), b"");
    assert_eq!(b.recv().unwrap(), "text");
    assert_eq!(b.try_recv_bytes().unwrap(), large);
    assert!(matches!(b.recv_bytes(), Err(RecvError::Decode(_))));
    assert!(matches!(b.recv(), Err(RecvError::Decode(_))));
    assert_eq!(b.recv_bytes_timeout(LIMIT).unwrap(), b"end");

    // A type that refuses what it gets does not stop the pipe.
    #[derive(Debug, Serialize, Deserialize)]
    struct Even(#[serde(deserialize_with = "even")] u64);
    fn even<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        let n = u64::deserialize(d)?;
        if n % 2 == 0 { Ok(n) } else { Err(serde::de::Error::custom("odd")) }
    }
    let (tx, rx) = one_way::<Even>().unwrap();
    for n in [1, 2] {
        tx.send(Even(n)).unwrap();
    }
    assert!(matches!(rx.recv(), Err(RecvError::Decode(_))));
    assert_eq!(rx.recv().unwrap().0, 2);
}

#[test]
fn every_size_passes_round_the_ring() {
    let _watched = watch(120);
    let (tx, rx) = PipeBuilder::new().ring_bytes(16 << 10).one_way::<Vec<u8>>().unwrap();
    let sizes = || (0..3000).map(|n: usize| n * 7 % 5000);
    let p = Process::spawn((rx,), |rx: PipeReceiver<Vec<u8>>| {
        for (n, got) in rx.iter().enumerate() {
            let got = got.unwrap();
            assert!(got.len() == n * 7 % 5000 && got.iter().all(|b| *b == n as u8), "message {n}");
        }
    })
    .unwrap();
    for (n, size) in sizes().enumerate() {
        tx.send_ref(vec![n as u8; size].as_slice()).unwrap();
    }
    drop(tx);
    p.join().unwrap();
}

#[derive(Debug, Serialize, Deserialize)]
struct Parcel {
    reply: PipeSender<u64>,
    queue: Queue<u64>,
    pad: Vec<u8>,
}

#[test]
fn handles_travel_through_pipes() {
    let _watched = watch(60);
    let (tx, rx) = one_way::<Parcel>().unwrap();
    let p = Process::spawn((rx,), |rx: PipeReceiver<Parcel>| {
        for parcel in &rx {
            let parcel = parcel.unwrap();
            parcel.reply.send(parcel.queue.get().unwrap() + parcel.pad.len() as u64).unwrap();
        }
    })
    .unwrap();
    for pad in [0, 10, 10_000] {
        let (reply, answer) = one_way().unwrap();
        let queue = Queue::bounded(1).unwrap();
        queue.put(1).unwrap();
        tx.send(Parcel { reply, queue, pad: vec![0; pad] }).unwrap();
        assert_eq!(answer.recv().unwrap(), 1 + pad as u64);
        assert!(matches!(answer.recv(), Err(RecvError::Eof)));
    }
    drop(tx);
    p.join().unwrap();
}

#[test]
fn nothing_is_left_over() {
    let _watched = watch(60);
    let _one = common_queue::alone();
    let quiet = || testing::collect().and_then(|()| testing::audit()).unwrap();
    let before = quiet();
    {
        // Undelivered messages with and without handles; an end inside its own pipe.
        let (a, b) = pipe::<Parcel, Option<Connection<u64, u64>>>().unwrap();
        let queue = Queue::bounded(1).unwrap();
        for pad in [0, 10_000] {
            let reply = one_way().unwrap().0;
            a.send(Parcel { reply, queue: queue.clone(), pad: vec![0; pad] }).unwrap();
        }
        b.send(None).unwrap();
        let (c, d) = pipe::<u64, u64>().unwrap();
        b.send(Some(c)).unwrap();
        d.send(1).unwrap();
        #[derive(Serialize, Deserialize)]
        struct Own(Option<Box<PipeReceiver<Own>>>);
        let (tx, rx) = one_way::<Own>().unwrap();
        tx.send(Own(Some(Box::new(rx)))).unwrap();
    }
    let mut after = quiet();
    assert!(
        eventually(LIMIT, || {
            after = quiet();
            after == before
        }),
        "{before:?} became {after:?}"
    );
}

#[test]
fn a_handle_of_one_end_is_not_taken_for_the_other() {
    let _watched = watch(60);
    /// Goes in as one end and is read as the other.
    #[derive(Debug)]
    struct Crossed(Option<Connection<u8, u16>>);
    impl Serialize for Crossed {
        fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            self.0.as_ref().unwrap().serialize(s)
        }
    }
    impl<'de> Deserialize<'de> for Crossed {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            Connection::<u16, u8>::deserialize(d).map(|_| Crossed(None))
        }
    }
    let (a, b) = pipe::<u8, u16>().unwrap();
    let q = Queue::<Crossed>::bounded(1).unwrap();
    q.put(Crossed(Some(a))).unwrap();
    assert!(matches!(q.get(), Err(multiproc::GetError::Decode(_))));
    assert!(matches!(b.recv(), Err(RecvError::Eof)));
    assert!(serde_json::to_string(&b).unwrap_err().to_string().contains("multiproc"));
}

/// A message of 3 GiB, where the machine has the memory for it.
#[test]
fn three_gibibytes_in_one_message() {
    let _watched = watch(900);
    let free = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = free.lines().find_map(|l| l.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let (_, limit) = testing::usage().unwrap();
    const SIZE: u64 = 3 << 30;
    if free.is_none_or(|kib| kib < 16 << 20) || limit < SIZE + (1 << 30) {
        eprintln!("skipped: a message of 3 GiB needs 16 GiB of free memory, and there are {free:?} KiB");
        return;
    }
    let _one = common_queue::alone();
    let (tx, rx) = PipeBuilder::new().max_message(SIZE).codec::<Stream>().one_way::<Pages>().unwrap();
    let p = Process::spawn((rx,), |rx: PipeReceiver<Pages, Stream>| rx.recv().unwrap().0).unwrap();
    assert!(tx.send_ref(&Pages(SIZE / PAGE + 1)).unwrap_err().is_too_large());
    tx.send_ref(&Pages(SIZE / PAGE)).unwrap();
    assert_eq!(p.join().unwrap(), SIZE / PAGE);
}

const PAGE: u64 = 4096;

/// So many pages, each with its number in front; in memory only their count, as a message all of them.
struct Pages(u64);

/// Writes the pages straight into the message and reads them where they lie, so that the message is the only copy.
struct Stream;

fn page(number: u64) -> [u8; PAGE as usize] {
    let mut page = [0xa5; PAGE as usize];
    page[..8].copy_from_slice(&number.to_le_bytes());
    page
}

impl multiproc::Codec<Pages> for Stream {
    const READS_ONCE: bool = true;

    fn encode(pages: &Pages, into: &mut multiproc::Buffer) -> Result<(), multiproc::CodecError> {
        into.reserve((pages.0 * PAGE) as usize);
        (0..pages.0).try_for_each(|n| into.append(&page(n)))
    }

    fn decode(bytes: &[u8]) -> Result<Pages, multiproc::CodecError> {
        let (pages, rest) = bytes.as_chunks();
        let whole = rest.is_empty() && (0..).zip(pages).all(|(n, p)| *p == page(n));
        if whole { Ok(Pages(pages.len() as u64)) } else { Err(multiproc::CodecError::decode("not the pages that were sent")) }
    }
}
