//! How long a bench runs: in full, quick, or one tiny round.

use std::{env, time::Duration};

/// The length of a run, chosen by `--bench` and `QUICK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// `cargo bench`.
    Full,
    /// `QUICK=1 cargo bench`: about a tenth.
    Quick,
    /// Not started by `cargo bench`: only shows that the bench works.
    Tiny,
}

impl Effort {
    /// Reads the arguments (only `--bench` means something) and `QUICK`.
    pub fn from_env() -> Effort {
        if !env::args().any(|a| a == "--bench") {
            Effort::Tiny
        } else if env::var_os("QUICK").is_some_and(|v| v == "1") {
            Effort::Quick
        } else {
            Effort::Full
        }
    }

    /// Rounds to make when a full run makes `full`; a median wants a few.
    pub fn rounds(self, full: usize) -> usize {
        match self {
            Effort::Full => full,
            Effort::Quick => (full / 10).max(5),
            Effort::Tiny => 1,
        }
    }

    /// Repetitions within a round.
    pub fn count(self, full: u64) -> u64 {
        match self {
            Effort::Full => full,
            Effort::Quick => full / 10,
            Effort::Tiny => full / 100,
        }
    }

    /// Time to watch something.
    pub fn time(self, full: Duration) -> Duration {
        match self {
            Effort::Full => full,
            Effort::Quick => full / 10,
            Effort::Tiny => full / 100,
        }
    }
}
