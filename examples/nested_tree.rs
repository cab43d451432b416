//! A tree of processes of depth 3 that is killed at its root by `kill -9`: everybody below ends with it.
//!
//! Python: the children of a killed parent live on, and so do theirs.
//! Run: `cargo run --example nested_tree`

use multiproc::{Error, Process, Queue};
use std::time::{Duration, Instant};

/// Depth, name and id of a process.
type Report = (u32, String, u32);

/// Reports, starts two processes below, and never ends by itself.
fn branch(depth: u32, reports: Queue<Report>) {
    let me = multiproc::current_process();
    reports.put((depth, me.name, me.pid)).expect("the queue has room");
    if depth < 3 {
        for _ in 0..2 {
            drop(grow(depth + 1, &reports).expect("a child starts"));
        }
    }
    loop {
        std::thread::park();
    }
}

fn grow(depth: u32, reports: &Queue<Report>) -> Result<Process<()>, Error> {
    Process::spawn((depth, reports.clone()), branch)
}

/// Running, not dead and waiting to be reaped.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state stands behind the name, which is in brackets.
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let reports = Queue::bounded(100)?;
    let root = grow(1, &reports)?;
    let mut tree = (0..7).map(|_| reports.get()).collect::<Result<Vec<_>, _>>()?;
    tree.sort_by(|a, b| a.1.cmp(&b.1));
    for (depth, name, _) in &tree {
        println!("{}{name}", "  ".repeat(*depth as usize - 1));
    }

    root.kill()?;
    if let Err(end) = root.join() {
        let end = end.to_string();
        println!("the root {}", end.split_once(") ").map_or("ended", |(_, how)| how));
    }
    let alive = || tree.iter().filter(|(_, _, pid)| is_alive(*pid)).count();
    let deadline = Instant::now() + Duration::from_secs(10);
    while alive() > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("of {} processes {} are alive", tree.len(), alive());
    Ok(())
}
