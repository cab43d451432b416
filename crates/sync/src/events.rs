//! What is told as `tracing` events, beside the counters and errors: that a process died with something of this floor.
//!
//! A subscriber is user code. So nothing is told where it is found, under locks: the arena [has it told](Arena::tell_soon) by the process's keeper, or after the collection. Who dies in
//! between tells nobody.

use multiproc_shm::Arena;
use multiproc_shm::objects::Object;
use multiproc_shm::pace::Notice;
use multiproc_shm::raw::RawLock;

/// A lock was found with its owner dead, by who holds it now and is to have that told when it has let go. Once for each death.
#[cold]
pub(crate) fn dead_owner(object: Object, lock: &RawLock) -> Option<Notice> {
    let tell = |&Notice { object: lock, pid, .. }: &Notice| {
        tracing::warn!(lock, pid, "a lock was found with its owner dead");
    };
    lock.is_news().then(|| Notice { tell, object: object.index, seq: 0, count: 1, pid: lock.dead_owner().1 })
}

/// Permits of a dead process are free again. In a collection.
pub(crate) fn permits_came_back(arena: &Arena, semaphore: u32, count: u32, pid: u32) {
    let tell = |&Notice { object: semaphore, count, pid, .. }: &Notice| {
        tracing::warn!(semaphore, count, pid, "permits came back: the process that had them died");
    };
    arena.tell_later(Notice { tell, object: semaphore, seq: 0, count, pid });
}

/// An owned permit is free again, since whoever had it died, wherever it was then. In a collection.
pub(crate) fn owned_permit_came_back(arena: &Arena, semaphore: u32) {
    let tell = |&Notice { object: semaphore, count, .. }: &Notice| {
        tracing::warn!(semaphore, count, "an owned permit came back: nobody is left who had it");
    };
    arena.tell_later(Notice { tell, object: semaphore, seq: 0, count: 1, pid: 0 });
}
