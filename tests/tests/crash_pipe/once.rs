//! One death, at each step of each operation in each scene.

use crate::common_queue::{Form, LIMIT, Msg, Watchdog, alone, eventually, is_dead, sleeps_on};
use crate::op::{Op, Scene};
use crate::stage::{End, Event, Order, Stage, bulky, small, text};
use crate::steps::Table;
use crate::victim::victim;
use crate::watched::{OLD_KERNEL, again_on_old_kernel, assert_new_kernel_or, each_step, wanted};
use multiproc::{PipeBuilder, Process, ProcessError, Queue, RecvError, testing};
use multiproc_tests::quiet;
use std::time::Duration;

/// What is put into the pipe before the victim comes to its operation.
fn prepare(op: Op, scene: Scene, here: &End, there: &End, handle: &Queue<u64>) -> Result<(), String> {
    let send = |message| here.send_timeout(message, LIMIT).map_err(|e| format!("filling: {e}"));
    match op {
        Op::Recv(form) => {
            send(small(0))?;
            if scene != Scene::VictimWaits {
                send(Msg::new(1, form, handle))?;
            }
        }
        Op::FirstRecv if scene != Scene::VictimWaits => send(small(1))?,
        _ => {}
    }
    if op == Op::SendAfterDeath {
        let p = Process::spawn((there.clone(),), |there: End| -> () {
            there.send(small(0)).unwrap();
            std::process::abort();
        });
        p.map_err(|e| e.to_string())?.wait();
    }
    if matches!(scene, Scene::Sender | Scene::Both) {
        while here.try_send(bulky(2)).is_ok() {}
        while here.try_send(small(2)).is_ok() {}
    }
    Ok(())
}

/// One operation of one victim; whether it died.
fn play(stage: &Stage, scene: Scene, op: Op, k: u64) -> Result<bool, String> {
    let done = play_in(stage, scene, op, k)?;
    if eventually(LIMIT, || stage.rest.is_again()) { Ok(done) } else { Err(format!("left over: {}", stage.rest)) }
}

fn play_in(stage: &Stage, scene: Scene, op: Op, k: u64) -> Result<bool, String> {
    let (here, there): (End, End) = PipeBuilder::new().ring_bytes(16 << 10).pipe().map_err(text)?;
    let handle = Queue::bounded(7).map_err(text)?;
    let (go, survived) = (Queue::<()>::bounded(1).map_err(text)?, Queue::<()>::bounded(1).map_err(text)?);
    let id = here.id();
    prepare(op, scene, &here, &there, &handle)?;
    let signals = (go.receiver().map_err(text)?, survived.sender().map_err(text)?);
    let args = (there.clone(), handle.clone(), signals, op, k);
    let victim = Process::builder().daemon(true).spawn(args, victim).map_err(text)?;
    let pid = victim.pid();
    if !eventually(LIMIT, || sleeps_on(pid, go.id())) {
        return Err("the victim does not come to its operation".into());
    }
    // Held, and used by nobody else, while the victim is at it.
    let mut heir = (op != Op::Drop).then_some(there);
    let (order, here) = match scene {
        Scene::Abandoned => (None, Some(here)),
        Scene::Receiver => (Some(Order::Recv(here)), None),
        Scene::VictimWaits => (Some(Order::Send(here, 1)), None),
        Scene::Sender => (Some(Order::Send(here, 3)), None),
        Scene::Both => (Some(Order::Both(here, 3)), None),
    };
    let (early, late) = if scene == Scene::VictimWaits { (None, order) } else { (order, None) };
    let told = scene != Scene::Abandoned;
    if let Some(order) = early {
        stage.orders.put_timeout(order, LIMIT).map_err(text)?;
        let threads = if scene == Scene::Both { 2 } else { 1 };
        if !eventually(LIMIT, || sleeps_on(stage.helper.pid(), id) && asleep(stage.helper.pid()) >= threads) {
            return Err("the other end does not come to wait".into());
        }
    }
    let mut hold = Some(testing::hold_collections().map_err(text)?);
    go.put(()).map_err(text)?;
    if let Some(order) = late {
        // The victim waits first.
        eventually(LIMIT, || is_dead(pid) || sleeps_on(pid, id));
        stage.orders.put_timeout(order, LIMIT).map_err(text)?;
    }
    if !eventually(LIMIT, || is_dead(pid)) {
        return Err("the victim hangs".into());
    }
    if survived.try_get().is_ok() {
        // It has let go of its end; with the last handle the pipe ends.
        drop(heir.take());
    } else if op == Op::Drop {
        // Whoever is dead and has not used the end, or not any more, is told by the cleaner.
        hold = None;
    } else if op.claims() && !matches!(heir.as_ref().map(End::try_recv), Some(Err(RecvError::InUse { .. }))) {
        // The same for who died before it had claimed the end: now it was the heir's.
        drop(heir.take());
        hold = None;
    }
    if hold.is_none() {
        testing::collect().map_err(text)?;
    }
    let heard = if told { hear_all(stage, scene) } else { Ok(Vec::new()) };
    drop(hold);
    testing::collect().map_err(text)?;
    let outcome = match victim.join() {
        Ok((_, got)) => Some(got),
        Err(ProcessError::Signaled { .. }) => None,
        Err(e) => return Err(format!("victim: {e}")),
    };
    judge(op, scene, &heard?, outcome, pid)?;
    if let Some(here) = here {
        // What was not committed is freed while the pipe lives on.
        drop((handle, heir));
        while here.try_recv().is_ok() {}
        let left = quiet()?.of_messages;
        let from_here = u32::from(matches!(op, Op::Recv(Form::Block | Form::BlockAndHandle)) && outcome.is_none());
        if left > stage.rest.get().of_messages + from_here {
            return Err(format!("{left} messages are left"));
        }
    }
    Ok(outcome.is_none())
}

