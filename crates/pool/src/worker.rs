//! A worker's life: take a task, say so on the desk, run it, tell the outcome, acknowledge.
//!
//! | killed | left behind | what becomes of the task |
//! |---|---|---|
//! | having leased it, before the desk names it | a lease | delivered again; the next worker asks, and the pool lets it run |
//! | before the desk says that it runs | the same | the same |
//! | while it runs, its arguments are decoded or its value encoded | a lease, the desk | the pool finds it on the desk: it has died with the worker, or is tried again; what is delivered again is skipped |
//! | having told the outcome, before the acknowledgement | a lease | it has its outcome; what is delivered again is skipped |
//! | having acknowledged | nothing | nothing |

use crate::desk::{Desk, Level, MAX_DEPTH};
use crate::initializer::Initializer;
use crate::panics;
use crate::run::{Run, Source};
use crate::table::{Pending, Saved};
use crate::wire::{self, AnswerHead, Inbox, Out, Outbox, TaskHead, Tell, TellHead};
use multiproc_channel::Message;
use multiproc_channel::sealed::{SealedLease, Within};
use multiproc_shm::scope::References;
use multiproc_sync::{Atomic, Event};
use multiproc_sys::clock::now_nanos;
use multiproc_sys::{crash, memory, spin};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

/// How much more likely than the coordinator the kernel's OOM killer is to choose a worker.
const OOM_SCORE: i32 = 300;
/// Contexts that a worker keeps decoded.
const KEPT_CONTEXTS: usize = 8;

/// What a worker is told at its start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) index: u32,
    pub(crate) desk: Desk,
    pub(crate) tasks: Inbox,
    pub(crate) tells: Outbox,
    pub(crate) answers: Inbox,
    /// Rung for what the pool must look at though nobody waits for a task.
    pub(crate) bell: Event,
    /// Tasks that were cancelled while they waited, and still lie in the queue.
    pub(crate) cancelled: Atomic<u64>,
    /// To be run in this order before the first task.
    pub(crate) first: Vec<Initializer>,
    pub(crate) max_tasks: Option<u64>,
    pub(crate) cpus: Vec<usize>,
}

/// This process as a worker.
static WORKER: OnceLock<Worker> = OnceLock::new();

#[derive(Debug)]
pub(crate) struct Worker {
    setup: Setup,
    /// The thread that takes tasks.
    thread: ThreadId,
    contexts: Mutex<Vec<(u64, Arc<dyn Any + Send + Sync>)>>,
}

/// Why a worker's function returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Left {
    /// The queue of tasks has ended.
    Closed,
    /// It was asked to, or has run as many tasks as it may.
    Asked,
    /// Shared memory refuses to give it tasks, and why.
    Unable(String),
}

/// The function of a worker process.
pub(crate) fn work(setup: Setup) -> Left {
    memory::prefer_for_oom_kill(OOM_SCORE);
    if !setup.cpus.is_empty() {
        // Found before: who wakes this worker runs on other processors.
        let _ = spin::limit();
        // A processor that is not there any more: the worker runs on any.
        let _ = memory::run_on(&setup.cpus);
    }
    panics::remember_places();
    setup.first.iter().for_each(Initializer::run);
    let worker = WORKER.get_or_init(|| Worker { setup, thread: thread::current().id(), contexts: Mutex::default() });
    worker.setup.desk.set_ready();
    let _ = worker.put(Tell::Ready, 0, 0, &());
    let _ = worker.setup.bell.set();
    worker.serve()
}

/// This process as a worker, if it is one.
pub(crate) fn this_process() -> Option<&'static Worker> {
    WORKER.get()
}

/// The worker whose tasks this thread runs.
pub(crate) fn this_thread() -> Option<&'static Worker> {
    WORKER.get().filter(|worker| worker.thread == thread::current().id())
}

impl Worker {
    pub(crate) fn desk(&self) -> &Desk {
        &self.setup.desk
    }

    pub(crate) fn index(&self) -> u32 {
        self.setup.index
    }

    pub(crate) fn tasks(&self) -> &Inbox {
        &self.setup.tasks
    }

    /// Whether it is a worker of the pool that is told things there.
    pub(crate) fn tells_to(&self, tell: &Outbox) -> bool {
        self.setup.tells.id() == tell.id()
    }

    /// Whether one more task fits on its desk.
    pub(crate) fn has_room(&self) -> bool {
        self.setup.desk.depth() < MAX_DEPTH
    }

    /// Runs a task, on top of those on its desk, if one waits.
    pub(crate) fn run_another(&self) -> bool {
        if self.setup.desk.shall_leave() {
            return false;
        }
        match self.setup.tasks.lease_sealed(Within::Now) {
            Ok(lease) => {
                self.take(lease);
                true
            }
            Err(_) => false,
        }
    }

    fn serve(&self) -> Left {
        let mut ran = 0;
        loop {
            if self.setup.desk.shall_leave() || self.setup.max_tasks.is_some_and(|max| ran >= max) {
                return Left::Asked;
            }
            match self.setup.tasks.lease_sealed(Within::Ever) {
                Ok(lease) => ran += u64::from(self.take(lease)),
                Err(e) if e.is_end() => return Left::Closed,
                // What refuses will refuse again.
                Err(e) => return Left::Unable(e.to_string()),
            }
        }
    }

