//! Bad input and bad luck: one row a clause. Each ends with a clear error or the right result, nobody hangs, and nothing stays: no process
//! (the end of the shared pipe says so), no descriptor, no file in /dev/shm or the temporary directory.
//!
//! Clauses that take more than a row stand where their subject is tested: a file that shrinks in `word_count.rs`, `kill -9` of the coordinator in
//! `ends.rs`; what must not compile below.

use multiproc_tests::scene::Scene;
use multiproc_tests::watchdog::watch;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Row {
    clause: &'static str,
    /// Shell commands before the program starts.
    first: &'static str,
    row: &'static str,
    /// What its line contains.
    says: &'static str,
}

const fn row(clause: &'static str, first: &'static str, row: &'static str, says: &'static str) -> Row {
    Row { clause, first, row, says }
}

const ROWS: &[Row] = &[
    row("capacity 0", "", "capacity", "capacity is 1 to"),
    row("a message above the limit", "", "too large", "larger than the 1000 bytes that the queue takes"),
    row("a handle serialised outside", "", "outside", "can only be sent through multiproc's own"),
    row("bytes that do not decode", "", "undecodable", "do not decode as the expected type: odd"),
    row("a child that dies before it says hello", "", "no hello", "ended by SIGABRT"),
    row("exit", "", "exit", "exited with 3"),
    row("abort", "", "abort", "ended by SIGABRT"),
    row("a panic in a second thread", "", "second thread", "the thread panicked: true, the process returned"),
    row("a panic while panicking", "", "double panic", "panicked: "),
    row("a stack overflow", "", "stack overflow", "overflowed its stack"),
    row("the arena's own limit", "", "memory", "handed back, and fits after draining"),
    row("kill -9 of a worker", "", "killed worker", "ended by SIGKILL; the lock tells, job 1 is back, the value is whole"),
    row("ulimit -n 32", "ulimit -n 32", "work", "sum 10100"),
    row("ulimit -v", "ulimit -v 4000000", "work", "sum 10100"),
    row("ulimit -f", "ulimit -f 200000", "work", "sum 10100"),
    row("ulimit -f, too small", "ulimit -f 100", "work", "at least 8 MiB"),
    row("SIGALRM at 1 kHz", "", "alarms", "sum 10100"),
    row("stdin closed", "exec <&-", "work", "sum 10100"),
    row("stderr closed", "exec 2>&-", "work", "sum 10100"),
];

struct WordCountRow {
    clause: &'static str,
    /// Shell commands; `$wc` is the program, `$dir` an empty directory.
    run: &'static str,
    code: i32,
    /// What the output of both streams contains.
    says: &'static [&'static str],
}

const WORD_COUNT_ROWS: &[WordCountRow] = &[
    WordCountRow { clause: "worker count 0", run: "$wc --workers 0 $dir", code: 2, says: &["--workers", "0"] },
    WordCountRow {
        clause: "a missing file",
        run: "echo word >$dir/a; $wc $dir/a $dir/missing",
        code: 2,
        says: &["missing", "No such file", "1 word"],
    },
    WordCountRow {
        clause: "an unreadable file",
        run: "echo word >$dir/a; $wc $dir/a /proc/self/mem",
        code: 2,
        says: &["/proc/self/mem", "1 word"],
    },
    WordCountRow {
        clause: "a closed pipe on stdout",
        run: "seq -f 'w%g' 1 50000 | tr 0-9 a-j >$dir/a; { $wc --top 0 $dir/a; echo code $? >&2; } | head -n 1",
        code: 0,
        says: &["code 0"],
    },
    WordCountRow {
        clause: "kill -9 of workers at any time",
        run: "seq -f 'w%g' 1 50000 | tr 0-9 a-j >$dir/a; $wc --chaos 10 --top 1 $dir/a",
        code: 0,
        says: &["killed 10", "lost 0"],
    },
];

/// The example beside this test, built if it is not there.
fn word_count() -> PathBuf {
    let deps = std::env::current_exe().expect("this test");
    let program = deps.ancestors().nth(2).expect("the profile's directory").join("examples/word_count");
    if !program.exists() {
        let built = Command::new(env!("CARGO")).args(["build", "-p", "multiproc-examples", "--example", "word_count"]).status();
        assert!(built.is_ok_and(|s| s.success()), "the example builds");
    }
    program
}

