//! Joining: waiting until everything that was put has been got and, where it was leased, acknowledged.
//!
//! Any number of joiners sleep on one word, `join`, with `wait_for`, whose fence spares those who finish a message one: they look at the word after
//! their store, and only when somebody sleeps there do they count what is left. Who finishes the last message wakes all.
//!
//! | dies | left behind | who repairs, how |
//! |---|---|---|
//! | having acknowledged, before the wake | sleeping joiners | the kernel wakes one of them: `join` is pending; that one wakes the rest |
//! | the same, where attempts are bounded; or having taken the last message by a plain get, given back for the last time, or been the last receiver | sleeping joiners | the kernel wakes who sleeps on the other word; the cleaner wakes the joiners of each queue that the dead process held |
//! | having cleared `join`, before the wake | sleepers, and a word that says there are none | the same, and who wakes announces itself anew before it looks |
//! | a joiner, with the wake in hand | other joiners | the kernel wakes the next: `join` is pending while it sleeps and looks |
//! | a joiner, asleep | a word that says somebody sleeps | the next who finishes everything clears it, or the cleaner |
//!
//! What counts is read in this order: the items in the ring, then the lease table. A message that is leased is in the table before it leaves the ring, and
//! keeps its entry until it is acknowledged: so none is left out. Of two who finish the last two messages at the same time one sees the other: each
//! has a fence between its store and its count.

use super::Ring;
use super::cell::{NO_RECEIVER, QueueCell};
use super::dead::standing;
use super::lease::entry_of;
use crate::error::JoinError;
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::notes::Op;
use multiproc_shm::raw::Who;
use multiproc_shm::waiting::{Waitable, Words};
use multiproc_shm::{Arena, Error};
use multiproc_sys::clock::Deadline;
use multiproc_sys::{crash, membarrier};
use std::cell::Cell;
use std::sync::atomic::{Ordering, fence};

/// What a joiner waits for, and how it ended.
struct Joining<'a> {
    ring: &'a Ring,
    who: Who,
    end: Cell<Option<Result<(), JoinError>>>,
}

impl Joining<'_> {
    fn look(&self) -> Option<Result<(), JoinError>> {
        // Read first: what the last receiver acknowledged before it went is seen.
        let ended = self.ring.ended();
        match self.ring.is_finished() {
            Ok(true) => Some(Ok(())),
            Ok(false) if ended & NO_RECEIVER != 0 => Some(Err(JoinError::Disconnected)),
            Ok(false) => None,
            Err(e) => Some(Err(e.into())),
        }
    }
}

impl Waitable for Joining<'_> {
    fn ready(&self) -> bool {
        // Once is enough, though more may have been put since.
        let end = self.end.take().or_else(|| self.look());
        let ready = end.is_some();
        self.end.set(end);
        ready
    }

    fn prepare(&self, words: &mut Words) {
        let join = &self.ring.cell.consumed.join;
        join.prepare();
        words.push_shared(join.watch());
    }

    fn woken(&self) {
        // Announced first: whoever finishes from here on wakes the others, and what was finished before is seen here.
        self.ring.cell.consumed.join.prepare();
        membarrier::heavy();
        if self.ready() {
            self.finish();
        }
    }

    /// Clears the word and wakes all: who waits on announces itself anew.
    fn finish(&self) {
        crash::point("join.leaving");
        self.ring.cell.consumed.join.commit_and_kick_all(self.who.thread, || {});
        crash::point("join.left");
    }
}

impl Ring {
    /// Waits until everything that was put is finished.
    pub(crate) fn join(&self, deadline: Option<Deadline>) -> Result<(), JoinError> {
        let joining = Joining { ring: self, who: self.arena().who()?, end: Cell::new(None) };
        self.arena().wait_for(Op::JoinQueue, self.index(), &joining, deadline)?;
        joining.end.take().unwrap_or(Err(JoinError::TimedOut))
    }

    /// Whether everything that was put has been got and acknowledged, or is dead.
    pub(crate) fn is_finished(&self) -> Result<bool, Error> {
        Ok(self.items() == 0 && !has_live_lease(self.arena(), self.cell, self.index())?)
    }

    /// After the store that may have finished the last message: wakes the joiners if it has. Costs who finds none asleep one look at the word.
    #[inline]
    pub(crate) fn tell_joiners(&self, who: Who) {
        // Pairs with `heavy` in `wait_for`.
        membarrier::light();
        if self.cell.consumed.join.has_sleeper() {
            self.tell_if_finished(who);
        }
    }

    #[cold]
    fn tell_if_finished(&self, who: Who) {
        // Pairs with the same fence of who finishes another message at this moment.
        fence(Ordering::SeqCst);
        crash::point("join.counting");
        // In corrupted memory they learn of it.
        if self.is_finished().unwrap_or(true) {
            self.cell.consumed.join.commit_and_kick_all(who.thread, || {});
            crash::point("join.told");
        }
    }

    /// Finishes a message by `change`: if this thread dies right after it, the kernel wakes a joiner.
    #[inline]
    pub(crate) fn finishing(&self, who: Who, change: impl FnOnce()) {
        self.cell.consumed.join.guarded(who.thread, || {
            change();
            crash::point("join.finished");
            self.tell_joiners(who);
        });
    }
}

/// Wakes all joiners to look for themselves: for who cannot know what a dead process left undone.
pub(crate) fn wake(arena: &Arena, cell: &QueueCell, change: impl FnOnce()) -> Result<(), Error> {
    cell.consumed.join.commit_and_kick_all(arena.who()?.thread, change);
    Ok(())
}

/// Whether a message is on lease, or has come back and will be delivered again.
fn has_live_lease(arena: &Arena, cell: &QueueCell, queue: u32) -> Result<bool, Error> {
    let table = cell.leases.load(Ordering::Acquire);
    if table == 0 {
        return Ok(false);
    }
    let high = cell.lease_high.load(Ordering::Acquire).min(super::cell::MAX_LEASES);
    // Where one was found last: those who acknowledge one lease after the other do not all pass by the same empty places. Relaxed: a hint.
    let start = cell.join_cursor.load(Ordering::Relaxed);
    for i in 0..high {
        let entry = start.wrapping_add(i) % high;
        // Acquire pairs with the Release of who enters a lease.
        let Some(block) = BlockId::from_word(entry_of(arena, table, entry)?.load(Ordering::Acquire)) else { continue };
        let live = match standing(arena, cell, block)? {
            (BlockState::Leased { queue: of, .. }, _) => of == queue,
            (BlockState::Returned { queue: of, .. }, dead) => of == queue && !dead,
            _ => false,
        };
        if live {
            cell.join_cursor.store(entry, Ordering::Relaxed);
            return Ok(true);
        }
    }
    Ok(false)
}
