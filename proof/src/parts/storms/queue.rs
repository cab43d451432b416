//! Queues: bounded and unbounded, by `get` and by `lease`, with joiners.

use super::EVENTUALLY;
use super::item::{ACKED, ACKING, GOT, Item, PUT, PUTTING, decoded, got};
use super::page::ITEMS;
use super::scene::{End, Facts, never};
use super::victim::Me;
use multiproc::{Atomic, Lease, Queue, ShmError, testing};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub const OPS: &[&str] = &["put", "get", "lease", "hold a lease", "ack", "join"];
const PUTTING_OP: u32 = 1;
const GETTING: u32 = 2;
const LEASING: u32 = 3;
const HOLDING: u32 = 4;
const ACKNOWLEDGING: u32 = 5;
const JOINING: u32 = 6;

/// Leases that one has at a time.
const MOST_LEASES: usize = 16;
/// Leases of a first attempt that came behind later ones.
const LATE: usize = 0;

/// One queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Queues {
    q: Queue<Item>,
    handle: Atomic<u64>,
    by: By,
    seats: usize,
    /// What the tree had lost before.
    lost_before: u64,
}

/// How messages are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum By {
    Get,
    Lease,
    /// Some so, some so.
    Either,
}

impl Queues {
    pub fn new(name: &str, seats: usize) -> Result<Queues, ShmError> {
        let q = if name.starts_with("unbounded") { Queue::unbounded()? } else { Queue::bounded(64)? };
        let by = match name {
            "get" | "unbounded" => By::Get,
            "mixed" => By::Either,
            _ => By::Lease,
        };
        let lost_before = multiproc::stats().map_or(0, |stats| stats.lost);
        Ok(Queues { q, handle: Atomic::new(0)?, by, seats, lost_before })
    }

    pub fn does(&self, seat: usize, op: u32) -> bool {
        match op {
            PUTTING_OP => seat.is_multiple_of(2),
            JOINING => self.joins(seat),
            GETTING => seat % 2 == 1 && !self.joins(seat) && !self.leases(seat),
            _ => seat % 2 == 1 && !self.joins(seat) && self.leases(seat),
        }
    }

    fn joins(&self, seat: usize) -> bool {
        self.by != By::Get && self.seats >= 8 && seat + 1 == self.seats
    }

    fn leases(&self, seat: usize) -> bool {
        match self.by {
            By::Get => false,
            By::Lease => true,
            By::Either => seat % 4 == 1,
        }
    }

    pub fn play(&self, me: &Me) {
        if me.seat.is_multiple_of(2) {
            self.produce(me)
        }
        if self.joins(me.seat) {
            self.join(me)
        }
        loop {
            if self.leases(me.seat) { self.lease(me) } else { self.get(me) }
        }
    }

    fn produce(&self, me: &Me) -> ! {
        loop {
            // An unbounded queue must not grow for ever: nobody would see the consumers, and each collection looks at every message.
            let Some(id) = (self.q.len() < 1000).then(|| me.page.next_item()).flatten() else {
                me.rest();
                continue;
            };
            let item = Item::new(id, me.seat, &self.handle);
            let state = me.page.item(id);
            state.fetch_or(PUTTING, Ordering::Relaxed);
            never(me, "put", me.op(PUTTING_OP, || self.q.put(item)));
            state.fetch_or(PUT, Ordering::Relaxed);
        }
    }

    fn get(&self, me: &Me) {
        let item = never(me, "get", me.op(GETTING, || self.q.get()));
        never(me, "get", item.check());
        let before = me.page.item(item.id).fetch_or(GOT, Ordering::Relaxed);
        if self.by == By::Get && (got(before) > 0 || decoded(before) > 1) {
            me.complain(&format!("item {} came twice", item.id));
        }
        if before & PUTTING == 0 {
            me.complain(&format!("item {} was never put", item.id));
        }
        if self.by == By::Get {
            self.in_order(me, &item);
        }
    }

    /// Of one producer in the order of their numbers; what comes again comes when it comes.
    fn in_order(&self, me: &Me, item: &Item) {
        let last = me.page.last[me.seat][item.from as usize].fetch_max(item.id, Ordering::Relaxed);
        if last >= item.id && self.by != By::Get {
            // Its holder may have died before it had counted the first attempt.
            me.page.words[LATE].0.fetch_add(1, Ordering::Relaxed);
        } else if last >= item.id {
            me.complain(&format!("item {} of seat {} came after {last}", item.id, item.from));
        }
    }

