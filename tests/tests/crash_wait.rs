//! The step killer for `wait`: who changes something dies at each step of doing so while several processes wait for it among other things, and each of
//! them is told of what was done. Then a watcher dies at each step of its own.
//!
//! Meanwhile nobody else helps: cleaning up after the dead is held back, and no wait looks again by itself, so a wake that only the dead process would
//! have made must come from the kernel, which wakes one; that one must wake the others.
//!
//! Needs the feature `crash-points`.

mod common_queue;
#[cfg(feature = "crash-points")]
#[path = "step_killer/table.rs"]
mod steps;
#[cfg(feature = "crash-points")]
#[path = "step_killer/watched.rs"]
mod watched;

#[cfg(not(feature = "crash-points"))]
#[test]
fn without_crash_points_one_death_stands_for_all() {
    use multiproc::{Process, Queue, channel, wait};
    eprintln!("the step killer needs --features crash-points; here one death stands for all");
    let idle = Queue::<u32>::bounded(4).unwrap();
    let (tx, rx) = channel::<u32>(4).unwrap();
    let p = Process::spawn((tx,), |tx| -> () {
        tx.put(7).unwrap();
        std::process::abort();
    })
    .unwrap();
    assert_eq!(wait(&[&idle, &rx]).unwrap(), [1]);
    assert_eq!(rx.get().unwrap(), 7);
    assert_eq!(wait(&[&idle, &rx]).unwrap(), [1]);
    assert!(rx.get().unwrap_err().is_end());
    p.wait();
}

#[cfg(feature = "crash-points")]
mod killer {
    use super::common_queue::{LIMIT, Watchdog, alone, eventually, is_dead};
    use super::steps::{Line, Table};
    use super::watched::{assert_new_kernel_or, each_step};
    use multiproc::{
        Event, PipeReceiver, PipeSender, Process, ProcessError, Queue, Receiver, Sender, WaitOn, dump, one_way, testing, wait,
        wait_timeout,
    };
    use serde::{Deserialize, Serialize};
    use std::time::Duration;

    /// What watchers get to do what only the kernel can help them with.
    const PROCEED: Duration = Duration::from_secs(5);

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    enum Op {
        Put,
        PutLarge,
        PutMany,
        Close,
        GiveBack,
        Set,
        Send,
        ClosePipe,
    }

    const OPS: [Op; 8] = [Op::Put, Op::PutLarge, Op::PutMany, Op::Close, Op::GiveBack, Op::Set, Op::Send, Op::ClosePipe];

