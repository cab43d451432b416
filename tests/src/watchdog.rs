//! Ends a test that hangs, and says who waits for whom.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

static WATCHED: Mutex<BTreeMap<u64, (String, Instant)>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);
static START: Once = Once::new();

/// While it lives, its test is watched.
#[derive(Debug)]
pub struct Watched(u64);

/// Aborts the test binary, after a report, if the calling test has not ended in `seconds`.
pub fn watch(seconds: u64) -> Watched {
    START.call_once(|| {
        thread::spawn(look);
    });
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = thread::current().name().unwrap_or("a test").to_owned();
    lock().insert(id, (name, Instant::now() + Duration::from_secs(seconds)));
    Watched(id)
}

impl Drop for Watched {
    fn drop(&mut self) {
        lock().remove(&self.0);
    }
}

fn lock() -> std::sync::MutexGuard<'static, BTreeMap<u64, (String, Instant)>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look() {
    loop {
        thread::sleep(Duration::from_millis(500));
        let now = Instant::now();
        let late: Vec<_> = lock().values().filter(|(_, end)| *end <= now).map(|(name, _)| name.clone()).collect();
        if !late.is_empty() {
            // Not by eprintln!, which libtest captures, and drops at an abort.
            let text = format!("watchdog: {} hangs\n{}\n{}", late.join(", "), report(std::process::id()), multiproc::dump());
            let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
            std::process::abort();
        }
    }
}

/// The tree of processes below `root`, with each thread's state and the place in the kernel where it sleeps.
pub fn report(root: u32) -> String {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        if let Some(parent) = stat(&format!("/proc/{pid}/stat")).and_then(|s| s.1.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut out = String::new();
    describe(root, 0, &children, &mut out);
    out
}

fn describe(pid: u32, depth: usize, children: &BTreeMap<u32, Vec<u32>>, out: &mut String) {
    let indent = "    ".repeat(depth);
    out.push_str(&format!("{indent}process {pid}\n"));
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let dir = task.path();
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default().trim().to_owned();
        let state = stat(&dir.join("stat").to_string_lossy()).map(|s| s.0).unwrap_or_default();
        let stack = read("stack").lines().take(3).collect::<Vec<_>>().join(" < ");
        let syscall = read("syscall");
        out.push_str(&format!("{indent}  {} {state} {} [{syscall}] {stack}\n", read("comm"), read("wchan")));
    }
    for &child in children.get(&pid).into_iter().flatten() {
        describe(child, depth + 1, children, out);
    }
}

/// State and parent from a stat file. The name before them may hold anything, a closing bracket included.
fn stat(path: &str) -> Option<(String, String)> {
    let text = fs::read_to_string(path).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
}
