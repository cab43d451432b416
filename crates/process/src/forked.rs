//! Processes that a plain fork made: how one becomes a process of the tree, and how its parent's keeper looks after it.
//!
//! The program has started it and waits for it, so there is no handle, no result, and no reaping; but its death must be seen, or whoever waits for
//! something that it holds would wait for ever. So it takes a slot (`multiproc_shm::rejoin`), kicks its parent's keeper, and that finds it in the
//! roster and watches it by pidfd like any other.
#![allow(unsafe_code)]

use crate::error::{Error, Kind};
use crate::{exit, keeper, tree};
use multiproc_shm::Arena;
use multiproc_shm::arena::SlotId;
use multiproc_shm::roster::SlotState;
use multiproc_sys::pidfd::PidFd;
use multiproc_sys::robust::{self, Unusable};
use multiproc_sys::thread;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

/// Makes a process that a plain `fork()` made a process of the tree. To be called in the child, first of all that it does with multiproc.
///
/// Until then every operation there fails with [`ShmError::Forked`](multiproc_shm::Error::Forked), and every drop does nothing. Afterwards the child is a process like any other: all handles that
/// it has inherited are its own, it may start processes, what it holds is given back when it dies, and it is ended when the process that
/// forked it ends. What stays the parent's: guards, permits and leases, which may be dropped here without effect, and the handles of its children. The parent waits for the child as for any
/// other that it forks; its exit does not. In a process that was not made by `fork()`, or whose parent had not used multiproc yet, the
/// call does nothing.
///
/// The parent keeps what the child shall have until this has returned in the child: an [`Event`](multiproc_sync::Event) or a pipe tells. The child holds
/// handles of all threads of its parent, also those that nobody can reach any more: an end of a channel among them stays open as long as the child lives.
/// Prefer [`Process::spawn`](crate::Process::spawn), which has none of these traps.
///
/// # Errors
/// The parent is gone, or has let go of something that the child has a handle of; another thread of the parent was making or dropping a
/// handle at the moment of the fork; no room for a process, a thread or a descriptor; not the thread that `fork()` returned in. The process is then as it was before the call.
///
/// # Safety
/// A process that uses multiproc has more than one thread, and POSIX allows a child that one of several threads forked only async-signal-safe functions. This function is none:
/// it allocates and starts a thread. So, between the fork and this call,
/// - the process was made by libc's `fork()`, which makes the allocator usable in the child; or by a bare system call while the parent had no threads
///   but its main one and multiproc's own, which sleeps in the kernel as long as no child of it ends or starts;
/// - nothing but async-signal-safe functions has been called, and no thread has been started;
/// - a guard of an `Array` that the child has inherited is not used there for anything but being dropped: the elements are its parent's.
///
/// What other threads of the parent had locked at the fork, in std, in libraries or in the program itself, stays locked for ever.
///
/// # Crash safety
/// Killed in the middle, the child has taken part or has not; nothing of it stays.
///
/// # Python
/// What `multiprocessing`'s start method `fork` does behind the user's back.
///
/// # Examples
/// ```
/// use multiproc::{Queue, after_fork_child};
///
/// let queue = Queue::bounded(1)?;
/// # unsafe extern "C" { fn fork() -> i32; fn _exit(code: i32) -> !; fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32; }
/// // SAFETY: the child calls nothing before `after_fork_child`, and leaves by `_exit`.
/// let child = unsafe { fork() };
/// if child == 0 {
///     // SAFETY: made by fork() right above.
///     let joined = unsafe { after_fork_child() };
///     let sent = joined.is_ok() && queue.put(42).is_ok();
///     unsafe { _exit(if sent { 0 } else { 1 }) };
/// }
/// assert_eq!(queue.get()?, 42);
/// # unsafe { waitpid(child, std::ptr::null_mut(), 0) };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "fork")]
pub unsafe fn after_fork_child() -> Result<(), Error> {
    if !robust::forked() {
        return Ok(());
    }
    let Some(arena) = tree::made() else { return Ok(()) };
    let (id, pid) = (arena.my_id(), arena.my_pid());
    let parent = parent(arena, id)?;
    let by_main = robust::last_tid() == pid;
    let rejoined = robust::rejoin().map_err(|why| match why {
        Unusable::Forked => {
            let text = "after_fork_child() is for the thread that fork() returned in, which is the main thread of the child";
            Error::new(Kind::Invalid, text)
        }
        other => Error::from(multiproc_shm::Error::from(other)),
    })?;
    let joined = keeper::start_after_fork(arena, parent, id, by_main).and_then(|()| {
        let registered = arena.register_again().map_err(Error::from);
        keeper::confirm(registered.is_ok());
        registered
    });
    match joined {
        Ok(()) => {
            exit::begin_another_life(arena);
            Ok(())
        }
        Err(e) => {
            arena.remain(id, pid);
            rejoined.take_back();
            Err(e)
        }
    }
}

/// A pidfd of the process in that slot, which forked this one.
fn parent(arena: &'static Arena, id: SlotId) -> Result<PidFd, Error> {
    let gone = || Error::new(Kind::System, "the process that forked this one is gone");
    let pid = thread::parent_process_id();
    if pid != arena.my_pid() {
        return Err(gone());
    }
    let pidfd =
        PidFd::open(pid).map_err(|e| Error::because(Kind::Resources, "the process that forked this one cannot be watched", e))?;
    // Alive after it was opened: so it was this process's parent all the time, and the pid its own.
    if arena.is_live(id)? { Ok(pidfd) } else { Err(gone()) }
}

/// The children of this process that a plain fork made and that have joined the tree, as its keeper watches them.
#[derive(Debug, Default)]
pub(crate) struct Forked(Vec<(SlotId, PidFd)>);

impl Forked {
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        self.0.iter().map(|(_, pidfd)| pidfd.as_fd())
    }

    /// Looks for new ones in the roster. Whether there is something to clean up.
    pub(crate) fn look(&mut self, arena: &'static Arena) -> bool {
        let mine = arena.my_id();
        let mut dead = false;
        for index in 1..arena.slots_high() {
            let Ok(slot) = arena.slot(index) else { continue };
            let Ok((SlotState::Live, generation)) = slot.state() else { continue };
            let id = SlotId { index, generation };
            // Relaxed: stored before the slot became live.
            let parent =
                SlotId { index: slot.parent.load(Ordering::Relaxed), generation: slot.parent_generation.load(Ordering::Relaxed) };
            if parent != mine || !slot.is_forked() || self.0.iter().any(|(known, _)| *known == id) {
                continue;
            }
            match PidFd::open(slot.pid.load(Ordering::Relaxed)) {
                // Alive, or not gone, after it was opened: the pid was not another's.
                Ok(pidfd) if arena.is_live(id).unwrap_or(false) => self.0.push((id, pidfd)),
                Ok(pidfd) if arena.is_dying(index).unwrap_or(false) => self.0.push((id, pidfd)),
                _ => dead |= slot.is_dead(),
            }
        }
        dead
    }

    /// `ready` says which of them are dead. Whether any is.
    pub(crate) fn collect_ends(&mut self, arena: &'static Arena, ready: &[bool]) -> bool {
        let before = self.0.len();
        let mut ready = ready.iter();
        self.0.retain(|(id, _)| {
            let dead = ready.next() == Some(&true);
            if dead {
                let _ = arena.slot_is_dead(*id);
            }
            !dead
        });
        self.0.len() < before
    }
}
