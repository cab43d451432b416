//! Mutants: the product's own source with one rule left out, which a test must miss. What no test misses is a hole in the tests.
//!
//! Each row of each table "who dies here leaves that" in the sources has a mutant in [`list`], or stands in [`spared`] with the reason why it has none; [`rows`] reads the
//! tables and tells of those that have neither. A mutant is a piece of a file that is exchanged for another in a copy of the sources ([`tree`]), and names the tests that are
//! there to miss it, the cheapest first ([`trial`]). It is caught when one of them fails or hangs.
//!
//! The short form looks whether each piece is still there, once, and each row is seen to; and tries one mutant that a model or a unit test catches.
//! `PROOF_MUTANT=name` tries those whose name, or file's name, contains that, or one of several words with commas between them.

mod list;
mod rows;
mod spared;
mod tree;
mod trial;

use super::Part;
use crate::plan::Plan;
use crate::tally::Tally;
use std::path::Path;
use std::time::Instant;
use tree::Tree;
use trial::{Baselines, Outcome, Test};

pub const PART: Part = Part { name: "mutants", what: "the sources with one rule left out: a test misses it", run };

/// A piece of the source, and what it is exchanged for.
pub struct Mutant {
    /// What is left out, in a few words.
    pub name: &'static str,
    /// Below `crates`.
    pub file: &'static str,
    /// The rows of tables that it breaks: the end of the file's name, and the first cell.
    pub rows: &'static [(&'static str, &'static str)],
    /// Stands once in the file.
    pub from: &'static str,
    pub to: &'static str,
    /// The cheapest first.
    pub by: &'static [Test],
}

/// The workspace.
const HOME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn run(plan: &Plan) -> Tally {
    let mut tally = Tally::new(&["tests", "caught by", "s"]);
    let all = list::all();
    let wanted = std::env::var("PROOF_MUTANT").ok();
    check_list(&all, &mut tally);
    if wanted.is_none() {
        rows::check(Path::new(HOME), &all, &mut tally);
    }
    if !tally.holds() {
        return tally;
    }
    let chosen: Vec<&Mutant> = match &wanted {
        Some(wanted) => {
            let is = |m: &Mutant| wanted.split(',').any(|part| m.name.contains(part) || m.file.contains(part));
            all.iter().copied().filter(|m| is(m)).collect()
        }
        None if plan.long => all.clone(),
        None => {
            let cheap: Vec<&Mutant> = all.iter().copied().filter(|m| m.by[0].is_cheap()).collect();
            plan.random("mutants").choice(cheap).into_iter().collect()
        }
    };
    match Tree::copied(Path::new(HOME)) {
        Ok(tree) => try_all(&tree, &chosen, &mut tally),
        Err(e) => tally.broken(format!("the sources were not copied: {e}")),
    }
    tally
}

/// Whether each mutant can be made at all.
fn check_list(all: &[&Mutant], tally: &mut Tally) {
    for (i, mutant) in all.iter().enumerate() {
        let name = mutant.name;
        tally.check(all[..i].iter().all(|other| other.name != name), || format!("two mutants are named `{name}`"));
        tally.check(!mutant.by.is_empty(), || format!("{name}: no test is named"));
        for test in mutant.by {
            let is_there = test.is_there(Path::new(HOME)).unwrap_or(false);
            tally.check(is_there, || format!("{name}: there is no test {test}"));
        }
        tally.check(mutant.from != mutant.to, || format!("{name}: nothing is exchanged"));
        let path = Path::new(HOME).join("crates").join(mutant.file);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let count = text.matches(mutant.from).count();
                tally.check(count == 1, || format!("{name}: its piece stands {count} times in {}", mutant.file));
            }
            Err(e) => tally.broken(format!("{name}: {}: {e}", mutant.file)),
        }
    }
}

fn try_all(tree: &Tree, chosen: &[&Mutant], tally: &mut Tally) {
    let (mut baselines, mut caught) = (Baselines::default(), 0);
    // All at first: between two mutants everything above the file would be built once more for it.
    for mutant in chosen {
        let _ = baselines.limit(tree, &mutant.by[0]);
    }
    for (i, mutant) in chosen.iter().enumerate() {
        let begin = Instant::now();
        let (mut tried, mut by) = (0, None);
        for test in mutant.by {
            tried += 1;
            let limit = match baselines.limit(tree, test) {
                Ok(limit) => limit,
                Err(why) => {
                    tally.broken(format!("without any mutant, {test}: {why}"));
                    break;
                }
            };
            let outcome = tree.with(mutant, || trial::run(tree, test, limit));
            match outcome {
                Ok(Outcome::Passed(_)) => {}
                Ok(Outcome::Failed(how)) => {
                    by = Some(format!("{test}, {how}"));
                    break;
                }
                Ok(Outcome::NotBuilt(text)) => {
                    tally.broken(format!("{}: does not compile\n{text}", mutant.name));
                    break;
                }
                Err(e) => {
                    tally.broken(format!("{}: {e}", mutant.name));
                    break;
                }
            }
        }
        let seconds = format!("{:.0}", begin.elapsed().as_secs_f64());
        println!("{:>3} of {}  {}: {} ({seconds} s)", i + 1, chosen.len(), mutant.name, by.as_deref().unwrap_or("NOT CAUGHT"));
        caught += u32::from(by.is_some());
        tally.check(by.is_some(), || format!("{}: nobody misses it", mutant.name));
        tally.row(mutant.name, [tried.to_string(), by.unwrap_or_else(|| "nobody".into()), seconds]);
    }
    tally.note(format!("{caught} of {} mutants caught", chosen.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mutant_can_be_made_and_each_row_is_seen_to() {
        let (all, mut tally) = (list::all(), Tally::new(&[]));
        check_list(&all, &mut tally);
        rows::check(Path::new(HOME), &all, &mut tally);
        println!("{tally}");
        assert!(tally.holds(), "see above");
    }
}
