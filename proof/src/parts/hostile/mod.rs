//! Hostile memory: a process of the tree writes over words of shared memory while the others use what lies there. Operations may fail, and must return: no signal,
//! no panic, no operation with a time-out that hangs.
//!
//! `PROOF_HOSTILE=seed:writes:milliseconds` plays one round again.

mod board;
mod round;

use super::Part;
use crate::interrupt;
use crate::plan::Plan;
use crate::tally::Tally;
use board::Board;
use multiproc_tests::is_gone;
use round::Order;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

pub const PART: Part =
    Part { name: "hostile", what: "a process writes over words that the others read: errors, and nothing else", run };

/// An operation waits for a millisecond or two, and has so long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(2);
/// A round ends within this after its last operation.
const END: Duration = Duration::from_secs(30);
const ORDER: &str = "PROOF_HOSTILE_ROUND";
/// For the user.
const AGAIN: &str = "PROOF_HOSTILE";

/// In the coordinator of a round, runs it and does not return.
pub fn begin_if_asked() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let order = parsed(&order).expect("three numbers");
    let path = std::env::args().nth(1).expect("the board");
    round::coordinate(Path::new(&path), order);
    std::process::exit(0);
}

/// What [`start`] and [`AGAIN`] are told.
fn parsed(order: &str) -> Option<Order> {
    let mut numbers = order.split(':').map(|n| n.parse().ok());
    let mut number = || numbers.next().flatten();
    Some(Order { seed: number()?, writes: number()?, millis: number()? })
}

/// What came of a round.
#[derive(Default)]
struct Outcome {
    writes: u64,
    live: u64,
    /// Not put back at once.
    left: u64,
    done: u64,
    refused: u64,
    broken: Vec<String>,
}

fn run(plan: &Plan) -> Tally {
    let mut tally = Tally::new(&["words", "of them read", "left so", "done", "refused"]);
    let rounds = plan.count(8, 700);
    let (millis, writes) = (plan.count(700, 900), plan.count(10_000, 15_000));
    let mut random = plan.random("hostile");
    let mut sum = Outcome::default();
    if let Ok(order) = std::env::var(AGAIN) {
        let Some(order) = parsed(&order) else {
            tally.broken(format!("{AGAIN}={order} is not seed:writes:milliseconds"));
            return tally;
        };
        one(order).broken.into_iter().for_each(|broken| tally.broken(broken));
        tally.skip("one round only");
        return tally;
    }
    for n in 0..rounds {
        let order = Order { seed: random.u64(..), writes, millis };
        let outcome = one(order);
        for broken in outcome.broken {
            tally.broken(format!("round {n}, {AGAIN}={}:{writes}:{millis}: {broken}", order.seed));
        }
        sum.writes += outcome.writes;
        sum.live += outcome.live;
        sum.left += outcome.left;
        sum.done += outcome.done;
        sum.refused += outcome.refused;
        if plan.long && n % 50 == 49 {
            println!("{} rounds, {} words, {} operations", n + 1, sum.writes, sum.done + sum.refused);
        }
    }
    tally.row(format!("{rounds} rounds"), [sum.writes, sum.live, sum.left, sum.done, sum.refused]);
    tally.check(sum.live * 2 >= sum.writes, || "fewer than half of the words are read".into());
    tally.check(sum.writes >= plan.count(50_000, 10_000_000), || format!("only {} words were written over", sum.writes));
    let operations = sum.done + sum.refused;
    tally.check(operations >= plan.count(5_000, 1_000_000), || format!("only {operations} operations"));
    tally
}

