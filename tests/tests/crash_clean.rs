//! Somebody dies with something in hand, and who cleans up after it dies at each step of doing so; the next one finishes. Whoever waits goes on then, what the first one
//! had is there again or gone, and nothing is left over.
//!
//! The cleaner has the collector's lock before the first one dies, so nobody else comes before it.
#![cfg(feature = "crash-points")]

mod step_killer;

use multiproc::testing;
use multiproc::{
    Atomic, Barrier, BarrierError, Condition, Event, Lock, LockError, LockGuard, PipeSender, Process, Queue, Receiver, RecvError,
    Semaphore, Sender, channel, one_way,
};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{self, Scope};
use std::time::Duration;
use step_killer::{
    LIMIT, Table, alone, asleep_or_dead, at_every_step, doing, eventually, id, is_dead, must_go_on, waiter, wanted,
};

/// What the first one works on.
#[derive(Debug, Serialize, Deserialize)]
enum Tool {
    Nothing,
    Condition(Condition, Atomic<u32>),
    Barrier(Barrier),
    Semaphore(Semaphore),
    Queue(Queue<Vec<u8>>),
    Permits(Semaphore, Queue<multiproc::OwnedPermit>),
    Sender(Sender<u32>),
    Receiver(Receiver<u32>),
    Pipe(PipeSender<Vec<u8>>),
    /// What it ends with it: a reference that nobody else has.
    Inside(Queue<Queue<u32>>),
}

/// What it does there, and dies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Op {
    /// With the only wake in hand.
    WaitForCondition,
    /// As the owner of the lock.
    HoldCondition,
    WaitAtBarrier,
    HoldPermit,
    HoldOwnedPermit,
    HoldLease,
    HoldPermitOnLease,
    HoldNothing,
    Put,
    PutLarge,
    PutHandle,
    Get,
    Lease,
    GiveBack,
    Join,
    MakeSegment,
    Grow,
    SendByPipe,
    New,
    Free,
    Spawn,
    Detach,
}

/// The point at which it dies; empty: after all of it.
type At = &'static str;

const CASES: [(Op, At); 39] = [
    (Op::WaitForCondition, "condition.after_sleep"),
    (Op::WaitForCondition, "condition.relocked"),
    (Op::HoldCondition, ""),
    (Op::WaitAtBarrier, "barrier.joined"),
    (Op::WaitAtBarrier, "barrier.before_sleep"),
    (Op::HoldPermit, ""),
    (Op::HoldOwnedPermit, "semaphore.permit_made"),
    (Op::HoldOwnedPermit, "semaphore.permit_entered"),
    (Op::HoldOwnedPermit, ""),
    (Op::HoldLease, ""),
    (Op::HoldPermitOnLease, ""),
    (Op::HoldNothing, ""),
    (Op::Put, "buffer.sealed"),
    (Op::Put, "put.block_handed"),
    (Op::Put, "put.written"),
    (Op::Put, "wait_word.committed_lightly"),
    (Op::PutLarge, "block.unsure"),
    (Op::PutLarge, "block.backed"),
    (Op::PutHandle, "put.announced"),
    (Op::PutHandle, "wait_word.committed_lightly"),
    (Op::Get, "get.named"),
    (Op::Get, "get.before_commit"),
    (Op::Get, "wait_word.committed_lightly"),
    (Op::Lease, "lease.named"),
    (Op::Lease, "lease.owned"),
    (Op::GiveBack, "lease.before_ack"),
    (Op::Join, "join.leaving"),
    (Op::MakeSegment, "put.segment_allocated"),
    (Op::MakeSegment, "put.segment_named"),
    (Op::Grow, "put.segment_extended"),
    (Op::SendByPipe, "pipe.block_handed"),
    (Op::SendByPipe, "pipe.sent"),
    (Op::New, "object.block"),
    (Op::New, "object.filled"),
    (Op::New, "object.owned"),
    (Op::Free, "object.dying"),
    (Op::Free, "object.ended"),
    (Op::Spawn, "spawn.args_owned"),
    (Op::Detach, "detach.flagged"),
];

