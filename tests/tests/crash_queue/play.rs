//! A run from its beginning to the count of all that is left.

use crate::common_queue::{Form, LIMIT, Msg, eventually, is_dead, sleeps_on};
use crate::op::{Op, Scene};
use crate::run::{Run, ended, prepare};
use crate::sizes::BYTES;
use crate::stage::{Event, Order, Stage, last_receiver, last_sender};
use multiproc::testing;
use multiproc::{Process, ProcessError, Queue};
use std::collections::BTreeMap;
use std::time::Duration;

/// What waiters get to do what only the kernel can help them with: far more than they need, on a busy machine too.
pub(crate) const PROCEED: Duration = Duration::from_secs(5);
/// Runs the operations, each dying at its step; `clean_between` cleans up after each death before the next.
pub(crate) fn play(stage: &Stage, scene: Scene, ops: &[(Op, u64)], clean_between: bool) -> Result<Vec<bool>, String> {
    let counted = scene == Scene::CountedJoiners;
    let scene = if counted { Scene::Joiners } else { scene };
    let capacity = if matches!(scene, Scene::Alone | Scene::Abandoned | Scene::Getters | Scene::Joiners) { 6 } else { 2 };
    // Who gives a lease back to joiners gives it back for the last time.
    let once = matches!(ops[0].0, Op::GetDead(_)) || scene == Scene::Joiners && matches!(ops[0].0, Op::Requeue(_));
    let builder = Queue::builder().capacity(capacity);
    let builder = if ops[0].0.is_usual() { builder } else { builder.byte_limit(BYTES) };
    let builder = if ops[0].0.is_unbounded() { builder.unbounded() } else { builder };
    // Without a bound of attempts an acknowledgement has but the joiners to tell.
    let builder = match once {
        true => builder.attempts(1),
        false if scene == Scene::Joiners && !counted || ops[0].0.is_usual() => builder,
        false => builder.attempts(u32::MAX),
    };
    let mut run = Run {
        stage,
        q: builder.build().unwrap(),
        handle: Queue::bounded(7).unwrap(),
        next: 0,
        put: BTreeMap::new(),
        seen: BTreeMap::new(),
        in_order: Vec::new(),
        waiting: [false; 2],
        counted,
    };
    let result = play_in(&mut run, scene, ops, clean_between);
    drop(run);
    let died = result?;
    if !eventually(PROCEED, || stage.rest.is_again()) {
        return Err(format!("left over: {}", stage.rest));
    }
    Ok(died)
}

