//! The shipping words of a condition, under loom: in every order of steps that the memory model allows, with a death at each step of a waiter or a notifier, nobody
//! waits for ever. Each rule left out is missed.

mod model;
pub(crate) use model::words as beneath;

#[allow(dead_code, unreachable_pub, rustdoc::broken_intra_doc_links)]
#[path = "../src/condition/raw.rs"]
mod raw;

use beneath::{AtomicU32, Deadline, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use model::{crash, goes_wrong, goes_wrong_at_a_step, goes_wrong_at_a_step_within, mortal};
use raw::RawCondition;

const VICTIM: u32 = 2;

/// A lock that knows of its owner's death, and counts as `RawLock` does.
struct Robust {
    is_held: Mutex<bool>,
    freed: Condvar,
    owner_died: AtomicU32,
    deaths: AtomicU32,
}

struct Held<'a>(&'a Robust);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Held(lock) = self;
        let mut is_held = lock.is_held.lock().unwrap();
        if std::thread::panicking() {
            lock.owner_died.store(1, Ordering::Release);
        }
        *is_held = false;
        lock.freed.notify_one();
    }
}

impl Robust {
    /// Whether an owner has died, besides. It stays so.
    fn lock(&self) -> (Held<'_>, bool) {
        let mut is_held = self.is_held.lock().unwrap();
        while *is_held {
            is_held = self.freed.wait(is_held).unwrap();
        }
        *is_held = true;
        drop(is_held);
        let died = self.owner_died.load(Ordering::Acquire) != 0;
        if died {
            self.deaths.fetch_add(1, Ordering::Relaxed);
            // It has been taken: nobody sees the mark any more.
            self.owner_died.store(0, Ordering::Release);
        }
        (Held(self), died)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// Nobody cleans up.
    Cleaner,
    /// The cleaner does not look at the lock.
    OwnersDeath,
    /// It asks for the count before the mark.
    OrderOfQuestions,
    /// Who notifies has not got the lock.
    NotifiersLock,
}

struct World {
    lock: Robust,
    condition: RawCondition,
    items: AtomicU32,
    /// Somebody has found the lock's owner dead; from then on all give up.
    broken: AtomicU32,
}

impl World {
    /// Leaked: some words of each outcome.
    fn new() -> &'static World {
        let word = || AtomicU32::new(0);
        let lock = Robust { is_held: Mutex::new(false), freed: Condvar::new(), owner_died: word(), deaths: word() };
        Box::leak(Box::new(World { lock, condition: RawCondition::new(), items: word(), broken: word() }))
    }

    fn lock(&self) -> Held<'_> {
        let (held, died) = self.lock.lock();
        if died {
            self.broken.store(1, Ordering::Relaxed);
        }
        held
    }

    /// As `Condition::wait_for`, and takes an item. Whether there was a notification, or none was needed.
    fn take_item(&self, slot: u32, deadline: Option<Deadline>) -> bool {
        let mut held = self.lock();
        while self.items.load(Ordering::Relaxed) == 0 && self.broken.load(Ordering::Relaxed) == 0 {
            let began = self.condition.begin(slot);
            crash::point("unlocks");
            drop(held);
            crash::point("unlocked");
            let woken = self.condition.is_over_soon(began) || self.condition.sleep(began, deadline);
            crash::point("locks");
            held = self.lock();
            let over = woken || self.condition.is_over(began);
            self.condition.leave(slot);
            if !over {
                return false;
            }
        }
        if self.broken.load(Ordering::Relaxed) == 0 {
            self.items.fetch_sub(1, Ordering::Relaxed);
        }
        crash::point("unlocks");
        drop(held);
        true
    }

    fn put_item(&self, notify: u32, without: Without) {
        crash::point("locks");
        let held = self.lock();
        crash::point("locked");
        self.items.fetch_add(1, Ordering::Relaxed);
        crash::point("put");
        if without == Without::NotifiersLock {
            drop(held);
            self.condition.notify(notify);
            return;
        }
        self.condition.notify(notify);
        crash::point("unlocks");
    }

    fn clean(&self, without: Without) {
        let (deaths, died);
        match without {
            Without::Cleaner => return,
            Without::OrderOfQuestions => {
                deaths = self.lock.deaths.load(Ordering::Relaxed);
                died = self.lock.owner_died.load(Ordering::Acquire);
            }
            _ => {
                died = self.lock.owner_died.load(Ordering::Acquire);
                deaths = self.lock.deaths.load(Ordering::Relaxed);
            }
        }
        match without {
            Without::OwnersDeath => self.condition.slot_died(VICTIM, 0, false),
            _ => self.condition.slot_died(VICTIM, deaths, died != 0),
        }
    }
}

fn spawn(world: &'static World, body: impl FnOnce(&World) + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || body(world))
}

fn nobody_dies(notify: u32, without: Without) {
    let world = World::new();
    let waiters = [0, 1].map(|slot| spawn(world, move |w| assert!(w.take_item(slot, None))));
    world.put_item(notify, without);
    world.put_item(notify, without);
    waiters.into_iter().for_each(|w| w.join().unwrap());
    assert_eq!(world.condition.waiting(3), 0);
}

