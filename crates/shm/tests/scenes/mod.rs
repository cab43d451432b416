//! What happens to a lock, ours or glibc's: scenes for a model checker.

use crate::checker::thread;
use crate::world::crash::{dies_anywhere, dies_woken};
use crate::world::shared::shared;
use crate::world::{AtomicU32, AtomicU64, Ordering};
use std::sync::atomic::{AtomicBool, AtomicU32 as StdU32, Ordering::SeqCst};

pub(crate) mod glibc;
mod ours;

/// A lock that is told of its owner's death.
pub(crate) trait Lock: Default + Sync + 'static {
    /// Whether an owner has died.
    fn lock(&self) -> bool;
    /// The same if it is free; `None`: it is not.
    fn try_lock(&self) -> Option<bool>;
    fn unlock(&self);
    fn word(&self) -> &AtomicU32;
}

#[derive(Default)]
pub(crate) struct Guarded<L> {
    pub(crate) lock: L,
    /// Changed in two steps under the lock.
    count: AtomicU64,
    // Outside of the checker's reckoning:
    inside: StdU32,
    deaths: StdU32,
    died_inside: AtomicBool,
}

/// Has the lock.
struct Inside<'a>(&'a StdU32, &'a AtomicBool);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // Before the kernel comes to it.
        self.1.store(std::thread::panicking(), SeqCst);
        self.0.store(0, SeqCst);
    }
}

impl<L: Lock> Guarded<L> {
    fn has_it(&self, owner_died: bool) {
        self.deaths.fetch_add(u32::from(owner_died), SeqCst);
        assert_eq!(self.inside.fetch_add(1, SeqCst), 0, "two have the lock");
        let unheard = self.died_inside.load(SeqCst);
        assert!(owner_died || !unheard, "nobody is told of a death");
        let inside = Inside(&self.inside, &self.died_inside);
        // Relaxed: the lock orders it.
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count + 1, Ordering::Relaxed);
        drop(inside);
        self.lock.unlock();
    }

    pub(crate) fn pass(&self) {
        self.has_it(self.lock.lock());
    }

    pub(crate) fn try_pass(&self) -> bool {
        let taken = self.lock.try_lock();
        taken.into_iter().for_each(|owner_died| self.has_it(owner_died));
        taken.is_some()
    }

    /// Whether it died.
    pub(crate) fn pass_and_die(&self, k: u32) -> bool {
        dies_anywhere(k, || self.pass())
    }

    /// The same, once it has slept.
    pub(crate) fn pass_and_die_woken(&self, k: u32) -> bool {
        dies_woken(k, || self.pass())
    }
}

impl<L: Lock> Guarded<L> {
    /// Everybody has ended, and so many have died: at most so many deaths are told of, and that of the last one if it had the lock.
    pub(crate) fn was_told_of(&self, died: u32) {
        let last = self.died_inside.load(SeqCst);
        let told = self.deaths.load(SeqCst);
        assert!(told <= died, "a death is told of that was none, or twice");
        assert!(!last || self.lock.lock(), "nobody is told of a death");
    }
}

fn passer<L: Lock>(guarded: &'static Guarded<L>) -> thread::JoinHandle<()> {
    thread::spawn(move || guarded.pass())
}

/// So many have it one after the other, and see what the ones before have done.
pub(crate) fn all_pass<L: Lock>(threads: u64) {
    let guarded: &Guarded<L> = shared();
    let others: Vec<_> = (1..threads).map(|_| passer(guarded)).collect();
    guarded.pass();
    others.into_iter().for_each(|other| other.join().unwrap());
    guarded.lock.lock();
    assert_eq!(guarded.count.load(Ordering::Relaxed), threads);
}

/// One dies at each step of having the lock; the others have it all the same, and one of them is told if the dead one had it.
pub(crate) fn owner_dies<L: Lock>(k: u32) -> bool {
    let guarded: &Guarded<L> = shared();
    let others = [passer(guarded), passer(guarded)];
    let died = guarded.pass_and_die(k);
    others.into_iter().for_each(|other| other.join().unwrap());
    guarded.was_told_of(u32::from(died));
    died
}

/// Two sleep. One is woken, and dies before it has the lock, while the owner has taken it again past the other.
pub(crate) fn woken_waiter_dies<L: Lock>(k: u32) -> bool {
    let guarded: &Guarded<L> = shared();
    guarded.lock.lock();
    let mortal = thread::spawn(move || guarded.pass_and_die_woken(k));
    let other = passer(guarded);
    guarded.lock.word().await_asleep(2);
    guarded.lock.unlock();
    // One who does not wait: when it has been and gone, nobody wakes the other for it.
    guarded.try_pass();
    let died = mortal.join().unwrap();
    other.join().unwrap();
    died
}

/// The bit that asks for a wake has outlived those who set it; who takes it away dies at each step, and another comes to sleep meanwhile.
pub(crate) fn flusher_dies<L: Lock>(k: u32) -> bool {
    let guarded: &Guarded<L> = shared();
    guarded.lock.lock();
    let waiter = passer(guarded);
    guarded.lock.word().await_asleep(1);
    guarded.lock.unlock();
    waiter.join().unwrap();
    let other = passer(guarded);
    let died = guarded.pass_and_die(k);
    other.join().unwrap();
    died
}
