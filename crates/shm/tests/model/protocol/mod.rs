//! Protocol T in steps: what one process does between two looks of another. Steps are named after the crash points of the shipping code, or
//! after its function where there is none; [`sequence`] is the protocol, and a mutant is a sequence in another order.
//!
//! A reference in a record to a channel is that of a sender. Locks of putters are left out (a commit is one step), those of getters are in: a
//! dead getter's is free again, and the message is still there. The model is sequentially consistent: the fences between a mover and
//! the collector are tried by loom, in `tests/moves.rs`.

mod collection;
mod play;

pub(crate) const MAX: usize = 4;
const RING: usize = 4;
/// Bits by object.
type Set = u8;

fn bit(x: u8) -> Set {
    1 << x
}

/// What is left out in a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Dead slots are cleaned only between collections.
    CleanBetween,
    /// A moved reference's object is stamped.
    Stamp,
    /// The stamp comes before the old reference is removed.
    StampBeforeRemoval,
    /// The stamp only grows.
    FetchMax,
    /// Stamped objects are roots.
    StampedAreRoots,
    /// The stamps are looked at until a pass adds nothing.
    StampsUntilNothing,
    /// What is being made is stamped before it lives.
    StampWhenMade,
    /// Hold bits are set before the head's commit.
    HoldBeforeCommit,
    /// `received` is raised after the head's commit.
    ReceivedAfterCommit,
    /// `sent` is raised before the tail's commit.
    SentBeforeCommit,
}

/// What a process does, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    /// Puts a handle to `.1` into the queue `.0` and keeps its own.
    Put(u8, u8),
    /// The same, and drops its own.
    Move(u8, u8),
    /// Gets from the queue, if there is something.
    Get(u8),
    /// Writes a handle to `.1` into the arguments of process `.0` and drops its own.
    Give(u8, u8),
    /// Takes a handle from its arguments, if there is one.
    Receive,
    /// Drops all handles to the object.
    Drop(u8),
    /// Makes the object, if there is none at its place.
    Make(u8),
    Collect,
    /// Cleans dead slots without the collector's lock: does nothing unless the rule against it is left out.
    CleanAnyTime,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Announce,
    CommitTail,
    Look,
    Stamp,
    Take,
    Hold,
    SenderBit,
    CommitHead,
    Unlock,
    Arrived,
    StoreArgs,
    ReadArgs,
    FreeArgs,
    RoleCleared,
    RoleTold,
    LetGo,
    Fill,
    Live,
    Lock,
    Clean,
    Activate,
    Roots,
    Follow,
    Stamped,
    Sweep,
    Done,
}

