//! Waiting for any of several things: [`wait`].
//!
//! Each object has a word that the thread announces itself in and then sleeps on, all of them at once ([`multiproc_sys::futex_waitv`]); whoever changes an object wakes all
//! who watch it. See [`WaitWord`] for how no wake is missed. Beyond what one call takes, and where descriptors are among the things, other threads sleep in
//! its place: see [`relay`].
//!
//! | dies | left behind | who repairs, how |
//! |---|---|---|
//! | a watcher, at any step | a bit in the words it watched: one system call too many for who changes them next | nobody |
//! | who changes an object, before the change | nothing | nobody |
//! | after the change, before the wake | watchers that sleep, their bit set | the kernel wakes one of those who sleep on the word, who wakes all others |
//! | that one, with the wake in hand | the same | the kernel, where it waits for one object; else who cleans up after the first |
//! | who changes an object, while a watcher is between its last look and its sleep | a watcher that sleeps, its bit set | who cleans up, as for each sleeper |

use crate::arena::Arena;
use crate::error::Error;
use crate::raw::WaitWord;
use crate::relay;
use crate::waiting;
use multiproc_sys::clock::Deadline;
use multiproc_sys::futex::Wait;
use multiproc_sys::futex_waitv::{MAX_WORDS, Word, wait_any};
use multiproc_sys::poll::poll_readable;
use multiproc_sys::{crash, membarrier, robust, spin};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Looking at more than this takes longer than spinning is worth.
const FEW: usize = 256;

/// Something that [`wait`] waits for. Sealed: implemented by multiproc's types and by everything that has a file descriptor.
///
/// | it | is ready when |
/// |---|---|
/// | `Queue`, `Receiver` | `get` would not wait: a message is there, a lease has come back, or the end has come: closed, or nobody left who could put |
/// | `Connection`, `PipeReceiver` | `recv` would not wait: a message is there, or the news that none will come |
/// | `DeadLetters` | `get` would not wait: one is there, or none can come any more |
/// | `Process`, also of `threads` | it has ended and `join` would not wait; of a thread, its function has |
/// | `Event` | it is set, or has been since the wait began |
/// | a file, a socket, an [`OwnedFd`](std::os::fd::OwnedFd) | reading would not wait: poll(2) calls it readable, hung up or broken |
pub trait WaitOn {
    /// What there is to look at.
    #[doc(hidden)]
    fn source(&self) -> Source<'_>;

    /// Whether it is certainly not ready: the first look at each of many, most of which are idle, and so worth a short way. False decides nothing.
    #[doc(hidden)]
    #[inline]
    fn is_idle(&self) -> bool {
        false
    }
}

/// See [`WaitOn::source`]; it has no name outside of multiproc's own crates, so nobody else implements the trait.
#[derive(Debug)]
pub enum Source<'a> {
    /// An object that tells its watchers.
    Object(&'a dyn Watched),
    /// What poll(2) knows.
    Descriptor(BorrowedFd<'a>),
}

impl<T: AsFd + ?Sized> WaitOn for T {
    fn source(&self) -> Source<'_> {
        Source::Descriptor(self.as_fd())
    }
}

/// What a watcher has seen of an object; 0 at the beginning. The meaning is the object's own.
pub type Seen = [u64; 2];

/// An object that can be watched.
pub trait Watched: std::fmt::Debug {
    /// The arena in which it lies; `None` of what is this process's own.
    fn arena(&self) -> Option<&'static Arena>;

    /// Whether its operation would not wait, also because it would fail.
    fn is_ready(&self, seen: &Seen) -> bool;

    /// Announces a watcher in its words, adds them to the list, and notes what must not change unseen.
    fn watch(&self, seen: &mut Seen, list: &mut Watchlist);

    /// Whether the words that were added are still all that tell of it. Asked after a fence.
    fn is_watched(&self, _seen: &Seen) -> bool {
        true
    }

    /// After a sleep: tells others what this thread's wake may have been meant to tell them.
    fn woken(&self, seen: &Seen);
}

