//! What a dump says of a tree: who is there, who holds what, who waits for what, and what goes round in a circle.

use multiproc::{
    Atomic, Circle, Connection, Dump, Event, Lock, Process, ProcessReport, ProcessState, Queue, Receiver, Semaphore, Sender,
    Signal, Stdio, Value, WaitReport, channel, dump, pipe, worker_init,
};
use multiproc_tests::{Scene, eventually, no_core_dumps, watch};
use std::fmt::Debug;
use std::io::{BufRead, BufReader, PipeReader};
use std::process::Command;
use std::sync::Barrier;
use std::time::Duration;

const DEBUGGED: &str = env!("CARGO_BIN_EXE_debugged");

fn for_ever() {
    loop {
        std::thread::park();
    }
}

/// What a report calls a handle's object.
fn object(handle: &impl Debug) -> String {
    let text = format!("{handle:?}");
    let (kind, rest) = text.split_once("id: ").expect("a handle's Debug names its id");
    let kind = kind.trim_end_matches([' ', '{', '(']);
    let kind = if ["Sender", "Receiver"].contains(&kind) { "Queue" } else { kind };
    format!("{kind} {}", rest.split([',', ' ']).next().unwrap())
}

fn report(pid: u32) -> ProcessReport {
    dump().process(pid).unwrap_or_else(|| panic!("{pid} is not in the dump")).clone()
}

/// The first wait of a process, once it has one that `is_it` accepts.
fn wait_of(pid: u32, is_it: impl Fn(&WaitReport) -> bool) -> WaitReport {
    let mut found = None;
    eventually(|| {
        found = dump().process(pid).and_then(|p| p.waits.iter().find(|w| is_it(w)).cloned());
        found.is_some()
    });
    found.unwrap()
}

fn holds(pid: u32, what: &str, object: &str) -> bool {
    dump().process(pid).is_some_and(|p| p.holds.iter().any(|h| h.what == what && h.object == object))
}

fn pids(dump_of: &[multiproc::ProcessInfo]) -> Vec<u32> {
    dump_of.iter().map(|p| p.pid).collect()
}

fn end<R>(process: Process<R>) {
    // It may have ended by itself.
    let _ = process.kill();
    process.wait();
}

// --- who is there --------------------------------------------------------------------------------

fn grandchild(ready: Event) -> String {
    let text = dump().to_string();
    ready.set().unwrap();
    for_ever();
    text
}

fn child(ready: Event) {
    let p = Process::builder().name("grand\nchild").spawn((ready,), grandchild).unwrap();
    p.wait();
}

#[test]
fn the_tree_is_there_with_names_parents_and_ages() {
    let _watched = watch(60);
    let ready = Event::new().unwrap();
    let p = Process::builder().name("child").spawn((ready.clone(),), child).unwrap();
    ready.wait().unwrap();
    let all = dump();
    let me = all.process(std::process::id()).unwrap();
    assert_eq!((me.name.as_str(), me.depth, me.parent.is_none()), ("MainProcess", 0, true));
    let mine = all.process(p.pid()).unwrap();
    assert_eq!((mine.name.as_str(), mine.depth, mine.state), ("child", 1, ProcessState::Running));
    assert_eq!(mine.parent.as_ref().unwrap().pid, std::process::id());
    let below = all.processes.iter().find(|q| q.parent.as_ref().is_some_and(|parent| parent.pid == p.pid())).unwrap();
    assert_eq!((below.name.as_str(), below.depth), ("grand\u{fffd}child", 2));
    assert!(below.running_for.unwrap() <= mine.running_for.unwrap() && mine.running_for.unwrap() <= me.running_for.unwrap());
    // The grandchild's parent waits for it.
    let wait = wait_of(p.pid(), |w| w.operation == "join");
    assert!(wait.on.contains(&below.pid.to_string()), "{wait:?}");
    end(p);
}

#[test]
fn any_process_of_the_tree_sees_the_others() {
    let _watched = watch(60);
    let lock = Lock::new().unwrap();
    let guard = lock.lock().unwrap();
    let text = Process::spawn((), || dump().to_string()).unwrap().join().unwrap();
    let line = text.lines().find(|l| l.contains(&format!("(pid {}):", std::process::id()))).unwrap();
    assert!(line.starts_with("MainProcess") && text.contains(&format!("holds {}\n", object(&lock))), "{text}");
    drop(guard);
}

