//! What a worker does: lease a block, hash it, send its digest, acknowledge.
//!
//! In this order, so that a block is hashed whenever its worker is killed: before the acknowledgement the queue delivers it again, to another worker.
//! Then its digest may come twice, and the coordinator counts it once. On its [`Desk`] a worker writes what it holds, for all to see.

use crate::work::{self, Digest};
use multiproc::{Atomic, Receiver, Sender, ShmError};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a worker sends.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Answer {
    pub(crate) block: u64,
    /// The how-manieth delivery of the block this is about; the first is 1.
    pub(crate) attempt: u32,
    pub(crate) digest: Digest,
}

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its process is not there yet.
    Starting,
    /// It holds nothing.
    Waiting,
    /// It holds a lease of this block.
    Hashing(u64),
    /// It holds a lease of this block, and has sent its digest.
    Sent(u64),
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Starting => f.write_str("starting    nothing yet"),
            Stage::Waiting => f.write_str("waiting     nothing"),
            Stage::Hashing(block) => write!(f, "hashing     lease of block {block}"),
            Stage::Sent(block) => write!(f, "has sent    lease of block {block}"),
        }
    }
}

/// A word that a worker writes and the coordinator reads.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) struct Desk(Atomic<u64>);

impl Desk {
    /// Of a worker that is starting.
    pub(crate) fn new() -> Result<Desk, ShmError> {
        Ok(Desk(Atomic::new(0)?))
    }

    pub(crate) fn set(&self, stage: Stage) {
        self.0.set(match stage {
            Stage::Starting => 0,
            Stage::Waiting => 1,
            Stage::Hashing(block) => block << 2 | 2,
            Stage::Sent(block) => block << 2 | 3,
        });
    }

    pub(crate) fn get(&self) -> Stage {
        let word = self.0.get();
        match word & 3 {
            0 => Stage::Starting,
            1 => Stage::Waiting,
            2 => Stage::Hashing(word >> 2),
            _ => Stage::Sent(word >> 2),
        }
    }
}

/// Hashes blocks until there will be no more.
///
/// # Panics
/// When shared memory is used up.
pub(crate) fn work(blocks: Receiver<u64>, answers: Sender<Answer>, desk: Desk, kib: u32) {
    desk.set(Stage::Waiting);
    for lease in std::iter::from_fn(|| blocks.lease().ok()) {
        let (block, attempt) = (*lease, lease.attempt());
        desk.set(Stage::Hashing(block));
        let digest = work::digest(block, kib);
        answers.put(Answer { block, attempt, digest }).expect("the coordinator reads the answers");
        desk.set(Stage::Sent(block));
        lease.ack();
        desk.set(Stage::Waiting);
    }
}