pub(crate) fn play_in(run: &mut Run<'_>, scene: Scene, ops: &[(Op, u64)], clean_between: bool) -> Result<Vec<bool>, String> {
    let (first, k) = ops[0];
    prepare(run, first, scene, ops.len())?;
    let putting_helpers = scene == Scene::Putters || first.puts() && scene != Scene::Getters;
    let with_lease = k % 2 == 0;
    let hold_collections = || testing::hold_collections().map_err(|e| e.to_string());
    let mut victims = Vec::new();
    let mut hold;
    match scene {
        Scene::Joiners if first == Op::Join => {
            // The victim sleeps between the two, or after them.
            run.send_joiners()?;
            hold = hold_collections()?;
            let victim = run.spawn(first, k)?;
            let (pid, id) = (victim.process.pid(), run.q.id());
            if !eventually(LIMIT, || is_dead(pid) || sleeps_on(pid, id)) {
                return Err("the victim does not come to join".into());
            }
            run.q.try_lease().map_err(|e| e.to_string())?.ack();
            run.seen.insert(run.next - 1, 1);
            run.hear()?;
            run.take(false)?;
            run.until(PROCEED, "joiners sleep though all is finished", |_| false)?;
            victim.finish()?;
            victims.push(victim);
        }
        Scene::Alone | Scene::Abandoned | Scene::Getters | Scene::Putters | Scene::Joiners | Scene::CountedJoiners => {
            // A victim with a lease takes it before others come to wait for messages.
            let mut early = if first.starts_early() { Some(run.spawn(first, k)?) } else { None };
            if first == Op::UsualGet && scene != Scene::Joiners {
                run.fill(Form::Inline)?;
            }
            if first == Op::UsualGet {
                run.fill(Form::Inline)?;
            }
            if matches!(scene, Scene::Getters | Scene::Putters) {
                run.send_helpers(putting_helpers, with_lease)?;
            }
            if scene == Scene::Joiners {
                run.send_joiners()?;
            }
            hold = hold_collections()?;
            for (i, (op, k)) in ops.iter().enumerate() {
                if i > 0 && clean_between {
                    drop(hold);
                    testing::collect().map_err(|e| e.to_string())?;
                    hold = hold_collections()?;
                }
                let victim = match early.take() {
                    Some(early) => early,
                    None => run.spawn(*op, *k)?,
                };
                victim.finish()?;
                victims.push(victim);
            }
            // Without a bound of attempts nobody is needed but the kernel.
            let told_by_kernel = scene == Scene::Joiners && matches!(first, Op::Ack(_)) && !run.counted;
            if told_by_kernel && run.q.unfinished() == 0 {
                run.until(PROCEED, "joiners sleep though all is acknowledged", |_| false)?;
            }
            if !first.starts_with_lease() && first != Op::Close {
                settle(run, scene)?;
            }
        }
        Scene::VictimLeads | Scene::VictimFollows => {
            if scene == Scene::VictimFollows {
                run.send_helpers(putting_helpers, with_lease)?;
            }
            hold = hold_collections()?;
            let victim = run.spawn(first, k)?;
            let (pid, id) = (victim.process.pid(), run.q.id());
            if !eventually(LIMIT, || is_dead(pid) || sleeps_on(pid, id)) {
                return Err("the victim does not come to wait".into());
            }
            if scene == Scene::VictimLeads {
                run.send_helpers(putting_helpers, with_lease)?;
            }
            for _ in 0..3 {
                if putting_helpers {
                    run.take(false)?;
                    settle(run, Scene::Putters)?;
                } else {
                    run.fill(first.form())?;
                    settle(run, Scene::Getters)?;
                }
            }
            victim.finish()?;
            victims.push(victim);
        }
    }
    drop(hold);
    testing::collect().map_err(|e| e.to_string())?;
    let died = victims.into_iter().map(|v| ended(v, run)).collect::<Result<Vec<_>, _>>()?;
    if scene == Scene::Joiners {
        run.hear()?;
        if run.q.unfinished() > 0 && run.waiting != [true; 2] {
            return Err("who joined has not waited for all".into());
        }
        while run.take(true)?.is_some() {}
        run.until(PROCEED, "joiners sleep though all is finished", |_| false)?;
    }
    if scene != Scene::Abandoned {
        account(run, ops, &died)?;
    }
    Ok(died)
}

/// Before anybody cleans up: who can go on has gone on.
pub(crate) fn settle(run: &mut Run<'_>, scene: Scene) -> Result<(), String> {
    match scene {
        Scene::Getters => run.until(PROCEED, "getters sleep though there is a message", Queue::is_empty),
        Scene::Putters if !run.q.is_closed() => run.until(PROCEED, "putters sleep though there is room", Queue::is_full),
        _ => Ok(()),
    }
}