#[test]
fn a_program_without_a_tree_is_alone() {
    let _watched = watch(60);
    let (text, status) = Scene::play(DEBUGGED, "alone").end();
    assert!(status.success());
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "multiproc: 1 process, 0 of them waiting");
    assert!(lines[1].starts_with("MainProcess (pid ") && lines[1].ends_with("): running"), "{text}");
    // So is a process that a plain fork made; and it gets no dumps of its own.
    assert_eq!(&lines[2..], ["the child is alone: true, no dumps on signals: true"]);
}

fn stop_and_await(pid: u32) {
    // SAFETY: a child of ours that has not been reaped.
    unsafe { libc::kill(pid as i32, libc::SIGSTOP) };
    eventually(|| report(pid).state == ProcessState::Stopped);
}

#[test]
fn stopped_and_dead_processes_are_told_apart() {
    let _watched = watch(60);
    let ready = Event::new().unwrap();
    let p = Process::spawn((ready.clone(),), child).unwrap();
    ready.wait().unwrap();
    let below = || dump().processes.iter().find(|q| q.parent.as_ref().is_some_and(|parent| parent.pid == p.pid())).cloned();
    let grandchild = below().unwrap().pid;
    stop_and_await(p.pid());
    // Its parent is stopped and cannot reap it; nobody cleans up after it but a collection.
    let kept = multiproc_keeps_from_collecting();
    // SAFETY: its parent, which alone could reap it, is stopped.
    unsafe { libc::kill(grandchild as i32, libc::SIGKILL) };
    eventually(|| dump().process(grandchild).is_some_and(|q| q.state == ProcessState::Zombie));
    drop(kept);
    end(p);
}

fn multiproc_keeps_from_collecting() -> impl Drop {
    multiproc::testing::hold_collections().unwrap()
}

// --- who holds, who waits ------------------------------------------------------------------------

fn hold_lock(lock: Lock, ready: Event) {
    let _guard = lock.lock().unwrap();
    ready.set().unwrap();
    for_ever();
}

