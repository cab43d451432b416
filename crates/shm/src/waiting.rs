//! Waiting as the one sleeper of a wait word, with a note in the roster of what for.

use crate::arena::Arena;
use crate::raw::WaitWord;
use multiproc_sys::clock::{Deadline, now_nanos};
use multiproc_sys::futex::Wait;
use multiproc_sys::spin;
use std::sync::atomic::Ordering;

impl Arena {
    /// Until `ready` says so: spin a little, announce the sleep, look again, sleep. False when time is up. The caller holds the lock that makes
    /// it the only sleeper; `index` is the object it waits for.
    pub fn wait_alone(&self, index: u32, word: &WaitWord, deadline: Option<Deadline>, ready: impl Fn() -> bool) -> bool {
        if spin::until(&ready) {
            return true;
        }
        self.note_blocked(Some(index));
        let mut timed_out = false;
        while !timed_out {
            word.prepare();
            if ready() {
                break;
            }
            timed_out = word.sleep(deadline) == Wait::TimedOut && !ready();
        }
        word.finish();
        self.note_blocked(None);
        !timed_out
    }

    /// Notes in the roster what this process waits for; reports and the exit path read it.
    #[cold]
    pub fn note_blocked(&self, on: Option<u32>) {
        if let Ok(slot) = self.slot(self.my_slot()) {
            // Relaxed: for reports.
            slot.blocked_since.store(if on.is_some() { now_nanos() } else { 0 }, Ordering::Relaxed);
            slot.blocked_on.store(on.map_or(0, |index| u64::from(index) + 1), Ordering::Relaxed);
        }
    }
}
