//! Every step: a process dies at each crash point of each operation, and in pairs at those of who comes next. The tests themselves are `tests/tests/crash_*`;
//! here they run, two files at a time, each noting what it passes and where it dies, and the notes are read.
//!
//! What is checked beside the tests' own checks: each point that stands in the source has been died at, in each scene of one death that passed it, by a wake that came without
//! a wait that looks again by itself; and there were enough deaths.

use super::Part;
use crate::interrupt;
use crate::plan::Plan;
use crate::tally::Tally;
use crate::tests::run_with;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

pub const PART: Part =
    Part { name: "steps", what: "a death at every step of every operation, and at every step of who repairs", run };

/// Files of tests that are played at the same time. A scene mostly has one process that is awake.
/// None of them may see what another has made: names in /dev/shm are looked for by one alone.
const AT_ONCE: usize = 2;
/// All deaths of a run, at least.
const DEATHS: u64 = 10_000;
/// At so many of the points that a scene passes somebody has died in that scene. The rest was passed by a chance that did not come again though it was aimed at.
const COVERED_PERMILLE: u64 = 995;
/// Scenes of these are played where the kernel lacks something: waits look again there, and what matters is that they do.
const OLD: &str = ".old";
/// What changes one word at most has no step between two: nobody can die in these.
const WITHOUT_STEPS: [&str; 3] = ["ValueGet, Alone", "EventClear, Alone", "ShareableList: set, Int(9)"];

/// Those features with which the test binaries exist already where everything is tested.
const FEATURES: &str = "crash-points,postcard,tracing-bridge";

/// Step killers in files of other tests.
const ELSEWHERE: [(&str, &str); 1] = [("fork", "it_dies_at_each_step_of_joining")];

/// What a test says of an operation in a scene: steps, runs, deaths, failures.
type Row = (String, [u64; 4]);
/// By file and name.
type Scenes = BTreeMap<(String, String), Scene>;

/// What is known of one scene.
#[derive(Default)]
struct Scene {
    /// Not each step is deadly there, or not in each run: nothing is said of what it only passes.
    partly: bool,
    passed: BTreeSet<String>,
    died: BTreeSet<String>,
    deaths: u64,
    slices: u64,
}

fn run(plan: &Plan) -> Tally {
    let mut tally = Tally::new(&["steps", "runs", "deaths", "failures"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let directory = match tempfile::tempdir() {
        Ok(directory) => directory,
        Err(e) => {
            tally.broken(format!("there is no place for notes: {e}"));
            return tally;
        }
    };
    let notes = directory.path();
    let left = notes.to_owned();
    let _undo = interrupt::undo(move || _ = fs::remove_dir_all(left));
    play(plan, &root, notes, &mut tally);
    let (rows, scenes) = read(notes, &mut tally);
    for (name, cells) in &rows {
        tally.row(name, cells);
        tally.check(cells[3] == 0, || format!("{name}: {} failures", cells[3]));
        let some = cells[2] > 0 || WITHOUT_STEPS.iter().any(|without| name.ends_with(without));
        tally.check(some, || format!("{name}: nobody has died"));
    }
    let sum = [0, 1, 2, 3].map(|i| rows.iter().map(|(_, cells)| cells[i]).sum::<u64>());
    tally.row("all", sum);
    check(&root, &scenes, &mut tally);
    tally
}

/// Runs the tests, each file with notes of its own.
fn play(plan: &Plan, root: &Path, notes: &Path, tally: &mut Tally) {
    let tests = fs::read_dir(root.join("tests/tests")).into_iter().flatten().flatten();
    let names = tests.filter_map(|file| file.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.map(|n| n.trim_end_matches(".rs").to_owned()).filter(|n| n.starts_with("crash_")).collect();
    names.sort();
    let all = names.iter().map(|name| (name.as_str(), "")).chain(ELSEWHERE);
    let left = Mutex::new(all);
    let broken = Mutex::new(Tally::new(&[]));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((file, only)) = left.lock().expect("no lane panics").next() else { break };
                    let quiet = play_file(file, only, plan, notes);
                    broken.lock().expect("no lane panics").take_broken(quiet);
                }
            });
        }
    });
    tally.take_broken(broken.into_inner().expect("no lane panics"));
}

fn play_file(file: &str, only: &str, plan: &Plan, notes: &Path) -> Tally {
    let args = ["-p", "multiproc-tests", "--features", FEATURES, "--test", file, "--", "--test-threads=1", only];
    let args: Vec<&str> = args.into_iter().filter(|arg| !arg.is_empty()).collect();
    let path = notes.join(file);
    // In the short form each second step of a second death, and some of a pool's.
    let form: &[(&str, &str)] = if plan.long { &[("CRASH_POOL_ALL", "1")] } else { &[("CRASH_STRIDE", "2")] };
    let environment = [("MULTIPROC_CRASH_NOTES", path.to_str().unwrap_or_default())];
    let mut quiet = Tally::new(&[]);
    run_with(&args, &[&environment, form].concat(), plan, &mut quiet);
    if plan.long {
        eprintln!("{file}: {}", quiet.verdict());
    }
    quiet
}

