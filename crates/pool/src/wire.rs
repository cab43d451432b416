//! What goes between a pool and its workers: a head of fixed size, then values that only the two ends of a task know the types of.
//!
//! All queues of a pool carry [`Packet`], which has no values: what is put is one of the forms below, what is got stays sealed until
//! its head says what it is.

use bytemuck::{Pod, Zeroable};
use multiproc_channel::{Bincode, Buffer, Codec, CodecError, EncodeRef, Message, Receiver, Sender};
use multiproc_shm::scope::{self, References};

/// What the queues carry, by name; never made.
#[derive(Debug)]
pub(crate) enum Packet {}

/// The codec of [`Packet`].
#[derive(Debug)]
pub(crate) enum Wire {}

pub(crate) type Outbox = Sender<Packet, Wire>;
pub(crate) type Inbox = Receiver<Packet, Wire>;

/// The id of a task in its pool: which entry of the table, and the how-manieth use of it. Never 0.
pub(crate) type TaskId = u64;

/// Set in an id on a worker's desk while the task runs; no id has it.
pub(crate) const RUNNING: u64 = 1 << 63;

/// Set in an id on a worker's desk for a task that this worker has submitted itself and taken back: no id of its pool has it.
pub(crate) const OWN: u64 = 1 << 61;

/// In front of a task's arguments.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct TaskHead {
    pub(crate) id: TaskId,
    /// Offsets of code in the program's file: of the generic part, and of the user's function.
    pub(crate) run: u64,
    pub(crate) function: u64,
    /// Of both.
    pub(crate) seal: u64,
    /// What else the function is given, kept by the worker from task to task; 0 for nothing.
    pub(crate) context: u64,
    /// How often it was started before, and has failed.
    pub(crate) tries: u64,
    /// The coordinator's `tracing` span that its events belong to; 0 for none.
    pub(crate) span: u64,
}

/// What a worker tells its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Tell {
    /// What was never written.
    Nothing = 0,
    /// It has begun, and its initializer is done.
    Ready = 1,
    /// A task's value.
    Value = 2,
    /// A task panicked: message, place and backtrace.
    Panicked = 3,
    /// A task's arguments did not decode: why.
    Unreadable = 4,
    /// A task's value could not be encoded: why.
    Unsendable = 5,
    /// May it run this task, which was given out before or may have been cancelled?
    Ask = 6,
    /// It lacks this context.
    Context = 7,
    /// A process that will submit tasks: where it is told their outcomes.
    Client = 8,
    /// A task that a client submits.
    Submit = 9,
    /// A client's task shall stop.
    Stop = 10,
    /// A worker waits for a task, and can run nothing meanwhile.
    Blocked = 11,
    /// It does not any more.
    Unblocked = 12,
    /// To a client: its task has ended without a value.
    Failed = 13,
    /// A client would rather run its task itself than wait for it.
    Claim = 14,
    /// To a client: whether it may.
    Claimed = 15,
    /// To a client that waits to hear it: its task has been taken.
    Taken = 16,
    /// The pool to itself: a claim is to be decided.
    Decide = 17,
}

impl Tell {
    const ALL: [Tell; Tell::Decide as usize + 1] = {
        use Tell::*;
        [
            Nothing, Ready, Value, Panicked, Unreadable, Unsendable, Ask, Context, Client, Submit, Stop, Blocked, Unblocked,
            Failed, Claim, Claimed, Taken, Decide,
        ]
    };

    /// How a task has ended that this tells of.
    #[cfg(feature = "trace")]
    pub(crate) fn outcome(self) -> Option<&'static str> {
        match self {
            Tell::Value => Some("value"),
            Tell::Panicked => Some("panic"),
            Tell::Unreadable => Some("arguments do not decode"),
            Tell::Unsendable => Some("value does not encode"),
            _ => None,
        }
    }

    fn from_word(word: u32) -> Option<Tell> {
        Tell::ALL.get(word as usize).copied()
    }
}

