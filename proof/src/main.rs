//! The proof of crash safety, in one command: `cargo run --release -p multiproc-proof -- [--long] [PART...]`.
//!
//! Each part tries to break one promise of docs/RELIABILITY.md and prints what it did in figures. The short form is what CI runs; the long one takes as long as it
//! takes. Every choice comes from a seed that is printed, and `--seed` repeats a run.

mod interrupt;
mod machine;
mod parts;
mod plan;
mod tally;
mod tests;

use clap::Parser;
use plan::Plan;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
#[command(about = "Tries to break what multiproc promises, and prints what came of it.")]
struct Arguments {
    /// What to run; all when none is given.
    parts: Vec<String>,
    /// The long form: hundreds of thousands of deaths.
    #[arg(long)]
    long: bool,
    /// Repeats the choices of an earlier run.
    #[arg(long)]
    seed: Option<u64>,
    /// Plays one storm, in the process that is its coordinator.
    #[arg(long, hide = true)]
    storm: Option<String>,
    /// Names the parts.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    parts::peers::ours::run_if_asked();
    parts::ageing::run_if_asked();
    parts::begin_if_asked();
    let arguments = Arguments::parse();
    if let Some(order) = &arguments.storm {
        return parts::storms::play(order);
    }
    if arguments.list {
        for part in parts::ALL {
            println!("{:<14}{}", part.name, part.what);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = arguments.parts.iter().find(|p| parts::ALL.iter().all(|part| part.name != **p)) {
        eprintln!("no part is named {unknown}; --list names them");
        return ExitCode::from(2);
    }
    if let Err(e) = interrupt::watch() {
        eprintln!("an interrupt would leave things behind: {e}");
    }
    let plan = Plan { long: arguments.long, seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)) };
    println!("{}, seed {}, {}", if plan.long { "long form" } else { "short form" }, plan.seed, machine::line());
    let wanted = |name: &str| arguments.parts.is_empty() || arguments.parts.iter().any(|p| p == name);
    let (mut failed, mut skipped, mut broken) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts::ALL.iter().filter(|p| wanted(p.name)) {
        println!("\n== {}: {}", part.name, part.what);
        let begin = Instant::now();
        let tally = (part.run)(&plan);
        print!("{tally}");
        println!("{} in {:.1} s", tally.verdict(), begin.elapsed().as_secs_f64());
        if !tally.holds() {
            failed.push(part.name);
            broken.extend(tally.all_broken().iter().map(|what| format!("{}: {what}", part.name)));
        } else if !tally.is_whole() {
            skipped.push(part.name);
        }
    }
    if !skipped.is_empty() {
        println!("\nnot tried, or not in whole: {}", skipped.join(", "));
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    let long = if plan.long { "--long " } else { "" };
    let chosen = ["PROOF_STORM", "PROOF_MUTANT", "PROOF_HOSTILE"].iter();
    let chosen: String = chosen.filter_map(|name| Some(format!("{name}='{}' ", std::env::var(name).ok()?))).collect();
    // Once more: of a long log mostly the end is read.
    println!("\n{}", broken.join("\n"));
    println!("broken: {}; again: {chosen}proof {long}--seed {} {}", failed.join(", "), plan.seed, failed.join(" "));
    ExitCode::FAILURE
}
