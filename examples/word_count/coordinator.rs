//! What the first process does: plan chunks, collect results, keep the workers going.
//!
//! A thread plans and puts the jobs while the main thread takes the results: with bounded queues, one thread that did
//! first one and then the other would wait for workers that wait for it. A third one kills, if that is asked for. The
//! end is reached when each planned chunk has a result, whoever died meanwhile.
//! Stands on [`crew`](crate::crew), [`chaos`](crate::chaos) and [`report`](crate::report).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::Sender;

use crate::board::{Board, Fatal};
use crate::chaos::Pace;
use crate::chunk::{Chunk, Planner, Sizing};
use crate::cli::Args;
use crate::count::Counted;
use crate::crew::Crew;
use crate::progress::Progress;
use crate::report::{Chaos, Problems, Totals};
use crate::walk::{Input, Walk};
use crate::worker::Answer;

/// How often the workers are looked after.
const LOOK: Duration = Duration::from_millis(10);
/// After so many looks without a result, and without a job that waits or is under lease, nothing will come.
const QUIET: u32 = 20;
/// While jobs are still being planned, their number is not known.
const UNKNOWN: u64 = u64::MAX;

/// What there is to count, and whom to tell about it.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    inputs: &'a [Input],
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

/// What has come from the workers.
#[derive(Debug, Default)]
struct Collected {
    totals: Totals,
    duplicates: u64,
    /// Of each chunk that came again, its last delivery.
    attempts: HashMap<u64, u32>,
}

impl<'a> Task<'a> {
    pub(crate) fn new(walk: &'a Walk) -> Task<'a> {
        let progress = Progress::new((!walk.has_streams()).then(|| walk.bytes()));
        let task = Task { inputs: &walk.inputs, problems: Mutex::default(), progress, planned: AtomicU64::new(UNKNOWN) };
        for (path, e) in &walk.errors {
            task.name(None, path, e.to_string());
        }
        task
    }

    fn problems(&self) -> MutexGuard<'_, Problems> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, file: Option<u32>, path: &std::path::Path, why: String) {
        let line = self.problems().name(file, path, why);
        if let Some(line) = line {
            self.progress.say(&line);
        }
    }

    fn fail(&self, file: u32, why: String) {
        self.name(Some(file), self.inputs[file as usize].path(), why);
    }

    fn tell(&self, news: impl IntoIterator<Item = String>) {
        for line in news {
            self.progress.say(&format!("word_count: {line}"));
        }
    }

    /// Counts everything.
    ///
    /// # Errors
    /// The work cannot begin: shared memory or the first worker is refused.
    pub(crate) fn count(self, args: &Args, bytes: u64) -> Result<Outcome, Fatal> {
        let workers = args.workers.get();
        let sizing = match args.chunk_size {
            Some(n) => Sizing::fixed(n),
            None => Sizing::choose(bytes, workers, args.chaos),
        };
        let board = Board::new()?;
        let pace = (args.chaos > 0).then(|| {
            let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
            self.tell([format!("chaos with --seed {seed}")]);
            Pace::new(args.chaos, sizing.estimate(self.inputs), seed, board.clone())
        });
        let crew = Crew::new(workers, args.chaos, board.clone())?;
        let (jobs, results) = crew.queues();
        let (jobs, sender) = (jobs.sender()?, results.sender()?);
        let (crew, pace) = (Mutex::new(crew), pace.as_ref());
        let (mut totals, chaos) = thread::scope(|scope| {
            scope.spawn(|| self.feed(Planner::new(sizing), &jobs, &sender, pace));
            let killer = pace.map(|pace| scope.spawn(|| pace.kill(&crew)));
            let end = || -> Result<_, Fatal> {
                let mut collected = Collected::default();
                self.collect(&mut collected, &crew, &board, pace, || killer.as_ref().is_none_or(|k| k.is_finished()))?;
                let chaos = killer.map_or(Ok(Chaos::default()), |killer| killer.join()).map_err(|_| "the killer panicked")?;
                self.finish(collected, chaos, &mut lock(&crew))
            };
            end().unwrap_or_else(|e| {
                // Not by returning: another thread may be waiting for input that never comes.
                self.tell([e.to_string()]);
                std::process::exit(2)
            })
        });
        if chaos.killed < u64::from(args.chaos) {
            self.tell([format!("only {} of {} kills fitted into the work", chaos.killed, args.chaos)]);
        }
        totals.files = self.inputs.len() as u64 - self.problems().inputs();
        if chaos.lost > 0 {
            self.tell([format!("{} parts of the input were lost", chaos.lost)]);
        }
        let complete = self.problems().is_empty() && chaos.lost == 0;
        Ok(Outcome { totals, chaos, complete })
    }

