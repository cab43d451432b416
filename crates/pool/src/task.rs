//! [`Task`]: a call that a pool has been given, and its outcome when it has one.

use crate::backend::Backend;
use crate::callbacks::{self, Call};
use crate::error::{PoolError, TaskError};
use crate::home::lock;
use crate::panics::Panic;
use crate::table::{Ending, Pending};
use crate::wire::TaskId;
use multiproc_channel::{Bincode, Message, message};
use multiproc_shm::Arena;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Where a task's outcome arrives.
pub(crate) struct Slot<R> {
    backend: Arc<dyn Backend>,
    done: AtomicBool,
    /// Without a value. Relaxed: written before `done`.
    failed: AtomicBool,
    state: Mutex<State<R>>,
}

struct State<R> {
    outcome: Option<Result<R, TaskError>>,
    /// How long the function ran, in ns.
    ran: u64,
    threads: Vec<Thread>,
    waker: Option<Waker>,
    /// Called with it, without waiting for anybody.
    listener: Option<Box<dyn Listener<R>>>,
}

/// Told when a task has its outcome.
pub(crate) trait Listener<R>: Send {
    /// May take the outcome; what is to be called for it, when no lock is held.
    fn ended(&mut self, outcome: &mut Option<Result<R, TaskError>>) -> Option<Call>;
}

impl<R> Slot<R> {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Slot<R> {
        let state = State { outcome: None, ran: 0, threads: Vec::new(), waker: None, listener: None };
        Slot { backend, done: AtomicBool::new(false), failed: AtomicBool::new(false), state: Mutex::new(state) }
    }

    pub(crate) fn settle(&self, outcome: Result<R, TaskError>, ran: u64) {
        let mut state = lock(&self.state);
        state.outcome = Some(outcome);
        state.ran = ran;
        let (threads, waker, listener) = (std::mem::take(&mut state.threads), state.waker.take(), state.listener.take());
        self.failed.store(state.outcome.as_ref().is_some_and(Result::is_err), Ordering::Relaxed);
        let call = listener.and_then(|mut listener| listener.ended(&mut state.outcome));
        // Release pairs with the Acquire in `is_done`.
        self.done.store(true, Ordering::Release);
        drop(state);
        if let Some(call) = call {
            callbacks::call(call);
        }
        threads.iter().for_each(Thread::unpark);
        if let Some(waker) = waker {
            // Code of the user's, on whichever thread collects.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}

impl<R: Message + Send> Pending for Slot<R> {
    fn end(&self, how: Ending<'_>) {
        match how {
            Ending::Failed(why) => self.settle(Err(why), 0),
            Ending::Value(bytes, references, ran) => {
                let decoded = catch_unwind(AssertUnwindSafe(|| -> Result<R, String> {
                    let arena = Arena::of_the_tree().map_err(|e| e.to_string())?;
                    message::decode::<R, Bincode>(arena, bytes, references).map_err(|e| e.to_string())
                }));
                let value = match decoded {
                    Ok(Ok(value)) => Ok(value),
                    Ok(Err(why)) => Err(TaskError::Undecodable(why)),
                    Err(panic) => Err(TaskError::Undecodable(Panic::taken(&*panic).message)),
                };
                self.settle(value, ran);
            }
        }
    }
}

/// A call that runs in a pool, or will, or did: what [`Pool::submit`](crate::Pool::submit) returns.
///
/// It has exactly one outcome, whatever happens: the value, or a [`TaskError`] that says why there is none. Also a [`Future`], which any executor can
/// poll; polled after its end it gives [`TaskError::AlreadyJoined`]. Dropping it detaches the call, which goes on; [`cancel`](Task::cancel) ends it.
///
/// # Crash safety
/// The death of its worker is an outcome, or another attempt. In another process than the one that made the pool, so is the end of that one: [`TaskError::Refused`].
///
/// # Python
/// `concurrent.futures.Future`, and `AsyncResult`.
#[must_use = "dropping the handle discards the value; the task goes on"]
#[doc(alias = "Future")]
#[doc(alias = "AsyncResult")]
pub struct Task<R> {
    pub(crate) slot: Arc<Slot<R>>,
    pub(crate) id: TaskId,
    /// The pool's thread collects for it.
    wanted: bool,
}

impl<R> fmt::Debug for Task<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("id", &self.id).field("done", &self.is_done()).field("running", &self.is_running()).finish()
    }
}

impl<R> Task<R> {
    pub(crate) fn new(slot: Arc<Slot<R>>, id: TaskId) -> Task<R> {
        Task { slot, id, wanted: false }
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.slot.backend
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.slot.done.load(Ordering::Acquire)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.is_settled() && self.slot.failed.load(Ordering::Relaxed)
    }

