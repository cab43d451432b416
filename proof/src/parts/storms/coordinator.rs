//! The coordinator of a storm is killed, and nothing of its tree stays: no process, nothing in /dev/shm, no memory.

use super::EVENTUALLY;
use super::census::{kib, segments};
use super::order::Order;
use super::stage::command;
use crate::interrupt;
use crate::tally::Tally;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// No process of the tree is alive this long after its coordinator.
const GONE: Duration = Duration::from_secs(1);
/// Others of the machine may use more or less shared memory meanwhile.
const SLACK_KIB: u64 = 64 << 10;

/// Kills so many coordinators in the middle of a storm.
pub fn run(times: u64, dawdle: u64, random: &mut fastrand::Rng, tally: &mut Tally) {
    const SCENES: [&str; 9] = ["get", "lease", "pipe", "lock", "permits", "barrier", "condition", "event", "pool"];
    let (names, shared) = (segments(), kib("/proc/meminfo", "Shmem"));
    let (mut longest, mut late) = (Duration::ZERO, 0);
    for n in 0..times {
        let scene = SCENES[n as usize % SCENES.len()];
        let order = Order { by_spawn: 30, dawdle, ..Order::new(scene, random.u64(..), 1_000_000) };
        match kill_one(&order, random) {
            Ok(took) => {
                longest = longest.max(took);
                late += u64::from(took > GONE);
            }
            Err(what) => tally.broken(format!("{order}: {what}")),
        }
    }
    let new: Vec<_> = segments().difference(&names).filter(|name| name.contains("multiproc")).cloned().collect();
    tally.check(new.is_empty(), || format!("left in /dev/shm by dead coordinators: {new:?}"));
    let limit = Instant::now() + EVENTUALLY;
    while kib("/proc/meminfo", "Shmem") > shared + SLACK_KIB && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(10));
    }
    let now = kib("/proc/meminfo", "Shmem");
    tally.check(now <= shared + SLACK_KIB, || format!("shared memory of the machine: {shared} KiB became {now} KiB"));
    tally.check(late == 0, || format!("{late} trees lived for more than {GONE:?} after their coordinator, one for {longest:?}"));
    tally.note(format!(
        "{times} coordinators were killed in the middle of a storm: the last process of each tree was gone after {:.1} ms at most",
        longest.as_secs_f64() * 1e3
    ));
}

fn kill_one(order: &Order, random: &mut fastrand::Rng) -> Result<Duration, String> {
    let mut child = command(order).stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    let _undo = interrupt::kill(&child);
    let Some(out) = child.stdout.take() else { return Err("no pipe".to_owned()) };
    let mut out = BufReader::new(out);
    let mut line = String::new();
    while line != "running\n" {
        line.clear();
        if out.read_line(&mut line).map_err(|e| e.to_string())? == 0 {
            return Err("the storm ended before it was killed".to_owned());
        }
    }
    std::thread::sleep(Duration::from_micros(random.u64(2000..60_000)));
    child.kill().map_err(|e| e.to_string())?;
    let killed = Instant::now();
    // All processes of the tree have the pipe: its end says that none is left.
    let mut rest = String::new();
    out.read_to_string(&mut rest).map_err(|e| e.to_string())?;
    let took = killed.elapsed();
    child.wait().map_err(|e| e.to_string())?;
    if let Some(broken) = rest.lines().find(|line| line.starts_with("broken")) {
        return Err(broken.to_owned());
    }
    Ok(took)
}
