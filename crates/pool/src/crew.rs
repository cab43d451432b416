//! The workers of a pool, as the pool knows them: hired, asked to leave, killed, buried.

use crate::desk::Desk;
use crate::error::{PoolError, PoolErrorKind, TaskError};
use crate::home::{CLOSED, Home, Settings, TERMINATED, lock};
use crate::panics::Panic;
use crate::table::Ending;
use crate::wire::{Outbox, Packet, TaskId, Wire};
use crate::worker::{Left, Setup, work};
use multiproc_channel::Queue;
use multiproc_process::{Process, ProcessError, Signal};
use multiproc_sys::{memory, task};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// So many workers in a row that fail to begin are enough.
const FAILURES: u32 = 3;
/// So many that somebody kills before they have begun. More, since it may not be their own doing.
const KILLS: u32 = 50;
/// Of those, so many are replaced at once.
const KILLS_AT_ONCE: u32 = 4;
/// No pause before another start is longer.
const LONGEST_PAUSE: Duration = Duration::from_millis(160);
/// A process stops within this time, unless the kernel has it wait for a disk.
const STOPPING: Duration = Duration::from_millis(20);
/// What a worker is asked, it asks one thing at a time.
const ANSWERS: usize = 16;
/// Variables by which the usual libraries learn how many threads they may use.
const THREAD_VARIABLES: [&str; 6] = [
    "RAYON_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
];

/// Why the pool has killed a worker, and for which task.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    TimedOut(TaskId, Duration),
    MemoryLimit { used: u64, limit: u64 },
    Cancelled(TaskId),
}

pub(crate) struct Member {
    pub(crate) index: u32,
    /// `None` while it is being started: it may take a task, and ask, before its start has returned.
    pub(crate) process: Option<Arc<Process<Left>>>,
    pub(crate) desk: Desk,
    answers: Outbox,
    pub(crate) verdict: Option<Verdict>,
    /// It has been asked to leave, and does not count any more.
    pub(crate) leaving: bool,
    /// When an idle one that leaves is killed.
    pub(crate) leaves_by: Option<Instant>,
    pub(crate) is_ready: bool,
    /// Since when it is seen without a task.
    pub(crate) idle_since: Option<Instant>,
    /// When its last task was started, as of the last look.
    pub(crate) last_start: u64,
}

#[derive(Default)]
pub(crate) struct Crew {
    pub(crate) members: Vec<Member>,
    next_index: u32,
    /// Workers that have ended before they had begun, in a row.
    failures: u32,
    /// Workers that were killed before they had begun, in a row.
    kills: u32,
    /// Workers that could not go on.
    unable: u32,
    /// Workers before this one are to be replaced, one at a time.
    pub(crate) recycle_before: u32,
    /// OOM kills that were known when the last worker was buried.
    oom_kills: Option<u64>,
    /// Not earlier than this, after a start that has failed.
    pub(crate) next_start: Option<Instant>,
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew").field("members", &self.members.len()).finish_non_exhaustive()
    }
}

impl Crew {
    /// Workers that stay.
    pub(crate) fn staff(&self) -> usize {
        self.members.iter().filter(|member| !member.leaving).count()
    }

    pub(crate) fn others(&self, than: u32) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.index != than)
    }

    pub(crate) fn who_runs(&self, id: TaskId) -> Option<&Member> {
        self.members.iter().find(|member| member.desk.running(id).is_some())
    }

    /// From the next one hired on.
    pub(crate) fn recycle(&mut self) {
        self.recycle_before = self.next_index;
    }
}

impl Member {
    /// Asks it to leave: at once when it has no task, else after that.
    pub(crate) fn retire(&mut self) {
        self.leaving = true;
        self.desk.ask_to_leave();
        // A worker that has taken a task by now sees the word, and gives the task back.
        if self.desk.is_idle() {
            self.signal(Signal::TERM);
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.pid())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            // One that has ended needs none.
            let _ = process.signal(signal);
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.has_ended())
    }

    /// Sends `signal`, for a task that it runs. The process is stopped first: a task that has just ended by itself is not ended, nor is the next one.
    pub(crate) fn end_task(&mut self, id: TaskId, verdict: Verdict, signal: Signal) {
        let Some(pid) = self.pid() else { return };
        self.signal(Signal::STOP);
        // Where /proc does not tell, the signal has most likely arrived.
        let moves = |state| !matches!(state, 'T' | 't' | 'Z' | 'X');
        let since = Instant::now();
        while since.elapsed() < STOPPING && task::state(pid).is_some_and(moves) {
            thread::yield_now();
        }
        if self.desk.running(id).is_some() {
            self.verdict = Some(verdict);
            self.signal(signal);
        }
        self.signal(Signal::CONT);
    }

    pub(crate) fn kill(&mut self, verdict: Verdict) {
        self.verdict = Some(verdict);
        self.signal(Signal::KILL);
    }
}

