//! Settings for a pool, and for one task.

use crate::error::{PoolError, PoolErrorKind, TaskError};
use crate::home::{Home, MemoryLimit, Settings};
use crate::initializer::Initializer;
use crate::job::Job;
use crate::local::{self, Local};
use crate::pool::{Call, Pool};
use crate::retry::Retry;
use crate::table::Terms;
use crate::task::Task;
use multiproc_channel::Message;
use multiproc_process::{Args, cpu_count};
use std::any::Any;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Settings for a [`Pool`]; [`build`](PoolBuilder::build) starts it.
///
/// Those that only a process can keep, such as times and limits of memory, do not hold in a pool of [`threads`](PoolBuilder::threads), nor [`inline`](PoolBuilder::inline).
///
/// # Examples
/// ```
/// use multiproc::Pool;
/// use std::time::Duration;
///
/// let pool = Pool::builder().workers(2).name("parse").task_timeout(Duration::from_secs(5)).retries(1).build()?;
/// assert_eq!(pool.map(0..4, |x: u64| x * x)?, [0, 1, 4, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct PoolBuilder {
    workers: Option<usize>,
    name: Option<String>,
    initializer: Option<Result<Initializer, PoolError>>,
    context: Option<Context>,
    max_tasks_per_worker: Option<u64>,
    task_timeout: Option<Duration>,
    retry: Option<Retry>,
    queue_bound: Option<usize>,
    fails_when_full: bool,
    memory_limit: Option<u64>,
    hard_memory_limit: Option<u64>,
    threads_per_worker: Option<usize>,
    idle_timeout: Option<Duration>,
    cpus: Vec<usize>,
    env: Vec<(String, String)>,
    shutdown_timeout: Duration,
    grace: Duration,
    place: Place,
    progress: bool,
}

/// For the workers, and for a pool without any.
#[derive(Debug)]
struct Context {
    keep: Result<Initializer, PoolError>,
    here: Arc<dyn Any + Send + Sync>,
}

/// Where calls run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Processes,
    Threads,
    Inline,
}

impl Default for PoolBuilder {
    fn default() -> PoolBuilder {
        PoolBuilder::new()
    }
}

fn retry(retry: &mut Option<Retry>) -> &mut Retry {
    retry.get_or_insert(Retry { times: 0, backoff: Duration::ZERO, only_if: None })
}

impl PoolBuilder {
    /// The default settings.
    pub fn new() -> PoolBuilder {
        PoolBuilder {
            workers: None,
            name: None,
            initializer: None,
            context: None,
            max_tasks_per_worker: None,
            task_timeout: None,
            retry: None,
            queue_bound: None,
            fails_when_full: false,
            memory_limit: None,
            hard_memory_limit: None,
            threads_per_worker: None,
            idle_timeout: None,
            cpus: Vec::new(),
            env: Vec::new(),
            shutdown_timeout: Duration::from_secs(30),
            grace: Duration::from_millis(500),
            place: Place::Processes,
            progress: false,
        }
    }

    /// How many workers. Default: [`cpu_count`].
    #[doc(alias = "processes")]
    #[doc(alias = "max_workers")]
    pub fn workers(mut self, workers: usize) -> PoolBuilder {
        self.workers = Some(workers);
        self
    }

    /// Workers are called this, with a number. Default: `Pool-1` and so on.
    pub fn name(mut self, name: impl Into<String>) -> PoolBuilder {
        self.name = Some(name.into());
        self
    }

    /// Has each worker call `f(args..)` before its first task.
    ///
    /// If it panics the worker has not begun. After three in a row (or fifty that were killed) nothing more is tried: all tasks end with [`TaskError::Refused`], and the
    /// pool takes no more; [`PoolError::is_broken`], whose text says what the last one died of.
    ///
    /// # Examples
    /// ```
    /// use multiproc::{Atomic, Pool};
    ///
    /// let started = Atomic::new(0u32)?;
    /// let pool = Pool::builder().workers(2).initializer((started.clone(),), |started: Atomic<u32>| _ = started.add(1)).build()?;
    /// pool.ready(std::time::Duration::from_secs(10));
    /// assert_eq!(started.get(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "initargs")]
    pub fn initializer<A: Args + Clone + Send + Sync>(mut self, args: A, f: A::Fn<()>) -> PoolBuilder {
        self.initializer = Some(Initializer::new(args, f));
        self
    }

