//! What a pool has done and is doing: [`PoolStats`].

use crate::home::{Home, lock};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets for each doubling: a figure is right to an eighth.
const PARTS: usize = 8;
const BUCKETS: usize = 64 * PARTS;

/// A pool at one moment: see [`Pool::stats`](crate::Pool::stats). Serialisable.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PoolStats {
    /// The pool's name.
    pub name: String,
    /// Each worker that is there.
    pub workers: Vec<WorkerStats>,
    /// Tasks that have no outcome and that no worker has begun.
    pub waiting: usize,
    /// Tasks that workers run at this moment, those included that wait for others.
    pub running: usize,
    /// Tasks that have ended with a value.
    pub done: u64,
    /// Tasks that have ended otherwise.
    pub failed: u64,
    /// From the submission of a task to its outcome.
    pub latency: Latency,
}

/// A worker at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Its name.
    pub name: String,
    /// Its pid.
    pub pid: u32,
    /// Tasks that it has run.
    pub tasks: u64,
    /// How long it has run tasks, the one that it runs not included.
    pub busy: Duration,
    /// How long it has run the task that it runs; `None` while it has none.
    pub running_for: Option<Duration>,
    /// Bytes of memory that it has to itself; 0 where /proc does not tell.
    pub memory: u64,
}

/// Percentiles of times, right to an eighth; zero before anything has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Latency {
    /// Half of the tasks took no longer.
    pub p50: Duration,
    /// Nine of ten.
    pub p90: Duration,
    /// 99 of 100.
    pub p99: Duration,
    /// The longest of all.
    pub max: Duration,
}

impl fmt::Display for PoolStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PoolStats { name, waiting, running, done, failed, latency, .. } = self;
        let Latency { p50, p99, max, .. } = latency;
        writeln!(
            f,
            "{name}: {waiting} waiting, {running} running, {done} done, {failed} failed; p50 {p50:?}, p99 {p99:?}, max {max:?}"
        )?;
        for WorkerStats { name, pid, tasks, busy, running_for, memory } in &self.workers {
            write!(f, "  {name} (pid {pid}): {tasks} tasks in {busy:?}, {} KiB", memory >> 10)?;
            match running_for {
                Some(time) => writeln!(f, ", runs one for {time:?}")?,
                None => writeln!(f, ", idle")?,
            }
        }
        Ok(())
    }
}

/// How often each time was taken. Relaxed throughout: figures for people.
#[derive(Debug)]
pub(crate) struct Times([AtomicU64; BUCKETS]);

impl Default for Times {
    fn default() -> Times {
        Times([const { AtomicU64::new(0) }; BUCKETS])
    }
}

/// The bucket of `nanos`: its highest bit, and the three below.
fn bucket(nanos: u64) -> usize {
    let nanos = nanos.max(PARTS as u64);
    let high = nanos.ilog2() as usize;
    high * PARTS + (nanos >> (high - 3)) as usize % PARTS
}

/// The longest time of a bucket.
fn longest(bucket: usize) -> Duration {
    let (high, part) = (bucket / PARTS, bucket % PARTS);
    let start = (PARTS + part) as u64;
    Duration::from_nanos(((start + 1) << (high.max(3) - 3)) - 1)
}

impl Times {
    pub(crate) fn record(&self, nanos: u64) {
        self.0[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
    }

    fn latency(&self) -> Latency {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let at = |share: f64| {
            let mut left = (all as f64 * share).ceil().max(1.0) as u64;
            let found = counts.iter().position(|&count| {
                let here = count >= left;
                left = left.saturating_sub(count);
                here
            });
            found.map(longest).unwrap_or_default()
        };
        Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

impl Home {
    pub(crate) fn stats(&self, now: u64) -> PoolStats {
        let crew = lock(&self.crew);
        let workers: Vec<WorkerStats> = crew
            .members
            .iter()
            .filter_map(|member| {
                let pid = member.pid()?;
                let (tasks, busy) = member.desk.done();
                let running = member.desk.levels().find(|level| level.is_started());
                Some(WorkerStats {
                    name: format!("{}-{}", self.settings.name, member.index),
                    pid,
                    tasks,
                    busy: Duration::from_nanos(busy),
                    running_for: running.map(|level| Duration::from_nanos(now.saturating_sub(level.since()))),
                    memory: multiproc_sys::memory::private(pid).unwrap_or(0),
                })
            })
            .collect();
        let running = crew.members.iter().map(|member| member.desk.levels().filter(|level| level.is_started()).count()).sum();
        drop(crew);
        PoolStats {
            name: self.settings.name.clone(),
            workers,
            waiting: self.open_tasks().saturating_sub(running),
            running,
            done: self.done.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            latency: self.times.latency(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_right_to_an_eighth() {
        for nanos in [8, 9, 100, 1_000, 12_345, 1 << 40, u64::MAX >> 1] {
            let told = longest(bucket(nanos)).as_nanos() as u64;
            assert!(told >= nanos && told <= nanos + nanos / 8, "{nanos} {told}");
        }
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let times = Times::default();
        assert_eq!(times.latency(), Latency::default());
        (1..=100).for_each(|ms| times.record(ms * 1_000_000));
        let Latency { p50, p90, p99, max } = times.latency();
        let near = |time: Duration, ms: u64| time >= Duration::from_millis(ms) && time <= Duration::from_millis(ms + ms / 8 + 1);
        assert!(near(p50, 50) && near(p90, 90) && near(p99, 99) && near(max, 100), "{p50:?} {p90:?} {p99:?} {max:?}");
    }
}
