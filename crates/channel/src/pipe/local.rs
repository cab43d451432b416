//! One end of a pipe in this process: shared by all its handles here, and the one who uses the end if this process does.
//!
//! An end has one user at a time, a process: it claims the end at its first operation and lets go when its last handle is dropped, or goes into a
//! message. Handles that are only kept or passed on claim nothing. Threads of the process take turns, those who send apart from those who receive;
//! whether the end is claimed is asked by who has the turn, and let go of by who has both.
//!
//! | dies | left behind | who repairs, how |
//! |---|---|---|
//! | claiming, before the CAS | nothing | nobody |
//! | after the CAS, before it has told | an owner that is dead | whoever sleeps at the other end is woken by the kernel: `news` is pending |
//! | before the mark of its predecessor's death | the same: the other end learns of one death instead of two | nobody |
//! | using the end | the same | those who sleep there watch its life word; the cleaner makes the owner a grave |
//! | having let go, before it has told | an end without a user | the kernel wakes who sleeps at the other end |

use super::cell::{CLOSED, End, GONE, Owner, PipeCell};
use super::error::Refused;
use super::record::{Form, Head, Ring, WORD_RECORD, position};
use super::turn::{NotMine, Turn};
use super::way::{Received, Sent};
use crate::ring::Patience;
use multiproc_shm::raw::Who;
use multiproc_shm::roster::SlotState;
use multiproc_shm::{Arena, Error, Held, Role};
use multiproc_sys::{crash, robust};
use std::collections::{BTreeMap, VecDeque};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// See the module head.
#[derive(Debug)]
pub(crate) struct Local {
    pub(super) held: Arc<Held>,
    pub(super) cell: &'static PipeCell,
    /// 0 or 1; also the number of the way from it.
    pub(super) end: usize,
    /// The parts of the cell that each message needs.
    parts: Parts,
    /// The life of the process in which it claimed the end; 0: it has not. See `multiproc_sys::robust::life`.
    claimed: AtomicU32,
    claiming: Mutex<()>,
    pub(super) sending: Sending,
    pub(super) receiving: Receiving,
}

/// See [`PipeCell`]. Looked up once.
#[derive(Debug)]
struct Parts {
    arena: &'static Arena,
    own: &'static End,
    other: &'static End,
    sent: &'static Sent,
    received: &'static Received,
}

/// What the sending threads know, each when it is their turn.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Sending {
    pub(super) turn: Turn,
    pub(super) ring: Place,
    /// The receiver's position as it was last looked at.
    pub(super) head_seen: AtomicU64,
    /// Positions and bytes of the blocks that this process has sent, perhaps taken meanwhile.
    pub(super) blocks: Mutex<VecDeque<(u64, u64)>>,
}

/// The same for the receiving threads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Receiving {
    pub(super) turn: Turn,
    pub(super) ring: Place,
    /// Where it last had to wait.
    pub(super) waited_at: AtomicU64,
}

/// A ring, once it has been seen; it never moves.
#[derive(Debug, Default)]
pub(super) struct Place(OnceLock<Ring>);

impl Place {
    #[inline]
    pub(super) fn get(&self) -> Option<&Ring> {
        self.0.get()
    }

    pub(super) fn set(&self, ring: Ring) -> &Ring {
        self.0.get_or_init(|| ring)
    }
}

/// How the other end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// Nobody uses it at present; somebody may come.
    Nobody,
    /// A process uses it.
    Alive(Owner),
    /// Closed, or nobody is left who could use it.
    Ended,
    /// The last process that used it has died.
    Dead(u32),
}

type Key = (usize, u32, usize);
/// The ends of which this process has handles. An entry stays until the `Drop` of its [`Local`] has run.
static LOCALS: Mutex<BTreeMap<Key, Weak<Local>>> = Mutex::new(BTreeMap::new());

impl Local {
    /// The end that `held` refers to: the same for all handles of this process.
    pub(crate) fn of(held: Arc<Held>) -> Result<Arc<Local>, Error> {
        let end = match held.role() {
            Role::Sender => 0,
            Role::Receiver => 1,
            _ => return Err(Error::Corrupted(&"a pipe's end")),
        };
        let cell = PipeCell::of(held.arena(), held.object())?;
        let key = (ptr::from_ref(held.arena()).addr(), held.object().index, end);
        let mut locals = LOCALS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(local) = locals.get(&key).and_then(Weak::upgrade) {
            return Ok(local);
        }
        let (own, other) = (&cell.sides[end], &cell.sides[1 - end]);
        let parts = Parts { arena: held.arena(), own: &own.end, other: &other.end, sent: &own.sent, received: &own.received };
        let local = Arc::new(Local {
            held,
            cell,
            end,
            parts,
            claimed: AtomicU32::new(0),
            claiming: Mutex::new(()),
            sending: Sending::default(),
            receiving: Receiving::default(),
        });
        locals.insert(key, Arc::downgrade(&local));
        Ok(local)
    }

