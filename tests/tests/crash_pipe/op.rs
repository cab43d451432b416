//! What a victim dies in, and what goes on around it.

use crate::common_queue::Form;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Op {
    /// Claims the end, makes the ring, sends.
    FirstSend,
    /// Claims the end of one that died, and sends.
    SendAfterDeath,
    Send(Form),
    /// Sends what makes the ring take more memory.
    SendMore,
    /// Claims the end, receives.
    FirstRecv,
    Recv(Form),
    /// Receives what makes the receiver look whether the sender sleeps.
    RecvQuarter,
    Close,
    Drop,
}

impl Op {
    /// Has sent a message already.
    pub(crate) fn has_sent(self) -> bool {
        matches!(self, Op::Send(_) | Op::SendMore | Op::Drop | Op::Close)
    }

    pub(crate) fn claims(self) -> bool {
        matches!(self, Op::FirstSend | Op::SendAfterDeath | Op::FirstRecv)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scene {
    /// Nobody is at the other end, and everything is dropped right after: nothing is left over.
    Abandoned,
    /// At the other end a thread waits for a message.
    Receiver,
    /// At the other end a thread waits for room.
    Sender,
    /// Both.
    Both,
    /// The victim waits itself, for the other end.
    VictimWaits,
}
