//! [`Pool`]: worker processes that run calls.

use crate::builder::{PoolBuilder, TaskBuilder};
use crate::crew::Member;
use crate::error::{PoolError, PoolErrorKind, TaskError};
use crate::home::{CLOSED, FINISHED, Home, OPEN, TERMINATED, lock};
use crate::job::Job;
use crate::task::{Slot, Task};
use multiproc_channel::Message;
use multiproc_process::Args;
use std::fmt;
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
    owner: Arc<Owner>,
}

/// What all handles share; dropped with the last.
struct Owner(Arc<Home>);

impl Drop for Owner {
    fn drop(&mut self) {
        let home = &self.0;
        home.advance(CLOSED);
        let in_time = Instant::now().checked_add(home.settings.shutdown_timeout);
        if !home.wait_until_finished(in_time) {
            home.advance(TERMINATED);
            home.wait_until_finished(None);
        }
        if let Some(thread) = lock(&home.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Home {
    fn wait_until_finished(&self, deadline: Option<Instant>) -> bool {
        self.drive_any(&|| self.state() == FINISHED, deadline)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let home = self.home();
        f.debug_struct("Pool")
            .field("name", &home.settings.name)
            .field("workers", &lock(&home.crew).members.len())
            .field("tasks", &home.open_tasks())
            .field("open", &(home.state() == OPEN))
            .finish()
    }
}

impl Pool {
    pub(crate) fn of(home: Arc<Home>) -> Pool {
        Pool { owner: Arc::new(Owner(home)) }
    }

    pub(crate) fn home(&self) -> &Arc<Home> {
        &self.owner.0
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

    /// Has a worker call `f(args..)`.
    ///
    /// `f` is any function, or a closure that captures nothing; `args` a tuple of up to 12 values. They are encoded at the call. Waits only at a
    /// [`queue_bound`](PoolBuilder::queue_bound).
    ///
    /// # Errors
    /// The pool is closed or broken, or full and [`fail_when_full`](PoolBuilder::fail_when_full); the arguments cannot be encoded; memory is used up.
    #[doc(alias = "apply_async")]
    pub fn submit<A: Args + Send, R: Message + Send>(&self, args: A, f: A::Fn<R>) -> Result<Task<R>, PoolError> {
        let home = self.home();
        let slot = Arc::new(Slot::<R>::new(home.clone()));
        let id = home.submit(slot.clone(), Job::call::<A, R>(f)?.head(), home.usual_terms(), &args)?;
        Ok(Task::new(slot, id))
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

    /// How many workers the pool has, or will have when those are there that are being started.
    pub fn workers(&self) -> usize {
        self.home().target.load(Ordering::SeqCst)
    }

    /// The pids of the workers that are there.
    pub fn pids(&self) -> Vec<u32> {
        lock(&self.home().crew).members.iter().filter_map(Member::pid).collect()
    }

    /// Waits until all workers have begun; false when time is up or the pool is closed.
    pub fn ready(&self, timeout: Duration) -> bool {
        let home = self.home();
        let all = || {
            let crew = lock(&home.crew);
            crew.members.iter().filter(|member| member.is_ready && !member.leaving).count() >= home.target.load(Ordering::SeqCst)
        };
        home.drive_any(&|| all() || home.state() != OPEN, Instant::now().checked_add(timeout)) && all()
    }

    /// Sets how many workers there shall be. Those that are too many leave when they have finished their task.
    ///
    /// # Errors
    /// It is 0.
    pub fn resize(&self, workers: usize) -> Result<(), PoolError> {
        if workers == 0 {
            return Err(PoolError::new(PoolErrorKind::Invalid, "a pool has at least one worker"));
        }
        self.home().target.store(workers, Ordering::SeqCst);
        let _ = self.home().bell.set();
        Ok(())
    }

    /// Has all workers that are there replaced, one at a time, each when it has finished its task. Does not wait for it.
    pub fn recycle(&self) {
        lock(&self.home().crew).recycle();
        let _ = self.home().bell.set();
    }

    /// No more tasks are taken; those that were are finished. Then the workers leave.
    #[doc(alias = "shutdown")]
    pub fn close(&self) {
        self.home().advance(CLOSED);
    }

    /// Waits until all tasks are finished and the workers have left, after [`close`](Pool::close) or [`terminate`](Pool::terminate).
    ///
    /// # Errors
    /// The pool has not been closed: nothing would end the wait.
    pub fn join(&self) -> Result<(), PoolError> {
        if self.home().state() == OPEN {
            return Err(PoolError::new(PoolErrorKind::Invalid, "a pool is closed before it is joined"));
        }
        self.home().wait_until_finished(None);
        Ok(())
    }

    /// Cancels what has no outcome and ends the workers: by SIGTERM, and after the pool's [`grace`](PoolBuilder::grace) by SIGKILL. Returns when they are gone.
    #[doc(alias = "terminate_workers")]
    #[doc(alias = "kill_workers")]
    pub fn terminate(&self) {
        self.home().advance(TERMINATED);
        self.home().wait_until_finished(None);
    }
}
