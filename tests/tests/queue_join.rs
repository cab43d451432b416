//! `join` of a queue: it returns when everything that was put is finished, and not before, whoever dies.

mod common_queue;

use common_queue::{LIMIT, alone, eventually, sleeps_on};
use multiproc::{Atomic, JoinError, Process, Queue, Receiver, Sender, channel, dump};
use std::time::{Duration, Instant};

/// Voluntary context switches of a process's main thread so far.
fn switches(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

fn joiner(q: &Queue<u32>) -> Process<bool> {
    let p = Process::spawn((q.clone(),), |q: Queue<u32>| q.join().is_ok()).unwrap();
    assert!(eventually(LIMIT, || sleeps_on(p.pid(), q.id())));
    p
}

#[test]
fn everything_put_is_waited_for_until_it_is_acknowledged() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let q = Queue::<u32>::bounded(10).unwrap();
    q.join().unwrap();
    let wait = Duration::from_millis(20);
    let not_yet = |q: &Queue<u32>| {
        let start = Instant::now();
        assert!(q.join_timeout(wait).unwrap_err().is_timeout());
        assert!(start.elapsed() >= wait);
        assert!(q.join_deadline(start).unwrap_err().is_timeout());
    };
    q.put(1).unwrap();
    q.put(2).unwrap();
    not_yet(&q);
    // A plain get is done at once.
    q.get().unwrap();
    not_yet(&q);
    let lease = q.lease().unwrap();
    assert!(q.is_empty());
    not_yet(&q);
    lease.requeue();
    not_yet(&q);
    let lease = q.lease().unwrap();
    not_yet(&q);
    lease.ack();
    q.join_timeout(Duration::ZERO).unwrap();
    // One that came back may also be got.
    q.put(3).unwrap();
    drop(q.lease().unwrap());
    not_yet(&q);
    q.get().unwrap();
    q.join().unwrap();
    assert_eq!(q.put_many(0..5).unwrap(), 5);
    not_yet(&q);
    assert_eq!(q.get_many(10).unwrap().len(), 5);
    q.sender().unwrap().join().unwrap();
    q.receiver().unwrap().join().unwrap();
}

#[test]
fn all_joiners_go_on_with_the_last_acknowledgement() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let q = Queue::<u32>::bounded(10).unwrap();
    (0..3).for_each(|n| q.put(n).unwrap());
    let joiners: Vec<_> = (0..3).map(|_| joiner(&q)).collect();
    std::thread::scope(|s| {
        let threads: Vec<_> = (0..2).map(|_| s.spawn(|| q.join().unwrap())).collect();
        let leases = [q.lease().unwrap(), q.lease().unwrap()];
        q.get().unwrap();
        leases.into_iter().for_each(|lease| _ = lease.ack());
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
    assert!(joiners.into_iter().all(|p| p.join().unwrap()));
}

#[test]
fn what_a_killed_worker_had_is_waited_for_until_another_has_done_it() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let q = Queue::<u32>::bounded(10).unwrap();
    q.put(7).unwrap();
    let worker = Process::spawn((q.receiver().unwrap(),), |q: Receiver<u32>| {
        let lease = q.lease().unwrap();
        q.join().unwrap();
        drop(lease);
    })
    .unwrap();
    // It waits for its own lease.
    assert!(eventually(LIMIT, || sleeps_on(worker.pid(), q.id())));
    let waiting = joiner(&q);
    worker.kill().unwrap();
    assert!(worker.join().is_err());
    assert_eq!((q.len(), q.unfinished()), (1, 1));
    let lease = q.lease().unwrap();
    assert_eq!((*lease, lease.attempt()), (7, 2));
    assert!(eventually(LIMIT, || sleeps_on(waiting.pid(), q.id())));
    lease.ack();
    assert!(waiting.join().unwrap());
}

#[test]
fn dead_letters_are_not_waited_for() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let q = Queue::<u32>::builder().attempts(2).build().unwrap();
    q.put(1).unwrap();
    drop(q.lease().unwrap());
    let last = q.lease().unwrap();
    let waiting = joiner(&q);
    drop(last);
    assert!(waiting.join().unwrap());
    // The same by a death.
    q.put(2).unwrap();
    drop(q.lease().unwrap());
    let worker = Process::spawn((q.clone(),), |q: Queue<u32>| {
        let _last = q.lease().unwrap();
        q.join().unwrap();
    })
    .unwrap();
    assert!(eventually(LIMIT, || sleeps_on(worker.pid(), q.id())));
    let waiting = joiner(&q);
    worker.kill().unwrap();
    assert!(worker.join().is_err());
    assert!(waiting.join().unwrap());
    assert_eq!(q.dead().unwrap().len(), 2);
}

#[test]
fn nobody_left_who_could_finish_it_is_an_error() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let (tx, rx) = channel::<u32>(10).unwrap();
    tx.put(1).unwrap();
    tx.put(2).unwrap();
    let waiting = Process::spawn((tx.clone(),), |tx: Sender<u32>| tx.join().unwrap_err().is_disconnected()).unwrap();
    assert!(eventually(LIMIT, || !dump().process(waiting.pid()).unwrap().waits.is_empty()));
    // A lease is a handle too.
    let lease = rx.lease().unwrap();
    drop(rx);
    assert!(tx.join_timeout(Duration::from_millis(5)).unwrap_err().is_timeout());
    lease.ack();
    assert!(waiting.join().unwrap());
    assert!(matches!(tx.join(), Err(JoinError::Disconnected)));
    // Finished is finished, though.
    let (tx, rx) = channel::<u32>(10).unwrap();
    tx.put(1).unwrap();
    rx.lease().unwrap().ack();
    drop(rx);
    tx.join().unwrap();
}

