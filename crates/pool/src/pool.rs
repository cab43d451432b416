//! [`Pool`]: worker processes that run calls.

use crate::backend::Backend;
use crate::builder::{PoolBuilder, TaskBuilder};
use crate::client::{Address, Client};
use crate::crew::Member;
use crate::error::{PoolError, PoolErrorKind, TaskError};
use crate::home::{CLOSED, FINISHED, Hold, Home, OPEN, TERMINATED, lock};
use crate::job::Job;
use crate::local::Local;
use crate::progress::Bar;
use crate::stats::PoolStats;
use crate::table::Terms;
use crate::task::{Slot, Task};
#[cfg(feature = "trace")]
use crate::trace::Trace;
use crate::wire::TaskHead;
use multiproc_channel::Message;
use multiproc_process::Args;
use multiproc_sys::clock::now_nanos;
use serde::de::{self, Deserializer};
use serde::ser::{self, Serializer};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Deref;
#[cfg(feature = "trace")]
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Worker processes that run calls, each with exactly one outcome, whatever happens to a worker.
///
/// A worker that dies takes with it the task that it was running, and nothing else: that task's outcome is [`TaskError::WorkerDied`], or another attempt
/// ([`retries`](PoolBuilder::retries)), and another worker takes the place. A handle is cheap to clone and may be used by any number of threads. When the last one is
/// dropped, the pool finishes what it was given, for at most [`shutdown_timeout`](PoolBuilder::shutdown_timeout).
///
/// # Crash safety
/// `kill -9` of a worker at any instruction: no task is lost, none has two outcomes, nobody hangs. When the process that made the pool dies, so do the workers.
///
/// A worker that is *stopped* (SIGSTOP, a debugger) has not died: where it was about to take a task or to tell an outcome, the others wait until it goes on or is killed. The pool's own
/// process does not: times and limits hold, and [`terminate`](Pool::terminate) ends it all.
///
/// In a process that `fork()` has made a handle is of no use: it submits nothing, and each wait ends at once.
///
/// # In other processes
/// A handle travels, to workers of the pool as well; a task there that waits for another one runs others meanwhile. What is submitted goes through the process that made
/// the pool: its settings hold, and those of [`task`](Pool::task). Such a handle neither closes the pool nor keeps it open; when the pool has ended, so have the
/// tasks: [`TaskError::Refused`].
///
/// # Python
/// | Python | here |
/// |---|---|
/// | `Pool(n)`, `ProcessPoolExecutor(n)` | [`Pool::new`], [`Pool::builder`] |
/// | `apply_async`, `submit` | [`submit`](Pool::submit) |
/// | `apply` | [`apply`](Pool::apply) |
/// | `map`, `starmap` | [`map`](Pool::map), with tuples |
/// | `imap`, `imap_unordered`, `Executor.map` | [`imap`](Pool::imap), [`imap_unordered`](Pool::imap_unordered) |
/// | `with Pool() as p:`, which terminates at its end | the drop finishes the work; [`terminate`](Pool::terminate) is explicit |
///
/// # Examples
/// ```
/// use multiproc::Pool;
///
/// let pool = Pool::new(2)?;
/// let squares = pool.map(0..1000, |x: u64| x * x)?;
/// assert_eq!(squares[999], 998_001);
///
/// let task = pool.submit((6, 7), |a: u64, b: u64| a * b)?;
/// assert_eq!(task.join()?, 42);
///
/// // A task that kills its worker costs that worker, and nothing else.
/// let dead = pool.submit((), || -> () { std::process::abort() })?.join().unwrap_err();
/// assert_eq!(dead.signal(), Some(multiproc::Signal::ABRT));
/// assert_eq!(pool.apply((1,), |x: u64| x + 1)?, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[doc(alias = "ProcessPoolExecutor")]
#[doc(alias = "Executor")]
pub struct Pool {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Processes(Arc<Owner>),
    /// Of another process.
    Remote(Arc<Client>),
    Local(Arc<LocalOwner>),
}

/// While a pool is terminated, who waits for that looks again this often.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What all handles share; dropped with the last.
struct Owner(Arc<Home>);

