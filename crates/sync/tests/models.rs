//! The shipping code of `src/raw`, and of the wait word below it, under loom: whatever its threads may see of each other's words, and whoever dies at whichever
//! crash point, nobody waits for ever and nothing is given out twice. Each rule that it relies on is left out once, and missed.
//!
//! Loom ends a model in which all threads wait: that is how a lost wake shows.

use loom as checker;

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

use beneath::{Thread, Without, crash};
use handles::{Books, Counted, nests, take};
use loom::thread;
use raw::event::RawEvent;
use raw::ledger;
use raw::signals::RawSignals;
use world::check::{BOTH, ONE_ORDER, Orders, holds, holds_at_each_step};
use world::shared::shared;

fn always(scene: impl Fn() + Sync + Send + Copy + 'static) {
    assert!(holds(BOTH, Without::Nothing, true, scene));
}

/// Where at most one thread sleeps on a word.
fn always_alone(scene: impl Fn() + Sync + Send + Copy + 'static) {
    assert!(holds(ONE_ORDER, Without::Nothing, true, scene));
}

fn missed(without: Without, scene: impl Fn() + Sync + Send + Copy + 'static) {
    assert!(!holds(BOTH, without, false, scene), "{without:?} is not missed");
}

/// Whoever dies in it, at each of its crash points in turn.
fn at_each_step(orders: Orders, scene: fn(u32) -> bool) {
    assert!(holds_at_each_step(2, orders, Without::Nothing, true, scene).is_ok());
}

fn missed_at_a_step(without: Without, scene: fn(u32) -> bool) {
    assert!(holds_at_each_step(2, BOTH, without, false, scene).is_err(), "{without:?} is not missed");
}

// --- Event ----------------------------------------------------------------------------------------

fn waits(event: &'static RawEvent, before: u32) -> thread::JoinHandle<()> {
    thread::spawn(move || assert!(event.is_over(before) || event.wait(Thread, before, None)))
}

/// Set and cleared at once.
fn event_pulse() {
    let event: &RawEvent = shared();
    let waiters = [waits(event, event.state()), waits(event, event.state())];
    event.set(Thread);
    event.clear();
    waiters.into_iter().for_each(|w| w.join().unwrap());
}

/// The setter dies at each step, with two asleep.
fn event_setter_dies(k: u32) -> bool {
    let event: &RawEvent = shared();
    let before = event.state();
    let waiters = [waits(event, before), waits(event, before)];
    let died = crash::dies_at(k, || event.set(Thread));
    if !event.is_over(before) {
        event.set(Thread);
    }
    event.clear();
    waiters.into_iter().for_each(|w| w.join().unwrap());
    died
}

/// One who comes after the dead setter's event was cleared swallows nothing.
fn event_latecomer(k: u32) -> bool {
    let event: &RawEvent = shared();
    let before = event.state();
    let old = waits(event, before);
    let died = crash::dies_at(k, || event.set(Thread));
    let done = event.is_over(before);
    event.clear();
    let new = waits(event, event.state());
    if done {
        old.join().unwrap();
        event.set(Thread);
        new.join().unwrap();
    } else {
        event.set(Thread);
        old.join().unwrap();
        new.join().unwrap();
    }
    died
}

/// A waiter dies at each step, before, while and after it is woken by a setter that dies before it has woken the other.
fn event_waiter_dies(k: u32) -> bool {
    let event: &RawEvent = shared();
    let before = event.state();
    let mortal = thread::spawn(move || crash::dies_at(k, || assert!(event.wait(Thread, before, None))));
    let other = waits(event, before);
    crash::dies_at(4, || event.set(Thread));
    event.clear();
    other.join().unwrap();
    mortal.join().unwrap()
}

/// Set by one system call.
fn event_signal() {
    let event: &RawEvent = shared();
    let waiters = [waits(event, event.state()), waits(event, event.state())];
    event.set_from_signal();
    event.clear();
    waiters.into_iter().for_each(|w| w.join().unwrap());
}

#[test]
fn a_set_is_never_missed() {
    always(event_signal);
    always(event_pulse);
}

#[test]
fn a_setter_that_dies_has_set_for_all_or_none() {
    at_each_step(BOTH, event_setter_dies);
    at_each_step(BOTH, event_latecomer);
}

#[test]
fn a_waiter_that_dies_swallows_no_set() {
    at_each_step(BOTH, event_waiter_dies);
}

#[test]
fn each_rule_of_an_event_is_needed() {
    // Its fences are the kernel's, which compares the state when the sleeper is in its queue.
    missed(Without::OtherWord, event_pulse);
    missed_at_a_step(Without::Baton, event_setter_dies);
    missed_at_a_step(Without::PassingOn, event_setter_dies);
}

// --- SignalSemaphore ------------------------------------------------------------------------------

fn signals() -> &'static RawSignals {
    let signals: &RawSignals = shared();
    signals.init(0, 2);
    signals
}

