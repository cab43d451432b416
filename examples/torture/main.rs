//! Kill the workers as often as you like: the result is the same.
//!
//! ```text
//! cargo run --release --example torture -- [--workers N] [--blocks N] [--kib N] [--auto KILLS] [--seed N]
//! ```
//!
//! Workers lease blocks, generate and hash them. The keys 1 to 9 send `kill -9` to one of them, `a` to all, at whatever they are doing; each is replaced
//! at once, and what it held comes again. At the end the checksum stands beside that of the same blocks hashed by one loop in one process, which nobody
//! disturbed. `--auto` kills by itself, so many times, also where there is no terminal. In reading order:
//!
//! - [`work`]: what is computed; [`worker`]: what a worker does; [`crew`]: all of them, their ends, and what came of it;
//! - [`executioner`]: whom `--auto` kills, and when; [`screen`]: what there is to see, and the keys.

mod crew;
mod executioner;
mod screen;
mod work;
mod worker;

use clap::Parser;
use crew::{Crew, Fatal, Tally};
use executioner::Executioner;
use screen::{Key, Screen};
use std::process::ExitCode;
use std::time::Duration;

/// How often it looks for results, ends and keys, and draws.
const TICK: Duration = Duration::from_millis(20);
/// The bytes of a block, before `--kib`, and how many there are, before `--blocks`.
const KIB: u32 = 4096;
const BLOCKS: u64 = 4000;

#[derive(Parser)]
#[command(about = "Workers hash blocks while you kill them.")]
struct Args {
    /// How many workers; one key each.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=9))]
    workers: u8,
    /// How many blocks; with --auto at least.
    #[arg(long, default_value_t = BLOCKS)]
    blocks: u64,
    /// The size of a block.
    #[arg(long, default_value_t = KIB, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    kib: u32,
    /// Kills so many at random moments, and ends when they have been killed and the blocks are done.
    #[arg(long, default_value_t = 0)]
    auto: u32,
    /// Repeats the choices of --auto.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    if args.auto > 0 {
        println!("seed {seed}");
    }
    match torture(&args, seed).and_then(|(digests, tally)| report(&digests, &tally, args.kib)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("torture: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Has all blocks hashed while workers are killed. Returns the digests, as far as they have come, and what happened.
fn torture(args: &Args, seed: u64) -> Result<(Vec<Option<work::Digest>>, Tally), Fatal> {
    let mut executioner = Executioner::new(args.auto, seed);
    let mut crew = Crew::new(usize::from(args.workers), args.kib)?;
    let screen = Screen::open()?;
    let mut enough = false;
    loop {
        // More than was asked for while somebody is to be killed: there shall be work at each kill.
        let wanted = if executioner.is_done() && !enough { args.blocks } else { u64::MAX };
        let over = enough || (executioner.is_done() && crew.given() >= wanted);
        if !over {
            crew.give_out(wanted)?;
        }
        crew.collect()?;
        if over && crew.is_done() {
            break;
        }
        for key in screen.keys(TICK.min(executioner.pause()))? {
            match key {
                Key::Kill(at) => _ = crew.kill(at),
                Key::KillAll => _ = (0..usize::from(args.workers)).filter(|at| crew.kill(*at)).count(),
                Key::Enough => enough = true,
            }
        }
        if !enough {
            executioner.act(usize::from(args.workers), |at| crew.kill(at));
        }
        crew.replace_the_dead()?;
        screen.draw(&crew, args.blocks)?;
    }
    drop(screen);
    crew.dismiss()
}

/// Prints the result beside the undisturbed one. Whether they are the same.
fn report(digests: &[Option<work::Digest>], tally: &Tally, kib: u32) -> Result<bool, Fatal> {
    println!("{tally}");
    let tortured = work::checksum(digests.iter().flatten());
    println!("{} blocks, checksum  {tortured}", digests.len());
    let undisturbed: Vec<work::Digest> = (0..digests.len() as u64).map(|block| work::digest(block, kib)).collect();
    let undisturbed = work::checksum(&undisturbed);
    println!("{} blocks, nobody killed  {undisturbed}", digests.len());
    let same = tortured == undisturbed && tally.lost == 0;
    println!("{}", if same { "the same" } else { "NOT the same" });
    Ok(same)
}
