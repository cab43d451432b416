//! What came of one storm, as lines that its process prints and the proof reads.

use std::collections::BTreeMap;

/// Where victims die that have not begun, or are in no operation.
pub const STARTING: &str = "starting";
pub const BETWEEN: &str = "between two";
/// What ends itself in a task is in one, by order and not by chance.
pub const BY_ITSELF: &str = "a task, by itself";

/// See the module head.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub kills: u64,
    pub rounds: u64,
    pub seconds: f64,
    pub operations: u64,
    pub lost: u64,
    pub redelivered: u64,
    pub reported: u64,
    pub longest_gap_us: u64,
    /// What others used of the machine, in percent.
    pub others: u64,
    /// Deaths inside each operation.
    pub inside: BTreeMap<String, u64>,
    pub ways: BTreeMap<String, u64>,
    /// Microseconds, sorted.
    pub latencies: Vec<u64>,
    pub broken: Vec<String>,
}

impl Report {
    pub fn print(&self) {
        for (name, value) in [
            ("kills", self.kills),
            ("rounds", self.rounds),
            ("milliseconds", (self.seconds * 1e3) as u64),
            ("operations", self.operations),
            ("lost", self.lost),
            ("redelivered", self.redelivered),
            ("reported", self.reported),
            ("gap", self.longest_gap_us),
            ("others", self.others),
        ] {
            println!("figure {value} {name}");
        }
        self.inside.iter().for_each(|(name, n)| println!("inside {n} {name}"));
        self.ways.iter().for_each(|(name, n)| println!("way {n} {name}"));
        self.latencies.iter().for_each(|n| println!("latency {n} us"));
        self.broken.iter().flat_map(|text| text.lines()).for_each(|line| println!("broken 0 {line}"));
        println!("end 0 end");
    }

    /// Takes in a line; whether it was the last.
    pub fn read(&mut self, line: &str) -> bool {
        let mut words = line.splitn(3, ' ');
        let (Some(what), Some(number), Some(name)) = (words.next(), words.next(), words.next()) else { return false };
        let Ok(number) = number.parse::<u64>() else { return false };
        match (what, name) {
            ("figure", "kills") => self.kills = number,
            ("figure", "rounds") => self.rounds = number,
            ("figure", "milliseconds") => self.seconds = number as f64 / 1e3,
            ("figure", "operations") => self.operations = number,
            ("figure", "lost") => self.lost = number,
            ("figure", "redelivered") => self.redelivered = number,
            ("figure", "reported") => self.reported = number,
            ("figure", "gap") => self.longest_gap_us = number,
            ("figure", "others") => self.others = number,
            ("inside", name) => drop(self.inside.insert(name.to_owned(), number)),
            ("way", name) => drop(self.ways.insert(name.to_owned(), number)),
            ("latency", _) => self.latencies.push(number),
            ("broken", text) => self.broken.push(text.to_owned()),
            ("end", _) => return true,
            _ => {}
        }
        false
    }

    /// Adds another's figures.
    pub fn add(&mut self, other: &Report) {
        self.kills += other.kills;
        self.rounds += other.rounds;
        self.seconds += other.seconds;
        self.operations += other.operations;
        self.lost += other.lost;
        self.redelivered += other.redelivered;
        self.reported += other.reported;
        self.longest_gap_us = self.longest_gap_us.max(other.longest_gap_us);
        self.others = self.others.max(other.others);
        for (mine, theirs) in [(&mut self.inside, &other.inside), (&mut self.ways, &other.ways)] {
            theirs.iter().for_each(|(name, n)| *mine.entry(name.clone()).or_default() += n);
        }
        self.latencies.extend(&other.latencies);
        self.broken.extend(other.broken.iter().cloned());
    }

    /// Deaths inside some operation, and all that were not while starting.
    pub fn inside_of(&self) -> (u64, u64) {
        let all: u64 = self.inside.values().sum();
        let of = |name: &str| self.inside.get(name).copied().unwrap_or(0);
        (all - of(STARTING) - of(BETWEEN), all - of(STARTING))
    }

    /// `put 41 %, get 22 %`, those with most first.
    pub fn distribution(&self) -> String {
        let all: u64 = self.inside.values().sum::<u64>().max(1);
        let mut parts: Vec<_> = self.inside.iter().collect();
        parts.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        let parts: Vec<String> =
            parts.iter().map(|(name, n)| format!("{name} {n} ({:.1} %)", **n as f64 * 100.0 / all as f64)).collect();
        parts.join(", ")
    }
}
