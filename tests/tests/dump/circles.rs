//! What goes round in a circle.

use crate::helpers::*;
use multiproc::{Circle, Event, Lock, Process, Receiver, Sender, channel, dump};
use multiproc_tests::{eventually, watch};
use std::time::Duration;

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
    multiproc_tests::no_core_dumps();
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
