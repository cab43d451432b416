//! A parser in C, with its bugs, over thousands of files: each ends with exactly one outcome, and the program goes on.
//!
//! Among healthy files are some on which the parser reads through NULL, runs in a loop for ever, allocates without end, overflows its stack, aborts, or exits with 0. Each
//! such file costs a worker, which is replaced. A time-out alone is tried again: on a busy machine also a healthy file may be late.
//! Python: `ProcessPoolExecutor` breaks for good at the first crash, `Pool` waits for ever; neither ends one task that takes too long, or too much.
//! Run: `cargo run --release --example fragile_parser -- [FILES] [EACH_BUG] [DIRECTORY] [--on processes|threads|inline]`;
//! the files are generated there. Without processes there may be no bugs: EACH_BUG is 0.

use multiproc::{Pool, ProcessError, Signal, TaskError};
use multiproc_examples::{Place, fragile, place_and_arguments};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

/// Texts that the parser does not survive, or come back from.
const BUGS: [fn() -> String; 6] = [
    || "1 ^( ) 2".into(),
    || "1 # the end of this line is missing".into(),
    || "9223372036854775807x7".into(),
    || "(".repeat(500_000),
    || "1 2) 3".into(),
    || "1 ! 2".into(),
];
const TIMEOUT: Duration = Duration::from_millis(300);
/// What a file may take, in bytes; beyond it, its worker is killed.
const MEMORY: u64 = 32 << 20;

/// A text without a bug: some make no sense, which the parser says.
fn healthy(random: &mut fastrand::Rng) -> String {
    let mut text = String::new();
    for _ in 0..random.u32(1..30) {
        text += &match random.u32(..40) {
            0 => "# a comment\n".into(),
            1 => format!("{}x{} ", random.u32(..10), random.u32(..100)),
            2..7 => format!("^({} {}) ", random.u32(..1000), random.u32(..1000)),
            7..12 => format!("({}) ", random.u32(..1000)),
            12 if random.u32(..20) == 0 => "? ".into(),
            _ => format!("{} ", random.u32(..1_000_000)),
        };
    }
    text
}

/// Writes the files, with the bugs spread among them.
fn generate(directory: &Path, files: usize, each_bug: usize) -> io::Result<Vec<PathBuf>> {
    let mut random = fastrand::Rng::with_seed(5);
    let bugs = BUGS.len() * each_bug;
    let mut next = 0;
    let write = |n: usize| {
        let text = if next < bugs && n * bugs >= next * files {
            next += 1;
            BUGS[(next - 1) % BUGS.len()]()
        } else {
            healthy(&mut random)
        };
        let path = directory.join(format!("{n:05}"));
        fs::write(&path, text).map(|()| path)
    };
    (0..files).map(write).collect()
}

/// What a worker does with a file.
fn parse(path: PathBuf) -> Result<u64, String> {
    let text = fs::read(path).map_err(|e| e.to_string())?;
    let text = CString::new(text).map_err(|e| e.to_string())?;
    fragile::sum(&text).map_err(|at| format!("makes no sense at byte {at}"))
}

/// What became of a file.
fn outcome(outcome: Result<Result<u64, String>, TaskError>) -> String {
    match outcome {
        Ok(Ok(sum)) => format!("sum {sum}"),
        Ok(Err(why)) => why,
        Err(TaskError::TimedOut { .. }) => "timed out".into(),
        Err(TaskError::MemoryLimit { .. }) => "used too much memory".into(),
        Err(TaskError::WorkerDied { cause, .. }) => match *cause {
            ProcessError::Signaled { signal: Signal::SEGV, .. } => "crashed".into(),
            ProcessError::Signaled { signal: Signal::ABRT, .. } => "aborted".into(),
            ProcessError::StackOverflow { .. } => "overflowed the stack".into(),
            ProcessError::Exited { code, .. } => format!("exited with {code}"),
            ref other => other.to_string(),
        },
        Err(other) => other.to_string(),
    }
}

/// Kilobytes of memory that only this process has.
fn own_memory() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse().unwrap_or(u64::MAX))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (place, args) = place_and_arguments()?;
    let files: usize = args.first().map_or(Ok(3000), |a| a.parse())?;
    let each_bug: usize = args.get(1).map_or(Ok(if place == Place::Processes { 2 } else { 0 }), |a| a.parse())?;
    if place != Place::Processes && each_bug > 0 {
        return Err("a bug would end this program: only processes outlive it".into());
    }
    let temporary = tempfile::tempdir()?;
    let directory = args.get(2).map_or(temporary.path(), Path::new);
    let paths = generate(directory, files, each_bug)?;

    let builder =
        Pool::builder().task_timeout(TIMEOUT).retries(3).only_if(TaskError::is_timeout).hard_memory_limit_per_worker(MEMORY);
    let pool = place.of(builder).build()?;
    let (mut kinds, mut memory) = (BTreeMap::<String, u32>::new(), (u64::MAX, 0));
    for (path, end) in paths.iter().zip(pool.imap(paths.iter().cloned(), parse)) {
        let end = outcome(end);
        println!("{}: {end}", path.file_name().unwrap_or_default().display());
        let kind = if end.starts_with("sum ") { "parsed" } else { end.split(" at byte").next().unwrap_or_default() };
        *kinds.entry(kind.to_owned()).or_default() += 1;
        // From the first outcome on: threads, tables and buffers are there then.
        let now = own_memory()?;
        memory = (memory.0.min(now), memory.1.max(now));
    }
    for (kind, count) in kinds {
        println!("{count} {kind}");
    }
    println!("memory of this process: went up by {} KiB", memory.1.saturating_sub(memory.0));
    Ok(())
}