    /// Plans and puts all jobs.
    fn feed(&self, mut planner: Planner, jobs: &Sender<Chunk>, results: &Sender<Answer>, pace: Option<&Pace>) {
        let give_out = |chunk: Chunk| {
            if let Some(pace) = pace {
                pace.wait_for(chunk.id);
            }
            if let Err(e) = jobs.put(chunk) {
                let why = e.to_string();
                let counted = Counted::nothing(&e.into_inner(), why);
                // Fails when nobody counts any more.
                let _ = results.put(Answer { attempt: 1, counted });
            }
        };
        // One is kept back, so that the last one is known when it is given out.
        let mut kept: Option<Chunk> = None;
        for (file, input) in (0..).zip(self.inputs) {
            match planner.input(file, input) {
                Err(e) => self.fail(file, e.to_string()),
                Ok(chunks) => {
                    for chunk in chunks {
                        match chunk {
                            Ok(chunk) => kept.replace(chunk).into_iter().for_each(give_out),
                            Err(e) => self.fail(file, e.to_string()),
                        }
                    }
                }
            }
        }
        if let Some(pace) = pace {
            pace.end(planner.planned());
        }
        kept.into_iter().for_each(give_out);
        // Release pairs with the Acquire in `collect`.
        self.planned.store(planner.planned(), Ordering::Release);
    }

    /// Adds up results until each planned chunk has one and the killer has done its work, or nothing will come any more.
    fn collect(
        &self,
        collected: &mut Collected,
        crew: &Mutex<Crew>,
        board: &Board,
        pace: Option<&Pace>,
        killer_is_done: impl Fn() -> bool,
    ) -> Result<(), Fatal> {
        let (jobs, results) = lock(crew).queues();
        let (mut looked, mut quiet) = (Instant::now(), 0);
        loop {
            // Acquire pairs with the Release in `feed`.
            let planned = self.planned.load(Ordering::Acquire);
            let nothing_left = || planned != UNKNOWN && jobs.is_empty() && jobs.leased() == 0;
            let over = quiet >= QUIET && nothing_left();
            if let Some(pace) = pace.filter(|_| over) {
                pace.give_up();
            }
            if (over || collected.totals.chunks() == planned) && killer_is_done() {
                return Ok(());
            }
            match results.get_timeout(LOOK) {
                Ok(answer) => {
                    if self.add(collected, answer) {
                        lock(crew).made_progress();
                    }
                    quiet = 0;
                }
                Err(e) if e.is_timeout() => quiet = quiet.saturating_add(1),
                Err(e) => return Err(e.into()),
            }
            if looked.elapsed() >= LOOK {
                let mut crew = lock(crew);
                let looked_after = crew.look_after();
                self.tell(crew.take_news());
                looked_after?;
                let (bytes, chunks) = board.done();
                self.progress.set(bytes, chunks);
                looked = Instant::now();
            }
        }
    }

    /// Sends the workers home, and takes what they still had.
    fn finish(&self, mut collected: Collected, mut chaos: Chaos, crew: &mut Crew) -> Result<(Totals, Chaos), Fatal> {
        let (_, results) = crew.queues();
        crew.send_home(|| {
            while let Ok(answer) = results.try_get() {
                self.add(&mut collected, answer);
            }
        })?;
        self.tell(crew.take_news());
        chaos.redelivered = collected.attempts.values().map(|attempt| u64::from(attempt - 1)).sum();
        chaos.duplicates_dropped = collected.duplicates;
        chaos.lost = self.planned.load(Ordering::Acquire) - collected.totals.chunks();
        Ok((collected.totals, chaos))
    }

    /// Whether it was the first result of its chunk.
    fn add(&self, collected: &mut Collected, Answer { attempt, mut counted }: Answer) -> bool {
        if attempt > 1 {
            let last = collected.attempts.entry(counted.chunk).or_default();
            *last = attempt.max(*last);
        }
        let (file, error) = (counted.file, counted.error.take());
        let first = collected.totals.add(counted);
        if !first {
            collected.duplicates += 1;
        } else if let Some(e) = error {
            self.fail(file, e);
        }
        first
    }
}

fn lock(crew: &Mutex<Crew>) -> MutexGuard<'_, Crew> {
    crew.lock().unwrap_or_else(PoisonError::into_inner)
}
