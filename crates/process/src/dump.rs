//! [`dump`]: the process tree as it stands, for people who ask why something hangs.
//!
//! Made from one [survey](multiproc_shm::report) of the arena and from what the kernel says of the processes. It takes no lock that a stopped or dead process
//! could hold, so it works from any process of the tree at any time.

use crate::circles::{self, Round};
use crate::current::{self, ProcessInfo};
use crate::tree;
use multiproc_shm::Arena;
use multiproc_shm::notes::{Awaited, Op, Waits};
use multiproc_shm::report::{Blocker, Survey, Surveyed};
use multiproc_shm::roster::SlotState;
use multiproc_sys::task;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Names that a list gives before it says how many more there are.
const MANY: usize = 8;
/// Threads of multiproc that run none of the user's code.
const OWN_THREADS: [&str; 4] = ["multiproc-keep", "multiproc-stop", "multiproc-dump", "multiproc-wait"];

/// What every process of the tree holds and waits for: see [`dump`]. `Display` is a report of some lines for each process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Dump {
    /// The processes, parents before their children.
    pub processes: Vec<ProcessReport>,
    /// Circles of waits: see [`circles`](Dump::circles).
    pub circles: Vec<Circle>,
    /// Entries of shared memory that could not be read, as they hold what no correct process writes.
    pub unreadable: u32,
}

/// A process in a [`Dump`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProcessReport {
    /// Its id; 0 until it has reported.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Who started it; `None` for the coordinator, and when the parent has ended.
    pub parent: Option<ProcessInfo>,
    /// How many ancestors it has in the tree.
    pub depth: usize,
    /// What it does.
    pub state: ProcessState,
    /// For how long it has taken part in the tree.
    pub running_for: Option<Duration>,
    /// What it has that others may wait for.
    pub holds: Vec<HoldReport>,
    /// What its threads wait for.
    pub waits: Vec<WaitReport>,
    /// How many more of its threads wait: the roster tells of eight for each process.
    pub more_waits: u32,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessState {
    /// It has been started and has not reported yet.
    Starting,
    /// It runs, or waits.
    Running,
    /// Stopped by a signal or a debugger, or waiting for one (`MULTIPROC_WAIT`).
    Stopped,
    /// Dead, and its parent has not asked the kernel how it ended.
    Zombie,
    /// Dead, and about to be cleaned up after.
    Ended,
}

/// Something that a process holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HoldReport {
    /// Such as "Lock 3": the kind of object, and the number that its `Debug` calls `id`.
    pub object: String,
    /// Such as "2 permits" or "the getters' turn"; empty for the object itself.
    pub what: String,
    /// The thread that has it, where it belongs to one.
    pub thread: Option<u32>,
}

/// Something that a thread waits for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WaitReport {
    /// The thread's id.
    pub thread: u32,
    /// Such as "get".
    pub operation: &'static str,
    /// Such as "Queue 12"; or a process.
    pub on: String,
    /// How the object stands, such as "0 of 100 items".
    pub state: String,
    /// For how long it has waited, or had when it gave up.
    pub waited: Duration,
    /// Whether it gives up when time is up.
    pub has_limit: bool,
    /// How long ago it gave up because time was up. Only of the calling thread's last wait.
    pub gave_up: Option<Duration>,
    /// Who has it, or whose turn it is.
    pub held_by: Option<ProcessInfo>,
    /// If nobody has it: processes of which any one could end the wait, as far as they are known.
    pub depends_on: Vec<ProcessInfo>,
}

/// Processes that wait for one another in a circle.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Circle {
    /// Each waits for the next, the last for the first.
    pub links: Vec<CircleLink>,
    /// Whether nothing breaks it: each of them waits without a time-out, for a thread that waits, or for processes of which every thread waits.
    /// Otherwise time will, or another of their threads may, or somebody to whom a handle is under way.
    pub is_deadlock: bool,
    /// Whether it existed until the calling thread gave up.
    pub is_over: bool,
}

/// Who waits for what in a [`Circle`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CircleLink {
    /// The process that waits.
    pub process: ProcessInfo,
    /// Its thread that does.
    pub thread: u32,
    /// Such as "put".
    pub operation: &'static str,
    /// Such as "Queue 12"; or the next process.
    pub on: String,
}

