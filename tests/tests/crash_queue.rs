//! The step killer: a process dies at each step of each operation of a queue, and everybody else goes on.
//!
//! A victim arms itself, runs one operation and is killed at its k-th crash point, for every k until it survives. Meanwhile nobody else helps:
//! traffic is one message, cleaning up after the dead is held back, and no wait looks again by itself, so a wake that
//! only the dead process would have made must come from the kernel. Then the dead are cleaned up after, and everything is counted: each
//! message once, losses as reported, no block or object left over.
//!
//! Needs the feature `crash-points`.

mod common_queue;

#[cfg(not(feature = "crash-points"))]
#[test]
fn without_crash_points_an_unacknowledged_lease_of_a_killed_process_comes_back() {
    use multiproc::{Process, Queue};
    eprintln!("the step killer needs --features crash-points; here one death stands for all");
    let q = Queue::<u32>::bounded(4).unwrap();
    q.put(7).unwrap();
    let p = Process::spawn((q.clone(),), |q: Queue<u32>| -> () {
        let _lease = q.lease().unwrap();
        std::process::abort();
    })
    .unwrap();
    assert!(p.join().is_err());
    let lease = q.lease_timeout(common_queue::LIMIT).unwrap();
    assert_eq!((*lease, lease.attempt()), (7, 2));
}

#[cfg(feature = "crash-points")]
mod killer {
    use super::common_queue::{Form, LIMIT, Msg, Watchdog, alone, eventually, is_dead, sleeps_on};
    use multiproc::testing::{self, Audit};
    use multiproc::{GetError, Process, ProcessError, Queue, Receiver, Sender};
    use serde::{Deserialize, Serialize};
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// What waiters get to do what only the kernel can help them with.
    const PROCEED: Duration = Duration::from_millis(500);
    const OLD_KERNEL: &str = "MULTIPROC_FORCE_OLD_KERNEL";
    const DEATH_WAKES: &str = "death-wakes";

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    enum Op {
        FirstPut,
        Put(Form),
        /// Three messages: see `forms`.
        PutMany(Form),
        Get(Form),
        GetMany(Form),
        FirstLease(Form),
        Lease(Form),
        /// Leases a message that has come back.
        Retake(Form),
        GetReturned(Form),
        /// Takes a message that was given out in vain as often as the queue allows: once.
        GetDead(Form),
        Ack(Form),
        Requeue(Form),
        /// Waits until everything is finished.
        Join,
        /// The first put into an unbounded queue.
        FirstGrow,
        /// Puts across the end of a segment of an unbounded queue, which makes the next one.
        Grow(Form),
        GrowMany,
        /// Takes a message that lies across the end of a segment, which frees it.
        Shrink(Form),
        ShrinkMany,
        ShrinkByLease,
        Close,
        DropSender,
        DropReceiver,
    }

    impl Op {
        fn form(self) -> Form {
            match self {
                Op::Put(f)
                | Op::PutMany(f)
                | Op::GetMany(f)
                | Op::Get(f)
                | Op::FirstLease(f)
                | Op::Lease(f)
                | Op::Retake(f)
                | Op::GetReturned(f)
                | Op::GetDead(f)
                | Op::Ack(f)
                | Op::Grow(f)
                | Op::Shrink(f)
                | Op::Requeue(f) => f,
                _ => Form::Inline,
            }
        }

        fn puts(self) -> bool {
            matches!(self, Op::FirstPut | Op::Put(_) | Op::PutMany(_) | Op::FirstGrow | Op::Grow(_) | Op::GrowMany)
        }

        fn is_at_edge(self) -> bool {
            matches!(self, Op::Grow(_) | Op::GrowMany | Op::Shrink(_) | Op::ShrinkMany | Op::ShrinkByLease)
        }

        fn is_unbounded(self) -> bool {
            self.is_at_edge() || self == Op::FirstGrow
        }

        fn starts_with_lease(self) -> bool {
            matches!(self, Op::Ack(_) | Op::Requeue(_))
        }

        /// How many messages may be lost in the hands of who dies in it.
        fn may_lose(self) -> usize {
            match self {
                Op::Get(_) | Op::GetReturned(_) | Op::GetDead(_) | Op::Shrink(_) => 1,
                Op::GetMany(_) | Op::ShrinkMany => 3,
                _ => 0,
            }
        }

