//! Storms: processes under load die at random moments, in five ways, and are replaced; what they share is counted.
//!
//! Reading order: [`page`] (what a victim was doing, outside of the arena), [`victim`] (how it is made and dies), [`scene`] (what it plays: [`queue`], [`pipe`], [`lock`], [`permits`],
//! [`barrier`], [`condition`], [`event`]), [`storm`] (who kills and counts), [`pool`], [`handover`], then the process that has all of this done by others: [`order`], [`stage`], [`report`],
//! [`coordinator`]. [`leaks`] is a part of its own.
//!
//! `PROOF_STORM=locks` plays that family only, or several with commas between them. `PROOF_DAWDLE=650` has everybody be slow at so many of 65,536 steps, in a program that is
//! built with crash points: see [`late`](super::late).

mod barrier;
mod census;
mod condition;
mod coordinator;
mod event;
mod handover;
mod item;
pub mod leaks;
mod lock;
mod losses_heard;
mod order;
mod page;
mod permits;
mod pipe;
mod pool;
mod queue;
mod report;
mod scene;
mod stage;
mod storm;
mod victim;

use super::Part;
use crate::plan::Plan;
use crate::tally::Tally;
pub use census::{Load, STALL};
use order::Order;
use report::{BETWEEN, BY_ITSELF, Report, STARTING};
pub use stage::play;
use std::time::{Duration, Instant};

pub const PART: Part = Part { name: "storms", what: "random deaths under load, in five ways, by the thousand", run };

