//! What the words of `src/raw` stand on, as a model checker has it: atomics and the kernel's futex here, its robust list with the pending slot in [`robust`],
//! deaths in [`crash`]. `crate::checker` is loom, or shuttle.
//!
//! Loom knows SeqCst accesses only as AcqRel. So a SeqCst read-modify-write has a fence behind it here, by which the SeqCst loads that follow come after it in the
//! one order of them all. And a store is a swap, since loom does not know that a store comes after one that its thread has read. The kernel wakes sleepers in the order in which they came, or the newest first: both are played.

#![allow(dead_code, unused_imports)]

pub(crate) mod check;
pub(crate) mod crash;
pub(crate) mod gate;
pub(crate) mod robust;
pub(crate) mod schedules;
pub(crate) mod shared;
mod told;

pub(crate) use crate::checker::sync::atomic::Ordering;
use crate::checker::sync::{self, Condvar, Mutex};
use crate::checker::thread;
pub(crate) use robust::{OWNER_DIED, TID_MASK, Thread, Unusable, WAITERS};
use std::sync::OnceLock;
pub(crate) use std::sync::atomic::compiler_fence;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Sleeping until a time: it has come when there is one.
pub(crate) type Deadline = ();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    LookAgain,
    TimedOut,
}

/// A rule that the world does not follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Without {
    Nothing,
    /// The sleeper's fence after its announcement.
    SleepersFence,
    /// The order of the SeqCst accesses.
    Order,
    /// The kernel's wake for the dead.
    Baton,
    /// The same where the word is not all zero: kernels before 6.1 have none there.
    BatonOfMarked,
    /// The kernel's walk along the list of the dead.
    List,
    /// The waiters' bit in a lock that is let go.
    Sticky,
    /// The waiters' bit of a free lock in the hands of who takes it.
    Inherited,
    /// What a Release store of a long word publishes.
    Publication,
    /// The wake in the same step as the removal of the bit that asks for one.
    OneStep,
    /// The wake that a woken sleeper passes on.
    PassingOn,
    /// The look at the second word of a sleep.
    OtherWord,
    /// The count of a watched word's wakes, which is all that is updated by a function there.
    Count,
    /// The announcement of second watchers, which is all that is added to there.
    Announcement,
}

static WITHOUT: AtomicU8 = AtomicU8::new(Without::Nothing as u8);
static NEWEST_FIRST: AtomicU8 = AtomicU8::new(0);

/// Sets the rules of the world that follows.
pub(crate) fn set_world(without: Without, newest_first: bool) {
    WITHOUT.store(without as u8, Relaxed);
    NEWEST_FIRST.store(u8::from(newest_first), Relaxed);
}

fn lacks(rule: Without) -> bool {
    WITHOUT.load(Relaxed) == rule as u8
}

pub(crate) fn fence(order: Ordering) {
    if !lacks(Without::SleepersFence) {
        sync::atomic::fence(order);
    }
}

/// After a read-modify-write.
fn ordered<R>(order: Ordering, result: R) -> R {
    if order == Ordering::SeqCst && !lacks(Without::Order) {
        sync::atomic::fence(Ordering::SeqCst);
    }
    result
}

/// An atomic word, and the kernel's queue for it.
#[derive(Debug)]
pub(crate) struct AtomicU32(OnceLock<Inner>);

