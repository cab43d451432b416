//! Others' bugs as our tests: a process is killed, and does the rest go on? Each scenario runs against the peer that is known for it, and against multiproc.
//!
//! A try is a program in a session of its own ([`trial`]). It prints "progress", or why there is none; when nothing of it has moved for a while it hangs. The peers'
//! programs are in `programs/` (Python, C, C++) and in the workspace `proof/peers` (Rust), which [`built`] builds; ours are in [`ours`].

mod built;
pub mod ours;
mod trial;

use super::Part;
use crate::interrupt;
use crate::plan::Plan;
use crate::tally::Tally;
use built::{Peer, Program, Programs};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use trial::Outcome;

pub const PART: Part = Part { name: "peers", what: "others' bugs: the same scenario against the real peer and against us", run };

/// Tries at the same time. Those that hang only sleep.
const AT_ONCE: usize = 6;

/// What a program says of a case that it does not know, which is no result.
const NO_SUCH_CASE: &str = "no such case";

/// What is done, and to whom.
struct Scenario {
    peer: Peer,
    what: &'static str,
    /// Where it is reported.
    known: &'static str,
    theirs: &'static str,
    ours: &'static str,
    /// The hang is one of a moment between two processors, which others would disturb.
    alone: bool,
}

const fn scenario(peer: Peer, what: &'static str, known: &'static str, theirs: &'static str, ours: &'static str) -> Scenario {
    Scenario { peer, what, known, theirs, ours, alone: false }
}

const SCENARIOS: &[Scenario] = &[
    scenario(Peer::Python, "an idle worker of a `Pool` is killed; the next call", "cpython#96062", "idle_worker", "idle_worker"),
    scenario(Peer::Python, "a worker of a `Pool` is killed at work; its call", "bpo-22393", "busy_worker", "busy_worker"),
    scenario(Peer::Python, "the holder of a `Lock` is killed; the next holder", "birdnet#73", "lock", "lock"),
    scenario(Peer::Python, "a reader of a `Queue` is killed while it waits; the next reader", "RMS#935", "reader", "reader"),
    scenario(Peer::Python, "a waiter of an `Event` is killed; `set`", "RMS#935", "event", "event"),
    scenario(Peer::Python, "the coordinator of an executor is killed; its workers' end", "loky#360", "orphans", "orphans"),
    scenario(
        Peer::Python,
        "a worker is killed while large arguments queue up",
        "cpython#94777",
        "big_arguments",
        "big_arguments",
    ),
    scenario(
        Peer::Python,
        "a worker of an executor is killed; ten calls of others",
        "cpython#139462",
        "other_calls",
        "other_calls",
    ),
    Scenario {
        alone: true,
        ..scenario(Peer::Glibc, "who a robust mutex has woken is killed; the next in line", "", "stranded", "stranded")
    },
    scenario(Peer::Glibc, "a waiter of a condition variable is killed; the next waiters", "", "condition", "condition"),
    scenario(
        Peer::Boost,
        "the holder of an `interprocess_mutex` is killed; the next holder",
        "interprocess#187",
        "mutex",
        "lock",
    ),
    scenario(Peer::Boost, "the holder of a `named_mutex` is killed; the next holder", "interprocess#56", "named_mutex", "lock"),
    scenario(
        Peer::Boost,
        "a waiter of an `interprocess_condition` is killed; the next waiters",
        "interprocess#69",
        "condition",
        "condition",
    ),
    scenario(
        Peer::Boost,
        "a receiver of a `message_queue` is killed while it waits; the next receivers",
        "interprocess#69",
        "message_queue",
        "reader",
    ),
    scenario(
        Peer::Crate("ipc-channel"),
        "the receiver is killed within a large message; the sender",
        "",
        "receiver_killed",
        "receiver_killed",
    ),
    scenario(
        Peer::Crate("ipc-channel"),
        "one of two senders is killed within a large message; the other",
        "",
        "sender_killed",
        "sender_killed",
    ),
    scenario(
        Peer::Crate("ipc-channel"),
        "a child ends before it has connected; who waits for it",
        "ipc-channel#261",
        "child_without_connection",
        "child_without_connection",
    ),
    scenario(
        Peer::Crate("shaq"),
        "a producer is killed between reserving and publishing; the next one",
        "",
        "reserved",
        "reserved",
    ),
    scenario(
        Peer::Crate("iceoryx2"),
        "who had a service is killed; the next program with that name",
        "iceoryx2#1584",
        "stale_service",
        "stale_name",
    ),
    scenario(Peer::Crate("iceoryx2"), "after deaths, eight programs start at once", "iceoryx2#1880", "crowd", "crowd"),
];

/// How often a scenario came to what.
#[derive(Default)]
struct Counts {
    hangs: u64,
    /// With those that gave no reason.
    fails: u64,
    /// Those alone.
    breaks: u64,
    /// The most frequent reason first.
    why: Vec<String>,
}

impl Counts {
    fn bad(&self) -> u64 {
        self.hangs + self.fails
    }
}

