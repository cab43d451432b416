//! What came of a part: rows of figures, and what does not hold.

use crate::plan::Plan;
use std::fmt;
use std::time::Duration;

/// In the short form, which may run beside others, only a figure so many times above its bar is not held.
const COARSE: u32 = 10;

/// The table of one part.
#[derive(Debug, Default)]
pub struct Tally {
    columns: Vec<&'static str>,
    rows: Vec<(String, Vec<String>)>,
    notes: Vec<String>,
    /// Something was not done.
    skipped: bool,
    broken: Vec<String>,
}

impl Tally {
    /// An empty table with these columns after the name of a row.
    pub fn new(columns: &[&'static str]) -> Tally {
        Tally { columns: columns.to_vec(), ..Tally::default() }
    }

    /// One more row.
    pub fn row(&mut self, name: impl Into<String>, cells: impl IntoIterator<Item = impl ToString>) {
        self.rows.push((name.into(), cells.into_iter().map(|c| c.to_string()).collect()));
    }

    /// A line below the table.
    pub fn note(&mut self, line: impl Into<String>) {
        self.notes.push(line.into());
    }

    /// What was not done since there is no tool for it here, and why: a line below the table.
    pub fn skip(&mut self, line: impl Into<String>) {
        self.note(line);
        self.skipped = true;
    }

    /// A promise that did not hold.
    pub fn broken(&mut self, what: impl Into<String>) {
        self.broken.push(what.into());
    }

    /// Notes what is broken unless it holds.
    pub fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(what());
        }
    }

    /// What is broken in another one is broken here.
    pub fn take_broken(&mut self, other: Tally) {
        self.broken.extend(other.broken);
    }

    /// A figure that is above its bar: in the long form, which has the machine to itself, not held; in the short one a line below the table, and not held if it is ten times as
    /// much.
    pub fn bar(&mut self, plan: &Plan, what: impl fmt::Display, figure: Duration, bar: Duration) {
        let said = || format!("{what}: {figure:?}, and its bar is {bar:?}");
        match (figure > bar, plan.long || figure > bar * COARSE) {
            (false, _) => {}
            (true, true) => self.broken.push(said()),
            (true, false) => self.notes.push(format!("above the bar: {}", said())),
        }
    }

    /// What did not hold.
    pub fn all_broken(&self) -> &[String] {
        &self.broken
    }

    /// Whether everything held.
    pub fn holds(&self) -> bool {
        self.broken.is_empty()
    }

    /// Whether all of it was done.
    pub fn is_whole(&self) -> bool {
        !self.skipped
    }

    /// What came of it, in a word or some.
    pub fn verdict(&self) -> &'static str {
        match (self.holds(), self.skipped) {
            (false, _) => "BROKEN",
            (true, false) => "holds",
            (true, true) if self.rows.is_empty() => "skipped",
            (true, true) => "holds, as far as it was tried,",
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let width = |i: usize| {
            let cells = self.rows.iter().filter_map(|(_, cells)| cells.get(i)).map(|c| c.chars().count());
            cells.chain([self.columns[i].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        if !self.rows.is_empty() {
            write!(f, "{:first$}", "")?;
            for (column, width) in self.columns.iter().zip(&widths) {
                write!(f, "  {column:>width$}")?;
            }
            writeln!(f)?;
        }
        for (name, cells) in &self.rows {
            write!(f, "{name:first$}")?;
            for (cell, width) in cells.iter().zip(&widths) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        for broken in &self.broken {
            writeln!(f, "BROKEN: {broken}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it holds, and how many notes there are.
    fn judged(long: bool, figure: u64) -> (bool, usize) {
        let mut tally = Tally::new(&[]);
        tally.bar(&Plan { long, seed: 1 }, "a wait", Duration::from_micros(figure), Duration::from_micros(50));
        (tally.holds(), tally.notes.len())
    }

    #[test]
    fn a_figure_above_its_bar_is_broken_in_the_long_form_and_far_above_it_in_the_short_one() {
        assert_eq!([50, 51].map(|figure| judged(true, figure)), [(true, 0), (false, 0)]);
        assert_eq!([50, 51, 500, 501].map(|figure| judged(false, figure)), [(true, 0), (true, 1), (true, 1), (false, 0)]);
    }

    #[test]
    fn what_is_said_of_a_figure_has_it_and_its_bar() {
        let mut tally = Tally::new(&[]);
        let plan = Plan { long: false, seed: 1 };
        tally.bar(&plan, "a wait", Duration::from_micros(60), Duration::from_micros(50));
        tally.bar(&plan, "a wait", Duration::from_millis(60), Duration::from_micros(50));
        let said = "above the bar: a wait: 60µs, and its bar is 50µs\nBROKEN: a wait: 60ms, and its bar is 50µs\n";
        assert_eq!(tally.to_string(), said);
    }
}
