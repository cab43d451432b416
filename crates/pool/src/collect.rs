//! Collecting what the workers tell: each task gets its outcome, each question its answer. Stands on [`crate::lead`].

use crate::backend::Backend;
use crate::crew::Member;
use crate::error::{PoolError, PoolErrorKind, TaskError};
use crate::home::{CLOSED, Home, lock};
use crate::lead::Collector;
use crate::panics::Panic;
use crate::table::{Claim, Ending};
#[cfg(feature = "trace")]
use crate::trace::Ran;
use crate::wire::{self, Again, AnswerHead, AskedHead, Out, Outbox, TaskId, Tell, TellHead};
use multiproc_channel::message;
use multiproc_channel::sealed::{Sealed, Within};
use multiproc_channel::{Bincode, GetError, Message};
use multiproc_shm::Error;
use multiproc_shm::scope::References;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// Who waits for a pool that cannot hear its workers looks again this often; it is about to end.
const PAUSE: Duration = Duration::from_millis(1);
/// See [`Home::catch_up`].
pub(crate) const CATCH_UP: Duration = Duration::from_secs(2);

/// Numbers of messages go round here.
const ROUND: u32 = 1 << 24;

impl Backend for Home {
    fn drive(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>, task: Option<TaskId>) -> bool {
        if !self.is_ours() {
            return done();
        }
        self.lead.drive(self, done, deadline, task.is_none())
    }

    fn collect(&self) {
        self.collect_if_alone();
    }

    fn take_interest(&self) {
        if self.interest.fetch_add(1, Ordering::SeqCst) == 0 {
            let _ = self.bell.set();
        }
    }

    fn lose_interest(&self) {
        self.interest.fetch_sub(1, Ordering::SeqCst);
    }

    fn stop(&self, id: TaskId, gently: bool) {
        if self.is_ours() {
            self.stop_task(id, gently);
        }
    }

    fn is_running(&self, id: TaskId) -> bool {
        lock(&self.crew).who_runs(id).is_some()
    }

    fn progress(&self, id: TaskId) -> Option<f64> {
        let crew = lock(&self.crew);
        let level = crew.who_runs(id)?.desk.running(id)?;
        Some(level.progress())
    }
}

impl Collector for Home {
    fn collect(&self, within: Within) -> bool {
        if !self.is_ours() {
            return false;
        }
        let got = match self.tells.get_sealed_unless(within, || self.nudged.load(Ordering::SeqCst)) {
            Err(GetError::Shared(e @ Error::Corrupted(_))) => {
                // Nothing that is told can be heard any more, and who waits is not to go round in the meantime.
                self.give_up(PoolError::new(PoolErrorKind::Broken, format!("the pool cannot hear its workers: {e}")));
                thread::park_timeout(PAUSE);
                return false;
            }
            // Or time that is up, or shared memory that refuses for now, of which everybody else tells.
            got => got,
        };
        // Before whoever collects looks around.
        self.nudged.store(false, Ordering::SeqCst);
        // A value that nobody waits for is dropped here, and a waker called: code of the user's, whose panic is no matter of this thread's.
        let heeded = got.is_ok_and(|sealed| {
            let _ = catch_unwind(AssertUnwindSafe(|| self.heed(&sealed)));
            true
        });
        // Nobody else gets anything there. Release pairs with the Acquire in `catch_up`.
        let before = self.heeded.swap(self.tells.got_so_far(), Ordering::Release);
        if heeded || before != self.heeded.load(Ordering::Relaxed) {
            self.look_around();
        }
        heeded
    }

    fn nobody_leads(&self, called: bool) {
        if called || self.interest.load(Ordering::SeqCst) > 0 {
            let _ = self.bell.set();
        }
    }
}

impl Home {
    /// Collects, or waits for who does, until something that any task's outcome may bring about.
    pub(crate) fn drive_any(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>) -> bool {
        if !self.is_ours() {
            return done();
        }
        self.lead.drive(self, done, deadline, true)
    }

    /// Takes the lead if nobody has it, and collects what is there.
    pub(crate) fn collect_if_alone(&self) {
        self.lead.collect_if_alone(self);
    }

    /// Wakes those who wait for what any task may bring about.
    pub(crate) fn look_around(&self) {
        self.admit();
        self.lead.look_around();
        // The last outcome of a pool that has been closed: its workers shall leave.
        if self.state() == CLOSED && !self.has_work() {
            let _ = self.bell.set();
        }
    }