    /// Gives each worker a copy of `context`, which its tasks find by [`pool_context`]. It is encoded for each worker, and decoded once there.
    ///
    /// # Examples
    /// ```
    /// use multiproc::{Pool, pool_context};
    ///
    /// let pool = Pool::builder().workers(1).context(&vec![10u64, 20, 30]).build()?;
    /// let third = pool.apply((2,), |n: usize| pool_context::<Vec<u64>>().unwrap()[n])?;
    /// assert_eq!(third, 30);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn context<C: Message + Clone + Send + Sync>(mut self, context: &C) -> PoolBuilder {
        let keep = Initializer::new((context.clone(),), keep_context::<C>);
        self.context = Some(Context { keep, here: Arc::new(context.clone()) });
        self
    }

    /// A worker is replaced when it has run so many tasks.
    #[doc(alias = "maxtasksperchild")]
    #[doc(alias = "max_tasks_per_child")]
    pub fn max_tasks_per_worker(mut self, tasks: u64) -> PoolBuilder {
        self.max_tasks_per_worker = Some(tasks);
        self
    }

    /// A task that runs for longer is ended with its worker, which is replaced: [`TaskError::TimedOut`].
    pub fn task_timeout(mut self, timeout: Duration) -> PoolBuilder {
        self.task_timeout = Some(timeout);
        self
    }

    /// A task that panics, or whose worker dies or is killed while the task runs, is tried so many times more. Default: 0. An element of [`map`](Pool::map) that panics is tried again by itself; a
    /// worker that dies takes the whole chunk along, which is then tried again.
    ///
    /// Its arguments are kept for that, and decoded anew for each attempt. Only an attempt that has been started counts: what a dead worker had taken and not begun is always given to another. What
    /// is cancelled, and what cannot be encoded or decoded, is not tried again.
    ///
    /// # Examples
    /// ```
    /// use multiproc::{Atomic, Pool, TaskError};
    /// use std::time::Duration;
    ///
    /// let dies = |why: &TaskError| matches!(why, TaskError::WorkerDied { .. });
    /// let pool = Pool::builder().workers(1).retries(2).backoff(Duration::from_millis(5)).only_if(dies).build()?;
    /// let attempts = Atomic::new(0u32)?;
    /// let outcome = pool.apply((attempts.clone(),), |attempts: Atomic<u32>| match attempts.add(1) {
    ///     0 => std::process::abort(),
    ///     _ => "at the second attempt".to_owned(),
    /// });
    /// assert_eq!(outcome?, "at the second attempt");
    /// // A panic is not what `only_if` means here.
    /// assert!(pool.apply((0,), |n: u32| 1 / n).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retries(mut self, times: u32) -> PoolBuilder {
        retry(&mut self.retry).times = times;
        self
    }

    /// The pause before a task is tried again, doubled from attempt to attempt, and at most a minute. Default: none. It holds no worker up (in a pool of threads: its thread); the task waits
    /// meanwhile, and can be cancelled.
    pub fn backoff(mut self, pause: Duration) -> PoolBuilder {
        retry(&mut self.retry).backoff = pause;
        self
    }

    /// Only failures for which `f` is true are tried again. Called once for each failure that leaves another attempt, in the process that set it, on whichever thread hears of the failure; one that
    /// panics means no. It must not wait for the pool.
    pub fn only_if(mut self, f: impl Fn(&TaskError) -> bool + Send + Sync + 'static) -> PoolBuilder {
        retry(&mut self.retry).only_if = Some(Arc::new(f));
        self
    }

    /// [`submit`](Pool::submit) waits while so many tasks are waiting and running, in every process that has a handle. What a worker of the pool submits itself counts, but does not wait: its own
    /// task is one of those. So it is with a task of a pool of threads.
    pub fn queue_bound(mut self, tasks: usize) -> PoolBuilder {
        self.queue_bound = Some(tasks);
        self
    }

    /// At the [`queue_bound`](PoolBuilder::queue_bound), [`submit`](Pool::submit) fails with [`PoolError::is_full`] instead of waiting. [`map`](Pool::map) and its like
    /// hand out no more than there is room for, and fail only where others have taken it all.
    pub fn fail_when_full(mut self) -> PoolBuilder {
        self.fails_when_full = true;
        self
    }

    /// Bytes of private memory that a worker may use: beyond it, it is replaced after its task; beyond twice as much, it is killed within 200 ms, and its task ends with
    /// [`TaskError::MemoryLimit`]. Memory that is shared with the tree does not count.
    pub fn memory_limit_per_worker(mut self, bytes: u64) -> PoolBuilder {
        self.memory_limit = Some(bytes);
        self
    }

    /// The bound beyond which a worker is killed, if it is not to be twice [`memory_limit_per_worker`](PoolBuilder::memory_limit_per_worker).
    pub fn hard_memory_limit_per_worker(mut self, bytes: u64) -> PoolBuilder {
        self.hard_memory_limit = Some(bytes);
        self
    }

    /// Tells the usual libraries in the workers (rayon, OpenMP, OpenBLAS, MKL) to use so many threads, by the variables that they read.
    pub fn threads_per_worker(mut self, threads: usize) -> PoolBuilder {
        self.threads_per_worker = Some(threads);
        self
    }

    /// Workers are started when there are tasks for them, and leave when they have had none for so long.
    pub fn idle_timeout(mut self, timeout: Duration) -> PoolBuilder {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Has each worker run on one of these processors, in turn.
    pub fn cpus(mut self, cpus: impl IntoIterator<Item = usize>) -> PoolBuilder {
        self.cpus = cpus.into_iter().collect();
        self
    }

    /// Sets a variable in the workers' environment.
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> PoolBuilder {
        self.env.push((key.into(), value.into()));
        self
    }

    /// How long the drop of the last handle waits for tasks to be finished before it terminates the pool. Default: 30 s.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> PoolBuilder {
        self.shutdown_timeout = timeout;
        self
    }

    /// How long a task, or a worker, that is asked to end is given before it is told more plainly: by SIGTERM, then by SIGKILL. Default: 500 ms.
    pub fn grace(mut self, grace: Duration) -> PoolBuilder {
        self.grace = grace;
        self
    }

    /// Shows how far [`map`](Pool::map) and its like have come, as a bar on stderr, if that is a terminal.
    #[cfg(feature = "progress")]
    pub fn progress(mut self, progress: bool) -> PoolBuilder {
        self.progress = progress;
        self
    }

    /// Makes it a pool of threads: see [`ThreadPool`](crate::ThreadPool).
    pub fn threads(mut self) -> PoolBuilder {
        self.place = Place::Threads;
        self
    }

    /// Makes it run each call in its caller: see [`Pool::inline`].
    pub fn inline(mut self) -> PoolBuilder {
        self.place = Place::Inline;
        self
    }

    /// Starts the pool. Its workers are being started when this returns; [`Pool::ready`] waits until they are.
    ///
    /// # Errors
    /// A number is 0 that may not be, or a name has a NUL in it; a worker cannot be started.
    pub fn build(self) -> Result<Pool, PoolError> {
        static POOLS: AtomicU32 = AtomicU32::new(1);
        let invalid = |text| Err(PoolError::new(PoolErrorKind::Invalid, text));
        let workers = self.workers.unwrap_or_else(cpu_count);
        if workers == 0 {
            return invalid("a pool has at least one worker");
        }
        if self.max_tasks_per_worker == Some(0) {
            return invalid("a worker runs at least one task");
        }
        if self.queue_bound == Some(0) {
            return invalid("a pool takes at least one task");
        }
        let name = self.name.unwrap_or_else(|| format!("Pool-{}", POOLS.fetch_add(1, Ordering::Relaxed)));
        if name.contains('\0') {
            return invalid("a name has no NUL in it");
        }
        let hard = self.hard_memory_limit.or(self.memory_limit.map(|soft| soft.saturating_mul(2)));
        let memory_limit = hard.map(|hard| MemoryLimit { soft: self.memory_limit.unwrap_or(u64::MAX), hard });
        let inline = std::env::var_os("MULTIPROC_INLINE").is_some_and(|value| value == "1");
        let place = if inline { Place::Inline } else { self.place };
        let (keep, context) = match (self.context, place) {
            (None, _) => (None, None),
            (Some(context), Place::Processes) => (Some(context.keep), None),
            (Some(context), _) => (None, Some(context.here)),
        };
        let settings = Settings {
            name,
            workers,
            first: [keep, self.initializer].into_iter().flatten().collect::<Result<_, _>>()?,
            context,
            max_tasks_per_worker: self.max_tasks_per_worker,
            task_timeout: self.task_timeout,
            retry: self.retry.map(Arc::new),
            queue_bound: self.queue_bound,
            fails_when_full: self.fails_when_full,
            memory_limit,
            threads_per_worker: self.threads_per_worker,
            idle_timeout: self.idle_timeout,
            cpus: self.cpus,
            env: self.env,
            shutdown_timeout: self.shutdown_timeout,
            grace: self.grace,
            progress: self.progress,
        };
        match place {
            Place::Inline => Ok(Pool::of_local(Local::start(settings, true)?)),
            Place::Threads => Ok(Pool::of_local(Local::start(settings, false)?)),
            Place::Processes => Ok(Pool::of(Home::start(settings)?)),
        }
    }
}

