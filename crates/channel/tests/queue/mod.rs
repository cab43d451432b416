//! A queue of one or two items made of the shipping words: both locks, both wait words, both ends, and the records. Around them, as the handle does it: who finds the
//! lock held waits for it, who finds nothing to do waits with it, and who finds its owner dead takes back what that one had in hand.

pub(crate) mod untried;

use crate::beneath::{AtomicU64, QueueCell, RawLock, WaitWord};
use crate::lock::{Acquired, Who};
use crate::mock::{Arena, BlockId, Round};
use crate::ring::bytes::Bytes;
use crate::ring::cell::{CLOSED, Consumed, End, Produced};
use crate::ring::usual::Usual;
use crate::ring::{dead::DeadCell, volume::Volume};
use crate::world::{AtomicU32, Ordering, Thread, membarrier};
use std::sync::atomic::{AtomicBool, AtomicU32 as StdU32, Ordering::SeqCst};

/// Messages that a scene may put.
pub(crate) const MESSAGES: usize = 16;

pub(crate) struct Shared {
    pub(crate) cell: QueueCell,
    arena: Arena,
    bytes: Bytes,
    // Outside of the checker's reckoning: where each message is.
    put: [AtomicBool; MESSAGES],
    got: [StdU32; MESSAGES],
    /// The item that the getter has in hand, and one more; 0: none.
    hand: StdU32,
    /// The next message.
    next: StdU32,
}

/// Whether the lock's owner has died, whose hand is looked at.
fn found(taken: Result<Acquired, crate::lock::LockFailed>) -> bool {
    taken.unwrap() == Acquired::OwnerDied
}

fn who() -> Who {
    Who::new(Thread, 0)
}

impl Default for Shared {
    fn default() -> Shared {
        Shared::of(1)
    }
}

impl Shared {
    pub(crate) fn of(capacity: u64) -> Shared {
        // Four words: a record of one word of payload goes round the ring after two.
        let words: &'static [AtomicU64; 4] = crate::world::shared::shared();
        let arena = Arena(Round(words));
        let word = AtomicU64::default;
        let cell = QueueCell {
            plock: RawLock::default(),
            clock: RawLock::default(),
            produced: Produced {
                tail: word(),
                cw: WaitWord::default(),
                putting: word(),
                ring_backed: word(),
                head_seen: word(),
                put_bytes: Volume,
                got_seen: word(),
            },
            consumed: Consumed {
                head: word(),
                pw: WaitWord::default(),
                taking: word(),
                taking_seq: AtomicU32::default(),
                tail_seen: word(),
                got_bytes: Volume,
                join: WaitWord::default(),
            },
            capacity: word(),
            max_message: word(),
            max_bytes: word(),
            max_attempts: AtomicU32::default(),
            segment_bits: AtomicU32::default(),
            ring: word(),
            leases: word(),
            ended: AtomicU32::default(),
            attention: AtomicU32::default(),
            lost: AtomicU32::default(),
            told: AtomicU32::default(),
            fails_when_full: AtomicU32::default(),
            segments_low: AtomicU32::default(),
            lease_high: AtomicU32::default(),
            lease_cursor: AtomicU32::default(),
            join_cursor: AtomicU32::default(),
            dead: DeadCell,
        };
        cell.capacity.store(capacity, Ordering::Relaxed);
        cell.produced.ring_backed.store(1 << 40, Ordering::Relaxed);
        let bytes = Bytes::new(&arena, BlockId::from_word(1).unwrap(), 0).unwrap();
        Shared {
            cell,
            arena,
            bytes,
            put: Default::default(),
            got: Default::default(),
            hand: StdU32::new(0),
            next: StdU32::new(0),
        }
    }

