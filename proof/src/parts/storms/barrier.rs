//! A barrier for all seats: it breaks with each death, and goes on when the coordinator has set it up again.

use super::scene::{End, Facts};
use super::victim::Me;
use multiproc::{Barrier, BarrierError, ShmError};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

pub const OPS: &[&str] = &["wait at a barrier"];
const WAITING: u32 = 1;

const ROUNDS: usize = 0;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Barriers {
    barrier: Barrier,
    seats: usize,
}

impl Barriers {
    pub fn new(seats: usize) -> Result<Barriers, ShmError> {
        Ok(Barriers { barrier: Barrier::new(seats)?, seats })
    }

    pub fn play(&self, me: &Me) {
        loop {
            let action = || {
                me.page.words[ROUNDS].0.fetch_add(1, Ordering::Relaxed);
                me.may_panic();
            };
            match me.op_quietly(WAITING, || self.barrier.wait_with(action)) {
                Ok(_) => {
                    me.did(1);
                    me.count();
                }
                Err(BarrierError::TimedOut) => me.complain("a barrier timed out that has no time"),
                Err(BarrierError::Shared(e)) => me.complain(&format!("barrier: {e}")),
                Err(_) => me.rest(),
            }
        }
    }

    pub fn tend(&self) {
        if self.barrier.is_broken() {
            let _ = self.barrier.reset();
        }
    }

    pub fn judge(&self, end: &End<'_>) -> Result<Facts, String> {
        let rounds = end.page.words[ROUNDS].0.load(Ordering::Relaxed);
        let passed = end.sum_done(|_| true);
        let died = end.inside(&[WAITING, 0]);
        let seats = self.seats as u64;
        // A round may have been counted by one who died before it had opened, or have broken then.
        if passed > rounds * seats || passed + (died + 1) * seats < rounds * seats {
            return Err(format!("{rounds} rounds of {seats}, {passed} passed, {died} died there"));
        }
        Ok(Facts { operations: passed, ..Facts::default() })
    }
}
