//! Asking loom: whether all outcomes of a scene are as they must be. It ends a model in which all threads wait: that is how a lost wake shows.

use super::{Without, set_world, told};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// The world's rules are statics.
static ONE: Mutex<()> = Mutex::new(());
static HANGS: AtomicBool = AtomicBool::new(false);

/// In which orders the kernel wakes sleepers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orders(&'static [bool]);

/// As they came, and the newest first.
pub(crate) const BOTH: Orders = Orders(&[false, true]);
/// As they came: where at most one sleeps on a word, or all are woken.
pub(crate) const ONE_ORDER: Orders = Orders(&[false]);

/// Whether all outcomes of `scene` are as they must be, in a world without that rule, with up to two preemptions.
pub(crate) fn holds(orders: Orders, without: Without, loud: bool, scene: impl Fn() + Sync + Send + Copy + 'static) -> bool {
    holds_within(2, orders, without, loud, scene)
}

pub(crate) fn holds_within(
    preemptions: usize,
    Orders(orders): Orders,
    without: Without,
    loud: bool,
    scene: impl Fn() + Sync + Send + Copy + 'static,
) -> bool {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    orders.iter().all(|&newest_first| {
        set_world(without, newest_first);
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        // Loom tells of a failure by a panic; its text is of no use for failures that are meant.
        let hook = std::panic::take_hook();
        if !loud {
            std::panic::set_hook(Box::new(|_| {}));
        }
        let end = catch_unwind(AssertUnwindSafe(|| {
            model.check(move || {
                told::begin();
                scene();
            });
        }));
        std::panic::set_hook(hook);
        let Err(why) = end else { return true };
        if loud {
            told::print();
        }
        let hangs = why.downcast_ref::<String>().is_some_and(|text| text.contains("deadlock"));
        HANGS.store(hangs, SeqCst);
        false
    })
}

/// Whether the last scene that did not hold was one in which somebody waits for ever.
pub(crate) fn it_was_a_hang() -> bool {
    HANGS.load(SeqCst)
}

/// Whether `scene`, in which somebody dies at the `k`-th step and which tells whether that was so, holds for each `k`; how many there are.
pub(crate) fn holds_at_each_step(
    preemptions: usize,
    orders: Orders,
    without: Without,
    loud: bool,
    scene: impl Fn(u32) -> bool + Sync + Send + Copy + 'static,
) -> Result<u32, u32> {
    for k in 1..200 {
        let died: &'static AtomicBool = Box::leak(Box::default());
        let once = move || {
            if scene(k) {
                died.store(true, SeqCst);
            }
        };
        if !holds_within(preemptions, orders, without, loud, once) {
            return Err(k);
        }
        if !died.load(SeqCst) {
            assert!(k > 2, "the victim has only {} steps", k - 1);
            return Ok(k - 1);
        }
    }
    panic!("the victim has no end");
}
