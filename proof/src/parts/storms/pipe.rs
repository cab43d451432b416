//! Pipes: pairs of seats, one way or there and back; a successor goes on with a dead one's end.

use super::item::{GOT, Item, PUT, PUTTING, decoded, got};
use super::page::SEATS;
use super::scene::{End, Facts, never};
use super::victim::Me;
use multiproc::{Atomic, Connection, PipeReceiver, PipeSender, RecvError, SendError, ShmError, one_way, pipe, testing};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

pub const OPS: &[&str] = &["send", "recv"];
const SENDING: u32 = 1;
const RECEIVING: u32 = 2;

/// A pipe for each two seats.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pipes {
    pairs: Vec<Pair>,
    handle: Atomic<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Pair {
    OneWay(PipeSender<Item>, PipeReceiver<Item>),
    /// Each item is sent back.
    BothWays(Connection<Item, Item>, Connection<Item, Item>),
}

/// One-way pipes have a sender and a receiver.
pub fn does(seat: usize, op: u32) -> bool {
    !(seat / 2).is_multiple_of(2) || (op == SENDING) == seat.is_multiple_of(2)
}

/// What sends and receives items.
trait Talks {
    fn send(&self, item: Item) -> Result<(), SendError<Item>>;
    fn recv(&self) -> Result<Item, RecvError>;
    fn try_recv(&self) -> Result<Item, RecvError>;
}

impl Talks for Connection<Item, Item> {
    fn send(&self, item: Item) -> Result<(), SendError<Item>> {
        Connection::send(self, item)
    }

    fn recv(&self) -> Result<Item, RecvError> {
        Connection::recv(self)
    }

    fn try_recv(&self) -> Result<Item, RecvError> {
        Connection::try_recv(self)
    }
}

impl Pipes {
    pub fn new(seats: usize) -> Result<Pipes, ShmError> {
        let pair = |i: usize| -> Result<Pair, ShmError> {
            Ok(if i.is_multiple_of(2) {
                let (to, from) = one_way()?;
                Pair::OneWay(to, from)
            } else {
                let (one, other) = pipe()?;
                Pair::BothWays(one, other)
            })
        };
        Ok(Pipes { pairs: (0..seats.div_ceil(2)).map(pair).collect::<Result<_, _>>()?, handle: Atomic::new(0)? })
    }

    pub fn play(&self, me: &Me) {
        match (&self.pairs[me.seat / 2], me.seat % 2) {
            (Pair::OneWay(to, _), 0) => loop {
                self.send_next(me, |item| to.send(item));
            },
            (Pair::OneWay(_, from), _) => loop {
                Self::receive(me, || from.recv(), me.seat - 1);
            },
            (Pair::BothWays(one, _), 0) => loop {
                let Some(id) = self.send_next(me, |item| Talks::send(one, item)) else { continue };
                // Until it comes back, or whoever had it has died.
                while Self::receive(me, || Talks::recv(one), me.seat + 1).is_some_and(|back| back.id != id) {}
            },
            (Pair::BothWays(_, other), _) => loop {
                let Some(item) = Self::receive(me, || Talks::recv(other), me.seat - 1) else { continue };
                // Who had sent it may be dead.
                self.send_next_for(me, Some(item.id), |item| Talks::send(other, item));
            },
        }
    }

    fn send_next(&self, me: &Me, send: impl Fn(Item) -> Result<(), SendError<Item>>) -> Option<u64> {
        self.send_next_for(me, None, send)
    }

