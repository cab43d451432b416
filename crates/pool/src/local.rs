//! Pools without processes: of threads, and of nothing at all.
//!
//! The same interface, so that a program switches by one name. Arguments and values are moved, not encoded (but for another attempt); what only a process can do (be killed, have its memory
//! bounded) does not exist. Threads are rayon's: a task that waits for another one runs others meanwhile.

use crate::backend::{Backend, park_until};
use crate::error::{PoolError, PoolErrorKind, TaskError};
use crate::home::{CLOSED, FINISHED, OPEN, Settings, TERMINATED, lock};
use crate::panics::{self, Panic};
use crate::retry::Retry;
use crate::table::Saved;
use crate::task::Slot;
use crate::wire::TaskId;
use multiproc_channel::{Bincode, Message, message};
use multiproc_shm::Arena;
use rayon_core::{ThreadPool, ThreadPoolBuilder, Yield};
use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// While a thread of the pool waits for a task, it looks this often whether there is another to run.
const LOOK: Duration = Duration::from_millis(1);

/// A pool of threads, or the caller's own.
pub(crate) struct Local {
    threads: Option<ThreadPool>,
    settings: Settings,
    state: AtomicU32,
    next_id: AtomicU64,
    /// Those without an outcome.
    tasks: Mutex<HashMap<TaskId, Arc<Open>>>,
    /// Those that take room: counted before they are entered, and no more just before they have their outcome.
    open: AtomicUsize,
    waiting: Mutex<Vec<thread::Thread>>,
    /// Why no task is run: the initializer has failed.
    broken: Arc<Mutex<Option<PoolError>>>,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("name", &self.settings.name)
            .field("threads", &self.threads.is_some())
            .finish_non_exhaustive()
    }
}

/// A task without an outcome.
#[derive(Default)]
pub(crate) struct Open {
    running: AtomicBool,
    stop: AtomicBool,
    progress: AtomicU64,
    /// Ends it before it runs.
    cancel: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// Its pool, by the address; nothing is read there.
    pool: usize,
    /// Its pool's.
    context: Option<Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("running", &self.running).finish_non_exhaustive()
    }
}

thread_local! {
    /// What this thread runs, the innermost last.
    static HERE: RefCell<Vec<Arc<Open>>> = const { RefCell::new(Vec::new()) };
}

/// The task that this thread runs.
pub(crate) fn here() -> Option<Arc<Open>> {
    HERE.try_with(|here| here.borrow().last().cloned()).ok().flatten()
}

impl Open {
    pub(crate) fn context(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.context.clone()
    }

