//! The ledger itself: `docs/CPYTHON.md` has a row for each of CPython's tests, and each row is true.
//!
//! How many tests a class of CPython's has stands in its heading there, and how many there are together here; so a row that goes missing is noticed. What a row names
//! must be a test of this target, every test of this target must be named, and what is put off must still be missing.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const PAGE: &str = include_str!("../../docs/CPYTHON.md");
const FACADE: &str = include_str!("../../crates/multiproc/src/lib.rs");
/// Those of CPython 3.13, with the additions of 3.14.
const TESTS: usize = 373;

/// What becomes of a test of CPython's.
#[derive(Debug)]
enum Fate {
    /// Our tests, as `module::name`.
    Ours(Vec<String>),
    /// Why it has no meaning here.
    NotApplicable(String),
    /// What it needs, and is not there.
    Later(String),
}

#[derive(Debug)]
struct Row {
    class: String,
    python: String,
    fate: Fate,
}

/// The texts between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rows, and what each heading says of how many there are.
fn read() -> (Vec<Row>, BTreeMap<String, usize>) {
    let (mut rows, mut counts, mut class) = (Vec::new(), BTreeMap::new(), String::new());
    for line in PAGE.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            let (name, count) = heading.rsplit_once(" (").unwrap_or_else(|| panic!("no count in {line:?}"));
            class = name.to_owned();
            let count = count.trim_end_matches(')').parse().unwrap_or_else(|_| panic!("no count in {line:?}"));
            assert_eq!(counts.insert(class.clone(), count), None, "{class} twice");
        }
        let Some(row) = line.strip_prefix("| `test") else { continue };
        let (python, fate) = row.split_once("` | ").unwrap_or_else(|| panic!("{line:?}"));
        let fate = fate.trim_end_matches(" |");
        let fate = match (fate.strip_prefix("n/a: "), fate.strip_prefix("later: ")) {
            (Some(reason), _) => Fate::NotApplicable(reason.to_owned()),
            (_, Some(missing)) => Fate::Later(missing.to_owned()),
            _ => Fate::Ours(quoted(fate)),
        };
        rows.push(Row { class: class.clone(), python: format!("test{python}"), fate });
    }
    (rows, counts)
}

/// What this target lists with these arguments.
fn listed(arguments: &[&str]) -> BTreeSet<String> {
    let list = Command::new(std::env::current_exe().expect("this program")).args(arguments).output().expect("a list");
    let list = String::from_utf8(list.stdout).expect("text");
    list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

#[test]
fn the_table_is_complete() {
    let (rows, counts) = read();
    for (class, count) in &counts {
        assert_eq!(rows.iter().filter(|row| row.class == *class).count(), *count, "{class}");
    }
    assert_eq!(rows.len(), TESTS);
    let mut seen = BTreeSet::new();
    for row in &rows {
        assert!(seen.insert((&row.class, &row.python)), "{}.{} twice", row.class, row.python);
        match &row.fate {
            Fate::Ours(tests) => assert!(!tests.is_empty(), "{}.{} names no test", row.class, row.python),
            Fate::NotApplicable(text) | Fate::Later(text) => assert!(text.len() > 3, "{} gives no reason", row.python),
        }
    }
    let of = |kind: fn(&Fate) -> bool| rows.iter().filter(|row| kind(&row.fate)).count();
    let (ours, later) = (of(|fate| matches!(fate, Fate::Ours(_))), of(|fate| matches!(fate, Fate::Later(_))));
    let sums = format!(
        "Of {TESTS} tests {ours} have one of ours, written anew; {later} wait for what is not there yet, {} have",
        TESTS - ours - later
    );
    assert!(PAGE.contains(&sums), "the page does not say: {sums}");
}

#[test]
fn every_test_that_is_named_exists() {
    let tests = listed(&["--list"]);
    for row in read().0 {
        if let Fate::Ours(named) = row.fate {
            for name in named {
                assert!(tests.contains(&name), "{}.{} names {name}, which is no test", row.class, row.python);
            }
        }
    }
}

/// No test stands here that the table does not know. (Those that are programs of other tests are ignored ones.)
#[test]
fn every_test_is_named() {
    let named: BTreeSet<String> =
        read().0.into_iter().flat_map(|row| if let Fate::Ours(tests) = row.fate { tests } else { Vec::new() }).collect();
    let programs = listed(&["--list", "--ignored"]);
    for test in listed(&["--list"]) {
        assert!(
            test.starts_with("ledger::") || programs.contains(&test) || named.contains(&test),
            "{test} stands for no test of CPython's"
        );
    }
}

/// What is put off is still missing: a class that is there has its tests.
#[test]
fn what_is_put_off_is_missing() {
    let code = FACADE.lines().filter(|line| !line.trim_start().starts_with("//"));
    let exported: BTreeSet<&str> = code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_')).collect();
    for row in read().0 {
        if let Fate::Later(missing) = row.fate {
            for name in quoted(&missing) {
                assert!(!exported.contains(name.as_str()), "{}.{} waits for {name}, which is there", row.class, row.python);
            }
        }
    }
}
