//! Who holds what, and who waits for it.

use crate::helpers::*;
use multiproc::{Atomic, Connection, Event, Lock, Process, Queue, Receiver, Semaphore, Sender, Value, channel, dump, pipe};
use multiproc_tests::{eventually, watch};
use std::sync::Barrier;
use std::time::Duration;

fn hold_lock(lock: Lock, ready: Event) {
    let _guard = lock.lock().unwrap();
    ready.set().unwrap();
    for_ever();
}

#[test]
fn a_lock_has_its_owner_also_when_that_is_stopped() {
    let _watched = watch(60);
    let (lock, ready) = (Lock::new().unwrap(), Event::new().unwrap());
    let owner = Process::builder().name("owner").spawn((lock.clone(), ready.clone()), hold_lock).unwrap();
    ready.wait().unwrap();
    stop_and_await(owner.pid());
    let waiter = Process::spawn((lock.clone(),), take_lock).unwrap();
    let wait = wait_of(waiter.pid(), |w| w.operation == "lock");
    assert_eq!((&wait.on, wait.state.as_str(), wait.thread), (&object(&lock), "held", waiter.pid()));
    let holder = wait.held_by.as_ref().unwrap();
    assert_eq!((holder.pid, holder.name.as_str()), (owner.pid(), "owner"));
    assert!(holds(owner.pid(), "", &object(&lock)));
    let text = dump().to_string();
    let expected = format!("lock on {} (held), held by owner (pid {})", object(&lock), owner.pid());
    assert!(text.contains(&expected), "{text}");
    // It waits longer and longer, from the same moment on.
    std::thread::sleep(Duration::from_millis(20));
    assert!(wait_of(waiter.pid(), |_| true).waited >= wait.waited + Duration::from_millis(20));
    end(owner);
    waiter.join().unwrap();
    assert!(!dump().processes.iter().any(|p| p.holds.iter().any(|h| h.object == object(&lock))));
}

#[test]
fn values_have_owners_too() {
    let _watched = watch(60);
    let value = Value::new(1u64).unwrap();
    let guard = value.lock().unwrap();
    let waiter = Process::spawn((value.clone(),), |value| value.set(2).unwrap()).unwrap();
    let wait = wait_of(waiter.pid(), |w| w.operation == "lock");
    assert_eq!((wait.on, wait.held_by.unwrap().pid), (object(&value), std::process::id()));
    drop(guard);
    waiter.join().unwrap();
}

#[test]
fn permits_have_holders_wherever_they_are() {
    let _watched = watch(60);
    let (three, ready) = (Semaphore::new(3).unwrap(), Event::new().unwrap());
    let owned = three.acquire_owned().unwrap();
    let holder = Process::spawn((three.clone(), ready.clone()), |three, ready| {
        let _permits = [three.acquire().unwrap(), three.acquire().unwrap()];
        ready.set().unwrap();
        for_ever();
    })
    .unwrap();
    ready.wait().unwrap();
    let name = object(&three);
    assert!(holds(holder.pid(), "2 permits", &name) && holds(std::process::id(), "a permit", &name));
    let waiter = Process::spawn((three.clone(),), |three| drop(three.acquire().unwrap())).unwrap();
    let wait = wait_of(waiter.pid(), |w| w.operation == "acquire");
    assert_eq!((&wait.on, wait.state.as_str()), (&name, "0 of 3 permits are free"));
    let mut on = pids(&wait.depends_on);
    on.sort();
    let mut both = [std::process::id(), holder.pid()];
    both.sort();
    assert_eq!(on, both);
    // The next one waits for its turn.
    let second = Process::spawn((three.clone(),), |three| drop(three.acquire().unwrap())).unwrap();
    let wait = wait_of(second.pid(), |w| w.held_by.is_some());
    assert_eq!(wait.held_by.unwrap().pid, waiter.pid());
    assert!(holds(waiter.pid(), "the turn to acquire", &name));
    // One moves into a message, where nobody has it.
    let queue = Queue::bounded(1).unwrap();
    queue.put(owned).unwrap();
    eventually(|| !holds(std::process::id(), "a permit", &name));
    drop(queue.get().unwrap());
    waiter.join().unwrap();
    second.join().unwrap();
    end(holder);
}