    /// Has this thread unparked when the task has its outcome.
    pub(crate) fn wake_here(&self) {
        let me = thread::current();
        let mut state = lock(&self.slot.state);
        if !state.threads.iter().any(|thread| thread.id() == me.id()) {
            state.threads.push(me);
        }
    }

    fn wait_until(&self, deadline: Option<Instant>) -> bool {
        let done = || self.is_settled();
        if done() {
            return true;
        }
        self.wake_here();
        self.backend().drive(&done, deadline, Some(self.id))
    }

    /// Waits for the outcome and leaves it.
    pub(crate) fn finish(&self) {
        self.wait_until(None);
    }

    pub(crate) fn take(&mut self) -> Result<R, TaskError> {
        lock(&self.slot.state).outcome.take().unwrap_or(Err(TaskError::AlreadyJoined))
    }

    /// How long the function ran; zero before the end, and where no worker tells.
    pub(crate) fn ran(&self) -> Duration {
        Duration::from_nanos(lock(&self.slot.state).ran)
    }

    /// Waits for the outcome, as long as it takes. In a task of the same pool: runs others meanwhile.
    ///
    /// # Errors
    /// Why there is no value: see [`TaskError`].
    #[doc(alias = "result")]
    #[doc(alias = "exception")]
    #[doc(alias = "get")]
    pub fn join(mut self) -> Result<R, TaskError> {
        if !self.wait_until(None) {
            // Nothing else ends a wait without a limit.
            return Err(PoolError::of_the_parent().into());
        }
        self.take()
    }

    /// As [`join`](Task::join), at most for `timeout`; `Ok(None)` when time is up. The outcome is given out once.
    ///
    /// # Errors
    /// As [`join`](Task::join); [`TaskError::AlreadyJoined`] when the outcome has been given out.
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<Option<R>, TaskError> {
        if self.wait_until(Instant::now().checked_add(timeout)) { self.take().map(Some) } else { Ok(None) }
    }

    /// As [`join_timeout`](Task::join_timeout), at most until `deadline`.
    ///
    /// # Errors
    /// As [`join_timeout`](Task::join_timeout).
    pub fn join_deadline(&mut self, deadline: Instant) -> Result<Option<R>, TaskError> {
        if self.wait_until(Some(deadline)) { self.take().map(Some) } else { Ok(None) }
    }

    /// As [`join_timeout`](Task::join_timeout) without waiting.
    ///
    /// # Errors
    /// As [`join_timeout`](Task::join_timeout).
    pub fn try_join(&mut self) -> Result<Option<R>, TaskError> {
        if self.is_done() { self.take().map(Some) } else { Ok(None) }
    }

    /// Whether it has its outcome, so that [`join`](Task::join) would not wait. Looks at what workers have told; does not block.
    #[doc(alias = "done")]
    #[doc(alias = "ready")]
    pub fn is_done(&self) -> bool {
        let done = || self.is_settled();
        if !done() {
            self.backend().collect();
        }
        done()
    }

