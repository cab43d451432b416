//! The robust mutex of glibc 2.36 (`nptl/pthread_mutex_lock.c`, `pthread_mutex_unlock.c`), step by step: what not to do. A free lock's word is 0, also when others
//! sleep; who takes it past them knows nothing of them, and if the one that was woken dies, nobody wakes the next.

use super::Lock;
use crate::world::{AtomicU32, OWNER_DIED, Ordering, TID_MASK, Thread, WAITERS, crash, futex};

#[derive(Debug, Default)]
pub(crate) struct Glibc(AtomicU32);

impl Glibc {
    fn acquire(&self, waits: bool) -> Option<bool> {
        let (me, mut others_may_wait) = (Thread.tid(), 0);
        let pending = Thread.set_pending(&self.0);
        let mut seen = self.0.load(Ordering::Relaxed);
        let died = loop {
            if seen & TID_MASK == 0 {
                let mine = me | seen & WAITERS | others_may_wait;
                match self.0.compare_exchange(seen, mine, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => break Some(seen & OWNER_DIED != 0),
                    Err(now) => seen = now,
                }
                continue;
            }
            if !waits {
                break None;
            }
            if seen & WAITERS == 0
                && let Err(now) = self.0.compare_exchange(seen, seen | WAITERS, Ordering::Relaxed, Ordering::Relaxed)
            {
                seen = now;
                continue;
            }
            others_may_wait |= WAITERS;
            crash::point("before the sleep");
            let _ = futex::wait(&self.0, seen | WAITERS, None);
            crash::point("after the sleep");
            seen = self.0.load(Ordering::Relaxed);
        };
        if died.is_some() {
            #[allow(unsafe_code)]
            // SAFETY: the model's list has no links.
            unsafe {
                Thread.link(&self.0);
            }
        }
        Thread.restore_pending(pending);
        died
    }
}

impl Lock for Glibc {
    fn lock(&self) -> bool {
        self.acquire(true) == Some(true)
    }

    fn try_lock(&self) -> Option<bool> {
        self.acquire(false)
    }

    fn unlock(&self) {
        let pending = Thread.set_pending(&self.0);
        Thread.unlink(&self.0);
        if self.0.swap(0, Ordering::Release) & WAITERS != 0 {
            futex::wake(&self.0, 1);
        }
        Thread.restore_pending(pending);
    }

    fn word(&self) -> &AtomicU32 {
        &self.0
    }
}
