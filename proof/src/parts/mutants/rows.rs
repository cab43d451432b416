//! The tables in the sources: what is left behind by who dies in the middle.

use super::{Mutant, spared};
use crate::tally::Tally;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A row of such a table.
pub struct Row {
    /// Below `crates`.
    pub file: String,
    pub first: String,
    pub second: String,
}

impl Row {
    /// Whether it is named by the end of its file's name and its first cell, or, where others begin so as well, the first two.
    fn is(&self, &(file, name): &(&str, &str)) -> bool {
        let Row { first, second, .. } = self;
        let named = *first == name || name.strip_prefix(first).and_then(|rest| rest.strip_prefix(" | ")) == Some(second);
        named && self.file.strip_suffix(file).is_some_and(|before| before.is_empty() || before.ends_with('/'))
    }
}

/// All rows, file by file.
pub fn all(home: &Path) -> io::Result<Vec<Row>> {
    let crates = home.join("crates");
    let mut files = Vec::new();
    for entry in fs::read_dir(&crates)? {
        rust_files(&entry?.path().join("src"), &mut files)?;
    }
    files.sort();
    let mut rows = Vec::new();
    for path in files {
        let file = path.strip_prefix(&crates).unwrap_or(&path).to_string_lossy().into_owned();
        rows.extend(rows_of(&fs::read_to_string(&path)?).map(|(first, second)| Row { file: file.clone(), first, second }));
    }
    Ok(rows)
}

/// All below a folder.
pub fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The first two cells of each.
fn rows_of(text: &str) -> impl Iterator<Item = (String, String)> {
    let mut rows = Vec::new();
    let mut of_death = None;
    for line in text.lines() {
        let doc = line.trim_start().strip_prefix("//!").or_else(|| line.trim_start().strip_prefix("///"));
        let Some(cells) = doc.and_then(|doc| doc.trim().strip_prefix('|')) else {
            of_death = None;
            continue;
        };
        let cell = |i| cells.split('|').nth(i).unwrap_or_default().trim().to_owned();
        match of_death {
            // The table's head.
            None => of_death = Some(["dies", "killed"].iter().any(|word| cells.contains(word))),
            Some(true) if !cells.starts_with("--") => rows.push((cell(0), cell(1))),
            Some(_) => {}
        }
    }
    rows.into_iter()
}

/// Whether each row has a mutant or a reason, and each mutant's and reason's row is there.
pub fn check(home: &Path, mutants: &[&Mutant], tally: &mut Tally) {
    let rows = match all(home) {
        Ok(rows) => rows,
        Err(e) => return tally.broken(format!("the tables were not read: {e}")),
    };
    let broken: Vec<_> = mutants.iter().flat_map(|m| m.rows).collect();
    let spared = || spared::ALL.iter().flat_map(|(file, rows)| rows.iter().map(move |(first, _)| (*file, *first)));
    for named in broken.iter().map(|row| **row).chain(spared()) {
        let count = rows.iter().filter(|row| row.is(&named)).count();
        tally.check(count == 1, || format!("`{}` stands {count} times in the tables of {}", named.1, named.0));
    }
    let (mut with, mut without) = (0, 0);
    for row in &rows {
        let has_mutant = broken.iter().any(|named| row.is(named));
        let is_spared = spared().any(|named| row.is(&named));
        with += u32::from(has_mutant);
        without += u32::from(is_spared);
        let Row { file, first, .. } = row;
        tally.check(has_mutant || is_spared, || format!("no mutant breaks the row `{first}` of {file}"));
        tally.check(!(has_mutant && is_spared), || format!("the row `{first}` of {file} has a mutant and a reason to have none"));
    }
    tally.note(format!("{} rows of tables: {with} have a mutant, {without} a reason to have none", rows.len()));
}
