//! What the ledger's tests share.

use multiproc::{Event, Pool, Task};
use multiproc_tests::{Watched, watch};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Long enough to be seen, short enough to be waited for.
pub const SHORT: Duration = Duration::from_millis(60);

/// A guard that ends a test which hangs: after a minute, or after `LEDGER_SECONDS`.
pub fn watched() -> Watched {
    watch(std::env::var("LEDGER_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60))
}

/// Calls `f`, which must take [`SHORT`] or longer.
pub fn waits<R>(f: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = f();
    assert!(start.elapsed() >= SHORT, "only {:?}", start.elapsed());
    result
}

/// [`SHORT`] from now.
pub fn soon() -> Instant {
    Instant::now() + SHORT
}

/// A task that says by the first event that it runs, and gives 5 once the second is set.
pub fn held(pool: &Pool) -> (Task<u32>, Event, Event) {
    let (runs, go) = (Event::new().unwrap(), Event::new().unwrap());
    let task = pool.submit((runs.clone(), go.clone()), |runs: Event, go: Event| {
        runs.set().unwrap();
        go.wait().unwrap();
        5
    });
    (task.unwrap(), runs, go)
}

/// A command that runs an ignored test of this target as a program of its own.
pub fn program(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]).stdin(Stdio::null());
    command
}

/// Runs an ignored test of this target as a program of its own, which must pass. What it wrote.
pub fn alone(test: &str) -> String {
    let out = program(test).output().expect("it starts");
    let text = said(&out);
    assert!(out.status.success() && text.contains("1 passed"), "{:?}\n{text}", out.status);
    text
}

/// What a program wrote to both streams.
pub fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}
