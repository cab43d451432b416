//! One function for many elements: [`Pool::map`] in chunks, [`Pool::imap`] one by one as the consumer asks.

use crate::backend::Backend;
use crate::error::{PoolErrorKind, TaskError};
use crate::job::{Chunk, Job, Lost, OnFailure, each, encode_context};
use crate::pool::{Call, Pool};
use crate::progress::Bar;
use crate::table::Saved;
use crate::task::Task;
use crate::waiting::{Ended, Place};
use crate::wire::TaskHead;
use crate::{PoolError, home::Home};
use multiproc_channel::{Bincode, Message, message};
use multiproc_shm::Arena;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// A chunk should take about this long: much longer than handing it out, and short enough that the workers end together.
const CHUNK_TIME: Duration = Duration::from_millis(2);
/// And not be longer than this.
const MAX_CHUNK: usize = 1 << 16;
/// Nor more than so many times as long as the last one.
const GROWTH: usize = 8;

/// Chunks that are out for each worker: one that it runs, and the next.
const AHEAD: usize = 2;

impl Pool {
    /// Calls `f` with each element in the workers; the values in order.
    ///
    /// Elements are sent in chunks, whose length follows from how long they take. They are taken from the iterator as workers get free, so that it may be long.
    ///
    /// # Errors
    /// Of the first element, by position, that fails. Then no more are handed out, and those that run are waited for no longer than one element takes. If a worker dies,
    /// the whole chunk that it had fails, or is tried again; [`try_map`](Pool::try_map) has an outcome for each element.
    ///
    /// With [`retries`](crate::PoolBuilder::retries), an element that panics is tried again by itself, and the others of its chunk are not waited for it, nor run again: the chunk goes on, so that an element
    /// that fails for good, because [`only_if`](crate::PoolBuilder::only_if) is false, is known when its chunk is done.
    ///
    /// # Examples
    /// ```
    /// let pool = multiproc::Pool::new(2)?;
    /// assert_eq!(pool.map(["a", "bcd"].map(String::from), |word: String| word.len())?, [1, 3]);
    /// // More than one argument is a tuple.
    /// assert_eq!(pool.map([(2, 3), (4, 5)], |(a, b): (u32, u32)| a * b)?, [6, 20]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "starmap")]
    #[doc(alias = "map_async")]
    #[doc(alias = "starmap_async")]
    pub fn map<T: Message + Send, R: Message + Send>(
        &self,
        items: impl IntoIterator<Item = T>,
        f: fn(T) -> R,
    ) -> Result<Vec<R>, TaskError> {
        self.map_plain(items, None, f)
    }

    /// As [`map`](Pool::map), in chunks of `length` elements.
    ///
    /// # Errors
    /// As [`map`](Pool::map).
    #[doc(alias = "chunksize")]
    pub fn map_chunks<T: Message + Send, R: Message + Send>(
        &self,
        items: impl IntoIterator<Item = T>,
        length: usize,
        f: fn(T) -> R,
    ) -> Result<Vec<R>, TaskError> {
        self.map_plain(items, Some(length.max(1)), f)
    }

