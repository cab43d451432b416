//! What the first process does: plan chunks, collect results, keep the workers going.
//!
//! A thread plans and puts the jobs while the main thread takes the results: with bounded queues, one thread that did
//! first one and then the other would wait for workers that wait for it. The end is reached when each planned chunk
//! has a result, whoever died meanwhile. Stands on [`crew`](crate::crew) and [`report`](crate::report).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::Sender;

use crate::chunk::{Chunk, Planner, Sizing};
use crate::cli::Args;
use crate::count::Counted;
use crate::crew::{Crew, Fatal};
use crate::progress::Progress;
use crate::report::{Chaos, Problems, Totals};
use crate::walk::{Input, Walk};

/// How often the workers are looked after.
const LOOK: Duration = Duration::from_millis(10);
/// While jobs are still being planned, their number is not known.
const UNKNOWN: u64 = u64::MAX;

/// What there is to count, and whom to tell about it.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    pub(crate) inputs: &'a [Input],
    problems: Mutex<Problems>,
    progress: Progress,
    planned: AtomicU64,
}

/// The words, and what happened on the way.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) totals: Totals,
    pub(crate) chaos: Chaos,
    pub(crate) complete: bool,
}

impl<'a> Task<'a> {
    pub(crate) fn new(walk: &'a Walk) -> Task<'a> {
        let progress = Progress::new((!walk.has_streams()).then(|| walk.bytes()));
        let task = Task { inputs: &walk.inputs, problems: Mutex::default(), progress, planned: AtomicU64::new(UNKNOWN) };
        for (path, e) in &walk.errors {
            task.say(task.problems().name(None, path, e));
        }
        task
    }

    fn problems(&self) -> MutexGuard<'_, Problems> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, line: Option<String>) {
        if let Some(line) = line {
            self.progress.say(&line);
        }
    }

    fn tell(&self, news: impl IntoIterator<Item = String>) {
        for line in news {
            self.progress.say(&format!("word_count: {line}"));
        }
    }

    fn fail(&self, file: u32, why: String) {
        let line = self.problems().name(Some(file), self.inputs[file as usize].path(), why);
        self.say(line);
    }

    /// Counts everything.
    ///
    /// # Errors
    /// The work cannot go on: no worker can be started, or worker after worker dies.
    pub(crate) fn count(self, args: &Args, bytes: u64) -> Result<Outcome, Fatal> {
        let workers = args.workers.get();
        let sizing = match args.chunk_size {
            Some(n) => Sizing::fixed(n),
            None => Sizing::choose(bytes, workers, args.chaos),
        };
        let (mut crew, news) = Crew::new(workers)?;
        self.tell(news);
        let jobs = crew.jobs.sender()?;
        let (mut totals, chaos) = thread::scope(|scope| {
            scope.spawn(|| self.feed(Planner::new(sizing), &jobs));
            self.collect(&mut crew).unwrap_or_else(|e| {
                // The other thread may be waiting for input that never comes.
                self.tell([e.to_string()]);
                std::process::exit(2)
            })
        });
        totals.files = self.inputs.len() as u64 - self.problems().inputs();
        let complete = self.problems().is_empty();
        Ok(Outcome { totals, chaos, complete })
    }

    /// Plans and puts all jobs.
    fn feed(&self, mut planner: Planner, jobs: &Sender<Chunk>) {
        for (file, input) in (0..).zip(self.inputs) {
            match planner.input(file, input) {
                Err(e) => self.fail(file, e.to_string()),
                Ok(chunks) => {
                    for chunk in chunks {
                        match chunk.map(|chunk| jobs.put(chunk)) {
                            Ok(Ok(())) => {}
                            Ok(Err(e)) => self.fail(file, e.to_string()),
                            Err(e) => self.fail(file, e.to_string()),
                        }
                    }
                }
            }
        }
        // Release pairs with the Acquire in `collect`.
        self.planned.store(planner.planned(), Ordering::Release);
    }

    /// Adds up results until each planned chunk has one.
    fn collect(&self, crew: &mut Crew) -> Result<(Totals, Chaos), Fatal> {
        let mut totals = Totals::default();
        let mut chaos = Chaos::default();
        let mut looked = Instant::now();
        while totals.chunks() != self.planned.load(Ordering::Acquire) {
            match crew.results.get_timeout(LOOK) {
                Ok(counted) => {
                    self.add(counted, &mut totals, &mut chaos);
                    crew.made_progress();
                }
                Err(e) if e.is_timeout() => {}
                Err(e) => return Err(e.into()),
            }
            if looked.elapsed() >= LOOK {
                self.tell(crew.look_after()?);
                looked = Instant::now();
            }
        }
        let results = crew.results.clone();
        let rest = || {
            while let Ok(counted) = results.try_get() {
                self.add(counted, &mut totals, &mut chaos);
            }
        };
        self.tell(crew.send_home(rest)?);
        chaos.lost = self.planned.load(Ordering::Acquire) - totals.chunks();
        Ok((totals, chaos))
    }

    fn add(&self, mut counted: Counted, totals: &mut Totals, chaos: &mut Chaos) {
        let (file, error) = (counted.file, counted.error.take());
        if !totals.add(counted) {
            chaos.duplicates_dropped += 1;
        } else if let Some(e) = error {
            self.fail(file, e);
        }
        self.progress.set(totals.bytes, totals.chunks());
    }
}
