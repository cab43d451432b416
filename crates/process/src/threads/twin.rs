//! What a thread of [this kind](super) and its handles share, and the list of those that run.
//!
//! Nothing of it is in shared memory, and no other process sees it. A thread of this process cannot be killed alone; what it had locked when it ended, by a guard
//! that was forgotten, the kernel reports as it does for a process.

use crate::error::Error;
use crate::replaceable::Replaceable;
use crate::tree;
use multiproc_shm::Arena;
use multiproc_shm::raw::WaitWord;
use multiproc_shm::watching::{Seen, Watched, Watchlist};
use multiproc_sys::clock::Deadline;
use multiproc_sys::robust;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};

/// As a process's main thread has it. Address space only, until it is used.
const STACK: usize = 8 << 20;

/// Kicked when a thread's function has ended: who waits for threads among other things sleeps on one word for all of them.
static ENDS: WaitWord = WaitWord::new();

/// How far a thread has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    Returned,
    Panicked,
}

/// A thread as its handles know it.
#[derive(Debug)]
pub(crate) struct Twin {
    pub(crate) name: String,
    pub(crate) daemon: bool,
    /// The life of this process in which it was started: the child of a plain fork has none of its parent's threads.
    life: u32,
    state: Mutex<State>,
    changed: Condvar,
    /// Until somebody has waited for it.
    handle: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Running {
    all: Mutex<Vec<Arc<Twin>>>,
    /// One of them has ended, or a signal ends the program.
    news: Condvar,
}

static RUNNING: Replaceable<Running> = Replaceable::new();
static STARTED: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static MINE: RefCell<Option<Arc<Twin>>> = const { RefCell::new(None) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn running() -> &'static Running {
    loop {
        match RUNNING.get() {
            Some(running) => return running,
            None => drop(RUNNING.set(Running::default())),
        }
    }
}

/// `Thread-1`, `Thread-2`, and so on.
pub(crate) fn next_name() -> String {
    format!("Thread-{}", STARTED.fetch_add(1, Ordering::Relaxed) + 1)
}

/// The calling thread, if it is one of these.
pub(crate) fn current() -> Option<Arc<Twin>> {
    MINE.try_with(|mine| mine.borrow().clone()).ok().flatten().filter(|twin| twin.is_ours())
}

/// Whether the calling thread is one of these.
pub(crate) fn is_current() -> bool {
    MINE.try_with(|mine| mine.try_borrow().is_ok_and(|mine| mine.is_some())).unwrap_or(false)
}

/// Those that run, but for the calling one.
pub(crate) fn others() -> Vec<Arc<Twin>> {
    if robust::forked() {
        return Vec::new();
    }
    let me = current();
    let all = lock(&running().all);
    all.iter().filter(|twin| me.as_ref().is_none_or(|me| !Arc::ptr_eq(me, twin))).cloned().collect()
}

/// In a process that a plain fork made: the threads are its parent's.
pub(crate) fn begin_another_life() {
    RUNNING.forget();
}

/// A signal ends the program: nobody waits for threads any more.
pub(crate) fn look_again() {
    if let Some(running) = RUNNING.get() {
        // With the lock, so that nobody is between looking and waiting.
        drop(lock(&running.all));
        running.news.notify_all();
    }
}

/// Waits until no thread runs that the exit waits for, `enough` says so, or time is up. The names of those that are left.
pub(crate) fn await_all(deadline: Option<Deadline>, enough: impl Fn() -> bool) -> Vec<String> {
    let Some(running) = RUNNING.get().filter(|_| !robust::forked()) else { return Vec::new() };
    let me = current();
    let is_awaited = |twin: &Arc<Twin>| !twin.daemon && me.as_ref().is_none_or(|me| !Arc::ptr_eq(me, twin));
    let mut all = lock(&running.all);
    loop {
        let left: Vec<_> = all.iter().filter(|twin| is_awaited(twin)).map(|twin| twin.name.clone()).collect();
        if left.is_empty() || enough() || deadline.is_some_and(Deadline::passed) {
            return left;
        }
        all = match deadline {
            None => running.news.wait(all).unwrap_or_else(PoisonError::into_inner),
            Some(d) => running.news.wait_timeout(all, d.remaining()).unwrap_or_else(PoisonError::into_inner).0,
        };
    }
}

impl Twin {
    /// Starts a thread that runs `body` and ends as it says.
    pub(crate) fn start(
        name: String,
        daemon: bool,
        stack: Option<usize>,
        body: impl FnOnce() -> State + Send + 'static,
    ) -> Result<Arc<Twin>, Error> {
        // So that a fork of this process is noticed, also in a program that shares nothing.
        robust::current().map_err(|why| Error::from(multiproc_shm::Error::from(why)))?;
        let (state, changed) = (Mutex::new(State::Running), Condvar::new());
        // std refuses a zero byte.
        let shown = name.replace('\0', "\u{fffd}");
        let twin = Arc::new(Twin { name, daemon, life: robust::life(), state, changed, handle: Mutex::new(None) });
        let mut handle = lock(&twin.handle);
        lock(&running().all).push(Arc::clone(&twin));
        let its = Arc::clone(&twin);
        let started = thread::Builder::new().name(shown).stack_size(stack.unwrap_or(STACK)).spawn(move || {
            MINE.set(Some(Arc::clone(&its)));
            let state = body();
            its.end(state);
        });
        match started {
            Ok(started) => {
                *handle = Some(started);
                drop(handle);
                Ok(twin)
            }
            Err(e) => {
                drop(handle);
                twin.leave();
                Err(Error::because(crate::error::Kind::Resources, format!("thread {} could not be started", twin.name), e))
            }
        }
    }