    /// As [`map`](Pool::map), for a function that is also given `context`: what a closure would capture. It is encoded once, and decoded once in each worker.
    ///
    /// # Errors
    /// As [`map`](Pool::map); the context cannot be encoded.
    ///
    /// # Examples
    /// ```
    /// let pool = multiproc::Pool::new(2)?;
    /// let prices = vec![5u64, 7, 9];
    /// let sum = pool.map_with(&prices, [(0, 10), (2, 1)], |prices, (item, count): (usize, u64)| prices[item] * count)?;
    /// assert_eq!(sum, [50, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_with<C: Message + Send + Sync, T: Message + Send, R: Message + Send>(
        &self,
        context: &C,
        items: impl IntoIterator<Item = T>,
        f: fn(&C, T) -> R,
    ) -> Result<Vec<R>, TaskError> {
        let arena = Arena::of_the_tree().map_err(PoolError::from)?;
        let encoded = encode_context(arena, context)?;
        let upon = self.on_failure();
        if let Some(home) = self.home() {
            let id = home.keep_context(encoded);
            let _forget = Forget(home, id);
            let head = TaskHead { context: id, ..Job::chunk_with(f, upon)?.head() };
            let one = TaskHead { context: id, ..Job::call_with(f)?.head() };
            return self.map_job(
                items,
                None,
                |chunk| self.start(Call::new(head, (chunk,), in_a_worker)),
                |element, why| self.start(Call::new(one, (element,), in_a_worker).failed(why)),
            );
        }
        if self.is_local() {
            // The copy that a worker would have.
            let context = Arc::new(encoded.decode::<C>(arena)?);
            let call = move |element| f(&context, element);
            return self.map_here(items, None, [Job::chunk_with(f, upon)?, Job::call_with(f)?], call);
        }
        // The pool of another process keeps nothing for this one: it goes with each chunk.
        let (head, one) = (Job::chunk_carrying(f, upon)?.head(), Job::call_carrying(f)?.head());
        self.map_job(
            items,
            None,
            |chunk| self.start(Call::new(head, (encoded.decode::<C>(arena)?, chunk), in_a_worker)),
            |element, why| self.start(Call::new(one, (encoded.decode::<C>(arena)?, element), in_a_worker).failed(why)),
        )
    }

    /// Calls `f` with each element in the workers; each one's own outcome, in order.
    ///
    /// # Errors
    /// Only when nothing can be submitted any more, or the elements cannot be encoded.
    ///
    /// # Examples
    /// ```
    /// let pool = multiproc::Pool::new(2)?;
    /// let outcomes = pool.try_map([3, 0, 4], |n: u32| 12 / n)?;
    /// assert_eq!(outcomes[0].as_ref().unwrap(), &4);
    /// assert!(outcomes[1].is_err());
    /// assert_eq!(outcomes[2].as_ref().unwrap(), &3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_map<T: Message + Send, R: Message + Send>(
        &self,
        items: impl IntoIterator<Item = T>,
        f: fn(T) -> R,
    ) -> Result<Vec<Result<R, TaskError>>, PoolError> {
        let mut outcomes = Vec::new();
        for outcome in self.imap(items, f) {
            match outcome {
                Err(TaskError::Refused(e)) => return Err(e),
                outcome => outcomes.push(outcome),
            }
        }
        Ok(outcomes)
    }

    /// Calls `f` with each element in the workers, as the values are asked for; in order.
    ///
    /// Some elements are out ahead of the one that is asked for, four for each worker; no more is taken from the iterator, which may have no end, may borrow, and runs in
    /// the caller. Dropping the result cancels what is out. A value is a `Result`: the outcome of that element.
    ///
    /// # Examples
    /// ```
    /// let pool = multiproc::Pool::new(2)?;
    /// let first: Result<Vec<u64>, _> = pool.imap(1.., |n: u64| n * n).take(4).collect();
    /// assert_eq!(first?, [1, 4, 9, 16]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "buffersize")]
    pub fn imap<T: Message + Send, R: Message + Send, I: IntoIterator<Item = T>>(
        &self,
        items: I,
        f: fn(T) -> R,
    ) -> Imap<'_, I::IntoIter, R> {
        Imap { feed: Feed::new(self, items.into_iter(), f), out: VecDeque::new() }
    }

    /// As [`imap`](Pool::imap), in the order in which they are done.
    ///
    /// # Examples
    /// ```
    /// let pool = multiproc::Pool::new(2)?;
    /// let mut all = pool.imap_unordered(0..100, |n: u32| n + 1).collect::<Result<Vec<_>, _>>()?;
    /// all.sort();
    /// assert_eq!(all, (1..=100).collect::<Vec<_>>());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn imap_unordered<T: Message + Send, R: Message + Send, I: IntoIterator<Item = T>>(
        &self,
        items: I,
        f: fn(T) -> R,
    ) -> ImapUnordered<'_, I::IntoIter, R> {
        let feed = Feed::new(self, items.into_iter(), f);
        ImapUnordered { feed, out: Vec::new(), ended: Arc::default() }
    }

    fn map_plain<T: Message + Send, R: Message + Send>(
        &self,
        items: impl IntoIterator<Item = T>,
        length: Option<usize>,
        f: fn(T) -> R,
    ) -> Result<Vec<R>, TaskError> {
        let jobs = [Job::chunk(f, self.on_failure())?, Job::call::<(T,), R>(f)?];
        if self.is_local() {
            return self.map_here(items, length, jobs, f);
        }
        let [head, one] = jobs.map(Job::head);
        self.map_job(
            items,
            length,
            |chunk| self.start(Call::new(head, (chunk,), in_a_worker)),
            |element, why| self.start(Call::new(one, (element,), in_a_worker).failed(why)),
        )
    }

    /// As [`map_job`](Pool::map_job), in a pool without workers.
    fn map_here<T: Message + Send, R: Message + Send>(
        &self,
        items: impl IntoIterator<Item = T>,
        length: Option<usize>,
        jobs: [Job; 2],
        call: impl Fn(T) -> R + Clone + Send + 'static,
    ) -> Result<Vec<R>, TaskError> {
        let arena = Arena::of_the_tree().map_err(PoolError::from)?;
        let [head, one] = jobs.map(Job::head);
        let goes_on = self.on_failure() == OnFailure::GoOn;
        let codec = |e| PoolError::because(PoolErrorKind::Codec, "the elements were not submitted", e);
        self.map_job(
            items,
            length,
            |chunk: Vec<T>| {
                let saved = goes_on.then(|| Saved::new(arena, &chunk).map(Arc::new).map_err(codec)).transpose()?;
                let call = call.clone();
                let here = move |(chunk,): (Vec<T>,)| {
                    let decode = |saved: &Saved| saved.open(|bytes, held| message::decode::<Vec<T>, Bincode>(arena, bytes, held));
                    let decode = |saved| catch_unwind(AssertUnwindSafe(|| decode(saved).ok())).ok().flatten();
                    let again = saved.as_deref().map(|saved| move || decode(saved));
                    each(chunk, again.as_ref().map(|again| again as _), is_cancelled, call)
                };
                self.start(Call::new(head, (chunk,), here).once())
            },
            |element, why| {
                let call = call.clone();
                self.start(Call::new(one, (element,), move |(element,): (T,)| call(element)).failed(why))
            },
        )
    }

    /// What a chunk does when an element panics: if it may be tried again, that is an affair of its own.
    fn on_failure(&self) -> OnFailure {
        if self.tries_again() { OnFailure::GoOn } else { OnFailure::Stop }
    }

    /// Sends the elements in chunks by `start`, and puts the values together; `again` submits one that has failed.
    fn map_job<T: Message + Send, R: Message + Send>(
        &self,
        items: impl IntoIterator<Item = T>,
        length: Option<usize>,
        start: impl Fn(Vec<T>) -> Result<Task<Chunk<T, R>>, PoolError>,
        again: impl Fn(T, TaskError) -> Result<Task<R>, PoolError>,
    ) -> Result<Vec<R>, TaskError> {
        let backend = self.backend();
        // What is tried again belongs to what the pool has taken, also when it is closed meanwhile.
        let _held = self.hold();
        let mut items = items.into_iter().fuse();
        let workers = self.workers().max(1);
        // Of a short input each worker has several chunks, whatever they take.
        let most = items.size_hint().1.map_or(MAX_CHUNK, |all| all.div_ceil(4 * workers).clamp(1, MAX_CHUNK));
        let bar = self.bar(items.size_hint().1);
        let mut next = length.unwrap_or(1);
        let mut values = Values::with_capacity(items.size_hint().0.min(MAX_CHUNK));
        // What is left of it is stopped, also when the iterator panics.
        let mut out = Out { backend, chunks: VecDeque::new(), again: BTreeMap::new(), ended: Arc::default() };
        loop {
            // What is out makes room.
            while out.chunks.len() < AHEAD * workers && (out.chunks.is_empty() || !self.would_refuse()) {
                let chunk: Vec<T> = items.by_ref().take(next).collect();
                if chunk.is_empty() {
                    break;
                }
                let count = chunk.len();
                match start(chunk) {
                    Ok(task) => out.chunks.push_back((count, task)),
                    Err(e) => return Err(e.into()),
                }
            }
            if let Some((at, mut task)) = out.wait() {
                match task.take() {
                    Ok(value) => values.fill(at, value),
                    Err(e) => return Err(out.first_error(at, e)),
                }
                bar.advance(1);
                continue;
            }
            let Some((count, mut task)) = out.chunks.pop_front() else { return Ok(values.into_vec()) };
            let ran = task.ran();
            let first = values.len();
            let chunk = match task.take() {
                Ok(chunk) => chunk,
                Err(e) => return Err(out.first_error(first, e)),
            };
            let is_whole = chunk.len() == count;
            bar.advance(chunk.values.len());
            for Lost { at, panic, element } in chunk.take_into(&mut values) {
                let why = TaskError::from(panic);
                let task = match element.map(|element| again(element, why.clone())) {
                    Some(Ok(task)) => task,
                    Some(Err(e)) => return Err(out.first_error(first + at, e.into())),
                    None => return Err(out.first_error(first + at, why)),
                };
                out.try_again(first + at, task);
            }
            if !is_whole {
                return Err(out.first_error(values.len(), TaskError::Cancelled));
            }
            if length.is_none() {
                let fitting = CHUNK_TIME.as_nanos().saturating_mul(count as u128) / ran.as_nanos().max(1);
                next = usize::try_from(fitting).unwrap_or(MAX_CHUNK).clamp(1, (count * GROWTH).min(most).max(next.min(most)));
            }
        }
    }
}

