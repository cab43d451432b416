//! A pool in the process that made it: what its threads share.
//!
//! Nobody is told more than he asks for: a thread that waits for a task collects what the workers tell, for all tasks ([`crate::collect`]), and only
//! when nobody waits, and somebody wants to be called, does the pool's own thread ([`crate::supervise`]). That one sees to deaths, times and staff.
//!
//! Locks, in the order in which they are taken: `crew` or `remotes`, then `table`; all others alone. No code of the user's runs under any.

use crate::caller::Caller;
use crate::crew::Crew;
use crate::error::{PoolError, PoolErrorKind, TaskError};
use crate::initializer::Initializer;
use crate::job::Encoded;
use crate::lead::Lead;
use crate::remote::Remotes;
use crate::retry::Retry;
use crate::stats::Times;
use crate::stop::Stop;
use crate::supervise;
use crate::table::{Claim, Ending, Entry, Pending, Saved, Table, Terms};
#[cfg(feature = "trace")]
use crate::trace::{Ran, Trace};
use crate::wire::{Inbox, Out, Outbox, Packet, TaskHead, TaskId, Wire};
use multiproc_channel::{CodecError, Message, PutError, Queue};
use multiproc_shm::Arena;
use multiproc_sync::{Atomic, Event};
use multiproc_sys::clock::now_nanos;
use multiproc_sys::robust;
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What workers tell waits here until somebody collects it.
const TELLS: usize = 4096;

/// What a pool was built with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) workers: usize,
    /// What each worker does first, in order.
    pub(crate) first: Vec<Initializer>,
    /// What tasks of a pool without workers find; workers keep their own.
    pub(crate) context: Option<Arc<dyn Any + Send + Sync>>,
    pub(crate) max_tasks_per_worker: Option<u64>,
    pub(crate) task_timeout: Option<Duration>,
    pub(crate) retry: Option<Arc<Retry>>,
    pub(crate) queue_bound: Option<usize>,
    pub(crate) fails_when_full: bool,
    pub(crate) memory_limit: Option<MemoryLimit>,
    pub(crate) threads_per_worker: Option<usize>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) cpus: Vec<usize>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) grace: Duration,
    pub(crate) progress: bool,
}

/// Bytes of private memory of a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryLimit {
    /// Beyond it, it is replaced after its task.
    pub(crate) soft: u64,
    /// Beyond it, it is killed.
    pub(crate) hard: u64,
}

/// Values of `state`.
pub(crate) const OPEN: u32 = 0;
/// No more tasks are taken; those that were are finished.
pub(crate) const CLOSED: u32 = 1;
/// What has no outcome is cancelled, and the workers are ended.
pub(crate) const TERMINATED: u32 = 2;
/// No worker is left, and none will be started.
pub(crate) const FINISHED: u32 = 3;

pub(crate) struct Home {
    pub(crate) settings: Settings,
    pub(crate) arena: &'static Arena,
    pub(crate) tasks: Queue<Packet, Wire>,
    pub(crate) tells: Inbox,
    pub(crate) tell: Outbox,
    pub(crate) bell: Event,
    pub(crate) cancelled: Atomic<u64>,
    pub(crate) table: Mutex<Table>,
    pub(crate) lead: Lead,
    /// How many of the things told have been taken notice of; written by whoever leads.
    pub(crate) heeded: AtomicU32,
    /// Whoever collects shall look around.
    pub(crate) nudged: AtomicBool,
    pub(crate) crew: Mutex<Crew>,
    /// Tasks that are tried again, and when.
    pub(crate) later: Mutex<Vec<(Instant, TaskId)>>,
    /// Tasks that were asked to stop while they ran.
    pub(crate) stops: Mutex<Vec<Stop>>,
    pub(crate) remotes: Mutex<Remotes>,
    /// The next client's number.
    pub(crate) client_numbers: Atomic<u32>,
    pub(crate) me: Weak<Home>,
    /// Of the process that made it; fork() makes another.
    made_in: u32,
    /// What clients know the pool's end by: the one side, until then, and the other.
    pub(crate) life: Mutex<Option<Outbox>>,
    pub(crate) life_seen: Inbox,
    /// Tasks that have ended with a value, and otherwise; from the submission to the outcome.
    pub(crate) done: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) times: Times,
    #[cfg(feature = "trace")]
    pub(crate) trace: Mutex<Option<Trace>>,
    #[cfg(feature = "trace")]
    pub(crate) is_traced: AtomicBool,
    contexts: Mutex<HashMap<u64, Arc<Encoded>>>,
    next_context: AtomicU64,
    state: AtomicU32,
    /// Workers the pool shall have.
    pub(crate) target: AtomicUsize,
    /// Workers are missing that the next task would need.
    pub(crate) short_handed: AtomicBool,
    /// Calls in this process that may yet submit what follows from tasks that were taken: until then the workers of a closed pool stay.
    holds: AtomicUsize,
    /// Tasks of other processes that wait for room.
    pub(crate) outside: AtomicUsize,
    /// Those who want to be called without waiting for a task: then the pool's thread collects.
    pub(crate) interest: AtomicUsize,
    /// Why no worker can be started.
    pub(crate) broken: Mutex<Option<PoolError>>,
    pub(crate) thread: Mutex<Option<JoinHandle<()>>>,
    /// When the pool is terminated, if the last handle was dropped on the pool's own thread, which cannot wait for it there.
    pub(crate) ends_by: Mutex<Option<Instant>>,
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home").field("name", &self.settings.name).finish_non_exhaustive()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the workers of a closed pool: see [`Home::has_work`].
pub(crate) struct Hold<'a>(&'a Home);

