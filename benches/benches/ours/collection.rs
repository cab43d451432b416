//! A tree with many objects, a process that collects in it, and the operations of somebody else.

use multiproc::{Lock, Process, Queue, Receiver, Sender, channel, testing};
use multiproc_benches::row::Measured;
use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// What somebody else does while a process collects.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    /// A message of 8 bytes through a queue.
    PutGet,
    /// A lock and its unlock.
    LockPair,
    /// A lock made and dropped.
    MakeDrop,
}

/// Many objects of one tree, and a process that collects or does not.
pub(crate) struct Tree {
    _objects: Vec<Lock>,
    queue: Queue<u64>,
    lock: Lock,
    orders: Sender<bool>,
    reports: Receiver<f64>,
    collector: Option<Process<()>>,
}

/// Collects while told to; reports the mean time of a collection in microseconds when told to stop.
fn collect(orders: Receiver<bool>, reports: Sender<f64>) {
    while let Ok(true) = orders.get() {
        let (start, mut rounds) = (Instant::now(), 0u32);
        // Begun, before the others' operations are measured.
        testing::collect().expect("a collection");
        reports.put(0.0).expect("the bench listens");
        while !matches!(orders.try_get(), Ok(false) | Err(multiproc::GetError::Disconnected)) {
            testing::collect().expect("a collection");
            rounds += 1;
        }
        reports.put(start.elapsed().as_micros() as f64 / f64::from(rounds + 1)).expect("the bench listens");
    }
}

impl Tree {
    pub(crate) fn with(objects: usize) -> Result<Tree, Box<dyn Error>> {
        if multiproc::CRASH_POINTS {
            return Err("crash points are compiled in".into());
        }
        let locks = (0..objects).map(|_| Lock::new()).collect::<Result<_, _>>()?;
        let (orders, ordered) = channel(1)?;
        let (reported, reports) = channel(1)?;
        let collector = Some(Process::spawn((ordered, reported), collect)?);
        Ok(Tree { _objects: locks, queue: Queue::bounded(16)?, lock: Lock::new()?, orders, reports, collector })
    }

    /// Microseconds for a collection, run by this process with nothing else going on.
    pub(crate) fn collection(&self) -> Measured {
        let start = Instant::now();
        testing::collect()?;
        Ok(start.elapsed().as_nanos() as f64 / 1000.0)
    }

    /// The 99.9th percentile of an operation in nanoseconds, among at least `count` of them, while another process collects or while it sleeps.
    pub(crate) fn slowest(&self, operation: Operation, beside_collections: bool, count: u64) -> Measured {
        if beside_collections {
            self.orders.put(true)?;
            self.reports.get()?;
        }
        let mut times = Vec::with_capacity(count as usize);
        let end = Instant::now() + Duration::from_secs(10);
        while (times.len() as u64) < count && Instant::now() < end {
            let start = Instant::now();
            match operation {
                Operation::PutGet => {
                    self.queue.put(black_box(7))?;
                    black_box(self.queue.get()?);
                }
                Operation::LockPair => drop(black_box(self.lock.lock())),
                Operation::MakeDrop => drop(black_box(Lock::new()?)),
            }
            times.push(start.elapsed().as_nanos() as u64);
        }
        if beside_collections {
            self.orders.put(false)?;
            self.reports.get()?;
        }
        times.sort_unstable();
        let at = times.len() * 999 / 1000;
        Ok(times.get(at).copied().unwrap_or(0) as f64)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // It ends when there is nobody left to order anything.
        let _closed = self.orders.close();
        if let Some(collector) = self.collector.take() {
            let _ended = collector.join();
        }
    }
}
