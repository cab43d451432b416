//! A message that died in a getter's hands is counted once, and told, at whichever step of counting it the cleaner is killed.
#![cfg(feature = "crash-points")]

use multiproc::{Process, Queue, Sender, channel, testing};
use multiproc_tests::{eventually, is_gone, watch};
use serde::{Deserialize, Deserializer, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static TOLD: AtomicU64 = AtomicU64::new(0);

/// Counts the events of this process; its children have no subscriber.
struct Ear;

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("multiproc_channel::ring")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        TOLD.fetch_add(1, Ordering::Relaxed);
    }
}

const STEPS: [&str; 7] =
    ["loss.noted", "loss.begun", "loss.counted", "loss.summed", "loss.to_be_told", "loss.cleared", "loss.told"];

/// Kills who decodes it.
#[derive(Serialize)]
struct Poison;

impl<'de> Deserialize<'de> for Poison {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Poison, D::Error> {
        die()
    }
}

fn die() -> ! {
    // SAFETY: touches no memory.
    unsafe { libc::raise(libc::SIGKILL) };
    unreachable!()
}

/// Keeps everybody from cleaning until the getter is gone, then cleans up after it, and dies at that step.
fn cleaner(q: Queue<Poison>, ready: Sender<u32>, step: usize) {
    let none = testing::hold_collections().unwrap();
    let getter = Process::builder().daemon(true).spawn((q, ready), |q: Queue<Poison>, ready: Sender<u32>| {
        ready.put(std::process::id()).unwrap();
        drop(q.get());
    });
    let pid = getter.unwrap().pid();
    eventually(|| is_gone(pid));
    testing::arm_at(STEPS[step], 1);
    drop(none);
    // The keeper of this process may be quicker: then this one survives.
    testing::collect().unwrap();
}

#[test]
fn a_loss_is_counted_once_whoever_dies_while_counting_it() {
    let _watched = watch(120);
    let q = Queue::<Poison>::bounded(4).unwrap();
    tracing::subscriber::set_global_default(Ear).unwrap();
    let mut told = 0;
    let (ready, is_ready) = channel::<u32>(4).unwrap();
    let mut lost = 0;
    for (step, name) in STEPS.iter().enumerate() {
        let mut deaths = 0;
        for _ in 0..200 {
            q.put(Poison).unwrap();
            let cleaner = Process::spawn((q.clone(), ready.clone(), step), cleaner).unwrap();
            let died = cleaner.join().is_err();
            is_ready.get().unwrap();
            lost += 1;
            // Whoever lives finishes what the dead have begun.
            eventually(|| multiproc::stats().unwrap().lost >= lost);
            assert_eq!((q.take_losses(), multiproc::stats().unwrap().lost), (1, lost), "died at {name}: {died}");
            // What a dead cleaner was to tell this process tells; a live one has told it where nobody listens, unless this process was quicker.
            if died {
                told += 1;
                eventually(|| TOLD.load(Ordering::Relaxed) >= told);
            }
            assert!(TOLD.load(Ordering::Relaxed) <= lost, "a loss was told twice");
            told = TOLD.load(Ordering::Relaxed);
            deaths += u32::from(died);
            if deaths == 10 {
                break;
            }
        }
        assert!(deaths > 0, "nobody died at {name}");
    }
    assert_eq!(q.len(), 0);
}
