//! Runs the examples with small intervals and checks what they print, that they succeed, and that no process of theirs is left.
//!
//! A process of an example is known by a variable in its environment, which its children inherit. They also inherit its
//! standard output, so the pipe's end is the end of the last of them: the event that a run waits for, with a limit.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// The small examples in learning order.
const NAMES: [&str; 21] = [
    "start_and_join",
    "worker_struct",
    "producer_consumer",
    "pipe_between_children",
    "bounded_buffer",
    "counters",
    "barrier_phases",
    "shared_matrix",
    "arrow_columns",
    "daemon_workers",
    "long_task",
    "monitor",
    "wait_any",
    "kill_nine",
    "nested_tree",
    "sum_of_squares",
    "sha256_tree",
    "fragile_parser",
    "flaky_job",
    "pool_monitor",
    "await_task",
];
/// Where a pool runs its calls.
const PLACES: [&str; 3] = ["processes", "threads", "inline"];
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
/// When the watchdog ends a run.
const LIMIT: Duration = Duration::from_secs(120);
const MARK: &str = "MULTIPROC_TEST_RUN";

fn mark() -> String {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    // Relaxed: a counter.
    format!("{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed))
}

/// The example's binary beside this one, built if it is not there or older than its source: `cargo test` has built it unless it was told
/// to test this package alone.
fn binary(name: &str) -> PathBuf {
    static BUILD: Mutex<()> = Mutex::new(());
    let me = std::env::current_exe().expect("this test has a path");
    let profile = me.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
    let path = profile.join("examples").join(name);
    let _one_at_a_time = BUILD.lock().unwrap_or_else(PoisonError::into_inner);
    let changed = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let file = Path::new(EXAMPLES).join(name).with_extension("rs");
    let parts = fs::read_dir(Path::new(EXAMPLES).join(name)).into_iter().flatten().flatten();
    if changed(&path) < parts.map(|part| part.path()).chain([file]).filter_map(|source| changed(&source)).max() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--package", "multiproc-examples", "--example", name, "--target-dir"]);
        cargo.arg(profile.parent().expect("a profile lies in a target directory"));
        match profile.file_name().and_then(OsStr::to_str) {
            Some("debug") | None => {}
            Some(other) => drop(cargo.args(["--profile", other])),
        }
        assert!(cargo.status().expect("cargo runs").success(), "{name} does not build");
    }
    path
}

/// `pid command-line` of the processes that carry the mark. Zombies have no environment and do not count.
fn alive(mark: &str) -> Vec<String> {
    let wanted = format!("{MARK}={mark}");
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let ours = processes.filter(|p| {
        let environ = fs::read(p.path().join("environ")).unwrap_or_default();
        environ.split(|&b| b == 0).any(|v| v == wanted.as_bytes())
    });
    let line = |p: fs::DirEntry| {
        let command = fs::read(p.path().join("cmdline")).unwrap_or_default();
        format!("{} {}", p.file_name().display(), String::from_utf8_lossy(&command).replace('\0', " "))
    };
    ours.map(line).collect()
}

/// Sends what a stream says, line by line, until its end.
fn follow(stream: impl Read + Send + 'static, is_error: bool, to: mpsc::Sender<(bool, String)>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let line = line.unwrap_or_else(|e| format!("unreadable: {e}"));
            if to.send((is_error, line)).is_err() {
                break;
            }
        }
    });
}

/// Runs an example, which succeeds and writes nothing to stderr, and returns the lines of its standard output.
fn run(name: &str, args: &[&str]) -> Vec<String> {
    let (out, err, succeeded) = run_any(name, args);
    assert!(succeeded, "{name} {args:?}: stdout {out:#?}, stderr {err:#?}");
    assert_eq!(err, [""; 0], "{name} {args:?}: stderr");
    out
}

