//! A message that died in a getter's hands is counted once, at whichever step of counting it the cleaner is killed.
#![cfg(feature = "crash-points")]

use multiproc::{Process, Queue, Sender, channel, testing};
use multiproc_tests::{eventually, is_gone, watch};
use serde::{Deserialize, Deserializer, Serialize};

const STEPS: [&str; 6] = ["loss.noted", "loss.begun", "loss.counted", "loss.summed", "loss.to_be_told", "loss.cleared"];

/// Kills who decodes it.
#[derive(Serialize)]
struct Poison;

impl<'de> Deserialize<'de> for Poison {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Poison, D::Error> {
        die()
    }
}

fn die() -> ! {
    // SAFETY: ends this process.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
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
    let (ready, is_ready) = channel::<u32>(4).unwrap();
    let mut lost = 0;
    for step in 0..STEPS.len() {
        let mut deaths = 0;
        for _ in 0..200 {
            q.put(Poison).unwrap();
            let cleaner = Process::spawn((q.clone(), ready.clone(), step), cleaner).unwrap();
            let died = cleaner.join().is_err();
            is_ready.get().unwrap();
            lost += 1;
            // Whoever lives finishes what the dead have begun.
            eventually(|| multiproc::stats().unwrap().lost >= lost);
            assert_eq!((q.take_losses(), multiproc::stats().unwrap().lost), (1, lost), "died at {}: {died}", STEPS[step]);
            deaths += u32::from(died);
            if deaths == 10 {
                break;
            }
        }
        assert!(deaths > 0, "nobody died at {}", STEPS[step]);
    }
    assert_eq!(q.len(), 0);
}
