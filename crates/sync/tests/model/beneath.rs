//! What the words of `src/raw` stand on, as loom has it: atomics, the kernel's futex, its robust list with the pending slot, and deaths.
//!
//! Loom knows SeqCst accesses only as AcqRel. So a SeqCst read-modify-write has a fence behind it here, by which the SeqCst loads that follow come after it in the
//! one order of them all. And a store is a swap, since loom does not know that a store comes after one that its thread has read. The kernel wakes sleepers in the order in which they came, or the newest first: both are played.

pub(crate) use crate::wait_word::WaitWord;
pub(crate) use loom::sync::atomic::Ordering;
use loom::sync::{Condvar, Mutex};
use std::cell::Cell;
use std::sync::OnceLock;
#[allow(unused_imports)]
pub(crate) use std::sync::atomic::compiler_fence;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

pub(crate) const WAITERS: u32 = 0x8000_0000;
pub(crate) const OWNER_DIED: u32 = 0x4000_0000;

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
        loom::sync::atomic::fence(order);
    }
}

/// After a read-modify-write.
fn ordered<R>(order: Ordering, result: R) -> R {
    if order == Ordering::SeqCst && !lacks(Without::Order) {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
    result
}

/// An atomic word, and the kernel's queue for it.
#[derive(Debug)]
pub(crate) struct AtomicU32(OnceLock<Inner>);

#[derive(Debug)]
struct Inner {
    value: loom::sync::atomic::AtomicU32,
    asleep: Mutex<Vec<loom::thread::ThreadId>>,
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

#[allow(dead_code)]
impl AtomicU32 {
    pub(crate) const fn new(_zero: u32) -> Self {
        AtomicU32(OnceLock::new())
    }
    fn inner(&self) -> &Inner {
        self.0.get_or_init(|| Inner {
            value: loom::sync::atomic::AtomicU32::new(0),
            asleep: Mutex::new(Vec::new()),
            woken: Condvar::new(),
            came: Condvar::new(),
        })
    }
    pub(crate) fn load(&self, order: Ordering) -> u32 {
        self.inner().value.load(order)
    }
    pub(crate) fn store(&self, new: u32, order: Ordering) {
        self.inner().value.swap(new, order);
    }
    /// Returns when so many sleep here.
    pub(crate) fn await_asleep(&self, count: usize) {
        let mut asleep = self.inner().asleep.lock().unwrap();
        while asleep.len() < count {
            asleep = self.inner().came.wait(asleep).unwrap();
        }
    }
    /// The newest value, as the kernel reads it.
    fn newest(&self) -> u32 {
        self.inner().value.fetch_or(0, Ordering::AcqRel)
    }
    pub(crate) fn fetch_add(&self, n: u32, order: Ordering) -> u32 {
        if lacks(Without::Announcement) {
            return self.load(order);
        }
        ordered(order, self.inner().value.fetch_add(n, order))
    }
    pub(crate) fn fetch_sub(&self, n: u32, order: Ordering) -> u32 {
        ordered(order, self.inner().value.fetch_sub(n, order))
    }
    pub(crate) fn fetch_and(&self, n: u32, order: Ordering) -> u32 {
        ordered(order, self.inner().value.fetch_and(n, order))
    }
    pub(crate) fn fetch_or(&self, n: u32, order: Ordering) -> u32 {
        ordered(order, self.inner().value.fetch_or(n, order))
    }
    pub(crate) fn swap(&self, n: u32, order: Ordering) -> u32 {
        ordered(order, self.inner().value.swap(n, order))
    }
    pub(crate) fn compare_exchange(&self, old: u32, new: u32, set: Ordering, fetch: Ordering) -> Result<u32, u32> {
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

/// A word that only its owner believes in.
#[derive(Debug)]
pub(crate) struct AtomicU64(loom::sync::atomic::AtomicU64);

impl Default for AtomicU64 {
    fn default() -> Self {
        AtomicU64(loom::sync::atomic::AtomicU64::new(0))
    }
}

impl AtomicU64 {
    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }
    pub(crate) fn store(&self, new: u64, order: Ordering) {
        self.0.store(new, order);
    }
}

pub(crate) mod futex {
    use super::*;

    pub(crate) fn wait_sliced(word: &AtomicU32, expected: u32, deadline: Option<Deadline>, sliced: bool) -> Wait {
        wait_any(&[Word { word, expected }], deadline, sliced)
    }

    pub(crate) fn set_bits_and_wake_all(word: &AtomicU32, bits: u32, sleepers: &AtomicU32) {
        word.fetch_or(bits, Ordering::SeqCst);
        wake_all(sleepers);
    }

    pub(crate) fn clear_and_wake_all(word: &AtomicU32) {
        word.swap(0, Ordering::AcqRel);
        wake_all(word);
    }

    pub(crate) fn wake(word: &AtomicU32, count: u32) -> usize {
        let mut asleep = word.inner().asleep.lock().unwrap();
        if lacks(Without::PassingOn) && !KERNEL.with(Cell::get) && count == 1 {
            return 0;
        }
        let mut woken = 0;
        while woken < count as usize && !asleep.is_empty() {
            let newest = asleep.len() - 1;
            asleep.remove(if NEWEST_FIRST.load(Relaxed) == 0 { 0 } else { newest });
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
    let me = loom::thread::current().id();
    let (first, others) = words.split_first().unwrap();
    {
        let mut asleep = first.word.inner().asleep.lock().unwrap();
        if first.word.newest() != first.expected {
            return Wait::LookAgain;
        }
        asleep.push(me);
        first.word.inner().came.notify_all();
    }
    let has_changed = |other: &Word<'_>| !lacks(Without::OtherWord) && other.word.newest() != other.expected;
    let changed = others.iter().any(has_changed);
    let mut asleep = first.word.inner().asleep.lock().unwrap();
    if changed || deadline.is_some() {
        // Woken meanwhile it has a wake in hand, and says so.
        let woken = !asleep.contains(&me);
        asleep.retain(|other| *other != me);
        return if woken || changed { Wait::LookAgain } else { Wait::TimedOut };
    }
    while asleep.contains(&me) {
        asleep = first.word.inner().woken.wait(asleep).unwrap();
    }
    Wait::LookAgain
}

pub(crate) mod membarrier {
    pub(crate) fn light() {
        loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
    }
}

loom::thread_local! {
    static PENDING: Cell<Option<&'static AtomicU32>> = Cell::new(None);
    static KERNEL: Cell<bool> = Cell::new(false);
    static STEPS_LEFT: Cell<u32> = Cell::new(0);
    static GATE: Cell<Option<&'static RawLock>> = Cell::new(None);
}

/// The calling thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread;

#[must_use]
#[derive(Clone, Copy)]
pub(crate) struct Pending(Option<&'static AtomicU32>);

impl Thread {
    #[allow(unsafe_code)]
    pub(crate) fn set_baton(self, word: &AtomicU32) -> Pending {
        // SAFETY: all words of the models are leaked.
        let word = unsafe { &*std::ptr::from_ref(word) };
        let new = if lacks(Without::Baton) { None } else { Some(word) };
        PENDING.with(|pending| Pending(pending.replace(new)))
    }

    pub(crate) fn restore_pending(self, Pending(old): Pending) {
        PENDING.with(|pending| pending.set(old));
    }
}

pub(crate) mod crash {
    use super::*;

    struct Died;

    pub(crate) fn point(_id: &'static str) {
        let died = STEPS_LEFT.with(|left| {
            left.set(left.get().saturating_sub(1));
            left.get() == 0
        });
        if died && ARMED.with(Cell::get) {
            ARMED.with(|armed| armed.set(false));
            // Past the panic hook, which would print each death.
            std::panic::resume_unwind(Box::new(Died));
        }
    }

    loom::thread_local! {
        static ARMED: Cell<bool> = Cell::new(false);
    }

    /// Runs `body` with its `k`-th crash point deadly. Whether it died; then the kernel has done its part.
    pub(crate) fn dies_at(k: u32, body: impl FnOnce()) -> bool {
        STEPS_LEFT.with(|left| left.set(k));
        ARMED.with(|armed| armed.set(k != 0));
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        ARMED.with(|armed| armed.set(false));
        let Err(why) = end else { return false };
        if !why.is::<Died>() {
            std::panic::resume_unwind(why);
        }
        if let Some(gate) = GATE.with(Cell::take) {
            gate.free();
        }
        if let Some(word) = PENDING.with(Cell::take) {
            KERNEL.with(|kernel| kernel.set(true));
            futex::wake(word, 1);
            KERNEL.with(|kernel| kernel.set(false));
        }
        true
    }
}

/// What the models need of the robust lock: it is let go when its owner dies.
#[derive(Debug, Default)]
pub(crate) struct RawLock {
    held: Mutex<bool>,
    freed: Condvar,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    pub(crate) thread: Thread,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockFailed {
    Held,
}

impl RawLock {
    pub(crate) fn lock(&'static self) {
        let mut held = self.held.lock().unwrap();
        while *held {
            held = self.freed.wait(held).unwrap();
        }
        *held = true;
        GATE.with(|gate| gate.set(Some(self)));
    }

    pub(crate) fn try_lock(&self, _who: Who) -> Result<(), LockFailed> {
        Err(LockFailed::Held)
    }

    pub(crate) fn unlock(&self, _me: Thread) {
        GATE.with(|gate| gate.set(None));
        self.free();
    }

    fn free(&self) {
        *self.held.lock().unwrap() = false;
        self.freed.notify_one();
    }
}
