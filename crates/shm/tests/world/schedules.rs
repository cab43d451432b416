//! Asking shuttle: scenes of more actors than loom can go through, in orders of steps that are drawn: half of them at random, half with few changes of who is preferred
//! (PCT: Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", 2010).
//!
//! `PROOF_SEED` repeats a run, `PROOF_LONG` draws 200,000 orders of each scene.

use super::{Without, set_world, shared, told};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The world's rules are statics.
static ONE: Mutex<()> = Mutex::new(());

/// Changes of preference in an order of the second kind.
const DEPTH: usize = 3;

fn seed() -> u64 {
    let given = std::env::var("PROOF_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64))
}

/// Orders of a scene.
pub(crate) fn how_many() -> usize {
    if std::env::var_os("PROOF_LONG").is_some() { 200_000 } else { 1_000 }
}

/// A number below `n`, by the order that is drawn.
pub(crate) fn below(n: u32) -> u32 {
    use shuttle::rand::Rng;
    shuttle::rand::thread_rng().gen_range(0..n)
}

fn run(
    without: Without,
    newest_first: bool,
    loud: bool,
    schedules: usize,
    scheduler: impl Scheduler + 'static,
    scene: fn(),
) -> Result<(), String> {
    set_world(without, newest_first);
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    // It knows SeqCst alone: what weaker orders allow is asked of loom.
    config.silence_warnings = true;
    config.failure_persistence = if loud { FailurePersistence::Print } else { FailurePersistence::None };
    let whole = move || {
        told::begin();
        scene();
        shared::clear();
    };
    let hook = std::panic::take_hook();
    if !loud {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let end = catch_unwind(AssertUnwindSafe(|| Runner::new(scheduler, config).run(whole)));
    std::panic::set_hook(hook);
    let ran = end.map_err(|why| {
        if loud {
            told::print();
        }
        let text = why.downcast_ref::<String>().cloned();
        text.or_else(|| why.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
    })?;
    assert_eq!(ran, schedules);
    Ok(())
}

/// Draws so many orders of a scene; what went wrong in the first in which something did.
fn draw(name: &str, without: Without, loud: bool, seed: u64, schedules: usize, scene: fn()) -> Result<(), String> {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (begin, half) = (Instant::now(), schedules / 2);
    println!("{name}: {schedules} orders, PROOF_SEED={seed}");
    for newest_first in [false, true] {
        let quarter = half / 2;
        run(without, newest_first, loud, quarter, RandomScheduler::new_from_seed(seed, quarter), scene)?;
        run(without, newest_first, loud, quarter, PctScheduler::new_from_seed(seed, DEPTH, quarter), scene)?;
    }
    println!("{name}: {:?}", begin.elapsed());
    Ok(())
}

/// All orders that are drawn are as they must be.
pub(crate) fn always(name: &str, scene: fn()) {
    draw(name, Without::Nothing, true, seed(), how_many(), scene).unwrap();
}

/// Without that rule one is not. These orders are the same each time, so that it is found each time.
pub(crate) fn missed(name: &str, without: Without, scene: fn()) -> String {
    let found = draw(name, without, false, 1, 40_000, scene).err();
    found.unwrap_or_else(|| panic!("{name}: {without:?} is not missed"))
}
