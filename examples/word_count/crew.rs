//! The worker processes: started, watched, replaced, sent home.
//!
//! There are always as many as were asked for while there is work: who dies by itself is named and replaced, and what
//! it held on lease comes back from the queue. Workers that die one after the other without any result in between
//! would be replaced for ever, so that ends in an error. Stands on [`worker`](crate::worker).

use std::fs;
use std::thread;
use std::time::Duration;

use multiproc::{Process, Queue, Signal};

use crate::board::{Board, Fatal, SharedStage};
use crate::chunk::Chunk;
use crate::worker::{self, Answer, Tools};

/// A chunk may kill this many workers, then it is left out.
const DEATHS_PER_CHUNK: u32 = 3;
/// More than this many jobs need not wait.
const MOST_JOBS: usize = 4000;

/// One worker process.
#[derive(Debug)]
pub(crate) struct Worker {
    process: Process<()>,
    /// Where it is.
    pub(crate) stage: SharedStage,
}

impl Worker {
    /// Stops it, and waits until it stands still; false when it has ended.
    pub(crate) fn stop(&self) -> bool {
        let stat = format!("/proc/{}/stat", self.process.pid());
        let state = || fs::read_to_string(&stat).ok()?.rsplit_once(") ")?.1.chars().next();
        if self.process.signal(Signal::STOP).is_err() {
            return false;
        }
        loop {
            match state() {
                Some('T' | 't') => return true,
                None | Some('Z' | 'X') => return false,
                Some(_) => thread::yield_now(),
            }
        }
    }

    /// Lets a stopped one go on.
    pub(crate) fn go_on(&self) {
        // Fails when it has ended, which is seen elsewhere.
        let _ = self.process.signal(Signal::CONT);
    }
}

/// All worker processes, and the queues they work on.
#[derive(Debug)]
pub(crate) struct Crew {
    jobs: Queue<Chunk>,
    results: Queue<Answer>,
    pub(crate) workers: Vec<Worker>,
    board: Board,
    /// How many there shall be.
    size: usize,
    max_attempts: u32,
    hired: u64,
    /// Deaths since the last progress.
    in_vain: usize,
    news: Vec<String>,
}

impl Crew {
    /// Starts `size` workers, of which about `kills` are going to be killed.
    ///
    /// # Errors
    /// No memory, process or descriptor is left for the first of them. With fewer than asked for the work is done too.
    pub(crate) fn new(size: usize, kills: u32, board: Board) -> Result<Crew, Fatal> {
        let room = size.saturating_mul(2).min(MOST_JOBS);
        let mut crew = Crew {
            jobs: Queue::bounded(room)?,
            results: Queue::bounded(room)?,
            workers: Vec::new(),
            board,
            size,
            max_attempts: DEATHS_PER_CHUNK.saturating_add(kills),
            hired: 0,
            in_vain: 0,
            news: Vec::new(),
        };
        crew.fill_up()?;
        Ok(crew)
    }

    /// Starts as many workers as are missing, or does with fewer.
    fn fill_up(&mut self) -> Result<(), Fatal> {
        while self.workers.len() < self.size {
            match self.hire() {
                Ok(worker) => self.workers.push(worker),
                Err(e) if self.workers.is_empty() => return Err(format!("no worker could be started: {e}").into()),
                Err(e) => {
                    self.size = self.workers.len();
                    self.news.push(format!("going on with {} of the workers: {e}", self.size));
                }
            }
        }
        Ok(())
    }

    fn hire(&mut self) -> Result<Worker, Fatal> {
        self.hired += 1;
        let stage = SharedStage::new()?;
        let tools = Tools {
            jobs: self.jobs.receiver()?,
            results: self.results.sender()?,
            board: self.board.clone(),
            stage: stage.clone(),
            max_attempts: self.max_attempts,
        };
        let process = Process::builder().name(format!("worker-{}", self.hired)).spawn((tools,), worker::work)?;
        Ok(Worker { process, stage })
    }

    /// Replaces the workers that have died by themselves.
    ///
    /// # Errors
    /// Nobody is left and nobody can be started, or worker after worker dies.
    pub(crate) fn look_after(&mut self) -> Result<(), Fatal> {
        for worker in self.workers.extract_if(.., |worker| !worker.process.is_alive()) {
            let death = worker.process.join().map_or_else(|e| e.to_string(), |()| "a worker went home too early".into());
            self.news.push(format!("{death}; another one takes over"));
            self.in_vain += 1;
        }
        if self.in_vain > 4 * (self.size + 2) {
            return Err(format!("giving up: {} workers in a row died before they had counted anything", self.in_vain).into());
        }
        self.fill_up()
    }

    /// Kills the worker `at` and replaces it; false when it had died otherwise.
    pub(crate) fn kill(&mut self, at: usize) -> bool {
        let victim = self.workers.swap_remove(at).process;
        // Fails when it has ended, which is told by its status.
        let _ = victim.kill();
        let killed = matches!(victim.join(), Err(multiproc::ProcessError::Signaled { signal: Signal::KILL, .. }));
        // Otherwise the next look finds one missing, and why.
        if let Ok(worker) = self.hire() {
            self.workers.push(worker);
        }
        killed
    }

    /// What the workers take their jobs from, and where they put their results.
    pub(crate) fn queues(&self) -> (Queue<Chunk>, Queue<Answer>) {
        (self.jobs.clone(), self.results.clone())
    }

    /// A result has come.
    pub(crate) fn made_progress(&mut self) {
        self.in_vain = 0;
    }

    /// What has happened since the last call.
    pub(crate) fn take_news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    /// Lets the workers finish and waits for them; `drain` is called meanwhile, so that nobody waits for room.
    ///
    /// # Errors
    /// The queue refuses.
    pub(crate) fn send_home(&mut self, mut drain: impl FnMut()) -> Result<(), Fatal> {
        self.jobs.close()?;
        for mut worker in self.workers.drain(..) {
            loop {
                drain();
                match worker.process.join_timeout(Duration::from_millis(2)) {
                    Ok(None) => {}
                    Ok(Some(())) => break,
                    Err(e) => {
                        self.news.push(format!("{e}, after the work"));
                        break;
                    }
                }
            }
        }
        drain();
        Ok(())
    }
}
