//! What came of a part: rows of figures, and what does not hold.

use crate::plan::Plan;
use std::fmt;

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

    /// A figure that is above its bar: a line below the table, and in the long form, which has the machine to itself, not held.
    pub fn bar(&mut self, plan: &Plan, met: bool, what: impl FnOnce() -> String) {
        match (met, plan.long) {
            (true, _) => {}
            (false, true) => self.broken.push(what()),
            (false, false) => self.notes.push(format!("above the bar: {}", what())),
        }
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