fn take_lock(lock: Lock) {
    drop(lock.lock());
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

// --- circles -------------------------------------------------------------------------------------

/// The circle that goes through a process, once there is one.
fn circle_of(pid: u32) -> Circle {
    let mut found = None;
    eventually(|| {
        found = dump().circles().iter().find(|c| c.links.iter().any(|l| l.process.pid == pid)).cloned();
        found.is_some()
    });
    found.unwrap()
}

fn links(circle: &Circle) -> Vec<(u32, &'static str, String)> {
    let mut links: Vec<_> = circle.links.iter().map(|l| (l.process.pid, l.operation, l.on.clone())).collect();
    let first = links.iter().enumerate().min_by_key(|(_, l)| l.0).unwrap().0;
    links.rotate_left(first);
    links
}

fn sorted_round(mut links: Vec<(u32, &'static str, String)>) -> Vec<(u32, &'static str, String)> {
    let first = links.iter().enumerate().min_by_key(|(_, l)| l.0).unwrap().0;
    links.rotate_left(first);
    links
}

fn first_then_second(first: Lock, second: Lock, ready: Event, go: Event) {
    let _first = first.lock().unwrap();
    ready.set().unwrap();
    go.wait().unwrap();
    let _second = second.lock().unwrap();
}

#[test]
fn three_locks_in_a_ring_are_a_deadlock() {
    let _watched = watch(60);
    let locks: Vec<_> = (0..3).map(|_| Lock::new().unwrap()).collect();
    let go = Event::new().unwrap();
    let all: Vec<_> = (0..3)
        .map(|i| {
            let ready = Event::new().unwrap();
            let args = (locks[i].clone(), locks[(i + 1) % 3].clone(), ready.clone(), go.clone());
            let p = Process::spawn(args, first_then_second).unwrap();
            ready.wait().unwrap();
            p
        })
        .collect();
    assert!(!dump().circles().iter().any(|c| c.links.iter().any(|l| l.process.pid == all[0].pid())));
    go.set().unwrap();
    let circle = circle_of(all[1].pid());
    let expected = (0..3).map(|i| (all[i].pid(), "lock", object(&locks[(i + 1) % 3]))).collect();
    assert_eq!(links(&circle), sorted_round(expected));
    assert!(circle.is_deadlock && !circle.is_over);
    let text = circle.to_string();
    let part = format!("waits for {}, which {} (pid {}) holds", object(&locks[2]), "Process-", all[2].pid());
    assert!(text.starts_with("deadlock: ") && part.split("Process-").all(|p| text.contains(p.trim_end())), "{text}");
    all.into_iter().for_each(end);
}

fn put_all_then_get(jobs: Sender<u64>, results: Receiver<u64>) -> u64 {
    (0..100).for_each(|i| jobs.put(i).unwrap());
    results.get().unwrap()
}

fn work(jobs: Receiver<u64>, results: Sender<u64>) {
    for job in &jobs {
        // The other end may have been killed.
        if job.map(|job| results.put(job).is_err()).unwrap_or(true) {
            return;
        }
    }
}

#[test]
fn two_full_queues_are_a_deadlock() {
    let _watched = watch(60);
    let (jobs_in, jobs_out) = channel(4).unwrap();
    let (results_in, results_out) = channel(4).unwrap();
    let names = [object(&jobs_in), object(&results_in)];
    let workers: Vec<_> = (0..2).map(|_| Process::spawn((jobs_out.clone(), results_in.clone()), work).unwrap()).collect();
    let main = Process::builder().name("main").spawn((jobs_in, results_out), put_all_then_get).unwrap();
    // As long as this process could get jobs, it is no deadlock for certain.
    drop((jobs_out, results_in));
    let mut circle = circle_of(main.pid());
    eventually(|| {
        circle = circle_of(main.pid());
        circle.is_deadlock
    });
    let links: Vec<_> = links(&circle);
    let put = |pid: u32| links.iter().find(|l| l.0 == pid).map(|l| (l.1, l.2.clone()));
    assert_eq!(put(main.pid()), Some(("put", names[0].clone())));
    let worker = workers.iter().find_map(|w| put(w.pid())).unwrap();
    assert_eq!(worker, ("put", names[1].clone()));
    end(main);
    workers.into_iter().for_each(end);
}

#[test]
fn somebody_who_could_help_makes_it_none() {
    let _watched = watch(60);
    let (tx, rx) = channel::<u64>(1).unwrap();
    let p = Process::spawn((rx,), |rx: Receiver<u64>| rx.get().unwrap()).unwrap();
    wait_of(p.pid(), |w| w.operation == "get");
    // This process has the sender and does other things.
    assert!(!dump().circles().iter().any(|c| c.links.iter().any(|l| l.process.pid == p.pid())));
    tx.put(1).unwrap();
    p.join().unwrap();
}

fn hold_and_join(lock: Lock) {
    let _guard = lock.lock().unwrap();
    let p = Process::builder().name("below").spawn((lock.clone(),), take_lock).unwrap();
    p.join().unwrap();
}

#[test]
fn joining_who_waits_for_ones_own_lock_is_a_deadlock() {
    let _watched = watch(60);
    let lock = Lock::new().unwrap();
    let p = Process::spawn((lock.clone(),), hold_and_join).unwrap();
    let circle = circle_of(p.pid());
    assert!(circle.is_deadlock && circle.links.len() == 2);
    let text = circle.to_string();
    assert!(text.contains("waits for the end of below (pid "), "{text}");
    end(p);
}

fn wait_and_join() {
    let event = Event::new().unwrap();
    let p = Process::builder().name("below").spawn((event.clone(),), |event| event.wait().unwrap()).unwrap();
    p.join().unwrap();
    // Until here it could have set the event itself.
    drop(event);
}

#[test]
fn joining_who_waits_for_ones_own_event_is_a_deadlock() {
    let _watched = watch(60);
    let p = Process::builder().name("above").spawn((), wait_and_join).unwrap();
    let mut circle = circle_of(p.pid());
    eventually(|| {
        circle = circle_of(p.pid());
        circle.is_deadlock
    });
    let text = circle.to_string();
    assert!(text.contains(" waits for Event ") && text.contains(&format!(", and so for above (pid {})", p.pid())), "{text}");
    end(p);
}

fn lock_within(first: Lock, second: Lock, ready: Event, go: Event) -> (bool, String, bool) {
    let _first = first.lock().unwrap();
    ready.set().unwrap();
    go.wait().unwrap();
    let timed_out = second.lock_timeout(Duration::from_millis(300)).is_err();
    let then = dump();
    let over = then.circles().iter().find(|c| c.is_over).map(Circle::to_string).unwrap_or_default();
    // It waits again, and what was is forgotten.
    let _ = second.lock_timeout(Duration::from_nanos(1));
    let _ = go.wait_timeout(Duration::ZERO);
    (timed_out, over, Event::new().unwrap().wait_timeout(Duration::from_nanos(1)).unwrap())
}

#[test]
fn who_has_just_given_up_learns_of_the_circle() {
    let _watched = watch(60);
    let locks = [Lock::new().unwrap(), Lock::new().unwrap()];
    let go = Event::new().unwrap();
    let ready = [Event::new().unwrap(), Event::new().unwrap()];
    let patient = (locks[1].clone(), locks[0].clone(), ready[1].clone(), go.clone());
    let patient = Process::builder().name("patient").spawn(patient, first_then_second).unwrap();
    let hasty = (locks[0].clone(), locks[1].clone(), ready[0].clone(), go.clone());
    let hasty = Process::builder().name("hasty").spawn(hasty, lock_within).unwrap();
    ready.iter().for_each(|r| r.wait().unwrap());
    go.set().unwrap();
    let pid = hasty.pid();
    let (timed_out, text, _) = hasty.join().unwrap();
    assert!(timed_out && text.starts_with("a circle until time was up: "), "{text}");
    assert!(text.contains(&format!("which hasty (pid {pid}) holds")), "{text}");
    patient.join().unwrap();
}

fn lock_two(first: Lock, second: Lock, ready: Event, go: Event) {
    let _first = first.lock().unwrap();
    ready.set().unwrap();
    go.wait().unwrap();
    let _second = second.lock_timeout(Duration::from_secs(3_000));
}

#[test]
fn a_circle_that_time_breaks_is_no_deadlock() {
    let _watched = watch(60);
    let locks = [Lock::new().unwrap(), Lock::new().unwrap()];
    let (go, ready) = (Event::new().unwrap(), [Event::new().unwrap(), Event::new().unwrap()]);
    let timed = Process::spawn((locks[0].clone(), locks[1].clone(), ready[0].clone(), go.clone()), lock_two).unwrap();
    let patient = (locks[1].clone(), locks[0].clone(), ready[1].clone(), go.clone());
    let patient = Process::spawn(patient, first_then_second).unwrap();
    ready.iter().for_each(|r| r.wait().unwrap());
    go.set().unwrap();
    let circle = circle_of(timed.pid());
    assert!(!circle.is_deadlock && !circle.is_over, "{circle}");
    let wait = wait_of(timed.pid(), |_| true);
    assert!(wait.has_limit && wait.to_string().ends_with("; until time is up"), "{wait}");
    assert!(!wait_of(patient.pid(), |_| true).has_limit);
    end(timed);
    end(patient);
}

/// A death at each step of a note leaves nothing behind, neither in dumps nor for the next process in the slot.
#[cfg(feature = "crash-points")]
#[test]
fn notes_go_with_whoever_wrote_them() {
    let _watched = watch(60);
    no_core_dumps();
    let event = Event::new().unwrap();
    for point in ["note.taken", "note.freed"] {
        for victim_threads in [1u32, 10] {
            let p = Process::spawn((event.clone(), point.to_owned(), victim_threads), |event, point: String, threads: u32| {
                // The others wait on; with ten of them the last finds no free note.
                std::thread::scope(|s| {
                    for _ in 1..threads {
                        s.spawn(|| Event::new().unwrap().wait());
                    }
                    while dump().process(std::process::id()).unwrap().waits.len() < (threads as usize - 1).min(8) {
                        std::thread::yield_now();
                    }
                    let point: &'static str = Box::leak(point.into_boxed_str());
                    multiproc::testing::arm_at(point, 1);
                    let _ = event.wait_timeout(Duration::from_millis(1));
                });
            })
            .unwrap();
            let pid = p.pid();
            assert!(p.join().unwrap_err().to_string().contains("SIGKILL"), "{point}");
            assert!(dump().process(pid).is_none_or(|p| p.waits.is_empty() && p.more_waits == 0));
            // Slots are used again, the lowest first.
            let next = Process::spawn((), || {
                let me = dump().process(std::process::id()).unwrap().clone();
                (me.waits.len(), me.more_waits)
            });
            assert_eq!(next.unwrap().join().unwrap(), (0, 0));
        }
    }
}

fn put_until_late(jobs: Sender<u64>, results: Receiver<u64>) -> String {
    loop {
        if jobs.put_timeout(1, Duration::from_millis(20)).is_err()
            && let Some(circle) = dump().circles().iter().find(|c| c.is_over)
        {
            drop(results);
            return circle.to_string();
        }
    }
}

#[test]
fn who_has_given_up_putting_learns_of_it_too() {
    let _watched = watch(60);
    let (jobs, todo) = channel(2).unwrap();
    let (done, results) = channel(2).unwrap();
    let worker = Process::spawn((todo, done), work).unwrap();
    let main = Process::builder().name("main").spawn((jobs, results), put_until_late).unwrap();
    let pid = main.pid();
    let text = main.join().unwrap();
    assert!(text.contains(&format!("and so for main (pid {pid})")), "{text}");
    worker.join().unwrap();
}

// --- while everything moves ----------------------------------------------------------------------

fn busy(lock: Lock, tx: Sender<Lock>, rx: Receiver<Lock>, permits: Semaphore) {
    loop {
        let _permit = permits.acquire().unwrap();
        let _guard = lock.lock();
        let _ = tx.try_put(lock.clone());
        let _ = rx.try_get();
        let _ = rx.lease_timeout(Duration::from_micros(50));
    }
}

/// Under traffic and deaths a dump is always whole, and never speaks of a deadlock that is none.
#[test]
fn dumps_go_on_while_processes_live_and_die() {
    let _watched = watch(120);
    no_core_dumps();
    let (tx, rx) = channel(3).unwrap();
    let (lock, permits) = (Lock::ignoring_death().unwrap(), Semaphore::new(2).unwrap());
    let start = || Process::spawn((lock.clone(), tx.clone(), rx.clone(), permits.clone()), busy).unwrap();
    let mut busy: Vec<_> = (0..3).map(|_| start()).collect();
    for round in 0..300usize {
        let now: Dump = dump();
        assert!(now.process(std::process::id()).is_some() && now.unreadable == 0, "{now}");
        assert!(
            !now.circles().iter().any(|c| c.is_deadlock && c.links.iter().any(|l| busy.iter().any(|p| p.pid() == l.process.pid))),
            "{now}"
        );
        assert!(now.to_string().lines().count() >= now.processes.len());
        if round.is_multiple_of(10) {
            let victim = round / 10 % 3;
            busy[victim].kill().unwrap();
            busy[victim] = start();
        }
    }
    busy.into_iter().for_each(end);
}

fn pass_on(from: Receiver<u64>, to: Sender<u64>) {
    while let Ok(n) = from.get() {
        // Work between the two, when both queues are empty.
        (0..500).for_each(|_| std::hint::spin_loop());
        if to.put(n + 1).is_err() {
            return;
        }
    }
}

fn pass_back(ball: Connection<u64, u64>) {
    while let Ok(n) = ball.recv() {
        (0..500).for_each(|_| std::hint::spin_loop());
        if ball.send(n + 1).is_err() {
            return;
        }
    }
}

#[test]
fn nor_is_one_in_a_pipe() {
    let _watched = watch(120);
    let (hers, his) = pipe().unwrap();
    hers.send(0).unwrap();
    let players = [Process::spawn((hers,), pass_back).unwrap(), Process::spawn((his,), pass_back).unwrap()];
    watch_the_ball(players);
}

/// Two who wait for each other in turn are never both seen waiting.
#[test]
fn a_ball_in_play_is_no_deadlock() {
    let _watched = watch(120);
    let (there, there_out) = channel(1).unwrap();
    let (back, back_out) = channel(1).unwrap();
    there.put(0).unwrap();
    let players = [Process::spawn((there_out, back), pass_on).unwrap(), Process::spawn((back_out, there), pass_on).unwrap()];
    watch_the_ball(players);
}

fn watch_the_ball(players: [Process<()>; 2]) {
    let pids = players.each_ref().map(Process::pid);
    wait_of(pids[0], |_| true);
    wait_of(pids[1], |_| true);
    let (mut seen, mut dumps) = ([0; 2], 0);
    while dumps < 10_000 || seen.iter().any(|&n| n < 50) {
        let now = dump();
        assert!(!now.circles().iter().any(|c| c.links.iter().any(|l| pids.contains(&l.process.pid))), "{now}");
        for (n, &pid) in seen.iter_mut().zip(&pids) {
            *n += usize::from(!now.process(pid).unwrap().waits.is_empty());
        }
        dumps += 1;
    }
    players.into_iter().for_each(end);
}

// --- a dump on a signal --------------------------------------------------------------------------

/// A scene whose stderr is read here.
fn scene_with_stderr(name: &str, env: &[(&str, &str)]) -> (Scene, BufReader<PipeReader>) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new(DEBUGGED);
    command.arg(name).envs(env.iter().copied()).stderr(writer);
    (Scene::start(&mut command), BufReader::new(reader))
}

/// The next dump: up to the empty line behind it.
fn read_dump(stderr: &mut BufReader<PipeReader>) -> String {
    let mut text = String::new();
    loop {
        let before = text.len();
        assert!(stderr.read_line(&mut text).unwrap() > 0, "{text}");
        if &text[before..] == "\n" {
            return text;
        }
    }
}

fn send(pid: u32, signal: i32) {
    // SAFETY: a process that its parent, this one or a scene, has not reaped.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
}

#[test]
fn sigquit_shows_who_holds_what_is_waited_for() {
    let _watched = watch(60);
    let (mut scene, mut stderr) = scene_with_stderr("idle", &[]);
    let holder: u32 = scene.line().parse().unwrap();
    send(holder, libc::SIGSTOP);
    let wanted = format!("(held), held by holder (pid {holder})");
    let stopped = format!("holder (pid {holder}): stopped");
    eventually(|| {
        send(scene.pid(), libc::SIGQUIT);
        let text = read_dump(&mut stderr);
        assert!(text.starts_with("multiproc: 2 processes, "), "{text}");
        text.contains(&wanted) && text.contains(&stopped)
    });
    scene.kill();
    scene.end();
}

#[test]
fn a_hundred_dumps_under_traffic() {
    let _watched = watch(120);
    let (mut scene, mut stderr) = scene_with_stderr("traffic", &[]);
    assert_eq!(scene.line(), "runs");
    for _ in 0..100 {
        send(scene.pid(), libc::SIGQUIT);
        let text = read_dump(&mut stderr);
        assert!(text.starts_with("multiproc: ") && text.contains("stopped") && !text.contains("deadlock"), "{text}");
    }
    scene.kill();
    scene.end();
}

// --- waiting for a debugger ----------------------------------------------------------------------

static RAN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

fn count_init() {
    RAN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    if std::env::var_os("SAY_INIT").is_some() {
        eprintln!("user code");
    }
}

/// A worker that waits before its code, and its stderr, whose first line has been read.
fn halted(name: &str, list: &str) -> (Process<u32>, BufReader<PipeReader>) {
    worker_init(count_init).unwrap();
    let mut p = Process::builder()
        .name(name)
        .env("MULTIPROC_WAIT", list)
        .env("SAY_INIT", "1")
        .stderr(Stdio::Piped)
        .spawn((), || RAN.load(std::sync::atomic::Ordering::Relaxed))
        .unwrap();
    let mut stderr = BufReader::new(p.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let pid = p.pid();
    let begin = format!("multiproc: {name} (pid {pid}) waits before its first line");
    assert!(line.starts_with(&begin) && line.contains(&format!("kill -CONT {pid}")), "{line}");
    (p, stderr)
}

fn rest(mut stderr: BufReader<PipeReader>) -> String {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stderr, &mut text).unwrap();
    text
}

#[test]
fn a_worker_waits_for_its_debugger_and_goes_on_by_sigcont() {
    let _watched = watch(60);
    for (name, list) in [("w1", "w1"), ("w 2", "x, w 2"), ("w3", "*")] {
        let (mut p, stderr) = halted(name, list);
        assert_eq!(report(p.pid()).state, ProcessState::Stopped);
        assert_eq!(report(p.pid()).waits[0].operation, "continue");
        assert!(p.join_timeout(Duration::from_millis(30)).unwrap().is_none());
        p.signal(Signal::CONT).unwrap();
        assert_eq!(p.join().unwrap(), 1);
        assert_eq!(rest(stderr), "user code\n");
    }
    // At once: the signal comes as soon as the line is there.
    for _ in 0..20 {
        let (p, _stderr) = halted("quick", "quick");
        p.signal(Signal::CONT).unwrap();
        p.join().unwrap();
    }
    let other = Process::builder().name("w1x").env("MULTIPROC_WAIT", "w1,x").spawn((), || 7).unwrap();
    assert_eq!(other.join().unwrap(), 7);
}

#[test]
fn a_waiting_worker_can_be_ended() {
    let _watched = watch(60);
    for signal in [Signal::TERM, Signal::KILL, Signal::INT] {
        let (p, stderr) = halted("w", "w");
        p.signal(signal).unwrap();
        let error = p.join().unwrap_err().to_string();
        assert!(error.contains(&signal.to_string()), "{error}");
        assert_eq!(rest(stderr), "");
    }
}

#[test]
fn a_debugger_that_attaches_lets_it_go_on() {
    let _watched = watch(60);
    let (p, stderr) = halted("w", "w");
    // SAFETY: attaches without stopping it; touches no memory.
    let r = unsafe { libc::ptrace(libc::PTRACE_SEIZE, p.pid() as i32, 0usize, 0usize) };
    if r != 0 {
        eprintln!("skipped: ptrace is not allowed: {}", std::io::Error::last_os_error());
        end(p);
        return;
    }
    assert_eq!(rest(stderr), "user code\n");
    // SAFETY: as above. The worker may have ended.
    unsafe { libc::ptrace(libc::PTRACE_DETACH, p.pid() as i32, 0usize, 0usize) };
    assert_eq!(p.join().unwrap(), 1);
}

#[test]
fn a_waiting_worker_ends_with_its_coordinator() {
    let _watched = watch(60);
    let (mut scene, mut stderr) = scene_with_stderr("waits for a debugger", &[("MULTIPROC_WAIT", "one")]);
    let pid: u32 = scene.line().parse().unwrap();
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains(&format!("one (pid {pid}) waits")), "{line}");
    scene.kill();
    // Its stdout is the scene's: the end of file says that the worker is gone too.
    assert_eq!(scene.rest().0, "");
    scene.end();
}

