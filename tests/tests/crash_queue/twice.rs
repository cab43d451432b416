//! A second death: of who repairs what the first has left, or has a wake in hand that the first owed.

use crate::common_queue::{Form, LIMIT, Watchdog, alone, eventually, is_dead, sleeps_on};
use crate::op::{Op, Scene};
use crate::play::{PROCEED, account, play};
use crate::run::{Run, ended};
use crate::sizes::BYTES;
use crate::stage::{Order, Stage};
use crate::steps::{Table, notes_apart};
use crate::watched::{each_pair, wanted};
use multiproc::{Queue, testing};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Whoever acknowledges the last message dies at one step, the joiner that the kernel wakes for it at another; a second joiner goes on.
fn play_wake_in_hand(stage: &Stage, k1: u64, k2: u64) -> Result<(bool, bool), String> {
    let mut run = Run {
        stage,
        q: Queue::builder().capacity(6).byte_limit(BYTES).build().unwrap(),
        handle: Queue::bounded(7).unwrap(),
        next: 0,
        put: BTreeMap::new(),
        seen: BTreeMap::new(),
        in_order: Vec::new(),
        // The other helper is not there.
        waiting: [false; 2],
        counted: false,
    };
    let id = run.fill(Form::Inline)?;
    run.put.insert(id, false);
    let acker = run.spawn(Op::Ack(Form::Inline), k1)?;
    let victim = run.spawn(Op::Join, k2)?;
    let (pid, queue) = (victim.process.pid(), run.q.id());
    if !eventually(LIMIT, || is_dead(pid) || sleeps_on(pid, queue)) {
        return Err("the victim does not come to join".into());
    }
    let (p, orders) = &stage.helpers[0];
    orders.put_timeout(Order::Join(run.q.sender().unwrap()), LIMIT).map_err(|e| format!("ordering: {e}"))?;
    run.waiting[0] = true;
    if !eventually(LIMIT, || sleeps_on(p.pid(), queue)) {
        return Err("the helper does not come to join".into());
    }
    let hold = testing::hold_collections().map_err(|e| e.to_string())?;
    acker.finish()?;
    if run.q.unfinished() == 0 {
        run.until(PROCEED, "a joiner sleeps though all is acknowledged", |_| false)?;
    }
    drop(hold);
    testing::collect().map_err(|e| e.to_string())?;
    let first = ended(acker, &mut run)?;
    while run.take(true)?.is_some() {}
    run.until(PROCEED, "a joiner sleeps though all is finished", |_| false)?;
    victim.finish()?;
    let second = ended(victim, &mut run)?;
    account(&mut run, &[(Op::Ack(Form::Inline), k1), (Op::Join, k2)], &[first, second])?;
    Ok((first, second))
}

#[test]
fn a_joiner_dies_with_the_wake_in_hand() {
    let _one = alone();
    Watchdog::start(Duration::from_secs(120));
    let stage = Stage::new();
    let line = each_pair("Ack then Join".into(), |k1, k2| {
        let (first, second) = play_wake_in_hand(&stage, k1, k2)?;
        Ok([first, second])
    });
    Table(vec![line]).finish("A wake in hand");
}

/// Set in the process that plays the half of the pairs in which somebody cleans up between the deaths.
const CLEANED_BETWEEN: &str = "CRASH_QUEUE_CLEANED_BETWEEN";

/// In two processes, each with an arena of its own.
#[test]
fn who_repairs_dies_as_well() {
    let _one = alone();
    Watchdog::start(Duration::from_secs(120));
    let clean = std::env::var_os(CLEANED_BETWEEN).is_some();
    let other_half = (!clean).then(|| {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["who_repairs_dies_as_well", "--nocapture"]).env(CLEANED_BETWEEN, "");
        notes_apart(&mut again, "cleaned").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let mut stage = Stage::new();
    let mut table = Table(Vec::new());
    let inline = Form::Inline;
    let pairs = [
        (Op::FirstPut, Op::Put(inline)),
        (Op::Put(Form::Block), Op::Put(inline)),
        (Op::Put(Form::Block), Op::Put(Form::Block)),
        (Op::PutMany(Form::Block), Op::PutMany(inline)),
        (Op::GetMany(inline), Op::Get(inline)),
        (Op::GetMany(Form::Block), Op::GetMany(Form::Block)),
        (Op::Get(inline), Op::Get(inline)),
        (Op::Get(Form::Block), Op::Get(Form::Block)),
        (Op::Get(Form::Block), Op::Lease(Form::Block)),
        (Op::Lease(Form::Block), Op::Get(Form::Block)),
        (Op::Lease(inline), Op::Lease(inline)),
        (Op::FirstLease(inline), Op::FirstLease(inline)),
        (Op::Retake(inline), Op::Retake(inline)),
        (Op::GetReturned(inline), Op::GetReturned(inline)),
        (Op::GetDead(inline), Op::GetDead(inline)),
        (Op::FirstGrow, Op::FirstGrow),
        (Op::Grow(inline), Op::Grow(inline)),
        (Op::Shrink(inline), Op::ShrinkByLease),
    ];
    for (first, second) in pairs {
        let name = format!("{first:?} then {second:?}{}", if clean { ", cleaned between" } else { "" });
        if !wanted(&name) {
            continue;
        }
        let line = each_pair(name, |k1, k2| {
            let died = play(&stage, Scene::Alone, &[(first, k1), (second, k2)], clean)?;
            Ok([died[0], died[1]])
        });
        if !line.failures.is_empty() {
            stage = stage.renewed();
        }
        table.0.push(line);
    }
    if let Some(other_half) = other_half {
        let out = other_half.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        println!("{text}");
        assert!(out.status.success() && text.contains("1 passed"), "{}", String::from_utf8_lossy(&out.stderr));
    }
    table.finish(if clean { "Two deaths, cleaned between" } else { "Two deaths" });
}
