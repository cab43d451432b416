//! The parts of the proof, in the order in which they run.

mod models;
pub mod storms;

use crate::plan::Plan;
use crate::tally::Tally;

/// One promise, and how it is tried.
pub struct Part {
    /// As it is asked for on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub what: &'static str,
    /// Does it.
    pub run: fn(&Plan) -> Tally,
}

/// All of them.
pub const ALL: &[Part] = &[models::PART, storms::PART, storms::leaks::PART];
