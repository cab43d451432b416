//! Messages that die with their getter are told to the program's subscriber, which is user code: it may do what it likes, so no lock is held meanwhile.

use multiproc::{Process, Queue};
use multiproc_shm::Arena;
use serde::{Deserialize, Deserializer, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static TOLD: AtomicU32 = AtomicU32::new(0);
static UNDER_LOCK: AtomicBool = AtomicBool::new(false);

/// Makes, sends, drops and collects at each event, and panics at the first.
struct Busy;

impl Subscriber for Busy {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("multiproc")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        let arena = Arena::of_the_tree().unwrap();
        // Fails for the thread that has the lock.
        UNDER_LOCK.fetch_or(arena.hold_collections().is_err(), Ordering::Relaxed);
        let nest = Queue::<Queue<u8>>::bounded(1).unwrap();
        nest.put(Queue::bounded(1).unwrap()).unwrap();
        drop(nest);
        arena.collect().unwrap();
        let first = TOLD.fetch_add(1, Ordering::Relaxed) == 0;
        assert!(!first, "this panic belongs to the test");
    }
}

/// Kills who decodes it.
#[derive(Serialize)]
struct Poison;

impl<'de> Deserialize<'de> for Poison {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Poison, D::Error> {
        // Dies as by kill -9, with the message in hand.
        multiproc_sys::signal::kill_self()
    }
}

#[test]
fn a_subscriber_is_told_of_losses_without_any_lock_held() {
    tracing::subscriber::set_global_default(Busy).unwrap();
    let q = Queue::<Poison>::bounded(4).unwrap();
    for _ in 0..3 {
        q.put(Poison).unwrap();
    }
    for lost in 1..=3 {
        let getter = Process::spawn((q.clone(),), |q: Queue<Poison>| drop(q.get())).unwrap();
        assert!(getter.join().is_err());
        // The keeper tells it before it announces the end; if another was cleaning, after that.
        for _ in 0..10_000 {
            if TOLD.load(Ordering::Relaxed) >= lost {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(TOLD.load(Ordering::Relaxed), lost);
    }
    assert!(!UNDER_LOCK.load(Ordering::Relaxed), "a subscriber was called under the collector's lock");
    assert_eq!(q.take_losses(), 3);
}
