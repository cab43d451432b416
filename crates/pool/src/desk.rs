//! A worker's desk: the words by which its pool knows what it is doing, also when it has died.
//!
//! | word | meaning | who writes | if the writer dies there |
//! |---|---|---|---|
//! | `state` | 0: begins; 1: its initializer is done | the worker | a worker that dies at 0 has failed to start |
//! | `leave` | 1: the worker shall take no further task | the pool | the pool's end is the worker's |
//! | `depth` | how many tasks lie on the desk: one, and those it runs while that one waits for others | the worker | a hint |
//! | `tasks`, `busy` | how many tasks the worker has run, and for how many ns | the worker | figures for people |
//! | `id` of a level | 0: nothing; a task that has been taken; with [`RUNNING`](crate::wire::RUNNING), one that has been started | the worker | the pool reads what was on the desk: what was started has died with it, what was taken is delivered again |
//! | `since` of a level | when that task was started, on the monotonic clock in ns | the worker | as `id` |
//! | `stop` of a level | the id of a task that is asked to stop | the pool | nothing |
//! | `progress` of a level | what the task says of itself | the worker | nothing |
//!
//! `id` and `leave` are a Dekker pair, as are `id` and the pool's count of cancelled tasks: each side stores its own word, then reads the other's, all SeqCst.

use crate::wire::{RUNNING, TaskId};
use multiproc_shm::Error;
use multiproc_sync::words::{LEN, Words};
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

const STATE: usize = 0;
const LEAVE: usize = 1;
const DEPTH: usize = 2;
const TASKS: usize = 3;
const BUSY: usize = 4;
const LEVELS: usize = 12;
const WORDS_OF_LEVEL: usize = 4;

/// Tasks that may lie on a desk, one on top of another.
pub(crate) const MAX_DEPTH: usize = (LEN - LEVELS) / WORDS_OF_LEVEL;

/// The words of one worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Desk(Words);

/// The words of one task on a desk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level<'a> {
    id: &'a AtomicU64,
    since: &'a AtomicU64,
    stop: &'a AtomicU64,
    progress: &'a AtomicU64,
}

impl Desk {
    pub(crate) fn new() -> Result<Desk, Error> {
        Words::new().map(Desk)
    }

    /// The worker has begun.
    pub(crate) fn is_ready(&self) -> bool {
        self.0[STATE].load(SeqCst) == 1
    }

    pub(crate) fn set_ready(&self) {
        self.0[STATE].store(1, SeqCst);
    }

    pub(crate) fn shall_leave(&self) -> bool {
        self.0[LEAVE].load(SeqCst) == 1
    }

    pub(crate) fn ask_to_leave(&self) {
        self.0[LEAVE].store(1, SeqCst);
    }

    pub(crate) fn depth(&self) -> usize {
        self.0[DEPTH].load(SeqCst) as usize
    }

    pub(crate) fn set_depth(&self, depth: usize) {
        self.0[DEPTH].store(depth as u64, SeqCst);
    }

    /// One more task has been run, for so many nanoseconds.
    pub(crate) fn count(&self, nanos: u64) {
        // Relaxed, and not read-modify-write: one thread writes them, for figures.
        self.0[TASKS].store(self.0[TASKS].load(Relaxed) + 1, Relaxed);
        self.0[BUSY].store(self.0[BUSY].load(Relaxed) + nanos, Relaxed);
    }

    /// Tasks that the worker has run, and for how many nanoseconds.
    pub(crate) fn done(&self) -> (u64, u64) {
        (self.0[TASKS].load(Relaxed), self.0[BUSY].load(Relaxed))
    }

    /// The level `depth`, which is less than [`MAX_DEPTH`].
    pub(crate) fn level(&self, depth: usize) -> Level<'_> {
        let at = LEVELS + WORDS_OF_LEVEL * depth;
        let words = &self.0[..];
        Level { id: &words[at], since: &words[at + 1], stop: &words[at + 2], progress: &words[at + 3] }
    }

    /// All tasks on the desk, the oldest first.
    pub(crate) fn levels(&self) -> impl Iterator<Item = Level<'_>> {
        (0..MAX_DEPTH).map(|depth| self.level(depth)).filter(|level| level.task() != 0)
    }

    /// The level of a task that has been started.
    pub(crate) fn running(&self, id: TaskId) -> Option<Level<'_>> {
        self.levels().find(|level| level.id.load(SeqCst) == id | RUNNING)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.levels().next().is_none()
    }
}

impl Level<'_> {
    /// The task there; 0 for none.
    pub(crate) fn task(&self) -> TaskId {
        self.id.load(SeqCst) & !RUNNING
    }

    pub(crate) fn is_started(&self) -> bool {
        self.id.load(SeqCst) & RUNNING != 0
    }

    /// When it was started.
    pub(crate) fn since(&self) -> u64 {
        self.since.load(Relaxed)
    }

    /// A task has been taken.
    pub(crate) fn take(&self, id: TaskId) {
        self.id.store(id, SeqCst);
    }

    /// It is being started.
    pub(crate) fn start(&self, id: TaskId, now: u64) {
        // Relaxed: before the id, by the same thread; who reads them together reads the id first.
        self.since.store(now, Relaxed);
        self.progress.store(0, Relaxed);
        self.id.store(id | RUNNING, SeqCst);
    }

    /// It has ended, or was given back.
    pub(crate) fn clear(&self) {
        self.id.store(0, SeqCst);
    }

    pub(crate) fn ask_to_stop(&self, id: TaskId) {
        self.stop.store(id, SeqCst);
    }

    pub(crate) fn shall_stop(&self) -> bool {
        // Relaxed: a flag that nothing else hangs on.
        let stop = self.stop.load(Relaxed);
        stop != 0 && stop == self.task()
    }

    pub(crate) fn progress(&self) -> f64 {
        f64::from_bits(self.progress.load(Relaxed))
    }

    pub(crate) fn set_progress(&self, progress: f64) {
        self.progress.store(progress.to_bits(), Relaxed);
    }
}
