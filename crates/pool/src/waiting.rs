//! Waiting for several tasks: [`wait_tasks`] and [`as_completed`].

use crate::backend::{Backend, distinct, drive_all};
use crate::callbacks::Call;
use crate::error::TaskError;
use crate::home::lock;
use crate::task::{Listener, Task};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// What [`wait_tasks`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "return_when")]
pub enum ReturnWhen {
    /// Any task has its outcome.
    FirstCompleted,
    /// Any task has failed, or all have their outcome.
    #[doc(alias = "FIRST_EXCEPTION")]
    FirstError,
    /// All have their outcome.
    #[doc(alias = "ALL_COMPLETED")]
    All,
}

/// Waits until some of `tasks` have their outcome, at most for `timeout`; the positions of those that have, in order. Outcomes stay where they are.
///
/// Tasks may be of different pools. `None` waits for ever; an empty slice is not waited for.
///
/// # Python
/// `concurrent.futures.wait`.
///
/// # Examples
/// ```
/// use multiproc::{Pool, ReturnWhen, wait_tasks};
/// use std::time::Duration;
///
/// let pool = Pool::new(2)?;
/// let tasks = [200u64, 0].map(|ms| pool.submit((ms,), |ms| std::thread::sleep(Duration::from_millis(ms))).unwrap());
/// assert_eq!(wait_tasks(&tasks, ReturnWhen::FirstCompleted, None), [1]);
/// assert_eq!(wait_tasks(&tasks, ReturnWhen::All, Some(Duration::from_secs(60))), [0, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait_tasks<R>(tasks: &[Task<R>], when: ReturnWhen, timeout: Option<Duration>) -> Vec<usize> {
    let deadline = timeout.map(|timeout| Instant::now().checked_add(timeout));
    // Tasks before this one are done.
    let mut first = 0;
    let enough = Mutex::new(move |tasks: &[Task<R>]| {
        while tasks.get(first).is_some_and(|task| task.is_settled()) {
            first += 1;
        }
        let rest = &tasks[first..];
        rest.is_empty()
            || match when {
                ReturnWhen::All => false,
                ReturnWhen::FirstCompleted => first > 0 || rest.iter().any(|task| task.is_settled()),
                ReturnWhen::FirstError => tasks.iter().any(|task| task.has_failed()),
            }
    });
    tasks.iter().for_each(Task::wake_here);
    let backends: Vec<_> = tasks.iter().map(|task| task.backend().clone()).collect();
    drive_all(backends, &|| lock(&enough)(tasks), deadline.flatten());
    tasks.iter().enumerate().filter(|(_, task)| task.is_settled()).map(|(at, _)| at).collect()
}

/// The outcomes of `tasks` as they come, each with the position of its task.
///
/// Tasks may be of different pools. Dropping the iterator detaches those that are left.
///
/// # Python
/// `concurrent.futures.as_completed`.
///
/// # Examples
/// ```
/// use multiproc::{Pool, as_completed};
/// use std::time::Duration;
///
/// let pool = Pool::new(2)?;
/// let tasks = [100u64, 0].map(|ms| {
///     pool.submit((ms,), |ms| { std::thread::sleep(Duration::from_millis(ms)); ms }).unwrap()
/// });
/// let order: Vec<_> = as_completed(tasks).map(|(at, outcome)| (at, outcome.unwrap())).collect();
/// assert_eq!(order, [(1, 0), (0, 100)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn as_completed<R: Send + 'static>(tasks: impl IntoIterator<Item = Task<R>>) -> AsCompleted<R> {
    let tasks: Vec<_> = tasks.into_iter().map(Some).collect();
    let mut backends: Vec<_> = tasks.iter().flatten().map(|task| task.backend().clone()).collect();
    distinct(&mut backends);
    let ended = Arc::new(Ended::default());
    for (at, task) in tasks.iter().enumerate() {
        task.iter().for_each(|task| task.listen(Place(at, ended.clone())));
    }
    AsCompleted { left: tasks.len(), tasks, backends, ended }
}

/// Places of what has ended, in order, and who waits for the next.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    list: Mutex<VecDeque<usize>>,
    waiting: Mutex<Option<Thread>>,
}

impl Ended {
    pub(crate) fn take(&self) -> Option<usize> {
        lock(&self.list).pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.list).is_empty()
    }
}

/// Enters its place into the list of what has ended.
pub(crate) struct Place(pub(crate) usize, pub(crate) Arc<Ended>);

impl<R> Listener<R> for Place {
    fn ended(&mut self, _: &mut Option<Result<R, TaskError>>) -> Option<Call> {
        lock(&self.1.list).push_back(self.0);
        if let Some(thread) = &*lock(&self.1.waiting) {
            thread.unpark();
        }
        None
    }
}

/// Outcomes as they come: see [`as_completed`].
#[must_use = "an iterator does nothing until it is asked"]
pub struct AsCompleted<R> {
    tasks: Vec<Option<Task<R>>>,
    backends: Vec<Arc<dyn Backend>>,
    ended: Arc<Ended>,
    left: usize,
}

impl<R> fmt::Debug for AsCompleted<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted").field("left", &self.left).finish_non_exhaustive()
    }
}

impl<R> AsCompleted<R> {
    /// As `next`, at most for `timeout`: `None` when time is up, or nothing is left.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<(usize, Result<R, TaskError>)> {
        self.next_until(Instant::now().checked_add(timeout))
    }

    /// Outcomes that have not been given out.
    pub fn remaining(&self) -> usize {
        self.left
    }

    fn next_until(&mut self, deadline: Option<Instant>) -> Option<(usize, Result<R, TaskError>)> {
        if self.left == 0 {
            return None;
        }
        *lock(&self.ended.waiting) = Some(thread::current());
        if !drive_all(self.backends.clone(), &|| !self.ended.is_empty(), deadline) {
            return None;
        }
        let at = self.ended.take()?;
        self.left -= 1;
        self.tasks[at].take().map(|mut task| (at, task.take()))
    }
}

impl<R> Iterator for AsCompleted<R> {
    type Item = (usize, Result<R, TaskError>);

    fn next(&mut self) -> Option<(usize, Result<R, TaskError>)> {
        self.next_until(None)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}
