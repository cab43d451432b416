//! What the docs of Barrier promise, one test for each promise, with real processes and real kills.

use multiproc::{Atomic, Barrier, BarrierError, Process, Queue, ShmError, dump, testing};
use multiproc_tests::{eventually, no_core_dumps, watch};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

/// The number under which reports name a handle's object.
fn id(barrier: &Barrier) -> u32 {
    let text = format!("{barrier:?}");
    let digits = text.split_once("id: ").expect("a handle's Debug names its id").1;
    digits.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

fn await_sleep<R>(process: &Process<R>, barrier: &Barrier) {
    let (pid, id) = (process.pid(), id(barrier));
    eventually(|| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let sleeps = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" S"));
        sleeps && testing::waits_for(pid) == Ok(Some(id))
    });
}

/// How a wait ended, as a process returns it: its index; or -1, -2 and the pid of who died.
fn code(result: Result<multiproc::BarrierWaitResult, BarrierError>) -> i64 {
    match result {
        Ok(came) => i64::from(came.index()),
        Err(BarrierError::Broken { died: None, .. }) => -1,
        Err(BarrierError::Broken { died: Some(pid), .. }) => -1000 - i64::from(pid),
        Err(BarrierError::TimedOut) => -2,
        Err(other) => panic!("{other}"),
    }
}

fn waiter(barrier: &Barrier) -> Process<i64> {
    Process::spawn((barrier.clone(),), |barrier: Barrier| code(barrier.wait())).unwrap()
}

fn sleeper(barrier: &Barrier) -> Process<i64> {
    let waiter = waiter(barrier);
    await_sleep(&waiter, barrier);
    waiter
}

#[test]
fn all_come_through_with_an_index_each() {
    let _watch = watch(120);
    let barrier = Barrier::new(6).unwrap();
    let processes: Vec<_> = (0..3).map(|_| waiter(&barrier)).collect();
    let mut indices = thread::scope(|s| {
        let threads = [0; 3].map(|_| s.spawn(|| code(barrier.wait())));
        threads.map(|t| t.join().unwrap()).to_vec()
    });
    indices.extend(processes.into_iter().map(|p| p.join().unwrap()));
    indices.sort_unstable();
    assert_eq!(indices, [0, 1, 2, 3, 4, 5]);
    assert_eq!((barrier.waiting(), barrier.parties(), barrier.is_broken()), (0, 6, false));
}

#[test]
fn one_of_each_round_leads() {
    let _watch = watch(120);
    let barrier = Barrier::new(4).unwrap();
    let leaders = thread::scope(|s| {
        let threads = [0; 4].map(|_| s.spawn(|| (0..50).filter(|_| barrier.wait().unwrap().is_leader()).count()));
        threads.map(|t| t.join().unwrap()).iter().sum::<usize>()
    });
    assert_eq!(leaders, 50);
}

#[test]
fn a_thousand_rounds_in_step() {
    const ROUNDS: u64 = 1000;
    let _watch = watch(240);
    let (barrier, steps) = (Barrier::new(3).unwrap(), Atomic::new(0u64).unwrap());
    fn walk(barrier: Barrier, steps: Atomic<u64>) {
        for round in 1..=ROUNDS {
            steps.add(1);
            barrier.wait().unwrap();
            // All three have made this step, and none the next.
            let seen = steps.get();
            assert_eq!(seen, 3 * round);
            barrier.wait().unwrap();
        }
    }
    let others = [0; 2].map(|_| Process::spawn((barrier.clone(), steps.clone()), walk).unwrap());
    walk(barrier, steps);
    others.into_iter().for_each(|p| p.join().unwrap());
}

#[test]
fn the_last_to_come_acts_once_before_all_go_on() {
    let _watch = watch(120);
    let (barrier, acted) = (Barrier::new(3).unwrap(), Atomic::new(0u32).unwrap());
    let party = |barrier: Barrier, acted: Atomic<u32>| {
        for round in 1..=100 {
            barrier.wait_with(|| _ = acted.add(1)).unwrap();
            assert_eq!(acted.get(), round);
            barrier.wait().unwrap();
        }
    };
    let others = [0; 2].map(|_| Process::spawn((barrier.clone(), acted.clone()), party).unwrap());
    party(barrier, acted.clone());
    others.into_iter().for_each(|p| p.join().unwrap());
    assert_eq!(acted.get(), 100);
}

#[test]
fn who_comes_during_the_action_waits_for_the_next_round() {
    let _watch = watch(120);
    let (barrier, stage) = (Barrier::new(1).unwrap(), Atomic::new(0u32).unwrap());
    let acting = Process::spawn((barrier.clone(), stage.clone()), |barrier: Barrier, stage: Atomic<u32>| {
        let action = || {
            stage.set(1);
            while stage.get() != 2 {
                thread::sleep(Duration::from_millis(1));
            }
        };
        barrier.wait_with(action).unwrap();
    });
    let acting = acting.unwrap();
    eventually(|| stage.get() == 1);
    let early = sleeper(&barrier);
    stage.set(2);
    acting.join().unwrap();
    assert_eq!(early.join().unwrap(), 0);
}