/// Lets it go when both are prepared, and dies.
fn first(tool: Tool, op: Op, at: String, stage: Atomic<u32>) {
    let go = || {
        stage.set(1);
        while stage.get() != 2 {
            thread::sleep(Duration::from_micros(20));
        }
        if !at.is_empty() {
            testing::arm_at(at.clone().leak(), 1);
        }
    };
    let mut had: Vec<Box<dyn std::any::Any>> = Vec::new();
    let large = || vec![7u8; 10_000];
    match (&tool, op) {
        (Tool::Condition(condition, items), Op::WaitForCondition) => {
            let guard = condition.lock().unwrap();
            go();
            drop(condition.wait_for(guard, || items.get() > 0));
        }
        (Tool::Condition(condition, _), Op::HoldCondition) => {
            go();
            std::mem::forget(condition.lock().unwrap());
        }
        (Tool::Barrier(barrier), _) => {
            go();
            drop(barrier.wait());
        }
        (Tool::Semaphore(semaphore), Op::HoldPermit) => {
            go();
            std::mem::forget(semaphore.acquire().unwrap());
        }
        (Tool::Semaphore(semaphore), _) => {
            go();
            had.push(Box::new(semaphore.acquire_owned().unwrap()));
        }
        (Tool::Queue(q), Op::HoldLease) => {
            go();
            had.push(Box::new(q.lease().unwrap()));
        }
        (Tool::Permits(_, q), _) => {
            go();
            had.push(Box::new(q.lease().unwrap()));
        }
        (Tool::Queue(q), Op::Put) => {
            go();
            q.put(large()).unwrap();
        }
        (Tool::Queue(q), Op::PutLarge) => {
            let all = vec![1u8; 40 << 20];
            go();
            q.put(all).unwrap();
        }
        (Tool::Inside(q), Op::PutHandle) => {
            let inner = Queue::bounded(1).unwrap();
            inner.put(5).unwrap();
            go();
            q.put(inner).unwrap();
        }
        (Tool::Queue(q), Op::Get) => {
            go();
            drop(q.get().unwrap());
        }
        (Tool::Queue(q), Op::Lease) => {
            go();
            had.push(Box::new(q.lease().unwrap()));
        }
        (Tool::Queue(q), Op::GiveBack) => {
            let lease = q.lease().unwrap();
            go();
            drop(lease.ack());
        }
        (Tool::Queue(q), Op::Join) => {
            go();
            q.join_timeout(Duration::from_millis(1)).unwrap_err();
        }
        (Tool::Queue(q), Op::MakeSegment) => {
            go();
            q.put(vec![1]).unwrap();
        }
        (Tool::Queue(q), Op::Grow) => {
            q.put(vec![1; 3000]).unwrap();
            go();
            q.put(vec![1; 3000]).unwrap();
        }
        (Tool::Pipe(pipe), _) => {
            go();
            pipe.send(large()).unwrap();
        }
        (_, Op::New) => {
            go();
            drop(Queue::<u32>::bounded(1).unwrap());
        }
        (_, Op::Free) => {
            let lock = Lock::new().unwrap();
            go();
            drop(lock);
        }
        (_, Op::Spawn) => {
            let args = (Event::new().unwrap(), large());
            go();
            drop(Process::spawn(args, |_: Event, _: Vec<u8>| ()));
        }
        (_, Op::Detach) => {
            // A detached process may outlive this one, and would outlive the test.
            let outlives = |parent: u32| {
                while std::os::unix::process::parent_id() == parent {
                    thread::sleep(Duration::from_millis(1));
                }
            };
            let p = Process::spawn((std::process::id(),), outlives).unwrap();
            go();
            drop(p.detach());
        }
        _ => go(),
    }
    // SAFETY: ends this process, with all that it has.
    unsafe { libc::raise(libc::SIGKILL) };
    drop((had, tool));
}

/// Cleans up when it is told to, and dies on the way.
fn cleaner(stage: Atomic<u32>, k: u64) -> u64 {
    let hold = testing::hold_collections().unwrap();
    stage.set(1);
    while stage.get() != 2 {
        thread::sleep(Duration::from_micros(20));
    }
    testing::arm_step(k);
    hold.collect().unwrap();
    drop(hold);
    let passed = testing::passed();
    testing::disarm();
    passed
}

fn lock_of(condition: &Condition) -> LockGuard<'_> {
    match condition.lock() {
        Ok(guard) => guard,
        Err(LockError::OwnerDied(_)) => condition.get_lock().recover().unwrap().make_consistent(),
        Err(other) => panic!("{other}"),
    }
}