#[test]
fn every_item_finds_its_waiter() {
    assert!(!goes_wrong(|| nobody_dies(1, Without::Nothing)));
    assert!(!goes_wrong(|| nobody_dies(u32::MAX, Without::Nothing)));
}

#[test]
fn who_gives_up_takes_no_notification_along() {
    let model = || {
        let world = World::new();
        let impatient = spawn(world, |w| {
            if !w.take_item(1, Some(Deadline)) {
                w.take_item(1, None);
            }
        });
        let patient = spawn(world, |w| assert!(w.take_item(0, None)));
        world.put_item(1, Without::Nothing);
        world.put_item(1, Without::Nothing);
        impatient.join().unwrap();
        patient.join().unwrap();
    };
    assert!(!goes_wrong(model));
}

/// Two wait for one item, which who has had it puts back; one of the two is killed at step `k`. The other gets the item, unless it went with the dead one.
fn a_waiter_dies(k: u32, without: Without) -> bool {
    let world = World::new();
    let takes_and_puts = |w: &World, slot| {
        w.take_item(slot, None);
        w.put_item(1, Without::Nothing);
    };
    let other = spawn(world, move |w| takes_and_puts(w, 0));
    let put = spawn(world, move |w| w.put_item(1, Without::Nothing));
    let died = mortal(k, || takes_and_puts(world, VICTIM));
    put.join().unwrap();
    if died {
        world.clean(without);
        if world.items.load(Ordering::Relaxed) == 0 {
            world.put_item(1, Without::Nothing);
        }
    }
    other.join().unwrap();
    died
}

#[test]
fn a_dead_waiter_swallows_nothing() {
    assert!(!goes_wrong_at_a_step_within(1, |k| a_waiter_dies(k, Without::Nothing)));
}

/// Two wait, and who puts two items is killed at step `k`.
fn a_notifier_dies(k: u32, notify: u32, without: Without) -> bool {
    let world = World::new();
    let waiters = [0, 1].map(|slot| spawn(world, move |w| assert!(w.take_item(slot, None))));
    let died = mortal(k, || {
        world.put_item(notify, without);
        world.put_item(notify, without);
    });
    if died {
        world.clean(without);
        // Killed without the lock it has left fewer items, and nobody who misses it.
        world.put_item(1, Without::Nothing);
        world.put_item(1, Without::Nothing);
    }
    waiters.into_iter().for_each(|w| w.join().unwrap());
    died
}

#[test]
fn a_dead_notifier_leaves_nobody_asleep() {
    assert!(!goes_wrong_at_a_step(|k| a_notifier_dies(k, 1, Without::Nothing)));
}

/// One waits; who has the lock dies before it comes to notify, and nobody puts anything afterwards.
fn an_owner_dies(k: u32, without: Without) -> bool {
    let world = World::new();
    let waiter = spawn(world, |w| assert!(w.take_item(0, None)));
    // Finds the lock as the dead one left it, and mends it, maybe before the cleaner comes.
    let finder = spawn(world, |w| drop(w.lock()));
    let died = mortal(k, || world.put_item(1, without));
    if died {
        world.clean(without);
        if k == 1 {
            // Before it had the lock.
            world.put_item(1, Without::Nothing);
        }
    }
    finder.join().unwrap();
    waiter.join().unwrap();
    died
}

#[test]
fn an_owner_that_dies_before_it_notifies_is_told_of() {
    assert!(!goes_wrong_at_a_step(|k| an_owner_dies(k, Without::Nothing)));
}

/// And the cleaner dies at step `k`; the next one cleans up again.
fn a_cleaner_dies(k: u32) -> bool {
    let world = World::new();
    let waiter = spawn(world, |w| assert!(w.take_item(0, None)));
    // Has taken the dead one's mark away, perhaps between the two.
    let finder = spawn(world, |w| drop(w.lock()));
    // With the lock, before it notifies.
    assert!(mortal(2, || world.put_item(1, Without::Nothing)));
    let died = mortal(k, || world.clean(Without::Nothing));
    if died {
        world.clean(Without::Nothing);
    }
    finder.join().unwrap();
    waiter.join().unwrap();
    died
}

#[test]
fn a_dead_cleaner_is_followed_by_one_that_tells() {
    assert!(!goes_wrong_at_a_step(a_cleaner_dies));
}

#[test]
fn each_rule_left_out_is_missed() {
    assert!(goes_wrong(|| nobody_dies(1, Without::NotifiersLock)));
    assert!(goes_wrong_at_a_step(|k| a_waiter_dies(k, Without::Cleaner)));
    assert!(goes_wrong_at_a_step(|k| an_owner_dies(k, Without::Cleaner)));
    assert!(goes_wrong_at_a_step(|k| an_owner_dies(k, Without::OwnersDeath)));
    assert!(goes_wrong_at_a_step(|k| an_owner_dies(k, Without::OrderOfQuestions)));
}
