//! What the handles do with the words of `src/raw`, for models of them.

use crate::beneath::{AtomicU32, Ordering, RawLock, Thread, WaitWord, Who};
use crate::checker::thread;
use crate::raw::hold::{Hold, Left};
use crate::raw::ledger;
use crate::raw::signals::RawSignals;
use std::sync::atomic::Ordering::SeqCst;

/// As the handle does it.
pub(crate) fn take(signals: &'static RawSignals) {
    if signals.try_take() {
        return;
    }
    signals.gate.lock();
    let took = signals.take_in_turn(|word, ready| {
        loop {
            word.prepare();
            if ready() {
                break;
            }
            let _ = word.sleep(None, false);
        }
        word.finish();
        true
    });
    assert!(took);
    signals.open(Who { thread: Thread });
}

/// A semaphore of one permit for so many processes.
pub(crate) struct Books<const SLOTS: usize> {
    pub(crate) entries: [AtomicU32; SLOTS],
    freed: WaitWord,
    gate: RawLock,
    /// Outside of loom's reckoning.
    holders: std::sync::atomic::AtomicU32,
}

impl<const SLOTS: usize> Default for Books<SLOTS> {
    fn default() -> Self {
        Books {
            entries: std::array::from_fn(|_| AtomicU32::default()),
            freed: WaitWord::default(),
            gate: RawLock::default(),
            holders: Default::default(),
        }
    }
}

impl<const SLOTS: usize> Books<SLOTS> {
    pub(crate) fn enter(&'static self, slot: usize) -> bool {
        let taken = || ledger::sum(&self.entries);
        if !ledger::enter(&self.entries[slot], 1, taken) {
            self.freed.commit_and_kick_in_order(Thread, 1, || ledger::leave(&self.entries[slot]));
            return false;
        }
        assert_eq!(self.holders.fetch_add(1, SeqCst), 0, "two have the one permit");
        thread::yield_now();
        true
    }

    pub(crate) fn give_back(&'static self, slot: usize) {
        self.holders.fetch_sub(1, SeqCst);
        self.freed.commit_and_kick_in_order(Thread, 1, || ledger::leave(&self.entries[slot]));
    }

    /// As the handle does it, in the gate.
    pub(crate) fn enter_in_turn(&'static self, slot: usize) {
        self.gate.lock();
        loop {
            loop {
                self.freed.prepare();
                if ledger::sum(&self.entries) == 0 {
                    break;
                }
                let _ = self.freed.sleep(None, false);
            }
            self.freed.finish();
            if self.enter(slot) {
                break;
            }
        }
        self.gate.unlock(Thread);
    }

    /// The cleaner of a dead slot.
    pub(crate) fn clean(&'static self, slot: usize, had: bool) {
        if had {
            self.holders.fetch_sub(1, SeqCst);
        }
        self.freed.commit_and_kick_in_order(Thread, 1, || {
            self.entries[slot].swap(0, Ordering::SeqCst);
        });
        self.freed.pass_on_to_all();
    }
}

/// A lock that its owner takes again.
#[derive(Default)]
pub(crate) struct Counted {
    lock: RawLock,
    hold: Hold,
}

pub(crate) fn nests(counted: &'static Counted, me: u64) {
    assert_eq!(counted.hold.again(me), Some(false), "somebody else's count");
    counted.lock.lock();
    counted.hold.begin(me, true);
    assert_eq!(counted.hold.again(me), Some(true));
    assert_eq!(counted.hold.leave(), Left::Held);
    assert!(counted.hold.is_vouched_for());
    assert_eq!(counted.hold.leave(), Left::Nothing { vouched_for: true });
    counted.lock.unlock(Thread);
    assert_eq!(counted.hold.again(me), Some(false));
}
