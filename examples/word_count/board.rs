//! What all processes see: how much has been done, where each worker is, and whom chaos wants.
//!
//! Single words, each of which is right at any moment, whoever is killed then. A worker writes its own stage before and
//! after what it says, so that "leased" and "sent" mean that it certainly holds a lease; between them and "idle" it may.
//! Stands on nothing but [`Atomic`].

use std::error::Error;
use std::sync::atomic::Ordering;

use multiproc::Atomic;
use serde::{Deserialize, Serialize};

/// What ends the program.
pub(crate) type Fatal = Box<dyn Error + Send + Sync>;

/// Where a worker is with a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not there yet.
    Starting,
    /// Without one, or just getting or returning it.
    Idle,
    /// It has leased this chunk and sends a result later.
    Leased(u64),
    /// It has sent the result of this chunk and acknowledges the lease later.
    Sent(u64),
}

impl Stage {
    fn to_word(self) -> u64 {
        match self {
            Stage::Starting => 0,
            Stage::Idle => 3,
            Stage::Leased(chunk) => chunk << 2 | 1,
            Stage::Sent(chunk) => chunk << 2 | 2,
        }
    }

    fn from_word(word: u64) -> Stage {
        match word & 3 {
            1 => Stage::Leased(word >> 2),
            2 => Stage::Sent(word >> 2),
            3 => Stage::Idle,
            _ => Stage::Starting,
        }
    }

    /// Whether this is `wanted`, with that chunk or a later one.
    pub(crate) fn meets(self, wanted: Stage) -> bool {
        match (self, wanted) {
            (Stage::Leased(chunk), Stage::Leased(from)) | (Stage::Sent(chunk), Stage::Sent(from)) => chunk >= from,
            _ => false,
        }
    }
}

/// A stage that processes share.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) struct SharedStage(Atomic<u64>);

impl SharedStage {
    /// [`Stage::Starting`] at first.
    ///
    /// # Errors
    /// Shared memory is used up.
    pub(crate) fn new() -> Result<SharedStage, Fatal> {
        Ok(SharedStage(Atomic::new(0)?))
    }

    pub(crate) fn get(&self) -> Stage {
        Stage::from_word(self.0.get())
    }

    pub(crate) fn set(&self, stage: Stage) {
        self.0.set(stage.to_word());
    }
}

/// The words that belong to no worker alone.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) struct Board {
    bytes: Atomic<u64>,
    chunks: Atomic<u64>,
    /// Who comes to this stage stays there, until it is another one.
    pub(crate) hunted: SharedStage,
}

impl Board {
    /// Nothing done, nobody hunted.
    ///
    /// # Errors
    /// Shared memory is used up.
    pub(crate) fn new() -> Result<Board, Fatal> {
        Ok(Board { bytes: Atomic::new(0)?, chunks: Atomic::new(0)?, hunted: SharedStage::new()? })
    }

    /// A worker is done with a chunk of so many bytes.
    pub(crate) fn add(&self, bytes: u64) {
        // Relaxed: nothing is read through these two.
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.chunks.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes and chunks done. For showing: who is killed may have done a little that is not in it, or do it again.
    pub(crate) fn done(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.chunks.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_fit_into_a_word() {
        for stage in [Stage::Starting, Stage::Idle, Stage::Leased(0), Stage::Leased(7), Stage::Sent(0), Stage::Sent(1 << 60)] {
            assert_eq!(Stage::from_word(stage.to_word()), stage);
        }
    }

    #[test]
    fn who_is_hunted() {
        assert!(Stage::Leased(7).meets(Stage::Leased(7)));
        assert!(Stage::Sent(8).meets(Stage::Sent(7)));
        assert!(!Stage::Sent(6).meets(Stage::Sent(7)));
        assert!(!Stage::Sent(8).meets(Stage::Leased(7)));
        assert!(!Stage::Idle.meets(Stage::Idle));
    }

    #[test]
    fn what_workers_do_adds_up() -> Result<(), Fatal> {
        let board = Board::new()?;
        let add = |board: Board, stage: SharedStage| {
            board.add(10);
            stage.set(Stage::Sent(3));
        };
        let stage = SharedStage::new()?;
        for _ in 0..2 {
            multiproc::Process::spawn((board.clone(), stage.clone()), add)?.join()?;
        }
        assert_eq!((board.done(), stage.get(), board.hunted.get()), ((20, 2), Stage::Sent(3), Stage::Starting));
        Ok(())
    }
}