impl Home {
    /// Starts one more worker.
    pub(crate) fn hire(&self) -> Result<(), PoolError> {
        let Settings { name, first, max_tasks_per_worker, threads_per_worker, cpus, env, .. } = &self.settings;
        let index = {
            let mut crew = lock(&self.crew);
            crew.next_index += 1;
            crew.oom_kills = crew.oom_kills.or_else(memory::oom_kills);
            crew.next_index - 1
        };
        let answers = Queue::<Packet, Wire>::builder().capacity(ANSWERS).build()?;
        let desk = Desk::new()?;
        let cpus = match cpus.len() {
            0 => Vec::new(),
            n => vec![cpus[index as usize % n]],
        };
        let setup = Setup {
            index,
            desk: desk.clone(),
            tasks: self.tasks.receiver()?,
            tells: self.tell.clone(),
            answers: answers.receiver()?,
            bell: self.bell.clone(),
            cancelled: self.cancelled.clone(),
            first: first.clone(),
            max_tasks: *max_tasks_per_worker,
            cpus,
        };
        let mut builder = Process::builder().name(format!("{name}-{index}")).daemon(true);
        if let Some(threads) = threads_per_worker {
            builder = THREAD_VARIABLES.iter().fold(builder, |builder, variable| builder.env(variable, threads.to_string()));
        }
        let builder = env.iter().fold(builder, |builder, (key, value)| builder.env(key, value));
        let member = Member {
            index,
            process: None,
            desk,
            answers: answers.sender()?,
            verdict: None,
            leaving: false,
            leaves_by: None,
            is_ready: false,
            idle_since: None,
            last_start: 0,
        };
        lock(&self.crew).members.push(member);
        // The initializer's arguments are the user's code to encode.
        let spawned = catch_unwind(AssertUnwindSafe(|| builder.spawn((setup,), work)));
        let mut crew = lock(&self.crew);
        let at = crew.members.iter().position(|member| member.index == index);
        match (spawned, at) {
            (Ok(Ok(process)), Some(at)) => crew.members[at].process = Some(Arc::new(process)),
            (Ok(Err(e)), Some(at)) => {
                crew.members.remove(at);
                return Err(e.into());
            }
            (Err(panic), Some(at)) => {
                crew.members.remove(at);
                let text = format!("the initializer's arguments cannot be encoded: {}", Panic::taken(&*panic).message);
                return Err(PoolError::new(PoolErrorKind::Codec, text));
            }
            _ => {}
        }
        drop(crew);
        // It may have begun before its pid was known here: `ready` looks at both.
        self.nudge();
        self.look_around();
        Ok(())
    }

    /// Ends all workers at once.
    pub(crate) fn dismiss_all(&self) {
        for member in &lock(&self.crew).members {
            member.signal(Signal::KILL);
        }
    }

    pub(crate) fn signal_all(&self, signal: Signal) {
        for member in &lock(&self.crew).members {
            member.signal(signal);
        }
    }

    /// A worker has begun.
    pub(crate) fn has_begun(&self, worker: u32) {
        let mut crew = lock(&self.crew);
        (crew.failures, crew.kills) = (0, 0);
        if let Some(member) = crew.members.iter_mut().find(|member| member.index == worker) {
            member.is_ready = true;
        }
        // The next may be recycled.
        let _ = self.bell.set();
    }

    /// How a worker is answered.
    pub(crate) fn answers_of(&self, worker: u32) -> Option<Outbox> {
        lock(&self.crew).members.iter().find(|member| member.index == worker).map(|member| member.answers.clone())
    }

