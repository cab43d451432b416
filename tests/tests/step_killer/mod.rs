//! What the step killers of locks, conditions and their like have in common: a victim that dies at its k-th step, for every k until it survives, while others wait for
//! it in threads of the test; and the look at what is left over.
#![allow(dead_code, unreachable_pub)]

mod table;

use multiproc::testing;
use std::fmt::Debug;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};
use std::{fs, io, process};
#[allow(unused_imports)]
pub use table::{Line, Table, each_pair, each_step, wanted};

/// Longer than anything takes that is waited for.
pub const LIMIT: Duration = Duration::from_secs(40);

/// Each test looks at the whole arena, so they run one after the other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

static DOING: Mutex<String> = Mutex::new(String::new());
static BEATS: AtomicU32 = AtomicU32::new(0);

fn what_goes_on() -> String {
    DOING.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Notes what goes on, for whoever reads of a failure; nothing: a test is over. What does not go on for a minute is ended and named.
pub fn doing(what: impl FnOnce() -> String) {
    *DOING.lock().unwrap_or_else(PoisonError::into_inner) = what();
    if BEATS.fetch_add(1, SeqCst) == 0 {
        thread::spawn(|| {
            let mut seen = 0;
            loop {
                thread::sleep(Duration::from_secs(60));
                let now = BEATS.load(SeqCst);
                if now == seen && !what_goes_on().is_empty() {
                    // Not by eprintln!, which libtest captures, and drops at an abort.
                    let text = format!("nobody goes on: {}\n", what_goes_on());
                    let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
                    process::abort();
                }
                seen = now;
            }
        });
    }
}

pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < end, "never: {what}; {}", what_goes_on());
        thread::sleep(Duration::from_micros(50));
    }
}

pub fn id(handle: &impl Debug) -> u32 {
    let text = format!("{handle:?}");
    let digits = text.split_once("id: ").expect("a handle's Debug names its id").1;
    digits.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// The state letter in a `stat` file of /proc.
pub fn state(path: &str) -> Option<char> {
    fs::read_to_string(path).ok()?.rsplit_once(')')?.1.trim_start().chars().next()
}

pub fn is_dead(pid: u32) -> bool {
    matches!(state(&format!("/proc/{pid}/stat")), None | Some('Z' | 'X'))
}

/// Until the process sleeps in an operation on that object, or is dead.
pub fn asleep_or_dead(pid: u32, object: u32) {
    eventually("the victim sleeps or dies", || {
        is_dead(pid) || testing::waits_for(pid) == Ok(Some(object)) && state(&format!("/proc/{pid}/stat")) == Some('S')
    });
}

/// A thread of this process that waits for something: never killed, and must go on. Returns when it sleeps.
pub fn waiter<'s, R: Send + 's>(
    scope: &'s thread::Scope<'s, '_>,
    wait: impl FnOnce() -> R + Send + 's,
) -> ScopedJoinHandle<'s, R> {
    let (tell, told) = mpsc::channel();
    let handle = scope.spawn(move || {
        // SAFETY: no arguments, cannot fail.
        tell.send(unsafe { libc::gettid() }).unwrap();
        wait()
    });
    let stat = format!("/proc/self/task/{}/stat", told.recv().unwrap());
    eventually("a waiter sleeps", || {
        let asleep = || state(&stat) == Some('S');
        handle.is_finished()
            || asleep() && {
                thread::sleep(Duration::from_micros(100));
                asleep()
            }
    });
    handle
}

/// What it comes to, which must not take for ever.
pub fn must_go_on<R>(waiter: ScopedJoinHandle<'_, R>) -> R {
    eventually("a waiter goes on", || waiter.is_finished());
    waiter.join().unwrap()
}

/// What stands when nothing is going on.
pub struct Rest(multiproc_tests::Rest);

impl Rest {
    pub fn now() -> Rest {
        Rest(multiproc_tests::Rest::now())
    }

    pub fn leaves_nothing(&self) {
        let end = Instant::now() + LIMIT;
        while !self.0.is_again() {
            assert!(Instant::now() < end, "left over: {}; {}", self.0, what_goes_on());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// As [`each_step`], with nothing left over after any of the runs. `run` tells how many steps there are when none of them was deadly.
pub fn at_every_step(name: String, mut run: impl FnMut(u64) -> Result<u64, ()>) -> Line {
    // What the first run leaves behind for good, such as tables.
    let _ = run(1);
    let rest = Rest::now();
    each_step(name, |k| {
        let ended = run(k);
        rest.leaves_nothing();
        Ok(ended.is_err())
    })
}
