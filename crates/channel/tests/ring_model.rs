//! The shipping words of a queue under loom, over the shipping locks and wait words: whoever dies at whichever change of a word, what was put is got once, whoever
//! waits goes on, and nothing is lost but what a dead getter had in hand. Each rule that this relies on is left out once, and missed.

use loom as checker;

#[path = "../../shm/tests/world/mod.rs"]
mod world;

mod mock;
#[allow(dead_code)]
mod queue;

#[allow(dead_code, unreachable_pub)]
#[path = "../../shm/src/raw/lock.rs"]
mod lock;
#[allow(dead_code, unreachable_pub, rustdoc::broken_intra_doc_links)]
#[path = "../../shm/src/raw/wait_word.rs"]
mod wait_word;

/// What the modelled files call `crate::beneath`.
#[allow(unused_imports)]
mod beneath {
    pub(crate) use crate::lock::{RawLock, Who};
    pub(crate) use crate::mock::{Arena, BlockId, Error, RawRef, Round, Shared, age, cache};
    pub(crate) use crate::ring::cell::QueueCell;
    pub(crate) use crate::wait_word::WaitWord;
    pub(crate) use crate::world::*;
}

#[allow(dead_code, unreachable_pub)]
#[path = "../src/ring"]
mod ring {
    pub(crate) mod bytes;
    pub(crate) mod cell;
    pub(crate) mod usual;
    pub(crate) mod wakes;

    pub(crate) use crate::queue::untried::{dead, volume};
}

use loom::thread;
use queue::Shared;
use world::Without;
use world::check::{ONE_ORDER, holds_at_each_step, holds_within};
use world::crash::{dies_anywhere, dies_woken};
use world::shared::shared;

fn spawn<R: 'static>(queue: &'static Shared, what: impl FnOnce(&'static Shared) -> R + 'static) -> thread::JoinHandle<R> {
    thread::spawn(move || what(queue))
}

/// Three messages through room for one: the getter sleeps, then the putter, and they go round the ring.
fn in_order() {
    let queue: &Shared = shared();
    let putter = spawn(queue, |queue| (0..3).for_each(|_| _ = queue.put()));
    assert_eq!([queue.get(), queue.get(), queue.get()], [0, 1, 2]);
    putter.join().unwrap();
    queue.is_accounted_for(0);
}

/// Two get, of whom one watches the ring and the other sleeps at the lock.
fn two_getters() {
    let queue: &Shared = shared();
    let getters = [spawn(queue, Shared::get), spawn(queue, Shared::get)];
    queue.put();
    queue.put();
    getters.into_iter().for_each(|getter| _ = getter.join().unwrap());
    queue.is_accounted_for(0);
}

/// A putter dies at each step while a getter is about to sleep, for which the kernel wakes nobody; what it had not committed another puts.
fn putter_dies_and(cleaned: bool, k: u32) -> bool {
    let queue: &Shared = shared();
    let getter = spawn(queue, Shared::get);
    let died = dies_anywhere(k, || _ = queue.put());
    if died && cleaned {
        queue.clean();
    }
    if queue.cell.produced.tail.load(world::Ordering::Acquire) == 0 {
        queue.put();
    }
    getter.join().unwrap();
    queue.is_accounted_for(0);
    died
}

fn putter_dies(k: u32) -> bool {
    putter_dies_and(true, k)
}

fn nobody_cleans_up(k: u32) -> bool {
    putter_dies_and(false, k)
}

/// A getter dies at each step while a putter is about to sleep for room; what it had not taken another gets.
fn getter_dies_and(cleaned: bool, k: u32) -> bool {
    let queue: &Shared = shared();
    queue.put();
    let putter = spawn(queue, Shared::put);
    let before = queue.cell.consumed.head.load(world::Ordering::Acquire);
    let died = dies_anywhere(k, || _ = queue.get());
    if died && cleaned {
        queue.clean();
    }
    if queue.cell.consumed.head.load(world::Ordering::Acquire) == before {
        queue.get();
    }
    putter.join().unwrap();
    queue.is_accounted_for(u32::from(died));
    died
}

