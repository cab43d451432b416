//! [`Event`].

use crate::helpers::*;
use multiproc::{Atomic, Event, Process};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_set_that_is_cleared_at_once_is_not_missed() {
    let _watch = watch();
    let event = Event::new().unwrap();
    for _ in 0..20 {
        let waiter = Process::spawn((event.clone(),), |event| event.wait().unwrap()).unwrap();
        await_sleep(&waiter, &event);
        event.set().unwrap();
        event.clear();
        waiter.join().unwrap();
        assert!(!event.is_set());
    }
}

#[test]
fn fifty_waiters_in_several_processes_all_go_on() {
    let _watch = watch();
    let _crowd = crowd();
    let (event, ready) = (Event::new().unwrap(), Atomic::new(0u32).unwrap());
    let wait = |event: Event, ready: Atomic<u32>| {
        thread::scope(|s| {
            let wait = || {
                ready.add(1);
                event.wait().unwrap();
                1
            };
            (0..10).map(|_| s.spawn(wait)).collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).sum::<u32>()
        })
    };
    for _ in 0..5 {
        ready.set(0);
        event.clear();
        let children: Vec<_> = (0..5).map(|_| Process::spawn((event.clone(), ready.clone()), wait).unwrap()).collect();
        eventually("all are there", || ready.get() == 50);
        thread::sleep(Duration::from_millis(5));
        event.set().unwrap();
        assert_eq!(children.into_iter().map(|c| c.join().unwrap()).sum::<u32>(), 50);
    }
}

#[test]
fn waiting_for_an_event_ends_in_time_and_not_early() {
    let _watch = watch();
    let event = Event::new().unwrap();
    for ms in [0, 1, 20] {
        let (start, time) = (Instant::now(), Duration::from_millis(ms));
        assert!(!event.wait_timeout(time).unwrap());
        assert!(start.elapsed() >= time);
        let deadline = Instant::now() + time;
        assert!(!event.wait_deadline(deadline).unwrap());
        assert!(Instant::now() >= deadline);
    }
    event.set().unwrap();
    event.set().unwrap();
    assert!(event.is_set() && event.wait_timeout(Duration::ZERO).unwrap() && event.wait_deadline(Instant::now()).unwrap());
    event.wait().unwrap();
    event.clear();
    assert!(!event.is_set() && !event.wait_timeout(Duration::ZERO).unwrap());
}

#[test]
fn a_killed_waiter_swallows_nothing() {
    let _watch = watch();
    let event = Event::new().unwrap();
    for round in 0..10 {
        let children: Vec<_> = (0..3).map(|_| Process::spawn((event.clone(),), |event| event.wait().unwrap()).unwrap()).collect();
        children.iter().for_each(|c| await_sleep(c, &event));
        children[round % 3].kill().unwrap();
        event.set().unwrap();
        for (i, child) in children.into_iter().enumerate() {
            assert!(child.join().is_ok() || i == round % 3);
        }
        event.clear();
    }
}