    /// Waits until it has its outcome, and leaves it where it is; false when time is up.
    #[doc(alias = "wait")]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    /// Whether a worker runs it at this moment. Always false in another process than the one that made the pool.
    #[doc(alias = "running")]
    pub fn is_running(&self) -> bool {
        !self.slot.done.load(Ordering::Acquire) && self.backend().is_running(self.id)
    }

    /// What the task has last said of its progress by [`CurrentTask::set_progress`](crate::CurrentTask::set_progress); `None` while it does not run, and
    /// in another process than the one that made the pool.
    pub fn progress(&self) -> Option<f64> {
        // A worker that has told the outcome clears its desk a moment later.
        if self.is_settled() { None } else { self.backend().progress(self.id) }
    }

    /// Ends the task.
    ///
    /// One that waits is taken out and never runs. One that runs is asked first: [`CurrentTask::is_cancelled`](crate::CurrentTask::is_cancelled) says so to it;
    /// after the pool's [`grace`](crate::PoolBuilder::grace) its worker gets SIGTERM, after another SIGKILL, and is replaced. A task that returns in time has its
    /// value; otherwise its outcome is [`TaskError::Cancelled`]. Does not wait for it.
    pub fn cancel(&self) {
        if !self.is_done() {
            self.backend().stop(self.id, false);
        }
    }
}

impl<R: Send + 'static> Task<R> {
    /// Has `f` called with the outcome, on a thread that all callbacks of this process share; they are called in the order in which their tasks end. A callback that
    /// panics harms nobody.
    ///
    /// # Examples
    /// ```
    /// use std::sync::mpsc;
    ///
    /// let pool = multiproc::Pool::new(1)?;
    /// let (to, from) = mpsc::channel();
    /// pool.submit((20,), |x: u64| x * 2 + 2)?.on_done(move |outcome| to.send(outcome).unwrap());
    /// assert_eq!(from.recv()??, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "add_done_callback")]
    #[doc(alias = "callback")]
    #[doc(alias = "error_callback")]
    pub fn on_done(self, f: impl FnOnce(Result<R, TaskError>) + Send + 'static) {
        let backend = self.backend().clone();
        backend.take_interest();
        self.listen(Callback { f: Some(f), backend });
    }

    pub(crate) fn listen(&self, mut listener: impl Listener<R> + 'static) {
        let mut state = lock(&self.slot.state);
        let call = if !self.slot.done.load(Ordering::Acquire) {
            state.listener = Some(Box::new(listener));
            None
        } else if state.outcome.is_some() {
            listener.ended(&mut state.outcome)
        } else {
            listener.ended(&mut Some(Err(TaskError::AlreadyJoined)))
        };
        drop(state);
        if let Some(call) = call {
            callbacks::call(call);
        }
    }
}

struct Callback<F> {
    f: Option<F>,
    backend: Arc<dyn Backend>,
}

impl<R: Send + 'static, F: FnOnce(Result<R, TaskError>) + Send + 'static> Listener<R> for Callback<F> {
    fn ended(&mut self, outcome: &mut Option<Result<R, TaskError>>) -> Option<Call> {
        self.backend.lose_interest();
        let (f, outcome) = (self.f.take()?, outcome.take()?);
        Some(Box::new(move || f(outcome)))
    }
}

impl<R> Task<R> {
    fn want(&mut self) {
        if !self.wanted {
            self.wanted = true;
            self.backend().take_interest();
        }
    }
}

impl<R> Drop for Task<R> {
    fn drop(&mut self) {
        if self.wanted {
            self.backend().lose_interest();
        }
    }
}

impl<R> Future for Task<R> {
    type Output = Result<R, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.is_done() {
            return Poll::Ready(this.take());
        }
        // The user's code, like that of the one before, which is dropped: outside of the lock.
        let waker = context.waker().clone();
        let before = lock(&this.slot.state).waker.replace(waker);
        drop(before);
        this.want();
        // It may have ended before the waker was there.
        if this.slot.done.load(Ordering::Acquire) { Poll::Ready(this.take()) } else { Poll::Pending }
    }
}

impl<R> Unpin for Task<R> {}
