//! The sanitizers of rustc, where a nightly compiler with the sources of std is there: the objects among threads and among processes, and hostile memory.
//!
//! Each process is watched by itself: the one of addresses sees what is outside of anything that the process has, the one of threads races between its own threads,
//! the library's among them. That one knows no fences, so it may take for a race what is none. Which orders the fences of the words allow is for `models` and `miri`.

use super::Part;
use crate::plan::Plan;
use crate::tally::Tally;
use crate::tests::{count, finish};
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use tempfile::TempDir;

pub const PART: Part = Part {
    name: "sanitizers",
    what: "the objects among threads and processes, and hostile memory, under the sanitizers of addresses and of threads (long form)",
    run,
};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A sanitizer, and what cargo does under it.
struct Run {
    sanitizer: Sanitizer,
    name: &'static str,
    work: Work,
}

#[derive(Clone, Copy, PartialEq)]
enum Sanitizer {
    Address,
    Thread,
}

enum Work {
    /// Of these packages these test programs.
    Tests(&'static str, &'static str),
    /// The part of that name, of the proof itself.
    Hostile,
}

const AMONG_THREADS: Work = Work::Tests("multiproc-channel multiproc-sync", "among_threads");

const RUNS: [Run; 5] = [
    Run { sanitizer: Sanitizer::Address, name: "address, among threads", work: AMONG_THREADS },
    Run {
        sanitizer: Sanitizer::Address,
        name: "address, among processes",
        // Not those whose processes are to run out of stack or of address space: the sanitizer needs both for itself.
        work: Work::Tests(
            "multiproc-tests",
            "alarms array barrier codecs collector condition dying ends fork lines owners pipe pool_elsewhere \
                 pool_map pool_odd pool_of_a_child pool_options pool_places pool_tasks queue queue_bounds queue_join \
                 queue_many queue_unbounded shared_memory shared_vec shutdown sync threads trees wait written_over",
        ),
    },
    Run { sanitizer: Sanitizer::Thread, name: "thread, among threads", work: AMONG_THREADS },
    Run {
        sanitizer: Sanitizer::Thread,
        name: "thread, among processes",
        // Not those with limits of time that it is too slow for, nor those that fork while there are threads, which it cannot follow, nor those that need a
        // process to be asleep with all its threads: it has one of its own.
        work: Work::Tests(
            "multiproc-tests",
            "alarms array barrier codecs collector condition dying lines owners pipe pool_map pool_of_a_child \
                 queue queue_many shared_vec sync",
        ),
    },
    // By far the longest.
    Run { sanitizer: Sanitizer::Address, name: "address, hostile memory", work: Work::Hostile },
];

/// Races that are meant: while the collector looks at an object, others change it, or free it and make another there. What it has read wrong keeps something for one collection
/// more.
const MEANT: &str = "race:multiproc_shm::collect::Marks\n";

impl Sanitizer {
    fn name(self) -> &'static str {
        match self {
            Sanitizer::Address => "address",
            Sanitizer::Thread => "thread",
        }
    }

    /// What its runtime is told by the environment: reports of all processes go into files of that folder.
    fn options(self, folder: &Path) -> (&'static str, String) {
        let reports = folder.join("report");
        let reports = reports.display();
        match self {
            Sanitizer::Address => ("ASAN_OPTIONS", format!("detect_leaks=0:log_path={reports}")),
            Sanitizer::Thread => {
                let meant = folder.join("meant");
                let meant = meant.display();
                ("TSAN_OPTIONS", format!("report_thread_leaks=0:exitcode=66:suppressions={meant}:log_path={reports}"))
            }
        }
    }

    fn command(self, work: &Work, plan: &Plan, folder: &Path) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).env_remove("CARGO_TARGET_DIR");
        command.env("RUSTFLAGS", format!("-Zsanitizer={} -Cunsafe-allow-abi-mismatch=sanitizer", self.name()));
        let (name, options) = self.options(folder);
        command.env(name, options).arg("+nightly").arg(if matches!(work, Work::Hostile) { "run" } else { "test" });
        command.args(["--target", TARGET, "--target-dir", &format!("target/{}", self.name())]);
        if self == Sanitizer::Thread {
            // Else it takes what std does with its own words for races.
            command.arg("-Zbuild-std");
        }
        match work {
            Work::Tests(packages, tests) => {
                command.arg("--no-fail-fast").args(packages.split_whitespace().flat_map(|package| ["-p", package]));
                command.args(tests.split_whitespace().flat_map(|test| ["--test", test]));
            }
            Work::Hostile => {
                command.args(["--release", "-p", "multiproc-proof", "--", "--long", "--seed", &plan.seed.to_string(), "hostile"]);
            }
        }
        command
    }
}

fn has_sources() -> bool {
    let root = Command::new("rustc").args(["+nightly", "--print", "sysroot"]).output();
    root.is_ok_and(|root| {
        let root = String::from_utf8_lossy(&root.stdout).trim().to_owned();
        !root.is_empty() && Path::new(&root).join("lib/rustlib/src/rust/library/std").is_dir()
    })
}

/// What the processes of a run have had to report.
fn reports(folder: &Path) -> io::Result<Vec<String>> {
    let mut reports = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("report") {
            reports.push(String::from_utf8_lossy(&std::fs::read(entry.path())?).into_owned());
        }
    }
    Ok(reports)
}

fn play(run: &Run, plan: &Plan, tally: &mut Tally) -> io::Result<()> {
    let Run { sanitizer, name, work } = run;
    let (begin, folder) = (Instant::now(), TempDir::new()?);
    std::fs::write(folder.path().join("meant"), MEANT)?;
    let (status, text, errors) = finish(&mut sanitizer.command(work, plan, folder.path()))?;
    let reports = reports(folder.path())?;
    let (passed, failed) = match work {
        Work::Tests(..) => (count(&text, " passed"), count(&text, " failed")),
        Work::Hostile => (u64::from(status.success()), u64::from(!status.success())),
    };
    let seconds = format!("{:.1}", begin.elapsed().as_secs_f64());
    tally.row(*name, [passed.to_string(), failed.to_string(), reports.len().to_string(), seconds]);
    tally.check(status.success() && passed > 0 && reports.is_empty(), || {
        let first: Vec<&str> = reports.iter().flat_map(|report| report.lines().take(40)).take(120).collect();
        format!("{name}: {status}\n{text}\n{errors}\n{}", first.join("\n"))
    });
    Ok(())
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
    for run in &RUNS {
        plan.progress(run.name);
        if let Err(error) = play(run, plan, &mut tally) {
            tally.broken(format!("{} did not run: {error}", run.name));
        }
    }
    tally
}
