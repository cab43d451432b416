//! The others: two helpers that live as long as nothing goes wrong, and the victims, processes that do one thing each.

use crate::common_queue::{LIMIT, Msg, eventually, sleeps_on};
use crate::op::Op;
use multiproc::testing;
use multiproc::{GetError, Process, Queue, Receiver, Sender};
use multiproc_tests::Rest;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    Get(Receiver<Msg>),
    Lease(Receiver<Msg>),
    Put(Sender<Msg>, u64),
    Join(Sender<Msg>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Event {
    Got(u64),
    Put(u64),
    Joined,
    Ended,
    Failed(String),
}

/// A process that does one thing after the other and reports each.
pub(crate) fn helper(me: usize, orders: Receiver<Order>, reports: Sender<(usize, Event)>) {
    for order in &orders {
        let event = match order.unwrap() {
            Order::Get(rx) => got(rx.get()),
            Order::Lease(rx) => got(rx.lease().map(|lease| lease.ack())),
            Order::Put(tx, id) => match tx.put(Msg { id, pad: vec![id as u8; 16], handle: None }) {
                Ok(()) => Event::Put(id),
                Err(e) if e.is_closed() || e.is_disconnected() => Event::Ended,
                Err(e) => Event::Failed(e.to_string()),
            },
            Order::Join(tx) => match tx.join() {
                Ok(()) => Event::Joined,
                Err(e) if e.is_disconnected() => Event::Ended,
                Err(e) => Event::Failed(e.to_string()),
            },
        };
        reports.put((me, event)).unwrap();
    }
}

pub(crate) fn got(got: Result<Msg, GetError>) -> Event {
    match got.map(|m| m.check()) {
        Ok(Ok(id)) => Event::Got(id),
        Ok(Err(why)) => Event::Failed(why),
        Err(e) if e.is_end() => Event::Ended,
        Err(e) => Event::Failed(e.to_string()),
    }
}

/// What a victim that survived says: crash points passed, and what it got.
pub(crate) type Told = (u64, Vec<u64>);

pub(crate) fn victim(q: Queue<Msg>, handle: Queue<u64>, go: Option<Receiver<()>>, op: Op, k: u64, ids: Vec<u64>) -> Told {
    // What is not the operation itself comes before it.
    let mut messages: Vec<Msg> = ids.iter().zip(op.forms()).map(|(id, form)| Msg::new(*id, form, &handle)).collect();
    drop(handle);
    let lease = op.starts_with_lease().then(|| q.lease_timeout(LIMIT).unwrap());
    if op.is_usual() {
        // It has found the ring.
        q.put(Msg { id: 0, pad: Vec::new(), handle: None }).unwrap();
        q.get().unwrap();
    }
    if op == Op::GrowFirst {
        messages[0].pad = vec![ids[0] as u8; 3000];
    }
    if let Some(go) = go {
        go.get().unwrap();
    }
    testing::arm_step(k);
    let mut taken = Vec::new();
    let mut again = None;
    match op {
        Op::PutMany(_) | Op::GrowMany => assert_eq!(q.put_many(messages).unwrap(), 3),
        Op::GetManyReturned => taken = q.get_many(1).unwrap().into_iter().map(Result::unwrap).collect(),
        Op::GetMany(_) | Op::ShrinkMany => taken = q.get_many(3).unwrap().into_iter().map(Result::unwrap).collect(),
        Op::FirstPut | Op::Put(_) | Op::UsualPut | Op::FirstGrow | Op::GrowFirst | Op::Grow(_) => {
            match q.put(messages.pop().unwrap()) {
                Ok(()) => {}
                Err(e) if e.is_closed() => {}
                Err(e) => panic!("{e}"),
            }
        }
        Op::Get(_) | Op::UsualGet | Op::GetReturned(_) | Op::Shrink(_) => taken.push(q.get().unwrap()),
        Op::GetDead(_) => taken.push(q.dead().unwrap().get().unwrap().into_inner()),
        Op::FirstLease(_) | Op::Lease(_) | Op::Retake(_) | Op::ShrinkByLease => again = Some(q.lease().unwrap()),
        Op::Ack(_) => taken.extend(lease.map(|l| l.ack())),
        Op::Requeue(_) => drop(lease),
        Op::Join => q.join().unwrap(),
        Op::Close => q.close().unwrap(),
        Op::DropSender | Op::DropReceiver => unreachable!("they have victims of their own"),
    }
    let passed = testing::passed();
    testing::disarm();
    taken.extend(again.map(|l| l.ack()));
    (passed, taken.iter().map(|m| m.check().unwrap()).collect())
}

pub(crate) fn last_sender(tx: Sender<Msg>, go: Receiver<()>, k: u64) -> Told {
    go.get().unwrap();
    testing::arm_step(k);
    drop(tx);
    let passed = testing::passed();
    testing::disarm();
    (passed, Vec::new())
}

pub(crate) fn last_receiver(rx: Receiver<Msg>, go: Receiver<()>, k: u64) -> Told {
    go.get().unwrap();
    testing::arm_step(k);
    drop(rx);
    let passed = testing::passed();
    testing::disarm();
    (passed, Vec::new())
}

pub(crate) struct Stage {
    pub(crate) helpers: Vec<(Process<()>, Sender<Order>)>,
    pub(crate) reports: Receiver<(usize, Event)>,
    /// What the arena holds while nothing goes on.
    pub(crate) rest: Rest,
}

impl Stage {
    pub(crate) fn new() -> Stage {
        let reports = Queue::bounded(16).unwrap();
        let mut helpers = Vec::new();
        for me in 0..2 {
            let orders = Queue::<Order>::bounded(4).unwrap();
            let args = (me, orders.receiver().unwrap(), reports.sender().unwrap());
            let p = Process::builder().name(format!("helper-{me}")).daemon(true).spawn(args, helper).unwrap();
            assert!(eventually(LIMIT, || sleeps_on(p.pid(), orders.id())));
            helpers.push((p, orders.sender().unwrap()));
        }
        // Their queues have rings from now on.
        let closed = Queue::<Msg>::bounded(1).unwrap();
        closed.close().unwrap();
        let reports = reports.receiver().unwrap();
        for (_, orders) in &helpers {
            orders.put(Order::Get(closed.receiver().unwrap())).unwrap();
            assert_eq!(reports.get_timeout(LIMIT).unwrap().1, Event::Ended);
        }
        drop(closed);
        // An earlier stage may be on its way out: what stands becomes less as it goes.
        let rest = Rest::now();
        Stage { helpers, reports, rest }
    }
}

impl Stage {
    /// After a failure: the helpers may hang.
    pub(crate) fn renewed(self) -> Stage {
        for (p, _) in &self.helpers {
            let _ = p.kill();
            p.wait();
        }
        drop(self);
        Stage::new()
    }
}