/// Runs an example with its pool in each place, with the same result.
fn run_on_all(name: &str, args: &[&str]) -> Vec<String> {
    let [first, rest @ ..] = PLACES.map(|place| run(name, &[args, &["--on", place]].concat()));
    for (other, place) in rest.iter().zip(&PLACES[1..]) {
        assert_eq!(*other, first, "{name} {args:?} on {place}");
    }
    first
}

/// Runs an example; the lines of its standard output and of its stderr, and whether it succeeded.
fn run_any(name: &str, args: &[&str]) -> (Vec<String>, Vec<String>, bool) {
    let mark = mark();
    let mut command = Command::new(binary(name));
    command.args(args).env(MARK, &mark).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child: Child = command.spawn().expect("the example starts");
    let (to, lines) = mpsc::channel();
    follow(child.stdout.take().expect("stdout is piped"), false, to.clone());
    follow(child.stderr.take().expect("stderr is piped"), true, to);

    let (mut out, mut err) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + LIMIT;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((false, line)) => out.push(line),
            Ok((true, line)) => err.push(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let left = alive(&mark);
                let _ = child.kill();
                let _ = child.wait();
                panic!("{name} {args:?} did not end; left {left:#?}, stdout {out:#?}, stderr {err:#?}");
            }
        }
    }
    let status = child.wait().expect("the example is this process's child");
    assert_eq!(alive(&mark), [""; 0], "{name} {args:?} has left processes");
    (out, err, status.success())
}