/// In front of what a worker tells.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct TellHead {
    pub(crate) id: TaskId,
    /// Who tells it.
    pub(crate) worker: u32,
    tell: u32,
    /// For a task that has ended: how long it ran, in nanoseconds. For a question: how often it was started before.
    pub(crate) number: u64,
    /// For a task that has ended: when it was started, on the monotonic clock.
    pub(crate) since: u64,
}

impl TellHead {
    pub(crate) fn new(tell: Tell, worker: u32, id: TaskId, number: u64) -> TellHead {
        TellHead { id, worker, tell: tell as u32, number, since: 0 }
    }

    pub(crate) fn since(self, since: u64) -> TellHead {
        TellHead { since, ..self }
    }

    pub(crate) fn tell(&self) -> Option<Tell> {
        Tell::from_word(self.tell)
    }
}

/// In front of the arguments of a task that a client submits; between them lies what was asked for it, an encoded [`Asked`](crate::asked::Asked).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct SubmitHead {
    /// From which client, and the id that it gives the task.
    pub(crate) tell: TellHead,
    pub(crate) task: AskedHead,
}

/// What a client submits.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct AskedHead {
    pub(crate) task: TaskHead,
    /// Bytes of what was asked; 0 for nothing.
    pub(crate) asked: u64,
}

/// What stands before the values of a message.
pub(crate) trait Head {
    fn append(&self, into: &mut Buffer) -> Result<(), CodecError>;
}

impl<H: Pod> Head for H {
    fn append(&self, into: &mut Buffer) -> Result<(), CodecError> {
        into.append(bytemuck::bytes_of(self))
    }
}

/// A head with what was asked.
#[derive(Debug)]
pub(crate) struct Submitted<'a>(SubmitHead, &'a [u8]);

impl<'a> Submitted<'a> {
    pub(crate) fn new(tell: TellHead, task: TaskHead, asked: &'a [u8]) -> Submitted<'a> {
        Submitted(SubmitHead { tell, task: AskedHead { task, asked: asked.len() as u64 } }, asked)
    }
}

impl Head for Submitted<'_> {
    fn append(&self, into: &mut Buffer) -> Result<(), CodecError> {
        self.0.append(into)?;
        into.append(self.1)
    }
}

/// What a pool answers a worker that has asked, in front of what it gives.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct AnswerHead {
    /// The task or the context that was asked for.
    pub(crate) id: u64,
    pub(crate) yes: u64,
}

/// Splits off the head of a message.
pub(crate) fn split<H: Pod>(bytes: &[u8]) -> Option<(H, &[u8])> {
    let (head, rest) = bytes.split_at_checked(size_of::<H>())?;
    Some((bytemuck::pod_read_unaligned(head), rest))
}

/// A head and a value.
#[derive(Debug)]
pub(crate) struct Out<'a, H, T>(pub(crate) H, pub(crate) &'a T);

/// A head and what was encoded before, with its references.
#[derive(Debug)]
pub(crate) struct Again<'a, H>(pub(crate) H, pub(crate) &'a [u8], pub(crate) &'a References);

impl Codec<Packet> for Wire {
    fn encode(value: &Packet, _: &mut Buffer) -> Result<(), CodecError> {
        match *value {}
    }

    fn decode(_: &[u8]) -> Result<Packet, CodecError> {
        Err(CodecError::decode("a message of a pool is opened by its head"))
    }
}

impl<H: Head, T: Message> EncodeRef<Out<'_, H, T>, Packet> for Wire {
    fn encode_ref(Out(head, value): &Out<'_, H, T>, into: &mut Buffer) -> Result<(), CodecError> {
        head.append(into)?;
        Bincode::encode(*value, into)
    }
}

impl<H: Head> EncodeRef<Again<'_, H>, Packet> for Wire {
    fn encode_ref(Again(head, bytes, references): &Again<'_, H>, into: &mut Buffer) -> Result<(), CodecError> {
        scope::pass_on(references).map_err(CodecError::encode)?;
        head.append(into)?;
        into.append(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back() {
        assert!(Tell::ALL.into_iter().all(|tell| TellHead::new(tell, 1, 2, 3).tell() == Some(tell)));
        assert_eq!(Tell::from_word(u32::MAX), None);
    }
}
