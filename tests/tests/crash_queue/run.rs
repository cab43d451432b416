//! One run with what was put in it and seen of it, and how it is prepared.

use crate::common_queue::{Form, LIMIT, Msg, eventually, is_dead, sleeps_on};
use crate::op::{Op, Scene};
use crate::sizes::SEGMENT;
use crate::stage::{Event, Order, Stage, Told, victim};
use multiproc::{GetError, Process, ProcessError, Queue};
use std::collections::BTreeMap;
use std::time::Duration;

/// One run: what was put, and what of it must be seen how often.
pub(crate) struct Run<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) q: Queue<Msg>,
    pub(crate) handle: Queue<u64>,
    pub(crate) next: u64,
    /// Exactly once, or at most once.
    pub(crate) put: BTreeMap<u64, bool>,
    pub(crate) seen: BTreeMap<u64, u32>,
    /// What the dead were putting: if one is there, so are those before it.
    pub(crate) in_order: Vec<Vec<u64>>,
    pub(crate) waiting: [bool; 2],
    /// Whether the queue counts how often a message is given out.
    pub(crate) counted: bool,
}

impl Run<'_> {
    pub(crate) fn id(&mut self, exactly: bool) -> u64 {
        self.next += 1;
        self.put.insert(self.next, exactly);
        self.next
    }

    pub(crate) fn fill(&mut self, form: Form) -> Result<u64, String> {
        let id = self.id(true);
        self.q.put_timeout(Msg::new(id, form, &self.handle), LIMIT).map_err(|e| format!("filling: {e}"))?;
        Ok(id)
    }

    /// Has head and tail stand 16 bytes before the end of the first segment; one message has gone through already.
    pub(crate) fn go_to_edge(&mut self) -> Result<(), String> {
        // A record has 8 bytes and the message, which has 17 besides what pads it; together a multiple of 8.
        let pads = [[4055; 64].as_slice(), &[935]].concat();
        assert_eq!(pads.iter().map(|pad| 8 + 17 + pad).sum::<usize>() + 48 + 16, SEGMENT);
        for pad in pads {
            let id = self.id(true);
            let message = Msg { id, pad: vec![id as u8; pad], handle: None };
            self.q.put_timeout(message, LIMIT).map_err(|e| format!("filling: {e}"))?;
            self.take(false)?;
        }
        Ok(())
    }

    pub(crate) fn saw(&mut self, id: u64) {
        *self.seen.entry(id).or_default() += 1;
    }

    pub(crate) fn take(&mut self, by_lease: bool) -> Result<Option<u64>, String> {
        let got = if by_lease { self.q.try_lease().map(|l| l.ack()) } else { self.q.try_get() };
        match got {
            Ok(m) => {
                let id = m.check()?;
                self.saw(id);
                Ok(Some(id))
            }
            Err(GetError::Empty | GetError::Closed | GetError::Disconnected) => Ok(None),
            Err(e) => Err(format!("draining: {e}")),
        }
    }

    /// Sends both helpers to wait, and returns when both sleep.
    pub(crate) fn send_helpers(&mut self, put: bool, by_lease: bool) -> Result<(), String> {
        for i in 0..2 {
            let order = if put {
                Order::Put(self.q.sender().unwrap(), self.id(true))
            } else if by_lease && i == 1 {
                Order::Lease(self.q.receiver().unwrap())
            } else {
                Order::Get(self.q.receiver().unwrap())
            };
            let (p, orders) = &self.stage.helpers[i];
            orders.put_timeout(order, LIMIT).map_err(|e| format!("ordering: {e}"))?;
            self.waiting[i] = true;
            if !eventually(LIMIT, || sleeps_on(p.pid(), self.q.id())) {
                return Err(format!("helper {i} does not come to wait"));
            }
        }
        Ok(())
    }

    pub(crate) fn hear(&mut self) -> Result<(), String> {
        while let Ok((i, event)) = self.stage.reports.try_get() {
            self.waiting[i] = false;
            match event {
                Event::Got(id) => self.saw(id),
                Event::Put(_) => {}
                // Nobody puts anything while somebody joins.
                Event::Joined if self.q.unfinished() == 0 => {}
                Event::Joined => return Err(format!("helper {i} has joined, {} are unfinished", self.q.unfinished())),
                Event::Ended => {
                    // A putter that was sent away has put nothing.
                    self.put.values_mut().for_each(|exactly| *exactly &= !self.q.is_closed());
                }
                Event::Failed(why) => return Err(format!("helper {i}: {why}")),
            }
        }
        Ok(())
    }

    /// Sends both helpers to join, and returns when both sleep.
    pub(crate) fn send_joiners(&mut self) -> Result<(), String> {
        for (i, (p, orders)) in self.stage.helpers.iter().enumerate() {
            orders.put_timeout(Order::Join(self.q.sender().unwrap()), LIMIT).map_err(|e| format!("ordering: {e}"))?;
            self.waiting[i] = true;
            if !eventually(LIMIT, || sleeps_on(p.pid(), self.q.id())) {
                return Err(format!("helper {i} does not come to join"));
            }
        }
        Ok(())
    }

    /// Waits until `done` or both helpers have left.
    pub(crate) fn until(&mut self, limit: Duration, what: &str, done: impl Fn(&Queue<Msg>) -> bool) -> Result<(), String> {
        let mut heard = Ok(());
        let q = self.q.clone();
        let ok = eventually(limit, || {
            heard = self.hear();
            heard.is_err() || done(&q) || self.waiting == [false; 2]
        });
        heard?;
        if ok { Ok(()) } else { Err(format!("{what}: len {}, waiting {:?}", self.q.len(), self.waiting)) }
    }

    pub(crate) fn spawn(&mut self, op: Op, k: u64) -> Result<Victim, String> {
        let put: Vec<u64> = if op.puts() { op.forms().iter().map(|_| self.id(false)).collect() } else { Vec::new() };
        let go = op.starts_early().then(|| Queue::<()>::bounded(1).unwrap());
        let receiver = go.as_ref().map(|go| go.receiver().unwrap());
        let args = (self.q.clone(), self.handle.clone(), receiver, op, k, put.clone());
        let process = Process::builder().daemon(true).spawn(args, victim).map_err(|e| format!("spawning: {e}"))?;
        if let Some(go) = &go
            && !eventually(LIMIT, || sleeps_on(process.pid(), go.id()))
        {
            return Err("the victim does not come to its operation".into());
        }
        Ok(Victim { process, put, go })
    }
}