/// The number that follows `before` in `line`.
fn number_after(line: &str, before: &str) -> Option<u64> {
    let digits = line.strip_prefix(before)?;
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

#[test]
fn start_and_join() {
    let expected =
        ["MainProcess has started Process-1 and Process-2", "there are 1229 primes below 10000 and 1033 from there to 20000"];
    assert_eq!(run("start_and_join", &[]), expected);
}

#[test]
fn worker_struct_is_seeded_and_keeps_its_state() {
    let one = ["first die: [96, 95, 97, 99, 91, 122] in 600 rolls", "second die: [98, 95, 107, 94, 93, 113] in 600 rolls"];
    assert_eq!(run("worker_struct", &["1"]), one);
    let two = run("worker_struct", &["2"]);
    assert_eq!(two[0], one[1].replace("second", "first"));
    assert_ne!(two[1], one[0].replace("first", "second"));
}

#[test]
fn producer_consumer() {
    let refused = "one more is refused: the queue is closed";
    assert_eq!(run("producer_consumer", &["5000"]), ["consumed 5000 items, their sum is 12502500", refused]);
    assert_eq!(run("producer_consumer", &["0"]), ["consumed 0 items, their sum is 0", refused]);
}

#[test]
fn pipe_between_children() {
    let found = ["guesser: it is 667 after 8 guesses", "thinker: saw the end after 8 answers"];
    assert_eq!(run("pipe_between_children", &[]), found);
    let died = ["guesser: the thinker has died (the guess went out: true) after 3 guesses", "thinker: ended by SIGABRT"];
    assert_eq!(run("pipe_between_children", &["1000", "3"]), died);
}

#[test]
fn bounded_buffer() {
    let free = "4 of 4 slots are free again";
    let passed = |n: u32, sum: u32| format!("2 producers and 3 consumers passed {n} items, their sum is {sum}");
    assert_eq!(run("bounded_buffer", &["3001"]), [passed(3001, 4504501).as_str(), free]);
    assert_eq!(run("bounded_buffer", &["0"]), [passed(0, 0).as_str(), free]);
}

#[test]
fn counters_are_exact() {
    let expected =
        ["expected             20000", "atomic               20000", "value, its own lock  20000", "value, separate lock 20000"];
    assert_eq!(run("counters", &["2000"]), expected);
}

#[test]
fn barrier_phases_go_on_after_a_death() {
    let expected = [
        "a worker was told of a death: true",
        "a worker was killed in phase 6",
        "a worker was told of a death: true",
        "broken: true",
        "phases: 12",
    ];
    assert_eq!(run("barrier_phases", &["12"]), expected);
}

#[test]
fn shared_matrix() {
    assert_eq!(run("shared_matrix", &["500"]), ["row 350 of 500 has the largest sum: 100004.95"]);
    assert_eq!(run("shared_matrix", &["1"]), ["row 0 of 1 has the largest sum: 100004.95"]);
}

#[test]
fn arrow_columns() {
    let same = "the buffer is the worker's memory: true, aligned: true";
    assert_eq!(run("arrow_columns", &["70000"]), [same, "10000 measurements at station 3, on average 19.75 degrees"]);
    assert_eq!(run("arrow_columns", &["0"]), [same, "0 measurements at station 3, on average 0.00 degrees"]);
}

#[test]
fn daemon_workers_end_with_the_program() {
    let mut expected = vec!["each of 5 workers has counted to 10: true".to_owned()];
    expected.extend((0..5).map(|n| format!("still running: counter-{n}")));
    expected.push("the program ends".into());
    assert_eq!(run("daemon_workers", &["1", "10"]), expected);
}

#[test]
fn long_task_reports_while_it_runs() {
    let mut lines = run("long_task", &["5", "100000"]);
    assert_eq!(lines.pop().as_deref(), Some("below 100000, 77031 has the longest chain: 350 steps"));
    assert!(!lines.is_empty(), "there is a tick before the result");
    let mut last = 0;
    for (line, tick) in lines.iter().zip(1..) {
        let done = number_after(line, &format!("tick {tick}: ")).unwrap_or_else(|| panic!("tick {tick} is {line:?}"));
        assert!((last..100).contains(&done), "{done} after {last}");
        assert_eq!(*line, format!("tick {tick}: {done} % done"));
        last = done;
    }
}

#[test]
fn monitor_gets_the_permit_of_a_killed_job_back() {
    // The jobs would wait for an hour, so what happens depends on nothing but the order of the ticks.
    let mut lines = run("monitor", &["20", "12", "3600000", "2"]);
    let death = &mut lines[6];
    let pid = number_after(death, "process job-3 (pid ").unwrap_or_else(|| panic!("no death: {death:?}"));
    *death = death.replace(&pid.to_string(), "PID");
    let took = number_after(&lines[13], "12 ticks took ").unwrap_or_else(|| panic!("no time: {:?}", lines[13]));
    assert!(took >= 12 * 20, "{took} ms");

    let scheduled = |tick| format!("tick {tick}: job-{tick} is scheduled");
    let full = |tick| format!("tick {tick}: no permit is free, 5 jobs wait");
    let mut expected: Vec<String> = (1..=5).map(scheduled).collect();
    expected.extend([full(6), "process job-3 (pid PID) was ended by SIGKILL; its permit is back".into(), scheduled(7)]);
    expected.extend((8..=12).map(full));
    expected.extend([format!("12 ticks took {took} ms"), "0 fired, 5 called off, 1 killed".into()]);
    assert_eq!(lines, expected);
}

#[test]
fn wait_any_serves_all_and_sees_who_dies() {
    let mut lines = run("wait_any", &["200", "1"]);
    assert_eq!(lines.pop().unwrap_or_default(), format!("sums: {:?}", [200 * 201 / 2, 100 * 101 / 2, 200 * 201 / 2]));
    lines.sort();
    let died = lines.iter().position(|line| line.starts_with("worker 1: ")).map(|i| lines.remove(i)).unwrap_or_default();
    assert!(died.contains("was ended by SIGABRT"), "{died:?}");
    assert_eq!(lines, ["the program says hello", "worker 0 has ended", "worker 2 has ended"]);
}

#[test]
fn monitor_never_schedules_more_than_five() {
    let mut lines = run("monitor", &["5", "60", "40", "1"]);
    let tally = lines.pop().unwrap_or_default();
    let counts: Vec<i32> = tally.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    // A job says that it fires before it gives its permit back, so those that have not said so have permits.
    let (mut ticks, mut scheduled, mut fired, mut killed) = (0, 0, 0, 0);
    for line in &lines {
        let is_tick = line.starts_with(&format!("tick {}: ", ticks + 1));
        ticks += i32::from(is_tick);
        scheduled += i32::from(is_tick && line.ends_with(" is scheduled"));
        fired += i32::from(line.ends_with(" fires"));
        killed += i32::from(line.ends_with("was ended by SIGKILL; its permit is back"));
        assert!(scheduled - fired - killed <= 5, "at {line:?} in {lines:#?}");
    }
    assert_eq!(ticks, 60);
    assert!(scheduled > 5, "permits come back: {lines:#?}");
    assert_eq!(counts.iter().sum::<i32>(), scheduled, "{tally}");
    assert_eq!(counts[2], killed, "{tally}");
    // The killed job may have said that it fires, too.
    assert!((counts[0]..=counts[0] + killed).contains(&fired), "{fired}, {tally}");
}

#[test]
fn kill_nine() {
    let expected = [
        "victim: ended by SIGKILL",
        "lock: its owner died; recovered; fit for use",
        "value: 100",
        "job: send the letter, attempt 2",
        "messages lost: 0, waiting: 0",
    ];
    assert_eq!(run("kill_nine", &[]), expected);
}

#[test]
fn nested_tree() {
    let expected = [
        "Process-1",
        "  Process-1:1",
        "    Process-1:1:1",
        "    Process-1:1:2",
        "  Process-1:2",
        "    Process-1:2:1",
        "    Process-1:2:2",
        "the root was ended by SIGKILL",
        "of 7 processes 0 are alive",
    ];
    assert_eq!(run("nested_tree", &[]), expected);
}

#[test]
fn sum_of_squares() {
    assert_eq!(run_on_all("sum_of_squares", &["20000"]), ["the squares of 1 to 20000 are together 2666866670000"]);
    assert_eq!(run_on_all("sum_of_squares", &["0"]), ["the squares of 1 to 0 are together 0"]);
}

#[test]
fn sha256_tree_agrees_with_coreutils() {
    let tree = tempfile::tempdir().expect("a directory can be made");
    let path = |name: &str| tree.path().join(name).to_str().expect("a UTF-8 name").to_owned();
    fs::create_dir_all(path("b/below")).expect("a directory can be made");
    let names = ["a", "b/below/with space", "b/line\nend", "b/slash\\", "c"];
    for (name, length) in names.iter().zip([0, 1, 63, 64, 300_000]) {
        fs::write(path(name), (0..length).map(|n: usize| ((n * n) >> 3) as u8).collect::<Vec<_>>())
            .expect("a file can be written");
    }
    std::os::unix::fs::symlink("a", path("link")).expect("a link can be made");

    let lines = run_on_all("sha256_tree", &[&path("")]);
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!((lines.len(), lines[0].as_str()), (names.len(), format!("{empty}  {}", path("a")).as_str()));
    let Ok(real) = Command::new("sha256sum").args(names.map(path)).output() else {
        println!("not compared: there is no sha256sum here");
        return;
    };
    assert_eq!(lines, String::from_utf8_lossy(&real.stdout).lines().collect::<Vec<_>>());
}

#[test]
fn sha256_tree_goes_on_after_a_file_that_cannot_be_read() {
    let tree = tempfile::tempdir().expect("a directory can be made");
    let path = |name: &str| tree.path().join(name).to_str().expect("a UTF-8 name").to_owned();
    fs::write(path("a"), "a").expect("a file can be written");
    fs::write(path("c"), "c").expect("a file can be written");
    for place in PLACES {
        let (out, err, succeeded) = run_any("sha256_tree", &[&path("a"), &path("b"), &path("c"), "--on", place]);
        assert!(!succeeded);
        assert_eq!((out.len(), err.len()), (2, 1), "{out:?}, {err:?}");
        assert!(out[1].ends_with(&path("c")) && err[0].contains(&path("b")), "{out:?}, {err:?}");
    }
}

/// What `fragile_parser` says of a text without a bug, by another way of reading it.
fn evaluate(text: &str) -> String {
    let text: String = text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect::<Vec<_>>().join(" ");
    let number = |word: &str| word.parse::<u64>().expect("a number");
    let mut words = text.split(['(', ')', ' ']).filter(|word| !word.is_empty());
    let mut sum = 0;
    while let Some(word) = words.next() {
        sum += match word.split_once('x') {
            Some((times, of)) => number(times) * number(of),
            None if word == "^" => number(words.next().unwrap_or_default()).max(number(words.next().unwrap_or_default())),
            None => number(word),
        };
    }
    format!("sum {sum}")
}

/// The outcome that a file of `fragile_parser` shall have.
fn expected_outcome(text: &str) -> String {
    let bugs = [
        ("1 ^( )", "crashed"),
        ("1 # the end", "timed out"),
        ("9223372036854775807x", "used too much memory"),
        ("((", "overflowed the stack"),
        ("1 2) 3", "aborted"),
        ("1 !", "exited with 0"),
    ];
    let bug = bugs.iter().find(|(start, _)| text.starts_with(start)).map(|(_, end)| (*end).to_owned());
    let senseless = || text.find('?').map(|at| format!("makes no sense at byte {at}"));
    bug.or_else(senseless).unwrap_or_else(|| evaluate(text))
}

#[test]
fn fragile_parser_gives_each_file_its_outcome() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().to_str().expect("a UTF-8 name");
    let mut lines = run_any("fragile_parser", &["2000", "2", path]).0;
    let memory = lines.pop().unwrap_or_default();
    let grown = number_after(&memory, "memory of this process: went up by ").unwrap_or_else(|| panic!("no memory: {memory:?}"));
    // Without an end it would take what it reads, and one of the files is half a MiB, twice.
    assert!(grown < 4096, "{grown} KiB");

    for (at, line) in lines[..2000].iter().enumerate() {
        let text = fs::read_to_string(directory.path().join(format!("{at:05}"))).expect("the file was generated");
        assert_eq!(*line, format!("{at:05}: {}", expected_outcome(&text)));
    }
    let ends = ["crashed", "timed out", "used too much memory", "overflowed the stack", "aborted", "exited with 0"];
    for end in ends {
        assert!(lines[2000..].contains(&format!("2 {end}")), "2 {end} in {:#?}", &lines[2000..]);
    }
    assert_eq!(lines[2000..].iter().filter_map(|line| number_after(line, "")).sum::<u64>(), 2000);
}