/// What a family of scenes is called, the scenes, and the kills in the short form and in the long one.
type Family = (&'static str, &'static [(&'static str, u64, u64)]);

const FAMILIES: [Family; 8] = [
    (
        "queues",
        &[
            ("get", 1500, 60_000),
            ("lease", 1500, 65_000),
            ("mixed", 600, 25_000),
            ("unbounded", 700, 40_000),
            ("unbounded-lease", 700, 25_000),
        ],
    ),
    ("pipes", &[("pipe", 1000, 50_000)]),
    ("locks", &[("lock", 1000, 85_000)]),
    ("semaphores", &[("permits", 1000, 62_000)]),
    ("barriers", &[("barrier", 1000, 20_000)]),
    ("conditions", &[("condition", 1000, 105_000)]),
    ("events", &[("event", 1000, 27_000)]),
    ("pools", &[("pool", 1000, 20_000)]),
];

/// Of a hundred kills of each scene so many on one core, and beside a hog with every other seat at idle priority.
const ON_ONE_CORE: u64 = 10;
const BESIDE_A_HOG: u64 = 5;

/// What has everybody be slow, and how often.
pub const DAWDLE_AT: &str = "PROOF_DAWDLE";

/// Half a second is a stall where each process gets its turn within that time; beside a hog one of idle priority may not.
const PATIENCE_BESIDE_A_HOG: u32 = 10;
const PATIENCE_WITH_THE_SLOW: u32 = 20;

/// What comes by itself has come by then, on the busiest machine too; how quickly, others judge.
const EVENTUALLY: Duration = Duration::from_secs(30);

/// Bars, and how much others may use of the machine for them to count, in percent.
const LONGEST_GAP: Duration = Duration::from_millis(50);
const HANDOVER_P50: Duration = Duration::from_micros(200);
const HANDOVER_P99: Duration = Duration::from_millis(2);
pub const QUIET: u64 = 10;
const INSIDE_AT_LEAST: u64 = 30;
const INSIDE_EACH_IN_THE_LONG_FORM: u64 = 2000;

fn run(plan: &Plan) -> Tally {
    let mut tally = Tally::new(&[
        "kills",
        "kills/s",
        "inside",
        "operations",
        "lost",
        "redelivered",
        "reported",
        "gap ms",
        "at worst",
        "others",
    ]);
    let mut random = plan.random("storms");
    let began = Instant::now();
    let mut all = 0;
    let wanted = std::env::var("PROOF_STORM").ok();
    let dawdle = std::env::var(DAWDLE_AT).map_or(Some(0), |n| n.parse().ok());
    let Some(dawdle) = dawdle.filter(|&n| n == 0 || cfg!(feature = "crash-points")) else {
        tally.broken(format!("{DAWDLE_AT} is a number, for a program that is built with the feature crash-points"));
        return tally;
    };
    for (family, scenes) in FAMILIES {
        // Drawn for all of them, so that one that is played alone is the same.
        let orders: Vec<Order> = scenes.iter().flat_map(|scene| orders(scene, plan, dawdle, &mut random)).collect();
        if wanted.as_ref().is_none_or(|wanted| wanted.split(',').any(|name| name == family)) {
            all += rage(family, &orders, plan, &mut tally);
        }
    }
    if let Some(wanted) = wanted {
        let unknown: Vec<&str> = wanted.split(',').filter(|name| FAMILIES.iter().all(|(family, _)| family != name)).collect();
        tally.check(unknown.is_empty(), || format!("no storms are named {}", unknown.join(", ")));
        tally.skip(format!("only {wanted}"));
    } else {
        if dawdle == 0 {
            hand_over(plan, &mut random, &mut tally);
        }
        coordinator::run(plan.count(18, 300), dawdle, &mut random, &mut tally);
    }
    tally.note(format!("{all} kills in {:.0} s", began.elapsed().as_secs_f64()));
    tally
}

/// For a scene, with its kills in the short form and in the long one: on two cores, on one, and beside a hog.
fn orders(&(scene, short, long): &(&str, u64, u64), plan: &Plan, dawdle: u64, random: &mut fastrand::Rng) -> [Order; 3] {
    let kills = plan.count(short, long);
    let (one_core, hog) = (kills * ON_ONE_CORE / 100, kills * BESIDE_A_HOG / 100);
    // At least two rounds of each: what is left over is seen from the second on.
    let patience = if dawdle > 0 { PATIENCE_WITH_THE_SLOW } else { 1 };
    let of = |kills: u64| Order { first: 50.min(kills / 2), dawdle, patience, ..Order::new(scene, 0, kills) };
    let plain = Order { seed: random.u64(..), ..of(kills - one_core - hog) };
    let on_one_core = Order { one_core: true, seed: random.u64(..), ..of(one_core) };
    let beside_a_hog = Order { idle: true, seed: random.u64(..), patience: PATIENCE_BESIDE_A_HOG * patience, ..of(hog) };
    [plain, on_one_core, beside_a_hog]
}

/// Plays the storms of a family, and says how many it killed.
fn rage(family: &str, orders: &[Order], plan: &Plan, tally: &mut Tally) -> u64 {
    let mut sum = Report::default();
    let (mut gap, mut disturbed) = (None, Vec::new());
    for order in orders {
        let report = stage::watch(order);
        match (order.one_core || order.idle, report.others <= QUIET) {
            (true, _) => {}
            (false, true) => gap = gap.max(Some(report.longest_gap_us)),
            (false, false) => disturbed.push(order.scene.as_str()),
        }
        sum.add(&report);
    }
    add(tally, family, &sum, gap);
    if orders.iter().any(|order| order.dawdle > 0) {
        // How often somebody dies where, and how long that takes, is as slow as they are.
        return sum.kills;
    }
    aimed_well(tally, family, &sum, plan);
    // Tasks of pools may wait for a worker to be started.
    if family != "pools" {
        let gap = Duration::from_micros(gap.unwrap_or(0));
        tally.bar(plan, format!("{family}: the longest time in which nothing went on"), gap, LONGEST_GAP);
        if !disturbed.is_empty() {
            tally.skip(format!("{family}: the gap of {} was not judged, since others used the machine", disturbed.join(", ")));
        }
    }
    sum.kills
}

fn millis(micros: u64) -> String {
    format!("{:.1}", micros as f64 / 1e3)
}

/// `gap`: the longest without progress on two cores that nobody else used.
fn add(tally: &mut Tally, family: &str, sum: &Report, gap: Option<u64>) {
    let (inside, of) = sum.inside_of();
    let percent = inside * 100 / of.max(1);
    let rate = sum.kills as f64 / sum.seconds.max(0.001);
    tally.row(
        family,
        [
            sum.kills.to_string(),
            format!("{rate:.0}"),
            format!("{percent} %"),
            sum.operations.to_string(),
            sum.lost.to_string(),
            sum.redelivered.to_string(),
            sum.reported.to_string(),
            gap.map_or_else(|| "-".into(), millis),
            millis(sum.longest_gap_us),
            format!("{} %", sum.others),
        ],
    );
    tally.note(format!("{family}: died in {}", sum.distribution()));
    eprintln!("{family}: {} kills, {rate:.0} a second, {percent} % inside, {} broken", sum.kills, sum.broken.len());
    for what in &sum.broken {
        // At once: a long run may be ended before its table.
        eprintln!("BROKEN: {what}");
        tally.broken(what.clone());
    }
}

/// Enough have died inside of operations, and in each of them.
fn aimed_well(tally: &mut Tally, family: &str, sum: &Report, plan: &Plan) {
    let (inside, of) = sum.inside_of();
    let percent = inside * 100 / of.max(1);
    tally.check(percent >= INSIDE_AT_LEAST, || format!("{family}: only {percent} % died inside an operation"));
    let least = plan.count(1, INSIDE_EACH_IN_THE_LONG_FORM);
    let few = sum.inside.iter().filter(|(name, n)| **n < least && ![STARTING, BETWEEN, BY_ITSELF].contains(&name.as_str()));
    few.for_each(|(name, n)| tally.broken(format!("{family}: only {n} died in {name}")));
}

fn hand_over(plan: &Plan, random: &mut fastrand::Rng, tally: &mut Tally) {
    let order = Order::new("handover", random.u64(..), plan.count(1000, 5000));
    let report = stage::watch(&order);
    report.broken.iter().for_each(|what| tally.broken(what.clone()));
    let at = |percent: usize| {
        report
            .latencies
            .get((report.latencies.len() * percent / 100).min(report.latencies.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0)
    };
    let (p50, p99, most) = (at(50), at(99), at(100));
    tally.note(format!(
        "a lock is handed over after SIGKILL of its owner, {} times: p50 {p50} us, p99 {p99} us, at most {most} us; others used {} % of the machine",
        report.latencies.len(),
        report.others
    ));
    if report.others <= QUIET {
        tally.bar(plan, "a lock's hand-over, p50", Duration::from_micros(p50), HANDOVER_P50);
        tally.bar(plan, "a lock's hand-over, p99", Duration::from_micros(p99), HANDOVER_P99);
    } else {
        tally.skip("how long a hand-over takes was not judged, since others used the machine");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn getters_and_putters_are_killed() {
        let _one = super::super::alone();
        for scene in ["get", "lease"] {
            // One round: what else this process does meanwhile is no leak.
            let report = storm::run(&Order { first: 300, ..Order::new(scene, 1, 300) });
            assert!(report.broken.is_empty(), "{:?}", report.broken);
        }
    }
}
