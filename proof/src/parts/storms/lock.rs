//! Locks: who has one changes a counter and its shadow; re-entrant locks; values, which are old or new as a whole.

use super::page::{Page, ROWS};
use super::scene::{End, Facts, never};
use super::victim::{DOOMED, Me, Way};
use multiproc::{Lock, LockError, RLock, ShmError, Value};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

pub const OPS: &[&str] = &["lock", "hold a lock", "unlock", "recover", "rlock", "hold an rlock", "update", "get a value"];
const LOCKING: u32 = 1;
const HOLDING: u32 = 2;
const UNLOCKING: u32 = 3;
const RECOVERING: u32 = 4;
const RLOCKING: u32 = 5;
const RHOLDING: u32 = 6;
const UPDATING: u32 = 7;
const READING: u32 = 8;

/// Words of the page: who is inside, counter and shadow, deaths that were reported.
#[derive(Clone, Copy, Debug)]
struct Guarded {
    holder: usize,
    counter: usize,
    shadow: usize,
}

const BY_LOCK: Guarded = Guarded { holder: 0, counter: 1, shadow: 2 };
const BY_RLOCK: Guarded = Guarded { holder: 3, counter: 4, shadow: 5 };
const REPORTED: usize = 6;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Locks {
    lock: Lock,
    rlock: RLock,
    value: Value<[u64; 8]>,
}

/// Row and life in a word.
pub fn name_of(me: &Me) -> u64 {
    me.life << 8 | me.row as u64
}

/// Whether whoever has this name is no more, or about to be.
pub fn is_over(page: &Page, name: u64) -> bool {
    let (row, life) = (name as usize % ROWS, name >> 8);
    page.rows[row].panic.load(Ordering::Relaxed) == DOOMED || page.is_over(row, life)
}

impl Locks {
    pub fn new() -> Result<Locks, ShmError> {
        Ok(Locks { lock: Lock::new()?, rlock: RLock::new()?, value: Value::new([0; 8])? })
    }

    pub fn play(&self, me: &Me) {
        for n in me.life.. {
            match n % 4 {
                0 | 1 => self.by_lock(me),
                2 => self.by_rlock(me, n),
                _ => self.by_value(me),
            }
        }
    }

    fn by_lock(&self, me: &Me) {
        match me.op(LOCKING, || self.lock.lock()) {
            Ok(guard) => {
                me.op_quietly(HOLDING, || change(me, BY_LOCK));
                me.op(UNLOCKING, || drop(guard));
            }
            Err(LockError::OwnerDied(_)) => me.op_quietly(RECOVERING, || {
                let found = never(me, "recover", self.lock.recover());
                if found.died().is_some() {
                    mend(me, BY_LOCK);
                }
                me.linger(std::hint::spin_loop);
                drop(found.make_consistent());
            }),
            Err(e) => me.complain(&format!("lock: {e}")),
        }
    }

    fn by_rlock(&self, me: &Me, n: u64) {
        match me.op(RLOCKING, || self.rlock.lock()) {
            Ok(first) => {
                let more: Vec<_> = (0..n / 4 % 3).map(|_| never(me, "rlock", me.op(RLOCKING, || self.rlock.lock()))).collect();
                me.op_quietly(RHOLDING, || change(me, BY_RLOCK));
                me.op(UNLOCKING, || drop((more, first)));
            }
            Err(LockError::OwnerDied(_)) => me.op_quietly(RECOVERING, || {
                let found = never(me, "recover", self.rlock.recover());
                if found.died().is_some() {
                    mend(me, BY_RLOCK);
                }
                me.linger(std::hint::spin_loop);
                drop(found.make_consistent());
            }),
            Err(e) => me.complain(&format!("rlock: {e}")),
        }
    }

    fn by_value(&self, me: &Me) {
        let changed = me.op(UPDATING, || {
            self.value.update(|numbers| {
                numbers[..4].iter_mut().for_each(|n| *n += 1);
                // A panic keeps the old value.
                me.may_panic();
                numbers[4..].iter_mut().for_each(|n| *n += 1);
            })
        });
        never(me, "update", changed);
        me.did(1);
        let seen = me.op(READING, || {
            me.linger(|| drop(self.value.get()));
            self.value.get()
        });
        let seen = never(me, "get", seen);
        if seen.iter().any(|n| *n != seen[0]) {
            me.complain(&format!("a value is torn: {seen:?}"));
        }
    }