#[test]
fn who_gives_up_during_the_action_breaks_nobodys_round() {
    let _watch = watch(120);
    let barrier = Barrier::new(2).unwrap();
    let other = sleeper(&barrier);
    let late = barrier.clone();
    let result = barrier.wait_with(|| {
        // A third one, while both are there.
        let late = thread::spawn(move || late.wait_timeout(Duration::from_millis(20)));
        assert_eq!(late.join().unwrap(), Err(BarrierError::TimedOut));
    });
    assert!(result.unwrap().is_leader() && !barrier.is_broken());
    assert_eq!(other.join().unwrap(), 0);
}

#[test]
fn an_action_that_panics_breaks_it() {
    let _watch = watch(120);
    let barrier = Barrier::new(2).unwrap();
    let other = sleeper(&barrier);
    let panicked = catch_unwind(AssertUnwindSafe(|| barrier.wait_with(|| panic!("an action fails"))));
    assert!(panicked.is_err() && barrier.is_broken());
    assert_eq!(other.join().unwrap(), -1);
}

#[test]
fn no_party_is_refused_and_one_never_waits() {
    let _watch = watch(120);
    assert_eq!(Barrier::new(0).err(), Some(ShmError::Invalid(&"a barrier has at least one party")));
    assert!(matches!(Barrier::new(70_000), Err(ShmError::Invalid(_))));
    let one = Barrier::new(1).unwrap();
    (0..3).for_each(|_| assert!(one.wait().unwrap().is_leader()));
    Barrier::new(65_535).unwrap().abort().unwrap();
}

#[test]
fn an_abort_tells_who_waits_and_who_comes_until_a_reset() {
    let _watch = watch(120);
    let barrier = Barrier::new(3).unwrap();
    let sleepers = [sleeper(&barrier), sleeper(&barrier)];
    assert_eq!(barrier.waiting(), 2);
    barrier.abort().unwrap();
    sleepers.into_iter().for_each(|p| assert_eq!(p.join().unwrap(), -1));
    assert!(barrier.is_broken() && barrier.waiting() == 0);
    assert_eq!(code(barrier.wait()), -1);
    assert_eq!(waiter(&barrier).join().unwrap(), -1);
    barrier.reset().unwrap();
    assert!(!barrier.is_broken());
    let others = [waiter(&barrier), waiter(&barrier)];
    let mut came = vec![code(barrier.wait())];
    came.extend(others.map(|p| p.join().unwrap()));
    came.sort_unstable();
    assert_eq!(came, [0, 1, 2]);
}

#[test]
fn a_reset_tells_who_waits_and_is_as_new() {
    let _watch = watch(120);
    let barrier = Barrier::new(2).unwrap();
    let told = sleeper(&barrier);
    barrier.reset().unwrap();
    assert_eq!(told.join().unwrap(), -1);
    // Without anybody who waits, it changes nothing.
    barrier.reset().unwrap();
    let other = waiter(&barrier);
    assert!(code(barrier.wait()) >= 0 && other.join().unwrap() >= 0);
}

#[test]
fn a_time_out_is_never_early_and_breaks_it_for_the_others() {
    let _watch = watch(120);
    let barrier = Barrier::new(3).unwrap();
    let other = sleeper(&barrier);
    let (start, limit) = (Instant::now(), Duration::from_millis(30));
    assert_eq!(barrier.wait_timeout(limit), Err(BarrierError::TimedOut));
    assert!(start.elapsed() >= limit && barrier.is_broken());
    assert_eq!(other.join().unwrap(), -1);
    barrier.reset().unwrap();
    let start = Instant::now();
    assert_eq!(barrier.wait_deadline(start + limit), Err(BarrierError::TimedOut));
    assert!(start.elapsed() >= limit);
    let impatient = Barrier::with_timeout(2, limit).unwrap();
    let start = Instant::now();
    assert_eq!(waiter(&impatient).join().unwrap(), -2);
    assert!(start.elapsed() >= limit && impatient.is_broken());
    impatient.reset().unwrap();
    assert_eq!(impatient.wait_with(|| unreachable!()), Err(BarrierError::TimedOut));
    impatient.reset().unwrap();
    assert_eq!(impatient.wait_with_timeout(Duration::ZERO, || unreachable!()), Err(BarrierError::TimedOut));
}

