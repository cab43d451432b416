//! The step killer for pipes: a process dies at each step of each operation at one end, and the other end goes on.
//!
//! A victim arms itself, runs one operation and is killed at its k-th crash point, for every k until it survives. Meanwhile nobody else helps: traffic is
//! one message, cleaning up after the dead is held back, and no wait looks again by itself. Who sleeps at the other end must learn of what was
//! committed, and then of the death. Afterwards another process takes the dead one's end over, everything is counted, and no block or object is left.
//!
//! Needs the feature `crash-points`.

mod common_queue;

#[cfg(not(feature = "crash-points"))]
#[test]
fn without_crash_points_one_death_stands_for_all() {
    use multiproc::{PipeSender, Process, one_way};
    eprintln!("the step killer needs --features crash-points; here one death stands for all");
    let (tx, rx) = one_way::<u32>().unwrap();
    let p = Process::spawn((tx,), |tx: PipeSender<u32>| -> () {
        tx.send(7).unwrap();
        std::process::abort();
    })
    .unwrap();
    assert_eq!(rx.recv().unwrap(), 7);
    assert_eq!(rx.recv().unwrap_err().peer_died(), Some(p.pid()));
}

#[cfg(feature = "crash-points")]
mod killer {
    use super::common_queue::{Form, LIMIT, Msg, Watchdog, alone, eventually, is_dead, sleeps_on};
    use multiproc::testing::{self, Audit};
    use multiproc::{Connection, PipeBuilder, Process, ProcessError, Queue, Receiver, RecvError, SendError, Sender};
    use serde::{Deserialize, Serialize};
    use std::time::Duration;

    /// What sleepers get to do what only the kernel can help them with.
    const PROCEED: Duration = Duration::from_secs(2);

    type End = Connection<Msg, Msg>;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    enum Op {
        /// Claims the end, makes the ring, sends.
        FirstSend,
        /// Claims the end of one that died, and sends.
        SendAfterDeath,
        Send(Form),
        /// Claims the end, receives.
        FirstRecv,
        Recv(Form),
        /// Receives what makes the receiver look whether the sender sleeps.
        RecvQuarter,
        Close,
        Drop,
    }

