//! Two deaths at one end.

use crate::common_queue::{Form, LIMIT, Msg, Watchdog, alone, eventually, is_dead};
use crate::op::Op;
use crate::stage::{End, PROCEED, Stage, small, text};
use crate::steps::Table;
use crate::victim::second_victim;
use crate::watched::{each_pair, wanted};
use multiproc::{PipeBuilder, Process, ProcessError, Queue, RecvError, testing};
use std::time::Duration;

/// Two who use an end one after the other and die, each at a step of its own; a third goes on.
pub(crate) fn play_two(stage: &Stage, op: Op, k1: u64, k2: u64) -> Result<(bool, bool), String> {
    let (mut died, mut got, mut deaths) = ([false; 2], Vec::<u64>::new(), 0);
    let taken_at_once = k2.is_multiple_of(2);
    {
        let (here, there): (End, End) = PipeBuilder::new().ring_bytes(16 << 10).pipe().map_err(text)?;
        let handle = Queue::bounded(7).map_err(text)?;
        let go = Queue::<()>::bounded(2).map_err(text)?;
        for id in 1..=4 {
            if let Op::Recv(form) = op {
                here.send_timeout(if id == 1 { small(0) } else { Msg::new(id, form, &handle) }, LIMIT).map_err(text)?;
            }
        }
        // The first operation of a process at an end claims it; a victim of `Recv` has had its first already.
        let mut sent = Vec::new();
        for (i, k) in [k1, k2].into_iter().enumerate() {
            go.put(()).map_err(text)?;
            let id = 10 + i as u64;
            let args = (there.clone(), handle.clone(), go.receiver().map_err(text)?, op, k, id);
            let p = Process::builder().daemon(true).spawn(args, second_victim).map_err(text)?;
            if !eventually(LIMIT, || is_dead(p.pid())) {
                return Err(format!("victim {i} hangs"));
            }
            match p.join() {
                Ok(_) => sent.push((id, true)),
                Err(ProcessError::Signaled { .. }) => {
                    died[i] = true;
                    sent.push((id, false));
                }
                Err(e) => return Err(format!("victim {i}: {e}")),
            }
            // In every other round what has been committed is taken at once: the next one must not write where the receiver has been.
            while taken_at_once && let Ok(m) = here.try_recv() {
                got.push(m.check()?);
            }
        }
        testing::collect().map_err(text)?;
        // The heir goes on where they stopped.
        there.send_timeout(small(99), LIMIT).map_err(text)?;
        while got.last() != Some(&99) {
            match here.recv_timeout(PROCEED) {
                Ok(m) => got.push(m.check()?),
                Err(RecvError::PeerDied { .. }) => deaths += 1,
                Err(e) => return Err(format!("the other end: {e}, after {got:?}")),
            }
        }
        let sends = !matches!(op, Op::Recv(_));
        let whole = got.iter().all(|id| *id == 99 || sends && sent.iter().any(|(s, _)| s == id));
        let complete = !sends || sent.iter().all(|(id, done)| !done || got.contains(id));
        let mut once = got.clone();
        once.sort_unstable();
        once.dedup();
        if !whole || !complete || once.len() != got.len() || !got.is_sorted() {
            return Err(format!("got {got:?}, sent {sent:?}"));
        }
        // A death before the claim is none of the pipe's business, and two without a message between them are one.
        let dead = died.iter().filter(|d| **d).count();
        if deaths > dead {
            return Err(format!("{deaths} deaths are told of {dead}"));
        }
        if let Op::Recv(_) = op {
            // What the dead took is gone with them, at most one message each; the rest is here, in order.
            let mut left = Vec::new();
            while let Ok(m) = there.try_recv() {
                left.push(m.check()?);
            }
            if !left.is_sorted() || left.len() > 4 || left.last() != Some(&4) && !left.is_empty() {
                return Err(format!("left {left:?}"));
            }
        }
        here.send_timeout(small(5), LIMIT).map_err(text)?;
        if there.recv_timeout(LIMIT).map_err(text)?.check()? != 5 {
            return Err("the pipe is of no use any more".into());
        }
    }
    if !eventually(LIMIT, || stage.rest.is_again()) {
        return Err(format!("left over: {}", stage.rest));
    }
    Ok((died[0], died[1]))
}

#[test]
fn who_takes_over_dies_as_well() {
    let _one = alone();
    Watchdog::start(Duration::from_secs(60));
    let mut stage = Stage::new();
    let mut table = Table(Vec::new());
    for op in [Op::Send(Form::Inline), Op::Send(Form::Block), Op::Recv(Form::Inline), Op::Recv(Form::Block)] {
        let name = format!("{op:?} twice");
        if !wanted(&name) {
            continue;
        }
        let line = each_pair(name, |k1, k2| {
            let (first, second) = play_two(&stage, op, k1, k2)?;
            Ok([first, second])
        });
        if !line.failures.is_empty() {
            stage = stage.renewed();
        }
        table.0.push(line);
    }
    table.finish("Two deaths");
}
