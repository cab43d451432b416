//! `_TestEvent`: an event between processes.

use crate::stage::{SHORT, soon, waits, watched};
use multiproc::{Event, Process};
use std::time::{Duration, Instant};

#[test]
fn event() {
    let _watched = watched();
    let event = Event::new().unwrap();
    assert!(!event.is_set());
    assert!(!event.wait_timeout(Duration::ZERO).unwrap());
    assert!(!waits(|| event.wait_timeout(SHORT)).unwrap());
    assert!(!waits(|| event.wait_deadline(soon())).unwrap());
    event.set().unwrap();
    assert!(event.is_set());
    event.wait().unwrap();
    assert!(event.wait_timeout(Duration::ZERO).unwrap());
    assert!(event.wait_deadline(Instant::now()).unwrap());
    event.set().unwrap();
    event.clear();
    assert!(!event.is_set() && !event.wait_timeout(Duration::ZERO).unwrap());
    // Set by a child, while this process waits.
    let p = Process::spawn((event.clone(),), |event: Event| {
        std::thread::sleep(SHORT);
        event.set().unwrap();
    });
    event.wait().unwrap();
    assert!(event.is_set());
    p.unwrap().join().unwrap();
}

#[test]
fn repr() {
    let _watched = watched();
    let event = Event::new().unwrap();
    assert!(format!("{event:?}").ends_with(", not set)"), "{event:?}");
    event.set().unwrap();
    assert!(format!("{event:?}").ends_with(", set)"), "{event:?}");
    event.clear();
    assert!(format!("{event:?}").ends_with(", not set)"), "{event:?}");
}
