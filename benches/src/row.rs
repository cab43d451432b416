//! One row of the figures: several subjects measured in turn, compared with bars.
//!
//! Rounds are interleaved (every subject once, then every subject again), so that a disturbance of
//! the machine meets all of them. Each subject's figure is the median of its rounds. A ratio is the
//! median of the ratios within a round, for a machine that changes in mid-run would make the
//! quotient of two medians compare its one state with its other.

use crate::machine;
use std::{env, error::Error, fmt, process::ExitCode};

/// The subject that the bars judge.
pub const OURS: &str = "multiproc";

/// One figure, or why there is none: the subject is then skipped with that message.
pub type Measured = Result<f64, Box<dyn Error>>;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Messages per second.
    PerSecond,
    /// Nanoseconds.
    Nanos,
    /// Microseconds.
    Micros,
    /// Kibibytes.
    KiB,
    /// A plain number.
    Count,
}

impl Unit {
    fn show(self, x: f64) -> String {
        match self {
            Unit::PerSecond if x >= 1e6 => format!("{:.2} M/s", x / 1e6),
            Unit::PerSecond => format!("{:.1} k/s", x / 1e3),
            Unit::Nanos => format!("{x:.2} ns"),
            Unit::Micros => format!("{x:.1} us"),
            Unit::KiB => format!("{x:.0} KiB"),
            Unit::Count => format!("{x:.0}"),
        }
    }
}

/// What [`OURS`] has to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// At least this many times the figure of the named subject.
    AtLeast(f64, &'static str),
    /// At most this many times the figure of the named subject.
    AtMost(f64, &'static str),
    /// At most this figure.
    Limit(f64),
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Met(String),
    Missed(String),
    /// Our own figure is missing: nothing is proven, so the gate stays shut.
    Absent,
    /// The baseline is missing on this machine: nothing to compare with.
    Skipped,
}

impl Verdict {
    fn compare(value: f64, met: bool, shown: String) -> Verdict {
        if met && value.is_finite() { Verdict::Met(shown) } else { Verdict::Missed(shown) }
    }
}

struct Subject<'a> {
    name: &'static str,
    measure: Box<dyn FnMut() -> Measured + 'a>,
    figures: Vec<f64>,
    skipped: Option<String>,
}

/// A row under construction; [`Row::run`] measures and prints it.
pub struct Row<'a> {
    name: &'static str,
    hypothesis: &'static str,
    unit: Unit,
    subjects: Vec<Subject<'a>>,
    bars: Vec<Bar>,
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Row<'a> {
    /// A row with its name and, in one sentence, what we believe before measuring.
    pub fn new(name: &'static str, hypothesis: &'static str, unit: Unit) -> Row<'a> {
        Row { name, hypothesis, unit, subjects: Vec::new(), bars: Vec::new() }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Adds a subject; `measure` is called once per round.
    pub fn subject(mut self, name: &'static str, measure: impl FnMut() -> Measured + 'a) -> Self {
        self.subjects.push(Subject { name, measure: Box::new(measure), figures: Vec::new(), skipped: None });
        self
    }

    /// Adds a bar for [`OURS`].
    pub fn bar(mut self, bar: Bar) -> Self {
        self.bars.push(bar);
        self
    }

    /// Measures all subjects in interleaved rounds, prints the tables, and says whether every bar
    /// that this machine can judge is met.
    pub fn run(mut self, rounds: usize) -> bool {
        println!("\n{}: {}", self.name, self.hypothesis);
        let load = machine::load_average();
        let mut round_trips = Vec::new();
        for _ in 0..rounds {
            round_trips.extend(machine::round_trip());
            for s in self.subjects.iter_mut().filter(|s| s.skipped.is_none()) {
                match (s.measure)() {
                    Ok(x) => s.figures.push(x),
                    Err(e) => s.skipped = Some(e.to_string()),
                }
            }
        }
        println!("  medians of {rounds} rounds; load average {load} before, {} after", machine::load_average(),);
        if let Some([low, middle, high]) = spread(&round_trips) {
            println!("  cache line round trip {middle:.0} ns ({low:.0} to {high:.0})");
        }
        self.print_subjects();
        let verdicts: Vec<Verdict> = self.bars.iter().map(|b| self.judge(b)).collect();
        self.print_bars(&verdicts);
        !verdicts.iter().any(|v| matches!(v, Verdict::Missed(_) | Verdict::Absent))
    }

    /// All figures of a subject that is there and was not skipped.
    fn figures(&self, name: &str) -> Option<&[f64]> {
        let s = self.subjects.iter().find(|s| s.name == name)?;
        (s.skipped.is_none() && !s.figures.is_empty()).then_some(&s.figures)
    }

    /// Ours divided by the figure of another subject.
    fn ratio(&self, of: &str) -> Option<f64> {
        let pairs = self.figures(OURS)?.iter().zip(self.figures(of)?);
        median(&pairs.map(|(ours, base)| ours / base).collect::<Vec<_>>())
    }

    fn judge(&self, bar: &Bar) -> Verdict {
        let Some(ours) = self.figures(OURS).and_then(median) else {
            return Verdict::Absent;
        };
        match *bar {
            Bar::Limit(limit) => Verdict::compare(ours, ours <= limit, self.unit.show(ours)),
            Bar::AtLeast(k, of) => self.ratio(of).map_or(Verdict::Skipped, |r| Verdict::compare(r, r >= k, format!("{r:.2} x"))),
            Bar::AtMost(k, of) => self.ratio(of).map_or(Verdict::Skipped, |r| Verdict::compare(r, r <= k, format!("{r:.2} x"))),
        }
    }

    fn print_subjects(&self) {
        println!("  {:<20} {:>12} {:>12} {:>12} {:>12}", "subject", "median", "lowest", "highest", "ours / it");
        for s in &self.subjects {
            if let Some(why) = &s.skipped {
                println!("  {:<20} skipped: {why}", s.name);
            } else if let Some(figures) = spread(&s.figures) {
                let [low, middle, high] = figures.map(|x| self.unit.show(x));
                let ratio = self.ratio(s.name).filter(|r| r.is_finite());
                let ratio = ratio.map_or("-".into(), |r| format!("{r:.2} x"));
                println!("  {:<20} {middle:>12} {low:>12} {high:>12} {ratio:>12}", s.name);
            }
        }
    }

    fn print_bars(&self, verdicts: &[Verdict]) {
        for (bar, verdict) in self.bars.iter().zip(verdicts) {
            let wanted = match *bar {
                Bar::AtLeast(k, of) => format!("at least {k} x {of}"),
                Bar::AtMost(k, of) => format!("at most {k} x {of}"),
                Bar::Limit(limit) => format!("at most {}", self.unit.show(limit)),
            };
            let (shown, verdict) = match verdict {
                Verdict::Met(shown) => (shown.as_str(), "bar met"),
                Verdict::Missed(shown) => (shown.as_str(), "NOT met"),
                Verdict::Absent => ("-", "NOT met (no figure of ours)"),
                Verdict::Skipped => ("-", "not judged (baseline skipped)"),
            };
            println!("  bar: {OURS} {wanted:<32} {shown:>12}  {verdict}");
        }
    }
}