    /// Everything that was told before this call has been taken notice of when it returns. It waits for no worker: one that has been stopped in the middle of telling something
    /// has not told it. Nor for long where a process has written over the queue.
    pub(crate) fn catch_up(&self) {
        let told = self.tells.put_so_far();
        // Of numbers that go round, far less than half can lie between the two.
        let is_behind = || told.wrapping_sub(self.heeded.load(Ordering::Acquire)) & (ROUND - 1);
        self.drive_any(&|| is_behind() == 0 || is_behind() > ROUND / 2, Instant::now().checked_add(CATCH_UP));
    }

    fn heed(&self, sealed: &Sealed) {
        // What cannot be read is of a worker that writes where it may not: its end will be the task's.
        let _ = sealed.open(|bytes, references| {
            let (head, rest) = wire::split::<TellHead>(bytes)?;
            self.heed_told(head, rest, references)
        });
    }

    fn heed_told(&self, head: TellHead, rest: &[u8], references: &References) -> Option<()> {
        let words = |rest| decode::<String>(self, rest, references);
        #[cfg(feature = "trace")]
        if let Some(outcome) = head.tell().and_then(Tell::outcome) {
            self.record(head.id, Ran { name: "task", worker: head.worker, since: head.since, ran: head.number, outcome });
        }
        match head.tell()? {
            Tell::Nothing | Tell::Failed | Tell::Claimed | Tell::Taken => {}
            Tell::Ready => self.has_begun(head.worker),
            Tell::Value => {
                let entry = lock(&self.table).remove(head.id)?;
                if entry.cancelled {
                    // It had ended by itself.
                    self.cancelled.fetch_sub(1, Ordering::SeqCst);
                } else {
                    self.has_ended(&entry, true);
                    entry.pending.end(Ending::Value(rest, references, head.number));
                }
            }
            Tell::Panicked => {
                let panic = decode::<Panic>(self, rest, references)?;
                self.fail_told(head.worker, head.since, head.id, panic.into());
            }
            Tell::Unreadable => self.fail_told(head.worker, head.since, head.id, TaskError::Unreadable(words(rest)?)),
            Tell::Unsendable => self.fail_told(head.worker, head.since, head.id, TaskError::Unsendable(words(rest)?)),
            Tell::Ask => {
                let yes = self.may_run(head.worker, head.id, head.number);
                let _ = self.answers_of(head.worker)?.put_ref(&Out(AnswerHead { id: head.id, yes: u64::from(yes) }, &()));
            }
            Tell::Context => {
                let answers = self.answers_of(head.worker)?;
                let context = self.context(head.id);
                let (bytes, references) = context.as_ref().map_or((&[][..], Vec::new()), |c| (&c.bytes, c.references.clone()));
                let yes = u64::from(context.is_some());
                let _ = answers.put_ref(&Again(AnswerHead { id: head.id, yes }, bytes, &references));
            }
            Tell::Client => self.heed_client(head.worker, decode::<Outbox>(self, rest, references)?),
            Tell::Submit => {
                let (task, rest) = wire::split::<AskedHead>(rest)?;
                self.heed_submitted(head, task, rest, references);
            }
            Tell::Stop => self.stop_remote(head.worker, head.id, head.number == 1),
            Tell::Claim => self.heed_claim(head.worker, head.id),
            Tell::Decide => self.decide_claim(head.worker, head.id, head.number),
            Tell::Blocked => self.heed_blocked(head.worker, head.number as u32),
            Tell::Unblocked => self.heed_unblocked(head.worker),
        }
        Some(())
    }

    /// Whether `worker` shall run a task that it has found in the queue, and that was given out before, or may have been cancelled.
    fn may_run(&self, worker: u32, id: TaskId, tries: u64) -> bool {
        let crew = lock(&self.crew);
        let mut table = lock(&self.table);
        let Some(entry) = table.get(id) else { return false };
        if entry.cancelled {
            table.remove(id);
            self.cancelled.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        if entry.claim != Claim::None && entry.head.tries == 0 {
            entry.claim = Claim::Met;
            return false;
        }
        // An attempt that has failed; or it lies, started, on the desk of another, who has died: that will be its outcome, or another attempt.
        let dies = |member: &Member| member.desk.running(id).is_some_and(|level| !entry.was_told(member.index, level.since()));
        entry.head.tries == tries && !crew.others(worker).any(dies)
    }
}

fn decode<T: Message>(home: &Home, bytes: &[u8], references: &References) -> Option<T> {
    message::decode::<T, Bincode>(home.arena, bytes, references).ok()
}