impl Drop for Owner {
    fn drop(&mut self) {
        let home = &self.0;
        // In a process made by fork() the pool is the parent's.
        if !home.is_ours() {
            return;
        }
        let in_time = Instant::now().checked_add(home.settings.shutdown_timeout);
        if home.is_supervised_here() {
            *lock(&home.ends_by) = in_time;
            home.advance(CLOSED);
            return;
        }
        home.advance(CLOSED);
        if !home.wait_until_finished(in_time) {
            home.advance(TERMINATED);
            // It ends without the workers' help, so not all at once: the queue by which they would tell of it may have been written over.
            while !home.wait_until_finished(Instant::now().checked_add(LOOK_AGAIN)) {}
        }
        if let Some(thread) = lock(&home.thread).take() {
            let _ = thread.join();
        }
    }
}

/// As [`Owner`], for a pool without processes.
struct LocalOwner(Arc<Local>);

impl Drop for LocalOwner {
    fn drop(&mut self) {
        let local = &self.0;
        local.close();
        // A task that had the last handle would wait for itself; its pool lasts as long as its tasks.
        if local.is_inside() {
            return;
        }
        if !local.finish(Instant::now().checked_add(local.settings().shutdown_timeout)) {
            local.terminate();
            // A thread that goes on cannot be ended.
        }
    }
}

impl Home {
    /// Not on the pool's own thread, which would have to go on for that: false at once.
    fn wait_until_finished(&self, deadline: Option<Instant>) -> bool {
        !self.is_supervised_here() && self.drive_any(&|| self.state() == FINISHED, deadline)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut d = f.debug_struct("Pool");
        match &self.kind {
            Kind::Processes(owner) => {
                let home = &owner.0;
                d.field("name", &home.settings.name).field("workers", &lock(&home.crew).members.len());
                d.field("tasks", &home.open_tasks()).field("open", &(home.state() == OPEN))
            }
            Kind::Remote(client) => d.field("name", &client.address().name).field("elsewhere", &true),
            Kind::Local(local) => d.field("name", &local.0.settings().name).field("tasks", &local.0.open_tasks()),
        };
        d.finish()
    }
}

impl Serialize for Pool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.kind {
            Kind::Processes(owner) => owner.0.address().serialize(serializer),
            Kind::Remote(client) => client.address().serialize(serializer),
            Kind::Local(_) => Err(ser::Error::custom("a pool of threads stays in its process")),
        }
    }
}

impl<'de> Deserialize<'de> for Pool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pool, D::Error> {
        let client = Client::of(Address::deserialize(deserializer)?).map_err(de::Error::custom)?;
        Ok(Pool { kind: Kind::Remote(client) })
    }
}

/// A task that is to be submitted: as a message, and as a call in this process.
pub(crate) struct Call<A, F> {
    pub(crate) head: TaskHead,
    pub(crate) terms: Option<Box<Terms>>,
    pub(crate) args: A,
    pub(crate) here: F,
    /// How it has failed at its first attempt.
    failed: Option<TaskError>,
}

impl<A, F> Call<A, F> {
    /// With the pool's settings.
    pub(crate) fn new(head: TaskHead, args: A, here: F) -> Call<A, F> {
        Call { head, terms: None, args, here, failed: None }
    }

    pub(crate) fn terms(self, terms: Terms) -> Call<A, F> {
        Call { terms: Some(Box::new(terms)), ..self }
    }

    /// Not to be tried again.
    pub(crate) fn once(self) -> Call<A, F> {
        self.terms(Terms::default())
    }

    /// A call that has failed like this at its first attempt: it is tried again, if it may be.
    pub(crate) fn failed(self, why: TaskError) -> Call<A, F> {
        Call { failed: Some(why), ..self }
    }
}

impl Pool {
    pub(crate) fn of(home: Arc<Home>) -> Pool {
        Pool { kind: Kind::Processes(Arc::new(Owner(home))) }
    }

    pub(crate) fn of_local(local: Arc<Local>) -> Pool {
        Pool { kind: Kind::Local(Arc::new(LocalOwner(local))) }
    }

    /// The pool's own process, which this is.
    pub(crate) fn home(&self) -> Option<&Arc<Home>> {
        match &self.kind {
            Kind::Processes(owner) => Some(&owner.0),
            _ => None,
        }
    }

    /// What holds for tasks of which nothing else is said.
    pub(crate) fn usual_terms(&self) -> Terms {
        match &self.kind {
            Kind::Processes(owner) => owner.0.usual_terms().map(|terms| *terms).unwrap_or_default(),
            Kind::Remote(client) => client.address().usual.terms(),
            Kind::Local(local) => Terms { retry: local.0.settings().retry.clone(), ..Terms::default() },
        }
    }