impl<T, R> Chunk<T, R> {
    /// Adds its values to those before, with holes for the elements that have failed.
    fn take_into(self, values: &mut Values<R>) -> Vec<Lost<T>> {
        let first = values.len();
        values.plain.extend(self.values);
        values.holes.extend(self.failed.iter().map(|lost| (first + lost.at, None)));
        self.failed
    }
}

/// The values of the first elements: those that came with their chunk, and by position those that came later, or have not come yet.
struct Values<R> {
    plain: Vec<R>,
    holes: Vec<(usize, Option<R>)>,
}

impl<R> Values<R> {
    fn with_capacity(capacity: usize) -> Values<R> {
        Values { plain: Vec::with_capacity(capacity), holes: Vec::new() }
    }

    fn len(&self) -> usize {
        self.plain.len() + self.holes.len()
    }

    fn fill(&mut self, at: usize, value: R) {
        if let Ok(hole) = self.holes.binary_search_by_key(&at, |(at, _)| *at) {
            self.holes[hole].1 = Some(value);
        }
    }

    fn into_vec(self) -> Vec<R> {
        if self.holes.is_empty() {
            return self.plain;
        }
        let mut all = Vec::with_capacity(self.len());
        let mut plain = self.plain.into_iter();
        for (at, value) in self.holes {
            all.extend(plain.by_ref().take(at - all.len()));
            all.extend(value);
        }
        all.extend(plain);
        all
    }
}

