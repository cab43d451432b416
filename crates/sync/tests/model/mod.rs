//! What the models of this floor's words share: the atomics are loom's, the kernel's futex is a lock and a list, and a thread may die at any of
//! its crash points, as often as there are.

use loom::sync::atomic::AtomicU32;
use loom::sync::{Condvar, Mutex, MutexGuard};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32 as StdU32, Ordering::SeqCst};

/// What the modelled files call `crate::beneath`.
#[allow(unused_imports)]
pub(crate) mod words {
    pub(crate) use super::{crash, futex, spin};
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
    pub(crate) const SLOTS: usize = 3;

    #[derive(Clone, Copy)]
    pub(crate) struct Deadline;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Wait {
        LookAgain,
        TimedOut,
    }
}

/// The word of each sleeper and what wakes it, oldest first.
type Sleepers = Vec<(usize, &'static Sleeper)>;

/// Whether it is woken.
type Sleeper = (Mutex<bool>, Condvar);

loom::lazy_static! {
    static ref KERNEL: Mutex<Sleepers> = Mutex::new(Vec::new());
}

loom::thread_local! {
    static STEPS_LEFT: Cell<u32> = Cell::new(u32::MAX);
}

fn sleepers() -> MutexGuard<'static, Sleepers> {
    KERNEL.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) mod futex {
    use super::words::{Deadline, Wait};
    use super::*;

    pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Option<Deadline>) -> Wait {
        let mut sleepers = sleepers();
        // Relaxed: under the lock that a waker takes after its change.
        if word.load(loom::sync::atomic::Ordering::Relaxed) != expected {
            return Wait::LookAgain;
        }
        if deadline.is_some() {
            return Wait::TimedOut;
        }
        // Leaked: a word of each outcome.
        let me: &'static Sleeper = Box::leak(Box::new((Mutex::new(false), Condvar::new())));
        sleepers.push((std::ptr::from_ref(word) as usize, me));
        drop(sleepers);
        let mut woken = me.0.lock().unwrap();
        while !*woken {
            woken = me.1.wait(woken).unwrap();
        }
        Wait::LookAgain
    }

    pub(crate) fn wake(word: &AtomicU32, count: u32) -> usize {
        let (mut sleepers, mut woken) = (sleepers(), 0);
        let address = std::ptr::from_ref(word) as usize;
        sleepers.retain(|&(at, sleeper)| {
            let stays = at != address || woken == count as usize;
            if !stays {
                woken += 1;
                *sleeper.0.lock().unwrap() = true;
                sleeper.1.notify_one();
            }
            stays
        });
        woken
    }
}

pub(crate) mod spin {
    pub(crate) fn until(mut done: impl FnMut() -> bool) -> bool {
        done()
    }
}

pub(crate) mod crash {
    use super::*;

    pub(crate) fn point(id: &'static str) {
        ORDER.lock().unwrap_or_else(PoisonError::into_inner).push((loom::thread::current().id(), id));
        let left = STEPS_LEFT.with(Cell::get);
        if left == 1 {
            resume_unwind(Box::new(Dead));
        }
        if left != u32::MAX {
            STEPS_LEFT.with(|steps| steps.set(left - 1));
        }
    }
}

struct Dead;

/// The steps of the outcome that is being tried.
static ORDER: std::sync::Mutex<Vec<(loom::thread::ThreadId, &str)>> = std::sync::Mutex::new(Vec::new());

/// Runs `body`, which dies at its `k`-th step if it has that many; whether it did.
pub(crate) fn mortal(k: u32, body: impl FnOnce()) -> bool {
    STEPS_LEFT.with(|steps| steps.set(k));
    let ended = catch_unwind(AssertUnwindSafe(body));
    STEPS_LEFT.with(|steps| steps.set(u32::MAX));
    match ended {
        Ok(()) => false,
        Err(payload) if payload.is::<Dead>() => true,
        Err(other) => resume_unwind(other),
    }
}

/// Whether there is an order of steps in which somebody waits for ever, with up to two preemptions.
pub(crate) fn goes_wrong(model: impl Fn() + Sync + Send + 'static) -> bool {
    goes_wrong_within(2, model)
}

fn goes_wrong_within(preemptions: usize, model: impl Fn() + Sync + Send + 'static) -> bool {
    let order = || ORDER.lock().unwrap_or_else(PoisonError::into_inner);
    let model = move || {
        order().clear();
        model();
    };
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    let Err(why) = catch_unwind(AssertUnwindSafe(|| builder.check(model))) else { return false };
    let is_deadlock = why.downcast_ref::<String>().is_some_and(|text| text.contains("deadlock"));
    println!("{:?}", order());
    if is_deadlock { true } else { resume_unwind(why) }
}

/// Tries a death at each step, up to the first that is never reached. Whether it goes wrong at any.
pub(crate) fn goes_wrong_at_a_step(model: fn(u32) -> bool) -> bool {
    goes_wrong_at_a_step_within(2, model)
}

/// As [`goes_wrong_at_a_step`], with fewer preemptions, for models of more steps.
#[allow(dead_code)]
pub(crate) fn goes_wrong_at_a_step_within(preemptions: usize, model: fn(u32) -> bool) -> bool {
    for k in 1..100 {
        let died: &'static AtomicBool = Box::leak(Box::default());
        if goes_wrong_within(preemptions, move || {
            if model(k) {
                died.store(true, SeqCst);
            }
        }) {
            return true;
        }
        if !died.load(SeqCst) {
            assert!(k > 2, "the victim has only {} steps", k - 1);
            STEPS.fetch_add(k - 1, SeqCst);
            return false;
        }
    }
    panic!("the victim has no end");
}

/// Steps at which somebody has died in some model.
pub(crate) static STEPS: StdU32 = StdU32::new(0);
