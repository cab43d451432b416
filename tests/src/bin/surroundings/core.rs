//! The core of multiproc, each part once: what must hold wherever it runs.

use multiproc::{
    Atomic, Connection, Event, GetError, Lock, LockError, Process, ProcessError, Queue, Receiver, Semaphore, Sender, Value, pipe,
};
use multiproc_tests::eventually;
use std::time::Duration;

/// Panics where something does not hold.
pub fn everything() {
    functions();
    ways_to_end();
    messages();
    a_lease_comes_again();
    the_dead_wake_who_waits();
    pipes();
    shared_state();
    arguments_of_many_pages();
}

fn functions() {
    let nested = |n: u64| Process::spawn((n,), |n: u64| n + 1).unwrap().join().unwrap() + 1;
    assert_eq!(Process::spawn((40,), nested).unwrap().join().unwrap(), 42);
}

pub fn for_ever() {
    loop {
        std::thread::park();
    }
}

fn ways_to_end() {
    let exits = Process::spawn((), || std::process::exit(5 + std::hint::black_box(0))).map(Process::<()>::join);
    assert!(matches!(exits, Ok(Err(ProcessError::Exited { code: 5, .. }))), "{exits:?}");
    let panics = Process::spawn((), || {
        std::panic::set_hook(Box::new(|_| {}));
        if std::hint::black_box(true) {
            panic!("as asked")
        }
    });
    let panics = panics.unwrap().join();
    assert!(matches!(&panics, Err(ProcessError::Panicked { message, .. }) if message == "as asked"), "{panics:?}");
    let killed = Process::spawn((), for_ever).unwrap();
    killed.kill().unwrap();
    let killed = killed.join();
    assert!(matches!(&killed, Err(ProcessError::Signaled { signal, .. }) if signal.to_string() == "SIGKILL"), "{killed:?}");
}

/// Both sides wait for each other again and again: the queues are short.
fn messages() {
    let (there, back) = (Queue::<(u64, String)>::bounded(2).unwrap(), Queue::<u64>::bounded(1).unwrap());
    let echo = |there: Receiver<(u64, String)>, back: Sender<u64>| {
        for message in &there {
            let (n, text) = message.unwrap();
            back.put(n + text.len() as u64).unwrap();
        }
    };
    let echo = Process::spawn((there.receiver().unwrap(), back.sender().unwrap()), echo).unwrap();
    let back = back.receiver().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..100u64 {
                there.put((n, "x".repeat((n as usize % 3) * 50_000))).unwrap();
            }
            there.close().unwrap();
        });
        for n in 0..100u64 {
            assert_eq!(back.get().unwrap(), n + (n % 3) * 50_000);
        }
    });
    echo.join().unwrap();
}

fn a_lease_comes_again() {
    let (jobs, done) = (Queue::<u32>::bounded(4).unwrap(), Queue::<u32>::bounded(4).unwrap());
    let hold = |jobs: Queue<u32>, done: Queue<u32>| {
        let lease = jobs.lease().unwrap();
        done.put(*lease).unwrap();
        for_ever();
    };
    let holder = Process::spawn((jobs.clone(), done.clone()), hold).unwrap();
    jobs.put(7).unwrap();
    assert_eq!(done.get().unwrap(), 7);
    assert!(matches!(jobs.try_get(), Err(GetError::Empty | GetError::WouldBlock)));
    holder.kill().unwrap();
    let again = jobs.lease().unwrap();
    assert_eq!((*again, again.attempt()), (7, 2));
    again.ack();
    assert!(holder.join().is_err());
}