fn one(order: Order) -> Outcome {
    let mut outcome = Outcome::default();
    let path = std::env::temp_dir().join(format!("proof-hostile-{}-{:x}", std::process::id(), order.seed));
    let board = match File::create(&path).and_then(|_| Board::map(&path)) {
        Ok(board) => board,
        Err(error) => {
            outcome.broken.push(format!("no board: {error}"));
            return outcome;
        }
    };
    match start(&path, order) {
        Ok(mut coordinator) => {
            let left = path.clone();
            let _undo = (interrupt::undo(move || _ = std::fs::remove_file(left)), interrupt::kill(&coordinator));
            watch(board, &mut coordinator, order, &mut outcome);
            end(board, &mut coordinator, &mut outcome);
        }
        Err(error) => outcome.broken.push(format!("it did not start: {error}")),
    }
    let _ = std::fs::remove_file(&path);
    for actor in board.all() {
        outcome.writes += actor.writes[0].load(Ordering::Relaxed);
        outcome.live += actor.writes[1].load(Ordering::Relaxed);
        outcome.left += actor.writes[2].load(Ordering::Relaxed);
        outcome.done += actor.done.load(Ordering::Relaxed);
        outcome.refused += actor.refused.load(Ordering::Relaxed);
    }
    outcome
}

fn start(path: &Path, Order { seed, writes, millis }: Order) -> std::io::Result<Child> {
    let order = format!("{seed}:{writes}:{millis}");
    Command::new("/proc/self/exe").arg(path).env(ORDER, order).stdin(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// Until the coordinator has ended, or something is broken.
fn watch(board: &Board, coordinator: &mut Child, order: Order, outcome: &mut Outcome) {
    let limit = Instant::now() + Duration::from_millis(order.millis) * 8 + END;
    loop {
        let late = board.actors().find(|(_, actor)| actor.is_late(PATIENCE));
        if let Some((index, actor)) = late {
            let pid = actor.pid.load(Ordering::Relaxed);
            let operation = actor.operation.load(Ordering::Relaxed);
            let said = actor.panic().map(|text| format!(", after a panic: {text}")).unwrap_or_default();
            outcome.broken.push(format!("actor {index} hangs in operation {}{said}: {}", name(operation), standing(pid)));
            return;
        }
        match coordinator.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) if status.success() => return,
            Ok(Some(status)) => {
                outcome.broken.push(format!("the coordinator ended with {status}"));
                return;
            }
            Err(error) => outcome.broken.push(error.to_string()),
        }
        if Instant::now() > limit {
            outcome.broken.push(format!("it does not end: {}", standing(coordinator.id())));
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn name(operation: u32) -> String {
    let own = round::OWN.iter().find(|(number, _)| *number == operation);
    own.map_or_else(|| operation.to_string(), |(_, name)| (*name).to_owned())
}

/// How the threads of a process stand.
fn standing(pid: u32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lines = tasks.map(|task| {
        let read = |what: &str| std::fs::read_to_string(task.path().join(what)).unwrap_or_default().trim().to_owned();
        let state = read("stat").rsplit(')').next().unwrap_or_default().trim().chars().next().unwrap_or('?');
        format!("{} {state} in {} ({})", read("comm"), read("wchan"), read("syscall"))
    });
    lines.collect::<Vec<_>>().join("; ")
}

/// Everybody has ended, and how.
fn end(board: &Board, coordinator: &mut Child, outcome: &mut Outcome) {
    if !outcome.broken.is_empty() {
        let _ = coordinator.kill();
    }
    let _ = coordinator.wait();
    for (index, actor) in board.actors() {
        let pid = actor.pid.load(Ordering::Relaxed);
        let signal = actor.signal.load(Ordering::Relaxed);
        let within = name(actor.operation.load(Ordering::Relaxed));
        if signal != 0 {
            let [address, place] = [0, 1].map(|i| actor.fault[i].load(Ordering::Relaxed));
            outcome
                .broken
                .push(format!("actor {index} got signal {signal} in operation {within} at {place:#x}, touching {address:#x}"));
        }
        // A worker of a pool ends so when it cannot tell an outcome: its end is the task's outcome then.
        if let Some(text) = actor.panic().filter(|text| !text.contains("the outcome of a task cannot be told")) {
            outcome.broken.push(format!("actor {index} panicked in operation {within}: {text}"));
        }
        let begin = Instant::now();
        while !is_gone(pid) {
            if begin.elapsed() > PATIENCE {
                outcome.broken.push(format!("actor {index} lives on: {}", standing(pid)));
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        if outcome.broken.is_empty() && !actor.is_done() {
            let how = actor.end.load(Ordering::Relaxed);
            outcome.broken.push(format!("actor {index} ended in operation {within}: {how}"));
        }
    }
}
