//! The parts of the proof, in the order in which they run.

pub mod ageing;
mod fuzz;
mod hostile;
mod late;
mod miri;
mod models;
mod mutants;
pub mod peers;
mod sanitizers;
mod single_step;
mod start;
mod steps;
pub mod storms;
mod timeouts;

pub use hostile::begin_if_asked;

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
pub const ALL: &[Part] = &[
    models::PART,
    steps::PART,
    single_step::PART,
    storms::PART,
    storms::leaks::PART,
    late::PART,
    mutants::PART,
    hostile::PART,
    fuzz::PART,
    miri::PART,
    sanitizers::PART,
    start::PART,
    timeouts::PART,
    ageing::PART,
    peers::PART,
];

/// Tests that fork take turns: a child takes over what its parent has at that moment, and is refused what another test lets go of meanwhile.
#[cfg(test)]
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
