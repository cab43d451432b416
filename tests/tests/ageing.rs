//! Old age: counters that go round begin shortly before they wrap, and traffic with kills goes on across it.
//!
//! What the coordinator of this file makes is born old (`multiproc::testing::born_old`): item numbers and byte positions of queues, notifications of conditions, rounds of
//! barriers, versions of values, epochs of collections, generations of slots; positions of pipes are about to cross 2^61.
#![cfg(feature = "crash-points")]

use multiproc::testing::{audit, born_old, collect};
use multiproc::{
    Barrier, Condition, Event, PipeSender, Process, ProcessError, Queue, Receiver, Sender, Signal, Value, one_way, pipe,
};
use multiproc_tests::watch;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Steps before the wrap: few, so that each test is past it soon.
const BEFORE: u64 = 3;

/// From here on everything is born old, the arena first. One test at a time: some count what is left.
fn old() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    born_old(BEFORE);
    one
}

fn kill(process: Process<()>) {
    process.kill().expect("it is there");
    match process.join() {
        Err(ProcessError::Signaled { signal: Signal::KILL, .. }) => {}
        other => panic!("the victim: {other:?}"),
    }
}

/// Puts its number and a count, for ever.
fn put_on(sender: Sender<(u32, u32, Vec<u8>)>, me: u32, begun: Event) {
    for n in 0.. {
        // Now and then one that lies in a block.
        let bytes = if n % 7 == 0 { 6000 } else { 200 };
        sender.put((me, n, vec![me as u8; bytes])).expect("somebody gets");
        if n == 3 {
            begun.set().expect("a worker may set an event");
        }
    }
}

/// Kills putters across the wrap of whatever the queue counts; what comes is whole, in order, and never twice.
fn storm(queue: &Queue<(u32, u32, Vec<u8>)>) {
    let begun = |me| {
        let told = Event::new().expect("there is memory");
        let sender = queue.sender().expect("there is memory");
        (Process::spawn((sender, me, told.clone()), put_on).expect("a process starts"), told)
    };
    let mut last = std::collections::HashMap::new();
    let mut got = 0;
    let mut get = |at_least: usize| {
        let from = got;
        while got < from + at_least {
            let (who, n, bytes) = queue.get().expect("putters put");
            assert!(bytes.iter().all(|&b| b == who as u8), "a whole message");
            assert_eq!(last.insert(who, n).map_or(0, |last: u32| last + 1), n, "of putter {who}");
            got += 1;
        }
    };
    for round in 0..8 {
        let (victim, told) = begun(round);
        get(8);
        told.wait().expect("may wait");
        kill(victim);
        // What the victim had put, and more of the next.
        get(queue.len());
    }
}

#[test]
fn a_bounded_queue() {
    let _watched = watch(120);
    let _one = old();
    storm(&Queue::bounded(4).expect("there is memory"));
    storm(&Queue::builder().capacity(64).byte_limit(20_000).build().expect("there is memory"));
}

#[test]
fn an_unbounded_queue() {
    let _watched = watch(120);
    let _one = old();
    let queue = Queue::<Vec<u8>>::builder().unbounded().byte_limit(64 << 20).build().expect("there is memory");
    // Some segments' worth, so that positions come past the wrap with much in the queue and with little.
    for depth in [1, 40, 3000, 2] {
        for _ in 0..3 {
            let message = |n: u32| vec![n as u8; 1000 + n as usize % 1000];
            (0..depth).for_each(|n| queue.put(message(n)).expect("there is room"));
            assert_eq!(queue.len(), depth as usize);
            (0..depth).for_each(|n| assert_eq!(queue.get().expect("it was put"), message(n)));
        }
    }
    storm(&Queue::unbounded().expect("there is memory"));
}

fn lease_and_stay(jobs: Receiver<u64>, leased: Sender<u64>) {
    let lease = jobs.lease().expect("there is a job");
    leased.put(*lease).expect("somebody gets");
    loop {
        std::thread::park();
    }
}

#[test]
fn leases_come_back_in_order() {
    let _watched = watch(120);
    let _one = old();
    let (jobs, leased) =
        (Queue::<u64>::bounded(16).expect("there is memory"), Queue::<u64>::bounded(16).expect("there is memory"));
    (0..8).for_each(|n| jobs.put(n).expect("there is room"));
    // Some leased before the wrap and some behind it.
    let mut victims: Vec<_> = (0..6)
        .map(|n| {
            let args = (jobs.receiver().expect("there is memory"), leased.sender().expect("there is memory"));
            let victim = Process::spawn(args, lease_and_stay).expect("a process starts");
            assert_eq!(leased.get().expect("it tells"), n);
            victim
        })
        .collect();
    victims.drain(..).rev().for_each(kill);
    for n in 0..8 {
        let lease = jobs.lease().expect("it comes again");
        assert_eq!((*lease, lease.attempt()), (n, if n < 6 { 2 } else { 1 }));
        lease.ack();
    }
    assert_eq!((jobs.len(), jobs.leased(), jobs.take_losses()), (0, 0, 0));
    jobs.join().expect("all is done");
}