#[test]
fn fragile_parser_without_bugs_is_the_same_everywhere() {
    let mut runs = PLACES.map(|place| {
        let mut lines = run("fragile_parser", &["300", "0", "--on", place]);
        assert!(lines.pop().is_some_and(|memory| memory.starts_with("memory")));
        lines
    });
    assert!(runs[0][300..].iter().any(|line| line.ends_with(" makes no sense")), "{:?}", &runs[0][300..]);
    runs.sort();
    assert_eq!(runs[0], runs[2]);
    let refused = run_any("fragile_parser", &["10", "1", "--on", "threads"]);
    assert!(!refused.2 && refused.1[0].contains("would end this program"), "{refused:?}");
}

#[test]
fn flaky_job_is_tried_again() {
    let mut expected = Vec::new();
    for job in (0..8).step_by(4) {
        expected.extend((0..3).map(|more| format!("answer {}, at attempt {}", job + more, more + 1)));
        expected.push(format!("job {} is given up: no answer at attempt 3", job + 3));
    }
    expected.push("18 attempts in all".into());
    assert_eq!(run_on_all("flaky_job", &["8"]), expected);
}

#[test]
fn pool_monitor_never_schedules_more_than_five() {
    // The jobs would wait for an hour.
    for place in ["processes", "threads"] {
        let mut lines = run("pool_monitor", &["20", "7", "3600000", "0", "--on", place]);
        let mut expected: Vec<String> = (1..=5).map(|tick| format!("tick {tick}: job {tick} is scheduled")).collect();
        expected.extend((6..=7).map(|tick| format!("tick {tick}: no place is free, 5 jobs wait")));
        expected.extend((1..=5).map(|tick| format!("job {tick} is called off")));
        expected.push("0 fired, 5 called off, 0 died".into());
        // A job in a thread that has not begun when the monitor closes ends as the others do, in any order.
        lines[7..12].sort();
        assert_eq!(lines, expected, "{place}");
    }
}