/// Looks at every process of the tree: what it holds, what it waits for since when, and who could let it go on.
///
/// Works from any process of the tree, also while others are stopped, hold locks, or die. Never blocks, and changes nothing; what moves meanwhile may be
/// missing. A wait is known from when the thread sleeps on one of multiproc's objects or joins a process; other waits (a
/// mutex of std, a read) are not. With a million objects it takes some tens of milliseconds. Where `/proc` is missing or hides other users' processes,
/// stopped ones are not told apart, and only circles of locks and joins are known to be deadlocks.
///
/// Right after an operation of the calling thread has failed with a time-out, that wait is in the dump as one that was given up, so
/// that [`circles`](Dump::circles) can say why.
///
/// # Examples
/// ```
/// use multiproc::{Lock, Process, dump};
///
/// let lock = Lock::new()?;
/// let guard = lock.lock()?;
/// let waiter = Process::spawn((lock.clone(),), |lock| drop(lock.lock().unwrap()))?;
/// let wait = loop {
///     let dump = dump();
///     if let Some(wait) = dump.processes.iter().find(|p| p.pid == waiter.pid()).and_then(|p| p.waits.first()) {
///         break wait.clone();
///     }
/// };
/// assert_eq!(wait.operation, "lock");
/// assert_eq!(wait.held_by.unwrap().pid, std::process::id());
/// drop(guard);
/// waiter.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn dump() -> Dump {
    match tree::existing() {
        Some(arena) => Picture::take(arena).into_dump(),
        None => {
            let ProcessInfo { pid, name, .. } = current::current_process();
            let alone = ProcessReport {
                pid,
                name,
                parent: None,
                depth: 0,
                state: ProcessState::Running,
                running_for: None,
                holds: Vec::new(),
                waits: Vec::new(),
                more_waits: 0,
            };
            Dump { processes: vec![alone], circles: Vec::new(), unreadable: 0 }
        }
    }
}

impl Dump {
    /// Processes that wait for one another, deadlocks before those that somebody may still break.
    pub fn circles(&self) -> &[Circle] {
        &self.circles
    }

    /// The process with this id.
    pub fn process(&self, pid: u32) -> Option<&ProcessReport> {
        self.processes.iter().find(|p| p.pid == pid)
    }
}

/// A name without what would garble a report.
pub(crate) fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

struct Picture<'a> {
    arena: &'a Arena,
    survey: Survey,
}