impl<'a> Hold<'a> {
    pub(crate) fn new(home: &'a Home) -> Hold<'a> {
        home.holds.fetch_add(1, Ordering::SeqCst);
        Hold(home)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.holds.fetch_sub(1, Ordering::SeqCst);
        self.0.look_around();
    }
}

/// A task that has been entered and is not sent yet.
struct Entered<'a>(&'a Home, TaskId);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        lock(&self.0.table).remove(self.1);
        // It may have been the only one, for whose end somebody waits.
        let _ = self.0.bell.set();
        self.0.look_around();
    }
}

pub(crate) fn not_encoded(e: CodecError) -> PoolError {
    PoolError::because(PoolErrorKind::Codec, "the task was not submitted", e)
}

impl Home {
    pub(crate) fn start(settings: Settings) -> Result<Arc<Home>, PoolError> {
        let arena = Arena::of_the_tree()?;
        let tells = Queue::<Packet, Wire>::builder().capacity(TELLS).build()?;
        let target = settings.workers;
        let tasks = Queue::<Packet, Wire>::builder().unbounded().build()?;
        let (tell, tells) = (tells.sender()?, tells.receiver()?);
        let life = Queue::<Packet, Wire>::builder().capacity(1).build()?;
        let (life, life_seen) = (life.sender()?, life.receiver()?);
        let (bell, cancelled, client_numbers) = (Event::new()?, Atomic::new(0)?, Atomic::new(1)?);
        let home = Arc::new_cyclic(|me| Home {
            arena,
            tasks,
            tell,
            tells,
            bell,
            cancelled,
            table: Mutex::default(),
            lead: Lead::default(),
            heeded: AtomicU32::new(0),
            nudged: AtomicBool::new(false),
            crew: Mutex::default(),
            later: Mutex::default(),
            stops: Mutex::default(),
            remotes: Mutex::default(),
            client_numbers,
            me: me.clone(),
            made_in: robust::life(),
            life: Mutex::new(Some(life)),
            life_seen,
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            times: Times::default(),
            #[cfg(feature = "trace")]
            trace: Mutex::default(),
            #[cfg(feature = "trace")]
            is_traced: AtomicBool::new(false),
            contexts: Mutex::default(),
            next_context: AtomicU64::new(1),
            state: AtomicU32::new(OPEN),
            target: AtomicUsize::new(target),
            short_handed: AtomicBool::new(settings.idle_timeout.is_some()),
            holds: AtomicUsize::new(0),
            outside: AtomicUsize::new(0),
            interest: AtomicUsize::new(0),
            broken: Mutex::default(),
            thread: Mutex::default(),
            ends_by: Mutex::default(),
            settings,
        });
        if home.settings.idle_timeout.is_none() {
            for _ in 0..target {
                // The handles of those that were started end with the crew, and with them the workers.
                home.hire().inspect_err(|_| home.dismiss_all())?;
            }
        }
        let supervisor = home.clone();
        let thread = std::thread::Builder::new().name("multiproc-pool".into()).spawn(move || supervise::supervise(&supervisor));
        let thread = thread.map_err(|e| {
            home.dismiss_all();
            PoolError::because(PoolErrorKind::System, "the system grants no thread", e)
        })?;
        *lock(&home.thread) = Some(thread);
        Ok(home)
    }

    /// Whether this process made the pool. In one that was forked from it everything shared is that one's: nothing is submitted, collected or asked to stop there.
    pub(crate) fn is_ours(&self) -> bool {
        robust::life() == self.made_in
    }