pub(crate) fn account(run: &mut Run<'_>, ops: &[(Op, u64)], died: &[bool]) -> Result<(), String> {
    // Everybody who still waits gets what he waits for.
    run.hear()?;
    for _ in 0..6 {
        if run.waiting == [false; 2] {
            break;
        }
        if run.q.is_closed() {
            run.until(PROCEED, "waiters sleep though the queue is closed", |_| false)?;
        } else if run.q.is_full() {
            run.take(false)?;
            run.until(PROCEED, "putters sleep though there is room", Queue::is_full)?;
            run.hear()?;
        } else {
            run.fill(Form::Inline)?;
            run.until(PROCEED, "getters sleep though there is a message", Queue::is_empty)?;
        }
    }
    run.until(PROCEED, "a helper hangs", |_| false)?;
    let mut by_lease = ops[0].1 % 2 == 1;
    while run.take(by_lease)?.is_some() {
        by_lease = !by_lease;
    }
    while let Ok(letter) = run.q.dead().unwrap().try_get() {
        let id = letter.check()?;
        run.saw(id);
    }
    if run.q.leased() > 0 || !run.q.is_empty() {
        return Err(format!("drained, but {} wait and {} are leased", run.q.len(), run.q.leased()));
    }
    if !run.q.is_closed() {
        for form in [Form::Inline, Form::Block, Form::Handle, Form::BlockAndHandle] {
            run.fill(form)?;
            run.take(form == Form::Block)?.ok_or("the queue is of no use any more")?;
        }
        // Large, so not every time.
        if ops[0].1 % 3 == 1 && !ops[0].0.is_usual() {
            let id = run.id(true);
            // Number, length and the absent handle take 17 bytes.
            let all = Msg { id, pad: vec![id as u8; BYTES as usize - 17], handle: None };
            run.q.try_put(all).map_err(|e| format!("drained, but of the byte limit something is gone: {e}"))?;
            if !run.q.is_full() {
                return Err("a message as large as the byte limit leaves room".into());
            }
            run.take(false)?;
        }
    }
    let losses = run.q.take_losses();
    let allowed: usize = ops.iter().zip(died).filter(|(_, died)| **died).map(|((op, _), _)| op.may_lose()).sum();
    let mut missing = 0;
    for (id, exactly) in &run.put {
        match run.seen.get(id).copied().unwrap_or(0) {
            0 if *exactly => missing += 1,
            0 | 1 => {}
            n => return Err(format!("message {id} came {n} times")),
        }
    }
    for ids in &run.in_order {
        let seen: Vec<bool> = ids.iter().map(|id| run.seen.contains_key(id)).collect();
        if !seen.is_sorted_by(|before, after| before >= after) {
            return Err(format!("of the batch {ids:?} came {seen:?}"));
        }
    }
    if missing > allowed || losses as usize != missing {
        return Err(format!("{missing} messages are missing, {allowed} may be, {losses} reported"));
    }
    Ok(())
}

/// The last handle of a side goes, and its process with it; the two who wait on the other side learn of it.
pub(crate) fn play_last(stage: &Stage, senders: bool, join: bool, k: u64) -> Result<bool, String> {
    let q = Queue::<Msg>::bounded(2).unwrap();
    let id = q.id();
    let go = Queue::<()>::bounded(1).unwrap();
    let mut left = 2;
    let p = {
        let (tx, rx) = (q.sender().unwrap(), q.receiver().unwrap());
        drop(q);
        if !senders {
            for id in 0..2 {
                tx.put(Msg { id, pad: vec![id as u8; 16], handle: None }).map_err(|e| e.to_string())?;
            }
        }
        for (i, (p, orders)) in stage.helpers.iter().enumerate() {
            let order = match (senders, join && i == 1) {
                (true, _) => Order::Get(rx.clone()),
                (false, true) => Order::Join(tx.clone()),
                (false, false) => Order::Put(tx.clone(), 10 + i as u64),
            };
            orders.put(order).map_err(|e| e.to_string())?;
            if !eventually(LIMIT, || sleeps_on(p.pid(), id)) {
                return Err(format!("helper {i} does not come to wait"));
            }
        }
        let builder = Process::builder().daemon(true);
        let p = if senders {
            builder.spawn((tx.clone(), go.receiver().unwrap(), k), last_sender)
        } else {
            builder.spawn((rx.clone(), go.receiver().unwrap(), k), last_receiver)
        };
        p.map_err(|e| e.to_string())?
    };
    let pid = p.pid();
    if !eventually(LIMIT, || sleeps_on(pid, go.id())) {
        return Err("the victim does not begin".into());
    }
    go.put(()).map_err(|e| e.to_string())?;
    let died = match p.join() {
        Ok(_) => false,
        Err(ProcessError::Signaled { .. }) => true,
        Err(e) => return Err(e.to_string()),
    };
    let mut failed = None;
    let ok = eventually(PROCEED, || {
        while let Ok((i, event)) = stage.reports.try_get() {
            left -= 1;
            if event != Event::Ended {
                failed = Some(format!("helper {i}: {event:?}"));
            }
        }
        left == 0
    });
    if let Some(why) = failed {
        return Err(why);
    }
    if !ok {
        return Err(format!("{left} wait for ever though nobody is left on the other side"));
    }
    drop(go);
    if !eventually(PROCEED, || stage.rest.is_again()) {
        return Err(format!("left over: {}", stage.rest));
    }
    Ok(died)
}