/// The protocol: crates/channel/src/ring/put.rs, get.rs, crates/shm/src/held.rs, arena.rs, collect.rs.
fn sequence(op: Op, without: Option<Rule>) -> Vec<Act> {
    use Act::*;
    let mut acts = match (op, without) {
        (Op::Put(..), Some(Rule::SentBeforeCommit)) => vec![CommitTail, Announce, Look, Stamp],
        (Op::Put(..), _) => vec![Announce, CommitTail, Look, Stamp],
        (Op::Move(..), Some(Rule::StampBeforeRemoval)) => vec![Announce, CommitTail, RoleCleared, RoleTold, LetGo, Look, Stamp],
        (Op::Move(..), Some(Rule::SentBeforeCommit)) => vec![CommitTail, Announce, Look, Stamp, RoleCleared, RoleTold, LetGo],
        (Op::Move(..), _) => vec![Announce, CommitTail, Look, Stamp, RoleCleared, RoleTold, LetGo],
        (Op::Get(_), Some(Rule::StampBeforeRemoval)) => vec![Take, Hold, SenderBit, CommitHead, Unlock, Look, Stamp, Arrived],
        (Op::Get(_), Some(Rule::HoldBeforeCommit)) => vec![Take, CommitHead, Unlock, Hold, SenderBit, Look, Stamp, Arrived],
        (Op::Get(_), Some(Rule::ReceivedAfterCommit)) => vec![Take, Hold, SenderBit, Look, Stamp, Arrived, CommitHead, Unlock],
        (Op::Get(_), _) => vec![Take, Hold, SenderBit, Look, Stamp, CommitHead, Unlock, Arrived],
        (Op::Give(..), Some(Rule::SentBeforeCommit)) => vec![StoreArgs, Announce, Look, Stamp, RoleCleared, RoleTold, LetGo],
        (Op::Give(..), _) => vec![Announce, StoreArgs, Look, Stamp, RoleCleared, RoleTold, LetGo],
        (Op::Receive, _) => vec![ReadArgs, Hold, SenderBit, Look, Stamp, FreeArgs, Arrived],
        (Op::Drop(_), _) => vec![RoleCleared, RoleTold, LetGo],
        (Op::Make(_), Some(Rule::StampWhenMade)) => vec![Fill, Hold, SenderBit, Live],
        (Op::Make(_), _) => vec![Fill, Hold, SenderBit, Look, Stamp, Live],
        (Op::Collect, _) => vec![Lock, Clean, Activate, Roots, Follow, Stamped, Sweep, Done],
        (Op::CleanAnyTime, Some(Rule::CleanBetween)) => vec![Clean],
        (Op::CleanAnyTime, _) => vec![],
    };
    if without == Some(Rule::Stamp) {
        acts.retain(|act| !matches!(act, Look | Stamp));
    }
    acts
}

/// Who there is, what they have at the start, and what they do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) scripts: Vec<Vec<Op>>,
    /// Hold bits at the start.
    pub(crate) holds: Vec<Set>,
    /// Sender bits at the start.
    pub(crate) senders: Vec<Set>,
    /// `(queue, object)`: records at the start.
    pub(crate) records: Vec<(u8, u8)>,
    /// Objects at the start.
    pub(crate) objects: Set,
    /// Objects that are channels whose ends matter.
    pub(crate) channels: Set,
    /// Each object's bits lie in words of their own, so that they are not read at once.
    pub(crate) words: bool,
    /// Processes that may die.
    pub(crate) mortal: Set,
    /// How many may.
    pub(crate) deaths: u8,
}

/// A scene under rules.
pub(crate) struct Play<'a> {
    scene: &'a Scene,
    without: Option<Rule>,
    acts: Vec<Vec<Vec<Act>>>,
}

/// `nobody_has`, half way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Asking {
    step: u8,
    received: u8,
    sent: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Process {
    dead: bool,
    /// A dead one's slot has been cleaned.
    free: bool,
    op: u8,
    act: u8,
    /// The object that the operation is about.
    x: u8,
    /// The epoch that it saw.
    seen: u8,
    asking: Asking,
}

/// A collection half way: the private memory of who runs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Marks {
    reached: Set,
    senders: Set,
    work: Set,
    /// What a pass over the stamps has found.
    later: Set,
    /// Part of the roster, or object, that is looked at.
    at: u8,
    /// Queue whose records are read.
    q: u8,
    from: u8,
    to: u8,
    in_ring: bool,
    found: bool,
    /// The object to be ended or closed.
    ending: Option<(u8, bool)>,
    asking: Asking,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    live: Set,
    filling: [u8; MAX],
    hold: [Set; MAX],
    sender: [Set; MAX],
    /// References in the block of arguments that a slot names.
    args: [Set; MAX],
    stamp: [u8; MAX],
    sent: [u8; MAX],
    received: [u8; MAX],
    /// Nobody is left who could send.
    ended: Set,
    ring: [[u8; RING]; MAX],
    /// Records got and put since the start.
    head: [u8; MAX],
    tail: [u8; MAX],
    clock: [u8; MAX],
    epoch: u8,
    active: u8,
    collector: u8,
    marks: Marks,
    process: [Process; MAX],
    deaths: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) process: u8,
    pub(crate) dies: bool,
}

/// Whether the act goes on, is over, or the whole operation is.
enum After {
    Again,
    Next,
    Over,
}
