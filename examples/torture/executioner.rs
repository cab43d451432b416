//! Whom `--auto` kills, and when: anybody, at moments that have nothing to do with what the workers do.

use std::time::{Duration, Instant};

/// The longest pause between two kills.
const PAUSE: Duration = Duration::from_millis(30);

/// Kills that are left.
#[derive(Debug)]
pub(crate) struct Executioner {
    left: u32,
    due: Instant,
    random: fastrand::Rng,
}

impl Executioner {
    /// So many kills, chosen by `seed`.
    pub(crate) fn new(kills: u32, seed: u64) -> Executioner {
        Executioner { left: kills, due: Instant::now(), random: fastrand::Rng::with_seed(seed) }
    }

    /// Whether nobody is to be killed any more.
    pub(crate) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// How long it rests; for ever when it is done.
    pub(crate) fn pause(&self) -> Duration {
        if self.is_done() { Duration::MAX } else { self.due.saturating_duration_since(Instant::now()) }
    }

    /// Kills one of so many, if it is time. `kill` says whether there was somebody to kill.
    pub(crate) fn act(&mut self, workers: usize, kill: impl FnOnce(usize) -> bool) {
        if self.is_done() || Instant::now() < self.due {
            return;
        }
        self.left -= u32::from(kill(self.random.usize(..workers)));
        self.due = Instant::now() + PAUSE.mul_f64(self.random.f64());
    }
}
