//! Threads that sleep for another: on words that are more than one system call takes, or while the other sleeps in poll(2).
//!
//! A relay is lent to one wait at a time. It sleeps on the words that it is given and on its own `state`, and tells when it has been woken; the waiter,
//! before it looks what has happened, makes every relay leave its words. So a wake that reaches a relay is a wake of the waiter, who passes it on if need be. A
//! relay is started when there is none to spare, and kept: a few for each process that waits so, asleep on a private word, and none where nobody does.
//!
//! | `state` | meaning | changed by |
//! |---|---|---|
//! | `IDLE` | nobody has it | the waiter, when it gives it back |
//! | `AT_WORK` | it sleeps on the words, or is about to | the waiter, when the words are there |
//! | `STOP` | it is to leave them | the waiter |
//! | `OUT` | it has left them | the relay |
//! | `END` | it is not needed any more | the waiter, instead of giving it back |
//!
//! All of it is private memory: a death takes everybody along. A plain fork leaves the relays behind; those of another life are not used.

use crate::error::Error;
use crate::watching::Entry;
use multiproc_sys::clock::Deadline;
use multiproc_sys::futex::{self, Wait};
use multiproc_sys::futex_waitv::{MAX_WORDS, Word, wait_any};
use multiproc_sys::poll::{Kick, poll_readable};
use multiproc_sys::{crash, robust, signal};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

const IDLE: u32 = 0;
const AT_WORK: u32 = 1;
const STOP: u32 = 2;
const OUT: u32 = 3;
const END: u32 = 4;

/// Relays that are kept.
const KEPT: usize = 32;
/// Words that the waiter itself sleeps on besides the states of its relays.
const OWN_WORDS: usize = 96;
/// How many relays a wait can have.
const MOST: usize = MAX_WORDS - OWN_WORDS;
/// Where a thread or a descriptor is missing, a wait looks again this often.
const SLICE: Duration = Duration::from_millis(10);
const STACK: usize = 128 << 10;

#[derive(Debug)]
struct Relay {
    state: AtomicU32,
    words: Mutex<Vec<Word<'static>>>,
    /// The waiter sleeps in poll(2), on this.
    kick: OnceLock<Kick>,
    polled: AtomicBool,
    life: u32,
}

static SPARE: Mutex<Vec<Arc<Relay>>> = Mutex::new(Vec::new());

impl Relay {
    /// A relay that nobody has; `None` where no thread can be started.
    fn hire() -> Option<Arc<Relay>> {
        // Not `lock`: a thread that a fork has left behind may have had it.
        if let Ok(mut spare) = SPARE.try_lock() {
            while let Some(relay) = spare.pop() {
                if relay.life == robust::life() {
                    return Some(relay);
                }
            }
        }
        let relay = Arc::new(Relay {
            state: AtomicU32::new(IDLE),
            words: Mutex::new(Vec::new()),
            kick: OnceLock::new(),
            polled: AtomicBool::new(false),
            life: robust::life(),
        });
        let its = Arc::clone(&relay);
        // Inherited by the thread, so that no signal is ever handled there.
        let _blocked = signal::block_all();
        let thread = thread::Builder::new().name("multiproc-wait".into()).stack_size(STACK);
        thread.spawn(move || its.run()).ok()?;
        Some(relay)
    }

    fn run(&self) {
        loop {
            // Acquire pairs with the Release in `begin`.
            match self.state.load(Ordering::Acquire) {
                AT_WORK => {
                    let mut words: Vec<Word<'_>> = self.words().clone();
                    words.push(Word { word: &self.state, expected: AT_WORK });
                    wait_any(&words, None, false);
                }
                // Before it had begun.
                STOP => {}
                END => return,
                other => {
                    futex::wait(&self.state, other, None);
                    continue;
                }
            }
            if self.polled.load(Ordering::Relaxed) {
                // Fails when the program has closed a descriptor that is not its own, of which poll(2) tells the waiter.
                let _ = self.kick.get().map(Kick::kick);
            }
            // Release pairs with the Acquire in `recall`: the words are left.
            self.state.store(OUT, Ordering::Release);
            futex::wake_all(&self.state);
        }
    }

