//! Counts the words of files with worker processes, exactly, also while they are being killed.
//!
//! ```text
//! cargo run --release --example word_count -- PATH... [--workers N] [--top K] [--json] [--chaos N]
//! ```
//!
//! The coordinator cuts files into chunks and puts them into a queue; workers lease them, count, send the results through
//! another queue, and acknowledge. A chunk whose worker dies is delivered again, and results carry their chunk's
//! number, so that each chunk counts once. In reading order:
//!
//! - [`cli`]: the arguments; [`walk`]: paths to files; [`chunk`]: files to chunks; [`count`]: chunks to words;
//! - [`board`]: what all processes see; [`worker`]: what a worker does; [`crew`]: all of them;
//! - [`report`]: the sum; [`progress`]: how far it is; [`chaos`]: who is killed; [`coordinator`]: who gives out work.

mod board;
mod chaos;
mod chunk;
mod cli;
mod coordinator;
mod count;
mod crew;
mod progress;
mod report;
mod walk;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::coordinator::{Outcome, Task};

/// Something could not be counted or written.
const INCOMPLETE: u8 = 2;

fn main() -> ExitCode {
    let args = cli::Args::parse();
    let walk = walk::walk(&args.paths);
    let Outcome { totals, chaos, complete } = match Task::new(&walk).count(&args, walk.bytes()) {
        Ok(outcome) => outcome,
        Err(e) => {
            eprintln!("word_count: {e}");
            return ExitCode::from(INCOMPLETE);
        }
    };
    let chaos = (args.chaos > 0).then_some(&chaos);
    if let Some(chaos) = chaos {
        eprintln!("{chaos}");
    }
    let written = report::to_stdout(|out| match args.json {
        true => report::write_json(out, &totals, args.top, chaos),
        false => report::write_text(out, &totals, args.top),
    });
    if let Err(e) = &written {
        eprintln!("word_count: stdout: {e}");
    }
    if written.is_ok() && complete { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) }
}
