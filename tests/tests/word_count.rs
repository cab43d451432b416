//! The main job from outside: the built `word_count` against coreutils, with workers and coordinators killed, and with bad input.
//!
//! All processes of a run share its stdout and stderr, so reading those to their end waits until none of them is left. Each run has a
//! temporary directory of its own, which is empty afterwards.

use multiproc_tests::watchdog::{Watched, watch};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

/// The definition of the right result, for one file.
const COREUTILS: &str = r"tr -cs 'A-Za-z' '\n' | tr A-Z a-z | grep . | sort | uniq -c";

/// Words, and how often each occurs.
type Counts = BTreeMap<String, u64>;

// ---- the program --------------------------------------------------------------------------------------------------

/// The example, built as this test was. Cargo builds it only as a test when it tests examples.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let me = env::current_exe().expect("this test has a path");
        let profile = me.ancestors().nth(2).expect("tests lie in target/PROFILE/deps");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "multiproc-examples", "--example", "word_count", "--target-dir"]);
        cargo.arg(profile.parent().expect("a profile lies in a target directory"));
        cargo.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
        if let Some(other) = profile.file_name().and_then(OsStr::to_str).filter(|name| *name != "debug") {
            cargo.args(["--profile", other]);
        }
        assert!(cargo.status().expect("cargo runs").success(), "word_count does not build");
        profile.join("examples/word_count")
    })
}

/// Watches a test, once there is something to test.
fn begin(seconds: u64) -> Watched {
    binary();
    watch(seconds)
}

/// A run of the program that is going on.
struct Run {
    child: Child,
    stdin: Option<ChildStdin>,
    stderr: BufReader<ChildStderr>,
    temporary: Directory,
    /// What lay in /dev/shm when it began.
    before: BTreeSet<OsString>,
}

/// What a run has said.
#[derive(Debug)]
struct Said {
    out: String,
    err: String,
    status: ExitStatus,
}

impl Run {
    fn start<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
        Run::with(Command::new(binary()).args(args))
    }

    fn with(command: &mut Command) -> Run {
        let (temporary, before) = (Directory::new(), in_shared_memory());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("TMPDIR", &temporary.0);
        let mut child = command.spawn().expect("the example starts");
        let stderr = BufReader::new(child.stderr.take().expect("stderr is a pipe"));
        Run { stdin: child.stdin.take(), child, stderr, temporary, before }
    }

    /// The pids of the workers that live.
    fn workers(&self) -> Vec<i32> {
        let parent = self.child.id().to_string();
        let is_child = |pid: &i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit_once(") ").unwrap_or_default().1.split(' ').collect();
            fields.get(1) == Some(&&*parent) && fields.first() != Some(&"Z")
        };
        let pids = fs::read_dir("/proc").expect("/proc is mounted").flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_child).collect()
    }

    /// Waits for `n` workers.
    fn crew(&self, n: usize) -> Vec<i32> {
        loop {
            let workers = self.workers();
            if workers.len() == n {
                return workers;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The next line of stderr.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).expect("stderr is read");
        line
    }

    /// Writes to stdin from another thread, and closes it.
    fn feed(&mut self, text: Vec<u8>) {
        let mut stdin = self.stdin.take().expect("stdin is open");
        // Fails when the program ends early, which the test sees otherwise.
        thread::spawn(move || drop(stdin.write_all(&text)));
    }

    /// Reads everything until nobody is left who could write.
    fn end(mut self) -> Said {
        drop(self.stdin.take());
        let mut stderr = self.stderr;
        let err = thread::spawn(move || {
            let mut err = String::new();
            stderr.read_to_string(&mut err).map(|_| err)
        });
        let mut out = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut out).expect("stdout is read");
        }
        let err = err.join().expect("the reader does not panic").expect("stderr is read");
        let status = self.child.wait().expect("our child");
        let left: Vec<_> = fs::read_dir(&self.temporary.0).expect("our directory").flatten().collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        let left: Vec<_> = in_shared_memory().difference(&self.before).cloned().collect();
        assert!(left.is_empty(), "left in /dev/shm: {left:?}");
        Said { out, err, status }
    }
}

