//! Who references what, over real processes and deaths: what must live lives, and what nobody can get at goes.
//!
//! Each test counts the tree's objects by kind before and after, so the tests take turns. `shm/tests/protocol_t.rs` models the protocol behind it.

use multiproc::{GetError, Lock, Process, Queue, Receiver, Sender, Signal, Stats, channel, testing};
use multiproc_tests::{eventually, watch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One test at a time looks at the whole arena.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Objects by kind, after a collection.
fn objects() -> BTreeMap<&'static str, u64> {
    counted(&multiproc::stats().unwrap())
}

fn counted(stats: &Stats) -> BTreeMap<&'static str, u64> {
    stats.kinds.iter().map(|k| (k.name, k.objects)).collect()
}

/// Waits until nothing is left but what was there before: the keeper of an ended process's parent may still be at it.
fn all_gone(before: &BTreeMap<&'static str, u64>) {
    let mut looks = 0;
    eventually(|| {
        looks += 1;
        if looks == 300 {
            eprintln!("still there, besides {before:?}: {}", multiproc::stats().unwrap());
        }
        objects() == *before
    });
}

fn die() -> ! {
    // SAFETY: ends this process.
    unsafe { libc::raise(libc::SIGKILL) };
    unreachable!()
}

/// Whether the process has stopped.
fn has_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T"))
}

/// A queue of queues, as deep as one likes.
#[derive(Serialize, Deserialize)]
struct Nest {
    inside: Queue<Nest>,
    lock: Lock,
}

impl Nest {
    fn holding(inside: &Queue<Nest>) -> Nest {
        Nest { inside: inside.clone(), lock: Lock::new().unwrap() }
    }
}

/// A in B, B in C, C in A, and A in itself.
fn make_cycle() -> Queue<Nest> {
    let [a, b, c] = [(); 3].map(|()| Queue::bounded(4).unwrap());
    b.put(Nest::holding(&a)).unwrap();
    c.put(Nest::holding(&b)).unwrap();
    a.put(Nest::holding(&c)).unwrap();
    a.put(Nest::holding(&a)).unwrap();
    a
}

#[test]
fn cycles_live_while_somebody_holds_one_of_them_and_go_with_the_last() {
    let (_one, _watch) = (alone(), watch(120));
    let before = objects();
    // In one process.
    let mut a = make_cycle();
    assert_eq!(objects()["Queue"], before.get("Queue").unwrap_or(&0) + 3);
    drop(make_cycle());
    for _ in 0..7 {
        // Once round and on: each of them is held for a while as the only one.
        let next = a.get().unwrap();
        a.put(Nest::holding(&next.inside)).unwrap();
        a = next.inside;
        let now = objects();
        assert_eq!(now["Queue"], before.get("Queue").unwrap_or(&0) + 3, "of {now:?}");
    }
    drop(a);
    all_gone(&before);
    // In one that is killed with it; another one has got it from there by a message.
    let out = Queue::<Queue<Nest>>::bounded(2).unwrap();
    let maker = |out: Queue<Queue<Nest>>| -> () {
        let _lost = make_cycle();
        out.put(make_cycle()).unwrap();
        die();
    };
    assert!(Process::spawn((out.clone(),), maker).unwrap().join().is_err());
    let a = out.get().unwrap();
    eventually(|| objects()["Queue"] == before.get("Queue").unwrap_or(&0) + 4);
    assert_eq!(a.get().unwrap().inside.get().unwrap().inside.len(), 1);
    drop((a, out));
    all_gone(&before);
}

type Carrier = Queue<Sender<u32>>;

/// A channel whose only sender lies in a message.
fn sender_in_transit() -> (Receiver<u32>, Carrier) {
    let (tx, rx) = channel::<u32>(4).unwrap();
    let carrier = Carrier::bounded(4).unwrap();
    carrier.put(tx).unwrap();
    (rx, carrier)
}