/// What is out of a `map`, stopped when this is dropped.
struct Out<T, R> {
    backend: Arc<dyn Backend>,
    /// In order, with their lengths.
    chunks: VecDeque<(usize, Task<Chunk<T, R>>)>,
    /// Elements that are tried again, by position, and which of them have ended.
    again: BTreeMap<usize, Task<R>>,
    ended: Arc<Ended>,
}

impl<T, R> Out<T, R> {
    fn try_again(&mut self, at: usize, task: Task<R>)
    where
        R: Send + 'static,
    {
        task.listen(Place(at, self.ended.clone()));
        self.again.insert(at, task);
    }

    /// Waits for the first chunk, or for an element that is tried again, which is returned then.
    fn wait(&mut self) -> Option<(usize, Task<R>)> {
        let first = self.chunks.front().map(|(_, task)| task);
        match first {
            Some(first) if self.again.is_empty() => first.finish(),
            None if self.again.is_empty() => {}
            first => {
                first.into_iter().for_each(Task::wake_here);
                let settled = || !self.ended.is_empty() || first.is_some_and(Task::is_settled);
                self.backend.drive(&settled, None, None);
            }
        }
        let at = self.ended.take()?;
        self.again.remove_entry(&at)
    }

    /// The first error by position, when the element `at` has failed like this: what lies behind it is stopped, what lies before waited for.
    fn first_error(&mut self, mut at: usize, mut why: TaskError) -> TaskError {
        self.stop(at);
        self.chunks.drain(..).for_each(|(_, task)| task.finish());
        while let Some((place, task)) = self.again.pop_last() {
            if place < at {
                self.again.insert(place, task);
                break;
            }
            task.finish();
        }
        while let Some((place, task)) = self.again.pop_first() {
            if let Err(earlier) = task.join() {
                (at, why) = (place, earlier);
                self.stop(at);
                std::mem::take(&mut self.again).into_values().for_each(|task| task.finish());
            }
        }
        why
    }

    fn stop(&self, from: usize) {
        self.chunks.iter().for_each(|(_, task)| self.backend.stop(task.id, true));
        self.again.range(from..).for_each(|(_, task)| self.backend.stop(task.id, true));
    }
}

