//! The storms once more, with everybody late: any process sleeps for some milliseconds at some of its steps, as where the kernel gives the core to others just there. What it
//! has seen is then old when it acts on it: who was dead is cleaned up after, and its place is another's.
//!
//! The steps are the crash points, so this program is built once more, with them, in a directory of its own.

use super::{Part, storms};
use crate::plan::Plan;
use crate::tally::Tally;
use crate::tests::finish;
use std::path::Path;
use std::process::Command;

pub const PART: Part =
    Part { name: "late", what: "the storms, with everybody slow at any step: what was seen is old when it counts", run };

/// Of 65,536 steps so many are slow: now and then, often, and all the time.
const SLOW: [u64; 3] = [200, 650, 3000];

fn run(plan: &Plan) -> Tally {
    let mut tally = Tally::new(&["kills", "s"]);
    if cfg!(feature = "crash-points") {
        tally.broken("this program is the one that was built for it");
        return tally;
    }
    if !plan.long {
        tally.skip("skipped: only the long form builds this program with crash points");
        return tally;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(&root).args(["build", "--release", "-p", "multiproc-proof", "--features", "crash-points"]);
    build.args(["--target-dir", "target/late"]);
    match finish(&mut build) {
        Ok((status, ..)) if status.success() => {}
        Ok((status, _, errors)) => {
            tally.broken(format!("cargo build: {status}\n{errors}"));
            return tally;
        }
        Err(e) => {
            tally.broken(format!("cargo build did not run: {e}"));
            return tally;
        }
    }
    for slow in SLOW {
        plan.progress(format!("slow at {slow} of 65,536 steps"));
        let mut program = Command::new(root.join("target/late/release/proof"));
        program.args(["--seed", &plan.seed.to_string(), "storms"]).env(storms::DAWDLE_AT, slow.to_string());
        let (status, text, errors) = match finish(&mut program) {
            Ok(ended) => ended,
            Err(e) => {
                tally.broken(format!("the program did not run: {e}"));
                continue;
            }
        };
        let kills = text.lines().find_map(|line| line.split_once(" kills in ")).unwrap_or_default();
        tally.row(format!("slow at {slow} of 65,536"), [kills.0, kills.1.trim_end_matches(" s")]);
        tally.check(status.success(), || {
            let broken: Vec<&str> = text.lines().filter(|line| line.starts_with("BROKEN")).collect();
            format!(
                "slow at {slow} of 65,536 steps: {status}\n{}\n{}",
                broken.join("\n"),
                if broken.is_empty() { &errors } else { "" }
            )
        });
    }
    tally
}