/// One who sleeps on a word, and with what it is woken if that is one of several.
#[derive(Debug)]
struct Sleeper(thread::ThreadId, Option<&'static (Mutex<bool>, Condvar)>);

#[derive(Debug)]
struct Inner {
    value: sync::atomic::AtomicU32,
    asleep: Mutex<Vec<Sleeper>>,
    woken: Condvar,
    /// One more sleeps.
    came: Condvar,
}

impl Default for AtomicU32 {
    fn default() -> Self {
        let word = AtomicU32::new(0);
        let _exists = word.inner();
        word
    }
}

impl AtomicU32 {
    pub(crate) const fn new(_zero: u32) -> Self {
        AtomicU32(OnceLock::new())
    }
    fn inner(&self) -> &Inner {
        self.0.get_or_init(|| Inner {
            value: sync::atomic::AtomicU32::new(0),
            asleep: Mutex::new(Vec::new()),
            woken: Condvar::new(),
            came: Condvar::new(),
        })
    }
    pub(crate) fn load(&self, order: Ordering) -> u32 {
        self.inner().value.load(order)
    }
    pub(crate) fn store(&self, new: u32, order: Ordering) {
        crash::step();
        let new = if lacks(Without::Sticky) { new & !WAITERS } else { new };
        self.inner().value.swap(new, order);
    }
    /// Returns when so many sleep here.
    pub(crate) fn await_asleep(&self, count: usize) {
        let mut asleep = self.inner().asleep.lock().unwrap();
        while asleep.len() < count {
            asleep = self.inner().came.wait(asleep).unwrap();
        }
    }
    /// What the kernel changes, which does not die.
    fn kernel_exchange(&self, old: u32, new: u32) -> bool {
        self.inner().value.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
    /// The newest value, as the kernel reads it.
    fn newest(&self) -> u32 {
        self.inner().value.fetch_or(0, Ordering::AcqRel)
    }
    pub(crate) fn fetch_add(&self, n: u32, order: Ordering) -> u32 {
        crash::step();
        if lacks(Without::Announcement) {
            return self.load(order);
        }
        ordered(order, self.inner().value.fetch_add(n, order))
    }
    pub(crate) fn fetch_sub(&self, n: u32, order: Ordering) -> u32 {
        crash::step();
        ordered(order, self.inner().value.fetch_sub(n, order))
    }
    pub(crate) fn fetch_and(&self, n: u32, order: Ordering) -> u32 {
        crash::step();
        ordered(order, self.inner().value.fetch_and(n, order))
    }
    pub(crate) fn fetch_or(&self, n: u32, order: Ordering) -> u32 {
        crash::step();
        ordered(order, self.inner().value.fetch_or(n, order))
    }
    pub(crate) fn swap(&self, n: u32, order: Ordering) -> u32 {
        crash::step();
        ordered(order, self.inner().value.swap(n, order))
    }
    pub(crate) fn compare_exchange(&self, old: u32, new: u32, set: Ordering, fetch: Ordering) -> Result<u32, u32> {
        crash::step();
        let takes = old & TID_MASK == 0 && new & TID_MASK != 0;
        let new = if takes && lacks(Without::Inherited) { new & !WAITERS } else { new };
        let found = self.inner().value.compare_exchange(old, new, set, fetch);
        if found.is_ok() { ordered(set, found) } else { found }
    }
    pub(crate) fn fetch_update(&self, set: Ordering, fetch: Ordering, f: impl FnMut(u32) -> Option<u32>) -> Result<u32, u32> {
        if lacks(Without::Count) {
            return Err(0);
        }
        let found = self.inner().value.fetch_update(set, fetch, f);
        if found.is_ok() { ordered(set, found) } else { found }
    }
}

macro_rules! plain {
    ($name:ident, $of:ty) => {
        /// A word on which nobody sleeps.
        #[derive(Debug)]
        pub(crate) struct $name(OnceLock<sync::atomic::$name>);

        impl Default for $name {
            fn default() -> Self {
                let word = $name::new(0);
                let _exists = word.inner();
                word
            }
        }

        impl $name {
            pub(crate) const fn new(_zero: $of) -> Self {
                $name(OnceLock::new())
            }
            fn inner(&self) -> &sync::atomic::$name {
                self.0.get_or_init(|| sync::atomic::$name::new(0))
            }
            pub(crate) fn load(&self, order: Ordering) -> $of {
                self.inner().load(order)
            }
            pub(crate) fn store(&self, new: $of, order: Ordering) {
                crash::step();
                self.inner().store(new, if lacks(Without::Publication) { Ordering::Relaxed } else { order });
            }
        }
    };
}

plain!(AtomicU64, u64);
plain!(AtomicUsize, usize);

pub(crate) mod futex {
    use super::*;

    pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Option<Deadline>) -> Wait {
        wait_sliced(word, expected, deadline, false)
    }

    pub(crate) fn wait_sliced(word: &AtomicU32, expected: u32, deadline: Option<Deadline>, sliced: bool) -> Wait {
        wait_any(&[Word { word, expected }], deadline, sliced)
    }

    pub(crate) fn set_bits_and_wake_all(word: &AtomicU32, bits: u32, sleepers: &AtomicU32) {
        word.fetch_or(bits, Ordering::SeqCst);
        wake_now(sleepers, u32::MAX);
    }

    pub(crate) fn clear_and_wake_all(word: &AtomicU32) {
        word.swap(0, Ordering::AcqRel);
        wake_now(word, u32::MAX);
    }

    pub(crate) fn clear_top_bit_and_wake_all(word: &AtomicU32) {
        word.fetch_and(!WAITERS, Ordering::AcqRel);
        if lacks(Without::OneStep) {
            crash::step();
        }
        wake_now(word, u32::MAX);
    }

    pub(crate) fn wake(word: &AtomicU32, count: u32) -> usize {
        crash::step();
        if lacks(Without::PassingOn) && count == 1 { 0 } else { wake_now(word, count) }
    }

    /// Whoever asks for it, the kernel too.
    pub(crate) fn wake_now(word: &AtomicU32, count: u32) -> usize {
        let mut asleep = word.inner().asleep.lock().unwrap();
        told::note("wakes");
        let mut woken = 0;
        while woken < count as usize && !asleep.is_empty() {
            let newest = asleep.len() - 1;
            let Sleeper(_, of_several) = asleep.remove(if NEWEST_FIRST.load(Relaxed) == 0 { 0 } else { newest });
            if let Some((is_woken, bell)) = of_several {
                *is_woken.lock().unwrap() = true;
                bell.notify_one();
            }
            woken += 1;
        }
        if woken > 0 {
            word.inner().woken.notify_all();
        }
        woken
    }

    pub(crate) fn wake_all(word: &AtomicU32) -> usize {
        wake(word, u32::MAX)
    }
}

/// A word to sleep on while it has a value.
pub(crate) struct Word<'a> {
    pub(crate) word: &'a AtomicU32,
    pub(crate) expected: u32,
}

