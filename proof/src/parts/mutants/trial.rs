//! Runs a test in the copy, with a limit of time.

use super::rows::rust_files;
use super::tree::Tree;
use crate::interrupt;
use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

/// A test, as `cargo test` is asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Test {
    package: &'static str,
    /// The test's file; none: the package's unit tests.
    file: &'static str,
    filter: &'static str,
    /// What the step killers that can be asked for one scene are asked for.
    only: &'static str,
}

impl Test {
    /// Unit tests of a crate.
    pub const fn unit(package: &'static str, filter: &'static str) -> Test {
        Test { package, file: "", filter, only: "" }
    }

    /// A crate's own tests of the shipping code under a model checker.
    pub const fn model(package: &'static str, file: &'static str, filter: &'static str) -> Test {
        Test { package, file, filter, only: "" }
    }

    /// Tests with processes, which can be killed at each step.
    pub const fn steps(file: &'static str, filter: &'static str) -> Test {
        Test { package: "multiproc-tests", file, filter, only: "" }
    }

    /// One of the proof's own tests: a small storm, or an operation stepped through.
    pub const fn proof(filter: &'static str) -> Test {
        Test { package: "multiproc-proof", file: "", filter, only: "" }
    }

    /// Of these only the scenes whose name contains this.
    pub const fn only(self, only: &'static str) -> Test {
        Test { only, ..self }
    }

    /// Whether it neither starts processes nor takes long.
    pub fn is_cheap(&self) -> bool {
        !matches!(self.package, "multiproc-tests" | "multiproc-proof")
    }

    /// Whether the sources have a test, or a module of tests, that begins so.
    pub fn is_there(&self, home: &Path) -> io::Result<bool> {
        let folder = match self.package {
            "multiproc-tests" => home.join("tests"),
            "multiproc-proof" => home.join("proof"),
            package => home.join("crates").join(package.trim_start_matches("multiproc-")),
        };
        let mut files = Vec::new();
        if self.file.is_empty() {
            rust_files(&folder.join("src"), &mut files)?;
        } else {
            rust_files(&folder.join("tests"), &mut files)?;
            files.retain(|path| {
                path.strip_prefix(folder.join("tests")).is_ok_and(|p| p.with_extension("").starts_with(self.file))
            });
        }
        let name = self.filter.rsplit("::").next().unwrap_or_default();
        let has = |path: &PathBuf| {
            let text = fs::read_to_string(path)?;
            Ok(path.file_stem().is_some_and(|stem| stem == name)
                || ["fn ", "mod "].iter().any(|of| text.contains(&format!("{of}{name}"))))
        };
        files.iter().map(has).try_fold(false, |any, has: io::Result<bool>| Ok(any | has?))
    }

    fn arguments(&self) -> Vec<&'static str> {
        let mut arguments = vec!["-p", self.package];
        if self.package == "multiproc-tests" {
            arguments.extend(["--features", "crash-points"]);
        }
        match self.file {
            "" if self.package == "multiproc-proof" => arguments.extend(["--bin", "proof"]),
            "" => arguments.push("--lib"),
            file => arguments.extend(["--test", file]),
        }
        arguments
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = if self.file.is_empty() { self.package } else { self.file };
        write!(f, "{file} {}", self.filter)?;
        if self.only.is_empty() { Ok(()) } else { write!(f, " ({})", self.only) }
    }
}

/// What came of a test.
pub enum Outcome {
    /// In this time.
    Passed(Duration),
    /// How.
    Failed(String),
    /// Why.
    NotBuilt(String),
}

/// Beyond this, nothing is built any more.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);

/// Builds the test, and runs it for at most `limit`.
pub fn run(tree: &Tree, test: &Test, limit: Duration) -> io::Result<Outcome> {
    let built = attempt(tree, test, true, BUILD_LIMIT)?;
    if !built.is_some_and(|status| status.success()) {
        return Ok(Outcome::NotBuilt(words(tree)));
    }
    let begin = Instant::now();
    Ok(match attempt(tree, test, false, limit)? {
        Some(status) if status.success() => Outcome::Passed(begin.elapsed()),
        Some(status) => Outcome::Failed(failure(&words(tree), status)),
        None => Outcome::Failed(format!("hangs: {} s", limit.as_secs())),
    })
}

/// `None`: it took longer than the limit, and has been killed with all its processes.
fn attempt(tree: &Tree, test: &Test, build_only: bool, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let log = tree.log();
    fs::create_dir_all(log.parent().unwrap_or(&log))?;
    let out = File::create(&log)?;
    let mut command = tree.cargo_test();
    command.args(test.arguments()).stdin(std::process::Stdio::null()).stdout(out.try_clone()?).stderr(out);
    if build_only {
        command.arg("--no-run");
    } else {
        // There who sleeps looks again each 10 ms, which hides what is missing.
        command.args(["--", test.filter, "--skip", "on_an_old_kernel", "--show-output"]);
    }
    if !test.only.is_empty() {
        command.env("CRASH_ONLY", test.only).env(format!("{}_ONLY", test.file.to_uppercase()), test.only);
    }
    let child = command.process_group(0).spawn()?;
    let group = child.id() as libc::pid_t;
    // SAFETY: no memory is involved. The group is the child's own, and is undone at most a moment after the child was waited for.
    let _undo = interrupt::undo(move || _ = unsafe { libc::kill(-group, libc::SIGKILL) });
    ended_within(child, limit)
}

fn ended_within(mut child: Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(10));
    }
    let group = child.id() as libc::pid_t;
    // SAFETY: no memory is involved; the group is the child's, which has not been waited for, so nobody else has its number.
    unsafe { libc::kill(-group, libc::SIGKILL) };
    child.wait()?;
    Ok(None)
}

fn words(tree: &Tree) -> String {
    String::from_utf8_lossy(&fs::read(tree.log()).unwrap_or_default()).into_owned()
}

/// A line that says how a test failed.
fn failure(words: &str, status: ExitStatus) -> String {
    let failed = words.lines().filter(|line| line.starts_with("test ") && line.ends_with("FAILED")).count();
    match failed {
        0 => format!("ended: {status}"),
        1 => "fails".into(),
        n => format!("{n} fail"),
    }
}

/// How long each test takes without a mutant; each is run once.
#[derive(Default)]
pub struct Baselines(HashMap<Test, Result<Duration, String>>);

impl Baselines {
    /// How long the test may take, which must pass as the sources are.
    pub fn limit(&mut self, tree: &Tree, test: &Test) -> Result<Duration, String> {
        let known = self.0.entry(*test).or_insert_with(|| {
            let outcome = run(tree, test, BUILD_LIMIT).map_err(|e| e.to_string())?;
            match outcome {
                Outcome::Passed(_) if !ran_any(&words(tree)) => Err("there is no such test".into()),
                Outcome::Passed(_) if !words(tree).contains(test.only) => Err("there is no such scene".into()),
                Outcome::Passed(time) => Ok(time),
                Outcome::Failed(how) => Err(format!("{how}\n{}", words(tree))),
                Outcome::NotBuilt(text) => Err(text),
            }
        });
        // Enough for a machine that is busy now and was not then.
        known.clone().map(|time| time * 4 + Duration::from_secs(30))
    }
}

fn ran_any(words: &str) -> bool {
    words.lines().any(|line| line.starts_with("test result: ok. ") && !line.starts_with("test result: ok. 0 passed"))
}