#[test]
fn who_is_killed_while_it_waits_breaks_it_and_is_named() {
    let _watch = watch(120);
    let barrier = Barrier::new(4).unwrap();
    let sleepers = [sleeper(&barrier), sleeper(&barrier)];
    let victim = sleeper(&barrier);
    let died = victim.pid();
    victim.kill().unwrap();
    for sleeper in sleepers {
        assert_eq!(sleeper.join().unwrap(), -1000 - i64::from(died));
    }
    assert_eq!(code(barrier.wait()), -1000 - i64::from(died));
    victim.wait();
    barrier.reset().unwrap();
    assert!(!barrier.is_broken());
}

#[test]
fn who_is_killed_between_two_rounds_is_missed() {
    let _watch = watch(120);
    let barrier = Barrier::new(2).unwrap();
    let victim = Process::spawn((barrier.clone(),), |barrier: Barrier| -> () {
        barrier.wait().unwrap();
        loop {
            thread::park();
        }
    });
    let victim = victim.unwrap();
    barrier.wait().unwrap();
    // It is killed while this one waits.
    thread::scope(|s| {
        let waits = s.spawn(|| code(barrier.wait()));
        eventually(|| barrier.waiting() == 1);
        victim.kill().unwrap();
        assert_eq!(waits.join().unwrap(), -1000 - i64::from(victim.pid()));
    });
    victim.wait();
    barrier.reset().unwrap();
    // Or before it comes.
    let victim = sleeper(&barrier);
    victim.kill().unwrap();
    let died = victim.pid();
    victim.wait();
    assert_eq!(code(barrier.wait()), -1000 - i64::from(died));
}

#[test]
fn who_lets_go_of_its_handle_is_not_missed_and_who_ends_with_it_is() {
    let _watch = watch(120);
    no_core_dumps();
    let barrier = Barrier::new(2).unwrap();
    for _ in 0..3 {
        let other = waiter(&barrier);
        assert!(code(barrier.wait()) >= 0);
        assert!(other.join().unwrap() >= 0);
    }
    assert!(!barrier.is_broken());
    // One of two handles in a process counts as well.
    let both = Process::spawn((barrier.clone(), barrier.clone()), |one: Barrier, other: Barrier| -> () {
        one.wait().unwrap();
        drop(one);
        other.wait().unwrap();
        std::process::exit(0);
    });
    let both = both.unwrap();
    let pid = both.pid();
    assert!(code(barrier.wait()) >= 0 && code(barrier.wait()) >= 0);
    assert!(both.join().is_err());
    assert_eq!(code(barrier.wait()), -1000 - i64::from(pid));
}

#[test]
fn it_travels_in_messages() {
    let _watch = watch(120);
    let (barrier, queue) = (Barrier::new(2).unwrap(), Queue::<Barrier>::bounded(1).unwrap());
    queue.put(barrier.clone()).unwrap();
    let other = Process::spawn((queue,), |queue: Queue<Barrier>| code(queue.get().unwrap().wait())).unwrap();
    assert!(code(barrier.wait()) >= 0);
    assert!(other.join().unwrap() >= 0);
    assert!(serde_json::to_string(&barrier).is_err());
}

#[test]
fn debug_and_dump_say_how_many_have_come() {
    let _watch = watch(120);
    let barrier = Barrier::new(2).unwrap();
    let waits = sleeper(&barrier);
    assert!(format!("{barrier:?}").ends_with(", 1 of 2 waiting)"), "{barrier:?}");
    let dump = dump();
    let wait = &dump.process(waits.pid()).unwrap().waits[0];
    assert_eq!((wait.operation, wait.on.clone()), ("wait", format!("Barrier {}", id(&barrier))));
    assert_eq!(wait.state, "1 of 2 have come");
    barrier.abort().unwrap();
    assert!(format!("{barrier:?}").ends_with(", 0 of 2 waiting, broken)"), "{barrier:?}");
    waits.join().unwrap();
}

/// Walkers are killed at random; a round goes through for all or for none, and after a reset all goes on.
#[test]
fn walkers_are_killed_at_random() {
    let _watch = watch(300);
    let (barrier, passed) = (Barrier::new(3).unwrap(), Atomic::new(0u64).unwrap());
    let walk = |barrier: Barrier, passed: Atomic<u64>| -> () {
        loop {
            match barrier.wait_with(|| _ = passed.add(1)) {
                Ok(_) => {}
                // Somebody resets it.
                Err(BarrierError::Broken { .. }) => thread::sleep(Duration::from_micros(100)),
                Err(other) => panic!("{other}"),
            }
        }
    };
    let start = || Process::spawn((barrier.clone(), passed.clone()), walk).unwrap();
    let mut walkers = [start(), start(), start()];
    for round in 0..100 {
        let before = passed.get();
        eventually(|| passed.get() > before + round % 11);
        let i = round as usize % 3;
        walkers[i].kill().unwrap();
        walkers[i].wait();
        assert!(barrier.is_broken(), "a death goes by");
        walkers[i] = start();
        barrier.reset().unwrap();
    }
    for walker in walkers {
        walker.kill().unwrap();
        walker.wait();
    }
}