    pub(crate) fn shall_stop(&self) -> bool {
        // Relaxed: a flag that nothing else hangs on.
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn set_progress(&self, progress: f64) {
        self.progress.store(progress.to_bits(), Ordering::Relaxed);
    }
}

impl Local {
    /// A pool of threads, or with `inline` one that runs in its callers.
    pub(crate) fn start(settings: Settings, inline: bool) -> Result<Arc<Local>, PoolError> {
        panics::remember_places();
        let broken = Arc::new(Mutex::new(None));
        let (first, context, breaks) = (settings.first.clone(), settings.context.clone(), broken.clone());
        // Where a task would run, and as it would.
        let prepare = move || {
            let here = Arc::new(Open { context: context.clone(), ..Open::default() });
            HERE.with(|stack| stack.borrow_mut().push(here));
            let done = attempt(|| first.iter().for_each(|first| first.run()));
            HERE.with(|stack| stack.borrow_mut().pop());
            if let Err(why) = done {
                let text = format!("the pool's threads cannot begin: {why}");
                lock(&breaks).get_or_insert(PoolError::new(PoolErrorKind::Broken, text));
            }
        };
        let threads = match inline {
            true => {
                prepare();
                None
            }
            false => {
                let name = settings.name.clone();
                let builder = ThreadPoolBuilder::new()
                    .num_threads(settings.workers)
                    .thread_name(move |at| format!("{name}-{at}"))
                    .start_handler(move |_| prepare());
                let threads = builder.build();
                Some(threads.map_err(|e| PoolError::because(PoolErrorKind::System, "the system grants no thread", e))?)
            }
        };
        Ok(Arc::new(Local {
            threads,
            settings,
            state: AtomicU32::new(OPEN),
            next_id: AtomicU64::new(1),
            tasks: Mutex::default(),
            open: AtomicUsize::new(0),
            waiting: Mutex::default(),
            broken,
        }))
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn state(&self) -> u32 {
        self.state.load(Ordering::SeqCst)
    }

    pub(crate) fn open_tasks(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Calls `call` with `args`, here or in a thread of the pool; with `retry`, also again, with what the arguments encode to, as in a worker. One that has `failed` once is only called again.
    pub(crate) fn submit<A: Message + Send, R: Send + 'static>(
        self: &Arc<Self>,
        slot: Arc<Slot<R>>,
        retry: Option<Arc<Retry>>,
        args: A,
        mut failed: Option<TaskError>,
        call: impl FnOnce(A) -> R + Clone + Send + 'static,
    ) -> Result<TaskId, PoolError> {
        let Some(retry) = retry else {
            return self.run(slot, false, move || failed.map_or_else(|| attempt(|| call(args)), Err));
        };
        let arena = Arena::of_the_tree()?;
        let codec = |e| PoolError::because(PoolErrorKind::Codec, "the task was not submitted", e);
        let saved = Saved::new(arena, &args).map_err(codec)?;
        self.run(slot, failed.is_some(), move || {
            let mut tries = 0;
            loop {
                tries += 1;
                let outcome = failed.take().map_or_else(
                    || {
                        let decode = || saved.open(|bytes, references| message::decode::<A, Bincode>(arena, bytes, references));
                        let args = match catch_unwind(AssertUnwindSafe(decode)) {
                            Ok(args) => args.map_err(|e| TaskError::Unreadable(e.to_string()))?,
                            Err(panic) => return Err(TaskError::Unreadable(Panic::taken(&*panic).message)),
                        };
                        let call = call.clone();
                        attempt(|| call(args))
                    },
                    Err,
                );
                let why = match outcome {
                    Ok(value) => return Ok(value),
                    Err(why) => why,
                };
                let Some(pause) = retry.pause(tries, &why) else { return Err(why) };
                thread::sleep(pause);
                if here().is_some_and(|task| task.shall_stop()) {
                    return Err(TaskError::Cancelled);
                }
            }
        })
    }

    /// Runs `call`, here or in a thread of the pool; `again` when it has had its room.
    fn run<R: Send + 'static>(
        self: &Arc<Self>,
        slot: Arc<Slot<R>>,
        again: bool,
        call: impl FnOnce() -> Result<R, TaskError> + Send + 'static,
    ) -> Result<TaskId, PoolError> {
        if again {
            // It has been counted before, as part of another.
            self.open.fetch_add(1, Ordering::SeqCst);
        } else {
            self.enter()?;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let task = Arc::new(Open { pool: self.address(), context: self.settings.context.clone(), ..Open::default() });
        lock(&self.tasks).insert(id, task.clone());
        let pool = self.clone();
        let (cancelled, unrun) = (slot.clone(), self.clone());
        *lock(&task.cancel) = Some(Box::new(move || {
            unrun.leave();
            cancelled.settle(Err(TaskError::Cancelled), 0);
            unrun.forget(id);
        }));
        // Terminated meanwhile: whoever did that may not have found it.
        if self.state() >= TERMINATED {
            self.stop(id, true);
        }
        let run = move || {
            // Whoever takes this decides what becomes of the task.
            if lock(&task.cancel).take().is_none() {
                return;
            }
            task.running.store(true, Ordering::SeqCst);
            HERE.with(|here| here.borrow_mut().push(task.clone()));
            let since = Instant::now();
            let broken = lock(&pool.broken).clone();
            let outcome = broken.map_or_else(|| attempt(call).and_then(|outcome| outcome), |why| Err(TaskError::Refused(why)));
            HERE.with(|here| here.borrow_mut().pop());
            // Whoever sees the outcome finds the room.
            pool.leave();
            slot.settle(outcome, since.elapsed().as_nanos() as u64);
            pool.forget(id);
            // A value that nobody waits for is dropped here: code of the user's, whose panic would end the program.
            let _ = catch_unwind(AssertUnwindSafe(move || drop(slot)));
        };
        match &self.threads {
            Some(threads) => threads.spawn_fifo(run),
            None => run(),
        }
        Ok(id)
    }

    /// Counts one more task, when there is room for it.
    fn enter(&self) -> Result<(), PoolError> {
        if let Some(broken) = &*lock(&self.broken) {
            return Err(broken.clone());
        }
        // What a task submits is part of the work that has been taken, and does not wait for it.
        let (last, bound) = match self.is_inside() {
            true => (CLOSED, None),
            false => (OPEN, self.settings.queue_bound),
        };
        loop {
            let more = |open| bound.is_none_or(|bound| open < bound).then_some(open + 1);
            let entered = self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok();
            // Only now: who closes the pool waits for what has been counted.
            if self.state() > last {
                if entered {
                    self.leave();
                }
                return Err(PoolError::closed());
            }
            if entered {
                return Ok(());
            }
            if self.settings.fails_when_full {
                return Err(PoolError::full());
            }
            self.drive(&|| bound.is_none_or(|bound| self.open_tasks() < bound) || self.state() != OPEN, None, None);
        }
    }

    /// Counts one task less.
    fn leave(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
        lock(&self.waiting).iter().for_each(thread::Thread::unpark);
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Whether this thread runs a task of this pool.
    pub(crate) fn is_inside(&self) -> bool {
        HERE.try_with(|here| here.borrow().iter().any(|task| task.pool == self.address())).unwrap_or(false)
    }

    /// A task has its outcome.
    fn forget(&self, id: TaskId) {
        lock(&self.tasks).remove(&id);
        lock(&self.waiting).iter().for_each(thread::Thread::unpark);
    }

    /// No more tasks are taken.
    pub(crate) fn close(&self) {
        self.state.fetch_max(CLOSED, Ordering::SeqCst);
        lock(&self.waiting).iter().for_each(thread::Thread::unpark);
    }

    /// Waits until all tasks have ended.
    pub(crate) fn finish(&self, deadline: Option<Instant>) -> bool {
        // In this order: a task is entered before it ceases to count.
        let ended = || self.open_tasks() == 0 && lock(&self.tasks).is_empty();
        let done = self.drive(&ended, deadline, None);
        if done {
            self.state.fetch_max(FINISHED, Ordering::SeqCst);
        }
        done
    }

    /// Cancels what waits, and asks what runs to stop.
    pub(crate) fn terminate(&self) {
        self.state.fetch_max(TERMINATED, Ordering::SeqCst);
        let ids: Vec<_> = lock(&self.tasks).keys().copied().collect();
        ids.into_iter().for_each(|id| self.stop(id, true));
    }
}

/// Calls `call` once.
fn attempt<R>(call: impl FnOnce() -> R) -> Result<R, TaskError> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| TaskError::from(Panic::taken(&*panic)))
}

impl Backend for Local {
    fn drive(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>, task: Option<TaskId>) -> bool {
        if task.is_none() {
            lock(&self.waiting).push(thread::current());
        }
        let inside = self.threads.as_ref().is_some_and(|threads| threads.current_thread_index().is_some());
        let answer = if inside {
            loop {
                if done() {
                    break true;
                }
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    break false;
                }
                if rayon_core::yield_now() != Some(Yield::Executed) {
                    thread::park_timeout(LOOK);
                }
            }
        } else {
            park_until(done, deadline)
        };
        if task.is_none() {
            let me = thread::current().id();
            lock(&self.waiting).retain(|thread| thread.id() != me);
        }
        answer
    }

    fn collect(&self) {}

    fn take_interest(&self) {}

    fn lose_interest(&self) {}

    fn runs_here(&self) -> bool {
        self.threads.as_ref().is_some_and(|threads| threads.current_thread_index().is_some())
    }

    fn stop(&self, id: TaskId, _: bool) {
        let Some(task) = lock(&self.tasks).get(&id).cloned() else { return };
        task.stop.store(true, Ordering::SeqCst);
        let cancel = lock(&task.cancel).take();
        if let Some(cancel) = cancel {
            cancel();
        }
    }

    fn is_running(&self, id: TaskId) -> bool {
        lock(&self.tasks).get(&id).is_some_and(|task| task.running.load(Ordering::SeqCst))
    }

    fn progress(&self, id: TaskId) -> Option<f64> {
        let task = lock(&self.tasks).get(&id).cloned().filter(|task| task.running.load(Ordering::SeqCst))?;
        Some(f64::from_bits(task.progress.load(Ordering::Relaxed)))
    }
}