    /// Whether this is the pool's own thread, which runs wakers, and drops what nobody waits for.
    pub(crate) fn is_supervised_here(&self) -> bool {
        lock(&self.thread).as_ref().is_some_and(|supervisor| supervisor.thread().id() == std::thread::current().id())
    }

    pub(crate) fn state(&self) -> u32 {
        self.state.load(Ordering::SeqCst)
    }

    /// Goes on to a later state.
    pub(crate) fn advance(&self, state: u32) {
        self.state.fetch_max(state, Ordering::SeqCst);
        let _ = self.bell.set();
        self.nudge();
        self.look_around();
    }

    pub(crate) fn open_tasks(&self) -> usize {
        lock(&self.table).open()
    }

    /// Why no worker can be started, if that is so.
    pub(crate) fn broken(&self) -> Option<PoolError> {
        lock(&self.broken).clone()
    }

    /// Whether there are tasks, or may be yet that follow from those that were.
    pub(crate) fn has_work(&self) -> bool {
        // In this order: a hold is let go when what follows has been entered, and has ended.
        self.holds.load(Ordering::SeqCst) > 0 || self.open_tasks() > 0
    }

    /// Whether one more task may be submitted now; an error when none may any more.
    fn has_room(&self) -> Result<bool, PoolError> {
        if !self.is_ours() {
            return Err(PoolError::of_the_parent());
        }
        if let Some(broken) = self.broken() {
            return Err(broken);
        }
        if self.state() != OPEN {
            return Err(PoolError::closed());
        }
        Ok(self.settings.queue_bound.is_none_or(|bound| self.open_tasks() < bound))
    }

    /// Waits until there is room for one more task.
    fn wait_for_room(&self) -> Result<(), PoolError> {
        while !self.has_room()? {
            if self.settings.fails_when_full {
                return Err(PoolError::full());
            }
            self.drive_any(&|| !matches!(self.has_room(), Ok(false)), None);
        }
        Ok(())
    }

    /// Submits a task; `put` sends it.
    fn submit_with(
        &self,
        pending: Arc<dyn Pending>,
        mut head: TaskHead,
        terms: Option<Box<Terms>>,
        put: impl FnOnce(TaskHead) -> Result<(), PutError<()>>,
    ) -> Result<TaskId, PoolError> {
        let timeout = terms.as_ref().and_then(|terms| terms.timeout);
        let saved = terms.as_ref().is_some_and(|terms| terms.saved.is_some());
        let caller = Caller::here();
        head.span = caller.number();
        let mut entry =
            Some(Entry { pending, terms, head, submitted: now_nanos(), caller, cancelled: false, claim: Claim::None });
        let id = loop {
            self.wait_for_room()?;
            let mut table = lock(&self.table);
            // Others may have taken the room meanwhile.
            if self.settings.queue_bound.is_none_or(|bound| table.open() < bound)
                && let Some(entry) = entry.take()
            {
                break table.enter(entry);
            }
        };
        head.id = id;
        // An argument may panic when it is encoded.
        let entered = Entered(self, id);
        let put = if saved { self.put_saved(id) } else { put(head) };
        if let Err(e) = put {
            drop(entered);
            return Err(PoolError::not_put(e));
        }
        std::mem::forget(entered);
        if timeout.is_some() || self.short_handed.load(Ordering::Relaxed) {
            let _ = self.bell.set();
        }
        // Terminated meanwhile, and nobody looks at what comes now.
        if self.state() >= TERMINATED {
            let left = lock(&self.table).remove(id);
            left.into_iter().for_each(|entry| entry.pending.end(Ending::Failed(TaskError::Cancelled)));
        }
        Ok(id)
    }

    /// Submits a task with these arguments.
    pub(crate) fn submit<A: Message>(
        &self,
        pending: Arc<dyn Pending>,
        head: TaskHead,
        mut terms: Option<Box<Terms>>,
        args: &A,
    ) -> Result<TaskId, PoolError> {
        if let Some(terms) = &mut terms
            && terms.retry.is_some()
        {
            terms.saved = Some(Arc::new(Saved::new(self.arena, args).map_err(not_encoded)?));
        }
        self.submit_with(pending, head, terms, |head| self.tasks.put_ref(&Out(head, args)))
    }