    pub fn judge(&self, end: &End<'_>) -> Result<Facts, String> {
        let reported = |found: bool| if found { 1 } else { 0 };
        // What the last ones left nobody has found yet.
        let found = self.lock.recover().map_err(|e| e.to_string())?;
        let mut news = reported(found.died().is_some());
        drop(found.make_consistent());
        let found = self.rlock.recover().map_err(|e| e.to_string())?;
        news += reported(found.died().is_some());
        drop(found.make_consistent());
        let word = |i: usize| end.page.words[i].0.load(Ordering::Relaxed);
        let reported = word(REPORTED) + news;
        let surely = end.deaths.iter().filter(|d| matches!(d.inside, HOLDING | RHOLDING) && d.way != Way::Panic).count() as u64;
        let recovering = end.inside(&[RECOVERING]);
        // Who has got one is between two operations before it does something with it.
        let at_most = end.inside(&[0, LOCKING, HOLDING, UNLOCKING, RECOVERING, RLOCKING, RHOLDING]);
        if surely > reported + recovering || reported > at_most {
            return Err(format!(
                "{surely} died with a lock and at most {at_most}; {reported} deaths were reported, {recovering} died over it"
            ));
        }
        for (what, guarded, holding) in [("lock", BY_LOCK, HOLDING), ("rlock", BY_RLOCK, RHOLDING)] {
            let counted: u64 =
                end.deaths.iter().map(|d| if holding == HOLDING { d.note & 0xffff_ffff } else { d.note >> 32 }).sum();
            let (counter, shadow) = (word(guarded.counter), word(guarded.shadow));
            let inside = end.inside(&[holding]);
            if counter.abs_diff(shadow) > 1 || counter < counted || counter > counted + inside {
                return Err(format!(
                    "under a {what}: counter {counter}, shadow {shadow}, the victims count {counted}, {inside} died there"
                ));
            }
        }
        let value = self.value.get().map_err(|e| e.to_string())?;
        let (updates, inside) = (end.sum_done(|_| true), end.inside(&[UPDATING, 0]));
        if value.iter().any(|n| *n != value[0]) || value[0] < updates || value[0] > updates + inside {
            return Err(format!("the value is {value:?}, the victims count {updates}, {inside} died there"));
        }
        Ok(Facts { operations: word(1) + word(4) + value[0], reported, ..Facts::default() })
    }
}

/// Counter and shadow, by whoever is alone here.
fn change(me: &Me, guarded: Guarded) {
    me.may_panic();
    let words = &me.page.words;
    let other = words[guarded.holder].0.swap(name_of(me), Ordering::AcqRel);
    if other != 0 {
        me.complain(&format!("two have a lock: {other:x} and {:x}", name_of(me)));
    }
    let counter = words[guarded.counter].0.load(Ordering::Relaxed);
    words[guarded.counter].0.store(counter + 1, Ordering::Relaxed);
    let shadow = words[guarded.shadow].0.load(Ordering::Relaxed);
    if shadow != counter {
        me.complain(&format!("under a lock: counter {counter}, shadow {shadow}"));
    }
    words[guarded.shadow].0.store(shadow + 1, Ordering::Relaxed);
    me.linger(std::hint::spin_loop);
    let note = &me.mine().note;
    let one = if guarded.holder == BY_LOCK.holder { 1 } else { 1 << 32 };
    note.store(note.load(Ordering::Relaxed) + one, Ordering::Relaxed);
    words[guarded.holder].0.store(0, Ordering::Release);
}

/// After an owner's death.
fn mend(me: &Me, guarded: Guarded) {
    let words = &me.page.words;
    let other = words[guarded.holder].0.load(Ordering::Acquire);
    if other != 0 && !is_over(me.page, other) {
        me.complain(&format!("a lock is called dead, and {other:x} has it"));
    }
    let counter = words[guarded.counter].0.load(Ordering::Relaxed);
    words[guarded.shadow].0.store(counter, Ordering::Relaxed);
    words[guarded.holder].0.store(0, Ordering::Release);
    words[REPORTED].0.fetch_add(1, Ordering::Relaxed);
}