impl Said {
    /// The counts of a run with `--top 0` that was to succeed.
    fn counts(&self) -> Counts {
        assert!(self.status.success(), "{self:?}");
        counts(&self.out)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Said {
    Run::start(args).end()
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: takes two numbers; fails when there is no such process.
    unsafe { libc::kill(pid, signal) };
}

/// What of ours lies in /dev/shm. Others come and go there.
fn in_shared_memory() -> BTreeSet<OsString> {
    let entries = fs::read_dir("/dev/shm").into_iter().flatten().flatten().map(|entry| entry.file_name());
    entries.filter(|name| name.to_string_lossy().contains("multiproc")).collect()
}

// ---- the input ----------------------------------------------------------------------------------------------------

/// A directory that goes when it is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static MADE: AtomicU32 = AtomicU32::new(0);
        // Relaxed: a counter.
        let name = format!("word-count-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).expect("a directory of our own");
        Directory(path)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a file lies in a directory")).expect("a directory");
        fs::write(&path, content).expect("a file");
        path
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `len` bytes of words and of what separates them. Xorshift, so that it is the same each time.
fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed * 2 + 1;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut text = Vec::with_capacity(len + 32);
    while text.len() < len {
        let letters = b"etaoinETAOINshrdlu";
        for _ in 0..random(4) + random(3) {
            text.push(letters[random(18) as usize]);
        }
        match random(12) {
            0 => text.extend(b"\r\n"),
            1 => text.extend("\u{e9}\u{17f}\u{212a}".as_bytes()),
            2 => text.push(random(256) as u8),
            3 => text.extend(b"'s 4ever_"),
            _ => text.push(b' '),
        }
    }
    text.truncate(len);
    text
}

/// A tree with all that a tree may have, and the files of it that count, each once.
struct Tree {
    root: Directory,
    _outside: Directory,
    files: Vec<PathBuf>,
}

fn tree() -> Tree {
    let (root, outside) = (Directory::new(), Directory::new());
    let mut files = vec![
        root.file("large", text(1, 300_000)),
        root.file("d/medium.txt", text(2, 40_000)),
        root.file("d/deep/er/and/deeper", text(3, 5_000)),
        root.file(".hidden/.too", "hidden words"),
        root.file("empty", ""),
        root.file("binary", (0..60_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<_>>()),
        root.file("one-word", "x".repeat(20_000)),
        root.file("ends-in-a-word", "these words"),
        root.file("goes-on-with-a-word", "do not join"),
        outside.file("linked", text(4, 3_000)),
        outside.file("linked-directory/f", text(5, 3_000)),
    ];
    let odd = root.0.join(OsString::from_vec(b"not \xff\xfe utf-8\n".to_vec()));
    fs::write(&odd, text(6, 10_000)).expect("a file");
    files.push(odd);
    for (to, name) in [
        (root.0.join("large"), "link-to-what-is-there"),
        (root.0.clone(), "d/loop"),
        (outside.0.join("linked"), "link"),
        (outside.0.join("linked"), "link-again"),
        (outside.0.join("linked-directory"), "d/directory"),
        (outside.0.join("linked-directory"), "directory-again"),
    ] {
        symlink(to, root.0.join(name)).expect("a link");
    }
    Tree { root, _outside: outside, files }
}

/// Reads lines as `uniq -c` writes them.
fn counts(lines: &str) -> Counts {
    let entry = |line: &str| {
        let (n, word) = line.trim_start().split_once(' ').expect("a number and a word");
        (word.to_owned(), n.parse().expect("a number"))
    };
    lines.lines().map(entry).collect()
}

/// What coreutils say of these files, one by one, added up.
fn by_coreutils<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Counts {
    let mut sum = Counts::new();
    for file in files {
        let mut pipeline = Command::new("sh");
        pipeline.args(["-c", COREUTILS]).env("LC_ALL", "C").stdin(File::open(file).expect("our file"));
        let output = pipeline.output().expect("coreutils run");
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        for (word, n) in counts(str::from_utf8(&output.stdout).expect("ASCII")) {
            *sum.entry(word).or_default() += n;
        }
    }
    sum
}

fn args<'a>(paths: impl IntoIterator<Item = &'a Path>, options: &str) -> Vec<OsString> {
    let paths = paths.into_iter().map(|path| path.as_os_str().to_owned());
    options.split_whitespace().map(Into::into).chain(paths).collect()
}

// ---- equality -----------------------------------------------------------------------------------------------------

#[test]
fn a_tree_counts_as_coreutils_count_its_files() {
    let _watched = begin(120);
    let tree = tree();
    let expected = by_coreutils(&tree.files);
    assert!(expected.len() > 1000);
    for options in ["--workers 1", "--workers 2", "--workers 9", "--workers 3 --chunk-size 700", ""] {
        let said = run(args([&*tree.root.0], &format!("--top 0 {options}")));
        assert_eq!(said.counts(), expected, "{options}");
        assert_eq!(said.err, "");
    }
}

#[test]
fn lines_and_json_say_the_same() {
    let _watched = begin(60);
    let tree = tree();
    let expected = by_coreutils(&tree.files);
    let mut order: Vec<(&String, &u64)> = expected.iter().collect();
    order.sort_by(|(a, n), (b, m)| m.cmp(n).then(a.cmp(b)));

    let lines = run(args([&*tree.root.0], "--top 5"));
    let top: Vec<String> = order[..5].iter().map(|(word, n)| format!("{n:>7} {word}\n")).collect();
    assert_eq!(lines.out, top.concat());

    let json = run(args([&*tree.root.0], "--json --top 3")).json();
    assert_eq!(json["files"], tree.files.len());
    assert_eq!(json["bytes"], tree.files.iter().map(|file| fs::metadata(file).expect("our file").len()).sum::<u64>());
    assert_eq!(json["words"], expected.values().sum::<u64>());
    assert_eq!(json["distinct"], expected.len());
    let top: Vec<Value> = order[..3].iter().map(|(word, n)| serde_json::json!([word, n])).collect();
    assert_eq!(json["top"], Value::from(top));
    assert_eq!(json.get("chaos"), None);
}

#[test]
fn stdin_and_files_together() {
    let _watched = begin(60);
    let directory = Directory::new();
    let (piped, file) = (directory.file("piped", text(7, 200_000)), directory.file("file", text(8, 1000)));
    let mut run = Run::start(args([Path::new("-"), &file, &file], "--top 0"));
    run.feed(fs::read(&piped).expect("our file"));
    assert_eq!(run.end().counts(), by_coreutils([&piped, &file, &file]));
}

// ---- chaos --------------------------------------------------------------------------------------------------------

/// The numbers of the last line, as `killed 30, with a lease 19, redelivered 19, duplicates dropped 3, lost 0`.
fn chaos_line(said: &Said) -> [u64; 5] {
    let line = said.err.lines().last().unwrap_or_default();
    let names = ["killed ", "with a lease ", "redelivered ", "duplicates dropped ", "lost "];
    let parts: Vec<&str> = line.split(", ").collect();
    assert_eq!(parts.len(), names.len(), "{said:?}");
    std::array::from_fn(|i| parts[i].strip_prefix(names[i]).and_then(|n| n.parse().ok()).expect("a number"))
}

#[test]
fn thirty_kills_change_nothing() {
    let _watched = begin(240);
    let tree = tree();
    let expected = by_coreutils(&tree.files);
    let mut duplicates = 0;
    for seed in 0..12 {
        let workers = [1, 2, 5][seed % 3];
        let said = run(args([&*tree.root.0], &format!("--top 0 --chaos 30 --seed {seed} --workers {workers}")));
        assert_eq!(said.counts(), expected, "{}", said.err);
        assert!(said.err.contains(&format!("--seed {seed}")), "{}", said.err);
        let [killed, with_a_lease, redelivered, dropped, lost] = chaos_line(&said);
        assert_eq!((killed, lost), (30, 0), "{}", said.err);
        assert!(with_a_lease >= 15 && redelivered >= with_a_lease && dropped >= 1, "{}", said.err);
        // A result comes twice only if its chunk does.
        assert!(dropped <= redelivered, "{}", said.err);
        duplicates += dropped;
    }
    assert!(duplicates >= 48, "four kills in a run come between the result and the acknowledgement: {duplicates}");
}

#[test]
fn chaos_in_json_and_over_a_stream() {
    let _watched = begin(60);
    let directory = Directory::new();
    for size in [3, 1000, 400_000] {
        let file = directory.file("text", text(9, size));
        let mut run = Run::start(["-", "--json", "--top", "0", "--chaos", "30"]);
        run.feed(fs::read(&file).expect("our file"));
        let said = run.end();
        let json = said.json();
        let pair = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_u64()?));
        let top: Counts = json["top"].as_array().expect("an array").iter().filter_map(pair).collect();
        assert_eq!(top, by_coreutils([&file]));
        let names = ["killed", "with_a_lease", "redelivered", "duplicates_dropped", "lost"];
        let numbers = names.map(|name| json["chaos"][name].as_u64().expect("a number"));
        assert_eq!(numbers, chaos_line(&said));
        assert_eq!((numbers[0], numbers[4]), (30, 0));
    }
}