#[test]
fn pool_monitor_gets_the_place_of_a_dead_job_back() {
    let lines = run("pool_monitor", &["20", "20", "3600000", "3"]);
    assert!(lines.contains(&"job 3 was ended by SIGABRT; its place is free".into()), "{lines:#?}");
    let scheduled = lines.iter().filter(|line| line.ends_with("is scheduled")).count();
    // A sixth when the death is told before the last tick.
    assert!((5..=6).contains(&scheduled), "{lines:#?}");
    assert_eq!(lines.last(), Some(&format!("0 fired, {} called off, 1 died", scheduled - 1)));
}

#[test]
fn pool_monitor_schedules_everywhere() {
    for place in PLACES {
        let lines = run("pool_monitor", &["5", "4", "0", "0", "--on", place]);
        for tick in 1..=4 {
            assert!(lines.contains(&format!("tick {tick}: job {tick} is scheduled")), "{place}: {lines:#?}");
        }
        let tally = lines.last().map(String::as_str).unwrap_or_default();
        // The last ones may come to look when the monitor closes; inline they have looked by then.
        let fired = number_after(tally, "").unwrap_or_default();
        assert_eq!(tally, format!("{fired} fired, {} called off, 0 died", 4 - fired), "{place}");
        assert!(fired == 4 || place != "inline", "{tally}");
    }
}

