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
use crate::job;
use crate::local::{self, Open};
use crate::panics::{self, Panic};
use crate::wire::{self, AnswerHead, Inbox, Out, Outbox, TaskHead, Tell, TellHead};
use multiproc_channel::sealed::{SealedLease, Within};
use multiproc_channel::{Bincode, Message, message};
use multiproc_shm::Arena;
use multiproc_shm::scope::References;
use multiproc_sync::{Atomic, Event};
use multiproc_sys::clock::now_nanos;
use multiproc_sys::{crash, memory};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Left {
    /// The queue of tasks has ended.
    Closed,
    /// It was asked to, or has run as many tasks as it may.
    Asked,
}

/// The function of a worker process.
pub(crate) fn work(setup: Setup) -> Left {
    memory::prefer_for_oom_kill(OOM_SCORE);
    if !setup.cpus.is_empty() {
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

/// The worker whose tasks this thread runs.
pub(crate) fn this_thread() -> Option<&'static Worker> {
    WORKER.get().filter(|worker| worker.thread == thread::current().id())
}

impl Worker {
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
                // Shared memory that refuses will refuse again.
                Err(e) => panic!("the pool's tasks cannot be taken: {e}"),
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
        let run = Run { worker: self, lease, head, level, since };
        if !job::run(&run) {
            run.tell(Tell::Unreadable, &"its function is not part of this program's code".to_owned());
        }
        Some(true)
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
    fn answer<R>(&self, id: u64, take: impl FnOnce(AnswerHead, &[u8], &References) -> R) -> Option<R> {
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

    fn put<T: Message>(&self, tell: Tell, id: u64, number: u64, value: &T) -> Result<(), String> {
        let out = Out(TellHead::new(tell, self.setup.index, id, number), value);
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

    fn context(&self, id: u64) -> Option<Arc<dyn Any + Send + Sync>> {
        let contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        contexts.iter().find(|(known, _)| *known == id).map(|(_, context)| context.clone())
    }

    fn keep_context(&self, id: u64, context: Arc<dyn Any + Send + Sync>) {
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        if contexts.len() >= KEPT_CONTEXTS {
            contexts.remove(0);
        }
        contexts.push((id, context));
    }
}

/// A task that is being run.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    worker: &'a Worker,
    lease: &'a SealedLease,
    head: TaskHead,
    level: Level<'a>,
    since: u64,
}

impl Run<'_> {
    pub(crate) fn head(&self) -> &TaskHead {
        &self.head
    }

    /// Whether the task has been asked to stop.
    pub(crate) fn shall_stop(&self) -> bool {
        self.level.shall_stop()
    }

    /// The arguments; `None` when they do not decode, which has been told then.
    pub(crate) fn arguments<A: Message>(&self) -> Option<A> {
        crash::point("pool.decoding");
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            self.lease.open(|bytes, references| {
                let arena = Arena::of_the_tree().map_err(|e| e.to_string())?;
                let (_, rest) = wire::split::<TaskHead>(bytes).ok_or("the message is cut off")?;
                message::decode::<A, Bincode>(arena, rest, references).map_err(|e| e.to_string())
            })
        }));
        let why = match decoded {
            Ok(Ok(Ok(args))) => return Some(args),
            Ok(Ok(Err(why))) => why,
            Ok(Err(e)) => e.to_string(),
            Err(panic) => Panic::taken(&*panic).message,
        };
        self.tell(Tell::Unreadable, &why);
        None
    }

    /// The context that the task is given; `None` when it does not decode, which has been told then.
    pub(crate) fn context<C: Message + Send + Sync>(&self) -> Option<Arc<C>> {
        let id = self.head.context;
        if let Some(known) = self.worker.context(id) {
            return known.downcast::<C>().ok();
        }
        let asked = self.worker.put(Tell::Context, id, 0, &());
        let _ = self.worker.setup.bell.set();
        let got = asked.map(|()| {
            self.worker.answer(id, |_, bytes, references| {
                let arena = Arena::of_the_tree().map_err(|e| e.to_string())?;
                catch_unwind(AssertUnwindSafe(|| message::decode::<C, Bincode>(arena, bytes, references)))
                    .map_err(|panic| Panic::taken(&*panic).message)?
                    .map_err(|e| e.to_string())
            })
        });
        let why = match got {
            Ok(Some(Ok(context))) => {
                let context = Arc::new(context);
                self.worker.keep_context(id, context.clone());
                return Some(context);
            }
            Ok(Some(Err(why))) | Err(why) => why,
            Ok(None) => "its context is gone".to_owned(),
        };
        self.tell(Tell::Unreadable, &format!("the context: {why}"));
        None
    }

    /// The task has ended with a value.
    pub(crate) fn tell_value<R: Message>(&self, value: &R) {
        crash::point("pool.encoding");
        let told = catch_unwind(AssertUnwindSafe(|| self.put(Tell::Value, value)));
        let why = match told {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(panic) => Panic::taken(&*panic).message,
        };
        self.tell(Tell::Unsendable, &why);
    }

    /// The task has ended otherwise.
    pub(crate) fn tell<T: Message>(&self, tell: Tell, words: &T) {
        // Fails when the pool is gone, and with it soon this process, or for want of memory: then the worker's end is the task's.
        if let Err(why) = self.put(tell, words) {
            panic!("the outcome of a task cannot be told: {why}");
        }
    }

    fn put<T: Message>(&self, tell: Tell, value: &T) -> Result<(), String> {
        self.worker.put(tell, self.head.id, now_nanos().saturating_sub(self.since), value)
    }
}

/// The task that this thread runs, seen from inside: see [`current_task`].
#[derive(Clone, Debug)]
pub struct CurrentTask(Where);

#[derive(Clone, Debug)]
enum Where {
    Desk(Level<'static>),
    Here(Arc<Open>),
}

/// The task that this process runs, or in a pool of threads this thread: `None` elsewhere.
///
/// # Examples
/// ```
/// use multiproc::{Pool, current_task};
///
/// let pool = Pool::new(1)?;
/// let task = pool.submit((), || {
///     let me = current_task().unwrap();
///     me.set_progress(0.5);
///     while !me.is_cancelled() {
///         std::thread::sleep(std::time::Duration::from_millis(1));
///     }
///     String::from("stopped in time")
/// });
/// let task = task?;
/// while task.progress() != Some(0.5) {
///     std::thread::yield_now();
/// }
/// task.cancel();
/// assert_eq!(task.join()?, "stopped in time");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn current_task() -> Option<CurrentTask> {
    if let Some(here) = local::here() {
        return Some(CurrentTask(Where::Here(here)));
    }
    let desk = &WORKER.get()?.setup.desk;
    Some(CurrentTask(Where::Desk(desk.level(desk.depth().checked_sub(1)?))))
}

impl CurrentTask {
    /// Whether the task has been [cancelled](crate::Task::cancel) and should return soon.
    pub fn is_cancelled(&self) -> bool {
        match &self.0 {
            Where::Desk(level) => level.shall_stop(),
            Where::Here(task) => task.shall_stop(),
        }
    }

    /// What [`Task::progress`](crate::Task::progress) shows from now on, 0.0 to 1.0 say.
    pub fn set_progress(&self, progress: f64) {
        match &self.0 {
            Where::Desk(level) => level.set_progress(progress),
            Where::Here(task) => task.set_progress(progress),
        }
    }
}