/// Sends numbers, for ever.
fn send_on(tx: PipeSender<u64>) {
    for n in 0.. {
        tx.send(n).expect("the other end is there");
    }
}

#[test]
fn a_pipe() {
    let _watched = watch(120);
    let _one = old();
    let (ours, theirs) = pipe::<Vec<u8>, Vec<u8>>().expect("there is memory");
    let echo = Process::spawn((theirs,), |end: multiproc::Connection<Vec<u8>, Vec<u8>>| {
        while let Ok(bytes) = end.recv() {
            end.send(bytes).expect("the other end is there");
        }
    })
    .expect("a process starts");
    // Several laps.
    for n in 0..2000_usize {
        let bytes = vec![n as u8; 1 + n * 37 % 3000];
        ours.send(bytes.clone()).expect("the other end is there");
        assert_eq!(ours.recv().expect("it comes back"), bytes);
    }
    kill(echo);
    assert!(ours.recv().expect_err("it has died").peer_died().is_some());

    // Killed while the ring is full, past some laps.
    let (tx, rx) = one_way::<u64>().expect("there is memory");
    let putter = Process::spawn((tx,), send_on).expect("a process starts");
    (0..100_000).for_each(|n| assert_eq!(rx.recv().expect("it sends"), n));
    kill(putter);
    let mut next = 100_000;
    while let Ok(n) = rx.recv() {
        assert_eq!(n, next);
        next += 1;
    }
}

#[test]
fn a_condition_and_a_barrier() {
    let _watched = watch(120);
    let _one = old();
    let (condition, barrier, turn) = (
        Condition::new().expect("there is memory"),
        Barrier::new(2).expect("there is memory"),
        Value::new(0_u32).expect("there is memory"),
    );
    let args = (condition.clone(), barrier.clone(), turn.clone());
    let partner = Process::spawn(args, |condition: Condition, barrier: Barrier, turn: Value<u32>| {
        for n in 0..10 {
            let guard = condition.lock().expect("nobody dies with the lock");
            let odd = || turn.get().expect("a value is whole") == 2 * n + 1;
            let guard = condition.wait_for(guard, odd).expect("nobody dies with the lock");
            turn.set(2 * n + 2).expect("nobody dies with the lock");
            condition.notify_one(&guard).expect("it has the lock");
            drop(guard);
            barrier.wait().expect("nobody dies");
        }
        loop {
            barrier.wait().expect("nobody dies");
        }
    })
    .expect("a process starts");
    for n in 0..10 {
        let guard = condition.lock().expect("nobody dies with the lock");
        turn.set(2 * n + 1).expect("nobody dies with the lock");
        condition.notify_all(&guard).expect("it has the lock");
        let even = || turn.get().expect("a value is whole") == 2 * n + 2;
        drop(condition.wait_for(guard, even).expect("nobody dies with the lock"));
        assert!(!barrier.is_broken());
        barrier.wait().expect("nobody dies");
    }
    kill(partner);
    assert!(barrier.wait().is_err(), "its partner has died");
    barrier.reset().expect("it can be reset");
}

#[test]
fn slots_and_collections() {
    let _watched = watch(120);
    let _one = old();
    // What earlier tests have left.
    collect().expect("it can be collected");
    let before = audit().expect("the arena is there");
    for n in 0..20 {
        // A queue within its own message is found by tracing alone, and travels through a process that dies with it.
        let knot = Queue::<Queue<u8>>::bounded(4).expect("there is memory");
        let inner = Queue::<u8>::bounded(4).expect("there is memory");
        inner.put(n).expect("there is room");
        knot.put(inner).expect("there is room");
        let victim = Process::spawn((knot.clone(),), |knot: Queue<Queue<u8>>| {
            let inner = knot.get().expect("it was put");
            knot.put(inner).expect("there is room");
            loop {
                std::thread::park();
            }
        })
        .expect("a process starts");
        collect().expect("it can be collected");
        let got = knot.get().expect("it is there");
        collect().expect("it can be collected");
        kill(victim);
        collect().expect("it can be collected");
        if !got.is_empty() {
            assert_eq!(got.get().expect("it was put"), n);
        }
    }
    collect().expect("it can be collected");
    let after = audit().expect("the arena is there");
    assert_eq!(format!("{:?}", after), format!("{before:?}"), "nothing is left");
}