#[test]
fn await_task() {
    let expected = ["the runtime does something else meanwhile", "there are 1229 primes below 10000"];
    assert_eq!(run_on_all("await_task", &["10000"]), expected);
}

/// What `torture` says at its end.
fn assert_unharmed(lines: &[String], killed: u64) {
    let [tally, tortured, undisturbed, verdict] = lines else { panic!("four lines: {lines:#?}") };
    assert!(tally.starts_with(&format!("killed {killed}, redelivered ")) && tally.ends_with(", lost 0"), "{tally}");
    let blocks = number_after(tortured, "").unwrap_or_default();
    let sum = |line: &str, what: &str| line.strip_prefix(&format!("{blocks} blocks, {what}  ")).map(str::to_owned);
    assert_eq!(sum(tortured, "checksum").map(|sum| sum.len()), Some(64), "{tortured}");
    assert_eq!(sum(tortured, "checksum"), sum(undisturbed, "nobody killed"));
    assert_eq!(verdict, "the same");
}

#[test]
fn torture_changes_nothing() {
    let calm = run("torture", &["--blocks", "100", "--kib", "1"]);
    assert_unharmed(&calm, 0);
    assert!(calm[1].starts_with("100 blocks, "), "{calm:#?}");
    let lines = run("torture", &["--blocks", "100", "--kib", "16", "--workers", "3", "--auto", "30", "--seed", "7"]);
    assert_eq!(lines[0], "seed 7");
    assert_unharmed(&lines[1..], 30);
}

/// A terminal of 100 columns: its keyboard and picture, and what programs use.
fn terminal() -> (fs::File, fs::File) {
    let (mut ours, mut theirs) = (-1, -1);
    let size = libc::winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: two places for descriptors and a size, all alive.
    let failed = unsafe { libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null(), &size) };
    assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: open, and nobody else's.
    let ours = unsafe { fs::File::from_raw_fd(ours) };
    // SAFETY: as above.
    let theirs = unsafe { fs::File::from_raw_fd(theirs) };
    (ours, theirs)
}

