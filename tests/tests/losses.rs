//! What the threads of a process had in hand is counted when it dies, however many others came and went before.

use multiproc::{Process, Queue, Sender, channel, testing};
use multiproc_tests::{eventually, is_gone, watch};
use serde::{Deserialize, Deserializer, Serialize};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Threads of a process that can have something in hand at a time, so that it is told exactly: the documented number.
const AT_ONCE: usize = 16;

/// Whoever decodes a slow one never ends.
#[derive(Serialize)]
struct Item {
    slow: bool,
}

static STUCK: AtomicUsize = AtomicUsize::new(0);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Item, D::Error> {
        let slow = bool::deserialize(from)?;
        if slow {
            STUCK.fetch_add(1, Ordering::Relaxed);
            loop {
                thread::park();
            }
        }
        Ok(Item { slow })
    }
}

/// `before` threads take one each and end, after this one has; then `stuck` threads have one in hand for ever, this one among them.
fn getters(q: Queue<Item>, before: usize, stuck: usize, ready: Sender<()>) {
    assert!(!q.get().unwrap().slow);
    for _ in 0..before {
        let q = q.clone();
        thread::spawn(move || assert!(!q.get().unwrap().slow)).join().unwrap();
    }
    for _ in 1..stuck {
        let q = q.clone();
        thread::spawn(move || drop(q.get()));
    }
    thread::spawn(move || {
        while STUCK.load(Ordering::Relaxed) < stuck {
            thread::yield_now();
        }
        ready.put(()).unwrap();
    });
    drop(q.get());
}

fn losses(before: usize, stuck: usize) -> u32 {
    let q = Queue::bounded(100).unwrap();
    let (tx, rx) = channel(1).unwrap();
    for n in 0..1 + before + stuck {
        q.put(Item { slow: n > before }).unwrap();
    }
    let process = Process::spawn((q.clone(), before, stuck, tx), getters).unwrap();
    rx.get().unwrap();
    let _ = process.kill();
    eventually(|| is_gone(process.pid()));
    process.join().unwrap_err();
    testing::collect().unwrap();
    q.take_losses()
}

#[test]
fn threads_that_came_and_went_cover_no_note() {
    let _watched = watch(120);
    for before in [0, 1, 5, 6, 7, 8, 14, 15, 16, 40] {
        assert_eq!(losses(before, 2), 2, "after {before} threads");
    }
}

#[test]
fn as_many_at_a_time_as_the_documentation_says() {
    let _watched = watch(120);
    assert_eq!(losses(0, AT_ONCE), AT_ONCE as u32);
    assert_eq!(losses(AT_ONCE * 2, AT_ONCE), AT_ONCE as u32);
    // Beyond that it is fewer, and never more.
    let told = losses(0, AT_ONCE + 3);
    assert!((AT_ONCE as u32..=AT_ONCE as u32 + 3).contains(&told), "{told}");
}

/// Cannot be decoded.
#[derive(Serialize)]
struct Bad(u32);

impl<'de> Deserialize<'de> for Bad {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Bad, D::Error> {
        panic!("{} is bad", u32::deserialize(from)?)
    }
}

/// Of each of three its caller has heard, whichever way it came.
fn survives_panics(q: Queue<Bad>, ready: Sender<()>) -> () {
    std::panic::set_hook(Box::new(|_| ()));
    assert!(catch_unwind(|| q.get()).is_err());
    thread::scope(|scope| assert!(scope.spawn(|| q.get_many(1)).join().is_err()));
    assert!(catch_unwind(|| q.get()).is_err());
    ready.put(()).unwrap();
    loop {
        thread::park();
    }
}

#[test]
fn what_panics_when_it_is_decoded_is_not_in_hand_any_more() {
    let _watched = watch(60);
    let q = Queue::bounded(10).unwrap();
    let (tx, rx) = channel(1).unwrap();
    for n in 0..3 {
        q.put(Bad(n)).unwrap();
    }
    let process = Process::spawn((q.clone(), tx), survives_panics).unwrap();
    rx.get().unwrap();
    let _ = process.kill();
    process.join().unwrap_err();
    testing::collect().unwrap();
    assert_eq!((q.len(), q.take_losses()), (0, 0));
}