/// One run: the first one dies, then perhaps its cleaner.
fn run(op: Op, at: At, k: u64) -> Result<u64, ()> {
    doing(|| format!("{op:?} at {at:?}, cleaned up until step {k}"));
    let (ready, stage) = (Atomic::new(0u32).unwrap(), Atomic::new(0u32).unwrap());
    let cleaner = Process::spawn((ready.clone(), k), cleaner).unwrap();
    eventually("the cleaner is prepared", || ready.get() == 1);
    let clean = || {
        ready.set(2);
        eventually("the cleaner ends", || is_dead(cleaner.pid()));
    };
    let start = |tool: Tool| {
        let p = Process::spawn((tool, op, at.to_owned(), stage.clone()), first).unwrap();
        eventually("the first one is prepared", || stage.get() == 1 || is_dead(p.pid()));
        p
    };
    let dies = |p: &Process<()>| {
        stage.set(2);
        // With all its threads: not before is it cleaned up after.
        let threads = || std::fs::read_dir(format!("/proc/{}/task", p.pid())).map_or(0, Iterator::count);
        eventually("the first one dies", || is_dead(p.pid()) && threads() <= 1);
        assert_eq!(testing::audit().unwrap().astray, 0, "objects whose cell goes with the dead");
    };
    thread::scope(|s| scene(s, op, &start, &dies, &|| stage.set(2), &clean));
    cleaner.join().map_err(drop)
}

