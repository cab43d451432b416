//! The worker processes: started, watched, replaced, sent home.
//!
//! There are always as many as were asked for while there is work: who dies by itself is named and replaced, and what
//! it held on lease comes back from the queue. Workers that die one after the other without any result in between
//! would be replaced for ever, so that ends in an error. Stands on [`worker`](crate::worker).

use std::error::Error;
use std::time::Duration;

use multiproc::{Process, Queue};

use crate::chunk::Chunk;
use crate::count::Counted;
use crate::worker::{self, Tools};

/// A chunk kills this many workers, then it is left out.
const DEATHS_PER_CHUNK: u32 = 3;

/// What ends the program.
pub(crate) type Fatal = Box<dyn Error + Send + Sync>;

/// One worker process.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) process: Process<()>,
}

/// All worker processes, and the queues they work on.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(crate) jobs: Queue<Chunk>,
    pub(crate) results: Queue<Counted>,
    pub(crate) workers: Vec<Worker>,
    max_attempts: u32,
    hired: usize,
    /// Deaths since the last progress.
    in_vain: usize,
}

impl Crew {
    /// Starts `size` workers.
    ///
    /// # Errors
    /// No memory, process or descriptor is left for the first of them. With fewer than asked for the work is done too.
    pub(crate) fn new(size: usize) -> Result<(Crew, Vec<String>), Fatal> {
        let (jobs, results) = (Queue::bounded(2 * size.min(1000))?, Queue::bounded(2 * size.min(1000))?);
        let max_attempts = DEATHS_PER_CHUNK;
        let mut crew = Crew { jobs, results, workers: Vec::new(), max_attempts, hired: 0, in_vain: 0 };
        let mut news = Vec::new();
        for _ in 0..size {
            match crew.hire() {
                Ok(worker) => crew.workers.push(worker),
                Err(e) if crew.workers.is_empty() => return Err(e),
                Err(e) => {
                    news.push(format!("{} of {size} workers could be started: {e}", crew.workers.len()));
                    break;
                }
            }
        }
        Ok((crew, news))
    }

    fn hire(&mut self) -> Result<Worker, Fatal> {
        self.hired += 1;
        let tools = Tools { jobs: self.jobs.receiver()?, results: self.results.sender()?, max_attempts: self.max_attempts };
        let name = format!("worker-{}", self.hired);
        Ok(Worker { process: Process::builder().name(name).spawn((tools,), worker::work)? })
    }

    /// Replaces the workers that have died, and says who they were.
    ///
    /// # Errors
    /// Nobody is left and nobody can be started, or worker after worker dies.
    pub(crate) fn look_after(&mut self) -> Result<Vec<String>, Fatal> {
        let mut news = Vec::new();
        let mut at = 0;
        while at < self.workers.len() {
            if self.workers[at].process.is_alive() {
                at += 1;
                continue;
            }
            let death = match self.workers.swap_remove(at).process.join() {
                Ok(()) => "a worker went home too early".into(),
                Err(e) => e.to_string(),
            };
            self.in_vain += 1;
            if self.in_vain > 4 * (self.workers.len() + 2) {
                return Err(format!("{death}; {} workers in a row died in vain", self.in_vain).into());
            }
            match self.hire() {
                Ok(worker) => self.workers.push(worker),
                Err(e) if self.workers.is_empty() => return Err(format!("{death}; no other could be started: {e}").into()),
                Err(e) => news.push(format!("no other worker could be started: {e}")),
            }
            news.push(format!("{death}; another one takes over"));
        }
        Ok(news)
    }

    /// A result has come.
    pub(crate) fn made_progress(&mut self) {
        self.in_vain = 0;
    }

    /// Lets the workers finish and waits for them; `drain` is called meanwhile, so that nobody waits for room.
    ///
    /// # Errors
    /// The queue refuses.
    pub(crate) fn send_home(&mut self, mut drain: impl FnMut()) -> Result<Vec<String>, Fatal> {
        self.jobs.close()?;
        let mut news = Vec::new();
        for mut worker in self.workers.drain(..) {
            loop {
                drain();
                match worker.process.join_timeout(Duration::from_millis(2)) {
                    Ok(None) => {}
                    Ok(Some(())) => break,
                    Err(e) => {
                        news.push(format!("{e}, after the work"));
                        break;
                    }
                }
            }
        }
        drain();
        Ok(news)
    }
}
