//! What died with a process is told to the program's subscriber, once.

use multiproc::{Array, Lock, OwnedPermit, Process, Queue, RLock, Semaphore};
use multiproc_shm::Arena;
use std::fmt::{Debug, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
static UNDER_LOCK: AtomicBool = AtomicBool::new(false);

struct Listener;

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl Subscriber for Listener {
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

    fn event(&self, event: &Event<'_>) {
        // Fails for the thread that has the collector's lock.
        UNDER_LOCK.fetch_or(Arena::of_the_tree().unwrap().hold_collections().is_err(), Ordering::Relaxed);
        let mut text = Text::default();
        event.record(&mut text);
        TOLD.lock().unwrap().push(text.0);
    }
}

/// Waits until an event has all of these parts, and says how many have.
fn told(parts: &[&str]) -> usize {
    let start = Instant::now();
    loop {
        let told = TOLD.lock().unwrap().clone();
        let count = told.iter().filter(|text| parts.iter().all(|part| text.contains(part))).count();
        if count > 0 {
            return count;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{parts:?} is not among {told:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_died_with_a_process_is_told_once() {
    tracing::subscriber::set_global_default(Listener).unwrap();
    let (lock, nested, array) = (Lock::new().unwrap(), RLock::new().unwrap(), Array::<u32>::new([0; 4]).unwrap());
    let (permits, jobs) = (Semaphore::new(5).unwrap(), Queue::<u32>::bounded(4).unwrap());
    jobs.put(1).unwrap();
    let parts = (lock.clone(), nested.clone(), array.clone(), permits.clone(), jobs.clone());
    let holder =
        Process::spawn(parts, |lock: Lock, nested: RLock, array: Array<u32>, permits: Semaphore, jobs: Queue<u32>| -> () {
            let _held = (lock.lock().unwrap(), nested.lock().unwrap(), array.lock().unwrap(), jobs.lease().unwrap());
            let _permits = (permits.acquire().unwrap(), permits.acquire().unwrap());
            let _owned: OwnedPermit = permits.acquire_owned().unwrap();
            std::process::abort();
        })
        .unwrap();
    let pid = format!("pid={} ", holder.pid());
    assert!(holder.join().is_err());
    assert_eq!(told(&["permits came back", "count=2 ", &pid]), 1);
    assert_eq!(told(&["an owned permit came back", "count=1 "]), 1);
    assert_eq!(told(&["a lease came back", &pid]), 1);
    assert_eq!(permits.take_recovered(), 3);

    // By who finds it, and by nobody after that.
    for _ in 0..3 {
        assert!(lock.lock().is_err() && nested.lock().is_err() && array.lock().is_err());
    }
    let id = |debug: &dyn Debug| {
        let text = format!("{debug:?}");
        let from = text.find("id: ").map_or(0, |at| at + 4);
        format!("lock={} ", text[from..].split([',', ')']).next().unwrap_or_default())
    };
    let each = [id(&lock), id(&nested), id(&array)];
    for id in &each {
        assert_eq!(told(&["found with its owner dead", &pid, id]), 1, "{id}");
    }

    // Another death is told again.
    drop(lock.recover().unwrap().make_consistent());
    let holder = Process::spawn((lock.clone(),), |lock: Lock| -> () {
        let _held = lock.lock().unwrap();
        std::process::abort();
    })
    .unwrap();
    let pid = format!("pid={} ", holder.pid());
    assert!(holder.join().is_err() && lock.lock().is_err());
    assert_eq!(told(&["found with its owner dead", &pid, &each[0]]), 1);

    // And that of who was about to mend what the first has left, and has not vouched for it.
    let mender = Process::spawn((lock.clone(),), |lock: Lock| -> () {
        let _recovery = lock.recover().unwrap();
        std::process::abort();
    })
    .unwrap();
    let pid = format!("pid={} ", mender.pid());
    assert!(mender.join().is_err());
    for _ in 0..2 {
        assert!(lock.lock().is_err());
    }
    assert_eq!(told(&["found with its owner dead", &pid, &each[0]]), 1);
    assert!(!UNDER_LOCK.load(Ordering::Relaxed), "a subscriber was called under the collector's lock");
}