/// What others wait for meanwhile, and what they get.
fn scene<'s>(
    s: &'s Scope<'s, '_>,
    op: Op,
    start: &dyn Fn(Tool) -> Process<()>,
    dies: &dyn Fn(&Process<()>),
    go: &dyn Fn(),
    clean: &dyn Fn(),
) {
    let ended = |p: Process<()>| match p.join() {
        Err(e) => assert!(e.to_string().contains("SIGKILL"), "{e}"),
        Ok(()) => panic!("{op:?}: it lives"),
    };
    match op {
        Op::WaitForCondition | Op::HoldCondition => {
            let (condition, items) = (Condition::new().unwrap(), Atomic::new(0u32).unwrap());
            let (mine, left) = (condition.clone(), items.clone());
            let taker = move || loop {
                match mine.wait_for(lock_of(&mine), || left.get() > 0) {
                    Ok(_guard) => {
                        left.fetch_sub(1, SeqCst);
                        return;
                    }
                    Err(LockError::OwnerDied(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            };
            let early = (op == Op::HoldCondition).then(|| waiter(s, taker.clone()));
            let p = start(Tool::Condition(condition.clone(), items.clone()));
            go();
            let late = if op == Op::WaitForCondition {
                asleep_or_dead(p.pid(), id(&condition));
                // Behind the first one, which gets the one wake there is.
                let late = waiter(s, taker);
                let guard = lock_of(&condition);
                items.add(1);
                condition.notify_one(&guard).unwrap();
                Some(late)
            } else {
                None
            };
            dies(&p);
            clean();
            if early.is_some() {
                let guard = lock_of(&condition);
                items.add(1);
                condition.notify_one(&guard).unwrap();
            }
            early.into_iter().chain(late).for_each(must_go_on);
            ended(p);
        }
        Op::WaitAtBarrier => {
            let barrier = Barrier::new(3).unwrap();
            let mine = barrier.clone();
            let p = start(Tool::Barrier(barrier.clone()));
            dies(&p);
            let waits = waiter(s, move || mine.wait().map(drop));
            clean();
            let heard = must_go_on(waits);
            assert!(matches!(heard, Err(BarrierError::Broken { died, .. }) if died.is_none_or(|d| d == p.pid())), "{heard:?}");
            ended(p);
            barrier.reset().unwrap();
            let parties = [(); 3].map(|()| {
                let barrier = barrier.clone();
                s.spawn(move || barrier.wait().map(drop))
            });
            parties.into_iter().for_each(|p| p.join().unwrap().unwrap());
        }
        Op::HoldPermit | Op::HoldOwnedPermit => {
            let semaphore = Semaphore::new(1).unwrap();
            let p = start(Tool::Semaphore(semaphore.clone()));
            dies(&p);
            let mine = semaphore.clone();
            let waits = waiter(s, move || drop(mine.acquire().unwrap()));
            clean();
            must_go_on(waits);
            ended(p);
            assert_eq!(semaphore.available(), 1);
        }
        Op::HoldPermitOnLease => {
            let (semaphore, q) = (Semaphore::new(1).unwrap(), Queue::bounded(2).unwrap());
            q.put(semaphore.acquire_owned().unwrap()).unwrap();
            let p = start(Tool::Permits(semaphore.clone(), q.clone()));
            dies(&p);
            let mine = q.clone();
            let waits = waiter(s, move || drop(mine.lease().unwrap().ack()));
            clean();
            must_go_on(waits);
            ended(p);
            drop(semaphore.acquire_timeout(LIMIT).unwrap());
            assert_eq!(semaphore.available(), 1);
        }
        Op::HoldLease | Op::GiveBack | Op::Get | Op::Lease => {
            let q = Queue::<Vec<u8>>::bounded(2).unwrap();
            q.put(vec![7; 10_000]).unwrap();
            let p = start(Tool::Queue(q.clone()));
            dies(&p);
            let mine = q.clone();
            let waits = waiter(s, move || mine.lease().unwrap().ack());
            clean();
            ended(p);
            testing::collect().unwrap();
            // Of a get after its commit it is lost, and said so.
            let lost = q.take_losses();
            assert!(lost == 0 || lost == 1 && op == Op::Get, "{lost}");
            if lost == 1 {
                q.put(vec![7; 10_000]).unwrap();
            }
            assert_eq!(must_go_on(waits), vec![7; 10_000]);
            assert_eq!((q.len(), q.leased(), q.unfinished()), (0, 0, 0));
        }
        Op::Put | Op::PutLarge | Op::MakeSegment | Op::Grow => {
            let q = match op {
                Op::MakeSegment | Op::Grow => Queue::unbounded().unwrap(),
                _ => Queue::bounded(2).unwrap(),
            };
            let p = start(Tool::Queue(q.clone()));
            dies(&p);
            clean();
            let mut seen = 0;
            while let Ok(message) = q.try_get() {
                assert!(message.iter().all(|b| *b == message[0]));
                seen += 1;
            }
            assert!(seen <= 1 + usize::from(op == Op::Grow));
            ended(p);
            q.put(vec![3; 5000]).unwrap();
            assert_eq!(q.get().unwrap(), vec![3; 5000]);
        }
        Op::PutHandle => {
            let q = Queue::<Queue<u32>>::bounded(2).unwrap();
            let p = start(Tool::Inside(q.clone()));
            dies(&p);
            clean();
            ended(p);
            testing::collect().unwrap();
            if let Ok(inner) = q.try_get() {
                assert_eq!(inner.get().unwrap(), 5);
            }
        }
        Op::Join => {
            let q = Queue::<Vec<u8>>::bounded(2).unwrap();
            q.put(vec![1]).unwrap();
            let mine = q.clone();
            let waits = waiter(s, move || mine.join().unwrap());
            let p = start(Tool::Queue(q.clone()));
            dies(&p);
            clean();
            q.lease().unwrap().ack();
            must_go_on(waits);
            ended(p);
        }
        Op::HoldNothing => {
            // The last sender, the last receiver, and the last handle of all.
            let ((tx, rx), (tx2, rx2)) = (channel::<u32>(1).unwrap(), channel::<u32>(1).unwrap());
            tx2.put(1).unwrap();
            let waits = (waiter(s, move || rx.get().unwrap_err()), waiter(s, move || tx2.put(2).unwrap_err()));
            let p = start(Tool::Sender(tx));
            dies(&p);
            clean();
            assert!(must_go_on(waits.0).is_end());
            ended(p);
            drop(rx2);
            assert!(must_go_on(waits.1).is_disconnected());
        }
        Op::SendByPipe => {
            let (tx, rx) = one_way::<Vec<u8>>().unwrap();
            let heir = tx.clone();
            let p = start(Tool::Pipe(tx));
            let waits = waiter(s, move || {
                let got = rx.recv();
                (rx, got)
            });
            dies(&p);
            clean();
            ended(p);
            let (rx, got) = must_go_on(waits);
            if got.is_ok() {
                assert!(matches!(rx.recv(), Err(RecvError::PeerDied { .. })));
            }
            heir.send(vec![3; 5000]).unwrap();
            // Between the two it says once more whose end this was.
            let next = match rx.recv_timeout(LIMIT) {
                Err(RecvError::PeerDied { .. }) => rx.recv_timeout(LIMIT),
                next => next,
            };
            assert_eq!(next.unwrap(), vec![3; 5000]);
        }
        Op::New | Op::Free | Op::Spawn | Op::Detach => {
            let p = start(Tool::Nothing);
            dies(&p);
            clean();
            ended(p);
        }
    }
}

#[test]
fn who_cleans_up_dies_as_well() {
    let _alone = alone();
    let mut table = Table(Vec::new());
    for &(op, at) in &CASES {
        let died_at = if at.is_empty() { "holds it" } else { at };
        let name = format!("{op:?}, {died_at}: then the cleaner");
        if wanted(&name) {
            table.0.push(at_every_step(name, |k| run(op, at, k)));
        }
    }
    table.finish("Who cleans up");
    doing(String::new);
}