/// A word to sleep on, and another to compare after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) word: Word<'static>,
    pub(crate) count: Option<Word<'static>>,
}

/// What a thread sleeps on that waits for several things.
#[derive(Debug)]
pub struct Watchlist {
    me: u32,
    entries: Vec<Entry>,
    /// The words of the arenas in which second watchers are announced, as they were before this thread announced itself anywhere.
    seconds: Vec<Word<'static>>,
    /// The word that is kept pending: the kernel wakes the next if this thread dies with its wake in hand.
    guarded: Option<&'static AtomicU32>,
}

/// For words that no other process sees.
static PRIVATE_SECONDS: AtomicU32 = AtomicU32::new(0);

impl Watchlist {
    fn new(me: u32) -> Watchlist {
        Watchlist { me, entries: Vec::new(), seconds: Vec::new(), guarded: None }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.seconds.clear();
        self.guarded = None;
    }

    /// Watches `word`, which lies in `arena`, or in private memory without one.
    pub fn watch(&mut self, arena: Option<&'static Arena>, word: &'static WaitWord) {
        let seconds = arena.map_or(&PRIVATE_SECONDS, Arena::seconds);
        if !self.seconds.iter().any(|known| std::ptr::eq(known.word, seconds)) {
            // SeqCst pairs with `WaitWord::announce`: read before the first look at who watches.
            self.seconds.push(Word { word: seconds, expected: seconds.load(Ordering::SeqCst) });
        }
        let watch = word.announce(self.me, seconds);
        let as_word = |(word, expected)| Word { word, expected };
        self.entries.push(Entry { word: as_word(watch.word), count: watch.count.map(as_word) });
        self.guarded = Some(watch.word.0);
    }