        /// The forms of what it puts, in order.
        fn forms(self) -> Vec<Form> {
            match self {
                Op::PutMany(form) | Op::GetMany(form) if form == Form::Block => vec![Form::Inline, form, Form::Inline],
                Op::PutMany(form) | Op::GetMany(form) => vec![form, Form::Inline, form],
                Op::GrowMany | Op::ShrinkMany => vec![Form::Inline, Form::Inline, Form::Handle],
                op => vec![op.form()],
            }
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Scene {
        /// Nobody else is there.
        Alone,
        /// Nobody else is there, and everything is dropped right after: nothing is left over.
        Abandoned,
        /// Two getters sleep on the empty queue.
        Getters,
        /// Two putters sleep on the full queue.
        Putters,
        /// Two others wait until everything is finished.
        Joiners,
        /// As these, and the victim waits as well, before them or behind them.
        VictimLeads,
        VictimFollows,
    }

    #[derive(Debug, Serialize, Deserialize)]
    enum Order {
        Get(Receiver<Msg>),
        Lease(Receiver<Msg>),
        Put(Sender<Msg>, u64),
        Join(Sender<Msg>),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Event {
        Got(u64),
        Put(u64),
        Joined,
        Ended,
        Failed(String),
    }

    /// A process that does one thing after the other and reports each.
    fn helper(me: usize, orders: Receiver<Order>, reports: Sender<(usize, Event)>) {
        for order in &orders {
            let event = match order.unwrap() {
                Order::Get(rx) => got(rx.get()),
                Order::Lease(rx) => got(rx.lease().map(|lease| lease.ack())),
                Order::Put(tx, id) => match tx.put(Msg { id, pad: vec![id as u8; 16], handle: None }) {
                    Ok(()) => Event::Put(id),
                    Err(e) if e.is_closed() || e.is_disconnected() => Event::Ended,
                    Err(e) => Event::Failed(e.to_string()),
                },
                Order::Join(tx) => match tx.join() {
                    Ok(()) => Event::Joined,
                    Err(e) if e.is_disconnected() => Event::Ended,
                    Err(e) => Event::Failed(e.to_string()),
                },
            };
            reports.put((me, event)).unwrap();
        }
    }

    fn got(got: Result<Msg, GetError>) -> Event {
        match got.map(|m| m.check()) {
            Ok(Ok(id)) => Event::Got(id),
            Ok(Err(why)) => Event::Failed(why),
            Err(e) if e.is_end() => Event::Ended,
            Err(e) => Event::Failed(e.to_string()),
        }
    }

    /// What a victim that survived says: crash points passed, and what it got.
    type Told = (u64, Vec<u64>);

    fn victim(q: Queue<Msg>, handle: Queue<u64>, go: Option<Receiver<()>>, op: Op, k: u64, ids: Vec<u64>) -> Told {
        // What is not the operation itself comes before it.
        let mut messages: Vec<Msg> = ids.iter().zip(op.forms()).map(|(id, form)| Msg::new(*id, form, &handle)).collect();
        drop(handle);
        let lease = op.starts_with_lease().then(|| q.lease_timeout(LIMIT).unwrap());
        if let Some(go) = go {
            go.get().unwrap();
        }
        testing::arm_step(k);
        let mut taken = Vec::new();
        let mut again = None;
        match op {
            Op::PutMany(_) | Op::GrowMany => assert_eq!(q.put_many(messages).unwrap(), 3),
            Op::GetMany(_) | Op::ShrinkMany => taken = q.get_many(3).unwrap().into_iter().map(Result::unwrap).collect(),
            Op::FirstPut | Op::Put(_) | Op::FirstGrow | Op::Grow(_) => match q.put(messages.pop().unwrap()) {
                Ok(()) => {}
                Err(e) if e.is_closed() => {}
                Err(e) => panic!("{e}"),
            },
            Op::Get(_) | Op::GetReturned(_) | Op::Shrink(_) => taken.push(q.get().unwrap()),
            Op::GetDead(_) => taken.push(q.dead().unwrap().get().unwrap().into_inner()),
            Op::FirstLease(_) | Op::Lease(_) | Op::Retake(_) | Op::ShrinkByLease => again = Some(q.lease().unwrap()),
            Op::Ack(_) => taken.extend(lease.map(|l| l.ack())),
            Op::Requeue(_) => drop(lease),
            Op::Join => q.join().unwrap(),
            Op::Close => q.close().unwrap(),
            Op::DropSender | Op::DropReceiver => unreachable!("they have victims of their own"),
        }
        let passed = testing::passed();
        testing::disarm();
        taken.extend(again.map(|l| l.ack()));
        (passed, taken.iter().map(|m| m.check().unwrap()).collect())
    }

    fn last_sender(tx: Sender<Msg>, go: Receiver<()>, k: u64) -> Told {
        go.get().unwrap();
        testing::arm_step(k);
        drop(tx);
        let passed = testing::passed();
        testing::disarm();
        (passed, Vec::new())
    }

    fn last_receiver(rx: Receiver<Msg>, go: Receiver<()>, k: u64) -> Told {
        go.get().unwrap();
        testing::arm_step(k);
        drop(rx);
        let passed = testing::passed();
        testing::disarm();
        (passed, Vec::new())
    }

    struct Stage {
        helpers: Vec<(Process<()>, Sender<Order>)>,
        reports: Receiver<(usize, Event)>,
        /// What the arena holds while nothing goes on.
        rest: Audit,
    }

    /// One run: what was put, and what of it must be seen how often.
    struct Run<'a> {
        stage: &'a Stage,
        q: Queue<Msg>,
        handle: Queue<u64>,
        next: u64,
        /// Exactly once, or at most once.
        put: BTreeMap<u64, bool>,
        seen: BTreeMap<u64, u32>,
        /// What the dead were putting: if one is there, so are those before it.
        in_order: Vec<Vec<u64>>,
        waiting: [bool; 2],
    }

    impl Stage {
        fn new() -> Stage {
            let reports = Queue::bounded(16).unwrap();
            let mut helpers = Vec::new();
            for me in 0..2 {
                let orders = Queue::<Order>::bounded(4).unwrap();
                let args = (me, orders.receiver().unwrap(), reports.sender().unwrap());
                let p = Process::builder().name(format!("helper-{me}")).daemon(true).spawn(args, helper).unwrap();
                assert!(eventually(LIMIT, || sleeps_on(p.pid(), orders.id())));
                helpers.push((p, orders.sender().unwrap()));
            }
            // Their queues have rings from now on.
            let closed = Queue::<Msg>::bounded(1).unwrap();
            closed.close().unwrap();
            let reports = reports.receiver().unwrap();
            for (_, orders) in &helpers {
                orders.put(Order::Get(closed.receiver().unwrap())).unwrap();
                assert_eq!(reports.get_timeout(LIMIT).unwrap().1, Event::Ended);
            }
            drop(closed);
            // An earlier stage may be on its way out.
            let mut rest = quiet().unwrap();
            while eventually(Duration::from_millis(50), || quiet().unwrap() != rest) {
                rest = quiet().unwrap();
            }
            Stage { helpers, reports, rest }
        }
    }

    impl Stage {
        /// After a failure: the helpers may hang.
        fn renewed(self) -> Stage {
            for (p, _) in &self.helpers {
                let _ = p.kill();
                p.wait();
            }
            drop(self);
            Stage::new()
        }
    }

    impl Run<'_> {
        fn id(&mut self, exactly: bool) -> u64 {
            self.next += 1;
            self.put.insert(self.next, exactly);
            self.next
        }

        fn fill(&mut self, form: Form) -> Result<u64, String> {
            let id = self.id(true);
            self.q.put_timeout(Msg::new(id, form, &self.handle), LIMIT).map_err(|e| format!("filling: {e}"))?;
            Ok(id)
        }

        /// Has head and tail stand 16 bytes before the end of the first segment; one message has gone through already.
        fn go_to_edge(&mut self) -> Result<(), String> {
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

        fn saw(&mut self, id: u64) {
            *self.seen.entry(id).or_default() += 1;
        }

        fn take(&mut self, by_lease: bool) -> Result<Option<u64>, String> {
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
        fn send_helpers(&mut self, put: bool, by_lease: bool) -> Result<(), String> {
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

        fn hear(&mut self) -> Result<(), String> {
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
        fn send_joiners(&mut self) -> Result<(), String> {
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
        fn until(&mut self, limit: Duration, what: &str, done: impl Fn(&Queue<Msg>) -> bool) -> Result<(), String> {
            let mut heard = Ok(());
            let q = self.q.clone();
            let ok = eventually(limit, || {
                heard = self.hear();
                heard.is_err() || done(&q) || self.waiting == [false; 2]
            });
            heard?;
            if ok { Ok(()) } else { Err(format!("{what}: len {}, waiting {:?}", self.q.len(), self.waiting)) }
        }

        fn spawn(&mut self, op: Op, k: u64) -> Result<Victim, String> {
            let put: Vec<u64> = if op.puts() { op.forms().iter().map(|_| self.id(false)).collect() } else { Vec::new() };
            let go = op.starts_with_lease().then(|| Queue::<()>::bounded(1).unwrap());
            let receiver = go.as_ref().map(|go| go.receiver().unwrap());
            let args = (self.q.clone(), self.handle.clone(), receiver, op, k, put.clone());
            let process = Process::builder().daemon(true).spawn(args, victim).map_err(|e| format!("spawning: {e}"))?;
            if let Some(go) = &go
                && !eventually(LIMIT, || sleeps_on(process.pid(), go.id()))
            {
                return Err("the victim does not get its lease".into());
            }
            Ok(Victim { process, put, go })
        }
    }

    struct Victim {
        process: Process<Told>,
        put: Vec<u64>,
        go: Option<Queue<()>>,
    }

    impl Victim {
        /// Lets it run to its end.
        fn finish(&self) -> Result<(), String> {
            if let Some(go) = &self.go {
                go.put(()).map_err(|e| e.to_string())?;
            }
            let pid = self.process.pid();
            if eventually(LIMIT, || is_dead(pid)) { Ok(()) } else { Err("the victim hangs".into()) }
        }
    }

    /// Whether the victim died.
    fn ended(Victim { process, put, .. }: Victim, run: &mut Run<'_>) -> Result<bool, String> {
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

    fn prepare(run: &mut Run<'_>, op: Op, scene: Scene, victims: usize) -> Result<(), String> {
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
            Op::Get(_) | Op::Lease(_) | Op::FirstLease(_)
                if matches!(scene, Scene::Alone | Scene::Abandoned | Scene::Putters) =>
            {
                for _ in 0..victims.max(2) {
                    run.fill(form)?;
                }
            }
            // The last one.
            Op::Get(_) if scene == Scene::Joiners => _ = run.fill(form)?,
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
            Op::Retake(_) | Op::GetReturned(_) | Op::GetDead(_) => {
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

    /// Runs the operations, each dying at its step; `clean_between` cleans up after each death before the next.
    fn play(stage: &Stage, scene: Scene, ops: &[(Op, u64)], clean_between: bool) -> Result<Vec<bool>, String> {
        let before = stage.rest;
        let capacity = if matches!(scene, Scene::Alone | Scene::Abandoned | Scene::Getters | Scene::Joiners) { 6 } else { 2 };
        // Who gives a lease back to joiners gives it back for the last time.
        let once = matches!(ops[0].0, Op::GetDead(_)) || scene == Scene::Joiners && matches!(ops[0].0, Op::Requeue(_));
        let builder = Queue::builder().capacity(capacity).byte_limit(BYTES);
        let builder = if ops[0].0.is_unbounded() { builder.unbounded() } else { builder };
        // Without a bound of attempts an acknowledgement has but the joiners to tell.
        let builder = match once {
            true => builder.attempts(1),
            false if scene == Scene::Joiners && ops[0].1.is_multiple_of(2) => builder.attempts(u32::MAX),
            false if scene == Scene::Joiners => builder,
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
        };
        let result = play_in(&mut run, scene, ops, clean_between);
        drop(run);
        let died = result?;
        let mut after = quiet()?;
        let ok = eventually(PROCEED, || {
            after = quiet().unwrap_or_default();
            after == before
        });
        if !ok {
            return Err(format!("left over: {before:?} became {after:?}"));
        }
        Ok(died)
    }

    fn quiet() -> Result<Audit, String> {
        testing::collect().and_then(|()| testing::audit()).map_err(|e| e.to_string())
    }

    fn play_in(run: &mut Run<'_>, scene: Scene, ops: &[(Op, u64)], clean_between: bool) -> Result<Vec<bool>, String> {
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
            Scene::Alone | Scene::Abandoned | Scene::Getters | Scene::Putters | Scene::Joiners => {
                // A victim with a lease takes it before others come to wait for messages.
                let mut early = if first.starts_with_lease() { Some(run.spawn(first, k)?) } else { None };
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
                let told_by_kernel = scene == Scene::Joiners && matches!(first, Op::Ack(_)) && k % 2 == 1;
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
    fn settle(run: &mut Run<'_>, scene: Scene) -> Result<(), String> {
        match scene {
            Scene::Getters => run.until(PROCEED, "getters sleep though there is a message", Queue::is_empty),
            Scene::Putters if !run.q.is_closed() => run.until(PROCEED, "putters sleep though there is room", Queue::is_full),
            _ => Ok(()),
        }
    }

    fn account(run: &mut Run<'_>, ops: &[(Op, u64)], died: &[bool]) -> Result<(), String> {
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
            if ops[0].1 % 3 == 1 {
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
    fn play_last(stage: &Stage, senders: bool, join: bool, k: u64) -> Result<bool, String> {
        let before = stage.rest;
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
        let mut after = quiet()?;
        if !eventually(PROCEED, || {
            after = quiet().unwrap_or_default();
            after == before
        }) {
            return Err(format!("left over: {before:?} became {after:?}"));
        }
        Ok(died)
    }

    /// What the table says of one operation in one scene.
    #[derive(Default)]
    struct Line {
        steps: u64,
        deaths: u64,
        failures: Vec<String>,
    }

    struct Table(Vec<(String, Line)>);

    impl Table {
        fn print(&self) {
            println!("{:<58} {:>6} {:>7} {:>9}", "operation, scene", "steps", "deaths", "failures");
            for (name, line) in &self.0 {
                println!("{name:<58} {:>6} {:>7} {:>9}", line.steps, line.deaths, line.failures.len());
            }
            for failure in self.failures() {
                println!("{failure}");
            }
            let sum = |f: fn(&Line) -> u64| self.0.iter().map(|(_, l)| f(l)).sum::<u64>();
            println!("{:<58} {:>6} {:>7} {:>9}", "all", sum(|l| l.steps), sum(|l| l.deaths), sum(|l| l.failures.len() as u64));
        }

        fn failures(&self) -> Vec<String> {
            self.0.iter().flat_map(|(name, l)| l.failures.iter().map(move |f| format!("{name}: {f}"))).collect()
        }
    }

    /// More than any scene puts: what is counted wrong shows when a message of just that size does not fit in the end.
    const BYTES: u64 = 1 << 15;
    /// Of an unbounded queue in an arena of the usual size.
    const SEGMENT: usize = 256 << 10;
    /// Steps beyond these do not exist; an operation that passes more has a loop.
    const MAX_STEPS: u64 = 120;

    fn each_step(name: String, mut at: impl FnMut(u64) -> Result<bool, String>) -> (String, Line) {
        let mut line = Line::default();
        for k in 1..=MAX_STEPS {
            Watchdog::beat(|| format!("{name}, step {k}"));
            line.steps += 1;
            match at(k) {
                Ok(true) => line.deaths += 1,
                Ok(false) => break,
                Err(why) => {
                    line.failures.push(format!("step {k}: {why}"));
                    // Helpers may hang: nothing that follows would say anything.
                    break;
                }
            }
        }
        (name, line)
    }

    fn wanted(name: &str) -> bool {
        std::env::var("CRASH_QUEUE_ONLY").map_or(true, |only| name.contains(&only))
    }

    const FORMS: [Form; 3] = [Form::Inline, Form::Block, Form::Handle];

    fn all_of_one() -> Vec<(Op, Scene)> {
        use Scene::*;
        let mut all =
            vec![(Op::FirstPut, Alone), (Op::FirstPut, Getters), (Op::Close, Alone), (Op::Close, Getters), (Op::Close, Putters)];
        for form in FORMS {
            let waiting = [VictimLeads, VictimFollows];
            all.extend([Alone, Getters].iter().chain(&waiting).map(|s| (Op::Put(form), *s)));
            for op in [Op::Get(form), Op::Lease(form)] {
                all.extend([Alone, Putters].iter().chain(&waiting).map(|s| (op, *s)));
            }
            for op in [Op::Retake(form), Op::GetReturned(form)] {
                all.extend([Alone, Putters].map(|s| (op, s)));
            }
            all.push((Op::GetDead(form), Alone));
            all.extend([Alone, Getters].map(|s| (Op::Ack(form), s)));
            all.extend([Alone, Getters].map(|s| (Op::Requeue(form), s)));
            all.extend([Op::Ack(form), Op::Requeue(form), Op::Get(form), Op::GetReturned(form)].map(|op| (op, Joiners)));
            all.push((Op::FirstLease(form), Alone));
            all.extend([Alone, Getters].map(|s| (Op::PutMany(form), s)));
            all.extend([Alone, Putters].iter().chain(&waiting).map(|s| (Op::GetMany(form), *s)));
        }
        all.extend([(Op::GetMany(Form::Inline), Joiners), (Op::Join, Joiners)]);
        all.extend([Op::FirstGrow, Op::Grow(Form::Inline), Op::Shrink(Form::Inline)].map(|op| (op, Alone)));
        let plain: Vec<Op> = all.iter().filter(|(_, scene)| *scene == Alone).map(|(op, _)| *op).collect();
        all.extend(plain.into_iter().map(|op| (op, Abandoned)));
        let at_edge = [Op::Grow(Form::Block), Op::GrowMany, Op::Shrink(Form::Block), Op::ShrinkMany, Op::ShrinkByLease];
        all.extend(at_edge.map(|op| (op, Alone)).into_iter().chain([(Op::Grow(Form::Inline), Getters)]));
        all.push((Op::Put(Form::BlockAndHandle), Getters));
        all.push((Op::Get(Form::BlockAndHandle), Putters));
        all.push((Op::Lease(Form::BlockAndHandle), Putters));
        all
    }

    #[test]
    fn one_dies_at_each_step() {
        let _one = alone();
        // Otherwise slices would hide what the kernel does not do.
        assert!(std::env::var_os(OLD_KERNEL).is_none_or(|lacks| lacks == DEATH_WAKES));
        Watchdog::start(Duration::from_secs(120));
        let mut stage = Stage::new();
        let mut table = Table(Vec::new());
        for (op, scene) in all_of_one() {
            let name = format!("{op:?}, {scene:?}");
            if wanted(&name) {
                let line = each_step(name, |k| Ok(play(&stage, scene, &[(op, k)], false)?[0]));
                if !line.1.failures.is_empty() {
                    stage = stage.renewed();
                }
                table.0.push(line);
            }
        }
        let last = [
            (true, false, "DropSender, Getters"),
            (false, false, "DropReceiver, Putters"),
            (false, true, "DropReceiver, a putter and a joiner"),
        ];
        for (senders, join, name) in last {
            if wanted(name) {
                let line = each_step(name.into(), |k| play_last(&stage, senders, join, k));
                if !line.1.failures.is_empty() {
                    stage = stage.renewed();
                }
                table.0.push(line);
            }
        }
        table.print();
        assert!(table.failures().is_empty(), "see the table");
    }

    /// Where the kernel does not wake for the dead, who sleeps looks again each 10 ms. A process of its own, since one arena is of one kind.
    #[test]
    fn one_dies_at_each_step_on_an_old_kernel() {
        let _one = alone();
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["one_dies_at_each_step", "--nocapture"]).args(["--skip", "on_an_old_kernel"]).env(OLD_KERNEL, DEATH_WAKES);
        let out = again.output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&out.stderr));
    }

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
        let mut stage = Stage::new();
        let mut table = Table(Vec::new());
        for k1 in 1..MAX_STEPS {
            let mut first_died = true;
            let line = each_step(format!("Ack at {k1} then Join"), |k2| {
                let (first, second) = play_wake_in_hand(&stage, k1, k2)?;
                first_died = first;
                Ok(second)
            });
            if !line.1.failures.is_empty() {
                stage = stage.renewed();
            }
            table.0.push(line);
            if !first_died {
                break;
            }
        }
        table.print();
        assert!(table.failures().is_empty(), "see the table");
    }

    #[test]
    fn who_repairs_dies_as_well() {
        let _one = alone();
        Watchdog::start(Duration::from_secs(120));
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
            for clean in [false, true] {
                let name = format!("{first:?} then {second:?}{}", if clean { ", cleaned between" } else { "" });
                // To go to the edge takes its time.
                if !wanted(&name) || clean && first.is_at_edge() {
                    continue;
                }
                let mut sum = Line::default();
                for k1 in 1..MAX_STEPS {
                    let mut first_died = true;
                    let (_, line) = each_step(format!("{name} at {k1}"), |k2| {
                        let died = play(&stage, Scene::Alone, &[(first, k1), (second, k2)], clean)?;
                        first_died = died[0];
                        Ok(died[1])
                    });
                    sum.steps += line.steps;
                    sum.deaths += line.deaths;
                    if !line.failures.is_empty() {
                        stage = stage.renewed();
                    }
                    sum.failures.extend(line.failures.into_iter().map(|f| format!("first at {k1}, {f}")));
                    if !first_died {
                        break;
                    }
                }
                table.0.push((name, sum));
            }
        }
        table.print();
        assert!(table.failures().is_empty(), "see the table");
    }
}
