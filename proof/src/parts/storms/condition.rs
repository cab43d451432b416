//! Conditions: makers and takers of things that are counted under the conditions' lock.

use super::lock::{is_over, name_of};
use super::scene::{End, Facts, never};
use super::victim::Me;
use multiproc::{Condition, Lock, LockError, LockGuard, ShmError};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

pub const OPS: &[&str] = &["lock", "wait for a condition", "change and notify", "unlock", "recover"];
const LOCKING: u32 = 1;
const WAITING: u32 = 2;
const CHANGING: u32 = 3;
const UNLOCKING: u32 = 4;
const RECOVERING: u32 = 5;

/// Words of the page.
const HOLDER: usize = 0;
const THERE: usize = 1;
const MADE: usize = 2;
const TAKEN: usize = 3;
const REPORTED: usize = 4;
const ROOM: u64 = 8;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Conditions {
    lock: Lock,
    not_empty: Condition,
    not_full: Condition,
}

impl Conditions {
    pub fn new() -> Result<Conditions, ShmError> {
        let lock = Lock::new()?;
        Ok(Conditions { not_empty: Condition::with_lock(&lock)?, not_full: Condition::with_lock(&lock)?, lock })
    }

    pub fn play(&self, me: &Me) {
        let makes = me.seat.is_multiple_of(2);
        let word = |i: usize| &me.page.words[i].0;
        let there = || word(THERE).load(Ordering::Relaxed);
        loop {
            let mut guard = self.have(me, me_lock(me, &self.lock));
            let (own, others) = if makes { (&self.not_full, &self.not_empty) } else { (&self.not_empty, &self.not_full) };
            while if makes { there() >= ROOM } else { there() == 0 } {
                guard = self.have(me, me.op_quietly(WAITING, || own.wait(guard)));
            }
            me.op_quietly(CHANGING, || {
                me.may_panic();
                if word(HOLDER).swap(name_of(me), Ordering::AcqRel) != 0 {
                    me.complain("two have the lock of a condition");
                }
                let total = if makes { MADE } else { TAKEN };
                word(total).store(word(total).load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                word(THERE).store(if makes { there() + 1 } else { there() - 1 }, Ordering::Relaxed);
                word(HOLDER).store(0, Ordering::Release);
                never(me, "notify", others.notify_one(&guard));
            });
            me.did(1);
            me.op(UNLOCKING, || drop(guard));
        }
    }

    /// The lock, whether an owner has died or not.
    fn have<'a>(&'a self, me: &Me, taken: Result<LockGuard<'a>, LockError>) -> LockGuard<'a> {
        match taken {
            Ok(guard) => guard,
            Err(LockError::OwnerDied(_)) => me.op_quietly(RECOVERING, || {
                let found = never(me, "recover", self.lock.recover());
                if found.died().is_some() {
                    let word = |i: usize| &me.page.words[i].0;
                    let other = word(HOLDER).load(Ordering::Acquire);
                    if other != 0 && !is_over(me.page, other) {
                        me.complain("a condition's lock is called dead, and somebody has it");
                    }
                    word(THERE).store(
                        word(MADE).load(Ordering::Relaxed).saturating_sub(word(TAKEN).load(Ordering::Relaxed)),
                        Ordering::Relaxed,
                    );
                    word(HOLDER).store(0, Ordering::Release);
                    word(REPORTED).fetch_add(1, Ordering::Relaxed);
                }
                me.linger(std::hint::spin_loop);
                found.make_consistent()
            }),
            Err(e) => me.complain(&format!("condition: {e}")),
        }
    }

    pub fn judge(&self, end: &End<'_>) -> Result<Facts, String> {
        let word = |i: usize| end.page.words[i].0.load(Ordering::Relaxed);
        let (made, taken) = (word(MADE), word(TAKEN));
        let inside = end.inside(&[CHANGING, 0]);
        let counted = end.sum_done(|_| true);
        let found = self.lock.recover().map_err(|e| e.to_string())?;
        let mended = found.died().is_none();
        drop(found.make_consistent());
        if mended && made != taken + word(THERE) || made < taken || made + taken < counted || made + taken > counted + inside {
            let there = word(THERE);
            return Err(format!("{made} made, {taken} taken, {there} there; the victims count {counted}, {inside} died there"));
        }
        Ok(Facts { operations: made + taken, reported: word(REPORTED), ..Facts::default() })
    }
}

/// Not counted: who has the lock may find nothing to do.
fn me_lock<'a>(me: &Me, lock: &'a Lock) -> Result<LockGuard<'a>, LockError> {
    me.op_quietly(LOCKING, || lock.lock())
}
