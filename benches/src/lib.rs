//! What the benches share: the harness that prints a table against bars, and every baseline.
//!
//! `cargo bench -p multiproc-benches` measures our rows and their baselines in the same run, in
//! interleaved rounds, and prints medians. The ratio decides, for it survives a slow or loaded
//! machine; absolute figures are reported with the state of the machine beside them.
//!
//! | environment | effect |
//! |---|---|
//! | `QUICK=1` | about ten times shorter |
//! | `MULTIPROC_BENCH_GATE=1` | exit status 1 when a bar is missed (use with `--no-fail-fast`) |
//!
//! Without cargo's `--bench` argument (`cargo test --benches`, or the binary started by hand) a
//! bench makes one tiny round, enough to see that it works. On a machine without `python3` the
//! Python rows are skipped with a message.
//!
//! Our own rows are functions in `benches/ours/NAME.rs`, one file for each bench, which the bench
//! adds with `.subject(row::OURS, ..)`; a row without them misses its bars.
//!
//! In reading order: [`effort`] how long to run; [`row`] rounds, medians, bars; [`machine`] load,
//! cpus; [`windows`] messages per second; [`segment`] shared memory; [`futex`] and [`ring`] the bare ring;
//! [`worker`] child processes that are this same binary; [`baseline`] what we compare with;
//! [`proc_stats`] what the kernel says about a process.

pub mod baseline;
pub mod effort;
pub mod futex;
pub mod machine;
pub mod proc_stats;
pub mod ring;
pub mod row;
pub mod segment;
pub mod windows;
pub mod worker;

use serde::{Deserialize, Serialize};

/// The message of the queue rows: 64 bytes in eight fields.
///
/// The words are large, so that a format with variable-length integers has no easy day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Number of the message, then filling.
    pub words: [u64; 8],
}

impl Message {
    /// The message with this number.
    pub fn numbered(n: u64) -> Message {
        const FILLING: u64 = 0x0123_4567_89ab_cdef;
        let mut words = [FILLING; 8];
        words[0] ^= n;
        Message { words }
    }
}