fn has_ended(rx: &Receiver<u32>) -> bool {
    testing::collect().unwrap();
    match rx.try_get() {
        Err(GetError::Empty) => false,
        Err(GetError::Disconnected) => true,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sender_in_a_message_keeps_its_channel_open_and_no_other_does() {
    let (_one, _watch) = (alone(), watch(120));
    let before = objects();
    // Taken out and used.
    let (rx, carrier) = sender_in_transit();
    assert!(!has_ended(&rx));
    let tx = carrier.get().unwrap();
    assert!(!has_ended(&rx));
    tx.put(7).unwrap();
    carrier.put(tx).unwrap();
    assert_eq!(rx.get().unwrap(), 7);
    // The message goes with its queue.
    drop(carrier);
    eventually(|| has_ended(&rx));
    drop(rx);
    // A process dies that had got it; two copies, of which the other is still under way.
    let (rx, carrier) = sender_in_transit();
    let tx = carrier.get().unwrap();
    carrier.put(tx.clone()).unwrap();
    carrier.put(tx).unwrap();
    let take_one = |carrier: Carrier| -> () {
        let _tx = carrier.get().unwrap();
        die();
    };
    assert!(Process::spawn((carrier.clone(),), take_one).unwrap().join().is_err());
    assert!(!has_ended(&rx), "one copy is still in a message");
    assert!(Process::spawn((carrier.clone(),), take_one).unwrap().join().is_err());
    eventually(|| has_ended(&rx));
    drop((rx, carrier));
    // On lease it comes back with its message.
    let (rx, carrier) = sender_in_transit();
    let lease = |carrier: Carrier| -> () {
        let _lease = carrier.lease().unwrap();
        die();
    };
    for attempt in 2..5 {
        assert!(Process::spawn((carrier.clone(),), lease).unwrap().join().is_err());
        assert!(!has_ended(&rx));
        assert_eq!(carrier.lease().unwrap().attempt(), attempt * 2 - 2);
    }
    carrier.get().unwrap().put(9).unwrap();
    assert_eq!(rx.get().unwrap(), 9);
    eventually(|| has_ended(&rx));
    drop((rx, carrier));
    all_gone(&before);
}

/// Its place in the roster is kept for the parent, which may come for the result; what it held is not.
#[test]
fn what_a_dead_child_held_goes_before_its_parent_asks_for_it() {
    let (_one, _watch) = (alone(), watch(120));
    let (tx, rx) = channel::<u32>(4).unwrap();
    let before = objects();
    let hold = |tx: Sender<u32>| -> () {
        let _own = Queue::<u32>::bounded(3).unwrap();
        tx.put(1).unwrap();
        die();
    };
    let p = Process::spawn((tx,), hold).unwrap();
    assert_eq!(rx.get().unwrap(), 1);
    assert!(p.wait().is_some());
    eventually(|| has_ended(&rx));
    all_gone(&before);
    assert!(p.join().is_err());
}

/// The next process has its place in the roster, and its bits there; objects come to stand where those of the dead stood.
#[test]
fn what_a_dead_process_held_is_not_held_by_its_successor() {
    const CHANNELS: usize = 40;
    let (_one, _watch) = (alone(), watch(120));
    let before = objects();
    let channels = || (0..CHANNELS).map(|_| channel::<u32>(2).unwrap()).collect::<Vec<_>>();
    let first = || -> () {
        let _all: Vec<_> = (0..CHANNELS).map(|_| channel::<u32>(2).unwrap()).collect();
        die();
    };
    assert!(Process::spawn((), first).unwrap().join().is_err());
    all_gone(&before);
    let carrier = Carrier::bounded(1).unwrap();
    let mine = channels().into_iter().map(|(tx, rx)| {
        // From now on only a collection can tell that nobody has it.
        carrier.put(tx).unwrap();
        (carrier.get().unwrap(), rx)
    });
    let mine: Vec<_> = mine.collect();
    let (up, is_up) = channel::<()>(1).unwrap();
    let second = |up: Sender<()>| -> () {
        // Some of them lie behind all of the others.
        let _own: Vec<_> = (0..2 * CHANNELS).map(|_| Queue::<u32>::bounded(1).unwrap()).collect();
        up.put(()).unwrap();
        loop {
            std::thread::park();
        }
    };
    let successor = Process::spawn((up,), second).unwrap();
    is_up.get().unwrap();
    let there = objects()["Queue"];
    for (tx, rx) in mine {
        assert!(!has_ended(&rx));
        drop(tx);
        eventually(|| has_ended(&rx));
    }
    eventually(|| objects()["Queue"] == there - CHANNELS as u64);
    successor.kill().unwrap();
    assert!(successor.join().is_err());
    drop((carrier, is_up));
    all_gone(&before);
}

#[test]
fn handles_in_arguments_and_results_live_as_long_as_they_can_be_fetched() {
    let (_one, _watch) = (alone(), watch(120));
    let before = objects();
    // A child that dies before it looks at its arguments; the parent has let go of what is in them.
    let p = Process::spawn((Lock::new().unwrap(), Queue::<u32>::bounded(1).unwrap()), |lock: Lock, _q| lock).unwrap();
    p.wait();
    // The result waits in the arena: the lock is nobody's but its.
    assert_eq!(objects().get("Lock"), Some(&(before.get("Lock").unwrap_or(&0) + 1)));
    let lock = p.join().unwrap();
    drop(lock.lock().unwrap());
    drop(lock);
    all_gone(&before);
    // A result that nobody fetches goes with the handle of the process.
    let p = Process::spawn((), || Lock::new().unwrap()).unwrap();
    p.wait();
    assert_eq!(objects().get("Lock"), Some(&(before.get("Lock").unwrap_or(&0) + 1)));
    drop(p);
    all_gone(&before);
}

#[derive(Serialize, Deserialize)]
struct Parcel {
    lock: Lock,
    inside: Queue<Lock>,
    /// So that it is sent as a block of its own.
    weight: Vec<u8>,
}

#[test]
fn a_lease_that_comes_back_brings_its_handles() {
    let (_one, _watch) = (alone(), watch(120));
    let before = objects();
    let q = Queue::<Parcel>::bounded(4).unwrap();
    for weight in [10, 10_000] {
        let inside = Queue::bounded(2).unwrap();
        inside.put(Lock::new().unwrap()).unwrap();
        q.put(Parcel { lock: Lock::new().unwrap(), inside, weight: vec![1; weight] }).unwrap();
    }
    let held = || {
        let now = objects();
        (now["Lock"] - before.get("Lock").unwrap_or(&0), now["Queue"] - before.get("Queue").unwrap_or(&0))
    };
    assert_eq!(held(), (4, 3));
    for round in 0..4 {
        let victim = |q: Queue<Parcel>| -> () {
            let (one, two) = (q.lease().unwrap(), q.lease().unwrap());
            let _guard = one.lock.lock();
            drop(two.lock.lock());
            die();
        };
        assert!(Process::spawn((q.clone(),), victim).unwrap().join().is_err());
        assert_eq!(held(), (4, 3), "in round {round}");
        let lease = q.lease().unwrap();
        let _ = lease.lock.recover().unwrap().make_consistent();
        drop(lease.lock.lock().unwrap());
    }
    // Acknowledged by a process that is killed right after, before it drops anything: gone with it.
    let victim = |q: Queue<Parcel>| -> () {
        let parcel = q.lease().unwrap().ack();
        std::mem::forget(parcel);
        die();
    };
    assert!(Process::spawn((q.clone(),), victim).unwrap().join().is_err());
    eventually(|| held() == (2, 2));
    let last = q.get().unwrap();
    let inner = last.inside.get().unwrap();
    drop(inner.lock().unwrap());
    drop((last, inner, q));
    all_gone(&before);
}

#[test]
fn a_put_that_fails_shares_nothing() {
    let (_one, _watch) = (alone(), watch(120));
    let before = objects();
    #[derive(Serialize, Deserialize, Debug)]
    struct Freight(Sender<u32>, Lock, Unwilling);
    /// Cannot be encoded if it is true.
    #[derive(Deserialize, Debug)]
    struct Unwilling(bool);
    impl Serialize for Unwilling {
        fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            if self.0 { Err(serde::ser::Error::custom("unwilling")) } else { s.serialize_bool(false) }
        }
    }
    let (tx, rx) = channel::<u32>(4).unwrap();
    let freight = || Freight(tx.clone(), Lock::new().unwrap(), Unwilling(false));
    let q = Queue::<Freight>::bounded(1).unwrap();
    let e = q.put(Freight(tx.clone(), Lock::new().unwrap(), Unwilling(true))).unwrap_err();
    assert!(e.is_codec(), "{e}");
    drop(e.into_inner());
    q.put(freight()).unwrap();
    let e = q.try_put(freight()).unwrap_err();
    assert!(e.is_full(), "{e}");
    drop(e);
    let e = q.put_timeout(freight(), Duration::from_millis(2)).unwrap_err();
    assert!(e.is_timeout(), "{e}");
    // What it hands back works.
    e.into_inner().0.put(1).unwrap();
    assert_eq!(rx.get().unwrap(), 1);
    let narrow = Queue::<Freight>::with_max_message(2, 4).unwrap();
    let e = narrow.put(freight()).unwrap_err();
    assert!(e.is_too_large(), "{e}");
    drop((e, narrow));
    // Nor does a process share that is killed while it waits for room.
    let putter = Process::spawn((q.clone(), tx.clone()), |q: Queue<Freight>, tx: Sender<u32>| {
        let _ = q.put(Freight(tx, Lock::new().unwrap(), Unwilling(false)));
    })
    .unwrap();
    eventually(|| testing::waits_for(putter.pid()) == Ok(Some(q.id())));
    putter.kill().unwrap();
    assert!(putter.join().is_err());
    q.close().unwrap();
    let e = q.put(freight()).unwrap_err();
    assert!(e.is_closed(), "{e}");
    drop(e);
    let (orphan, no_receiver) = channel::<Freight>(2).unwrap();
    drop(no_receiver);
    let e = orphan.put(freight()).unwrap_err();
    assert!(e.is_disconnected(), "{e}");
    drop((e, orphan));
    // Of all of them one freight is shared: that in the queue. The failed ones have left no sender behind.
    assert_eq!(objects()["Lock"] - before.get("Lock").unwrap_or(&0), 1);
    drop(tx);
    assert!(!has_ended(&rx));
    drop(q);
    eventually(|| has_ended(&rx));
    drop(rx);
    all_gone(&before);
}

#[test]
fn what_a_dead_process_made_lives_on_where_it_was_sent() {
    let (_one, _watch) = (alone(), watch(120));
    let before = objects();
    let out = Queue::<Parcel>::bounded(8).unwrap();
    let maker = |out: Queue<Parcel>, send: usize| -> () {
        let make = || {
            let inside = Queue::bounded(2).unwrap();
            inside.put(Lock::new().unwrap()).unwrap();
            Parcel { lock: Lock::new().unwrap(), inside, weight: vec![0; 5000] }
        };
        let _kept: Vec<_> = (0..20).map(|_| make()).collect();
        (0..send).for_each(|_| out.put(make()).unwrap());
        die();
    };
    for send in [0, 1, 3] {
        assert!(Process::spawn((out.clone(), send), maker).unwrap().join().is_err());
        for _ in 0..send {
            let parcel = out.get().unwrap();
            drop(parcel.lock.lock().unwrap());
            drop(parcel.inside.get().unwrap().lock().unwrap());
        }
        eventually(|| objects().get("Lock").unwrap_or(&0) == before.get("Lock").unwrap_or(&0));
    }
    drop(out);
    all_gone(&before);
}

#[test]
fn a_stopped_process_keeps_what_it_holds_and_holds_up_no_collection() {
    let (_one, _watch) = (alone(), watch(120));
    let before = objects();
    let idle = Queue::<Lock>::bounded(2).unwrap();
    let (ready, is_ready) = channel::<()>(1).unwrap();
    let (tx, rx) = channel::<u32>(1).unwrap();
    // It holds two locks and a sender, and sleeps as the getter of an idle queue, whose lock it has.
    let holder = |idle: Queue<Lock>, ready: Sender<()>, tx: Sender<u32>, one: Lock| {
        let two = Lock::new().unwrap();
        ready.put(()).unwrap();
        let three = idle.get().unwrap();
        drop(one.lock().unwrap());
        drop(two.lock().unwrap());
        drop(three.lock().unwrap());
        tx.put(1).unwrap();
    };
    let p = Process::spawn((idle.clone(), ready, tx, Lock::new().unwrap()), holder).unwrap();
    is_ready.get().unwrap();
    eventually(|| testing::waits_for(p.pid()) == Ok(Some(idle.id())));
    p.signal(Signal::STOP).unwrap();
    eventually(|| has_stopped(p.pid()));
    for round in 0..20 {
        let garbage = make_cycle();
        assert!(Process::spawn((garbage,), |_garbage: Queue<Nest>| -> () { die() }).unwrap().join().is_err());
        eventually(|| objects()["Queue"] - before.get("Queue").unwrap_or(&0) == 3);
        assert_eq!(objects()["Lock"] - before.get("Lock").unwrap_or(&0), 2, "in round {round}");
        assert!(matches!(rx.try_get(), Err(GetError::Empty)));
    }
    assert_eq!(multiproc::stats().unwrap().holder(p.pid()).map(|h| h.objects), Some(5));
    idle.put(Lock::new().unwrap()).unwrap();
    p.signal(Signal::CONT).unwrap();
    assert_eq!(rx.get().unwrap(), 1);
    p.join().unwrap();
    drop((idle, is_ready, rx));
    all_gone(&before);
}

/// Whoever is stopped in the middle of a collection stops nobody; what it would have freed goes when it continues, or is killed.
#[test]
fn a_stopped_collector_stops_nobody() {
    let (_one, _watch) = (alone(), watch(120));
    let before = objects();
    let locks: Vec<_> = (0..2000).map(|_| Lock::new().unwrap()).collect();
    for round in 0..10 {
        let (started, has_started) = channel::<()>(1).unwrap();
        let collector = Process::spawn((started,), |started: Sender<()>| -> () {
            started.put(()).unwrap();
            loop {
                testing::collect().unwrap();
            }
        })
        .unwrap();
        has_started.get().unwrap();
        for _ in 0..5 {
            collector.signal(Signal::STOP).unwrap();
            eventually(|| has_stopped(collector.pid()));
            let q = Queue::<Lock>::bounded(8).unwrap();
            for _ in 0..20 {
                q.put(Lock::new().unwrap()).unwrap();
                drop(q.get().unwrap().lock().unwrap());
            }
            drop((q, make_cycle()));
            // Returns at once, though the other may have been stopped in the middle.
            testing::collect().unwrap();
            assert!(testing::audit().unwrap().objects > 2000);
            collector.signal(Signal::CONT).unwrap();
        }
        // Every other one is killed where it is, which may be in the middle.
        if round % 2 == 0 {
            collector.signal(Signal::STOP).unwrap();
            eventually(|| has_stopped(collector.pid()));
        }
        collector.kill().unwrap();
        assert!(collector.join().is_err());
    }
    locks.iter().for_each(|lock| drop(lock.lock().unwrap()));
    drop(locks);
    all_gone(&before);
}

/// Who drops, makes or sends in the same process does not wait for the thread that collects.
#[test]
fn threads_of_the_collecting_process_go_on() {
    let (_one, _watch) = (alone(), watch(120));
    let before = objects();
    let done = Arc::new(AtomicBool::new(false));
    let collector = std::thread::spawn({
        let done = done.clone();
        move || {
            while !done.load(Ordering::Relaxed) {
                // The drop of a queue with handles in it collects.
                drop(make_cycle());
            }
        }
    });
    let q = Queue::<Lock>::bounded(64).unwrap();
    for round in 0..3000 {
        q.put(Lock::new().unwrap()).unwrap();
        let lock = q.get().unwrap();
        drop(lock.lock().unwrap());
        assert_eq!(q.len(), 0, "in round {round}");
    }
    done.store(true, Ordering::Relaxed);
    collector.join().unwrap();
    drop(q);
    all_gone(&before);
}

#[test]
fn stats_name_kinds_processes_and_bytes() {
    let (_one, _watch) = (alone(), watch(120));
    let before = multiproc::stats().unwrap();
    let q = Queue::<Vec<u8>>::bounded(8).unwrap();
    let lock = Lock::new().unwrap();
    for _ in 0..3 {
        q.put(vec![1; 100_000]).unwrap();
    }
    let (go, wait) = channel::<()>(1).unwrap();
    let p = Process::builder()
        .name("holder")
        .spawn((q.clone(), lock.clone(), wait), |_q: Queue<Vec<u8>>, lock: Lock, wait: Receiver<()>| {
            let _another = (lock, Lock::new().unwrap());
            let _ = wait.get();
        })
        .unwrap();
    eventually(|| multiproc::stats().unwrap().holder(p.pid()).is_some_and(|h| h.objects == 4));
    let stats = multiproc::stats().unwrap();
    assert_eq!(stats.holder(std::process::id()).map(|h| h.name.as_str()), Some("MainProcess"));
    let more = |name: &str| {
        let of = |s: &Stats| s.kind(name).cloned();
        let (now, then) = (of(&stats).unwrap(), of(&before));
        let then = then.map_or((0, 0, 0), |k| (k.objects, k.blocks, k.bytes));
        (now.objects - then.0, now.blocks - then.1, now.bytes - then.2)
    };
    // Three messages and a ring; the other queue has not been used.
    let (queues, blocks, bytes) = more("Queue");
    assert_eq!((queues, blocks), (2, 4));
    assert!((300_000..600_000).contains(&bytes), "{bytes}");
    assert_eq!((more("Lock").0, more("Lock").1), (2, 0));
    let me = stats.holder(std::process::id()).unwrap();
    assert_eq!(me.objects - before.holder(me.pid).unwrap().objects, 3);
    let holder = stats.holder(p.pid()).unwrap();
    assert_eq!((holder.name.as_str(), holder.objects), ("holder", 4));
    assert!(stats.used <= stats.limit && stats.idle <= stats.used && stats.used <= stats.backed, "{stats:?}");
    assert_eq!(stats.used, multiproc::memory_usage().unwrap().used);
    let table = stats.to_string();
    assert!(["Queue", "Lock", "holder", &p.pid().to_string()].iter().all(|word| table.contains(word)), "{table}");
    println!("{table}");
    go.put(()).unwrap();
    let pid = p.pid();
    p.join().unwrap();
    assert_eq!(multiproc::stats().unwrap().holder(pid), None);
    drop((q, lock, go));
    all_gone(&counted(&before));
}