    fn lease(&self, me: &Me) {
        let mut leases = vec![never(me, "lease", me.op(LEASING, || self.q.lease()))];
        let most = if me.is_aimed_at(ACKNOWLEDGING) { 200 } else { MOST_LEASES };
        while leases.len() < most
            && let Ok(lease) = me.op(LEASING, || self.q.try_lease())
        {
            leases.push(lease);
        }
        me.op_quietly(HOLDING, || {
            leases.iter().for_each(|lease| self.look_at(me, lease));
            me.linger(std::hint::spin_loop);
        });
        me.op(ACKNOWLEDGING, || {
            for lease in leases {
                let id = lease.id;
                me.page.item(id).fetch_or(ACKING, Ordering::Relaxed);
                lease.ack();
                if me.page.item(id).fetch_or(ACKED, Ordering::Relaxed) & ACKED != 0 {
                    me.complain(&format!("item {id} was acknowledged twice"));
                }
            }
        });
    }

    fn look_at(&self, me: &Me, lease: &Lease<Item>) {
        never(me, "lease", lease.check());
        let (id, attempt) = (lease.id, lease.attempt());
        let state = me.page.item(id);
        let before = state.fetch_or(GOT << (attempt - 1).min(7), Ordering::Relaxed);
        if attempt < 8 && before & GOT << (attempt - 1) != 0 {
            me.complain(&format!("attempt {attempt} of item {id} came twice"));
        }
        if before & ACKED != 0 {
            me.complain(&format!("item {id} came again after its acknowledgement"));
        }
        if attempt == 1 {
            self.in_order(me, lease);
        }
        // Unwinding gives it back.
        me.may_panic();
    }

    fn join(&self, me: &Me) -> ! {
        loop {
            match me.op_quietly(JOINING, || self.q.join_timeout(Duration::from_millis(2))) {
                Ok(()) => {}
                Err(e) if e.is_timeout() => {}
                Err(e) => me.complain(&format!("join: {e}")),
            }
            me.may_panic();
        }
    }

    pub fn judge(&self, end: &End<'_>) -> Result<Facts, String> {
        let page = end.page;
        testing::collect().map_err(|e| e.to_string())?;
        loop {
            let item = match self.by {
                By::Get => self.q.try_get(),
                _ => self.q.try_lease().map(|lease| lease.ack()),
            };
            match item {
                Ok(item) => {
                    item.check()?;
                    let before = page.item(item.id).fetch_or(GOT << 7 | ACKED, Ordering::Relaxed);
                    if before & ACKED != 0 || self.by == By::Get && got(before) > 0 {
                        return Err(format!("item {} is there still though it was taken", item.id));
                    }
                }
                Err(e) if e.is_empty() => break,
                Err(e) => return Err(format!("draining: {e}")),
            }
        }
        if (self.q.len(), self.q.leased(), self.q.unfinished()) != (0, 0, 0) {
            return Err(format!("after all was taken: {:?}", self.q));
        }
        self.q.join_timeout(EVENTUALLY).map_err(|e| format!("join of an empty queue: {e}"))?;
        let lost = u64::from(self.q.take_losses());
        let counted = multiproc::stats().map_err(|e| e.to_string())?.lost - self.lost_before;
        // The keeper counts, lets go of its lock, and then tells.
        let told = || page.told.0.load(Ordering::Relaxed);
        let limit = Instant::now() + EVENTUALLY;
        while told() < lost && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(1));
        }
        let told = told();
        if lost != counted || lost != told {
            return Err(format!("take_losses says {lost}, the tree's statistics {counted}, the events {told}"));
        }
        let (mut vanished, mut unsure, mut again) = (0u64, 0u64, 0u64);
        for id in 1..=page.items().min(ITEMS) {
            let state = page.item(id).load(Ordering::Relaxed);
            if state & PUTTING == 0 {
                continue;
            }
            again += u64::from(got(state).saturating_sub(1));
            let arrived = match self.by {
                By::Get => got(state) > 0,
                By::Lease => state & (ACKING | ACKED) != 0,
                By::Either => state & (ACKING | ACKED) != 0 || got(state) > 0,
            };
            match (arrived, state & PUT != 0, decoded(state)) {
                (true, ..) => {}
                // Committed, and nobody has seen a byte of it.
                (false, true, 0) => vanished += 1,
                // Its producer died in the put, or its getter when it had it all but returned.
                _ => unsure += 1,
            }
        }
        let late = page.words[LATE].0.load(Ordering::Relaxed);
        if late > end.inside(&[LEASING, GETTING]) {
            return Err(format!("{late} leases came out of order"));
        }
        let in_get = end.inside(&[GETTING]);
        if self.by == By::Lease && (lost > 0 || vanished > 0) {
            return Err(format!("{vanished} leased messages vanished, {lost} were reported lost"));
        }
        if lost > in_get || vanished > lost || lost > vanished + unsure && self.by == By::Get {
            return Err(format!("{vanished} vanished and {unsure} may have, {lost} reported lost, {in_get} died in get"));
        }
        Ok(Facts { operations: page.items(), lost, redelivered: again, reported: 0 })
    }
}