#[test]
fn kills_that_do_not_fit_are_told() {
    let _watched = begin(60);
    let directory = Directory::new();
    let said = run(args([&*directory.file("empty", "")], "--chaos 5"));
    assert!(said.err.contains("only 0 of 5 kills"), "{said:?}");
    assert_eq!(chaos_line(&said), [0; 5]);
    assert_eq!((said.code(), &*said.out), (Some(0), ""));
}

// ---- bad luck -----------------------------------------------------------------------------------------------------

#[test]
fn a_worker_that_is_killed_from_outside_is_named_and_replaced() {
    let _watched = begin(60);
    let directory = Directory::new();
    let file = directory.file("text", text(10, 3_000_000));
    let text = fs::read(&file).expect("our file");
    let mut run = Run::start(["-", "--top", "0", "--workers", "2"]);
    // While there is nothing to do.
    kill(run.crew(2)[0], libc::SIGKILL);
    let line = run.line();
    assert!(line.contains("was ended by SIGKILL; another one takes over"), "{line}");
    // While there is much to do.
    let mut stdin = run.stdin.take().expect("stdin is open");
    let (first, second) = text.split_at(text.len() / 2);
    stdin.write_all(first).expect("it is read");
    kill(run.crew(2)[1], libc::SIGKILL);
    stdin.write_all(second).expect("it is read");
    let line = run.line();
    assert!(line.contains("was ended by SIGKILL; another one takes over"), "{line}");
    drop(stdin);
    let said = run.end();
    assert_eq!(said.counts(), by_coreutils([&file]));
    assert_eq!(said.err, "");
}