fn two_takers() {
    let signals = signals();
    let takers = [thread::spawn(|| take(signals)), thread::spawn(|| take(signals))];
    assert!(signals.release(Thread, 2));
    takers.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(signals.value(), 0);
    assert!(!signals.release(Thread, 3), "beyond the bound");
    assert_eq!(signals.value(), 0);
}

fn releases_apart() {
    let signals = signals();
    let takers = [thread::spawn(|| take(signals)), thread::spawn(|| take(signals))];
    assert!(signals.release(Thread, 1) && signals.release(Thread, 1));
    takers.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(signals.value(), 0);
}

/// A taker dies at each step; what it has not taken the other one gets. Who has taken it releases it again.
fn taker_dies(k: u32) -> bool {
    let signals = signals();
    let takes = move |k| {
        move || {
            let died = crash::dies_at(k, || take(signals));
            match died {
                true => signals.owner_died(),
                false => assert!(signals.release(Thread, 1)),
            }
            died
        }
    };
    let takers = [thread::spawn(takes(k)), thread::spawn(takes(0))];
    assert!(signals.release(Thread, 1));
    let [mortal, other] = takers.map(|t| t.join().unwrap());
    assert!(!other && signals.value() == 1);
    mortal
}

/// The releaser dies at each step: released or not.
fn releaser_dies_and(cleaned: bool, k: u32) -> bool {
    let signals = signals();
    let taker = thread::spawn(|| take(signals));
    let died = crash::dies_at(k, || assert!(signals.release(Thread, 1)));
    if died && cleaned {
        // The cleaner, for a taker that was about to sleep: the kernel has woken nobody then.
        signals.owner_died();
    }
    // The commit lies between its first two crash points.
    if k == 1 {
        assert!(signals.release(Thread, 1));
    }
    taker.join().unwrap();
    assert_eq!(signals.value(), 0);
    died
}

fn releaser_dies(k: u32) -> bool {
    releaser_dies_and(true, k)
}

fn nobody_cleans_up(k: u32) -> bool {
    releaser_dies_and(false, k)
}

#[test]
fn what_is_released_is_taken() {
    always_alone(two_takers);
    always_alone(releases_apart);
}

#[test]
fn a_taker_that_dies_swallows_no_release() {
    at_each_step(ONE_ORDER, taker_dies);
}

#[test]
fn a_releaser_that_dies_strands_nobody() {
    at_each_step(ONE_ORDER, releaser_dies);
}

#[test]
fn each_rule_of_a_signal_semaphore_is_needed() {
    missed(Without::SleepersFence, two_takers);
    missed(Without::Order, two_takers);
    missed_at_a_step(Without::Nothing, nobody_cleans_up);
}

// --- Semaphore ------------------------------------------------------------------------------------

/// Two of different processes take the one permit without a lock, or see that they cannot.
fn two_enter() {
    let books: &Books<2> = shared();
    let other = thread::spawn(|| {
        if books.enter(1) {
            books.give_back(1);
        }
    });
    if books.enter(0) {
        books.give_back(0);
    }
    other.join().unwrap();
    assert_eq!(ledger::sum(&books.entries), 0);
}

/// One waits in the gate while another comes and goes past it.
fn one_waits() {
    let books: &Books<2> = shared();
    let waiter = thread::spawn(|| {
        books.enter_in_turn(1);
        books.give_back(1);
    });
    if books.enter(0) {
        books.give_back(0);
    }
    waiter.join().unwrap();
}

/// Who takes or gives back dies at each step, and is cleaned up after.
fn holder_dies(k: u32) -> bool {
    let books: &Books<2> = shared();
    let waiter = thread::spawn(|| {
        books.enter_in_turn(1);
        books.give_back(1);
    });
    let mut had = false;
    let died = crash::dies_at(k, || {
        had = books.enter(0);
        if had {
            had = false;
            books.give_back(0);
        }
    });
    if died {
        books.clean(0, had);
    }
    waiter.join().unwrap();
    assert_eq!(ledger::sum(&books.entries), 0);
    died
}

#[test]
fn a_permit_is_never_given_out_twice() {
    always_alone(two_enter);
}

#[test]
fn who_waits_for_a_permit_gets_it() {
    always_alone(one_waits);
    at_each_step(ONE_ORDER, holder_dies);
}

#[test]
fn each_rule_of_a_semaphore_is_needed() {
    missed(Without::Order, two_enter);
    missed(Without::SleepersFence, one_waits);
}

// --- RLock ----------------------------------------------------------------------------------------

fn two_nest() {
    let counted: &Counted = shared();
    let other = thread::spawn(|| nests(counted, 7));
    nests(counted, 8);
    other.join().unwrap();
}

/// An owner dies at each step; the next one counts from one.
fn owner_dies(k: u32) -> bool {
    let counted: &Counted = shared();
    let mortal = thread::spawn(move || crash::dies_at(k, || nests(counted, 7)));
    nests(counted, 8);
    let died = mortal.join().unwrap();
    nests(counted, 9);
    died
}

#[test]
fn only_the_owner_believes_in_the_count() {
    always_alone(two_nest);
    at_each_step(ONE_ORDER, owner_dies);
}
