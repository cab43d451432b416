//! What is stepped through: one operation of a process that has done it before, so that nothing is done for the first time but where that is what is meant.

use super::stepper;
use multiproc::{Atomic, Connection, Event, Lock, Queue, Raw, Semaphore, Value};
use serde::{Deserialize, Serialize};

/// Bytes as they are: what is stepped through is the queue, not a codec.
pub type End = Connection<Vec<u8>, Vec<u8>, Raw>;

/// An operation, and who waits for it meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Takes a free lock.
    Lock,
    /// Takes a lock that nobody has had yet: its link in the kernel's list is none.
    FirstLock,
    /// Gives a lock back for which another waits.
    Unlock,
    /// Puts into an empty queue at which a getter sleeps.
    Put,
    /// The same, the first message of all: the ring is made.
    FirstPut,
    /// The same, a message that lies in a block.
    PutBlock,
    /// Gets from a full queue at which a putter sleeps.
    Get,
    /// The same, a message that lies in a block.
    GetBlock,
    /// Takes the message of a queue on lease.
    Lease,
    /// Acknowledges the last message of a queue that another joins.
    Ack,
    /// Sends into an empty pipe at which the receiver sleeps.
    Send,
    /// Receives from a full pipe at which the sender sleeps.
    Recv,
    /// Takes the one permit of a semaphore.
    Acquire,
    /// Gives the one permit back for which another waits.
    Release,
    /// Sets an event for which another waits.
    Set,
    /// Stores a value of four words.
    Store,
}

pub const ALL: &[(Op, &str)] = &[
    (Op::Lock, "lock"),
    (Op::FirstLock, "first lock"),
    (Op::Unlock, "unlock, one waits"),
    (Op::Put, "put, a getter sleeps"),
    (Op::FirstPut, "first put, a getter sleeps"),
    (Op::PutBlock, "put of a block, a getter sleeps"),
    (Op::Get, "get, a putter sleeps"),
    (Op::GetBlock, "get of a block, a putter sleeps"),
    (Op::Lease, "lease"),
    (Op::Ack, "acknowledge, one joins"),
    (Op::Send, "send, the receiver sleeps"),
    (Op::Recv, "receive, the sender sleeps"),
    (Op::Acquire, "acquire"),
    (Op::Release, "release, one waits"),
    (Op::Set, "set an event, one waits"),
    (Op::Store, "store a value of 32 bytes"),
];

/// The message that counts.
pub const MESSAGE: u8 = 1;
pub const SMALL: usize = 24;
/// More than lies in a ring.
pub const LARGE: usize = 5_000;

/// As much as a receiver has taken when it tells a sender that sleeps.
pub const QUARTER: usize = 4_000;

const READY: u32 = 1;
const OVER: u32 = 2;

/// All that the operations need.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stage {
    mark: Atomic<u32>,
    pub go: Event,
    pub lock: Lock,
    pub queue: Queue<Vec<u8>, Raw>,
    pub permits: Semaphore,
    pub event: Event,
    pub value: Value<[u64; 4]>,
}

impl Stage {
    pub fn new() -> Result<Stage, Box<dyn std::error::Error>> {
        Ok(Stage {
            mark: Atomic::new(0)?,
            go: Event::new()?,
            lock: Lock::new()?,
            queue: Queue::with_codec(1)?,
            permits: Semaphore::new(1)?,
            event: Event::new()?,
            value: Value::new([1; 4])?,
        })
    }

    pub fn is_ready(&self) -> bool {
        self.mark.get() == READY
    }

    pub fn is_over(&self) -> bool {
        self.mark.get() == OVER
    }

    /// Does `what` step by step, when the other side wants it.
    fn step_through<R>(&self, what: impl FnOnce() -> R) -> R {
        self.mark.set(READY);
        self.go.wait().unwrap();
        stepper::stop_here();
        let done = what();
        self.mark.set(OVER);
        done
    }
}

pub fn message(op: Op) -> Vec<u8> {
    let len = match op {
        Op::PutBlock | Op::GetBlock => LARGE,
        Op::Recv => QUARTER,
        _ => SMALL,
    };
    vec![MESSAGE; len]
}

/// The victim.
pub fn run(op: Op, stage: Stage, end: Option<End>) {
    let queue = &stage.queue;
    match op {
        Op::Lock => {
            drop(stage.lock.lock());
            let _guard = stage.step_through(|| stage.lock.lock());
        }
        Op::FirstLock => {
            let _guard = stage.step_through(|| stage.lock.lock());
        }
        Op::Unlock => {
            drop(stage.lock.lock());
            let guard = stage.lock.lock();
            stage.step_through(|| drop(guard));
        }
        Op::FirstPut => stage.step_through(|| queue.put(message(op))).unwrap(),
        Op::Put | Op::PutBlock => {
            queue.put(message(op)).unwrap();
            queue.get().unwrap();
            let message = message(op);
            stage.step_through(|| queue.put(message)).unwrap();
        }
        Op::Get | Op::GetBlock => {
            queue.put(message(op)).unwrap();
            queue.get().unwrap();
            stage.step_through(|| queue.get()).unwrap();
        }
        Op::Lease => {
            queue.put(message(op)).unwrap();
            queue.lease().unwrap().ack();
            let _lease = stage.step_through(|| queue.lease());
        }
        Op::Ack => {
            queue.put(message(op)).unwrap();
            queue.lease().unwrap().ack();
            queue.put(message(op)).unwrap();
            let lease = queue.lease().unwrap();
            stage.step_through(|| lease.ack());
        }
        Op::Send => {
            let end = end.expect("a pipe");
            end.send(message(op)).unwrap();
            let message = message(op);
            stage.step_through(|| end.send(message)).unwrap();
        }
        Op::Recv => {
            let end = end.expect("a pipe");
            end.recv().unwrap();
            stage.step_through(|| end.recv()).unwrap();
        }
        Op::Acquire => {
            drop(stage.permits.acquire());
            let _permit = stage.step_through(|| stage.permits.acquire());
        }
        Op::Release => {
            drop(stage.permits.acquire());
            let permit = stage.permits.acquire().unwrap();
            stage.step_through(|| drop(permit));
        }
        Op::Set => {
            stage.event.set().unwrap();
            stage.event.clear();
            stage.step_through(|| stage.event.set()).unwrap();
        }
        Op::Store => {
            stage.value.set([1; 4]).unwrap();
            stage.step_through(|| stage.value.set([2; 4])).unwrap();
        }
    }
}