fn run(plan: &Plan) -> Tally {
    let tries = plan.count(3, 100);
    let programs = Programs::build(plan.long);
    let mut tally = Tally::new(&["tries", "hang", "fail", "ours hang", "ours fail"]);
    let mut missing: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut lines = Vec::new();
    let mut known_ours: BTreeMap<&str, (u64, u64, Vec<String>)> = BTreeMap::new();
    for (n, scenario) in SCENARIOS.iter().enumerate() {
        let at_once = if scenario.alone { 1 } else { AT_ONCE };
        // A scenario of ours that stands beside several of others runs once.
        let ours = known_ours.entry(scenario.ours).or_insert_with(|| {
            let counts = repeat(tries, at_once, |mark| {
                let mut command = Command::new("/proc/self/exe");
                command.env(ours::CASE, scenario.ours).env(ours::MARK, mark);
                command
            });
            (counts.hangs, counts.fails, counts.why)
        });
        let (our_hangs, our_fails, our_why) = (ours.0, ours.1, ours.2.clone());
        tally.check(our_hangs + our_fails == 0, || format!("{}, on multiproc: {}", scenario.what, our_why.join("; ")));
        let name = |who: &str| format!("{who}: {}", scenario.what);
        match programs.of(scenario.peer) {
            Ok(program) => {
                let theirs = repeat(tries, at_once, |mark| theirs(&program, scenario.theirs, mark));
                let cells = [tries, theirs.hangs, theirs.fails, our_hangs, our_fails];
                tally.row(name(&program.version), cells);
                tally.check(theirs.why.iter().all(|why| !why.contains(NO_SUCH_CASE)), || {
                    format!("{}: {NO_SUCH_CASE}", scenario.theirs)
                });
                tally.check(theirs.breaks < tries, || {
                    format!("{}, {}: the program does not run: {}", program.version, scenario.theirs, theirs.why.join("; "))
                });
                let line = markdown(scenario, &program, &theirs, tries, our_hangs + our_fails);
                if plan.long {
                    // Progress, apart from what is kept.
                    eprintln!("{} of {}: {line}", n + 1, SCENARIOS.len());
                }
                lines.push(line);
                if let Some(why) = theirs.why.first() {
                    tally.note(format!("{}, {}: {why}", program.version, scenario.theirs));
                }
            }
            Err(why) => {
                let who = match scenario.peer {
                    Peer::Crate(name) => name.to_owned(),
                    other => format!("{other:?}"),
                };
                tally.row(name(&who), ["-".to_owned(), "-".into(), "-".into(), our_hangs.to_string(), our_fails.to_string()]);
                missing.entry(why).or_default().push(scenario.theirs);
            }
        }
    }
    for (why, cases) in missing {
        tally.skip(format!("skipped {}: {why}", cases.join(", ")));
    }
    if plan.long {
        tally.note("\n| a process is killed | peer | hangs or fails | ours |\n|---|---|---|---|");
        lines.into_iter().for_each(|line| tally.note(line));
    }
    tally
}

/// A line for README.md.
fn markdown(scenario: &Scenario, program: &Program, theirs: &Counts, tries: u64, ours: u64) -> String {
    let verb = match (theirs.hangs, theirs.fails) {
        (0, 0) => "",
        (_, 0) => "hangs ",
        (0, _) => "fails ",
        (_, _) => "hangs or fails ",
    };
    let known = if scenario.known.is_empty() { String::new() } else { format!(" ({})", scenario.known) };
    format!("| {}{known} | {} | {verb}{} of {tries} | {ours} |", scenario.what, program.version, theirs.bad())
}

fn theirs(program: &Program, case: &str, mark: &str) -> Command {
    let mut command = Command::new(&program.command[0]);
    command.args(&program.command[1..]).arg(case).env(ours::MARK, mark);
    command
}

/// Tries it so many times, some at once, each with a name of its own that no file is left with.
fn repeat(tries: u64, at_once: usize, command: impl Fn(&str) -> Command + Sync) -> Counts {
    static MARKS: AtomicU64 = AtomicU64::new(0);
    let left = AtomicU64::new(tries);
    let outcomes = Mutex::new(BTreeMap::<Outcome, u64>::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                // Relaxed, both: counters.
                while left.try_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                    let mark = format!("proof{}x{}", std::process::id(), MARKS.fetch_add(1, Ordering::Relaxed));
                    let left = mark.clone();
                    let undo = interrupt::undo(move || clean(&left));
                    // What it makes by itself under names that nobody chose lies there.
                    let files = std::env::temp_dir().join(&mark);
                    // If there is none, it says so.
                    let _ = fs::create_dir(&files);
                    let mut command = command(&mark);
                    command.env("TMPDIR", files);
                    let outcome = trial::attempt(command);
                    clean(&mark);
                    drop(undo);
                    *outcomes.lock().expect("no try panics").entry(outcome).or_default() += 1;
                }
            });
        }
    });
    let mut counts = Counts::default();
    let mut outcomes: Vec<(Outcome, u64)> = outcomes.into_inner().expect("no try panics").into_iter().collect();
    outcomes.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    for (outcome, n) in outcomes {
        match outcome {
            Outcome::Progress => {}
            Outcome::Hangs(what) => {
                counts.hangs += n;
                counts.why.push(format!("{n} hang: {what}"));
            }
            Outcome::Fails(why) => {
                counts.fails += n;
                counts.why.push(format!("{n} fail: {why}"));
            }
            Outcome::Breaks(how) => {
                counts.fails += n;
                counts.breaks += n;
                counts.why.push(format!("{n} fail without a reason: {how}"));
            }
        }
    }
    counts
}

/// Removes the files that a killed try has left.
fn clean(mark: &str) {
    let directories = ["/dev/shm", "/tmp", "/tmp/iceoryx2", "/tmp/iceoryx2/nodes", "/tmp/iceoryx2/services"];
    for directory in directories.map(PathBuf::from).into_iter().chain([std::env::temp_dir()]) {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let ours = |name: &str| name.split_once(mark).is_some_and(|(_, rest)| !rest.starts_with(|c: char| c.is_ascii_digit()));
        for entry in entries.filter(|entry| ours(&entry.file_name().to_string_lossy())) {
            let path = entry.path();
            // Gone already, which is as good.
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
}
