//! The task that is being run, seen from inside.

use crate::desk::Level;
use crate::local::{self, Open};
use crate::worker;
use std::sync::Arc;

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
    let desk = worker::this_process()?.desk();
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