    /// Takes a task; whether it was run.
    fn take(&self, lease: SealedLease) -> bool {
        let desk = &self.setup.desk;
        let Ok(Some(head)) = lease.open(|bytes, _| wire::split::<TaskHead>(bytes).map(|(head, _)| head)) else {
            lease.ack();
            return false;
        };
        let depth = desk.depth().min(MAX_DEPTH - 1);
        let level = desk.level(depth);
        crash::point("pool.leased");
        level.take(head.id);
        desk.set_depth(depth + 1);
        crash::point("pool.taken");
        let done = self.run(&lease, head, level);
        if let Some(done) = done {
            crash::point("pool.told");
            lease.ack();
            crash::point("pool.acknowledged");
            self.clear(level, depth);
            done
        } else {
            // Given back: this worker shall leave.
            self.clear(level, depth);
            false
        }
    }

    fn clear(&self, level: Level<'_>, depth: usize) {
        // A task that another one runs in while it waits is part of that one's time.
        if depth == 0 && level.is_started() {
            self.setup.desk.count(now_nanos().saturating_sub(level.since()));
        }
        level.clear();
        self.setup.desk.set_depth(depth);
    }

    /// Runs a task that lies on the desk; `Some(false)` for one that shall not run, `None` for one that another worker shall have.
    fn run(&self, lease: &SealedLease, head: TaskHead, level: Level<'_>) -> Option<bool> {
        if self.setup.desk.shall_leave() && self.setup.desk.depth() == 1 {
            return None;
        }
        // Before it counts as started.
        if lease.attempt() > 1 && !self.may_run(head) {
            return Some(false);
        }
        let since = now_nanos();
        level.start(head.id, since);
        crash::point("pool.started");
        if self.setup.cancelled.get() > 0 && !self.may_run(head) {
            return Some(false);
        }
        Run::new(self, Source::Lease(lease), head, level, since).go();
        Some(true)
    }

    /// Runs a task that this process has submitted and taken back, on top of those on the desk; its outcome goes to `pending`.
    pub(crate) fn run_own(&self, head: TaskHead, args: &Saved, pending: &Arc<dyn Pending>) {
        let depth = self.setup.desk.depth().min(MAX_DEPTH - 1);
        let level = self.setup.desk.level(depth);
        let since = now_nanos();
        level.start(head.id, since);
        self.setup.desk.set_depth(depth + 1);
        Run::new(self, Source::Own(args, pending), head, level, since).go();
        self.clear(level, depth);
    }

    /// Has the pool's thread look.
    pub(crate) fn ring(&self) {
        let _ = self.setup.bell.set();
    }

    /// Asks the pool whether a task is still to be run.
    fn may_run(&self, head: TaskHead) -> bool {
        if self.put(Tell::Ask, head.id, head.tries, &()).is_err() {
            return false;
        }
        let _ = self.setup.bell.set();
        self.answer(head.id, |answer, _, _| answer.yes == 1).unwrap_or(false)
    }

    /// The answer to a question about `id`. The worker asks one thing at a time.
    pub(crate) fn answer<R>(&self, id: u64, take: impl FnOnce(AnswerHead, &[u8], &References) -> R) -> Option<R> {
        loop {
            // Fails when the pool is gone, and with it soon this process.
            let sealed = self.setup.answers.get_sealed(Within::Ever).ok()?;
            let head = sealed.open(|bytes, _| wire::split::<AnswerHead>(bytes).map(|(head, _)| head)).ok()??;
            if head.id == id {
                return sealed
                    .open(|bytes, references| wire::split(bytes).map(|(head, rest)| take(head, rest, references)))
                    .ok()?;
            }
        }
    }

    pub(crate) fn put<T: Message>(&self, tell: Tell, id: u64, number: u64, value: &T) -> Result<(), String> {
        self.put_behind(TellHead::new(tell, self.setup.index, id, number), value)
    }

    pub(crate) fn put_behind<T: Message>(&self, head: TellHead, value: &T) -> Result<(), String> {
        let out = Out(head, value);
        let refused = match self.setup.tells.try_put_ref(&out) {
            Err(e) if e.is_full() => {
                // Nobody collects: the pool shall.
                let _ = self.setup.bell.set();
                self.setup.tells.put_ref(&out)
            }
            Err(e) if e.is_would_block() => self.setup.tells.put_ref(&out),
            other => other,
        };
        refused.map_err(|e| e.to_string())
    }

    pub(crate) fn context(&self, id: u64) -> Option<Arc<dyn Any + Send + Sync>> {
        let contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        contexts.iter().find(|(known, _)| *known == id).map(|(_, context)| context.clone())
    }

    pub(crate) fn keep_context(&self, id: u64, context: Arc<dyn Any + Send + Sync>) {
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        if contexts.len() >= KEPT_CONTEXTS {
            contexts.remove(0);
        }
        contexts.push((id, context));
    }
}
