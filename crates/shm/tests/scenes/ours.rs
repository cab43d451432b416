//! The shipping lock as these scenes see it.

use super::Lock;
use crate::lock::{Acquired, RawLock, Who};
use crate::world::{AtomicU32, Thread};

impl Lock for RawLock {
    fn lock(&self) -> bool {
        RawLock::lock(self, Who::new(Thread, 0)) == Ok(Acquired::OwnerDied)
    }

    fn try_lock(&self) -> Option<bool> {
        RawLock::try_lock(self, Who::new(Thread, 0)).ok().map(|found| found == Acquired::OwnerDied)
    }

    fn unlock(&self) {
        RawLock::unlock(self, Thread);
    }

    fn word(&self) -> &AtomicU32 {
        &self.word
    }
}