    /// Settles what a worker that has ended leaves behind.
    pub(crate) fn bury(&self, index: u32) {
        // What it has told is true, whatever lies on its desk.
        self.catch_up();
        let mut crew = lock(&self.crew);
        let Some(at) = crew.members.iter().position(|member| member.index == index) else { return };
        let kills = memory::oom_kills();
        let killed_for_memory = kills > crew.oom_kills;
        crew.oom_kills = kills.or(crew.oom_kills);
        // Tasks that it had started; those that it had only taken are delivered again.
        let member = &crew.members[at];
        let started: Vec<(TaskId, u64)> = {
            let mut table = lock(&self.table);
            let told = |id, since| table.get(id).is_some_and(|entry| entry.was_told(index, since));
            let mut levels: Vec<_> = member.desk.levels().filter(|level| level.is_started()).collect();
            levels.retain({
                let mut told = told;
                move |level| !told(level.task(), level.since())
            });
            levels.iter().map(|level| (level.task(), level.since())).collect()
        };
        let pid = member.pid().unwrap_or(0);
        let (verdict, began) = (member.verdict.clone(), member.desk.is_ready());
        let ended_by_us = member.leaving || verdict.is_some() || self.state() >= TERMINATED;
        drop(crew);
        let (cause, unable) = self.how_it_ended(index);
        let cause = Arc::new(cause);
        let out_of_memory =
            killed_for_memory && verdict.is_none() && matches!(*cause, ProcessError::Signaled { signal: Signal::KILL, .. });
        for (id, since) in started {
            let why = match &verdict {
                Some(Verdict::TimedOut(task, after)) if *task == id => TaskError::TimedOut { after: *after },
                Some(Verdict::MemoryLimit { used, limit }) => TaskError::MemoryLimit { used: *used, limit: *limit },
                Some(Verdict::Cancelled(task)) if *task == id => TaskError::Cancelled,
                _ => {
                    TaskError::WorkerDied { pid, cause: cause.clone(), started: true, out_of_memory, attempts: self.attempts(id) }
                }
            };
            self.fail_begun(id, why, index, since);
        }
        // Whoever collects waits for what workers tell, and nobody tells this.
        self.nudge();
        self.look_around();
        // Only now: until here, whoever is delivered one of these tasks again is told to leave it.
        let mut crew = lock(&self.crew);
        crew.members.retain(|member| member.index != index);
        drop(crew);
        self.forget_worker(index);
        let mut crew = lock(&self.crew);
        if let Some(why) = unable {
            crew.unable += 1;
            if crew.unable >= FAILURES {
                drop(crew);
                self.give_up(PoolError::new(PoolErrorKind::Broken, format!("the pool's tasks cannot be taken: {why}")));
            }
            return;
        }
        if began || ended_by_us {
            return;
        }
        // Killed from outside perhaps: that says little of whether the next can begin.
        let was_killed = matches!(*cause, ProcessError::Signaled { signal: Signal::KILL | Signal::TERM, .. }) && !out_of_memory;
        let steps = if was_killed {
            crew.kills += 1;
            crew.kills.checked_sub(KILLS_AT_ONCE)
        } else {
            crew.failures += 1;
            Some(crew.failures)
        };
        if let Some(steps) = steps {
            crew.next_start = Some(Instant::now() + Duration::from_millis(10 << steps.min(4)).min(LONGEST_PAUSE));
        }
        if crew.failures >= FAILURES || crew.kills >= KILLS {
            let text = format!("the pool's workers cannot begin: {cause}");
            drop(crew);
            self.give_up(PoolError::new(PoolErrorKind::Broken, text));
        }
    }

    /// And whether it could not go on: shared memory gave it no tasks.
    fn how_it_ended(&self, index: u32) -> (ProcessError, Option<String>) {
        let mut crew = lock(&self.crew);
        let member = crew.members.iter_mut().find(|member| member.index == index);
        // The pool's thread has the only other handle, while it sleeps.
        let joined = member.and_then(|member| Arc::get_mut(member.process.as_mut()?)).map(Process::try_join);
        drop(crew);
        match joined {
            Some(Err(e)) => (e, None),
            // It left of its own accord.
            left => {
                let unable = match left {
                    Some(Ok(Some(Left::Unable(why)))) => Some(why),
                    _ => None,
                };
                (ProcessError::AlreadyJoined { name: format!("{}-{index}", self.settings.name) }, unable)
            }
        }
    }

    /// No worker can be started: nothing more comes of any task.
    pub(crate) fn give_up(&self, why: PoolError) {
        lock(&self.broken).get_or_insert(why.clone());
        self.advance(CLOSED);
        self.end_all(&|| TaskError::Refused(why.clone()));
    }

    /// Ends all tasks that have no outcome.
    pub(crate) fn end_all(&self, why: &dyn Fn() -> TaskError) {
        let all = lock(&self.table).drain();
        self.cancelled.store(0, Ordering::SeqCst);
        for entry in all {
            self.has_ended(&entry, false);
            entry.pending.end(Ending::Failed(why()));
        }
        self.nudge();
        self.look_around();
    }
}
