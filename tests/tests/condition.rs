//! What the docs of Condition promise, one test for each promise, with real processes and real kills.

use multiproc::{Atomic, Condition, Lock, LockError, LockGuard, Process, Queue, dump, testing};
use multiproc_tests::{eventually, watch};
use serde::{Deserialize, Serialize};
use std::fs;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

/// The number under which reports name a handle's object.
fn id(condition: &Condition) -> u32 {
    let text = format!("{condition:?}");
    let digits = text.split_once("id: ").expect("a handle's Debug names its id").1;
    digits.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

fn asleep(pid: u32, id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let sleeps = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" S"));
    sleeps && testing::waits_for(pid) == Ok(Some(id))
}

fn await_sleep<R>(process: &Process<R>, id: u32) {
    eventually(|| asleep(process.pid(), id));
}

/// A store of items, and who waits for one.
#[derive(Clone, Serialize, Deserialize)]
struct Store {
    changed: Condition,
    items: Atomic<u32>,
    taken: Atomic<u32>,
}

impl Store {
    fn new() -> Store {
        let (items, taken) = (Atomic::new(0).unwrap(), Atomic::new(0).unwrap());
        Store { changed: Condition::new().unwrap(), items, taken }
    }

    /// The lock, mended if its owner has died.
    fn lock(&self) -> LockGuard<'_> {
        match self.changed.lock() {
            Ok(guard) => guard,
            Err(LockError::OwnerDied(_)) => self.changed.get_lock().recover().unwrap().make_consistent(),
            Err(other) => panic!("{other}"),
        }
    }

    fn take(&self) {
        loop {
            match self.changed.wait_for(self.lock(), || self.items.get() > 0) {
                Ok(_guard) => {
                    self.items.fetch_sub(1, SeqCst);
                    self.taken.add(1);
                    return;
                }
                Err(LockError::OwnerDied(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }

    fn put(&self, count: u32) {
        let guard = self.lock();
        self.items.add(count);
        self.changed.notify(&guard, count as usize).unwrap();
    }

    fn taker(&self) -> Process<()> {
        let taker = Process::spawn((self.clone(),), |store| store.take()).unwrap();
        await_sleep(&taker, id(&self.changed));
        taker
    }
}

#[test]
fn as_many_are_woken_as_are_notified_and_the_rest_by_notify_all() {
    let _watch = watch(120);
    let (condition, woken) = (Condition::new().unwrap(), Atomic::new(0u32).unwrap());
    let waiter = || {
        let waiter = Process::spawn((condition.clone(), woken.clone()), |condition, woken| {
            let _guard = condition.wait(condition.lock().unwrap()).unwrap();
            woken.add(1);
        });
        waiter.unwrap()
    };
    let waiters: Vec<_> = (0..5).map(|_| waiter()).collect();
    waiters.iter().for_each(|w| await_sleep(w, id(&condition)));
    assert_eq!(condition.waiting(), 5);
    let mut awaited = 0;
    for count in [1, 2, 0] {
        condition.notify(&condition.lock().unwrap(), count).unwrap();
        awaited += count as u32;
        eventually(|| woken.get() == awaited && condition.waiting() == 5 - awaited);
    }
    condition.notify_all(&condition.lock().unwrap()).unwrap();
    waiters.into_iter().for_each(|w| w.join().unwrap());
    assert_eq!((woken.get(), condition.waiting()), (5, 0));
    // Nobody waits: it is not kept for later.
    condition.notify(&condition.lock().unwrap(), 10).unwrap();
    let (guard, notified) = condition.wait_timeout(condition.lock().unwrap(), Duration::from_millis(5)).unwrap();
    assert!(!notified);
    drop(guard);
}

#[test]
fn threads_and_processes_wait_side_by_side() {
    let _watch = watch(120);
    let store = Store::new();
    let takers = [store.taker(), store.taker()];
    thread::scope(|s| {
        let threads = [0; 3].map(|_| s.spawn(|| store.take()));
        eventually(|| store.changed.waiting() == 5);
        (0..5).for_each(|_| store.put(1));
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
    takers.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!((store.taken.get(), store.items.get(), store.changed.waiting()), (5, 0, 0));
}

#[test]
fn time_outs_are_never_early_and_the_lock_is_held_afterwards() {
    let _watch = watch(120);
    let condition = Condition::new().unwrap();
    let limit = Duration::from_millis(30);
    let start = Instant::now();
    let (guard, notified) = condition.wait_timeout(condition.lock().unwrap(), limit).unwrap();
    assert!(!notified && start.elapsed() >= limit);
    thread::scope(|s| s.spawn(|| assert_eq!(condition.get_lock().try_lock().err(), Some(LockError::WouldBlock))).join().unwrap());
    let start = Instant::now();
    let (guard, notified) = condition.wait_deadline(guard, start + limit).unwrap();
    assert!(!notified && start.elapsed() >= limit);
    let start = Instant::now();
    let (guard, found) = condition.wait_for_timeout(guard, limit, || false).unwrap();
    assert!(!found && start.elapsed() >= limit);
    let (guard, found) = condition.wait_for_timeout(guard, Duration::from_secs(100), || true).unwrap();
    assert!(found);
    let (_guard, found) = condition.wait_for_deadline(guard, Instant::now(), || false).unwrap();
    assert!(!found);
}

#[test]
fn a_notification_in_time_is_told_from_a_time_out() {
    let _watch = watch(120);
    let condition = Condition::new().unwrap();
    let waiter = Process::spawn((condition.clone(),), |condition| {
        let (_guard, notified) = condition.wait_timeout(condition.lock().unwrap(), Duration::from_secs(100)).unwrap();
        notified
    });
    let waiter = waiter.unwrap();
    await_sleep(&waiter, id(&condition));
    condition.notify_one(&condition.lock().unwrap()).unwrap();
    assert!(waiter.join().unwrap());
}

#[test]
fn another_locks_guard_is_refused() {
    let _watch = watch(120);
    let (condition, other) = (Condition::new().unwrap(), Lock::new().unwrap());
    let guard = other.lock().unwrap();
    assert_eq!(condition.notify_one(&guard), Err(LockError::NotOwned));
    assert_eq!(condition.notify_all(&guard), Err(LockError::NotOwned));
    assert_eq!(condition.wait(guard).err(), Some(LockError::NotOwned));
    // It was released.
    assert!(other.try_lock().is_ok());
    // Another handle of the same lock is as good.
    let clone = condition.get_lock().clone();
    condition.notify_one(&clone.lock().unwrap()).unwrap();
}

#[test]
fn two_conditions_of_one_lock_do_not_wake_each_other() {
    let _watch = watch(120);
    let lock = Lock::new().unwrap();
    let both = [Condition::with_lock(&lock).unwrap(), Condition::with_lock(&lock).unwrap()];
    let waiter = |condition: &Condition| {
        let waiter = Process::spawn((condition.clone(),), |c: Condition| drop(c.wait(c.lock().unwrap()).unwrap())).unwrap();
        await_sleep(&waiter, id(condition));
        waiter
    };
    let [mut first, second] = [waiter(&both[0]), waiter(&both[1])];
    both[1].notify_all(&lock.lock().unwrap()).unwrap();
    second.join().unwrap();
    assert!(first.is_alive() && asleep(first.pid(), id(&both[0])));
    both[0].notify_all(&lock.lock().unwrap()).unwrap();
    assert!(first.join_timeout(Duration::from_secs(100)).unwrap().is_some());
}

#[test]
fn it_travels_in_messages_with_its_lock() {
    let _watch = watch(120);
    let queue = Queue::<(Condition, Lock)>::bounded(2).unwrap();
    let lock = Lock::new().unwrap();
    let condition = Condition::with_lock(&lock).unwrap();
    queue.put((condition.clone(), lock.clone())).unwrap();
    let waiter = Process::spawn((queue,), |queue: Queue<(Condition, Lock)>| {
        let (condition, lock) = queue.get().unwrap();
        drop(queue);
        condition.wait(lock.lock().unwrap()).map(drop).unwrap();
        condition
    });
    let waiter = waiter.unwrap();
    await_sleep(&waiter, id(&condition));
    condition.notify_one(&lock.lock().unwrap()).unwrap();
    let back = waiter.join().unwrap();
    assert_eq!(id(&back), id(&condition));
    back.notify_one(&lock.lock().unwrap()).unwrap();
    assert!(serde_json::to_string(&condition).is_err());
}

#[test]
fn a_waiter_that_is_killed_in_its_sleep_takes_nothing_along() {
    let _watch = watch(120);
    let store = Store::new();
    let (first, second) = (store.taker(), store.taker());
    first.kill().unwrap();
    first.wait();
    store.put(1);
    second.join().unwrap();
    assert_eq!((store.taken.get(), store.changed.waiting()), (1, 0));
}

#[test]
fn a_woken_waiter_that_is_killed_before_it_has_the_lock_passes_the_notification_on() {
    let _watch = watch(120);
    for _ in 0..20 {
        let store = Store::new();
        let (first, second) = (store.taker(), store.taker());
        let guard = store.lock();
        store.items.add(1);
        // The first to sleep is the first to wake.
        store.changed.notify_one(&guard).unwrap();
        // Now it waits for the lock.
        eventually(|| testing::waits_for(first.pid()) != Ok(Some(id(&store.changed))));
        first.kill().unwrap();
        first.wait();
        drop(guard);
        second.join().unwrap();
        assert_eq!((store.taken.get(), store.items.get()), (1, 0));
    }
}

#[test]
fn who_waits_is_told_that_the_locks_owner_died() {
    let _watch = watch(120);
    let store = Store::new();
    let waiters: Vec<Process<u32>> = (0..3)
        .map(|_| {
            let waiter = Process::spawn((store.clone(),), |store: Store| -> u32 {
                let guard = store.changed.lock().unwrap();
                match store.changed.wait_for(guard, || store.items.get() > 0) {
                    Err(LockError::OwnerDied(death)) => death.pid,
                    _ => 0,
                }
            });
            let waiter = waiter.unwrap();
            await_sleep(&waiter, id(&store.changed));
            waiter
        })
        .collect();
    let owner = Process::spawn((store.clone(),), |store: Store| -> () {
        let _guard = store.changed.lock().unwrap();
        // It was about to add an item.
        std::process::abort();
    });
    let owner = owner.unwrap();
    let pid = owner.pid();
    assert!(owner.join().is_err());
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), pid);
    }
    drop(store.lock());
    assert!(store.changed.lock().is_ok());
}

#[test]
fn a_death_is_told_of_though_the_lock_was_recovered_at_once() {
    let _watch = watch(120);
    for _ in 0..20 {
        let store = Store::new();
        let waiter = store.taker();
        let owner = Process::spawn((store.clone(),), |store: Store| -> () {
            let _guard = store.changed.lock().unwrap();
            store.items.add(1);
            store.taken.add(100);
            loop {
                thread::park();
            }
        });
        let owner = owner.unwrap();
        eventually(|| store.taken.get() == 100);
        thread::scope(|s| {
            // Waits for the lock when the owner is killed, and mends it before anybody can have cleaned up.
            s.spawn(|| drop(store.lock()));
            owner.kill().unwrap();
        });
        owner.wait();
        waiter.join().unwrap();
        assert_eq!(store.taken.get(), 101);
    }
}

#[test]
fn debug_and_dump_say_who_waits_and_who_has_the_lock() {
    let _watch = watch(120);
    let condition = Condition::new().unwrap();
    assert!(format!("{condition:?}").contains("0 waiting, Lock(id: "), "{condition:?}");
    let waiter = Process::spawn((condition.clone(),), |c: Condition| drop(c.wait(c.lock().unwrap()).unwrap())).unwrap();
    await_sleep(&waiter, id(&condition));
    let guard = condition.lock().unwrap();
    let text = format!("{condition:?}");
    assert!(text.contains("1 waiting") && text.contains(&format!("(pid {})", std::process::id())), "{text}");
    let dump = dump();
    let wait = &dump.process(waiter.pid()).unwrap().waits[0];
    assert_eq!((wait.operation, wait.on.clone()), ("wait", format!("Condition {}", id(&condition))));
    assert!(wait.state.starts_with("1 waiting, Lock "), "{}", wait.state);
    condition.notify_all(&guard).unwrap();
    drop(guard);
    waiter.join().unwrap();
}

/// Producers and consumers are killed at random moments; whoever is left goes on, and no item is made up.
#[test]
fn a_bounded_store_survives_a_storm() {
    const BOUND: u32 = 4;
    let _watch = watch(300);
    #[derive(Clone, Serialize, Deserialize)]
    struct Bounded {
        not_full: Condition,
        not_empty: Condition,
        lock: Lock,
        items: Atomic<u32>,
        put: Atomic<u64>,
        got: Atomic<u64>,
    }
    impl Bounded {
        /// One item in or out.
        fn step(&self, mine: &Condition, others: &Condition, may: impl Fn(u32) -> bool, act: impl Fn()) {
            loop {
                let guard = match self.lock.lock() {
                    Ok(guard) => guard,
                    Err(LockError::OwnerDied(_)) => self.lock.recover().unwrap().make_consistent(),
                    Err(other) => panic!("{other}"),
                };
                match mine.wait_for(guard, || may(self.items.get())) {
                    Ok(guard) => {
                        act();
                        return others.notify_one(&guard).unwrap();
                    }
                    Err(LockError::OwnerDied(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
    fn produce(b: Bounded) {
        loop {
            b.step(
                &b.not_full,
                &b.not_empty,
                |n| n < BOUND,
                || {
                    b.items.add(1);
                    b.put.add(1);
                },
            );
        }
    }
    fn consume(b: Bounded) {
        loop {
            b.step(
                &b.not_empty,
                &b.not_full,
                |n| n > 0,
                || {
                    b.items.fetch_sub(1, SeqCst);
                    b.got.add(1);
                },
            );
        }
    }
    let lock = Lock::new().unwrap();
    let store = Bounded {
        not_full: Condition::with_lock(&lock).unwrap(),
        not_empty: Condition::with_lock(&lock).unwrap(),
        lock,
        items: Atomic::new(0).unwrap(),
        put: Atomic::new(0).unwrap(),
        got: Atomic::new(0).unwrap(),
    };
    let start = |i: usize| Process::spawn((store.clone(),), if i.is_multiple_of(2) { produce } else { consume }).unwrap();
    let mut workers: Vec<_> = (0..4).map(start).collect();
    for round in 0..200 {
        let got = store.got.get();
        // All goes on.
        eventually(|| store.got.get() > got + round % 7);
        let i = round as usize % workers.len();
        workers[i].kill().unwrap();
        workers[i].wait();
        workers[i] = start(i);
    }
    workers.iter().for_each(|w| w.kill().unwrap());
    for worker in workers {
        worker.wait();
    }
    // Killed between the two additions, a worker counts one more or less.
    let (put, got, items) = (store.put.get() as i64, store.got.get() as i64, i64::from(store.items.get()));
    assert!((put - got - items).abs() <= 205, "{put} put, {got} got, {items} left");
    assert!(store.items.get() <= BOUND);
}