/// The context of this worker's pool.
static CONTEXT: OnceLock<Arc<dyn Any + Send + Sync>> = OnceLock::new();

fn keep_context<C: Send + Sync + 'static>(context: C) {
    let _ = CONTEXT.set(Arc::new(context));
}

/// In a worker, or in a task of a pool of threads: what its pool was given by [`PoolBuilder::context`], if that is a `C`.
pub fn pool_context<C: Send + Sync + 'static>() -> Option<Arc<C>> {
    let context = match local::here() {
        Some(task) => task.context()?,
        None => CONTEXT.get()?.clone(),
    };
    context.downcast().ok()
}

/// Settings for one task, in place of its pool's: see [`Pool::task`].
#[derive(Debug)]
#[must_use]
pub struct TaskBuilder<'a> {
    pool: &'a Pool,
    terms: Terms,
    /// What is not set is as the pool has it.
    retry: Option<Retry>,
}

impl<'a> TaskBuilder<'a> {
    fn retry(&mut self) -> &mut Retry {
        retry(&mut self.retry)
    }

    pub(crate) fn new(pool: &'a Pool) -> TaskBuilder<'a> {
        let terms = pool.usual_terms();
        let retry = terms.retry.as_deref().cloned();
        TaskBuilder { pool, terms, retry }
    }

    /// What the task is called in a trace (`Pool::trace`, of the feature `pool-trace`).
    pub fn name(mut self, name: impl Into<String>) -> TaskBuilder<'a> {
        self.terms.name = Some(name.into());
        self
    }