    fn words(&self) -> std::sync::MutexGuard<'_, Vec<Word<'static>>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, words: Vec<Word<'static>>, polled: bool) {
        *self.words() = words;
        self.polled.store(polled, Ordering::Relaxed);
        self.state.store(AT_WORK, Ordering::Release);
        futex::wake_all(&self.state);
    }

    /// Returns when the relay has left its words.
    fn recall(&self) {
        if self.state.compare_exchange(AT_WORK, STOP, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            futex::wake_all(&self.state);
        }
        while self.state.load(Ordering::Acquire) != OUT {
            futex::wait(&self.state, STOP, None);
        }
    }

    /// What becomes readable when it has been woken.
    fn kick(&self) -> Option<&Kick> {
        if self.kick.get().is_none() {
            let _ = self.kick.set(Kick::new().ok()?);
        }
        self.kick.get().filter(|kick| kick.is_ours())
    }
}

/// The relays of one wait.
#[derive(Default)]
struct Crew(Vec<Arc<Relay>>);

impl Drop for Crew {
    fn drop(&mut self) {
        for relay in &self.0 {
            relay.recall();
            if relay.polled.load(Ordering::Relaxed) {
                let _ = relay.kick.get().map(Kick::drain);
            }
        }
        for relay in self.0.drain(..) {
            match SPARE.try_lock() {
                Ok(mut spare) if spare.len() < KEPT => {
                    relay.state.store(IDLE, Ordering::Release);
                    spare.push(relay);
                }
                // With its thread's own, its last handle goes, and its descriptor with that.
                _ => {
                    relay.state.store(END, Ordering::Release);
                    futex::wake_all(&relay.state);
                }
            }
        }
    }
}

/// Sleeps until one of the words is woken, or no longer as it was, or a descriptor is readable; true when time is up. `seconds` are compared last, by
/// each thread that sleeps.
pub(crate) fn sleep(
    entries: &[Entry],
    seconds: &[Word<'static>],
    fds: &[BorrowedFd<'_>],
    deadline: Option<Deadline>,
    mut sliced: bool,
) -> Result<bool, Error> {
    let mut left = entries;
    let mut crew = Crew::default();
    let mut own: Vec<Word<'_>> = if fds.is_empty() { take(&mut left, OWN_WORDS, seconds) } else { Vec::new() };
    while !left.is_empty() {
        // What finds no thread is looked at in slices.
        let relay = if crew.0.len() < MOST { Relay::hire() } else { None };
        let Some(relay) = relay else {
            sliced = true;
            break;
        };
        let polled = !fds.is_empty();
        sliced |= polled && relay.kick().is_none();
        relay.begin(take(&mut left, MAX_WORDS - 1, seconds), polled);
        crew.0.push(relay);
    }
    if fds.is_empty() {
        own.extend(crew.0.iter().map(|relay| Word { word: &relay.state, expected: AT_WORK }));
        return Ok(wait_any(&own, deadline, sliced) == Wait::TimedOut);
    }
    let mut all = fds.to_vec();
    all.extend(crew.0.iter().filter_map(|relay| relay.kick()).map(Kick::as_fd));
    let slice = if sliced {
        crash::sliced();
        Deadline::after(SLICE).map(|slice| slice.earlier(deadline))
    } else {
        deadline
    };
    let polled = poll_readable(&all, slice.map(Deadline::remaining), &mut Vec::new());
    polled.map_err(|e| Error::system(&"poll", &e))?;
    Ok(deadline.is_some_and(Deadline::passed))
}

/// The first entries, as many as give at most `most` words with `seconds` behind them.
fn take(entries: &mut &[Entry], most: usize, seconds: &[Word<'static>]) -> Vec<Word<'static>> {
    let mut words = Vec::with_capacity(most);
    while let Some((entry, rest)) = entries.split_first() {
        if words.len() + 2 + seconds.len() > most {
            break;
        }
        words.extend([Some(entry.word), entry.count].into_iter().flatten());
        *entries = rest;
    }
    words.extend(seconds);
    words
}
