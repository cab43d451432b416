//! How handles describe what stands in shared memory, for `Debug`: who holds what, how many wait. Single reads of words that others may be changing, believed
//! where they agree.

use multiproc_shm::Arena;
use multiproc_shm::raw::RawLock;
use std::fmt;
use std::sync::atomic::Ordering;

/// The process in a roster slot: `process "worker-1" (pid 123)`.
pub(crate) struct InSlot<'a>(pub(crate) &'a Arena, pub(crate) u32);

impl fmt::Display for InSlot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InSlot(arena, slot) = *self;
        let Ok(process) = arena.slot(slot) else { return f.write_str("an unknown process") };
        let (name, pid) = (process.name(), process.pid.load(Ordering::Relaxed));
        let name = if name.is_empty() && slot == 0 { "MainProcess" } else { &name };
        write!(f, "process {name:?} (pid {pid})")
    }
}

/// How a lock stands: `held by process "worker-1" (pid 123), thread 124`.
pub(crate) struct HeldBy<'a>(pub(crate) &'a Arena, pub(crate) &'a RawLock);

impl fmt::Display for HeldBy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HeldBy(arena, lock) = *self;
        match lock.holder() {
            Some(holder) => {
                f.write_str("held by ")?;
                match holder.process {
                    Some((slot, _)) => write!(f, "{}, thread {}", InSlot(arena, slot), holder.thread),
                    None => write!(f, "thread {}", holder.thread),
                }
            }
            None if lock.owner_died() => f.write_str("free, its owner died"),
            None => f.write_str("free"),
        }
    }
}

/// How many threads wait for an object.
pub(crate) struct Waiters(usize);

impl Waiters {
    pub(crate) fn of(arena: &Arena, index: u32) -> Waiters {
        Waiters(arena.waiters(index))
    }
}

/// The end of a description.
pub(crate) fn close(f: &mut fmt::Formatter<'_>, Waiters(waiters): Waiters) -> fmt::Result {
    if waiters > 0 { write!(f, ", {waiters} waiting)") } else { f.write_str(")") }
}
