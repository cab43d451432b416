//! The shipping code of [`moves`], under loom: whatever a mover and a collector may see of each other's words, the object that moves is
//! found by its bits or by its stamp. Without either fence, or with the stamp after the removal, it is not.

/// What the modelled file calls `crate::atomics`.
mod atomics {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}
#[allow(dead_code, unreachable_pub)]
#[path = "../src/moves.rs"]
mod moves;

use atomics::{AtomicU32, AtomicU64, Ordering};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;

const EPOCH: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    MoversFence,
    CollectorsFence,
    StampBeforeRemoval,
}

#[derive(Default)]
struct Words {
    /// The hold bits of who gets the handle, and of who had it.
    new: AtomicU64,
    old: AtomicU64,
    active: AtomicU32,
    stamp: AtomicU32,
}

/// A mutant of `moves::stamp`: it looks without a fence.
fn stamp_without_fence(words: &Words) {
    let epoch = words.active.load(Ordering::Relaxed);
    if epoch != 0 {
        words.stamp.fetch_max(epoch, Ordering::Release);
    }
}

fn stamp(words: &'static Words) {
    moves::stamp(&words.active, || Some(&words.stamp));
}

fn mover(words: &'static Words, without: Without) {
    moves::set_bit(&words.new, 1);
    match without {
        Without::MoversFence => stamp_without_fence(words),
        Without::StampBeforeRemoval => {}
        _ => stamp(words),
    }
    moves::clear_bit(&words.old, 1);
    if without == Without::StampBeforeRemoval {
        stamp(words);
    }
}

/// Whether the object is found.
fn collector(words: &Words, without: Without) -> bool {
    match without {
        Without::CollectorsFence => words.active.store(EPOCH, Ordering::Relaxed),
        _ => moves::begin(&words.active, EPOCH),
    }
    let (new, old) = (moves::bits(&words.new), moves::bits(&words.old));
    new | old != 0 || moves::is_stamped(&words.stamp, EPOCH)
}

/// Whether there is an outcome in which the object is not found.
fn loses(without: Without) -> bool {
    // Outside of loom's reckoning.
    let lost = std::sync::Arc::new(AtomicBool::new(false));
    let seen = lost.clone();
    let run = catch_unwind(AssertUnwindSafe(|| {
        loom::model(move || {
            // Leaked: two words of each outcome, and the code takes what lies in an arena.
            let words: &'static Words = Box::leak(Box::default());
            words.old.store(1, Ordering::SeqCst);
            let moving = loom::thread::spawn(move || mover(words, without));
            let found = collector(words, without);
            moving.join().expect("the mover ends");
            if !found {
                seen.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        });
    }));
    assert!(run.is_ok(), "loom gave up");
    lost.load(std::sync::atomic::Ordering::SeqCst)
}

#[test]
fn what_moves_is_found_by_its_bits_or_its_stamp() {
    assert!(!loses(Without::Nothing));
}

#[test]
fn each_order_left_out_loses_it() {
    for without in [Without::MoversFence, Without::CollectorsFence, Without::StampBeforeRemoval] {
        assert!(loses(without), "{without:?} is not missed");
    }
}

/// Epochs begin anew after 2^32, and a stamp of before stands higher than all that come.
#[test]
fn a_stamp_of_before_the_epochs_began_anew_hides_no_move() {
    loom::model(|| {
        let words: &'static Words = Box::leak(Box::default());
        words.active.store(u32::MAX, Ordering::Relaxed);
        stamp(words);
        words.active.store(1, Ordering::Relaxed);
        stamp(words);
        assert!(moves::is_stamped(&words.stamp, 1));
    });
}