/// Sleeps on the first word; the others are looked at, as nobody wakes for them.
pub(crate) fn wait_any(words: &[Word<'_>], deadline: Option<Deadline>, _sliced: bool) -> Wait {
    crash::step();
    told::note("sleeps");
    let me = thread::current().id();
    let (first, others) = words.split_first().unwrap();
    {
        let mut asleep = first.word.inner().asleep.lock().unwrap();
        if first.word.newest() != first.expected {
            return Wait::LookAgain;
        }
        asleep.push(Sleeper(me, None));
        first.word.inner().came.notify_all();
    }
    let has_changed = |other: &Word<'_>| !lacks(Without::OtherWord) && other.word.newest() != other.expected;
    let changed = others.iter().any(has_changed);
    let mut asleep = first.word.inner().asleep.lock().unwrap();
    if changed || deadline.is_some() {
        // Woken meanwhile it has a wake in hand, and says so.
        let woken = asleep.iter().all(|other| other.0 != me);
        asleep.retain(|other| other.0 != me);
        return if woken || changed { Wait::LookAgain } else { Wait::TimedOut };
    }
    while asleep.iter().any(|other| other.0 == me) {
        asleep = first.word.inner().woken.wait(asleep).unwrap();
    }
    drop(asleep);
    crash::woken();
    Wait::LookAgain
}

/// Sleeps on all words, each of which somebody wakes for.
pub(crate) fn wait_all(words: &[Word<'_>]) {
    crash::step();
    told::note("sleeps");
    let me = thread::current().id();
    let alarm: &'static (Mutex<bool>, Condvar) = Box::leak(Box::new((Mutex::new(false), Condvar::new())));
    let mut changed = false;
    for Word { word, expected } in words {
        let mut asleep = word.inner().asleep.lock().unwrap();
        changed = word.newest() != *expected;
        if changed {
            break;
        }
        asleep.push(Sleeper(me, Some(alarm)));
        word.inner().came.notify_all();
    }
    let mut is_woken = alarm.0.lock().unwrap();
    while !*is_woken && !changed {
        is_woken = alarm.1.wait(is_woken).unwrap();
    }
    drop(is_woken);
    for Word { word, .. } in words {
        word.inner().asleep.lock().unwrap().retain(|other| other.0 != me);
    }
    crash::woken();
}

/// Nobody spins: looking once more is an order of steps like any other.
pub(crate) mod spin {
    pub(crate) fn limit() -> u32 {
        0
    }
    pub(crate) fn until(mut done: impl FnMut() -> bool) -> bool {
        done()
    }
}

pub(crate) mod membarrier {
    pub(crate) fn heavy() -> bool {
        super::fence(super::Ordering::SeqCst);
        true
    }
    pub(crate) fn light() {
        super::sync::atomic::fence(super::sync::atomic::Ordering::SeqCst);
    }
}
