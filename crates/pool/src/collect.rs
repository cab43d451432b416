//! Collecting what the workers tell: one thread at a time does it, for all.
//!
//! Whoever waits for a task leads, if nobody does: it takes what is told, gives each task its outcome, and goes on until its own has one. Then it
//! passes the lead on to one of those who wait meanwhile. So a lone `join` costs one wake, by the worker itself.

use crate::home::{Home, lock};
use crate::table::Ending;
use crate::wire::{self, Again, AnswerHead, Out, TaskId, Tell, TellHead};
use crate::{error::TaskError, panics::Panic};
use multiproc_channel::message;
use multiproc_channel::sealed::{Sealed, Within};
use multiproc_channel::{Bincode, Message};
use multiproc_shm::scope::References;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Who collects, and who waits to.
#[derive(Debug, Default)]
pub(crate) struct Lead {
    led: bool,
    waiting: Vec<Waiting>,
    /// What somebody has put among the things told, to know when it is come to.
    marks: Vec<u64>,
    next_mark: u64,
}

#[derive(Debug)]
struct Waiting {
    thread: Thread,
    /// It waits for something that any task may bring about, and looks after each.
    any: bool,
}

impl Lead {
    pub(crate) fn is_led(&self) -> bool {
        self.led
    }
}

/// The lead, passed on when it is dropped.
struct Leading<'a>(&'a Home);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        lock(&self.0.lead).led = false;
        self.0.pass_on();
    }
}

fn left(deadline: Option<Instant>) -> Option<Option<Duration>> {
    let Some(deadline) = deadline else { return Some(None) };
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero()).then_some(Some(left))
}

impl Home {
    /// Collects, or waits for who does, until `done`; false when the time has come first. Whatever makes `done` true unparks this thread.
    pub(crate) fn drive(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>) -> bool {
        self.drive_as(done, deadline, false)
    }

    /// As [`drive`](Home::drive), for what any task's outcome may bring about.
    pub(crate) fn drive_any(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>) -> bool {
        self.drive_as(done, deadline, true)
    }

    fn drive_as(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>, any: bool) -> bool {
        let mut enlisted = false;
        let answer = loop {
            if done() {
                break true;
            }
            let Some(time) = left(deadline) else { break false };
            let mut lead = lock(&self.lead);
            if lead.led {
                let me = thread::current();
                if !lead.waiting.iter().any(|waiting| waiting.thread.id() == me.id()) {
                    lead.waiting.push(Waiting { thread: me, any });
                    enlisted = true;
                    // `done` is to be asked again: what makes it true from now on unparks this thread.
                    continue;
                }
                drop(lead);
                match time {
                    Some(time) => thread::park_timeout(time),
                    None => thread::park(),
                }
                continue;
            }
            lead.led = true;
            drop(lead);
            let _leading = Leading(self);
            while !done() {
                let Some(time) = left(deadline) else { break };
                self.collect(wire::within(time));
            }
        };
        if enlisted {
            let me = thread::current().id();
            lock(&self.lead).waiting.retain(|waiting| waiting.thread.id() != me);
            // It may have been chosen to lead.
            self.pass_on();
        }
        answer
    }

    /// Takes the lead if nobody has it, and collects what is there.
    pub(crate) fn collect_if_alone(&self) {
        let mut lead = lock(&self.lead);
        if lead.led {
            return;
        }
        lead.led = true;
        drop(lead);
        let _leading = Leading(self);
        while self.collect(Within::Now) {}
    }

    fn pass_on(&self) {
        let lead = lock(&self.lead);
        if !lead.led {
            match lead.waiting.first() {
                Some(waiting) => waiting.thread.unpark(),
                None if self.interest.load(std::sync::atomic::Ordering::SeqCst) > 0 => _ = self.bell.set(),
                None => {}
            }
        }
    }

    /// Wakes those who wait for what any task may bring about.
    pub(crate) fn look_around(&self) {
        lock(&self.lead).waiting.iter().filter(|waiting| waiting.any).for_each(|waiting| waiting.thread.unpark());
    }

    /// Everything that was told before this call has been taken notice of when it returns.
    pub(crate) fn catch_up(&self) {
        let mark = {
            let mut lead = lock(&self.lead);
            lead.next_mark += 1;
            let mark = lead.next_mark;
            lead.marks.push(mark);
            mark
        };
        let out = Out(TellHead::new(Tell::Nothing, 0, mark, 0), &());
        while self.tell.try_put_ref(&out).is_err_and(|e| e.is_full() || e.is_would_block()) {
            self.collect_if_alone();
            thread::yield_now();
        }
        self.drive_any(&|| !lock(&self.lead).marks.contains(&mark), None);
    }

    /// Takes one thing that was told; false when nothing was.
    fn collect(&self, within: Within) -> bool {
        // An error is time that is up, or shared memory that refuses, of which everybody else tells.
        let Ok(sealed) = self.tells.get_sealed(within) else { return false };
        self.heed(&sealed);
        true
    }

    fn heed(&self, sealed: &Sealed) {
        let heeded = sealed.open(|bytes, references| {
            let (head, rest) = wire::split::<TellHead>(bytes)?;
            self.heed_told(head, rest, references)
        });
        if !matches!(heeded, Ok(Some(()))) {
            // Only a worker that writes where it may not: its end will be the task's.
        }
        self.look_around();
    }

    fn heed_told(&self, head: TellHead, rest: &[u8], references: &References) -> Option<()> {
        let words = |rest| decode::<String>(self, rest, references);
        match head.tell()? {
            Tell::Nothing => lock(&self.lead).marks.retain(|mark| *mark != head.id),
            Tell::Ready => self.has_begun(head.worker),
            Tell::Value => {
                let entry = lock(&self.table).remove(head.id)?;
                if !entry.cancelled {
                    entry.pending.end(Ending::Value(rest, references, head.number));
                }
            }
            Tell::Panicked => {
                let panic = decode::<Panic>(self, rest, references)?;
                self.fail(head.id, panic.into());
            }
            Tell::Unreadable => _ = self.fail(head.id, TaskError::Unreadable(words(rest)?)),
            Tell::Unsendable => _ = self.fail(head.id, TaskError::Unsendable(words(rest)?)),
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
            self.cancelled.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            return false;
        }
        // An attempt that has failed; or it lies, started, on the desk of another, who has died: that will be its outcome, or another attempt.
        entry.head.tries == tries && !crew.others(worker).any(|member| member.desk.running(id).is_some())
    }
}

fn decode<T: Message>(home: &Home, bytes: &[u8], references: &References) -> Option<T> {
    message::decode::<T, Bincode>(home.arena, bytes, references).ok()
}
