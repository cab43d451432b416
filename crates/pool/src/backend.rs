//! What a [`Task`](crate::Task) needs of the pool that has it: three kinds of pool give it in their own way.

use crate::wire::TaskId;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How often a thread that runs tasks of one pool looks whether one of another has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Where a task runs.
pub(crate) trait Backend: Send + Sync {
    /// Does what is to be done for tasks to end, or waits while others do, until `done`; false when the time has come first. Whatever makes `done` true unparks this
    /// thread. Without a `task` that is the outcome of any.
    fn drive(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>, task: Option<TaskId>) -> bool;

    /// Takes notice of what has been told, without waiting.
    fn collect(&self);

    /// Sees to it that outcomes arrive while nobody waits, until as often taken back.
    fn take_interest(&self);

    /// See [`take_interest`](Backend::take_interest).
    fn lose_interest(&self);

    /// Asks a task to stop; a worker that goes on is ended, unless `gently`.
    fn stop(&self, id: TaskId, gently: bool);

    /// Whether this thread runs the tasks of that pool, so that it may have to run what it waits for.
    fn runs_here(&self) -> bool {
        false
    }

    fn is_running(&self, id: TaskId) -> bool;

    fn progress(&self, id: TaskId) -> Option<f64>;
}

/// Drives all of them at once, as far as that is possible.
pub(crate) fn drive_all(mut backends: Vec<Arc<dyn Backend>>, done: &dyn Fn() -> bool, deadline: Option<Instant>) -> bool {
    distinct(&mut backends);
    match &backends[..] {
        [] => done(),
        [backend] => backend.drive(done, deadline, None),
        // Nobody can lead in two pools: their own threads collect.
        several => {
            let (own, others): (Vec<_>, Vec<_>) = several.iter().partition(|backend| backend.runs_here());
            let _interest = others.iter().map(|backend| Interest::new(&***backend)).collect::<Vec<_>>();
            match own.first() {
                None => park_until(done, deadline),
                // It must not only wait. What the others tell unparks this thread, which may sleep elsewhere.
                Some(own) => loop {
                    let look = Instant::now() + LOOK;
                    let until = deadline.map_or(look, |deadline| deadline.min(look));
                    if own.drive(done, Some(until), None) {
                        break true;
                    }
                    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        break false;
                    }
                },
            }
        }
    }
}

pub(crate) fn distinct(backends: &mut Vec<Arc<dyn Backend>>) {
    backends.sort_by_key(|backend| Arc::as_ptr(backend).cast::<()>());
    backends.dedup_by_key(|backend| Arc::as_ptr(backend).cast::<()>());
}

/// Sleeps until `done`; whatever makes it true unparks this thread.
pub(crate) fn park_until(done: &dyn Fn() -> bool, deadline: Option<Instant>) -> bool {
    loop {
        if done() {
            return true;
        }
        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            None => thread::park(),
            Some(Duration::ZERO) => return false,
            Some(left) => thread::park_timeout(left),
        }
    }
}

/// Interest that is lost when it is dropped.
pub(crate) struct Interest<'a>(&'a dyn Backend);

impl<'a> Interest<'a> {
    pub(crate) fn new(backend: &'a dyn Backend) -> Interest<'a> {
        backend.take_interest();
        Interest(backend)
    }
}

impl Drop for Interest<'_> {
    fn drop(&mut self) {
        self.0.lose_interest();
    }
}
