//! Miri: the logic that makes no system calls, checked for undefined behaviour, where the tool is there.

use super::Part;
use crate::plan::Plan;
use crate::tally::Tally;
use std::process::{Command, Stdio};
use std::time::Instant;

pub const PART: Part =
    Part { name: "miri", what: "words, records and codecs under an interpreter that knows undefined behaviour", run };

/// Packages, and the tests of theirs that stay in memory of their own.
const TESTS: [(&str, &[&str]); 4] = [
    ("multiproc-sys", &["seal::"]),
    ("multiproc-shm", &["layout::", "blocks::", "notes::"]),
    (
        "multiproc-channel",
        &[
            "ring::cell::",
            "ring::hands::",
            "ring::volume::",
            "pipe::cell::",
            "pipe::record::",
            "codec::bincode::",
            "codec::plain::",
        ],
    ),
    ("multiproc-pool", &["wire::"]),
];

fn run(_plan: &Plan) -> Tally {
    let mut tally = Tally::new(&["passed", "failed", "s"]);
    let there =
        Command::new("cargo").args(["+nightly", "miri", "--version"]).stderr(Stdio::null()).stdout(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        tally.note("skipped: there is no nightly compiler with Miri");
        return tally;
    }
    for (package, filters) in TESTS {
        let begin = Instant::now();
        let mut command = Command::new("cargo");
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).env_remove("CARGO_TARGET_DIR");
        command.env("MIRIFLAGS", "-Zmiri-permissive-provenance -Zmiri-disable-isolation");
        command.args(["+nightly", "miri", "test", "--target-dir", "target/miri", "-p", package, "--lib", "--"]).args(filters);
        let output = match command.output() {
            Ok(output) => output,
            Err(error) => {
                tally.broken(format!("cargo miri test -p {package} did not start: {error}"));
                continue;
            }
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let count = |what: &str| -> u64 {
            let results = text.lines().filter(|line| line.starts_with("test result:"));
            results
                .filter_map(|line| {
                    line.split([':', ';', '.']).find_map(|part| part.trim().strip_suffix(what)?.trim().parse::<u64>().ok())
                })
                .sum()
        };
        let (passed, failed) = (count(" passed"), count(" failed"));
        tally.row(package, [passed.to_string(), failed.to_string(), format!("{:.1}", begin.elapsed().as_secs_f64())]);
        tally.check(output.status.success() && passed > 0, || {
            format!("cargo miri test -p {package}: {}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr))
        });
    }
    tally
}
