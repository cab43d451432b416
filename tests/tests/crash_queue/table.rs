//! Each step of an operation, and the table of what came of it.

use crate::common_queue::Watchdog;

/// What the table says of one operation in one scene.
#[derive(Default)]
pub(crate) struct Line {
    pub(crate) steps: u64,
    pub(crate) deaths: u64,
    pub(crate) failures: Vec<String>,
}

pub(crate) struct Table(pub(crate) Vec<(String, Line)>);

impl Table {
    pub(crate) fn print(&self) {
        println!("{:<58} {:>6} {:>7} {:>9}", "operation, scene", "steps", "deaths", "failures");
        for (name, line) in &self.0 {
            println!("{name:<58} {:>6} {:>7} {:>9}", line.steps, line.deaths, line.failures.len());
        }
        for failure in self.failures() {
            println!("{failure}");
        }
        let sum = |f: fn(&Line) -> u64| self.0.iter().map(|(_, l)| f(l)).sum::<u64>();
        println!("{:<58} {:>6} {:>7} {:>9}", "all", sum(|l| l.steps), sum(|l| l.deaths), sum(|l| l.failures.len() as u64));
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.0.iter().flat_map(|(name, l)| l.failures.iter().map(move |f| format!("{name}: {f}"))).collect()
    }
}

/// More than any scene puts: what is counted wrong shows when a message of just that size does not fit in the end.
pub(crate) const BYTES: u64 = 1 << 15;
/// Of an unbounded queue in an arena of the usual size.
pub(crate) const SEGMENT: usize = 256 << 10;
/// Steps beyond these do not exist; an operation that passes more has a loop.
pub(crate) const MAX_STEPS: u64 = 120;

pub(crate) fn each_step(name: String, mut at: impl FnMut(u64) -> Result<bool, String>) -> (String, Line) {
    let mut line = Line::default();
    for k in 1..=MAX_STEPS {
        Watchdog::beat(|| format!("{name}, step {k}"));
        line.steps += 1;
        match at(k) {
            Ok(true) => line.deaths += 1,
            Ok(false) => break,
            Err(why) => {
                line.failures.push(format!("step {k}: {why}"));
                // Helpers may hang: nothing that follows would say anything.
                break;
            }
        }
    }
    (name, line)
}

pub(crate) fn wanted(name: &str) -> bool {
    std::env::var("CRASH_QUEUE_ONLY").map_or(true, |only| name.contains(&only))
}
