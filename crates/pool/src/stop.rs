//! Cancelling a task: out of the queue, or off a worker's desk.

use crate::TaskError;
use crate::crew::Verdict;
use crate::home::{Home, lock};
use crate::supervise::{Next, later};
use crate::table::{Ending, Pending};
use crate::wire::TaskId;
use multiproc_process::Signal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A task that was asked to stop.
#[derive(Debug)]
pub(crate) struct Stop {
    id: TaskId,
    /// When its worker is told more plainly.
    at: Instant,
    /// SIGTERM has been sent.
    told: bool,
}

impl Home {
    /// Asks a task to stop. One that waits has its outcome at once, and never runs.
    pub(crate) fn stop_task(&self, id: TaskId, gently: bool) {
        if !self.withdraw(id, TaskError::Cancelled) {
            let crew = lock(&self.crew);
            let Some(level) = crew.who_runs(id).and_then(|member| member.desk.running(id)) else { return };
            level.ask_to_stop(id);
            // However it ends, that is how the task does.
            if let Some(terms) = lock(&self.table).get(id).and_then(|entry| entry.terms.as_mut()) {
                terms.retry = None;
            }
            drop(crew);
            if !gently {
                lock(&self.stops).push(Stop { id, at: later(Instant::now(), self.settings.grace), told: false });
                let _ = self.bell.set();
            }
        }
    }

    /// Gives a task that waits this outcome, so that it never runs; false when it runs, or has run.
    pub(crate) fn withdraw(&self, id: TaskId, why: TaskError) -> bool {
        let Some(pending) = self.take_back(id) else { return false };
        self.failed.fetch_add(1, Ordering::Relaxed);
        pending.end(Ending::Failed(why));
        self.nudge();
        self.look_around();
        true
    }

    /// Takes a task that waits out of the queue, so that it never runs there; `None` when it runs, or has run.
    fn take_back(&self, id: TaskId) -> Option<Arc<dyn Pending>> {
        // Between two attempts it lies in no queue, and no worker will meet it.
        if self.take_from_later(id) {
            return lock(&self.table).remove(id).map(|entry| entry.pending);
        }
        let crew = lock(&self.crew);
        // Counted first: a worker says on its desk that it starts the task, and then looks at the count.
        self.cancelled.fetch_add(1, Ordering::SeqCst);
        if crew.who_runs(id).is_some() {
            self.cancelled.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        let pending = lock(&self.table).cancel(id);
        drop(crew);
        let Some(pending) = pending else {
            self.cancelled.fetch_sub(1, Ordering::SeqCst);
            return None;
        };
        // Its attempt has failed meanwhile.
        if self.take_from_later(id) && lock(&self.table).remove(id).is_some() {
            self.cancelled.fetch_sub(1, Ordering::SeqCst);
        }
        Some(pending)
    }

    /// Whether a task was between two attempts, of which there is no further then.
    fn take_from_later(&self, id: TaskId) -> bool {
        let mut later = lock(&self.later);
        let at = later.iter().position(|(_, waiting)| *waiting == id);
        at.is_some_and(|at| {
            later.swap_remove(at);
            true
        })
    }

    /// Tells workers more plainly whose task was asked to stop and goes on.
    pub(crate) fn watch_stops(&self, next: &mut Next) {
        let now = Instant::now();
        let mut crew = lock(&self.crew);
        lock(&self.stops).retain_mut(|stop| {
            let Some(member) = crew.members.iter_mut().find(|member| member.desk.running(stop.id).is_some()) else {
                return false;
            };
            if stop.at <= now {
                if stop.told {
                    member.end_task(stop.id, Verdict::Cancelled(stop.id), Signal::KILL);
                    return false;
                }
                member.end_task(stop.id, Verdict::Cancelled(stop.id), Signal::TERM);
                (stop.told, stop.at) = (true, later(now, self.settings.grace));
            }
            next.at(stop.at);
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;
    use multiproc_process::Args;
    use std::panic::resume_unwind;
    use std::time::Duration;

    fn storm<R: multiproc_channel::Message + Send>(pool: &Pool, f: <() as Args>::Fn<R>) {
        for n in 0..1500 {
            let task = pool.submit((), f).unwrap();
            (0..n % 100 * 20).for_each(|_| std::hint::spin_loop());
            pool.backend().stop(task.id, true);
        }
    }

    /// A task that ends by itself while it is being cancelled counts no longer, and leaves nothing.
    #[test]
    fn the_count_of_what_is_cancelled_goes_down() {
        for retries in [0, 1] {
            let pool = Pool::builder().workers(1).retries(retries).build().unwrap();
            storm(&pool, || 1u32);
            storm(&pool, || -> u32 { resume_unwind(Box::new(5)) });
            let home = pool.home().unwrap();
            let by = Instant::now() + Duration::from_secs(30);
            while home.cancelled.get() > 0 || !lock(&home.table).is_bare() {
                assert!(Instant::now() < by, "{} cancelled", home.cancelled.get());
                pool.apply((), || ()).unwrap();
            }
        }
    }
}
