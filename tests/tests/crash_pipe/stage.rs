//! The other end: a process that lives as long as nothing goes wrong.

use crate::common_queue::{LIMIT, Msg, eventually, sleeps_on};
use multiproc::{Connection, PipeBuilder, Process, Queue, Receiver, RecvError, SendError, Sender};
use multiproc_tests::Rest;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What sleepers get to do what only the kernel can help them with.
pub(crate) const PROCEED: Duration = Duration::from_secs(5);

pub(crate) type End = Connection<Msg, Msg>;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Receives until nothing more comes.
    Recv(End),
    /// Sends one message with this number; sends on until the pipe is broken.
    Send(End, u64),
    /// Both, in two threads of one process.
    Both(End, u64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Event {
    Got(u64),
    /// The number that was sent last.
    Sent(u64),
    Eof,
    Died(u32),
    Broken(Option<u32>),
    Failed(String),
}

/// A process that sits at the other end, and reports each thing that happens to it.
pub(crate) fn helper(orders: Receiver<Order>, reports: Sender<Event>) {
    for order in &orders {
        match order.unwrap() {
            Order::Recv(end) => receive_all(&end, &reports),
            Order::Send(end, id) => send_all(&end, id, &reports),
            Order::Both(end, id) => {
                let other = (end.clone(), reports.clone());
                let sends = std::thread::spawn(move || send_all(&other.0, id, &other.1));
                receive_all(&end, &reports);
                sends.join().unwrap();
            }
        }
    }
}

pub(crate) fn receive_all(end: &End, reports: &Sender<Event>) {
    loop {
        let event = match end.recv().map(|m| m.check()) {
            Ok(Ok(id)) => Event::Got(id),
            Ok(Err(why)) => Event::Failed(why),
            Err(RecvError::Eof) => Event::Eof,
            Err(RecvError::PeerDied { pid, .. }) => Event::Died(pid),
            Err(e) => Event::Failed(e.to_string()),
        };
        let over = !matches!(event, Event::Got(_));
        reports.put(event).unwrap();
        if over {
            return;
        }
    }
}

pub(crate) fn send_all(end: &End, first: u64, reports: &Sender<Event>) {
    for id in first.. {
        let event = match end.send(small(id)) {
            Ok(()) => Event::Sent(id),
            Err(e) => broken(&e),
        };
        let over = !matches!(event, Event::Sent(_));
        reports.put(event).unwrap();
        if over {
            return;
        }
    }
}

pub(crate) fn broken<T>(e: &SendError<T>) -> Event {
    if e.is_broken_pipe() { Event::Broken(e.peer_died()) } else { Event::Failed(e.to_string()) }
}

pub(crate) fn small(id: u64) -> Msg {
    Msg { id, pad: vec![id as u8; 16], handle: None }
}

/// Of these a ring of 16 KiB is soon full.
pub(crate) fn bulky(id: u64) -> Msg {
    Msg { id, pad: vec![id as u8; 3000], handle: None }
}

pub(crate) struct Stage {
    pub(crate) helper: Process<()>,
    pub(crate) orders: Sender<Order>,
    pub(crate) reports: Receiver<Event>,
    /// What the arena holds while nothing goes on.
    pub(crate) rest: Rest,
}

impl Stage {
    pub(crate) fn new() -> Stage {
        let (orders, reports) = (Queue::<Order>::bounded(4).unwrap(), Queue::bounded(64).unwrap());
        let args = (orders.receiver().unwrap(), reports.sender().unwrap());
        let p = Process::builder().name("helper").daemon(true).spawn(args, helper).unwrap();
        // The queues have their rings from now on.
        let (a, b) = PipeBuilder::new().pipe().unwrap();
        orders.put(Order::Recv(a)).unwrap();
        drop(b);
        assert_eq!(reports.get_timeout(LIMIT).unwrap(), Event::Eof);
        assert!(eventually(LIMIT, || sleeps_on(p.pid(), orders.id())));
        // An earlier stage may be on its way out: what stands becomes less as it goes.
        let rest = Rest::now();
        Stage { helper: p, orders: orders.sender().unwrap(), reports: reports.receiver().unwrap(), rest }
    }

    /// After a failure: the helper may hang.
    pub(crate) fn renewed(self) -> Stage {
        let _ = self.helper.kill();
        self.helper.wait();
        drop(self);
        Stage::new()
    }

    pub(crate) fn hear(&self, what: &str) -> Result<Event, String> {
        self.reports.get_timeout(PROCEED).map_err(|_| format!("the other end hears nothing of {what}"))
    }
}

pub(crate) fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}
