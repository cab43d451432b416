//! What a victim dies in, and what goes on around it.

use crate::common_queue::Form;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Op {
    FirstPut,
    Put(Form),
    /// By one who has used the queue before, which has no limits of its own: the short way.
    UsualPut,
    UsualGet,
    /// Three messages: see `forms`.
    PutMany(Form),
    Get(Form),
    GetMany(Form),
    FirstLease(Form),
    Lease(Form),
    /// Leases a message that has come back.
    Retake(Form),
    GetReturned(Form),
    GetManyReturned,
    /// Takes a message that was given out in vain as often as the queue allows: once.
    GetDead(Form),
    Ack(Form),
    Requeue(Form),
    /// Waits until everything is finished.
    Join,
    /// The first put into an unbounded queue.
    FirstGrow,
    /// Puts what makes the first segment grow.
    GrowFirst,
    /// Puts across the end of a segment of an unbounded queue, which makes the next one.
    Grow(Form),
    GrowMany,
    /// Takes a message that lies across the end of a segment, which frees it.
    Shrink(Form),
    ShrinkMany,
    ShrinkByLease,
    Close,
    DropSender,
    DropReceiver,
}

impl Op {
    pub(crate) fn form(self) -> Form {
        match self {
            Op::Put(f)
            | Op::PutMany(f)
            | Op::GetMany(f)
            | Op::Get(f)
            | Op::FirstLease(f)
            | Op::Lease(f)
            | Op::Retake(f)
            | Op::GetReturned(f)
            | Op::GetDead(f)
            | Op::Ack(f)
            | Op::Grow(f)
            | Op::Shrink(f)
            | Op::Requeue(f) => f,
            _ => Form::Inline,
        }
    }

    pub(crate) fn puts(self) -> bool {
        matches!(
            self,
            Op::FirstPut
                | Op::Put(_)
                | Op::UsualPut
                | Op::PutMany(_)
                | Op::FirstGrow
                | Op::GrowFirst
                | Op::Grow(_)
                | Op::GrowMany
        )
    }

    pub(crate) fn is_at_edge(self) -> bool {
        matches!(self, Op::Grow(_) | Op::GrowMany | Op::Shrink(_) | Op::ShrinkMany | Op::ShrinkByLease)
    }

    pub(crate) fn is_unbounded(self) -> bool {
        self.is_at_edge() || matches!(self, Op::FirstGrow | Op::GrowFirst)
    }

    pub(crate) fn starts_with_lease(self) -> bool {
        matches!(self, Op::Ack(_) | Op::Requeue(_))
    }

    pub(crate) fn is_usual(self) -> bool {
        matches!(self, Op::UsualPut | Op::UsualGet)
    }

    /// Whether the victim does something before others come to wait.
    pub(crate) fn starts_early(self) -> bool {
        self.starts_with_lease() || self.is_usual()
    }

    /// How many messages may be lost in the hands of who dies in it.
    pub(crate) fn may_lose(self) -> usize {
        match self {
            Op::Get(_) | Op::UsualGet | Op::GetReturned(_) | Op::GetManyReturned | Op::GetDead(_) | Op::Shrink(_) => 1,
            Op::GetMany(_) | Op::ShrinkMany => 3,
            _ => 0,
        }
    }

    /// The forms of what it puts, in order.
    pub(crate) fn forms(self) -> Vec<Form> {
        match self {
            Op::PutMany(form) | Op::GetMany(form) if form == Form::Block => vec![Form::Inline, form, Form::Inline],
            Op::PutMany(form) | Op::GetMany(form) => vec![form, Form::Inline, form],
            Op::GrowMany | Op::ShrinkMany => vec![Form::Inline, Form::Inline, Form::Handle],
            op => vec![op.form()],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scene {
    /// Nobody else is there.
    Alone,
    /// Nobody else is there, and everything is dropped right after: nothing is left over.
    Abandoned,
    /// Two getters sleep on the empty queue.
    Getters,
    /// Two putters sleep on the full queue.
    Putters,
    /// Two others wait until everything is finished.
    Joiners,
    /// The same of a queue that counts attempts.
    CountedJoiners,
    /// As these, and the victim waits as well, before them or behind them.
    VictimLeads,
    VictimFollows,
}