pub(crate) struct Victim {
    pub(crate) process: Process<Told>,
    pub(crate) put: Vec<u64>,
    pub(crate) go: Option<Queue<()>>,
}

impl Victim {
    /// Lets it run to its end.
    pub(crate) fn finish(&self) -> Result<(), String> {
        if let Some(go) = &self.go {
            go.put(()).map_err(|e| e.to_string())?;
        }
        let pid = self.process.pid();
        if eventually(LIMIT, || is_dead(pid)) { Ok(()) } else { Err("the victim hangs".into()) }
    }
}

/// Whether the victim died.
pub(crate) fn ended(Victim { process, put, .. }: Victim, run: &mut Run<'_>) -> Result<bool, String> {
    match process.join() {
        Ok((_, got)) => {
            let exactly = !run.q.is_closed();
            run.put.extend(put.into_iter().map(|id| (id, exactly)));
            got.into_iter().for_each(|id| run.saw(id));
            Ok(false)
        }
        Err(ProcessError::Signaled { .. }) => {
            run.in_order.push(put);
            Ok(true)
        }
        Err(e) => Err(format!("victim: {e}")),
    }
}

pub(crate) fn prepare(run: &mut Run<'_>, op: Op, scene: Scene, victims: usize) -> Result<(), String> {
    let form = op.form();
    // The ring and the table exist, unless making them is what dies.
    if op != Op::FirstPut && op != Op::FirstGrow {
        run.fill(Form::Inline)?;
        run.take(!matches!(op, Op::FirstLease(_)))?;
    }
    match op {
        _ if op.is_at_edge() => {
            run.go_to_edge()?;
            if !op.puts() {
                for form in op.forms().into_iter().chain([Form::Inline; 2]) {
                    run.fill(form)?;
                }
            }
        }
        Op::Get(_) | Op::Lease(_) | Op::FirstLease(_) if matches!(scene, Scene::Alone | Scene::Abandoned | Scene::Putters) => {
            for _ in 0..victims.max(2) {
                run.fill(form)?;
            }
        }
        // The last one.
        Op::Get(_) if scene == Scene::Joiners => _ = run.fill(form)?,
        Op::GrowFirst => {
            // The first page is nearly full.
            let id = run.id(true);
            let message = Msg { id, pad: vec![id as u8; 3000], handle: None };
            run.q.put_timeout(message, LIMIT).map_err(|e| format!("filling: {e}"))?;
        }
        Op::Join => {
            run.fill(form)?;
            run.fill(form)?;
        }
        Op::GetMany(_) if matches!(scene, Scene::Alone | Scene::Abandoned | Scene::Joiners) => {
            for _ in 0..victims {
                for form in op.forms() {
                    run.fill(form)?;
                }
            }
        }
        Op::GetMany(_) if scene == Scene::Putters => {
            run.fill(Form::Inline)?;
            run.fill(form)?;
        }
        Op::GetReturned(_) if scene == Scene::Joiners => {
            run.fill(form)?;
            drop(run.q.try_lease().map_err(|e| e.to_string())?);
        }
        Op::Retake(_) | Op::GetReturned(_) | Op::GetManyReturned | Op::GetDead(_) => {
            run.fill(form)?;
            run.fill(form)?;
            let leases = [run.q.try_lease(), run.q.try_lease()];
            drop(leases.map(|l| l.map_err(|e| e.to_string())).into_iter().collect::<Result<Vec<_>, _>>()?);
            if scene == Scene::Putters {
                run.fill(Form::Inline)?;
                run.fill(Form::Inline)?;
            }
        }
        Op::Ack(_) | Op::Requeue(_) => {
            let id = run.fill(form)?;
            if op == Op::Ack(form) {
                run.put.insert(id, false);
            }
        }
        Op::Put(_) if matches!(scene, Scene::VictimLeads | Scene::VictimFollows) => {
            run.fill(Form::Inline)?;
            run.fill(Form::Inline)?;
        }
        Op::Close if scene == Scene::Putters => {
            run.fill(Form::Inline)?;
            run.fill(Form::Inline)?;
        }
        _ => {}
    }
    Ok(())
}
