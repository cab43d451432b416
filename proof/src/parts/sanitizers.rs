//! The sanitizers of rustc, where a nightly compiler with the sources of std is there: the objects among threads of one process.
//!
//! They see one process, and each sees what the compiler has made of it. The one of threads knows no fences, so it may take for a race what is none; among these
//! tests it finds none, since whoever copies bytes has a lock for it. Which orders the fences of the words allow is for `models` and `miri`.

use super::Part;
use crate::plan::Plan;
use crate::tally::Tally;
use crate::tests::count;
use std::process::{Command, Stdio};
use std::time::Instant;

pub const PART: Part = Part {
    name: "sanitizers",
    what: "the objects among threads, under the sanitizers of addresses and of threads (long form)",
    run,
};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Names, and whether std is built with it: else the one of threads takes what std does with its own words for races.
const SANITIZERS: [(&str, &[&str]); 2] = [("address", &[]), ("thread", &["-Zbuild-std"])];

const TESTS: [&str; 8] = ["test", "--target", TARGET, "-p", "multiproc-channel", "-p", "multiproc-sync", "--test=among_threads"];

fn has_sources() -> bool {
    let root = Command::new("rustc").args(["+nightly", "--print", "sysroot"]).stderr(Stdio::null()).output();
    root.is_ok_and(|root| {
        let root = String::from_utf8_lossy(&root.stdout).trim().to_owned();
        !root.is_empty() && std::path::Path::new(&root).join("lib/rustlib/src/rust/library/std").is_dir()
    })
}

fn run(plan: &Plan) -> Tally {
    let mut tally = Tally::new(&["passed", "failed", "reports", "s"]);
    if !plan.long {
        tally.note("std is built for it, which is for the long form");
        return tally;
    }
    if !has_sources() {
        tally.skip("skipped: there is no nightly compiler with the sources of std (rustup component add rust-src)");
        return tally;
    }
    for (sanitizer, with) in SANITIZERS {
        let begin = Instant::now();
        let mut command = Command::new("cargo");
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).env_remove("CARGO_TARGET_DIR");
        command.env("RUSTFLAGS", format!("-Zsanitizer={sanitizer} -Cunsafe-allow-abi-mismatch=sanitizer"));
        command.env("ASAN_OPTIONS", "detect_leaks=0").env("TSAN_OPTIONS", "halt_on_error=0 exitcode=66");
        command.arg("+nightly").args(TESTS).args(with).args([
            "--target-dir",
            &format!("target/{sanitizer}"),
            "--",
            "--nocapture",
        ]);
        match command.output() {
            Ok(output) => {
                let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                let reports =
                    errors.matches("WARNING: ThreadSanitizer").count() + errors.matches("ERROR: AddressSanitizer").count();
                let passed = count(&text, " passed");
                tally.row(
                    sanitizer,
                    [
                        passed.to_string(),
                        count(&text, " failed").to_string(),
                        reports.to_string(),
                        format!("{:.1}", begin.elapsed().as_secs_f64()),
                    ],
                );
                tally.check(output.status.success() && passed > 0 && reports == 0, || {
                    let first: Vec<&str> = errors.lines().skip_while(|line| !line.contains("Sanitizer")).take(60).collect();
                    format!("{sanitizer}: {}\n{text}\n{}", output.status, first.join("\n"))
                });
            }
            Err(error) => tally.broken(format!("the sanitizer of {sanitizer} did not start: {error}")),
        }
    }
    tally
}
