//! Events: two seats ask and answer. Each waits for the other, so one wake that is lost stops both.

use super::scene::{End, Facts, never};
use super::victim::Me;
use multiproc::{Event, ShmError};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

pub const OPS: &[&str] = &["set", "wait for an event", "clear"];
const SETTING: u32 = 1;
const WAITING: u32 = 2;
const CLEARING: u32 = 3;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Events {
    /// Asked, answered.
    pairs: Vec<(Event, Event)>,
}

impl Events {
    pub fn new(seats: usize) -> Result<Events, ShmError> {
        Ok(Events { pairs: (0..seats.div_ceil(2)).map(|_| Ok((Event::new()?, Event::new()?))).collect::<Result<_, ShmError>>()? })
    }

    pub fn play(&self, me: &Me) {
        let (asked, answered) = &self.pairs[me.seat / 2];
        let question = &me.page.words[me.seat / 2 * 2].0;
        let answer = &me.page.words[me.seat / 2 * 2 + 1].0;
        let set = |event: &Event| {
            never(
                me,
                "set",
                me.op(SETTING, || {
                    me.linger(|| drop(event.set()));
                    event.set()
                }),
            )
        };
        let await_it = |event: &Event| {
            never(me, "wait", me.op(WAITING, || event.wait()));
            me.op(CLEARING, || {
                event.clear();
                me.linger(|| event.clear());
            });
        };
        // A predecessor may have died between the question and its answer.
        let mut first = true;
        loop {
            if me.seat.is_multiple_of(2) {
                if answer.load(Ordering::Acquire) == question.load(Ordering::Relaxed) {
                    question.fetch_add(1, Ordering::Release);
                }
                set(asked);
                await_it(answered);
            } else {
                if !std::mem::take(&mut first) {
                    await_it(asked);
                }
                answer.store(question.load(Ordering::Acquire), Ordering::Release);
                set(answered);
            }
            me.may_panic();
        }
    }

    pub fn judge(&self, end: &End<'_>) -> Result<Facts, String> {
        let mut operations = 0;
        for pair in 0..self.pairs.len() {
            let word = |i: usize| end.page.words[pair * 2 + i].0.load(Ordering::Relaxed);
            if word(1) > word(0) || word(0) > word(1) + 1 {
                return Err(format!("pair {pair}: {} questions, {} answers", word(0), word(1)));
            }
            operations += word(0);
        }
        Ok(Facts { operations, ..Facts::default() })
    }
}