const LACKS: &str = "death-wakes,futex-waitv";

/// Threads that sleep on several words (futex_waitv; where that is denied, futex).
fn asleep(pid: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let calls = tasks.filter_map(|t| std::fs::read_to_string(t.path().join("syscall")).ok());
    let number = if std::env::var_os(OLD_KERNEL).is_some() { "202 " } else { "449 " };
    calls.filter(|call| call.starts_with(number)).count()
}

/// All that the other end says until nothing more can come.
fn hear_all(stage: &Stage, scene: Scene) -> Result<Vec<Event>, String> {
    let mut ends = if scene == Scene::Both { 2 } else { 1 };
    let mut heard = Vec::new();
    while ends > 0 {
        let event = stage.hear("the end or a death").map_err(|why| format!("{why}; heard {heard:?}"))?;
        ends -= u32::from(!matches!(event, Event::Got(_) | Event::Sent(_)));
        heard.push(event);
    }
    Ok(heard)
}

fn judge(op: Op, scene: Scene, heard: &[Event], outcome: Option<Option<u64>>, pid: u32) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{why}: heard {heard:?}, the victim's outcome is {outcome:?}"));
    if let Some(failed) = heard.iter().find(|e| matches!(e, Event::Failed(_))) {
        return Err(format!("{failed:?}"));
    }
    let got: Vec<u64> = heard.iter().filter_map(|e| if let Event::Got(id) = e { Some(*id) } else { None }).collect();
    let sends = matches!(op, Op::FirstSend | Op::SendAfterDeath | Op::Send(_) | Op::SendMore);
    let receives = matches!(scene, Scene::Receiver | Scene::Both);
    if receives {
        // In order and whole, the one before and perhaps the one of the operation.
        let before = op.has_sent().then_some(0);
        let all: Vec<u64> = before.into_iter().chain(sends.then_some(1)).collect();
        if got != all && (outcome.is_some() || got != all[..before.iter().len()]) {
            return wrong("messages are missing or too many");
        }
    } else if !got.is_empty() {
        return wrong("a message from nowhere");
    }
    for event in heard {
        let fits = match event {
            Event::Died(dead) | Event::Broken(Some(dead)) => op == Op::SendAfterDeath || outcome.is_none() && *dead == pid,
            // Closing and dropping may be done when the victim dies of what follows.
            Event::Eof | Event::Broken(None) => outcome.is_some() || matches!(op, Op::Close | Op::Drop),
            _ => true,
        };
        if !fits {
            return wrong("the other end is misinformed");
        }
    }
    Ok(())
}

const FORMS: [Form; 4] = [Form::Inline, Form::Block, Form::Handle, Form::BlockAndHandle];

fn all_of_one() -> Vec<(Op, Scene)> {
    use Scene::*;
    let mut all = Vec::new();
    all.extend([(Op::FirstSend, Abandoned), (Op::FirstSend, Receiver), (Op::SendAfterDeath, Abandoned)]);
    all.extend([Abandoned, Sender, VictimWaits].map(|scene| (Op::FirstRecv, scene)));
    for op in [Op::Close, Op::Drop] {
        all.extend([Abandoned, Receiver, Sender, Both].map(|scene| (op, scene)));
    }
    all.extend([Op::FirstSend, Op::FirstRecv].map(|op| (op, Both)));
    all.push((Op::RecvQuarter, Sender));
    all.extend([Abandoned, Receiver].map(|scene| (Op::SendMore, scene)));
    for form in FORMS {
        all.extend([Abandoned, Receiver].map(|scene| (Op::Send(form), scene)));
        all.extend([Abandoned, Sender, VictimWaits].map(|scene| (Op::Recv(form), scene)));
    }
    all
}

/// Where the kernel does not wake for the dead, nor knows futex_waitv, who sleeps looks again each 10 ms.
#[test]
fn one_dies_at_each_step_on_an_old_kernel() {
    let _one = alone();
    again_on_old_kernel("one_dies_at_each_step", LACKS);
}

#[test]
fn one_dies_at_each_step() {
    let _one = alone();
    assert_new_kernel_or(LACKS);
    Watchdog::start(Duration::from_secs(60));
    let mut stage = Stage::new();
    let mut table = Table(Vec::new());
    for (op, scene) in all_of_one() {
        let name = format!("{op:?}, {scene:?}");
        if wanted(&name) {
            let line = each_step(name, |k| play(&stage, scene, op, k));
            if !line.failures.is_empty() {
                stage = stage.renewed();
            }
            table.0.push(line);
        }
    }
    table.finish("One death");
}