    /// Puts the next message, and tells which it was.
    pub(crate) fn put(&self) -> usize {
        let (cell, message) = (&self.cell, self.next.fetch_add(1, SeqCst) as usize);
        let (ring, payload) = (self.arena.0, (message as u64 + 100).to_ne_bytes());
        let note = || self.put[message].store(true, SeqCst);
        match cell.put_usual(who(), ring, &payload) {
            Usual::Done(()) => {
                note();
                return message;
            }
            Usual::Locked => {}
            // What a dead putter leaves lies beyond the tail.
            Usual::Not => _ = found(cell.plock.lock(who())),
        }
        loop {
            let (head, tail) = (&cell.consumed.head, End::load(&cell.produced.tail));
            let has_room = || tail.items_since(End::load(head)) < cell.capacity();
            let sleep = || cell.consumed.pw.sleep_until(None, membarrier::heavy, has_room, || {});
            if !has_room() {
                cell.consumed.pw.guarded(Thread, sleep);
                cell.consumed.pw.finish();
            }
            End::load(head).note(&cell.produced.head_seen);
            if let Usual::Done(()) = cell.put_usual_locked(who(), ring, &payload) {
                note();
                return message;
            }
        }
    }

    /// Gets a message, and tells which.
    pub(crate) fn get(&self) -> usize {
        self.get_or_end().expect("nobody has closed it")
    }

    /// The same; `None`: it is closed and drained.
    pub(crate) fn get_or_end(&self) -> Option<usize> {
        let (cell, mut into) = (&self.cell, [0]);
        let note = |seq| self.hand.store(seq + 1, SeqCst);
        match cell.get_usual(who(), &self.arena, self.bytes, &mut into, note, || {}) {
            Usual::Done(_) => return Some(self.has_got(into[0])),
            Usual::Locked => {}
            Usual::Not => {
                if found(cell.clock.lock(who())) {
                    self.void_hand();
                }
            }
        }
        loop {
            // Read before the tail: what was put before the end is seen.
            let ended = cell.ended.load(Ordering::Acquire) != 0;
            if let Usual::Done(_) = cell.get_usual_locked(who(), &self.arena, self.bytes, &mut into, note, || {}) {
                return Some(self.has_got(into[0]));
            }
            if ended {
                cell.clock.unlock(Thread);
                return None;
            }
            let can_get =
                || End::load(&cell.produced.tail) != End::load(&cell.consumed.head) || cell.ended.load(Ordering::Acquire) != 0;
            if !can_get() {
                cell.produced.cw.guarded(Thread, || cell.produced.cw.sleep_until(None, membarrier::heavy, can_get, || {}));
                cell.produced.cw.finish();
            }
        }
    }

    /// The cleaner, after a death.
    pub(crate) fn clean(&self) {
        self.cell.raise_attention(Thread);
        self.cell.wake_the_others(Thread);
    }

    /// Nobody will put any more.
    pub(crate) fn close(&self) {
        let close = || _ = self.cell.ended.fetch_or(CLOSED, Ordering::Release);
        self.cell.produced.cw.commit_and_kick_all(Thread, close);
    }

    fn has_got(&self, payload: u64) -> usize {
        let message = payload.wrapping_sub(100) as usize;
        assert!(message < MESSAGES, "no message was ever {payload}");
        assert_eq!(self.got[message].fetch_add(1, SeqCst), 0, "a message is got twice");
        message
    }

    /// What is not taken is in nobody's hand.
    fn void_hand(&self) {
        let hand = self.hand.load(SeqCst);
        if hand == End::load(&self.cell.consumed.head).seq() + 1 {
            self.hand.store(0, SeqCst);
        }
    }

    /// Items in the ring.
    pub(crate) fn len(&self) -> u32 {
        End::load(&self.cell.produced.tail).items_since(End::load(&self.cell.consumed.head))
    }

    /// Everybody has ended: what was put is got or still there, but for as many as getters have died.
    pub(crate) fn is_accounted_for(&self, dead_getters: u32) {
        while self.len() > 0 {
            self.get();
        }
        let lost = (0..MESSAGES).filter(|&m| self.put[m].load(SeqCst) && self.got[m].load(SeqCst) == 0).count();
        assert!(lost as u32 <= dead_getters, "{lost} messages are lost, and {dead_getters} getters have died");
    }
}