    /// Sends a new item, or one back. None if the other end's process has died.
    fn send_next_for(&self, me: &Me, back: Option<u64>, send: impl Fn(Item) -> Result<(), SendError<Item>>) -> Option<u64> {
        let Some(id) = back.or_else(|| me.page.next_item()) else {
            me.rest();
            return None;
        };
        let state = me.page.item(id);
        if back.is_none() {
            state.fetch_or(PUTTING, Ordering::Relaxed);
        }
        match me.op_quietly(SENDING, || send(Item::new(id, me.seat, &self.handle))) {
            Ok(()) => {
                me.count();
                if back.is_none() {
                    state.fetch_or(PUT, Ordering::Relaxed);
                }
                Some(id)
            }
            // A predecessor is dying.
            Err(e) if e.is_broken_pipe() || e.in_use_by().is_some() => {
                me.rest();
                None
            }
            Err(e) => me.complain(&format!("send: {e}")),
        }
    }

    fn receive(me: &Me, recv: impl Fn() -> Result<Item, RecvError>, from: usize) -> Option<Item> {
        match me.op_quietly(RECEIVING, recv) {
            Ok(item) => {
                me.count();
                never(me, "recv", item.check());
                let last = me.page.last[me.seat][from % SEATS].fetch_max(item.id, Ordering::Relaxed);
                if item.from as usize != from || last >= item.id {
                    me.complain(&format!("item {} of seat {} came after {last} of seat {from}", item.id, item.from));
                }
                let state = me.page.item(item.id);
                // What comes back comes a second time.
                let before = if me.seat % 2 == 1 {
                    state.fetch_or(GOT, Ordering::Relaxed)
                } else {
                    state.fetch_or(GOT << 1, Ordering::Relaxed)
                };
                let twice = if me.seat % 2 == 1 { before & GOT } else { before & GOT << 1 };
                if twice != 0 || before & PUTTING == 0 {
                    me.complain(&format!("item {} came twice, or from nowhere", item.id));
                }
                Some(item)
            }
            Err(RecvError::PeerDied { .. } | RecvError::InUse { .. }) => {
                me.rest();
                None
            }
            Err(e) => me.complain(&format!("recv: {e}")),
        }
    }

    pub fn judge(&self, end: &End<'_>) -> Result<Facts, String> {
        testing::collect().map_err(|e| e.to_string())?;
        for (i, pair) in self.pairs.iter().enumerate() {
            match pair {
                Pair::OneWay(_, from) => drain(end, || from.try_recv(), i * 2, GOT)?,
                Pair::BothWays(one, other) => {
                    drain(end, || Talks::try_recv(other), i * 2, GOT)?;
                    drain(end, || Talks::try_recv(one), i * 2 + 1, GOT << 1)?;
                }
            }
        }
        let (mut vanished, mut unsure) = (0u64, 0u64);
        for id in 1..=end.page.items() {
            let state = end.page.item(id).load(Ordering::Relaxed);
            match (got(state & !(GOT << 1)) > 0, state & PUT != 0, decoded(state)) {
                (true, ..) => {}
                (false, true, 0) => vanished += 1,
                (false, ..) if state & PUTTING != 0 => unsure += 1,
                _ => {}
            }
        }
        let in_recv = end.inside(&[RECEIVING]);
        if vanished > in_recv {
            return Err(format!("{vanished} messages vanished, {in_recv} died in recv; {unsure} may not have been sent"));
        }
        Ok(Facts { operations: end.page.items(), lost: vanished, ..Facts::default() })
    }
}

fn drain(end: &End<'_>, recv: impl Fn() -> Result<Item, RecvError>, from: usize, bit: u32) -> Result<(), String> {
    let mut told = None;
    loop {
        match recv() {
            Ok(item) => {
                told = None;
                item.check()?;
                let before = end.page.item(item.id).fetch_or(bit, Ordering::Relaxed);
                if before & bit != 0 || item.from as usize != from {
                    return Err(format!("item {} is there still though it was received", item.id));
                }
            }
            // Behind a death there may be messages of a successor: until the same one is told again.
            Err(RecvError::PeerDied { pid, .. }) if told != Some(pid) => told = Some(pid),
            Err(e) if e.is_would_block() || e.is_end() => return Ok(()),
            Err(e) => return Err(format!("draining a pipe: {e}")),
        }
    }
}
