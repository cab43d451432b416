//! Runs tests of the workspace as a part of the proof: `cargo test` with its own words on how many passed.

use crate::plan::Plan;
use crate::tally::Tally;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::process::{Command, ExitStatus};
use std::time::Instant;

/// Runs `cargo test` with these arguments, with `PROOF_SEED` and, in the long form, `PROOF_LONG` in its environment, and adds a row.
pub fn run(args: &[&str], plan: &Plan, tally: &mut Tally) {
    run_with(args, &[], plan, tally);
}

/// As [`run`], with more in the environment.
pub fn run_with(args: &[&str], environment: &[(&str, &str)], plan: &Plan, tally: &mut Tally) {
    let begin = Instant::now();
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).arg("test").args(args);
    command.env("PROOF_SEED", plan.seed.to_string());
    command.envs(environment.iter().copied());
    if plan.long {
        command.env("PROOF_LONG", "1");
    }
    let name = args.join(" ");
    plan.progress(&name);
    let (status, text, errors) = match finish(&mut command) {
        Ok(ended) => ended,
        Err(error) => {
            tally.broken(format!("cargo test {name} did not run: {error}"));
            return;
        }
    };
    let (passed, failed) = (count(&text, " passed"), count(&text, " failed"));
    tally.row(&name, [passed.to_string(), failed.to_string(), format!("{:.1}", begin.elapsed().as_secs_f64())]);
    // A filter that fits no test, or a file without any, ends well and has tried nothing.
    tally.check(status.success() && passed > 0, || format!("cargo test {name}: {status}, {passed} passed\n{text}\n{errors}"));
}

/// How many tests " passed", or " failed", by what the programs of `cargo test` say at their ends.
pub fn count(text: &str, what: &str) -> u64 {
    let results = text.lines().filter(|l| l.starts_with("test result:"));
    results.filter_map(|l| l.split([':', ';', '.']).find_map(|p| p.trim().strip_suffix(what)?.trim().parse::<u64>().ok())).sum()
}

/// Runs a command to its end. What it says goes into files: a pipe would be waited for until the last process that a test has left behind is gone.
pub fn finish(command: &mut Command) -> io::Result<(ExitStatus, String, String)> {
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let status = command.stdout(out.try_clone()?).stderr(err.try_clone()?).status()?;
    let read = |file: &mut File| -> io::Result<String> {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok((status, read(&mut out)?, read(&mut err)?))
}
