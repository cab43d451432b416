//! The shipping words of events, semaphores and re-entrant locks with five or six at them, some of whom die, in orders of steps that shuttle draws. See `models.rs`.

use shuttle as checker;

mod handles;
#[path = "../../shm/tests/world/mod.rs"]
mod world;

/// What the modelled files call `crate::beneath`.
mod beneath {
    pub(crate) use crate::wait_word::WaitWord;
    pub(crate) use crate::world::gate::{LockFailed, RawLock, Who};
    pub(crate) use crate::world::*;
}

#[allow(dead_code, unreachable_pub)]
#[path = "../../shm/src/raw/wait_word.rs"]
mod wait_word;

#[allow(dead_code, unreachable_pub)]
#[path = "../src/raw"]
mod raw {
    pub(crate) mod event;
    pub(crate) mod hold;
    pub(crate) mod ledger;
    pub(crate) mod signals;
}

use beneath::{Thread, Without};
use handles::{Books, Counted, nests, take};
use raw::event::RawEvent;
use raw::ledger;
use raw::signals::RawSignals;
use shuttle::thread;
use std::cell::Cell;
use world::crash::{self, dies_anywhere, dies_woken};
use world::schedules::{always, below, missed};
use world::shared::shared;

const STEPS: u32 = 25;

/// Does it, or dies at some step of it. Whether it died.
fn maybe_dies(what: impl FnOnce()) -> bool {
    match below(4) {
        0 => dies_anywhere(1 + below(STEPS), what),
        1 => dies_woken(1 + below(STEPS), what),
        _ => {
            what();
            false
        }
    }
}

/// Four wait, of whom three may die, for two who set, of whom one may.
fn set() {
    let event: &RawEvent = shared();
    let before = event.state();
    let wait = move || assert!(event.is_over(before) || event.wait(Thread, before, None));
    let waiters: Vec<_> = [true, true, true, false]
        .map(|mortal| {
            thread::spawn(move || {
                if mortal {
                    maybe_dies(wait);
                } else {
                    wait();
                }
            })
        })
        .into();
    let setters =
        [thread::spawn(|| _ = maybe_dies(|| event.set(Thread))), thread::spawn(|| _ = maybe_dies(|| event.set(Thread)))];
    setters.into_iter().for_each(|setter| setter.join().unwrap());
    if !event.is_over(before) {
        event.set(Thread);
    }
    event.clear();
    waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
}

/// Five want the one permit, and may die with it or without it.
fn permits_of(cleaned: bool) {
    let books: &Books<5> = shared();
    let holder = move |slot: usize| {
        move || {
            let had = Cell::new(false);
            let died = maybe_dies(|| {
                books.enter_in_turn(slot);
                had.set(true);
                crash::point("has it");
                had.set(false);
                books.give_back(slot);
            });
            if died && cleaned {
                books.clean(slot, had.get());
            }
        }
    };
    let holders: Vec<_> = (0..5).map(|slot| thread::spawn(holder(slot))).collect();
    holders.into_iter().for_each(|holder| holder.join().unwrap());
    assert_eq!(ledger::sum(&books.entries), 0);
}

/// A cleaner comes after each that dies.
fn permits() {
    permits_of(true);
}

fn permits_that_nobody_cleans_up() {
    permits_of(false);
}

/// Three take one each, which two release, of whom one may die: then it is cleaned up after, and released again if it was not.
fn signalled() {
    let signals: &RawSignals = shared();
    signals.init(0, 8);
    let takers: Vec<_> = (0..3).map(|_| thread::spawn(|| take(signals))).collect();
    let releaser = thread::spawn(|| {
        if maybe_dies(|| assert!(signals.release(Thread, 1))) {
            signals.owner_died();
        }
    });
    assert!(signals.release(Thread, 1));
    assert!(signals.release(Thread, 1));
    releaser.join().unwrap();
    // Whether the dead one had released it nobody knows.
    assert!(signals.release(Thread, 1));
    takers.into_iter().for_each(|taker| taker.join().unwrap());
    assert!(signals.value() <= 1);
}

/// Five nest, and may die at each depth.
fn nested() {
    let counted: &Counted = shared();
    let owners: Vec<_> = (1..=5).map(|me| thread::spawn(move || maybe_dies(|| nests(counted, me)))).collect();
    owners.into_iter().for_each(|owner| _ = owner.join().unwrap());
    nests(counted, 9);
}

#[test]
fn all_who_wait_for_an_event_go_on() {
    always("event", set);
}

#[test]
fn a_permit_is_one_at_a_time_and_comes_back() {
    always("semaphore", permits);
}

#[test]
fn what_is_released_is_taken() {
    always("signal semaphore", signalled);
}

#[test]
fn a_count_is_its_owners() {
    always("rlock", nested);
}

#[test]
fn each_rule_is_needed() {
    missed("event", Without::Baton, set);
    missed("event", Without::PassingOn, set);
    missed("event", Without::OtherWord, set);
    missed("semaphore", Without::Nothing, permits_that_nobody_cleans_up);
}
