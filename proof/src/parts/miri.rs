//! Miri: the shipping code under an interpreter that knows undefined behaviour and data races, where the tool is there.
//!
//! It has one process and no memory files, so `multiproc_sys::interpreted` stands in for the kernel, and nobody dies. References are tracked after Tree
//! Borrows: the link of a lock in the kernel's list is reached from the lock's word, beside it, which Stacked Borrows would not have.

use super::Part;
use crate::plan::Plan;
use crate::tally::Tally;
use crate::tests::count;
use std::process::{Command, Stdio};
use std::time::Instant;

pub const PART: Part = Part {
    name: "miri",
    what: "words, records, codecs, and the objects among threads, under an interpreter that knows undefined behaviour",
    run,
};

const FLAGS: &str = "-Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-disable-isolation -Zmiri-ignore-leaks";

/// How many of [`TESTS`] are in the short form.
const SHORT: u64 = 7;

/// Packages, and those of their tests that do without a second process.
const TESTS: [(&str, &[&str]); 8] = [
    ("multiproc-sys", &["--lib", "--", "seal::", "futex::", "probe::"]),
    ("multiproc-shm", &["--lib", "--", "--skip", "every_size_fits"]),
    ("multiproc-channel", &["--lib", "--", "codec::", "pipe::", "ring::"]),
    ("multiproc-sync", &["--lib"]),
    ("multiproc-pool", &["--lib", "--", "wire::", "stats::", "asked::", "retry::", "table::"]),
    ("multiproc-process", &["--lib", "--", "circles::", "--skip", "a_thousand_processes"]),
    ("multiproc-sync", &["--test", "among_threads"]),
    // The others take it longer than anybody waits.
    ("multiproc-channel", &["--test", "among_threads", "--", "a_bounded_queue", "a_pipe_that_fills"]),
];

fn run(plan: &Plan) -> Tally {
    let mut tally = Tally::new(&["passed", "failed", "s"]);
    let there =
        Command::new("cargo").args(["+nightly", "miri", "--version"]).stderr(Stdio::null()).stdout(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        tally.skip("skipped: there is no nightly compiler with Miri");
        return tally;
    }
    for (package, tests) in &TESTS[..plan.count(SHORT, TESTS.len() as u64) as usize] {
        let begin = Instant::now();
        let name = format!("{package} {}", tests[..tests.len().min(2)].join(" ").trim_end_matches(" --"));
        plan.progress(&name);
        let mut command = Command::new("cargo");
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).env_remove("CARGO_TARGET_DIR");
        command.env("MIRIFLAGS", format!("{FLAGS} -Zmiri-seed={}", plan.seed as u32));
        command.args(["+nightly", "miri", "test", "--target-dir", "target/miri", "-p", package]).args(*tests);
        let output = match command.output() {
            Ok(output) => output,
            Err(error) => {
                tally.broken(format!("cargo miri test -p {name} did not start: {error}"));
                continue;
            }
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let (passed, failed) = (count(&text, " passed"), count(&text, " failed"));
        tally.row(&name, [passed.to_string(), failed.to_string(), format!("{:.1}", begin.elapsed().as_secs_f64())]);
        tally.check(output.status.success() && passed > 0, || {
            format!("cargo miri test -p {name}: {}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr))
        });
    }
    tally
}
