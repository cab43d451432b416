//! The fuzz targets: from seeds with any compiler, and by libFuzzer under a sanitizer of addresses where a nightly one and cargo-fuzz are there.

use super::Part;
use crate::plan::Plan;
use crate::tally::Tally;
use crate::tests;
use std::process::{Command, Stdio};
use std::time::Instant;

pub const PART: Part =
    Part { name: "fuzz", what: "arbitrary bytes as shared memory, as messages, and as what a child is told", run };

/// Of each target by libFuzzer.
const SECONDS: u32 = 300;
const TARGETS: [&str; 3] = ["arena", "frames", "handshake"];

fn run(plan: &Plan) -> Tally {
    let mut tally = Tally::new(&["passed", "failed", "s"]);
    tests::run(&["-p", "multiproc-targets", "--features", "postcard"], plan, &mut tally);
    if !plan.long {
        tally.note("libFuzzer is for the long form, since all is built anew for it; the same targets ran from seeds");
        return tally;
    }
    let there =
        Command::new("cargo").args(["+nightly", "fuzz", "--version"]).stderr(Stdio::null()).stdout(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        tally.skip("libFuzzer skipped: there is no nightly compiler with cargo-fuzz; the same targets ran from seeds");
        return tally;
    }
    for target in TARGETS {
        let begin = Instant::now();
        plan.progress(format_args!("libFuzzer {target}, {SECONDS} s"));
        let seconds = format!("-max_total_time={SECONDS}");
        let seed = format!("-seed={}", plan.seed as u32);
        let mut command = Command::new("cargo");
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).env_remove("CARGO_TARGET_DIR");
        command.args([
            "+nightly",
            "fuzz",
            "run",
            target,
            "--",
            &seconds,
            &seed,
            "-timeout=60",
            "-rss_limit_mb=4096",
            "-max_len=1000",
            // Short inputs are few operations.
            "-len_control=0",
            "-print_final_stats=1",
        ]);
        match command.output() {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                let told = |key: &str| text.lines().rev().find_map(|line| line.split(key).nth(1)).unwrap_or("?").trim();
                let first = |key: &str| told(key).split(' ').next().unwrap_or("?");
                let (runs, rate) = (first("stat::number_of_executed_units:"), first("stat::average_exec_per_sec:"));
                let (edges, slowest) = (first(" cov: "), first("stat::slowest_unit_time_sec:"));
                let (passed, failed) = if output.status.success() { (1, 0) } else { (0, 1) };
                tally.row(
                    format!("libFuzzer {target}: {runs} runs, {rate}/s, {edges} edges, the slowest {slowest} s"),
                    [passed.to_string(), failed.to_string(), format!("{:.1}", begin.elapsed().as_secs_f64())],
                );
                let tail: Vec<&str> = text.lines().rev().take(60).collect();
                tally.check(output.status.success(), || {
                    format!("{target}\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"))
                });
            }
            Err(error) => tally.broken(format!("cargo fuzz run {target} did not start: {error}")),
        }
    }
    tally
}
