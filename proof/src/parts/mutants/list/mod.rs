//! The mutants, crate by crate: those of lower crates first, as more is built after them.

mod arena;
mod conditions;
mod locks;
mod lost;
mod messages;
mod pipes;
mod processes;
mod rings;
mod waits;

use super::Mutant;

/// All of them.
pub fn all() -> Vec<&'static Mutant> {
    let of =
        [waits::ALL, locks::ALL, lost::ALL, conditions::ALL, arena::ALL, rings::ALL, messages::ALL, pipes::ALL, processes::ALL];
    of.into_iter().flatten().collect()
}