    #[inline]
    pub(super) fn arena(&self) -> &'static Arena {
        self.parts.arena
    }

    #[inline]
    pub(super) fn index(&self) -> u32 {
        self.held.object().index
    }

    /// This end.
    #[inline]
    pub(super) fn own(&self) -> &'static End {
        self.parts.own
    }

    /// The other one.
    #[inline]
    pub(super) fn other(&self) -> &'static End {
        self.parts.other
    }

    /// What this end writes as a sender.
    #[inline]
    pub(super) fn sent(&self) -> &'static Sent {
        self.parts.sent
    }

    /// What this end writes as a receiver.
    #[inline]
    pub(super) fn received(&self) -> &'static Received {
        self.parts.received
    }

    /// The way on which this end receives.
    #[inline]
    pub(super) fn way_in(&self) -> usize {
        1 - self.end
    }

    /// What the codec of this end's messages allows; a constant.
    #[inline]
    pub(crate) fn max_message(&self) -> u64 {
        self.own().max_message.load(Ordering::Relaxed)
    }

    /// Whether `carries` is what this end sends.
    pub(crate) fn sends(&self, carries: u64) -> bool {
        self.own().carries.load(Ordering::Relaxed) == carries
    }

    #[inline]
    fn is_alive(&self, owner: Owner) -> Result<bool, Error> {
        let Some(index) = owner.slot() else { return Ok(false) };
        let slot = self.arena().slot(index)?;
        let (state, generation) = slot.state()?;
        Ok(state == SlotState::Live && owner.is_in(index, generation) && !slot.life.owner_died())
    }

    /// How the other end is. To be asked before looking for what it has sent: what came before its end is then seen.
    #[inline]
    pub(super) fn peer(&self) -> Result<Peer, Error> {
        let other = self.other();
        loop {
            let flags = other.flags();
            if flags & CLOSED != 0 {
                return Ok(Peer::Ended);
            }
            let seen = other.owner();
            crash::moment();
            return Ok(match seen {
                Some(owner) if self.is_alive(owner)? => Peer::Alive(owner),
                // It may have let go of the end in good order before it died.
                Some(owner) if other.owner() != Some(owner) => continue,
                Some(owner) => Peer::Dead(owner.pid()),
                None if flags & GONE != 0 => match other.bereft.load(Ordering::Acquire) {
                    0 => Peer::Ended,
                    pid => Peer::Dead(pid as u32),
                },
                None => Peer::Nobody,
            });
        }
    }

    /// The process that uses the other end.
    pub(crate) fn peer_pid(&self) -> Option<u32> {
        match self.peer() {
            Ok(Peer::Alive(owner)) => Some(owner.pid()),
            _ => None,
        }
    }

    /// This process as an owner.
    fn me(&self) -> Result<Owner, Error> {
        let slot = self.arena().my_slot();
        Ok(Owner::new(slot, self.arena().slot(slot)?.state()?.1, std::process::id()))
    }

    /// Sees to it that this process is the one that uses the end. The caller has a turn.
    #[inline]
    pub(super) fn claimed(&self, who: Who, patience: Patience) -> Result<(), Refused> {
        // Acquire pairs with the Release in `claim`.
        if self.claimed.load(Ordering::Acquire) == robust::life() { Ok(()) } else { self.claim(who, patience) }
    }

    /// Whether this process has claimed the end.
    pub(super) fn is_claimed(&self) -> bool {
        // Acquire pairs with the Release in `claim`.
        self.claimed.load(Ordering::Acquire) == robust::life()
    }

    /// An owner that is dead but not gone may still write; it is waited for, as long as `patience` says.
    #[cold]
    fn claim(&self, who: Who, patience: Patience) -> Result<(), Refused> {
        let _one = self.claiming.lock().unwrap_or_else(PoisonError::into_inner);
        if self.claimed.load(Ordering::Acquire) == robust::life() {
            return Ok(());
        }
        let (me, own) = (self.me()?, self.own());
        let died = loop {
            if own.flags() & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            let before = own.owner();
            match before {
                // From an earlier handle, whose end this process has not let go of.
                Some(owner) if owner == me => break None,
                Some(owner) if !owner.is_grave() && !self.is_cleaned_up(owner)? => {
                    if self.is_alive(owner)? {
                        return Err(Refused::InUse(owner.pid()));
                    }
                    self.arena().collect()?;
                    if own.owner() == before && !self.is_cleaned_up(owner)? {
                        self.await_cleaning(owner, patience)?;
                    }
                }
                _ => {
                    let mut mine = false;
                    own.news.commit_and_kick_all(who.thread, || mine = own.change_owner(before, Some(me)));
                    if mine {
                        break before.map(Owner::pid);
                    }
                }
            }
        };
        crash::point("pipe.claimed");
        // Relaxed: who reads it sees the owner first.
        own.bereft.store(0, Ordering::Relaxed);
        self.go_on(who, died)?;
        crash::point("pipe.claim_complete");
        self.claimed.store(robust::life(), Ordering::Release);
        Ok(())
    }

    /// Whether the slot of a process stands for it no more.
    fn is_cleaned_up(&self, owner: Owner) -> Result<bool, Error> {
        let Some(index) = owner.slot() else { return Ok(true) };
        let generation = self.arena().slot(index)?.state()?.1;
        Ok(!owner.is_in(index, generation) || self.arena().is_cleaned(index, generation)?)
    }

    /// Waits a moment for the end of an owner that is dying, or for who cleans up after it.
    fn await_cleaning(&self, owner: Owner, patience: Patience) -> Result<(), Refused> {
        match patience {
            Patience::None => Err(Refused::NotYet(NotMine::Taken)),
            Patience::Until(Some(deadline)) if deadline.passed() => Err(Refused::NotYet(NotMine::TimedOut)),
            Patience::Until(_) => Ok(owner.slot().map_or(Ok(()), |slot| self.arena().await_cleaning(slot))?),
        }
    }

    /// Begins where the last user of the end stopped; leaves word of its death behind what it has sent.
    fn go_on(&self, who: Who, died: Option<u32>) -> Result<(), Error> {
        let sent = self.sent();
        if let Some(ring) = self.find_sending_ring()? {
            // It may have died between a commit and its note.
            let tail = ring.end_from(position(sent.tail.load(Ordering::Relaxed))?)?;
            sent.tail.store(tail, Ordering::Relaxed);
        }
        let Some(pid) = died.filter(|_| own_way_is_used(self.own())) else { return Ok(()) };
        let ring = match self.sending.ring.get() {
            Some(ring) => ring,
            None => self.make_ring()?,
        };
        let tail = position(sent.tail.load(Ordering::Relaxed))?;
        let head = self.cell.received(self.end).head.load(Ordering::Acquire);
        // Without room for it nothing was sent since the last mark.
        if ring.len.saturating_sub(tail.wrapping_sub(head)) >= WORD_RECORD + 8 {
            let mark = Head::new(Form::Death, 8, 0);
            self.back_ring(ring, tail + WORD_RECORD + 8)?;
            ring.write_record(self.arena(), tail, mark, &u64::from(pid).to_ne_bytes(), std::iter::empty())?;
            self.commit(who, ring, tail, mark)?;
        }
        Ok(())
    }

    /// Ends this end for everybody, from both sides.
    pub(crate) fn close(&self) -> Result<(), Error> {
        let me = self.arena().who()?.thread;
        let own = self.own();
        own.news.commit_and_kick_all(me, || {
            // Release pairs with the Acquire in `End::flags`.
            own.flags.fetch_or(CLOSED, Ordering::Release);
        });
        Ok(())
    }

    /// The handle goes into a message: if it is the last of this process, who gets it may use the end at once. If the message does not leave after
    /// all, or leaves a copy here, the next operation claims the end again.
    pub(super) fn hand_on(this: &Arc<Local>) {
        if Arc::strong_count(this) > 1 || this.claimed.load(Ordering::Acquire) != robust::life() {
            return;
        }
        let Ok(me) = robust::current().map(|thread| thread.tid()) else { return };
        let taken = (this.sending.turn.take(me, Patience::None), this.receiving.turn.take(me, Patience::None));
        if let (Ok(_sending), Ok(_receiving)) = taken
            && this.claimed.swap(0, Ordering::AcqRel) == robust::life()
        {
            // Fails only in corrupted memory, of which the next operation tells.
            let _ = this.let_go();
        }
    }

    /// The last handle of this process goes.
    fn let_go(&self) -> Result<(), Error> {
        let me = self.me()?;
        let own = self.own();
        crash::point("pipe.letting_go");
        own.news.commit_and_kick_all(self.arena().who()?.thread, || {
            own.change_owner(Some(me), None);
        });
        crash::point("pipe.let_go");
        Ok(())
    }
}

/// One way of a one-way pipe carries nothing.
fn own_way_is_used(own: &End) -> bool {
    own.carries.load(Ordering::Relaxed) != 0
}

impl Drop for Local {
    fn drop(&mut self) {
        if robust::forked() {
            return;
        }
        let key = (ptr::from_ref(self.arena()).addr(), self.index(), self.end);
        let mut locals = LOCALS.lock().unwrap_or_else(PoisonError::into_inner);
        // Another handle may have come meanwhile, and then the end stays this process's.
        if locals.get(&key).is_some_and(|local| ptr::eq(local.as_ptr(), self)) {
            locals.remove(&key);
            if *self.claimed.get_mut() == robust::life() {
                // Fails only in corrupted memory, of which the next operation tells.
                let _ = self.let_go();
            }
        }
    }
}