    /// As [`PoolBuilder::task_timeout`].
    pub fn timeout(mut self, timeout: Duration) -> TaskBuilder<'a> {
        self.terms.timeout = Some(timeout);
        self
    }

    /// As [`PoolBuilder::retries`].
    pub fn retries(mut self, times: u32) -> TaskBuilder<'a> {
        self.retry().times = times;
        self
    }

    /// As [`PoolBuilder::backoff`].
    pub fn backoff(mut self, pause: Duration) -> TaskBuilder<'a> {
        self.retry().backoff = pause;
        self
    }

    /// As [`PoolBuilder::only_if`].
    pub fn only_if(mut self, f: impl Fn(&TaskError) -> bool + Send + Sync + 'static) -> TaskBuilder<'a> {
        self.retry().only_if = Some(Arc::new(f));
        self
    }

    /// Submits the call: see [`Pool::submit`].
    ///
    /// # Errors
    /// As [`Pool::submit`].
    pub fn submit<A: Args + Send, R: Message + Send>(mut self, args: A, f: A::Fn<R>) -> Result<Task<R>, PoolError> {
        self.terms.retry = self.retry.map(Arc::new);
        let head = Job::call::<A, R>(f)?.head();
        self.pool.start(Call::new(head, args, move |args| A::call(f, args)).terms(self.terms))
    }
}