    impl Op {
        fn claims(self) -> bool {
            matches!(self, Op::FirstSend | Op::SendAfterDeath | Op::FirstRecv)
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Scene {
        /// Nobody is at the other end, and everything is dropped right after: nothing is left over.
        Abandoned,
        /// At the other end a thread waits for a message.
        Receiver,
        /// At the other end a thread waits for room.
        Sender,
        /// Both.
        Both,
        /// The victim waits itself, for the other end.
        VictimWaits,
    }

    #[derive(Debug, Serialize, Deserialize)]
    enum Order {
        /// Receives until nothing more comes.
        Recv(End),
        /// Sends one message with this number; sends on until the pipe is broken.
        Send(End, u64),
        /// Both, in two threads of one process.
        Both(End, u64),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Event {
        Got(u64),
        /// The number that was sent last.
        Sent(u64),
        Eof,
        Died(u32),
        Broken(Option<u32>),
        Failed(String),
    }

    /// A process that sits at the other end, and reports each thing that happens to it.
    fn helper(orders: Receiver<Order>, reports: Sender<Event>) {
        for order in &orders {
            match order.unwrap() {
                Order::Recv(end) => receive_all(&end, &reports),
                Order::Send(end, id) => send_all(&end, id, &reports),
                Order::Both(end, id) => {
                    let other = (end.clone(), reports.clone());
                    let sends = std::thread::spawn(move || send_all(&other.0, id, &other.1));
                    receive_all(&end, &reports);
                    sends.join().unwrap();
                }
            }
        }
    }

    fn receive_all(end: &End, reports: &Sender<Event>) {
        loop {
            let event = match end.recv().map(|m| m.check()) {
                Ok(Ok(id)) => Event::Got(id),
                Ok(Err(why)) => Event::Failed(why),
                Err(RecvError::Eof) => Event::Eof,
                Err(RecvError::PeerDied { pid, .. }) => Event::Died(pid),
                Err(e) => Event::Failed(e.to_string()),
            };
            let over = !matches!(event, Event::Got(_));
            reports.put(event).unwrap();
            if over {
                return;
            }
        }
    }

    fn send_all(end: &End, first: u64, reports: &Sender<Event>) {
        for id in first.. {
            let event = match end.send(small(id)) {
                Ok(()) => Event::Sent(id),
                Err(e) => broken(&e),
            };
            let over = !matches!(event, Event::Sent(_));
            reports.put(event).unwrap();
            if over {
                return;
            }
        }
    }

    fn broken<T>(e: &SendError<T>) -> Event {
        if e.is_broken_pipe() { Event::Broken(e.peer_died()) } else { Event::Failed(e.to_string()) }
    }

    fn small(id: u64) -> Msg {
        Msg { id, pad: vec![id as u8; 16], handle: None }
    }

    /// Of these a ring of 16 KiB is soon full.
    fn bulky(id: u64) -> Msg {
        Msg { id, pad: vec![id as u8; 3000], handle: None }
    }

    /// What a victim that survived says: crash points passed, and what it got.
    type Told = (u64, Option<u64>);

    fn victim(end: End, handle: Queue<u64>, (go, survived): (Receiver<()>, Sender<()>), op: Op, k: u64) -> Told {
        // What is not the operation itself comes before it.
        match op {
            Op::Send(_) | Op::Drop | Op::Close => {
                end.send(small(0)).unwrap();
            }
            Op::Recv(_) => {
                assert_eq!(end.recv().unwrap().check().unwrap(), 0);
            }
            Op::RecvQuarter => {
                assert_eq!(end.recv().unwrap().check().unwrap(), 2);
            }
            _ => {}
        }
        let form = if let Op::Send(form) = op { form } else { Form::Inline };
        let message = Msg::new(1, form, &handle);
        drop(handle);
        go.get().unwrap();
        testing::arm_step(k);
        let (mut got, mut end) = (None, Some(end));
        match op {
            Op::FirstSend | Op::SendAfterDeath | Op::Send(_) => end.as_ref().unwrap().send(message).unwrap(),
            Op::FirstRecv | Op::Recv(_) | Op::RecvQuarter => got = Some(end.as_ref().unwrap().recv().unwrap()),
            Op::Close => end.as_ref().unwrap().close().unwrap(),
            Op::Drop => drop(end.take()),
        }
        let passed = testing::passed();
        testing::disarm();
        drop(end);
        survived.put(()).unwrap();
        (passed, got.map(|m| m.check().unwrap()))
    }

    struct Stage {
        helper: Process<()>,
        orders: Sender<Order>,
        reports: Receiver<Event>,
        /// What the arena holds while nothing goes on.
        rest: Audit,
    }

    impl Stage {
        fn new() -> Stage {
            let (orders, reports) = (Queue::<Order>::bounded(4).unwrap(), Queue::bounded(64).unwrap());
            let args = (orders.receiver().unwrap(), reports.sender().unwrap());
            let p = Process::builder().name("helper").daemon(true).spawn(args, helper).unwrap();
            // The queues have their rings from now on.
            let (a, b) = PipeBuilder::new().pipe().unwrap();
            orders.put(Order::Recv(a)).unwrap();
            drop(b);
            assert_eq!(reports.get_timeout(LIMIT).unwrap(), Event::Eof);
            assert!(eventually(LIMIT, || sleeps_on(p.pid(), orders.id())));
            // An earlier stage may be on its way out.
            let mut rest = quiet().unwrap();
            while eventually(Duration::from_millis(50), || quiet().unwrap() != rest) {
                rest = quiet().unwrap();
            }
            Stage { helper: p, orders: orders.sender().unwrap(), reports: reports.receiver().unwrap(), rest }
        }

        /// After a failure: the helper may hang.
        fn renewed(self) -> Stage {
            let _ = self.helper.kill();
            self.helper.wait();
            drop(self);
            Stage::new()
        }

        fn hear(&self, what: &str) -> Result<Event, String> {
            self.reports.get_timeout(PROCEED).map_err(|_| format!("the other end hears nothing of {what}"))
        }
    }

    fn quiet() -> Result<Audit, String> {
        testing::collect().and_then(|()| testing::audit()).map_err(|e| e.to_string())
    }

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
        let mut after = quiet()?;
        let ok = eventually(LIMIT, || {
            after = quiet().unwrap_or_default();
            after == stage.rest
        });
        if ok { Ok(done) } else { Err(format!("left over: {:?} became {after:?}", stage.rest)) }
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
            if left > stage.rest.of_messages + from_here {
                return Err(format!("{left} messages are left"));
            }
        }
        Ok(outcome.is_none())
    }