    /// What else the watchers wait for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    enum Beside {
        Nothing,
        Few,
        /// More than one thread can sleep on.
        Many,
        /// And a descriptor.
        Descriptor,
    }

    #[derive(Clone, Debug, Serialize, Deserialize)]
    enum Thing {
        Queue(Receiver<Vec<u8>>),
        Event(Event),
        Pipe(PipeReceiver<u32>),
    }

    impl Thing {
        fn item(&self) -> &dyn WaitOn {
            match self {
                Thing::Queue(rx) => rx,
                Thing::Event(event) => event,
                Thing::Pipe(rx) => rx,
            }
        }
    }

    #[derive(Debug, Serialize, Deserialize)]
    enum Order {
        Watch(Thing, Beside),
        /// Waits in `get`, with the getters' lock.
        Get(Receiver<Vec<u8>>),
        /// Watches that alone, and dies at the k-th step.
        Die(Thing, u64),
    }

    /// Waits as it is told, and reports the position of what was ready.
    fn helper(orders: Receiver<Order>, reports: Sender<usize>) {
        let idle: Vec<Queue<u32>> = (0..200).map(|_| Queue::bounded(1).unwrap()).collect();
        let (reader, _writer) = std::io::pipe().unwrap();
        for order in &orders {
            match order.unwrap() {
                Order::Watch(thing, beside) => {
                    let count = match beside {
                        Beside::Nothing => 0,
                        Beside::Few | Beside::Descriptor => 5,
                        Beside::Many => 200,
                    };
                    let mut items: Vec<&dyn WaitOn> = idle[..count].iter().map(|q| q as &dyn WaitOn).collect();
                    items.push(thing.item());
                    if beside == Beside::Descriptor {
                        items.push(&reader);
                    }
                    let ready = wait(&items).unwrap();
                    assert_eq!(ready, [count]);
                }
                Order::Get(rx) => _ = rx.get(),
                Order::Die(thing, k) => {
                    testing::arm_step(k);
                    let ready = wait(&[thing.item()]).unwrap();
                    testing::disarm();
                    assert_eq!(ready, [0]);
                }
            }
            reports.put(1).unwrap();
        }
    }

    struct Helper {
        process: Process<()>,
        orders: Sender<Order>,
        reports: Receiver<usize>,
    }

    impl Helper {
        fn new() -> Helper {
            let (orders, reports) = (Queue::bounded(4).unwrap(), Queue::bounded(4).unwrap());
            let args = (orders.receiver().unwrap(), reports.sender().unwrap());
            let process = Process::builder().daemon(true).spawn(args, helper).unwrap();
            Helper { process, orders: orders.sender().unwrap(), reports: reports.receiver().unwrap() }
        }

        /// Has it wait, and returns when it sleeps with all its threads, or is dead.
        fn begin(&self, order: Order) {
            let operation = if matches!(order, Order::Get(_)) { "get" } else { "wait" };
            self.orders.put(order).unwrap();
            let pid = self.process.pid();
            let waits = || dump().process(pid).is_some_and(|p| p.waits.iter().any(|w| w.operation == operation));
            assert!(eventually(LIMIT, || is_dead(pid) || self.took_the_order() && waits() && sleeps(pid)), "{}", dump());
        }

        fn took_the_order(&self) -> bool {
            self.orders.is_empty()
        }

        fn is_told(&self) -> bool {
            self.reports.get_timeout(PROCEED).is_ok()
        }
    }

    impl Drop for Helper {
        fn drop(&mut self) {
            let _ = self.process.kill();
            self.process.wait();
        }
    }

    /// Whether each thread of the process sleeps.
    fn sleeps(pid: u32) -> bool {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
        tasks.flatten().all(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('S'))
        })
    }

    /// What the victim works on.
    #[derive(Debug, Serialize, Deserialize)]
    enum Tool {
        Queue(Queue<Vec<u8>>),
        Event(Event),
        Pipe(PipeSender<u32>),
    }

    /// Where the victim dies.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    enum At {
        Step(u64),
        /// At the first point of that name.
        Point(String),
    }

    /// Runs the operation when it is told to go, and dies on the way.
    fn victim(tool: Tool, op: Op, at: At, go: Event) {
        let lease = match (&tool, op) {
            (Tool::Queue(q), Op::GiveBack) => Some(q.lease().unwrap()),
            _ => None,
        };
        go.wait().unwrap();
        match at {
            At::Step(k) => testing::arm_step(k),
            At::Point(name) => testing::arm_at(name.leak(), 1),
        }
        match (&tool, op) {
            (Tool::Queue(q), Op::Put) => q.put(vec![1]).unwrap(),
            (Tool::Queue(q), Op::PutLarge) => q.put(vec![1; 10_000]).unwrap(),
            (Tool::Queue(q), Op::PutMany) => assert_eq!(q.put_many([vec![1], vec![1; 10_000], vec![2]]).unwrap(), 3),
            (Tool::Queue(q), Op::Close) => q.close().unwrap(),
            (Tool::Queue(_), Op::GiveBack) => drop(lease),
            (Tool::Event(event), Op::Set) => event.set().unwrap(),
            (Tool::Pipe(tx), Op::Send) => tx.send(1).unwrap(),
            (Tool::Pipe(tx), Op::ClosePipe) => tx.close().unwrap(),
            other => panic!("{other:?}"),
        }
        testing::disarm();
    }

    /// A new thing of the kind that the operation is about, and the victim's side of it.
    fn make(op: Op) -> (Thing, Tool) {
        match op {
            Op::Put | Op::PutLarge | Op::PutMany | Op::Close | Op::GiveBack => {
                let q = Queue::bounded(4).unwrap();
                // The ring is there.
                q.put(vec![0]).unwrap();
                if op != Op::GiveBack {
                    q.try_get().unwrap();
                }
                (Thing::Queue(q.receiver().unwrap()), Tool::Queue(q))
            }
            Op::Set => {
                let event = Event::new().unwrap();
                (Thing::Event(event.clone()), Tool::Event(event))
            }
            Op::Send | Op::ClosePipe => {
                let (tx, rx) = one_way().unwrap();
                (Thing::Pipe(rx), Tool::Pipe(tx))
            }
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Getter {
        None,
        /// Sleeps in `get` before the watchers do: the kernel wakes it.
        First,
        /// Sleeps there after them.
        Last,
    }

    struct Stage {
        watchers: [Helper; 2],
        getter: Helper,
    }

    impl Stage {
        fn new() -> Stage {
            Stage { watchers: [Helper::new(), Helper::new()], getter: Helper::new() }
        }

        /// Has all of them sleep and a victim die. Returns whether it did. `done`: it dies after the change.
        fn play(&self, op: Op, beside: Beside, getter: Getter, at: At, done: bool) -> bool {
            let scene = format!("{op:?} {beside:?} getter {getter:?} {at:?}");
            Watchdog::beat(|| scene.clone());
            let (thing, tool) = make(op);
            let repeat = match &tool {
                Tool::Queue(q) => Some(Tool::Queue(q.clone())),
                Tool::Event(event) => Some(Tool::Event(event.clone())),
                // A second handle would keep the end from ending.
                Tool::Pipe(_) => None,
            };
            let go = Event::new().unwrap();
            let victim = Process::builder().daemon(true).spawn((tool, op, at, go.clone()), victim).unwrap();
            let ready = || dump().process(victim.pid()).is_some_and(|p| !p.waits.is_empty());
            assert!(eventually(LIMIT, || ready() && sleeps(victim.pid())), "{}", dump());
            let get = || match &thing {
                Thing::Queue(rx) => self.getter.begin(Order::Get(rx.clone())),
                other => panic!("{other:?}"),
            };
            // One process uses an end.
            let watchers = if matches!(thing, Thing::Pipe(_)) { &self.watchers[..1] } else { &self.watchers };
            if getter == Getter::First {
                get();
            }
            watchers.iter().for_each(|helper| helper.begin(Order::Watch(thing.clone(), beside)));
            if getter == Getter::Last {
                get();
            }
            let hold = testing::hold_collections().unwrap();
            go.set().unwrap();
            assert!(eventually(LIMIT, || is_dead(victim.pid())), "{scene}: the victim hangs\n{}", dump());
            let is_ready = match &thing {
                Thing::Pipe(_) => done,
                other => !wait_timeout(&[other.item()], Duration::ZERO).unwrap().is_empty(),
            };
            let told = |helper: &Helper| assert!(helper.is_told(), "{scene}: somebody sleeps\n{}", dump());
            let mut got = getter == Getter::None;
            let mut told_already = getter == Getter::None && is_ready;
            if getter != Getter::None {
                // Whoever was woken, the getter takes it.
                let Thing::Queue(rx) = &thing else { panic!("{thing:?}") };
                let done = || {
                    got |= self.getter.reports.try_get().is_ok();
                    got || rx.is_empty()
                };
                assert!(eventually(PROCEED, done), "{scene}: the getter sleeps\n{}", dump());
                // What it leaves is there for all.
                told_already = !wait_timeout(&[thing.item()], Duration::ZERO).unwrap().is_empty();
                if told_already {
                    watchers.iter().for_each(told);
                }
            } else if is_ready {
                watchers.iter().for_each(told);
            }
            drop((hold, thing));
            let died = match victim.join() {
                Ok(()) => false,
                Err(ProcessError::Signaled { .. }) => true,
                Err(e) => panic!("{scene}: {e}"),
            };
            if !told_already {
                // What was not done is done by another, and all go home.
                match repeat {
                    Some(Tool::Queue(q)) => q.close().unwrap(),
                    Some(Tool::Event(event)) => event.set().unwrap(),
                    _ => {}
                }
                watchers.iter().for_each(told);
            }
            if !got {
                told(&self.getter);
            }
            died
        }

        fn all_steps(&self, op: Op, beside: Beside, getter: Getter) -> Line {
            let name = format!("{op:?}, watched beside {beside:?}, getter {getter:?}");
            let line = each_step(name, |k| Ok(self.play(op, beside, getter, At::Step(k), false)));
            assert!(line.steps > 2, "{op:?} has {} steps", line.steps);
            line
        }
    }

    fn started() -> (impl Drop, Stage) {
        let alone = alone();
        assert_new_kernel_or("");
        Watchdog::start(LIMIT);
        (alone, Stage::new())
    }

    #[test]
    fn who_changes_something_dies_at_each_step() {
        let (_alone, stage) = started();
        let mut table = Table(Vec::new());
        for op in OPS {
            for beside in [Beside::Nothing, Beside::Few] {
                table.0.push(stage.all_steps(op, beside, Getter::None));
            }
        }
        table.finish("Who changes something");
    }

    #[test]
    fn threads_that_sleep_for_others_are_told_as_well() {
        let (_alone, stage) = started();
        let mut table = Table(Vec::new());
        for op in [Op::Put, Op::Set] {
            for beside in [Beside::Many, Beside::Descriptor] {
                table.0.push(stage.all_steps(op, beside, Getter::None));
            }
        }
        table.finish("Who changes something that threads watch for others");
    }

    #[test]
    fn a_waiting_getter_and_watchers_wake_each_other() {
        let (_alone, stage) = started();
        let mut table = Table(Vec::new());
        for op in [Op::Put, Op::PutMany, Op::Close] {
            for getter in [Getter::First, Getter::Last] {
                table.0.push(stage.all_steps(op, Beside::Few, getter));
            }
        }
        table.finish("A getter beside watchers");
    }

    /// After the change at the latest, the kernel tells.
    #[test]
    fn at_a_pipe_the_change_is_told_by_the_kernel() {
        let (_alone, stage) = started();
        let mut line = Line::new("Send and ClosePipe, at named steps").partly();
        for (op, point) in [
            (Op::Send, "wait_word.committed_lightly"),
            (Op::Send, "wait_word.kick"),
            (Op::Send, "pipe.claimed"),
            (Op::ClosePipe, "wait_word.committed_all"),
            (Op::ClosePipe, "wait_word.kick"),
            (Op::ClosePipe, "wait_word.watchers_counted"),
        ] {
            for beside in [Beside::Nothing, Beside::Few, Beside::Descriptor] {
                assert!(stage.play(op, beside, Getter::None, At::Point(point.into()), true), "{op:?} does not pass {point}");
                line.ran(1);
            }
        }
        line.steps = line.deaths;
        Table(vec![line]).finish("At a pipe");
    }

    /// One watches already; another comes and dies at each step, the change comes before or after: the first one is told.
    #[test]
    fn a_watcher_beside_another_dies() {
        let (_alone, stage) = started();
        let mut table = Table(Vec::new());
        for op in [Op::Put, Op::Set] {
            let line = each_step(format!("{op:?}, watched by a second"), |k| {
                let (thing, tool) = make(op);
                stage.watchers[0].begin(Order::Watch(thing.clone(), Beside::Few));
                let second = Helper::new();
                second.begin(Order::Die(thing.clone(), k));
                let hold = testing::hold_collections().unwrap();
                match tool {
                    Tool::Queue(q) => q.put(vec![1]).unwrap(),
                    Tool::Event(event) => event.set().unwrap(),
                    Tool::Pipe(_) => unreachable!("has one watcher"),
                }
                assert!(stage.watchers[0].is_told(), "{op:?} step {k}: the first watcher sleeps\n{}", dump());
                drop(hold);
                let pid = second.process.pid();
                assert!(eventually(LIMIT, || is_dead(pid) || !second.reports.is_empty()));
                Ok(second.reports.is_empty())
            });
            assert!(line.steps > 2, "{}", line.steps);
            table.0.push(line);
        }
        table.finish("A second watcher");
    }

    /// Three wait for one thing; who changes it dies before it has told, and the kernel wakes the first of the three, which dies with the
    /// news in hand: the kernel wakes the next.
    #[test]
    fn a_watcher_dies_with_the_news_in_hand() {
        let (_alone, stage) = started();
        let mut table = Table(Vec::new());
        for op in [Op::Put, Op::Set] {
            let line = each_step(format!("{op:?}, then a watcher"), |k| {
                let (thing, tool) = make(op);
                let first = Helper::new();
                first.begin(Order::Die(thing.clone(), k));
                let go = Event::new().unwrap();
                let at = At::Point("wait_word.committed".to_owned() + if op == Op::Set { "_in_order" } else { "_lightly" });
                let victim = Process::builder().daemon(true).spawn((tool, op, at, go.clone()), victim).unwrap();
                let ready = || dump().process(victim.pid()).is_some_and(|p| !p.waits.is_empty());
                assert!(eventually(LIMIT, || ready() && sleeps(victim.pid())), "{}", dump());
                stage.watchers.iter().for_each(|helper| helper.begin(Order::Watch(thing.clone(), Beside::Nothing)));
                let hold = testing::hold_collections().unwrap();
                go.set().unwrap();
                for helper in &stage.watchers {
                    assert!(helper.is_told(), "{op:?} step {k}: a watcher sleeps\n{}", dump());
                }
                drop(hold);
                assert!(victim.join().is_err());
                // Whoever does it is dead, or is about to say so.
                let pid = first.process.pid();
                assert!(eventually(LIMIT, || is_dead(pid) || !first.reports.is_empty()));
                Ok(first.reports.is_empty())
            });
            assert!(line.steps > 2, "{}", line.steps);
            table.0.push(line);
        }
        table.finish("The news in hand");
    }
}
