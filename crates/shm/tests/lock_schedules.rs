//! The shipping code of `src/raw/lock.rs` with five who want it, several of whom die, in orders of steps that shuttle draws. See `lock_model.rs`.

use shuttle as checker;

#[allow(dead_code)]
mod scenes;
mod world;
pub(crate) use world as beneath;

#[allow(dead_code, unreachable_pub)]
#[path = "../src/raw/lock.rs"]
mod lock;

use lock::RawLock;
use scenes::glibc::Glibc;
use scenes::{Guarded, Lock};
use shuttle::thread;
use world::Without;
use world::schedules::{always, below, missed};
use world::shared::shared;

/// Steps of having the lock, and of waiting for it.
const STEPS: u32 = 30;

/// Each wants the lock some times, and may die at any step: what it had when it died the others are told of.
fn five<L: Lock>() {
    let guarded: &Guarded<L> = shared();
    let actor = || {
        for _ in 0..3 {
            match below(8) {
                0 => return guarded.pass_and_die(1 + below(STEPS)),
                1 => return guarded.pass_and_die_woken(1 + below(STEPS)),
                2 => _ = guarded.try_pass(),
                _ => guarded.pass(),
            }
        }
        false
    };
    let actors: Vec<_> = (0..5).map(|_| thread::spawn(actor)).collect();
    let died = actors.into_iter().map(|actor| u32::from(actor.join().unwrap())).sum();
    guarded.was_told_of(died);
}

#[test]
fn five_have_it_in_turn_whoever_dies() {
    always("lock", five::<RawLock>);
}

#[test]
fn each_rule_is_needed() {
    for without in [Without::List, Without::Baton, Without::BatonOfMarked, Without::Sticky, Without::Inherited] {
        missed("lock", without, five::<RawLock>);
    }
}

#[test]
fn glibc_strands_a_waiter() {
    let why = missed("glibc", Without::Nothing, five::<Glibc>);
    assert!(why.contains("deadlock"), "{why}");
}