#[test]
fn when_all_workers_always_die_it_gives_up() {
    let _watched = begin(60);
    let mut run = Run::start(["-", "--workers", "2"]);
    while run.child.try_wait().expect("our child").is_none() {
        run.workers().into_iter().for_each(|pid| kill(pid, libc::SIGKILL));
        thread::sleep(Duration::from_millis(1));
    }
    let said = run.end();
    assert_eq!(said.code(), Some(2), "{said:?}");
    assert!(said.err.contains("giving up") && said.err.contains("SIGKILL"), "{said:?}");
}

#[test]
fn nobody_is_left_a_second_after_the_coordinator_was_killed() {
    let _watched = begin(60);
    let directory = Directory::new();
    let file = directory.file("text", text(11, 2_000_000));
    let idle = Run::start(["-", "--workers", "4"]);
    idle.crew(4);
    // Also while workers are being stopped, killed and started.
    let in_chaos = (0..5).map(|_| {
        let mut run = Run::start(args([&*file], "--workers 4 --chaos 100000"));
        assert!(run.line().contains("chaos"));
        run.crew(4);
        run
    });
    for mut run in [idle].into_iter().chain(in_chaos) {
        run.child.kill().expect("it lives");
        let killed = Instant::now();
        let said = run.end();
        assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
        assert_eq!(said.code(), None);
    }
}

#[test]
fn a_closed_stdout_is_no_error_and_a_full_one_is() {
    let _watched = begin(60);
    let tree = tree();
    let mut run = Run::start(args([&*tree.root.0], "--top 0"));
    drop(run.child.stdout.take());
    let said = run.end();
    assert_eq!((said.code(), &*said.err), (Some(0), ""));

    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" >/dev/full"]).arg(binary()).args(args([&*tree.root.0], "--top 0"));
    let said = Run::with(&mut command).end();
    assert_eq!(said.code(), Some(2));
    assert!(said.err.contains("stdout: No space left"), "{said:?}");
}

