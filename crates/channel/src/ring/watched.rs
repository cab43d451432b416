//! A queue as one of several things to wait for: see [`multiproc_shm::watching`].
//!
//! Watchers take no lock, and sleep on `cw` beside the waiting getter: whatever would wake that one wakes them too.

use super::Ring;
use multiproc_shm::Arena;
use multiproc_shm::watching::{Seen, Watched, Watchlist};

impl Watched for Ring {
    fn arena(&self) -> Option<&'static Arena> {
        Some(Ring::arena(self))
    }

    fn is_ready(&self, _seen: &Seen) -> bool {
        self.would_get()
    }

    fn watch(&self, _seen: &mut Seen, list: &mut Watchlist) {
        list.watch(Some(Ring::arena(self)), &self.cell.produced.cw);
    }

    fn woken(&self, seen: &Seen) {
        if self.is_ready(seen) {
            self.cell.produced.cw.pass_on_if_owed();
        }
    }
}
