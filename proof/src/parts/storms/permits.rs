//! Semaphores: permits that come back, and signals that are counted.

use super::EVENTUALLY;
use super::lock::{is_over, name_of};
use super::scene::{End, Facts, never};
use super::victim::{Me, Way};
use multiproc::{Semaphore, ShmError, SignalSemaphore, testing};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use std::time::Instant;

pub const OPS: &[&str] = &["acquire", "hold a permit", "give it back", "acquire owned", "signal", "take a signal"];
const ACQUIRING: u32 = 1;
const HOLDING: u32 = 2;
const RETURNING: u32 = 3;
const ACQUIRING_OWNED: u32 = 4;
const SIGNALLING: u32 = 5;
const TAKING: u32 = 6;

/// Words of the page, one for each permit: who has it.
const HOLDERS: usize = 8;
const ONLY_HOLDER: usize = 16;
const PERMITS: u32 = 3;
const MOST_SIGNALS: u32 = 1000;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Permits {
    several: Semaphore,
    one: Semaphore,
    signals: SignalSemaphore,
}

/// Those who signal and those who take signals go on together, and the others.
pub fn group(seat: usize) -> usize {
    usize::from(seat % 4 >= 2)
}

/// Two of four seats have permits, one gives signals, one takes them.
pub fn does(seat: usize, op: u32) -> bool {
    match seat % 4 {
        2 => op == SIGNALLING,
        3 => op == TAKING,
        _ => op != SIGNALLING && op != TAKING,
    }
}

impl Permits {
    pub fn new() -> Result<Permits, ShmError> {
        Ok(Permits {
            several: Semaphore::new(PERMITS)?,
            one: Semaphore::new(1)?,
            signals: SignalSemaphore::bounded(0, MOST_SIGNALS)?,
        })
    }

    pub fn play(&self, me: &Me) {
        for n in me.life.. {
            match me.seat % 4 {
                2 => {
                    let give = || self.signals.release(1).map(|()| me.did(1));
                    let given = me.op_quietly(SIGNALLING, || {
                        me.linger(|| drop(give()));
                        (0..16).try_for_each(|_| give())
                    });
                    match given {
                        Ok(()) => me.count(),
                        Err(multiproc::ReleaseError::BeyondBound(_)) => me.rest(),
                        Err(e) => me.complain(&format!("release: {e}")),
                    }
                }
                3 => {
                    never(me, "acquire", me.op(TAKING, || self.signals.acquire()));
                    me.did(1);
                }
                _ if n % 4 == 0 => {
                    let permit = never(me, "acquire_owned", me.op(ACQUIRING_OWNED, || self.several.acquire_owned()));
                    me.op_quietly(HOLDING, || hold(me, HOLDERS, PERMITS as usize));
                    me.op(RETURNING, || drop(permit));
                }
                _ if n % 4 == 1 => {
                    let permit = never(me, "acquire", me.op(ACQUIRING, || self.one.acquire()));
                    me.op_quietly(HOLDING, || hold(me, ONLY_HOLDER, 1));
                    me.op(RETURNING, || drop(permit));
                }
                _ => {
                    let permit = never(me, "acquire", me.op(ACQUIRING, || self.several.acquire()));
                    me.op_quietly(HOLDING, || hold(me, HOLDERS, PERMITS as usize));
                    me.op(RETURNING, || drop(permit));
                }
            }
            me.may_panic();
        }
    }

    pub fn judge(&self, end: &End<'_>) -> Result<Facts, String> {
        let limit = Instant::now() + EVENTUALLY;
        while (self.several.available(), self.one.available()) != (PERMITS, 1) {
            testing::collect().map_err(|e| e.to_string())?;
            if Instant::now() > limit {
                return Err(format!("permits did not come back: {:?} {:?}", self.several, self.one));
            }
        }
        let recovered = u64::from(self.several.take_recovered()) + u64::from(self.one.take_recovered());
        let surely = end.deaths.iter().filter(|d| d.inside == HOLDING && d.way != Way::Panic).count() as u64;
        // A process that takes one while another does counts twice for a moment, but has one at most.
        let at_most = end.inside(&[ACQUIRING, HOLDING, RETURNING, ACQUIRING_OWNED]) + end.inside(&[0]);
        if recovered < surely || recovered > at_most {
            return Err(format!("{recovered} permits came back, {surely} died with one for sure and at most {at_most}"));
        }
        let (released, taken) = (end.sum_done(|seat| seat % 4 == 2), end.sum_done(|seat| seat % 4 == 3));
        let either = |op: u32, seat: usize| {
            end.deaths.iter().filter(|d| d.seat % 4 == seat && (d.inside == op || d.inside == 0)).count() as u64
        };
        let value = u64::from(self.signals.value());
        let (more, less) = (either(SIGNALLING, 2), either(TAKING, 3));
        if value + taken + less < released || value + taken > released + more {
            return Err(format!(
                "signals: {released} were given, {taken} taken, {value} are left; {more} died giving, {less} taking"
            ));
        }
        Ok(Facts { operations: released + taken, reported: recovered, ..Facts::default() })
    }
}

/// One of so many places, as long as the permit is held.
fn hold(me: &Me, first: usize, places: usize) {
    let words = &me.page.words[first..first + places];
    let mut seen = [0; 8];
    let place =
        words.iter().position(|word| word.0.compare_exchange(0, name_of(me), Ordering::AcqRel, Ordering::Acquire).is_ok());
    // Dead ones have left theirs behind.
    let place = place.or_else(|| {
        (0..words.len()).find(|&i| {
            let other = words[i].0.load(Ordering::Acquire);
            seen[i] = other;
            (other == 0 || is_over(me.page, other))
                && words[i].0.compare_exchange(other, name_of(me), Ordering::AcqRel, Ordering::Acquire).is_ok()
        })
    });
    let Some(place) = place else {
        me.complain(&format!("more than {places} have a permit: {seen:x?}, and {:x}", name_of(me)));
    };
    std::hint::black_box((0..200).sum::<u64>());
    me.linger(std::hint::spin_loop);
    words[place].0.store(0, Ordering::Release);
}