#[test]
fn limits_that_leave_room_are_kept() {
    let _watched = begin(120);
    let tree = tree();
    let expected = by_coreutils(&tree.files);
    for limit in ["ulimit -n 32", "ulimit -v 4000000", "ulimit -f 200000", "exec <&-", "exec 2>&-", "exec <&- 2>&-"] {
        let mut command = Command::new("sh");
        let script = format!("{limit}\nexec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(binary()).args(args([&*tree.root.0], "--top 0 --workers 4 --chaos 5"));
        assert_eq!(Run::with(&mut command).end().counts(), expected, "{limit}");
    }
}

// ---- bad input ----------------------------------------------------------------------------------------------------

#[test]
fn usage_errors() {
    let _watched = begin(60);
    for (args, says) in [
        (&["x", "--workers", "0"][..], "at least 1 worker"),
        (&[], "PATH"),
        (&["x", "--top", "-1"], "-1"),
        (&["x", "--chaos", "many"], "--chaos"),
        (&["x", "--what"], "--what"),
    ] {
        let said = run(args);
        assert_eq!((said.code(), &*said.out), (Some(2), ""), "{args:?}");
        assert!(said.err.contains(says), "{args:?}: {}", said.err);
    }
}

#[test]
fn files_that_cannot_be_read_are_named_and_the_others_counted() {
    let _watched = begin(60);
    let directory = Directory::new();
    let good = directory.file("good", text(12, 50_000));
    let expected = by_coreutils([&good]);
    let missing = directory.0.join("missing");
    let dangling = directory.0.join("dangling");
    symlink("nowhere", &dangling).expect("a link");
    let locked = directory.file("locked", "words");
    assert!(Command::new("chmod").arg("000").arg(&locked).status().expect("chmod runs").success());
    let mut rows = vec![(missing, "No such file"), (dangling, "No such file"), ("/proc/self/mem".into(), "error")];
    // Root may read everything.
    if File::open(&locked).is_err() {
        rows.push((locked, "Permission denied"));
    }
    for chaos in ["", "--chaos 3"] {
        for (bad, why) in &rows {
            let said = run(args([&**bad, &good], &format!("--top 0 {chaos}")));
            assert_eq!((said.code(), counts(&said.out)), (Some(2), expected.clone()), "{said:?}");
            let line = said.err.lines().find(|line| line.contains(&bad.display().to_string()));
            assert!(line.is_some_and(|line| line.starts_with("word_count: ") && line.contains(why)), "{said:?}");
        }
    }
}

#[test]
fn files_that_shrink_are_named_and_the_others_counted() {
    let _watched = begin(60);
    let directory = Directory::new();
    let good = directory.file("good", text(13, 50_000));
    let fifo = directory.fifo("fifo");
    // A worker notices, or who plans the chunks.
    for (size, chunk_size, left) in [(3000, 10_000, 2000), (50_000, 1000, 20_000), (50_000, 1000, 0)] {
        let shrinking = directory.file("shrinking", text(14, size));
        let options = format!("--json --top 1 --chunk-size {chunk_size}");
        let run = Run::start(args([&*fifo, &shrinking, &good], &options));
        // Opened by both: now the files are listed, and none after this one is planned.
        let mut writer = OpenOptions::new().write(true).open(&fifo).expect("our fifo");
        OpenOptions::new().write(true).open(&shrinking).and_then(|file| file.set_len(left)).expect("it shrinks");
        writer.write_all(b"piped").expect("it is read");
        drop(writer);
        let said = run.end();
        assert_eq!(said.code(), Some(2), "{said:?}");
        let named: Vec<&str> = said.err.lines().collect();
        let path = shrinking.display().to_string();
        assert!(named.len() == 1 && named[0].contains(&path) && named[0].contains("shrank"), "{said:?}");
        assert_eq!(said.json()["files"], 2);
        assert!(said.json()["bytes"].as_u64() >= Some(50_005), "{said:?}");
    }
}

#[test]
fn names_may_be_any_bytes() {
    let _watched = begin(60);
    let directory = Directory::new();
    let path = directory.0.join(OsStr::from_bytes(b"-\xff"));
    fs::write(&path, "some words").expect("a file");
    assert_eq!(run(args([&*path], "--top 0")).counts(), by_coreutils([&path]));
}
