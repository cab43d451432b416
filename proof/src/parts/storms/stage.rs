//! Each storm is played in a process of its own, `proof --storm ORDER`: the coordinator of its tree, which may be bound to a core, and killed.

use super::order::Order;
use super::report::Report;
use super::{handover, pool, storm};
use crate::interrupt;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

/// What has a process be slow at some of its steps, if it is built with crash points.
const DAWDLE: &str = "MULTIPROC_DAWDLE";
/// Long enough for another to die, be cleaned up after, and have a successor.
const SLOWEST_US: u64 = 5000;

/// Plays it here.
pub fn play(order: &str) -> ExitCode {
    let Some(order) = Order::parse(order) else {
        eprintln!("no order: {order}");
        return ExitCode::from(2);
    };
    if order.dawdle > 0 && std::env::var_os(DAWDLE).is_none() {
        // An order that was copied from a report.
        eprintln!("{}", command(&order).exec());
        return ExitCode::FAILURE;
    }
    let report = match order.scene.as_str() {
        "pool" => pool::run(&order),
        "handover" => handover::run(&order),
        _ => storm::run(&order),
    };
    report.print();
    if report.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Has another process play it.
pub fn command(order: &Order) -> Command {
    let program = std::env::current_exe().unwrap_or_else(|_| "proof".into());
    let mut command = Command::new(program);
    command.arg("--storm").arg(order.to_string()).stdin(Stdio::null());
    if order.dawdle > 0 {
        command.env(DAWDLE, format!("{}:{SLOWEST_US}", order.dawdle));
    }
    command
}

/// Has it played, and says how it goes on.
pub fn watch(order: &Order) -> Report {
    let mut report = Report::default();
    let mut child = match command(order).stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(e) => {
            report.broken.push(format!("{order}: {e}"));
            return report;
        }
    };
    // An interrupt kills the coordinator, and its tree with it.
    let _undo = interrupt::kill(&child);
    let mut ended = false;
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
        match line.strip_prefix("progress ") {
            Some(progress) => eprint!("\r{:<18}{progress}    ", order.scene),
            None => ended |= report.read(&line),
        }
    }
    eprint!("\r{:60}\r", "");
    let status = child.wait();
    if !ended && report.broken.is_empty() {
        report.broken.push(format!("{order}: ended without a report: {status:?}"));
    }
    report
}