    /// Whether one more task would be refused for want of room, as far as can be said without submitting it.
    pub(crate) fn would_refuse(&self) -> bool {
        let (settings, open) = match &self.kind {
            Kind::Processes(owner) => (&owner.0.settings, owner.0.open_tasks()),
            Kind::Remote(_) => return false,
            Kind::Local(local) => (local.0.settings(), local.0.open_tasks()),
        };
        settings.fails_when_full && settings.queue_bound.is_some_and(|bound| open >= bound)
    }

    pub(crate) fn is_local(&self) -> bool {
        matches!(self.kind, Kind::Local(_))
    }

    /// Whether what fails is tried again, if nothing else is said.
    pub(crate) fn tries_again(&self) -> bool {
        self.usual_terms().retry.is_some_and(|retry| retry.times > 0)
    }

    /// Keeps the workers, also of a pool that has been closed, as long as there may be tasks that follow from those that were taken.
    pub(crate) fn hold(&self) -> Option<Hold<'_>> {
        self.home().map(|home| Hold::new(home))
    }

    /// A bar for so many elements, if the pool shows any.
    pub(crate) fn bar(&self, total: Option<usize>) -> Bar {
        let wanted = match &self.kind {
            Kind::Processes(owner) => owner.0.settings.progress,
            Kind::Remote(_) => false,
            Kind::Local(local) => local.0.settings().progress,
        };
        Bar::new(wanted, total)
    }

    pub(crate) fn backend(&self) -> Arc<dyn Backend> {
        match &self.kind {
            Kind::Processes(owner) => owner.0.clone(),
            Kind::Remote(client) => client.clone(),
            Kind::Local(local) => local.0.clone(),
        }
    }

    /// Submits a call.
    pub(crate) fn start<A, R, F>(&self, call: Call<A, F>) -> Result<Task<R>, PoolError>
    where
        A: Message + Send,
        R: Message + Send,
        F: FnOnce(A) -> R + Clone + Send + 'static,
    {
        let Call { head, terms, args, here, failed } = call;
        let slot = Arc::new(Slot::<R>::new(self.backend()));
        let id = match &self.kind {
            Kind::Processes(owner) => {
                let terms = terms.or_else(|| owner.0.usual_terms());
                match failed {
                    None => owner.0.submit(slot.clone(), head, terms, &args)?,
                    Some(why) => owner.0.submit_failed(slot.clone(), head, terms, &args, why)?,
                }
            }
            Kind::Remote(client) => client.submit(slot.clone(), head, terms, &args, failed)?,
            Kind::Local(local) => {
                let retry = terms.map_or_else(|| local.0.settings().retry.clone(), |terms| terms.retry);
                local.0.submit(slot.clone(), retry, args, failed, here)?
            }
        };
        Ok(Task::new(slot, id))
    }

    /// A pool of so many workers.
    ///
    /// # Errors
    /// As [`PoolBuilder::build`].
    pub fn new(workers: usize) -> Result<Pool, PoolError> {
        Pool::builder().workers(workers).build()
    }

    /// Settings for a pool.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::new()
    }

    /// A pool that runs each call in its caller, at once and in order: for debuggers and tests. `MULTIPROC_INLINE=1` in the environment makes every pool such a one.
    ///
    /// # Errors
    /// As [`PoolBuilder::build`].
    ///
    /// # Examples
    /// ```
    /// let pool = multiproc::Pool::inline()?;
    /// let task = pool.submit((), std::process::id)?;
    /// assert!(task.is_done());
    /// assert_eq!(task.join()?, std::process::id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn inline() -> Result<Pool, PoolError> {
        Pool::builder().workers(1).inline().build()
    }

    /// Has a worker call `f(args..)`.
    ///
    /// `f` is any function, or a closure that captures nothing; `args` a tuple of up to 12 values. They are encoded at the call. Waits only at a
    /// [`queue_bound`](PoolBuilder::queue_bound).
    ///
    /// # Errors
    /// The pool is closed or broken, or full and [`fail_when_full`](PoolBuilder::fail_when_full); the arguments cannot be encoded; memory is used up.
    #[doc(alias = "apply_async")]
    pub fn submit<A: Args + Send, R: Message + Send>(&self, args: A, f: A::Fn<R>) -> Result<Task<R>, PoolError> {
        let head = Job::call::<A, R>(f)?.head();
        self.start(Call::new(head, args, move |args| A::call(f, args)))
    }

    /// As [`submit`](Pool::submit), with settings for this one task.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = multiproc::Pool::new(1)?;
    /// let late = pool.task().timeout(Duration::from_millis(50)).submit((), || -> () { loop { std::thread::park() } })?;
    /// assert!(late.join().unwrap_err().is_timeout());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn task(&self) -> TaskBuilder<'_> {
        TaskBuilder::new(self)
    }

    /// Has a worker call `f(args..)`, and waits for the value.
    ///
    /// # Errors
    /// As [`submit`](Pool::submit) and [`Task::join`].
    pub fn apply<A: Args + Send, R: Message + Send>(&self, args: A, f: A::Fn<R>) -> Result<R, TaskError> {
        self.submit(args, f)?.join()
    }

    /// How many workers the pool has, or will have when those are there that are being started. In another process: had when the handle was sent.
    pub fn workers(&self) -> usize {
        match &self.kind {
            Kind::Processes(owner) => owner.0.target.load(Ordering::SeqCst),
            Kind::Remote(client) => client.address().workers,
            Kind::Local(local) => local.0.settings().workers,
        }
    }

    /// The pids of the workers that are there; none in another process, and of a pool of threads.
    pub fn pids(&self) -> Vec<u32> {
        self.home().map(|home| lock(&home.crew).members.iter().filter_map(Member::pid).collect()).unwrap_or_default()
    }

    /// Waits until all workers have begun; false when time is up or the pool is closed. True at once for a pool of threads, and in another process than the one that made the pool.
    pub fn ready(&self, timeout: Duration) -> bool {
        let Some(home) = self.home() else { return true };
        let all = || {
            let crew = lock(&home.crew);
            // One that has died and is not buried yet was ready.
            let counts = |member: &&Member| member.is_ready && !member.leaving && member.pid().is_some() && !member.has_ended();
            crew.members.iter().filter(counts).count() >= home.target.load(Ordering::SeqCst)
        };
        home.drive_any(&|| all() || home.state() != OPEN, Instant::now().checked_add(timeout)) && all()
    }

    /// What the pool has done and is doing. `None` for a pool of threads, and in another process than the one that made the pool.
    ///
    /// # Examples
    /// ```
    /// let pool = multiproc::Pool::new(2)?;
    /// pool.map(0..100, |x: u32| x)?;
    /// let stats = pool.stats().unwrap();
    /// assert!(stats.done > 0 && stats.failed == 0 && stats.waiting == 0);
    /// assert!(stats.latency.p50 <= stats.latency.max);
    /// println!("{stats}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> Option<PoolStats> {
        self.home().map(|home| home.stats(now_nanos()))
    }

    /// Writes down what ran where and when, from now to the pool's end, for the viewers of Chrome (`chrome://tracing`) and Perfetto: one row for each worker, one slice for
    /// each task that has ended. A slice has the name that [`TaskBuilder::name`] gave. The file is complete when the pool has ended; one that cannot be written any more ends early.
    ///
    /// # Errors
    /// The file cannot be made; the pool is one of threads, or of another process.
    ///
    /// # Examples
    /// ```
    /// let file = std::env::temp_dir().join(format!("trace-{}.json", std::process::id()));
    /// let pool = multiproc::Pool::new(2)?;
    /// pool.trace(&file)?;
    /// pool.task().name("square").submit((3,), |x: u32| x * x)?.join()?;
    /// drop(pool);
    /// assert!(std::fs::read_to_string(&file)?.contains("\"square\""));
    /// # std::fs::remove_file(&file)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "trace")]
    pub fn trace(&self, file: impl AsRef<Path>) -> Result<(), PoolError> {
        let home = self.own_home()?;
        let trace = Trace::create(file.as_ref()).map_err(|e| {
            PoolError::because(PoolErrorKind::System, format!("the trace {} cannot be made", file.as_ref().display()), e)
        })?;
        *lock(&home.trace) = Some(trace);
        home.is_traced.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Sets how many workers there shall be. Those that are too many leave when they have finished their task.
    ///
    /// # Errors
    /// It is 0; the pool is one of threads, or of another process.
    pub fn resize(&self, workers: usize) -> Result<(), PoolError> {
        if workers == 0 {
            return Err(PoolError::new(PoolErrorKind::Invalid, "a pool has at least one worker"));
        }
        let home = self.own_home()?;
        home.target.store(workers, Ordering::SeqCst);
        let _ = home.bell.set();
        Ok(())
    }

    /// Has all workers that are there replaced, one at a time, each when it has finished its task. Does not wait for it. Threads are not replaced.
    ///
    /// # Errors
    /// The pool is one of another process.
    pub fn recycle(&self) -> Result<(), PoolError> {
        if !self.is_local() {
            let home = self.own_home()?;
            lock(&home.crew).recycle();
            let _ = home.bell.set();
        }
        Ok(())
    }

    fn own_home(&self) -> Result<&Arc<Home>, PoolError> {
        self.home()
            .ok_or_else(|| PoolError::new(PoolErrorKind::Invalid, "only the process that made a pool of processes does that"))
    }

    /// No more tasks are taken; those that were are finished. Then the workers leave. Does not wait for it: [`join`](Pool::join) does.
    ///
    /// In another process than the one that made the pool, this and the following do nothing: the pool is not this handle's.
    #[doc(alias = "shutdown")]
    pub fn close(&self) {
        match &self.kind {
            Kind::Processes(owner) => owner.0.advance(CLOSED),
            Kind::Remote(_) => {}
            Kind::Local(local) => local.0.close(),
        }
    }

    /// Waits until all tasks are finished and the workers have left, after [`close`](Pool::close) or [`terminate`](Pool::terminate).
    ///
    /// # Errors
    /// The pool has not been closed, so nothing would end the wait; or it is one of another process.
    pub fn join(&self) -> Result<(), PoolError> {
        let open = || PoolError::new(PoolErrorKind::Invalid, "a pool is closed before it is joined");
        match &self.kind {
            Kind::Processes(owner) if owner.0.state() == OPEN => return Err(open()),
            Kind::Local(local) if local.0.state() == OPEN => return Err(open()),
            Kind::Processes(owner) => _ = owner.0.wait_until_finished(None),
            Kind::Local(local) => _ = local.0.finish(None),
            Kind::Remote(_) => return Err(open()),
        }
        Ok(())
    }

    /// Cancels what has no outcome and ends the workers: by SIGTERM, and after the pool's [`grace`](PoolBuilder::grace) by SIGKILL. Returns when they are gone. A thread that
    /// runs a task is asked to stop, and is not waited for.
    #[doc(alias = "terminate_workers")]
    #[doc(alias = "kill_workers")]
    pub fn terminate(&self) {
        match &self.kind {
            Kind::Processes(owner) => {
                owner.0.advance(TERMINATED);
                owner.0.wait_until_finished(None);
            }
            Kind::Remote(_) => {}
            Kind::Local(local) => local.0.terminate(),
        }
    }
}

