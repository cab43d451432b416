//! Our worker that has nothing to do: it waits in `get`.

use multiproc::{Process, Queue, Receiver};
use std::error::Error;

/// A worker that waits until this is dropped.
pub(crate) struct Idle {
    jobs: Queue<u64>,
    worker: Option<Process<()>>,
}

impl Idle {
    pub(crate) fn start() -> Result<Idle, Box<dyn Error>> {
        let jobs = Queue::bounded(16)?;
        let worker = Process::spawn((jobs.receiver()?,), |jobs: Receiver<u64>| while jobs.get().is_ok() {})?;
        Ok(Idle { jobs, worker: Some(worker) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.worker.as_ref().map_or(0, Process::pid)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let closed = self.jobs.close();
        if let Some(worker) = self.worker.take() {
            let _ended = closed.is_ok().then(|| worker.join());
        }
    }
}