#[test]
fn a_closed_queue_is_joined_when_it_is_drained() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let q = Queue::<u32>::bounded(10).unwrap();
    q.put(1).unwrap();
    q.close().unwrap();
    let waiting = joiner(&q);
    assert_eq!(q.get().unwrap(), 1);
    assert!(waiting.join().unwrap());
}

#[test]
fn killed_joiners_swallow_nothing() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    for killed_late in [false, true] {
        let q = Queue::<u32>::bounded(10).unwrap();
        q.put(1).unwrap();
        let all: Vec<_> = (0..4).map(|_| joiner(&q)).collect();
        let (victims, others) = all.split_at(2);
        let kill = || victims.iter().for_each(|p| p.kill().unwrap());
        if !killed_late {
            kill();
        }
        q.lease().unwrap().ack();
        if killed_late {
            kill();
        }
        others.iter().for_each(|p| assert!(p.wait().is_some_and(|s| s.success())));
    }
}

#[test]
fn a_joiner_sleeps_while_work_goes_on() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let q = Queue::<u32>::bounded(10).unwrap();
    q.put(0).unwrap();
    let lease = q.lease().unwrap();
    let waiting = joiner(&q);
    let before = switches(waiting.pid());
    for n in 0..1000 {
        q.put(n).unwrap();
        q.put(n).unwrap();
        q.lease().unwrap().ack();
        q.get().unwrap();
    }
    assert_eq!(switches(waiting.pid()), before);
    lease.ack();
    assert!(waiting.join().unwrap());
}

#[test]
fn who_finish_the_last_two_at_the_same_time_do_not_count_on_each_other() {
    let _one = alone();
    let _watched = multiproc_tests::watch(300);
    const ROUNDS: u32 = 3000;
    let q = Queue::<u32>::bounded(10).unwrap();
    let workers: Vec<_> = [false, true]
        .map(|plain| {
            Process::spawn((q.receiver().unwrap(), plain), |q: Receiver<u32>, plain: bool| {
                // Each finishes in its own way.
                if plain { while q.get().is_ok() {} } else { while q.lease().map(|l| l.ack()).is_ok() {} }
            })
            .unwrap()
        })
        .into_iter()
        .collect();
    for n in 0..ROUNDS {
        q.put(n).unwrap();
        q.put(n).unwrap();
        q.join().unwrap();
        assert_eq!(q.unfinished(), 0);
    }
    q.close().unwrap();
    workers.into_iter().for_each(|p| p.join().unwrap());
}

#[test]
fn whoever_is_killed_everything_is_done_when_join_returns() {
    let _one = alone();
    let _watched = multiproc_tests::watch(300);
    const ITEMS: u64 = 300;
    fn work(q: Receiver<u64>, done: Atomic<u64>) {
        while let Ok(lease) = q.lease() {
            done.add(1);
            lease.ack();
        }
    }
    let q = Queue::<u64>::bounded(50).unwrap();
    let done = Atomic::new(0u64).unwrap();
    for round in 1..=5 {
        let spawn = || Process::spawn((q.receiver().unwrap(), done.clone()), work).unwrap();
        let mut workers: Vec<_> = (0..3).map(|_| spawn()).collect();
        let waiting = Process::spawn((q.sender().unwrap(),), |q: Sender<u64>| {
            (0..ITEMS).for_each(|n| q.put(n).unwrap());
            q.join().unwrap();
        })
        .unwrap();
        for _ in 0..10 {
            let victim = workers.remove(0);
            victim.kill().unwrap();
            victim.wait();
            workers.push(spawn());
        }
        waiting.join().unwrap();
        assert!(done.get() >= round * ITEMS && q.unfinished() == 0);
        for worker in workers {
            worker.kill().unwrap();
            worker.wait();
        }
        assert_eq!(q.unfinished(), 0);
    }
}

#[test]
fn a_dump_says_who_joins_and_who_could_finish() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let q = Queue::<u32>::bounded(10).unwrap();
    q.put(1).unwrap();
    let worker = Process::spawn((q.receiver().unwrap(),), |q: Receiver<u32>| {
        let lease = q.lease().unwrap();
        q.join().unwrap();
        lease.ack();
    })
    .unwrap();
    let find = || dump().process(worker.pid())?.waits.iter().find(|w| w.operation == "join").cloned();
    let mut wait = None;
    assert!(eventually(LIMIT, || {
        wait = find();
        wait.is_some()
    }));
    let wait = wait.unwrap();
    assert_eq!((wait.on, wait.state.as_str()), (format!("Queue {}", q.id()), "0 of 10 items"));
    assert!(wait.depends_on.iter().any(|p| p.pid == worker.pid()) && wait.held_by.is_none());
    // Who waits for its own lease, and is the only one who has the queue, waits for ever.
    drop(q);
    assert!(eventually(LIMIT, || {
        dump().circles().iter().any(|c| c.is_deadlock && c.links.iter().all(|l| l.process.pid == worker.pid()))
    }));
    worker.kill().unwrap();
    worker.wait();
}