/// A [`Pool`] of threads: the same calls, and the same outcomes but for those that only a process can have.
///
/// Derefs to [`Pool`], and so travels wherever that is asked for. Arguments and values are moved, not encoded. What only a process can do does not exist: a task that
/// does not heed [`cancel`](Task::cancel) runs to its end, time-outs and limits of memory are not applied, and a task that kills its process kills the program. What panics is tried again as
/// [`retries`](PoolBuilder::retries) says; the pause before is spent in its thread. A task that waits for another one of its pool runs others meanwhile. The threads are rayon's.
///
/// # Python
/// `multiprocessing.pool.ThreadPool`, `concurrent.futures.ThreadPoolExecutor`.
///
/// # Examples
/// ```
/// use multiproc::ThreadPool;
///
/// let pool = ThreadPool::new(2)?;
/// assert_eq!(pool.map(0..5, |x: u64| x * x)?, [0, 1, 4, 9, 16]);
/// assert_eq!(pool.apply((), std::process::id)?, std::process::id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "ThreadPoolExecutor")]
pub struct ThreadPool(Pool);

impl ThreadPool {
    /// A pool of so many threads.
    ///
    /// # Errors
    /// As [`PoolBuilder::build`].
    pub fn new(threads: usize) -> Result<ThreadPool, PoolError> {
        Pool::builder().workers(threads).threads().build().map(ThreadPool)
    }
}

impl Deref for ThreadPool {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.0
    }
}