impl Picture<'_> {
    fn take(arena: &Arena) -> Picture<'_> {
        let mut survey = arena.survey();
        // Whoever has just taken a lock and not named itself is a thread of some process all the same.
        let by_pid: Vec<_> = survey.processes.iter().filter(|p| !p.dead).map(|p| (p.pid, p.id.index)).collect();
        let holdings = survey.objects.values_mut().flat_map(|o| &mut o.standing.holdings);
        for holding in holdings.filter(|h| h.slot.is_none()) {
            let pid = holding.thread.and_then(task::process_of);
            holding.slot = by_pid.iter().find(|(p, _)| Some(*p) == pid).map(|(_, slot)| *slot);
        }
        Picture { arena, survey }
    }

    fn info(&self, slot: u32) -> ProcessInfo {
        let Some(process) = self.survey.process(slot) else {
            return ProcessInfo { pid: 0, name: "a process that has ended".into() };
        };
        let name = if process.name.is_empty() && slot == 0 { "MainProcess".into() } else { printable(&process.name) };
        ProcessInfo { pid: process.pid, name }
    }

    fn infos(&self, slots: &[u32]) -> Vec<ProcessInfo> {
        slots.iter().map(|&slot| self.info(slot)).collect()
    }

    fn into_dump(self) -> Dump {
        let rounds = self.rounds();
        Dump {
            processes: self.order().into_iter().map(|(process, depth)| self.report(process, depth)).collect(),
            circles: rounds.iter().map(|round| self.circle(round)).collect(),
            unreadable: self.survey.unreadable,
        }
    }

    fn rounds(&self) -> Vec<Round> {
        let threads = RefCell::new(BTreeMap::new());
        // Who makes the dump has nothing else to do at the moment, and is none of those it looks for.
        let me = multiproc_sys::robust::current().ok().map(|me| me.tid());
        // Whether every thread of a process waits that may run the user's code.
        let all_wait = |survey: &Survey, slot: u32| {
            let Some(process) = survey.process(slot) else { return false };
            let waits = |id: u32| process.waits.iter().any(|w| w.thread == id);
            let mut threads = threads.borrow_mut();
            let list: &Option<Vec<_>> = threads.entry(slot).or_insert_with(|| task::threads(process.pid));
            let idle = |id: u32, name: &str| waits(id) || OWN_THREADS.contains(&name) || Some(id) == me;
            list.as_ref().is_some_and(|list| list.iter().all(|(id, name)| idle(*id, name)))
        };
        let mut rounds = circles::find(&self.survey, |slot| all_wait(&self.survey, slot));
        if rounds.iter().any(|round| round.certain) {
            // A thread may have ended after it had broken the circle, and before it could be listed. What is certain with the same
            // threads a second time was so from when they were listed.
            let again = self.arena.survey();
            let confirmed = circles::find(&again, |slot| all_wait(&again, slot));
            rounds.retain(|round| !round.certain || confirmed.contains(round));
        }
        rounds
    }

    /// Parents before their children; a roster that says that two processes are each other's parents is read to its end too.
    fn order(&self) -> Vec<(&Surveyed, usize)> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        let is_root = |p: &&Surveyed| p.parent.is_none_or(|parent| self.survey.process(parent).is_none());
        let roots = self.survey.processes.iter().filter(is_root).chain(&self.survey.processes);
        for root in roots {
            let mut work = vec![(root, 0)];
            while let Some((process, depth)) = work.pop() {
                if !seen.insert(process.id.index) {
                    continue;
                }
                order.push((process, depth));
                let children = self.survey.processes.iter().filter(|c| c.parent == Some(process.id.index));
                work.extend(children.rev().map(|c| (c, depth + 1)));
            }
        }
        order
    }

    fn report(&self, process: &Surveyed, depth: usize) -> ProcessReport {
        let slot = process.id.index;
        let ProcessInfo { pid, name } = self.info(slot);
        let mut holds = Vec::new();
        if !process.dead {
            for (index, object) in &self.survey.objects {
                let mine = object.standing.holdings.iter().filter(|h| h.slot == Some(slot));
                holds.extend(mine.map(|h| HoldReport {
                    object: format!("{} {index}", object.kind),
                    what: h.what.clone(),
                    thread: h.thread,
                }));
            }
        }
        ProcessReport {
            pid,
            name,
            parent: process.parent.map(|parent| self.info(parent)),
            depth,
            state: state_of(process),
            running_for: (process.started != 0).then(|| since(self.survey.now, process.started)),
            holds,
            waits: process.waits.iter().map(|w| self.wait(slot, w)).collect(),
            more_waits: process.unnoted,
        }
    }

    fn on(&self, on: Awaited) -> (String, String) {
        match on {
            Awaited::Object(index) => match self.survey.objects.get(&index) {
                Some(object) => (format!("{} {index}", object.kind), object.standing.state.clone().into_owned()),
                None => (format!("object {index}, which has ended"), String::new()),
            },
            Awaited::Process { slot, generation } => {
                let there = self.survey.process(slot).filter(|p| p.id.generation as u16 == generation);
                let name = there.map_or("a process that has ended".into(), |_| Named(&self.info(slot)).to_string());
                (name, String::new())
            }
            Awaited::Debugger => ("whoever debugs it, or SIGCONT".into(), String::new()),
            Awaited::AnyOf(things) => (format!("any of {things}"), String::new()),
        }
    }

    fn wait(&self, slot: u32, waits: &Waits) -> WaitReport {
        let (on, state) = self.on(waits.on);
        let end = waits.gave_up.unwrap_or(self.survey.now);
        let (held_by, depends_on) = match (self.survey.blocker(slot, waits), waits.op) {
            (Blocker::Nobody, _) | (Blocker::Thread { .. }, Op::Join) => (None, Vec::new()),
            (Blocker::Thread { slot, .. }, _) => (slot.map(|slot| self.info(slot)), Vec::new()),
            (Blocker::AnyOf { slots, .. }, _) => (None, self.infos(&slots)),
        };
        WaitReport {
            thread: waits.thread,
            operation: waits.op.name(),
            on,
            state,
            waited: since(end, waits.since),
            has_limit: waits.limited,
            gave_up: waits.gave_up.map(|at| since(self.survey.now, at)),
            held_by,
            depends_on,
        }
    }

    fn circle(&self, round: &Round) -> Circle {
        let link = |(slot, waits): &(u32, Waits)| CircleLink {
            process: self.info(*slot),
            thread: waits.thread,
            operation: waits.op.name(),
            on: self.on(waits.on).0,
        };
        Circle {
            links: round.waits.iter().map(link).collect(),
            is_deadlock: round.certain && round.waits.iter().all(|(_, w)| w.gave_up.is_none() && !w.limited),
            is_over: round.waits.iter().any(|(_, w)| w.gave_up.is_some()),
        }
    }
}

