//! The examples of multiproc, and what several of them use: where a pool runs ([`Place`]), and a parser with bugs ([`fragile`]).

pub mod fragile;

use multiproc::PoolBuilder;
use std::error::Error;

/// Where the pool of an example runs its calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// In worker processes.
    #[default]
    Processes,
    /// In threads.
    Threads,
    /// In the caller, one after the other.
    Inline,
}

impl Place {
    /// Has the pool run there.
    pub fn of(self, builder: PoolBuilder) -> PoolBuilder {
        match self {
            Place::Processes => builder,
            Place::Threads => builder.threads(),
            Place::Inline => builder.inline(),
        }
    }
}

/// The command line: `--on processes|threads|inline`, which may be left out, and the other arguments.
///
/// # Errors
/// There is no such place.
pub fn place_and_arguments() -> Result<(Place, Vec<String>), Box<dyn Error>> {
    let mut rest: Vec<String> = std::env::args().skip(1).collect();
    let Some(at) = rest.iter().position(|argument| argument == "--on") else { return Ok((Place::default(), rest)) };
    let place = match rest.get(at + 1).map(String::as_str) {
        Some("processes") => Place::Processes,
        Some("threads") => Place::Threads,
        Some("inline") => Place::Inline,
        other => return Err(format!("--on processes, threads or inline, not {}", other.unwrap_or("nothing")).into()),
    };
    rest.drain(at..at + 2);
    Ok((place, rest))
}
