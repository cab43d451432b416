//! The workers, from start to end: who is killed is replaced, and what it held comes again from the queue of blocks.

use crate::work::Digest;
use crate::worker::{Answer, Desk, Stage, work};
use multiproc::{GetError, Process, ProcessError, Queue, Signal};
use std::collections::HashMap;
use std::error::Error;
use std::fmt;

/// What ends the program.
pub(crate) type Fatal = Box<dyn Error>;

/// Blocks that lie ready.
const READY: usize = 32;
/// Answers that may wait. More than workers can send in a tick.
const ANSWERS: usize = 4096;

/// What has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) killed: u32,
    /// Blocks that came again, counted each time.
    pub(crate) redelivered: u64,
    /// What a queue had to give up, and blocks without a digest at the end.
    pub(crate) lost: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { killed, redelivered, lost } = self;
        write!(f, "killed {killed}, redelivered {redelivered}, lost {lost}")
    }
}

/// One worker process, and its desk.
#[derive(Debug)]
struct Worker {
    process: Process<()>,
    desk: Desk,
    /// Somebody has been sent to kill it.
    doomed: bool,
}

/// All of them, and what they have done.
#[derive(Debug)]
pub(crate) struct Crew {
    blocks: Queue<u64>,
    answers: Queue<Answer>,
    workers: Vec<Worker>,
    kib: u32,
    digests: Vec<Option<Digest>>,
    done: usize,
    /// Of each block that came again, its last delivery.
    attempts: HashMap<u64, u32>,
    tally: Tally,
}

impl Crew {
    /// So many workers, for blocks of so many KiB.
    pub(crate) fn new(size: usize, kib: u32) -> Result<Crew, Fatal> {
        let (blocks, answers) = (Queue::bounded(READY)?, Queue::bounded(ANSWERS)?);
        let (digests, attempts) = (Vec::new(), HashMap::new());
        let mut crew = Crew { blocks, answers, workers: Vec::new(), kib, digests, done: 0, attempts, tally: Tally::default() };
        for _ in 0..size {
            let worker = crew.hire()?;
            crew.workers.push(worker);
        }
        Ok(crew)
    }

    fn hire(&self) -> Result<Worker, Fatal> {
        let desk = Desk::new()?;
        let args = (self.blocks.receiver()?, self.answers.sender()?, desk.clone(), self.kib);
        Ok(Worker { process: Process::spawn(args, work)?, desk, doomed: false })
    }

    /// Puts the next blocks, up to `limit` in all, as far as there is room.
    pub(crate) fn give_out(&mut self, limit: u64) -> Result<(), Fatal> {
        while self.given() < limit {
            match self.blocks.try_put(self.given()) {
                Ok(()) => self.digests.push(None),
                Err(e) if e.is_full() || e.is_would_block() => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// How many blocks have been given out.
    pub(crate) fn given(&self) -> u64 {
        self.digests.len() as u64
    }

    /// How many of them have been hashed.
    pub(crate) fn done(&self) -> usize {
        self.done
    }

    /// Whether each block that was given out has its digest.
    pub(crate) fn is_done(&self) -> bool {
        self.done == self.digests.len()
    }

    /// Takes what the workers have sent.
    pub(crate) fn collect(&mut self) -> Result<(), Fatal> {
        while let Some(Answer { block, attempt, digest }) = next(&self.answers)? {
            let slot = self.digests.get_mut(usize::try_from(block)?).ok_or("a block that nobody gave out")?;
            // Who is killed between sending and acknowledging has its block hashed again, and counted once.
            self.done += usize::from(slot.replace(digest).is_none());
            if attempt > 1 {
                let last = self.attempts.entry(block).or_insert(1);
                self.tally.redelivered += u64::from(attempt.saturating_sub(*last));
                *last = attempt.max(*last);
            }
        }
        self.tally.lost += u64::from(self.blocks.take_losses()) + u64::from(self.answers.take_losses());
        Ok(())
    }

    /// `kill -9` of the worker `at`, whatever it is doing; false when there is none, or it is dying already.
    pub(crate) fn kill(&mut self, at: usize) -> bool {
        match self.workers.get_mut(at) {
            // Fails when it has just ended, which `replace_the_dead` sees.
            Some(worker) if !worker.doomed => {
                worker.doomed = worker.process.kill().is_ok();
                worker.doomed
            }
            _ => false,
        }
    }

    /// Starts another one for each that has ended.
    pub(crate) fn replace_the_dead(&mut self) -> Result<(), Fatal> {
        for at in 0..self.workers.len() {
            if self.workers[at].process.is_alive() {
                continue;
            }
            let another = self.hire()?;
            match std::mem::replace(&mut self.workers[at], another).process.join() {
                Err(ProcessError::Signaled { signal: Signal::KILL, .. }) => self.tally.killed += 1,
                Err(e) => return Err(e.into()),
                Ok(()) => return Err("a worker went home too early".into()),
            }
        }
        Ok(())
    }

    /// Of each worker its pid, and where it is.
    pub(crate) fn stages(&self) -> impl Iterator<Item = (u32, Stage)> {
        self.workers.iter().map(|worker| (worker.process.pid(), worker.desk.get()))
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Sends all home. Returns the digests, and what happened.
    pub(crate) fn dismiss(mut self) -> Result<(Vec<Option<Digest>>, Tally), Fatal> {
        self.blocks.close()?;
        for worker in self.workers.drain(..) {
            match worker.process.join() {
                Ok(()) => {}
                Err(ProcessError::Signaled { signal: Signal::KILL, .. }) => self.tally.killed += 1,
                Err(e) => return Err(e.into()),
            }
        }
        self.collect()?;
        self.tally.lost += (self.digests.len() - self.done) as u64;
        Ok((self.digests, self.tally))
    }
}

/// What lies in a queue, if anything does.
fn next(answers: &Queue<Answer>) -> Result<Option<Answer>, Fatal> {
    match answers.try_get() {
        Ok(answer) => Ok(Some(answer)),
        Err(GetError::Empty | GetError::WouldBlock) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