fn since(now: u64, then: u64) -> Duration {
    Duration::from_nanos(now.saturating_sub(then))
}

fn state_of(process: &Surveyed) -> ProcessState {
    match task::state(process.pid) {
        Some('Z' | 'X') => ProcessState::Zombie,
        _ if process.dead => ProcessState::Ended,
        Some('T' | 't') => ProcessState::Stopped,
        _ if process.state == SlotState::Reserved => ProcessState::Starting,
        _ if process.waits.iter().any(|w| w.op == Op::Continue) => ProcessState::Stopped,
        _ => ProcessState::Running,
    }
}

/// A process as reports name it.
struct Named<'a>(&'a ProcessInfo);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProcessInfo { pid, name } = self.0;
        if *pid == 0 { write!(f, "{name}") } else { write!(f, "{name} (pid {pid})") }
    }
}

/// A time as reports give it.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_secs(1) {
            write!(f, "{} ms", self.0.as_millis())
        } else {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        }
    }
}

impl WaitReport {
    /// As the rest of a sentence "it waits ..".
    pub(crate) fn in_words(&self) -> String {
        match self.to_string() {
            text if self.operation == "wait" => text.replacen("wait on", "for", 1),
            text => format!("to {text}"),
        }
    }
}

impl fmt::Display for WaitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.operation, self.on)?;
        if !self.state.is_empty() {
            write!(f, " ({})", self.state)?;
        }
        if let Some(holder) = &self.held_by {
            write!(f, ", held by {}", Named(holder))?;
        }
        for (i, process) in self.depends_on.iter().take(MANY).enumerate() {
            write!(f, "{}{}", if i == 0 { "; depends on " } else { ", " }, Named(process))?;
        }
        if self.depends_on.len() > MANY {
            write!(f, " and {} more", self.depends_on.len() - MANY)?;
        }
        if self.has_limit && self.gave_up.is_none() {
            f.write_str("; until time is up")?;
        }
        Ok(())
    }
}

