//! Each step of an operation is deadly in turn, and the table of what came of it. Where the environment names a file for notes, it says what was passed and
//! died at in which scene (`multiproc_sys::crash`).
#![allow(dead_code, unreachable_pub)]

use multiproc::testing::{named, note};
use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom};
use std::process::Command;

const NOTES: &str = "MULTIPROC_CRASH_NOTES";

/// A second process of a test notes into a file of its own, that of this one with `end` behind its name.
pub fn notes_apart<'a>(command: &'a mut Command, end: &str) -> &'a mut Command {
    if let Ok(path) = std::env::var(NOTES) {
        command.env(NOTES, format!("{path}.{end}"));
    }
    command
}

/// `CRASH_ONLY` is a part of the names of what is played.
pub fn wanted(name: &str) -> bool {
    std::env::var("CRASH_ONLY").map_or(true, |only| name.contains(&only))
}

/// What the table says of one operation in one scene.
#[derive(Debug, Default)]
pub struct Line {
    pub name: String,
    /// How many steps were deadly.
    pub steps: u64,
    pub runs: u64,
    pub deaths: u64,
    pub failures: Vec<String>,
    /// Where its notes begin.
    begin: u64,
}

impl Line {
    /// What follows is noted as played in this scene.
    pub fn new(name: impl Into<String>) -> Line {
        let name = name.into();
        note("scene", &name);
        let begin = std::env::var(NOTES).map_or(0, |path| std::fs::metadata(path).map_or(0, |file| file.len()));
        Line { name, begin, ..Line::default() }
    }

    /// One more run, with so many deaths.
    pub fn ran(&mut self, deaths: u64) {
        self.runs += 1;
        self.deaths += deaths;
    }

    /// Not each of its steps is deadly, or not in each of its runs.
    pub fn partly(self) -> Line {
        note("partly", "");
        self
    }

    fn failed(&mut self, where_: String, why: String) {
        self.runs += 1;
        self.failures.push(format!("{where_}: {why}"));
    }

    /// The points that were passed in this scene and at which nobody has died.
    fn spared(&self) -> BTreeSet<String> {
        let Ok(path) = std::env::var(NOTES) else { return BTreeSet::new() };
        let mut text = String::new();
        let mut file = std::fs::File::open(path).unwrap();
        file.seek(SeekFrom::Start(self.begin)).unwrap();
        file.read_to_string(&mut text).unwrap();
        let all = |kind: &str| text.lines().filter_map(|line| line.strip_prefix(kind)).collect::<BTreeSet<_>>();
        all("pass ").difference(&all("dies ")).map(|id| (*id).to_owned()).collect()
    }
}

/// All lines of a test.
#[derive(Debug, Default)]
pub struct Table(pub Vec<Line>);

impl Table {
    /// Prints it and notes each line; what failed fails the test.
    pub fn finish(&self, title: &str) {
        println!("\n{title}\n{:<62}{:>7}{:>7}{:>8}{:>10}", "operation, scene", "steps", "runs", "deaths", "failures");
        for Line { name, steps, runs, deaths, failures, .. } in &self.0 {
            println!("{name:<62}{steps:>7}{runs:>7}{deaths:>8}{:>10}", failures.len());
            note("row", &format!("{name}\t{steps}\t{runs}\t{deaths}\t{}", failures.len()));
        }
        let sum = |of: fn(&Line) -> u64| self.0.iter().map(of).sum::<u64>();
        let failed = sum(|l| l.failures.len() as u64);
        println!("{:<62}{:>7}{:>7}{:>8}{failed:>10}", "all", sum(|l| l.steps), sum(|l| l.runs), sum(|l| l.deaths));
        let failures = self.0.iter().flat_map(|l| l.failures.iter().map(move |f| format!("{}: {f}", l.name)));
        let failures: Vec<String> = failures.collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}

/// More steps than any operation has: what passes more has a loop.
pub const MAX_STEPS: u64 = 400;
/// How often a point is aimed at that was passed by a chance, such as a wait that is mostly spared.
const AIMED: u32 = 10;

/// Runs `at` with each step deadly until it survives, and so a second time: a wait may have been spared. Then with each point deadly that was passed meanwhile and
/// at which nobody has died. It says whether it died.
pub fn each_step(name: impl Into<String>, mut at: impl FnMut(u64) -> Result<bool, String>) -> Line {
    let mut line = Line::new(name);
    let mut survived = 0;
    let mut k = 1;
    while survived < 2 {
        match at(k) {
            Ok(died) => {
                line.ran(died.into());
                survived = if died { 0 } else { survived + 1 };
                k += u64::from(died);
            }
            Err(why) => {
                line.failed(format!("step {k}"), why);
                // Others may hang: nothing that follows would say anything.
                return line;
            }
        }
        assert!(k < MAX_STEPS, "{} has no end", line.name);
    }
    line.steps = k - 1;
    for _ in 0..AIMED {
        for point in line.spared() {
            match at(named(&point)) {
                Ok(died) => line.ran(died.into()),
                Err(why) => {
                    line.failed(point, why);
                    return line;
                }
            }
        }
    }
    line
}

/// Of the steps of the first and of the second each `CRASH_STRIDE`-th; 1, if the environment does not say.
fn stride() -> u64 {
    std::env::var("CRASH_STRIDE").ok().and_then(|n| n.parse().ok()).unwrap_or(1).max(1)
}

/// Runs `at` with each step of a first deadly, and with each of them each step of a second, until they survive. It says who died.
pub fn each_pair(name: impl Into<String>, from: u64, mut at: impl FnMut(u64, u64) -> Result<[bool; 2], String>) -> Line {
    let mut line = Line::new(name).partly();
    let stride = stride();
    for k1 in (from..MAX_STEPS).step_by(stride as usize) {
        // Another part of them each time.
        for k2 in (1 + k1 / stride % stride..MAX_STEPS).step_by(stride as usize) {
            match at(k1, k2) {
                Ok(died) => {
                    line.ran(died.into_iter().map(u64::from).sum());
                    line.steps += u64::from(died[1]);
                    match died {
                        [_, true] => {}
                        [true, false] => break,
                        [false, false] => return line,
                    }
                }
                Err(why) => {
                    line.failed(format!("steps {k1} and {k2}"), why);
                    return line;
                }
            }
        }
    }
    panic!("{} has no end", line.name);
}
