//! The shipping code of `src/raw/lock.rs` under loom, over a model of the kernel's robust list: whoever dies at whichever change of a word, all others have the lock
//! in turn, and whoever had it when it died is told of. Each rule that this relies on is left out once, and missed; and so is glibc's protocol, which strands a waiter.

use loom as checker;

#[allow(dead_code)]
mod scenes;
mod world;
pub(crate) use world as beneath;

#[allow(dead_code, unreachable_pub)]
#[path = "../src/raw/lock.rs"]
mod lock;

use lock::RawLock;
use scenes::glibc::Glibc;
use scenes::{all_pass, flusher_dies, owner_dies, woken_waiter_dies};
use world::Without;
use world::check::{BOTH, ONE_ORDER, Orders, holds_at_each_step, holds_within, it_was_a_hang};

fn at_each_step(preemptions: usize, orders: Orders, scene: fn(u32) -> bool) {
    assert!(holds_at_each_step(preemptions, orders, Without::Nothing, true, scene).is_ok());
}

fn missed(without: Without, scene: fn(u32) -> bool) {
    let found = holds_at_each_step(2, BOTH, without, false, scene);
    assert!(found.is_err(), "{without:?} is not missed");
}

#[test]
fn one_after_the_other() {
    assert!(holds_within(2, ONE_ORDER, Without::Nothing, true, || all_pass::<RawLock>(2)));
    assert!(holds_within(1, ONE_ORDER, Without::Nothing, true, || all_pass::<RawLock>(3)));
}

#[test]
fn an_owner_that_dies_lets_go() {
    at_each_step(2, ONE_ORDER, owner_dies::<RawLock>);
}

#[test]
fn a_waiter_that_dies_swallows_no_wake() {
    at_each_step(1, BOTH, woken_waiter_dies::<RawLock>);
}

#[test]
fn who_takes_the_waiters_bit_away_strands_nobody() {
    at_each_step(2, ONE_ORDER, flusher_dies::<RawLock>);
}

#[test]
fn each_rule_is_needed() {
    missed(Without::List, owner_dies::<RawLock>);
    missed(Without::Baton, owner_dies::<RawLock>);
    missed(Without::BatonOfMarked, woken_waiter_dies::<RawLock>);
    missed(Without::Sticky, woken_waiter_dies::<RawLock>);
    missed(Without::Inherited, woken_waiter_dies::<RawLock>);
    missed(Without::OneStep, flusher_dies::<RawLock>);
}

#[test]
fn glibc_keeps_one_at_a_time_and_strands_a_waiter() {
    assert!(holds_within(2, ONE_ORDER, Without::Nothing, true, || all_pass::<Glibc>(2)));
    missed(Without::Nothing, woken_waiter_dies::<Glibc>);
    assert!(it_was_a_hang());
}