fn getter_dies(k: u32) -> bool {
    getter_dies_and(true, k)
}

fn nobody_cleans_up_after_a_getter(k: u32) -> bool {
    getter_dies_and(false, k)
}

/// The same with the getter asleep, whom nobody wakes but the dead.
fn putter_dies_over_a_sleeper(k: u32) -> bool {
    let queue: &Shared = shared();
    let getter = spawn(queue, Shared::get);
    queue.cell.produced.cw.watch().0.await_asleep(1);
    let before = queue.cell.produced.tail.load(world::Ordering::Acquire);
    let died = dies_anywhere(k, || _ = queue.put());
    if queue.cell.produced.tail.load(world::Ordering::Acquire) == before {
        queue.put();
    }
    getter.join().unwrap();
    queue.is_accounted_for(0);
    died
}

/// A getter dies at each step while a putter sleeps for room; what it had not taken another gets.
fn getter_dies_over_a_sleeper(k: u32) -> bool {
    let queue: &Shared = shared();
    queue.put();
    let putter = spawn(queue, Shared::put);
    queue.cell.consumed.pw.watch().0.await_asleep(1);
    let before = queue.cell.consumed.head.load(world::Ordering::Acquire);
    let died = dies_anywhere(k, || _ = queue.get());
    if queue.cell.consumed.head.load(world::Ordering::Acquire) == before {
        queue.get();
    }
    putter.join().unwrap();
    queue.is_accounted_for(u32::from(died));
    died
}

/// The getter that watches the ring is woken and dies with the wake in hand; the one that sleeps at the lock is next.
fn woken_getter_dies(k: u32) -> bool {
    let queue: &Shared = shared();
    let mortal = spawn(queue, move |queue| dies_woken(k, || _ = queue.get()));
    queue.cell.produced.cw.watch().0.await_asleep(1);
    let other = spawn(queue, Shared::get);
    queue.cell.clock.word.await_asleep(1);
    queue.put();
    let died = mortal.join().unwrap();
    queue.put();
    other.join().unwrap();
    queue.is_accounted_for(u32::from(died));
    died
}

fn at_each_step(scene: fn(u32) -> bool) {
    assert!(holds_at_each_step(1, ONE_ORDER, Without::Nothing, true, scene).is_ok());
}

#[test]
fn what_is_put_is_got_in_order() {
    assert!(holds_within(2, ONE_ORDER, Without::Nothing, true, in_order));
}

#[test]
fn two_getters_get_two() {
    assert!(holds_within(1, ONE_ORDER, Without::Nothing, true, two_getters));
}

#[test]
fn a_putter_that_dies_has_put_or_not() {
    assert!(holds_at_each_step(2, ONE_ORDER, Without::Nothing, true, putter_dies).is_ok());
    at_each_step(putter_dies_over_a_sleeper);
}

#[test]
fn a_getter_that_dies_takes_one_at_most() {
    assert!(holds_at_each_step(2, ONE_ORDER, Without::Nothing, true, getter_dies).is_ok());
    at_each_step(getter_dies_over_a_sleeper);
    at_each_step(woken_getter_dies);
}

#[test]
fn each_rule_is_needed() {
    let missed = |without, scene: fn(u32) -> bool| {
        assert!(holds_at_each_step(1, ONE_ORDER, without, false, scene).is_err(), "{without:?} is not missed");
    };
    missed(Without::Baton, putter_dies_over_a_sleeper);
    missed(Without::Baton, getter_dies_over_a_sleeper);
    missed(Without::List, woken_getter_dies);
    for scene in [nobody_cleans_up, nobody_cleans_up_after_a_getter] {
        assert!(holds_at_each_step(2, ONE_ORDER, Without::Nothing, false, scene).is_err(), "the cleaner is not missed");
    }
    assert!(!holds_within(2, ONE_ORDER, Without::SleepersFence, false, in_order), "the fence is not missed");
    assert!(!holds_within(2, ONE_ORDER, Without::Publication, false, in_order), "the commit's order is not missed");
}