/// Somebody sleeps for what a dead process would have given.
fn the_dead_wake_who_waits() {
    let (lock, ready) = (Lock::new().unwrap(), Queue::<()>::bounded(4).unwrap());
    let hold = |lock: Lock, ready: Queue<()>| {
        let _held = lock.lock().unwrap();
        ready.put(()).unwrap();
        for_ever();
    };
    let owner = Process::spawn((lock.clone(), ready.clone()), hold).unwrap();
    ready.get().unwrap();
    let wait = |lock: Lock, ready: Queue<()>| {
        ready.put(()).unwrap();
        let died = matches!(lock.lock(), Err(LockError::OwnerDied(_)));
        drop(lock.recover().unwrap().make_consistent());
        died
    };
    let waiter = Process::spawn((lock.clone(), ready.clone()), wait).unwrap();
    ready.get().unwrap();
    let_it_sleep(waiter.pid());
    owner.kill().unwrap();
    assert!(waiter.join().unwrap());
    drop(lock.lock().unwrap());
    assert!(owner.join().is_err());

    // The getter that sleeps first keeps the others behind it, and is killed.
    let queue = Queue::<u32>::bounded(4).unwrap();
    let get = |queue: Queue<u32>, ready: Queue<()>| {
        ready.put(()).unwrap();
        queue.get().unwrap()
    };
    let first = Process::spawn((queue.clone(), ready.clone()), get).unwrap();
    ready.get().unwrap();
    let_it_sleep(first.pid());
    let second = Process::spawn((queue.clone(), ready.clone()), get).unwrap();
    ready.get().unwrap();
    let_it_sleep(second.pid());
    first.kill().unwrap();
    queue.put(9).unwrap();
    assert_eq!(second.join().unwrap(), 9);
    assert!(first.join().is_err());

    let senders = Queue::<u32>::bounded(4).unwrap();
    let (sender, receiver) = (senders.sender().unwrap(), senders.receiver().unwrap());
    drop(senders);
    let keep = |_sender: Sender<u32>| for_ever();
    let last = Process::spawn((sender,), keep).unwrap();
    last.kill().unwrap();
    assert!(matches!(receiver.get(), Err(GetError::Disconnected)));
    assert!(last.join().is_err());
}

/// Who sleeps at an end is told what came, the end of the data, or the death of the other side.
fn pipes() {
    let (here, there) = pipe::<u32, u32>().unwrap();
    let answer = |there: Connection<u32, u32>| {
        for n in 0..20 {
            assert_eq!(there.recv().unwrap(), n);
            there.send(n + 1).unwrap();
        }
    };
    let peer = Process::spawn((there,), answer).unwrap();
    for n in 0..20 {
        here.send(n).unwrap();
        assert_eq!(here.recv().unwrap(), n + 1);
    }
    assert!(here.recv().unwrap_err().is_end());
    peer.join().unwrap();

    let (here, there) = pipe::<u32, u32>().unwrap();
    let say_one = |there: Connection<u32, u32>| {
        there.send(1).unwrap();
        for_ever();
    };
    let peer = Process::spawn((there,), say_one).unwrap();
    assert_eq!(here.recv().unwrap(), 1);
    let (pid, me) = (peer.pid(), std::process::id());
    let sleeper = std::thread::spawn(move || here.recv().unwrap_err().peer_died());
    eventually(|| multiproc::testing::waits_for(me).unwrap().is_some());
    peer.kill().unwrap();
    assert_eq!(sleeper.join().unwrap(), Some(pid));
    assert!(peer.join().is_err());
}

/// Until the main thread sleeps; for a while only, since /proc may show nothing, or the processes of another namespace.
fn let_it_sleep(pid: u32) {
    for _ in 0..200 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('S')) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn shared_state() {
    let (count, value) = (Atomic::new(0u64).unwrap(), Value::new([0u64; 4]).unwrap());
    let (event, permits) = (Event::new().unwrap(), Semaphore::new(2).unwrap());
    let work = |count: Atomic<u64>, value: Value<[u64; 4]>, event: Event, permits: Semaphore| {
        event.wait().unwrap();
        for _ in 0..50 {
            let _permit = permits.acquire().unwrap();
            count.add(1);
            value.update(|v| v.iter_mut().for_each(|n| *n += 1)).unwrap();
        }
    };
    let workers: Vec<_> =
        (0..3).map(|_| Process::spawn((count.clone(), value.clone(), event.clone(), permits.clone()), work).unwrap()).collect();
    event.set().unwrap();
    workers.into_iter().for_each(|w| w.join().unwrap());
    assert_eq!((count.get(), value.get().unwrap()), (150, [150; 4]));
    let take = |permits: Semaphore| {
        std::mem::forget(permits.acquire().unwrap());
        // SAFETY: ends the process.
        unsafe { libc::abort() }
    };
    let taker: Process<()> = Process::spawn((permits.clone(),), take).unwrap();
    assert!(taker.join().is_err());
    assert_eq!(permits.available(), 2);
}

fn arguments_of_many_pages() {
    let bytes: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let reversed = Process::spawn((bytes.clone(),), |mut bytes: Vec<u8>| {
        bytes.reverse();
        bytes
    });
    assert!(reversed.unwrap().join().unwrap().iter().rev().eq(&bytes));
}