/// The exit status of a bench: success, except when `MULTIPROC_BENCH_GATE=1` and a row missed a bar.
pub fn exit(rows: &[bool]) -> ExitCode {
    let gate = env::var_os("MULTIPROC_BENCH_GATE").is_some_and(|v| v == "1");
    if gate && rows.contains(&false) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The middle figure, or the mean of the two middle ones.
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

/// Lowest, median and highest.
fn spread(figures: &[f64]) -> Option<[f64; 3]> {
    let low = figures.iter().copied().reduce(f64::min)?;
    let high = figures.iter().copied().reduce(f64::max)?;
    Some([low, median(figures)?, high])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: Option<f64>, base: Measured) -> Row<'static> {
        let mut base = Some(base);
        let row = Row::new("row", "A row.", Unit::Count).subject("base", move || base.take().expect("one round"));
        match ours {
            Some(x) => row.subject(OURS, move || Ok(x)),
            None => row,
        }
    }

    #[test]
    fn median_of_odd_even_none() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_machine_that_changes_in_mid_run_does_not_spoil_the_ratio() {
        // Five times faster from the third round on, after the base and before ours.
        let figures = |mut f: [f64; 5]| {
            f.reverse();
            let mut f = f.to_vec();
            move || f.pop().ok_or_else(|| "no more".into())
        };
        let row = Row::new("row", "A row.", Unit::Count)
            .subject("base", figures([1.0, 1.0, 1.0, 5.0, 5.0]))
            .subject(OURS, figures([2.0, 2.0, 10.0, 10.0, 10.0]));
        assert!(row.bar(Bar::AtMost(2.0, "base")).run(5));
    }

    #[test]
    fn bars_judge_both_directions() {
        let run = |ours, bar| row(Some(ours), Ok(2.0)).bar(bar).run(1);
        assert!(run(24.0, Bar::AtLeast(12.0, "base")));
        assert!(!run(23.0, Bar::AtLeast(12.0, "base")));
        assert!(run(6.0, Bar::AtMost(3.0, "base")));
        assert!(!run(6.1, Bar::AtMost(3.0, "base")));
        assert!(run(6.0, Bar::Limit(6.0)));
        assert!(!run(7.0, Bar::Limit(6.0)));
    }

    #[test]
    fn a_missing_figure_of_ours_is_a_miss_a_skipped_baseline_is_not() {
        let bar = Bar::AtLeast(1.0, "base");
        assert!(!row(None, Ok(2.0)).bar(bar).run(1));
        assert!(row(Some(1.0), Err("no python3".into())).bar(bar).run(1));
    }
}