/// How a terminal treats what is typed and shown.
fn mode(terminal: &fs::File) -> [libc::tcflag_t; 4] {
    // SAFETY: numbers.
    let mut mode: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the place is alive.
    assert_eq!(unsafe { libc::tcgetattr(terminal.as_raw_fd(), &mut mode) }, 0, "{}", std::io::Error::last_os_error());
    [mode.c_iflag, mode.c_oflag, mode.c_cflag, mode.c_lflag]
}

/// Sends a signal to a child of this process that has not been waited for.
fn signal(pid: i32, signal: i32) {
    // SAFETY: numbers.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// Runs `torture` on a terminal, kills a worker by its key, does `end`, and returns what was shown after that.
fn torture_on_a_terminal(end: impl FnOnce(&mut fs::File, i32)) -> String {
    let (mut ours, theirs) = terminal();
    let before = mode(&theirs);
    let stdio = || Stdio::from(theirs.try_clone().expect("a descriptor is left"));
    let mut command = Command::new(binary("torture"));
    // Blocks that take longer than a tick, so that who looks sees them at work.
    command.args(["--blocks", "1000000", "--kib", "256"]).stdin(stdio()).stdout(stdio()).stderr(stdio());
    let mut child = command.spawn().expect("the example starts");
    let pid = i32::try_from(child.id()).expect("a pid");
    let (to, shown) = mpsc::channel();
    let mut picture = ours.try_clone().expect("a descriptor is left");
    thread::spawn(move || {
        let mut part = [0; 4096];
        // Fails when the last program that used the terminal has ended.
        while let Ok(n @ 1..) = picture.read(&mut part) {
            if to.send(String::from_utf8_lossy(&part[..n]).into_owned()).is_err() {
                break;
            }
        }
    });
    let deadline = Instant::now() + LIMIT;
    let mut text = String::new();
    let until = |text: &mut String, wanted: &str| {
        while !text.contains(wanted) {
            match shown.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(more) => text.push_str(&more),
                Err(e) => {
                    signal(pid, libc::SIGKILL);
                    let last: String = text.chars().rev().take(2000).collect::<Vec<_>>().into_iter().rev().collect();
                    panic!("no {wanted:?}: {e}, .. {last:?}");
                }
            }
        }
        text.split_off(text.find(wanted).unwrap_or_default())
    };
    until(&mut text, "lease of block");
    assert_ne!(mode(&theirs), before, "keys come at once");
    ours.write_all(b"1").expect("the terminal takes a key");
    let after = until(&mut text, "killed 1, redelivered ");
    text = after;
    end(&mut ours, pid);
    let after = until(&mut text, "\u{1b}[?1049l");
    text = after;
    let last = until(&mut text, "the same");
    assert!(child.wait().expect("the example is this process's child").success(), "{text}{last}");
    assert_eq!(mode(&theirs), before, "the terminal is as it was");
    assert!(text.contains("\u{1b}[?25h"), "the cursor is seen again: {text:?}");
    text
}

#[test]
fn torture_gives_the_terminal_back() {
    let text = torture_on_a_terminal(|keyboard, _| keyboard.write_all(b"\x03").expect("the terminal takes a key"));
    assert!(text.contains("killed 1, redelivered ") && text.contains(", lost 0"), "{text:?}");
    torture_on_a_terminal(|_, pid| signal(pid, libc::SIGTERM));
}

#[test]
fn each_example_is_introduced() {
    let read = |name: &str| fs::read_to_string(Path::new(EXAMPLES).join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let readme = read("README.md");
    let mut rest = readme.as_str();
    for name in NAMES {
        let row = rest.find(&format!("| [{name}]({name}.rs) |")).unwrap_or_else(|| panic!("{name} has no row in its place"));
        rest = &rest[row..];
        let source = read(&format!("{name}.rs"));
        let head: Vec<_> = source.lines().take_while(|l| l.starts_with("//!")).collect();
        assert!(head.iter().any(|l| l.starts_with("//! Python: ")), "{name} names the Python idiom");
        assert!(head.iter().any(|l| l.contains("//! Run: `cargo run ") && l.contains(name)), "{name} names its command");
    }
}