    /// Submits a task that has failed like this at its first attempt: it is tried again, or has its outcome. It has had its room, and does not wait for any.
    pub(crate) fn submit_failed<A: Message>(
        &self,
        pending: Arc<dyn Pending>,
        mut head: TaskHead,
        mut terms: Option<Box<Terms>>,
        args: &A,
        why: TaskError,
    ) -> Result<TaskId, PoolError> {
        if let Some(terms) = &mut terms
            && terms.retry.is_some()
        {
            terms.saved = Some(Arc::new(Saved::new(self.arena, args).map_err(not_encoded)?));
        }
        let caller = Caller::here();
        head.span = caller.number();
        let entry = Entry { pending, terms, head, submitted: now_nanos(), caller, cancelled: false, claim: Claim::None };
        let id = lock(&self.table).enter(entry);
        self.fail(id, why);
        self.look_around();
        Ok(id)
    }

    /// Sends a task's kept arguments, once more perhaps.
    pub(crate) fn put_saved(&self, id: TaskId) -> Result<(), PutError<()>> {
        let kept = lock(&self.table).get(id).and_then(|entry| Some((entry.head, entry.terms.as_ref()?.saved.clone()?)));
        // Nobody waits for the queue under the table's lock.
        kept.map_or(Ok(()), |(head, saved)| saved.put(head, &self.tasks))
    }

    /// The terms of a task that asks for nothing special.
    pub(crate) fn usual_terms(&self) -> Option<Box<Terms>> {
        let Settings { task_timeout, retry, .. } = &self.settings;
        let usual = task_timeout.is_none() && retry.is_none();
        (!usual).then(|| Box::new(Terms { timeout: *task_timeout, retry: retry.clone(), ..Terms::default() }))
    }

    /// A task has failed: it is tried again, or has its outcome. Nothing happens when it had one already.
    pub(crate) fn fail(&self, id: TaskId, why: TaskError) {
        self.fail_attempt(id, why, None);
    }

    /// The same of the attempt that a worker has begun at that time, as its end says: what it had told of that and comes to light only now is no news then.
    pub(crate) fn fail_begun(&self, id: TaskId, why: TaskError, worker: u32, since: u64) {
        self.fail_attempt(id, why, Some((worker, since)));
    }