#[test]
fn the_variable_reaches_workers_by_the_coordinators_environment() {
    let _watched = watch(60);
    let (mut scene, mut stderr) = scene_with_stderr("waits for a debugger", &[("MULTIPROC_WAIT", "two, one")]);
    let pid: u32 = scene.line().parse().unwrap();
    stderr.read_line(&mut String::new()).unwrap();
    send(pid, libc::SIGCONT);
    assert_eq!(scene.line(), "one runs");
    assert!(scene.end().1.success());
}

// --- at the end ----------------------------------------------------------------------------------

#[test]
fn an_exit_that_waits_says_for_what() {
    let _watched = watch(60);
    let (mut scene, mut stderr) = scene_with_stderr("late at exit", &[]);
    let (mut first, mut second) = (String::new(), String::new());
    stderr.read_line(&mut first).unwrap();
    stderr.read_line(&mut second).unwrap();
    let me = format!("MainProcess (pid {})", scene.pid());
    assert!(first.starts_with("waiting for process late (pid ") && first.contains(", which waits to lock on Lock "), "{first}");
    assert!(first.contains(&format!("held by {me}")), "{first}");
    assert!(second.starts_with("deadlock: ") && second.contains(&format!("{me} waits for the end of late")), "{second}");
    scene.kill();
    scene.end();
}