#[test]
fn queues_have_sides_turns_and_leases() {
    let _watched = watch(60);
    let (tx, rx) = channel::<u64>(1).unwrap();
    let name = object(&rx);
    let getters: Vec<_> = (0..2)
        .map(|_| {
            let rx = rx.clone();
            Process::spawn((rx,), |rx: Receiver<u64>| rx.get().unwrap()).unwrap()
        })
        .collect();
    // One leads, the other waits for its turn.
    let waits: Vec<_> = getters.iter().map(|p| wait_of(p.pid(), |w| w.operation == "get")).collect();
    let mut leaders = Vec::new();
    eventually(|| {
        leaders = getters.iter().filter(|p| holds(p.pid(), "the getters' turn", &name)).map(Process::pid).collect();
        leaders.len() == 1
    });
    assert!(waits.iter().all(|w| w.on == name && w.state == "0 of 1 items"));
    eventually(|| {
        let now = getters.iter().map(|p| wait_of(p.pid(), |w| w.operation == "get"));
        let (led, leading): (Vec<_>, Vec<_>) = now.partition(|w| w.held_by.is_some());
        led.len() == 1
            && led[0].held_by.as_ref().unwrap().pid == leaders[0]
            && pids(&leading[0].depends_on) == [std::process::id()]
    });
    tx.put(1).unwrap();
    tx.put(2).unwrap();
    getters.into_iter().for_each(|p| assert!((1..3).contains(&p.join().unwrap())));
    // The queue is full.
    tx.put(3).unwrap();
    let putter = Process::spawn((tx.clone(),), |tx: Sender<u64>| tx.put(4).unwrap()).unwrap();
    let wait = wait_of(putter.pid(), |w| w.operation == "put");
    assert_eq!((wait.state.as_str(), pids(&wait.depends_on)), ("1 of 1 items", vec![std::process::id()]));
    let leases = [rx.lease().unwrap(), rx.lease().unwrap()];
    putter.join().unwrap();
    assert!(holds(std::process::id(), "2 leases", &name));
    drop(leases);
    assert!(!holds(std::process::id(), "2 leases", &name));
}

#[test]
fn events_and_joins_are_waited_for() {
    let _watched = watch(60);
    let event = Event::new().unwrap();
    let p = Process::spawn((event.clone(),), |event| event.wait().unwrap()).unwrap();
    let wait = wait_of(p.pid(), |w| w.operation == "wait");
    assert_eq!((wait.on, wait.state.as_str()), (object(&event), "not set"));
    assert!(pids(&wait.depends_on).contains(&std::process::id()));
    std::thread::scope(|s| {
        let joiner = s.spawn(|| p.wait());
        let wait = wait_of(std::process::id(), |w| w.on.contains(&format!("(pid {})", p.pid())));
        assert_eq!(wait.operation, "join");
        event.set().unwrap();
        joiner.join().unwrap();
    });
}

fn echo(end: Connection<u64, u64>) {
    while let Ok(n) = end.recv() {
        if end.send(n).is_err() {
            return;
        }
    }
}

#[test]
fn ends_of_pipes_have_users_who_wait_for_the_other_end() {
    let _watched = watch(60);
    let (mine, other) = pipe::<u64, u64>().unwrap();
    let p = Process::spawn((other,), echo).unwrap();
    mine.send(1).unwrap();
    assert_eq!(mine.recv().unwrap(), 1);
    let wait = wait_of(p.pid(), |w| w.operation == "recv");
    assert!(wait.on.starts_with("Pipe ") && wait.state == "0 messages under way", "{wait:?}");
    assert_eq!(pids(&wait.depends_on), [std::process::id()]);
    assert!(holds(p.pid(), "an end", &wait.on) && holds(std::process::id(), "an end", &wait.on));
    // Both wait for the other to say something.
    let (hers, his) = pipe::<u64, u64>().unwrap();
    let both = [Process::spawn((hers,), echo).unwrap(), Process::spawn((his,), echo).unwrap()];
    let mut circle = circle_of(both[0].pid());
    eventually(|| {
        circle = circle_of(both[0].pid());
        circle.is_deadlock
    });
    assert!(circle.links.len() == 2 && circle.links.iter().all(|l| l.operation == "recv"), "{circle}");
    drop(mine);
    p.join().unwrap();
    both.into_iter().for_each(end);
}

fn send_all(end: Connection<Vec<u8>, Vec<u8>>) {
    while end.send(vec![0; 1000]).is_ok() {}
}

#[test]
fn two_who_only_send_are_a_deadlock() {
    let _watched = watch(60);
    let (hers, his) = pipe::<Vec<u8>, Vec<u8>>().unwrap();
    let both = [Process::spawn((hers,), send_all).unwrap(), Process::spawn((his,), send_all).unwrap()];
    let mut circle = circle_of(both[0].pid());
    eventually(|| {
        circle = circle_of(both[0].pid());
        circle.is_deadlock
    });
    assert!(circle.links.iter().all(|l| l.operation == "send"), "{circle}");
    both.into_iter().for_each(end);
}

fn many_waiters(event: Event, count: Atomic<u32>) {
    let gate = Barrier::new(12);
    std::thread::scope(|s| {
        for _ in 0..12 {
            s.spawn(|| {
                gate.wait();
                count.add(1);
                event.wait().unwrap();
            });
        }
    });
}

#[test]
fn each_thread_has_its_own_wait() {
    let _watched = watch(60);
    let (event, count) = (Event::new().unwrap(), Atomic::<u32>::new(0).unwrap());
    let p = Process::spawn((event.clone(), count.clone()), many_waiters).unwrap();
    eventually(|| dump().process(p.pid()).is_some_and(|q| q.waits.len() == 8 && q.more_waits == 4));
    let waits = report(p.pid()).waits;
    let mut threads: Vec<_> = waits.iter().map(|w| w.thread).collect();
    threads.dedup();
    assert!(threads.len() == 8 && waits.iter().all(|w| w.on == object(&event)));
    let text = dump().to_string();
    assert!(
        text.contains("and 4 more of its threads wait") && text.contains(&format!("thread {} waits for", threads[0])),
        "{text}"
    );
    event.set().unwrap();
    p.join().unwrap();
}