/// The rows that the tests have noted, with the name of their file before them, and what was passed and died at in each scene.
fn read(notes: &Path, tally: &mut Tally) -> (Vec<Row>, Scenes) {
    let (mut rows, mut scenes) = (Vec::new(), Scenes::new());
    let files = fs::read_dir(notes).into_iter().flatten().flatten().map(|file| file.path());
    for path in files.collect::<BTreeSet<PathBuf>>() {
        let file = path.file_name().unwrap_or_default().to_string_lossy().trim_start_matches("crash_").to_owned();
        // Whatever a dying process may have left unfinished.
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
        let mut scene = scenes.entry((file.clone(), String::new())).or_default();
        for line in text.lines() {
            let (kind, what) = line.split_once(' ').unwrap_or((line, ""));
            match kind {
                "scene" => scene = scenes.entry((file.clone(), what.to_owned())).or_default(),
                "partly" => scene.partly = true,
                "pass" => _ = scene.passed.insert(what.to_owned()),
                "dies" => {
                    scene.died.insert(what.to_owned());
                    scene.deaths += 1;
                }
                "slice" => scene.slices += 1,
                "row" => {
                    let mut cells = what.split('\t');
                    let name = format!("{file}: {}", cells.next().unwrap_or_default());
                    let cells: Vec<u64> = cells.filter_map(|cell| cell.parse().ok()).collect();
                    match cells.try_into() {
                        Ok(cells) => rows.push((name, cells)),
                        Err(cells) => tally.broken(format!("{name} is noted with {cells:?}")),
                    }
                }
                _ => {}
            }
        }
    }
    (rows, scenes)
}

fn check(root: &Path, scenes: &Scenes, tally: &mut Tally) {
    let points = points(&root.join("crates"), tally);
    let died: BTreeSet<&String> = scenes.values().flat_map(|s| &s.died).collect();
    let never: Vec<&str> = points.iter().filter(|p| !died.contains(p)).map(String::as_str).collect();
    tally.check(never.is_empty(), || format!("nobody has died at {}", never.join(", ")));
    let unknown: Vec<&str> = died.iter().filter(|p| !points.contains(**p)).map(|p| p.as_str()).collect();
    tally.check(unknown.is_empty(), || format!("not found in the source: {}", unknown.join(", ")));
    let deaths: u64 = scenes.values().map(|s| s.deaths).sum();
    tally.check(deaths >= DEATHS, || format!("{deaths} deaths are less than {DEATHS}"));
    let new = |file: &str| !file.ends_with(OLD);
    for ((file, name), scene) in scenes.iter().filter(|((file, _), scene)| new(file) && scene.slices > 0) {
        tally.broken(format!("{file}: {name}: {} waits looked again by themselves", scene.slices));
    }
    let (mut reached, mut covered, mut spared) = (0, 0, Vec::new());
    for ((file, name), scene) in scenes.iter().filter(|((_, name), scene)| !scene.partly && !name.is_empty()) {
        let missed: Vec<&str> = scene.passed.difference(&scene.died).map(String::as_str).collect();
        reached += scene.passed.len() as u64;
        covered += (scene.passed.len() - missed.len()) as u64;
        if !missed.is_empty() {
            spared.push(format!("  {file}: {name}: {}", missed.join(", ")));
        }
    }
    tally.note(format!(
        "{deaths} deaths at {} of {} points, in {} scenes",
        points.len() - never.len(),
        points.len(),
        scenes.keys().filter(|(_, name)| !name.is_empty()).count()
    ));
    tally.note(format!("of {reached} points passed, each counted once in each scene, {covered} were died at there"));
    if !spared.is_empty() {
        tally.note(format!("the others, which a run passes now and then:\n{}", spared.join("\n")));
    }
    tally.check(covered * 1000 >= reached * COVERED_PERMILLE, || format!("only {covered} of {reached} were died at"));
}

/// All ids of crash points in the source. Each stands there once.
fn points(crates: &Path, tally: &mut Tally) -> BTreeSet<String> {
    let (mut found, mut left) = (BTreeMap::<String, u32>::new(), vec![crates.to_owned()]);
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
            // Models have points of their own.
            left.extend(entries.filter(|p| !p.ends_with("tests") && !p.ends_with("target")));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_default();
            for call in text.split("crash::point(").skip(1) {
                match call.split('"').collect::<Vec<_>>()[..] {
                    ["", id, ref rest @ ..] if rest.first().is_some_and(|rest| rest.starts_with(')')) => {
                        *found.entry(id.to_owned()).or_default() += 1;
                    }
                    _ => tally.broken(format!("{}: a crash point without a plain id", path.display())),
                }
            }
        }
    }
    for (id, count) in found.iter().filter(|(_, count)| **count > 1) {
        tally.broken(format!("{count} points are named {id}"));
    }
    found.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_point_of_the_source_has_an_id_of_its_own() {
        let mut tally = Tally::new(&[]);
        let found = points(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates"), &mut tally);
        assert!(tally.holds(), "{tally}");
        assert!(found.len() > 200 && found.contains("lock.pending"), "{}", found.len());
    }
}