    fn fail_attempt(&self, id: TaskId, why: TaskError, begun: Option<(u32, u64)>) {
        let retry = lock(&self.table)
            .get(id)
            .and_then(|entry| Some((entry.head.tries, entry.terms.as_ref()?.retry.clone()?)))
            .filter(|_| self.state() < TERMINATED);
        let tried = retry.as_ref().map(|(tries, _)| *tries);
        // The user's code, outside of all locks.
        let pause =
            retry.and_then(|(tries, retry)| catch_unwind(AssertUnwindSafe(|| retry.pause(tries + 1, &why))).ok().flatten());
        let mut table = lock(&self.table);
        let Some(entry) = table.get(id) else { return };
        if entry.cancelled {
            // It had failed by itself, and no worker will meet it any more.
            table.remove(id);
            self.cancelled.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        if tried.is_some_and(|tried| tried != entry.head.tries) {
            // The same attempt was told as failed meanwhile, and there is another one.
            return;
        }
        // Who has been asked to stop meanwhile is not tried again.
        let may = entry.terms.as_ref().is_some_and(|terms| terms.retry.is_some());
        if let Some(pause) = pause.filter(|_| may) {
            entry.head.tries += 1;
            if let Some(terms) = entry.terms.as_mut().filter(|_| begun.is_some()) {
                // Not earlier: until the next attempt counts, a lease of this one that comes back is to be left alone.
                terms.told = begun;
            }
            drop(table);
            lock(&self.later).push((Instant::now() + pause, id));
            let _ = self.bell.set();
            return;
        }
        let Some(entry) = table.remove(id) else { return };
        drop(table);
        self.has_ended(&entry, false);
        entry.pending.end(Ending::Failed(why));
    }

    /// Counts a task that is about to have its outcome.
    pub(crate) fn has_ended(&self, entry: &Entry, with_value: bool) {
        // Relaxed: figures for people.
        let count = if with_value { &self.done } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
        self.times.record(now_nanos().saturating_sub(entry.submitted));
    }

    /// Enters a task that a worker has run into the trace.
    #[cfg(feature = "trace")]
    pub(crate) fn record(&self, id: TaskId, ran: Ran<'_>) {
        if !self.is_traced.load(Ordering::Relaxed) {
            return;
        }
        let name = lock(&self.table).get(id).and_then(|entry| entry.terms.as_ref()?.name.clone());
        if let Some(trace) = &mut *lock(&self.trace) {
            trace.record(&self.settings.name, Ran { name: name.as_deref().unwrap_or(ran.name), ..ran });
        }
    }

    /// As [`fail`](Home::fail), for what a worker has told of what it had begun at that time: should it die now, what lies on its desk is not another failure. Nor is this one, if it
    /// has died, and that was counted.
    pub(crate) fn fail_told(&self, worker: u32, since: u64, id: TaskId, why: TaskError) {
        if let Some(entry) = lock(&self.table).get(id) {
            if entry.was_told(worker, since) {
                return;
            }
            if let Some(terms) = entry.terms.as_mut() {
                terms.told = Some((worker, since));
            }
        }
        self.fail(id, why);
    }

    /// How often a task has been started, with the attempt that runs.
    pub(crate) fn attempts(&self, id: TaskId) -> u32 {
        lock(&self.table).get(id).map_or(1, |entry| entry.head.tries as u32 + 1)
    }

    /// Keeps a context for workers to ask for; its number.
    pub(crate) fn keep_context(&self, context: Encoded) -> u64 {
        // Relaxed: a number.
        let id = self.next_context.fetch_add(1, Ordering::Relaxed) | 1 << 62;
        lock(&self.contexts).insert(id, Arc::new(context));
        id
    }

    pub(crate) fn context(&self, id: u64) -> Option<Arc<Encoded>> {
        lock(&self.contexts).get(&id).cloned()
    }

    pub(crate) fn forget_context(&self, id: u64) {
        lock(&self.contexts).remove(&id);
    }

    /// Wakes whoever collects, to look around. Not by a message: a worker that has been stopped in the middle of telling something keeps all others from it.
    pub(crate) fn nudge(&self) {
        if self.lead.is_led() {
            // Fails in a process made by fork(), where nobody collects.
            let _ = self.tells.poke(|| self.nudged.store(true, Ordering::SeqCst));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;
    use std::sync::OnceLock;

    /// No test waits longer.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// While `only_if` is asked about a failure, the same one is told a second time.
    #[test]
    fn an_attempt_fails_once() {
        static TOLD: OnceLock<(Arc<Home>, TaskId)> = OnceLock::new();
        let timed_out = || TaskError::TimedOut { after: Duration::ZERO };
        let asked = Arc::new(AtomicUsize::new(0));
        let only_if = {
            let asked = asked.clone();
            move |_: &TaskError| {
                let (home, id) = TOLD.get().expect("nothing fails before");
                if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                    home.fail(*id, timed_out());
                }
                true
            }
        };
        // Before a pause is over nothing is sent again.
        let pool = Pool::builder().workers(1).retries(5).backoff(PATIENCE).only_if(only_if).build().unwrap();
        let home = pool.home().unwrap();
        let go = Event::new().unwrap();
        let task = pool.submit((go.clone(),), |go: Event| go.wait().is_ok()).unwrap();
        assert!(TOLD.set((home.me.upgrade().unwrap(), task.id)).is_ok());
        home.fail(task.id, timed_out());
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        assert_eq!(lock(&home.table).get(task.id).unwrap().head.tries, 1);
        assert_eq!(lock(&home.later).len(), 1);
        assert!(!task.is_done());
        go.set().unwrap();
        assert!(task.join().unwrap());
    }

    /// A worker dies over an attempt of which it has told, and what it has told comes last.
    #[test]
    fn an_attempt_that_ended_with_its_worker_is_not_told_again() {
        let pool = Pool::builder().workers(1).retries(5).backoff(PATIENCE).build().unwrap();
        let home = pool.home().unwrap();
        let go = Event::new().unwrap();
        let task = pool.submit((go.clone(),), |go: Event| go.wait().is_ok()).unwrap();
        let tries = || lock(&home.table).get(task.id).unwrap().head.tries;
        let failed = || TaskError::TimedOut { after: Duration::ZERO };
        home.fail_begun(task.id, failed(), 3, 1000);
        assert_eq!(tries(), 1);
        home.fail_told(3, 1000, task.id, failed());
        assert_eq!(tries(), 1);
        // Another attempt.
        home.fail_told(3, 1001, task.id, failed());
        assert_eq!(tries(), 2);
        go.set().unwrap();
        assert!(task.join().unwrap());
    }

    /// The last that keeps the workers of a closed pool is let go while the pool's thread sleeps.
    #[test]
    fn letting_go_wakes_the_pool() {
        let pool = Pool::builder().workers(1).build().unwrap();
        let home = pool.home().unwrap();
        let by = Instant::now() + PATIENCE;
        assert!(pool.ready(PATIENCE));
        let held = pool.hold();
        pool.close();
        // It has looked; a moment later it sleeps.
        while home.bell.is_set() {
            assert!(Instant::now() < by);
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(home.state(), CLOSED);
        drop(held);
        assert!(home.drive_any(&|| home.state() == FINISHED, Some(by)));
    }
}