    /// Watches what a [`RawLock`](crate::raw::RawLock) that is held for life gives to sleep on.
    pub fn life(&mut self, (word, expected): (&'static AtomicU32, u32)) {
        self.entries.push(Entry { word: Word { word, expected }, count: None });
        self.guarded = Some(word);
    }

    fn len(&self) -> usize {
        self.entries.iter().map(|entry| 1 + usize::from(entry.count.is_some())).sum::<usize>() + self.seconds.len()
    }

    /// Sleeps until a word is woken or a descriptor readable, or no longer as it was; true when time is up.
    fn sleep(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Deadline>, sliced: bool) -> Result<bool, Error> {
        if fds.is_empty() && self.len() > MAX_WORDS {
            // Connections to the same process share its life word.
            let key = |entry: &Entry| (entry.word.word.as_ptr().addr(), entry.word.expected);
            self.entries.sort_by_key(key);
            self.entries.dedup_by_key(|entry| key(entry));
        }
        if !fds.is_empty() || self.len() > MAX_WORDS {
            return relay::sleep(&self.entries, &self.seconds, fds, deadline, sliced);
        }
        let mut words = Vec::with_capacity(MAX_WORDS);
        self.entries.iter().for_each(|entry| words.extend([Some(entry.word), entry.count].into_iter().flatten()));
        // The last to be compared: who has become a second watcher since has announced it there before it could hide a wake.
        words.extend(&self.seconds);
        Ok(wait_any(&words, deadline, sliced) == Wait::TimedOut)
    }
}

/// Waits until any of `items` is ready, and returns the positions of all that are, in order.
///
/// Nothing is taken: between `wait` and `get` somebody else may be quicker, so take what is ready by `try_get`, `try_recv` or `try_join`. All that are ready are
/// returned, not only the first, so none is starved by those before it. Of no items at all none is ready: `wait` returns at once, and with a time-out when that is up.
///
/// Any number of threads of any number of processes may wait for the same things, and all are told. Connections count as used by this process from the
/// first wait on, as from the first `recv`. An item may be given twice.
///
/// # Cost
/// Sleeping costs no processor time and no context switch until something happens, whatever the number of items, and who puts or sends pays nothing unless somebody
/// sleeps. One thread sleeps for up to 127 queues, events and processes (each of a process's children is told by the same word) or 31 connections; where several threads have
/// watched a queue, it counts twice. Beyond that, and where descriptors are waited for together with other things, threads of multiproc's own sleep in its place: one for
/// 120 queues, never one for each item. They are lent to one `wait` at a time and kept for the next, so a process has as many as are needed at the same moment. Where none can be
/// started, `wait` looks again each 10 ms. What is ready already is found without a system call, by a look of some 2 ns at each idle queue.
///
/// # Errors
/// The process was made by a plain `fork()`; poll(2) refuses the descriptors, such as one that has been closed.
///
/// # Crash safety
/// Who changes something and is killed before it has told, at any instruction, keeps nobody asleep; nor does a waiter that is killed with the news in hand.
///
/// # Python
/// `multiprocessing.connection.wait(object_list, timeout)`, which gives the objects themselves. There queues are waited for by `queue._reader`, which is not public and says nothing of
/// a queue's end; events cannot be waited for.
///
/// # Examples
/// ```
/// use multiproc::{Event, Process, Queue, wait};
///
/// let (jobs, stop) = (Queue::<u32>::bounded(10)?, Event::new()?);
/// let worker = Process::spawn((jobs.clone(),), |jobs| jobs.put(7).unwrap())?;
/// assert_eq!(wait(&[&stop, &jobs])?, [1]);
/// assert_eq!(jobs.try_get()?, 7);
/// assert_eq!(wait(&[&stop, &jobs, &worker])?, [2]);
/// worker.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Whatever has a descriptor takes part:
/// ```
/// use multiproc::{Queue, wait};
/// use std::io::Write;
///
/// let (reader, mut writer) = std::io::pipe()?;
/// let queue = Queue::<u32>::bounded(10)?;
/// writer.write_all(b"x")?;
/// assert_eq!(wait(&[&queue, &reader])?, [1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "connection.wait")]
#[doc(alias = "select")]
pub fn wait(items: &[&dyn WaitOn]) -> Result<Vec<usize>, Error> {
    wait_within(items, None)
}

/// As [`wait`], at most for `timeout`; nothing when time is up. With a `timeout` of zero it only looks.
///
/// # Errors
/// As [`wait`]. A timeout is none, and never early.
pub fn wait_timeout(items: &[&dyn WaitOn], timeout: Duration) -> Result<Vec<usize>, Error> {
    wait_within(items, Deadline::after(timeout))
}

/// As [`wait`], at most until `deadline`; nothing when the time has come.
///
/// # Errors
/// As [`wait`].
pub fn wait_deadline(items: &[&dyn WaitOn], deadline: Instant) -> Result<Vec<usize>, Error> {
    wait_within(items, Deadline::at(deadline))
}

fn wait_within(items: &[&dyn WaitOn], deadline: Option<Deadline>) -> Result<Vec<usize>, Error> {
    let mut ready = Vec::new();
    for (i, item) in items.iter().enumerate() {
        if item.is_idle() {
            continue;
        }
        match item.source() {
            Source::Object(object) if object.is_ready(&Seen::default()) => ready.push(i),
            Source::Object(_) => {}
            Source::Descriptor(_) => return Items::sorted(items).wait(deadline),
        }
    }
    if items.is_empty() {
        // Not at once, which would make a busy loop of one around it.
        while let Some(left) = deadline.map(Deadline::remaining).filter(|left| !left.is_zero()) {
            thread::sleep(left);
        }
        return Ok(ready);
    }
    if !ready.is_empty() || deadline.is_some_and(Deadline::passed) {
        return Ok(ready);
    }
    Items::sorted(items).wait(deadline)
}

/// The items of a wait that may have to sleep, by what they are, each with its position.
struct Items<'a> {
    objects: Vec<(usize, &'a dyn Watched)>,
    fds: Vec<BorrowedFd<'a>>,
    fd_places: Vec<usize>,
    seen: Vec<Seen>,
}

impl<'a> Items<'a> {
    #[cold]
    fn sorted(items: &[&'a dyn WaitOn]) -> Items<'a> {
        let mut sorted = Items { objects: Vec::new(), fds: Vec::new(), fd_places: Vec::new(), seen: Vec::new() };
        for (i, item) in items.iter().enumerate() {
            match item.source() {
                Source::Object(object) => sorted.objects.push((i, object)),
                Source::Descriptor(fd) => {
                    sorted.fds.push(fd);
                    sorted.fd_places.push(i);
                }
            }
        }
        sorted.seen = vec![Seen::default(); sorted.objects.len()];
        sorted
    }

    fn each(&self) -> impl Iterator<Item = (&'a dyn Watched, &Seen)> {
        self.objects.iter().map(|(_, object)| *object).zip(&self.seen)
    }

    /// All that is ready; waits for descriptors at most for `patience`.
    fn look(&self, patience: Option<Duration>) -> Result<Vec<usize>, Error> {
        let mut ready: Vec<usize> = self
            .objects
            .iter()
            .zip(&self.seen)
            .filter(|((_, object), seen)| object.is_ready(seen))
            .map(|((i, _), _)| *i)
            .collect();
        if !self.fds.is_empty() {
            let mut states = Vec::new();
            poll_readable(&self.fds, patience, &mut states).map_err(|e| Error::system(&"poll", &e))?;
            ready.extend(self.fd_places.iter().zip(states).filter(|(_, ready)| *ready).map(|(i, _)| *i));
            ready.sort_unstable();
        }
        Ok(ready)
    }

    fn wait(mut self, deadline: Option<Deadline>) -> Result<Vec<usize>, Error> {
        if self.objects.is_empty() {
            return self.look(deadline.map(Deadline::remaining));
        }
        let ready = self.look(Some(Duration::ZERO))?;
        if !ready.is_empty() || deadline.is_some_and(Deadline::passed) {
            return Ok(ready);
        }
        if self.fds.is_empty()
            && self.objects.len() <= FEW
            && spin::until(|| self.each().any(|(object, seen)| object.is_ready(seen)))
        {
            return self.look(None);
        }
        self.sleep(deadline)
    }

    fn sleep(&mut self, deadline: Option<Deadline>) -> Result<Vec<usize>, Error> {
        let me = robust::current()?;
        let arena = self.objects.iter().find_map(|(_, object)| object.arena());
        let mut list = Watchlist::new(me.tid());
        let mut note = None;
        let ready = loop {
            list.clear();
            for ((_, object), seen) in self.objects.iter().zip(&mut self.seen) {
                object.watch(seen, &mut list);
            }
            crash::point("watching.announced");
            // Pairs with the fence, whole or light, of who changes something and then looks whether somebody watches.
            let fenced = membarrier::heavy();
            let ready = self.look(Some(Duration::ZERO))?;
            if !ready.is_empty() {
                break ready;
            }
            if !self.each().all(|(object, seen)| object.is_watched(seen)) {
                continue;
            }
            // Not before: the fence takes long, and who is noted and announced counts as one who waits in earnest.
            if note.is_none() {
                note = arena.and_then(|arena| arena.note_any(self.objects.len() + self.fds.len(), deadline));
            }
            let pending = list.guarded.map(|word| me.set_baton(word));
            crash::point("watching.before_sleep");
            let slept = list.sleep(&self.fds, deadline, !fenced);
            crash::point("watching.after_sleep");
            self.each().for_each(|(object, seen)| object.woken(seen));
            crash::point("watching.told");
            pending.into_iter().for_each(|pending| me.restore_pending(pending));
            // Words that change all the time would hide that time is up.
            let timed_out = slept? || deadline.is_some_and(Deadline::passed);
            let ready = self.look(Some(Duration::ZERO))?;
            if !ready.is_empty() || timed_out {
                break ready;
            }
        };
        waiting::end(note, ready.is_empty());
        Ok(ready)
    }
}