    fn text(e: impl std::fmt::Display) -> String {
        e.to_string()
    }

    const OLD_KERNEL: &str = "MULTIPROC_FORCE_OLD_KERNEL";
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
        let sends = matches!(op, Op::FirstSend | Op::SendAfterDeath | Op::Send(_));
        let receives = matches!(scene, Scene::Receiver | Scene::Both);
        if receives {
            // In order and whole, the one before and perhaps the one of the operation.
            let before = matches!(op, Op::Send(_) | Op::Drop | Op::Close).then_some(0);
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

    /// Two who use an end one after the other and die, each at a step of its own; a third goes on.
    fn play_two(stage: &Stage, op: Op, k1: u64, k2: u64) -> Result<(bool, bool), String> {
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
        let mut after = quiet()?;
        if !eventually(LIMIT, || {
            after = quiet().unwrap_or_default();
            after == stage.rest
        }) {
            return Err(format!("left over: {:?} became {after:?}", stage.rest));
        }
        Ok((died[0], died[1]))
    }

    /// As [`victim`], all of whose dealings with the end are armed.
    fn second_victim(end: End, handle: Queue<u64>, go: Receiver<()>, op: Op, k: u64, id: u64) -> Told {
        let form = if let Op::Send(form) = op { form } else { Form::Inline };
        let message = Msg::new(id, form, &handle);
        drop(handle);
        go.get().unwrap();
        testing::arm_step(k);
        match op {
            Op::Recv(_) => drop(end.recv()),
            _ => drop(end.send(message)),
        }
        let passed = testing::passed();
        testing::disarm();
        (passed, None)
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

    /// Steps beyond these do not exist; an operation that passes more has a loop.
    const MAX_STEPS: u64 = 150;

    fn each_step(name: String, mut at: impl FnMut(u64) -> Result<bool, String>) -> (String, Line) {
        let mut line = Line::default();
        for k in 1..=MAX_STEPS {
            Watchdog::beat(|| format!("{name}, step {k}"));
            line.steps += 1;
            match at(k) {
                Ok(true) => line.deaths += 1,
                Ok(false) => return (name, line),
                Err(why) => {
                    line.failures.push(format!("step {k}: {why}"));
                    // The helper may hang: nothing that follows would say anything.
                    return (name, line);
                }
            }
        }
        line.failures.push("it never ends".into());
        (name, line)
    }

    fn wanted(name: &str) -> bool {
        std::env::var("CRASH_PIPE_ONLY").map_or(true, |only| name.contains(&only))
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
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["one_dies_at_each_step", "--nocapture", "--skip", "on_an_old_kernel"]).env(OLD_KERNEL, LACKS);
        let out = again.output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&out.stderr));
    }

    #[test]
    fn one_dies_at_each_step() {
        let _one = alone();
        // Otherwise slices would hide what the kernel does not do.
        assert!(std::env::var_os(OLD_KERNEL).is_none_or(|lacks| lacks == LACKS));
        Watchdog::start(Duration::from_secs(60));
        let mut stage = Stage::new();
        let mut table = Table(Vec::new());
        for (op, scene) in all_of_one() {
            let name = format!("{op:?}, {scene:?}");
            if wanted(&name) {
                let line = each_step(name, |k| play(&stage, scene, op, k));
                if !line.1.failures.is_empty() {
                    stage = stage.renewed();
                }
                table.0.push(line);
            }
        }
        table.print();
        assert!(table.failures().is_empty(), "see the table");
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
            let mut sum = Line::default();
            for k1 in 1..MAX_STEPS {
                let mut first_died = true;
                let (_, line) = each_step(format!("{name} at {k1}"), |k2| {
                    let died = play_two(&stage, op, k1, k2)?;
                    first_died = died.0;
                    Ok(died.1)
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
        table.print();
        assert!(table.failures().is_empty(), "see the table");
    }
}