    fn end(self: &Arc<Twin>, state: State) {
        *lock(&self.state) = state;
        self.changed.notify_all();
        ENDS.kick(u32::MAX);
        self.leave();
    }

    fn leave(self: &Arc<Twin>) {
        let running = running();
        lock(&running.all).retain(|one| !Arc::ptr_eq(one, self));
        running.news.notify_all();
    }

    /// False in a process that a plain fork made: the thread has remained in the parent.
    pub(crate) fn is_ours(&self) -> bool {
        robust::life() == self.life
    }

    /// How far it has come. In a process that a plain fork made, how far it had, and it runs no more.
    pub(crate) fn state(&self) -> State {
        if self.is_ours() { *lock(&self.state) } else { self.state.try_lock().map_or(State::Running, |state| *state) }
    }

    pub(crate) fn id(&self) -> Option<ThreadId> {
        lock(&self.handle).as_ref().map(|handle| handle.thread().id())
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.is_ours() && self.state() == State::Running
    }

    /// Waits until its function has returned or panicked and, then, until the thread is gone. How it ended; `None` when time is up, and when
    /// the thread has remained in another process.
    pub(crate) fn wait(&self, deadline: Option<Deadline>) -> Option<State> {
        if !self.is_ours() {
            return Some(self.state()).filter(|&state| state != State::Running);
        }
        let mut state = lock(&self.state);
        while *state == State::Running {
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(d) if d.passed() => return None,
                Some(d) => self.changed.wait_timeout(state, d.remaining()).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        let ended = *state;
        drop(state);
        // What it held by guards that it forgot is told to be lost when the thread has gone; that takes the destructors of its thread-locals, one of
        // which may be what is waiting here.
        let mut handle = lock(&self.handle);
        if handle.as_ref().is_some_and(|handle| handle.thread().id() != thread::current().id()) {
            // An error is a panic of such a destructor, which says nothing about the function.
            let _ = handle.take().map(JoinHandle::join);
        }
        Some(ended)
    }
}

impl Watched for Twin {
    fn arena(&self) -> Option<&'static Arena> {
        tree::existing()
    }

    /// Waiting for one that has remained in another process fails at once.
    fn is_ready(&self, _seen: &Seen) -> bool {
        !self.is_alive()
    }

    fn watch(&self, _seen: &mut Seen, list: &mut Watchlist) {
        list.watch(None, &ENDS);
    }

    fn woken(&self, _seen: &Seen) {}
}