#[test]
fn every_clause_about_word_count() {
    let program = word_count();
    let _watched = watch(120);
    let mut failed = Vec::new();
    for (n, WordCountRow { clause, run, code, says }) in WORD_COUNT_ROWS.iter().enumerate() {
        let dir = std::env::temp_dir().join(format!("multiproc-bad-luck-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let script = format!("exec 2>&1; {run}");
        let done = Command::new("sh").args(["-c", &script]).env("wc", &program).env("dir", &dir).output().expect("sh");
        std::fs::remove_dir_all(&dir).expect("our directory");
        let out = String::from_utf8_lossy(&done.stdout);
        let ok = done.status.code() == Some(*code) && says.iter().all(|s| out.contains(s));
        println!("{} {clause}: {}", if ok { "ok  " } else { "FAIL" }, out.lines().last().unwrap_or_default());
        if !ok {
            failed.push(format!("{clause}: {}, {out:?}", done.status));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

fn listing(dir: &Path) -> BTreeSet<PathBuf> {
    std::fs::read_dir(dir).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default()
}

#[test]
fn every_clause() {
    let _watched = watch(120);
    let shm = Path::new("/dev/shm");
    let before = listing(shm);
    let temporary = std::env::temp_dir().join(format!("multiproc-bad-luck-{}", std::process::id()));
    std::fs::create_dir_all(&temporary).expect("a directory");
    let mut failed = Vec::new();
    for Row { clause, first, row, says } in ROWS {
        let prepared = format!("{first}\nTMPDIR={}; export TMPDIR", temporary.display());
        let (out, status) = Scene::play_after(&prepared, env!("CARGO_BIN_EXE_bad_luck"), row).end();
        let leaked = !out.contains("descriptors as before");
        let left = listing(&temporary);
        let ok = out.contains(says) && status.success() && !leaked && left.is_empty();
        println!("{} {clause}: {}", if ok { "ok  " } else { "FAIL" }, out.trim());
        if !ok {
            failed.push(format!("{clause}: {out:?}, {status}, left {left:?}, expected {says:?}"));
        }
    }
    std::fs::remove_dir_all(&temporary).expect("our directory");
    assert!(failed.is_empty(), "{failed:#?}");
    // Others may come and go there; what is ours would carry our name.
    let new: Vec<_> = listing(shm).difference(&before).filter(|p| p.to_string_lossy().contains("multiproc")).cloned().collect();
    assert!(new.is_empty(), "{new:?}");
}

/// What must not compile, and its twin that must: with the compiler that built this test, against the library as it was built for it.
#[test]
fn closures_that_capture_and_arguments_that_are_borrowed_do_not_compile() {
    let _watched = watch(120);
    let deps = std::env::current_exe().expect("this test").parent().expect("deps").to_owned();
    let newest = |prefix: &str| {
        let all = listing(&deps).into_iter().filter(|p| {
            p.extension().is_some_and(|e| e == "rlib") && p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix))
        });
        all.max_by_key(|p| p.metadata().and_then(|m| m.modified()).ok()).expect("the library")
    };
    let library = newest("libmultiproc-");
    let check = |body: &str| {
        let source = format!("fn main() {{ let n = 5u64; let _ = n; {body} }}");
        let out = std::env::temp_dir().join(format!("multiproc-compile-{}", std::process::id()));
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args(["--edition=2024", "--emit=metadata", "-", "-o"]).arg(&out);
        rustc
            .arg("--extern")
            .arg(format!("multiproc={}", library.display()))
            .arg("-L")
            .arg(format!("dependency={}", deps.display()));
        let mut child = rustc.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("rustc");
        std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), source.as_bytes()).expect("rustc reads");
        let done = child.wait_with_output().expect("rustc ends");
        let _ = std::fs::remove_file(out);
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (fine, said) = check("let _ = multiproc::Process::spawn((n,), |n| n + 1);");
    assert!(fine, "{said}");
    let (fine, said) = check("let _ = multiproc::Process::spawn((), move || n + 1);");
    assert!(!fine && said.contains("closures can only be coerced to `fn` types if they do not capture any variables"), "{said}");
    let (fine, said) = check("let _ = multiproc::Process::spawn((&n,), |n: &u64| *n);");
    assert!(!fine, "{said}");
    let (fine, said) = check("let _ = multiproc::Process::spawn(5u64, |n: u64| n);");
    assert!(!fine && said.contains("the arguments must be a tuple"), "{said}");
}
