//! Processes that do one thing at their end, and die in it.

use crate::common_queue::{Form, Msg};
use crate::op::Op;
use crate::stage::{End, bulky, small};
use multiproc::{Queue, Receiver, Sender, testing};

/// What a victim that survived says: crash points passed, and what it got.
pub(crate) type Told = (u64, Option<u64>);

pub(crate) fn victim(end: End, handle: Queue<u64>, (go, survived): (Receiver<()>, Sender<()>), op: Op, k: u64) -> Told {
    // What is not the operation itself comes before it.
    match op {
        Op::SendMore => end.send(bulky(0)).unwrap(),
        _ if op.has_sent() => end.send(small(0)).unwrap(),
        Op::Recv(_) => {
            assert_eq!(end.recv().unwrap().check().unwrap(), 0);
        }
        Op::RecvQuarter => {
            assert_eq!(end.recv().unwrap().check().unwrap(), 2);
        }
        _ => {}
    }
    let form = if let Op::Send(form) = op { form } else { Form::Inline };
    let message = if op == Op::SendMore { bulky(1) } else { Msg::new(1, form, &handle) };
    drop(handle);
    go.get().unwrap();
    testing::arm_step(k);
    let (mut got, mut end) = (None, Some(end));
    match op {
        Op::FirstSend | Op::SendAfterDeath | Op::Send(_) | Op::SendMore => end.as_ref().unwrap().send(message).unwrap(),
        Op::FirstRecv | Op::Recv(_) | Op::RecvQuarter => got = Some(end.as_ref().unwrap().recv().unwrap()),
        Op::Close => end.as_ref().unwrap().close().unwrap(),
        Op::Drop => drop(end.take()),
    }
    let passed = testing::passed();
    testing::disarm();
    drop(end);
    survived.put(()).unwrap();
    (passed, got.map(|m| m.check().unwrap()))
}

/// As [`victim`], all of whose dealings with the end are armed.
pub(crate) fn second_victim(end: End, handle: Queue<u64>, go: Receiver<()>, op: Op, k: u64, id: u64) -> Told {
    let form = if let Op::Send(form) = op { form } else { Form::Inline };
    let message = Msg::new(id, form, &handle);
    drop(handle);
    go.get().unwrap();
    testing::arm_step(k);
    match op {
        Op::Recv(_) => drop(end.recv()),
        _ => drop(end.send(message)),
    }
    let passed = testing::passed();
    testing::disarm();
    (passed, None)
}