impl fmt::Display for ProcessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProcessState::Starting => "starting",
            ProcessState::Running => "running",
            ProcessState::Stopped => "stopped",
            ProcessState::Zombie => "dead, not yet reaped by its parent",
            ProcessState::Ended => "dead",
        })
    }
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.is_over, self.is_deadlock) {
            (true, _) => "a circle until time was up: ",
            (false, true) => "deadlock: ",
            (false, false) => "a circle, unless a time-out or another of their threads breaks it: ",
        })?;
        for (i, link) in self.links.iter().enumerate() {
            let next = Named(&self.links[(i + 1) % self.links.len()].process);
            let CircleLink { process, operation, on, .. } = link;
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{} waits ", Named(process))?;
            match *operation {
                "lock" => write!(f, "for {on}, which {next} holds"),
                "join" => write!(f, "for the end of {next}"),
                "wait" if self.links.len() == 1 => write!(f, "for {on}, and nobody but itself could let it go on"),
                "wait" => write!(f, "for {on}, and so for {next}"),
                operation if self.links.len() == 1 => {
                    write!(f, "to {operation} on {on}, and nobody but itself could let it go on")
                }
                operation => write!(f, "to {operation} on {on}, and so for {next}"),
            }?;
        }
        Ok(())
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.processes.iter().filter(|p| !p.waits.is_empty()).count();
        let s = if self.processes.len() == 1 { "" } else { "es" };
        writeln!(f, "multiproc: {} process{s}, {waiting} of them waiting", self.processes.len())?;
        for process in &self.processes {
            let indent = "  ".repeat(process.depth.min(MANY));
            let info = ProcessInfo { pid: process.pid, name: process.name.clone() };
            write!(f, "{indent}{}: {}", Named(&info), process.state)?;
            match process.running_for {
                Some(time) => writeln!(f, ", started {} ago", Time(time))?,
                None => writeln!(f)?,
            }
            let thread = |id: u32| if id == process.pid { String::new() } else { format!("thread {id} ") };
            for wait in &process.waits {
                let who = thread(wait.thread);
                match wait.gave_up {
                    None => writeln!(f, "{indent}    {who}waits for {}: {wait}", Time(wait.waited))?,
                    Some(ago) => writeln!(f, "{indent}    {who}gave up {} ago after {}: {wait}", Time(ago), Time(wait.waited))?,
                }
            }
            if process.more_waits > 0 {
                writeln!(f, "{indent}    and {} more of its threads wait", process.more_waits)?;
            }
            for hold in &process.holds {
                let who = hold.thread.map(thread).unwrap_or_default();
                let of = if hold.what.is_empty() { String::new() } else { format!("{} of ", hold.what) };
                writeln!(f, "{indent}    {who}holds {of}{}", hold.object)?;
            }
        }
        for circle in &self.circles {
            writeln!(f, "{circle}")?;
        }
        if self.unreadable > 0 {
            writeln!(f, "{} entries of shared memory could not be read", self.unreadable)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use multiproc_channel::{Bincode, Queue};
    use multiproc_shm::Options;
    use multiproc_shm::layout::{Layout, PAGE};
    use multiproc_sync::{Event, Lock, Semaphore, Value};

    fn arena() -> &'static Arena {
        static KINDS: [&multiproc_shm::objects::Kind; 7] = {
            let [a, b, c, d, e, f] = *multiproc_sync::KINDS.first_chunk::<6>().unwrap();
            [a, b, c, d, e, f, multiproc_channel::KINDS[0]]
        };
        Arena::create(&Options { size: 16 << 20, ..Options::new(0, &KINDS) }).unwrap()
    }

    #[test]
    fn a_process_that_has_not_reported_is_starting() {
        let arena = arena();
        let child = arena.reserve_slot().unwrap();
        arena.slot(child.index).unwrap().set_name("new");
        let dump = Picture::take(arena).into_dump();
        assert_eq!(dump.processes.len(), 2);
        let new = &dump.processes[1];
        assert_eq!((new.name.as_str(), new.pid, new.state, new.depth), ("new", 0, ProcessState::Starting, 1));
        assert_eq!(new.parent.as_ref().map(|p| p.pid), Some(std::process::id()));
        assert!(dump.to_string().contains("\n  new: starting\n"), "{dump}");
    }

    /// Whatever stands in shared memory, a dump is made of it.
    #[test]
    fn garbage_is_reported_and_harms_nobody() {
        let arena = arena();
        let lock = Lock::new_in(arena).unwrap();
        let semaphore = Semaphore::new_in(arena, 3).unwrap();
        let queue = Queue::<u64, Bincode>::bounded_in(arena, 4).unwrap();
        let held = (Value::new_in(arena, 1u64).unwrap(), Event::new_in(arena).unwrap());
        queue.put(1).unwrap();
        let kept =
            (lock.lock().unwrap(), semaphore.acquire().unwrap(), semaphore.acquire_owned().unwrap(), queue.lease().unwrap());
        (0..20).for_each(|_| assert!(arena.reserve_slot().is_ok()));
        let (layout, memory) = (Layout::plan(16 << 20).unwrap(), arena.memory());
        let classes = layout.classes.iter().flat_map(|c| [(c.states, 512), (c.data, 16 << 10)]);
        let tables = [(0, PAGE), (layout.roster, 21 * 512), (layout.object_states, 128), (layout.object_entries, 512)];
        let targets: Vec<_> = tables.into_iter().chain(classes).filter(|(at, len)| at + len <= layout.size).collect();
        let content = |&(at, len): &(u64, u64)| {
            let mut bytes = Vec::new();
            memory.read(at, len, &mut bytes).unwrap();
            (at, bytes)
        };
        let before: Vec<_> = targets.iter().map(content).collect();
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            // xorshift64, Marsaglia 2003.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for round in 0..2_000 {
            let (start, len) = targets[random() as usize % targets.len()];
            let at = start + random() % (len / 8) * 8;
            // Whole words, single bits, and small numbers, which look like something.
            let word = match round % 3 {
                0 => random(),
                1 => 1 << (random() % 64),
                _ => ((random() % 5) << 60) | (random() % 70),
            };
            memory.write(at, &word.to_ne_bytes()).unwrap();
            let dump = Picture::take(arena).into_dump();
            assert!(dump.to_string().starts_with("multiproc: "));
        }
        // What is still held is given back in good order.
        before.iter().for_each(|(at, bytes)| memory.write(*at, bytes).unwrap());
        let dump = Picture::take(arena).into_dump();
        assert_eq!((dump.unreadable, dump.processes[0].holds.len()), (0, 3), "{dump}");
        drop((kept, held));
    }
}