impl<T, R> Drop for Out<T, R> {
    fn drop(&mut self) {
        self.stop(0);
    }
}

/// Whether the task that this thread runs shall stop.
fn is_cancelled() -> bool {
    crate::current_task().is_some_and(|task| task.is_cancelled())
}

/// What runs in a worker.
fn in_a_worker<A, R>(_: A) -> R {
    unreachable!("the pool has workers")
}

struct Forget<'a>(&'a Home, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.forget_context(self.1);
    }
}

/// Where elements come from, and what is done with them.
struct Feed<'p, I: Iterator, R> {
    pool: &'p Pool,
    items: std::iter::Fuse<I>,
    f: fn(I::Item) -> R,
    /// Elements that are out at most.
    window: usize,
    bar: Bar,
}

impl<'p, I: Iterator, R: Message + Send> Feed<'p, I, R>
where
    I::Item: Message + Send,
{
    fn new(pool: &'p Pool, items: I, f: fn(I::Item) -> R) -> Feed<'p, I, R> {
        let bar = pool.bar(items.size_hint().1);
        Feed { pool, items: items.fuse(), f, window: 4 * pool.workers(), bar }
    }

    fn next(&mut self) -> Option<Result<Task<R>, TaskError>> {
        let item = self.items.next()?;
        Some(self.pool.submit((item,), self.f).map_err(TaskError::from))
    }
}

/// Values in the order of their elements: see [`Pool::imap`].
#[must_use = "nothing is computed until values are asked for"]
pub struct Imap<'p, I: Iterator, R> {
    feed: Feed<'p, I, R>,
    out: VecDeque<Result<Task<R>, TaskError>>,
}

impl<I: Iterator, R: Message + Send> Iterator for Imap<'_, I, R>
where
    I::Item: Message + Send,
{
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Result<R, TaskError>> {
        while self.out.len() < self.feed.window && (self.out.is_empty() || !self.feed.pool.would_refuse()) {
            let Some(task) = self.feed.next() else { break };
            self.out.push_back(task);
        }
        let outcome = self.out.pop_front()?.and_then(Task::join);
        self.feed.bar.advance(1);
        Some(outcome)
    }
}

impl<I: Iterator, R> fmt::Debug for Imap<'_, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap").field("out", &self.out.len()).finish_non_exhaustive()
    }
}

impl<I: Iterator, R> Drop for Imap<'_, I, R> {
    fn drop(&mut self) {
        self.out.iter().flatten().for_each(Task::cancel);
    }
}

/// Values in the order in which they are done: see [`Pool::imap_unordered`].
#[must_use = "nothing is computed until values are asked for"]
pub struct ImapUnordered<'p, I: Iterator, R> {
    feed: Feed<'p, I, R>,
    /// What is out; places are used again.
    out: Vec<Option<Task<R>>>,
    ended: Arc<Ended>,
}

impl<I: Iterator, R: Message + Send> Iterator for ImapUnordered<'_, I, R>
where
    I::Item: Message + Send,
{
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Result<R, TaskError>> {
        loop {
            let free = self.out.iter().position(Option::is_none);
            let place = free.unwrap_or(self.out.len());
            let none_out = || self.out.iter().all(Option::is_none);
            if place >= self.feed.window || self.feed.pool.would_refuse() && !none_out() {
                break;
            }
            match self.feed.next() {
                None => break,
                Some(Err(e)) => return Some(Err(e)),
                Some(Ok(task)) => {
                    task.listen(Place(place, self.ended.clone()));
                    if free.is_none() {
                        self.out.push(None);
                    }
                    self.out[place] = Some(task);
                }
            }
        }
        if self.out.iter().all(Option::is_none) {
            return None;
        }
        self.feed.pool.backend().drive(&|| !self.ended.is_empty(), None, None);
        let place = self.ended.take()?;
        self.feed.bar.advance(1);
        self.out[place].take().map(Task::join)
    }
}

impl<I: Iterator, R> fmt::Debug for ImapUnordered<'_, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapUnordered").field("out", &self.out.len()).finish_non_exhaustive()
    }
}

impl<I: Iterator, R> Drop for ImapUnordered<'_, I, R> {
    fn drop(&mut self) {
        self.out.iter().flatten().for_each(Task::cancel);
    }
}
