//! Dead letters: leases that came back as often as the queue allows. They stay where they are, in the lease table, and from then on only [`Ring::get_dead`]
//! looks at them.
//!
//! A block in state `Returned` whose count of attempts has reached the bound is dead. Both change only while it is leased, so a letter is
//! dead from one store on: that of its state. Nothing is moved, and no death comes between.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `lock` | one getter of dead letters at a time; a waiter keeps it | they | the next one looks through the table, as always |
//! | `wake` | the one that waits ([`WaitWord`]) | see there | see there |
//! | `attention` | a lease has come back, or may have | who returns it; cleared by the getter that looks | the cleaner sets it |

use super::cell::{CLOSED, NO_SENDER, QueueCell};
use super::lease::{Leased, Returned};
use super::{GaveUp, Patience, Ring};
use crate::error::GetError;
use crate::message::Arrival;
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::notes::Op;
use multiproc_shm::raw::{RawLock, WaitWord, Who};
use multiproc_shm::{Arena, Error, record};
use multiproc_sys::crash;
use std::sync::atomic::{AtomicU32, Ordering};

/// See the module head.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct DeadCell {
    pub(crate) lock: RawLock,
    pub(crate) wake: WaitWord,
    pub(crate) attention: AtomicU32,
}

/// Who had a lease last, as its record's `holder` word says: pid:32, and above it whether it was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    pub(crate) gave_back: bool,
}

impl Holder {
    pub(crate) fn to_word(self) -> u64 {
        u64::from(self.pid) | u64::from(self.gave_back) << 32
    }

    fn from_word(word: u64) -> Holder {
        Holder { pid: word as u32, gave_back: word >> 32 & 1 == 1 }
    }
}

/// The state of a lease's block, and whether that is `Returned` for the last time: the message is delivered no more.
pub(crate) fn standing(arena: &Arena, cell: &QueueCell, block: BlockId) -> Result<(BlockState, bool), Error> {
    let max = cell.max_attempts.load(Ordering::Relaxed);
    loop {
        let state = arena.block_state(block)?;
        if max == 0 || !matches!(state, BlockState::Returned { .. }) {
            return Ok((state, false));
        }
        // Acquire pairs with the Release in `take_returned`: who sees the count of the next lease sees that it is leased, and looks again.
        let dead = record::attempt(arena, block)?.load(Ordering::Acquire) >= max;
        if arena.block_state(block)? == state {
            return Ok((state, dead));
        }
    }
}

/// Tells who waits for dead letters that there may be one, or that the queue's end has come nearer. For queues that bound the attempts.
pub(crate) fn raise(cell: &QueueCell, who: Who, change: impl FnOnce()) {
    if cell.max_attempts.load(Ordering::Relaxed) == 0 {
        return change();
    }
    cell.dead.wake.commit_and_kick(who.thread, || {
        change();
        cell.dead.attention.store(1, Ordering::SeqCst);
    });
}

impl Ring {
    /// Takes the oldest dead letter: how often it was given out, and who had it last.
    pub(crate) fn get_dead(&self, arrival: &mut Arrival, patience: Patience) -> Result<(u32, Holder), GetError> {
        let who = self.arena().who()?;
        let dead = &self.cell.dead;
        let failed = |why: GaveUp| match why {
            GaveUp::Failed(e) => GetError::Shared(e),
            GaveUp::TimedOut => GetError::TimedOut,
            GaveUp::Held => GetError::WouldBlock,
        };
        let attention = || dead.attention.load(Ordering::Acquire) != 0;
        // A dead owner leaves nothing to repair: the table says all.
        let _either = self.take(Op::Wait, &dead.lock, who, patience, attention).map_err(failed)?;
        let taken = self.await_dead(patience, arrival);
        dead.lock.unlock(who.thread);
        let leased = taken?;
        let holder = Holder::from_word(record::holder(self.arena(), leased.block)?.load(Ordering::Relaxed));
        crash::point("dead.taken");
        self.acknowledge_if_leased(leased.block)?;
        arrival.in_block(leased.block);
        crash::point("dead.acknowledged");
        record::arrived(self.arena(), &arrival.references)?;
        Ok((leased.attempt, holder))
    }

    /// Whether `get_dead` would not wait, also because none can come any more. The word that tells of changes is `dead.wake`.
    pub(crate) fn would_get_dead(&self) -> bool {
        let ended = self.ended() & (CLOSED | NO_SENDER) != 0;
        !matches!(self.oldest_returned(true), Ok(Returned { oldest: None, .. }))
            || ended && self.items() == 0 && !matches!(self.count_leases().map(|leases| leases.is_none()), Ok(false))
    }

    fn await_dead(&self, patience: Patience, arrival: &mut Arrival) -> Result<Leased, GetError> {
        let dead = &self.cell.dead;
        loop {
            // AcqRel: who changes something does so and then stores 1. Either this takes that store, and the change is seen below, or it comes later
            // and stays.
            dead.attention.swap(0, Ordering::AcqRel);
            let ended = self.ended();
            if let Some(leased) = self.oldest_returned(true)?.oldest {
                arrival.references = record::adopt(self.arena(), leased.block)?;
                // The commit of the taking, as of any lease; that it is dead stays true if this process dies with it.
                self.arena().set_block_state(leased.block, self.leased_by_me(leased.seq))?;
                crash::point("dead.owned");
                return Ok(leased);
            }
            // The items first: one that is leased is in the table before it leaves the ring.
            if ended & (CLOSED | NO_SENDER) != 0 && self.items() == 0 && self.count_leases()?.is_none() {
                return Err(if ended & CLOSED != 0 { GetError::Closed } else { GetError::Disconnected });
            }
            let Patience::Until(deadline) = patience else { return Err(GetError::Empty) };
            let waited = self.wait(Op::Wait, &dead.wake, deadline, || dead.attention.load(Ordering::Acquire) != 0);
            waited.map_err(|_| GetError::TimedOut)?;
        }
    }
}
