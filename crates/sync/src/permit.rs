//! [`OwnedPermit`]: a semaphore's permit that travels.
//!
//! It is an object of its own, so whoever references it, a process or a message on its way, keeps the permit, and when nobody does any more
//! the collector ends the object and the permit comes back: no rule of its own for deaths in the middle of a move.

use crate::events;
use crate::semaphore::{Semaphore, SemaphoreCell, cell_of, is_entered, leave_owned};
use multiproc_shm::memory::Shared;
use multiproc_shm::objects::{Kind, Object, RawRef, type_hash};
use multiproc_shm::scope::{self, Movable};
use multiproc_shm::{Arena, Error, Held, Role};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Constant after it is made.
#[derive(Debug)]
#[repr(C)]
struct PermitCell {
    semaphore: AtomicU64,
    entry: AtomicU32,
}

#[allow(unsafe_code)]
// SAFETY: `repr(C)` of atomics.
unsafe impl Shared for PermitCell {}

/// Owned permits in the object table.
pub(crate) static PERMIT: Kind = Kind { trace, end, awaited, ..Kind::plain(6, "OwnedPermit") };

fn trace(arena: &Arena, object: Object, visit: &mut dyn FnMut(RawRef)) -> Result<(), Error> {
    let cell = arena.memory().at::<PermitCell>(object.offset)?;
    visit(RawRef(cell.semaphore.load(Ordering::Acquire)));
    Ok(())
}

/// Nobody has the permit any more. Its semaphore may have ended in the same collection.
fn end(arena: &Arena, object: Object) -> Result<(), Error> {
    give_back(arena, object, true)
}

/// Still entered: whoever dropped the last reference has not given the permit back, since it never came out of its message.
fn awaited(arena: &Arena, object: Object) -> Result<bool, Error> {
    Ok(with_semaphore(arena, object, |cell, entry| Ok(is_entered(cell, entry, id_of(object))))?.unwrap_or(false))
}

fn give_back(arena: &Arena, object: Object, died: bool) -> Result<(), Error> {
    let leave = |cell: &SemaphoreCell, entry| leave_owned(arena, cell, entry, id_of(object), died);
    if with_semaphore(arena, object, leave)? == Some(true) && died {
        let cell = arena.memory().at::<PermitCell>(object.offset)?;
        events::owned_permit_came_back(arena, RawRef(cell.semaphore.load(Ordering::Acquire)).index());
    }
    Ok(())
}

/// Runs `f` with the permit's semaphore, if that exists still, and the permit's place there.
fn with_semaphore<R>(
    arena: &Arena,
    object: Object,
    f: impl FnOnce(&SemaphoreCell, u32) -> Result<R, Error>,
) -> Result<Option<R>, Error> {
    let cell = arena.memory().at::<PermitCell>(object.offset)?;
    let semaphore = RawRef(cell.semaphore.load(Ordering::Acquire));
    match arena.object(semaphore.index())? {
        Some(alive) if alive.generation == semaphore.generation() => {
            f(cell_of(arena, alive)?, cell.entry.load(Ordering::Acquire)).map(Some)
        }
        _ => Ok(None),
    }
}

/// What stands in the semaphore's table; never 0.
fn id_of(object: Object) -> u64 {
    RawRef::new(object.index, object.generation, Role::Both).0
}

/// A permit of a [`Semaphore`] that can travel in arguments, results and messages. It moves with its message: once that is sent, a value that the
/// sender has kept (`put_ref`) is empty, and sending it again is an error. In a message on lease the permit is the lease's: it comes back with the
/// acknowledged value, and travels on when the lease is delivered again.
///
/// # Crash safety
/// The permit comes back when it is dropped, when whoever has it dies, or when the message that carries it is lost: then at the
/// next collection, which the end of a process brings.
///
/// # Examples
/// ```
/// use multiproc::{Process, Semaphore};
///
/// let one = Semaphore::new(1)?;
/// let permit = one.acquire_owned()?;
/// let worker = Process::spawn((permit,), |permit| -> () {
///     let _keep = permit;
///     std::process::abort(); // dies with the permit
/// })?;
/// assert!(worker.join().is_err());
/// assert!(one.try_acquire().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the permit is given back when it is dropped"]
pub struct OwnedPermit {
    movable: Arc<Movable>,
}

impl OwnedPermit {
    /// A permit object for `entry` of the semaphore's table, and what is to be entered there: then it counts.
    pub(crate) fn make(semaphore: &Semaphore, entry: u32) -> Result<(OwnedPermit, u64), Error> {
        let arena = semaphore.held.arena();
        let size = size_of::<PermitCell>() as u64;
        let held = arena.new_object(&PERMIT, type_hash::<OwnedPermit>(), size, Role::Plain, |object| {
            let cell = arena.memory().at::<PermitCell>(object.offset)?;
            // Relaxed: the object is published later.
            cell.semaphore.store(semaphore.held.reference().0, Ordering::Relaxed);
            cell.entry.store(entry, Ordering::Relaxed);
            Ok(())
        })?;
        // The semaphore is referred to from shared memory now: it must not be freed as one that never left this process.
        semaphore.held.mark_shared();
        let id = id_of(held.object());
        Ok((OwnedPermit { movable: Movable::new(held, let_go) }, id))
    }
}

fn let_go(held: &Held) {
    // An error here means corrupted shared memory, of which the next operation will tell.
    let _ = give_back(held.arena(), held.object(), false);
}

impl Serialize for OwnedPermit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        scope::serialize_moving(&self.movable, serializer)
    }
}

impl<'de> Deserialize<'de> for OwnedPermit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OwnedPermit, D::Error> {
        let held = scope::deserialize(&PERMIT, type_hash::<OwnedPermit>(), deserializer)?;
        Ok(OwnedPermit { movable: Movable::new(held, let_go) })
    }
}

impl fmt::Debug for OwnedPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.movable.held().map(|held| held.object().index);
        f.debug_struct("OwnedPermit").field("id", &id).field("sent", &id.is_none()).finish()
    }
}
