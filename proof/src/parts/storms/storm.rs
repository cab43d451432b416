//! The storm: victims of a scene die at random moments and are replaced, thousands of times. It runs in a process of its own, the coordinator of their tree.

use super::EVENTUALLY;
use super::census::{Awake, Census, Load};
use super::losses_heard;
use super::order::Order;
use super::page::{ITEMS, OPS, Page, SEATS, STARTING};
use super::report::{self, Report};
use super::scene::{Death, End, Scene};
use super::victim::{self, Hog, Stable, Victim, Way};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Who comes to no place where it is to die is killed.
const NOT_YET: Duration = Duration::from_millis(50);
/// Nanoseconds in which a timer that is set may ring before its setter runs on.
const TIMER: u64 = 2000;
const LOOK: Duration = Duration::from_micros(200);
/// Stops are short against what counts as a stall.
pub const MOST_STOPPED: u64 = 8000;

/// Progress of one group, or of all together.
#[derive(Clone, Copy, Debug)]
struct Progress {
    sum: u64,
    since: Instant,
}

impl Progress {
    /// How long there was none.
    fn look(&mut self, sum: u64, now: Instant) -> Duration {
        if sum != self.sum {
            *self = Progress { sum, since: now };
        }
        now - self.since
    }
}

struct Storm<'a> {
    order: &'a Order,
    random: fastrand::Rng,
    stable: Stable,
    scene: Scene,
    living: Vec<Option<Victim>>,
    dying: Vec<(Victim, Instant)>,
    deaths: Vec<Death>,
    progress: Vec<Progress>,
    of_all: Progress,
    retired: [u64; SEATS],
    pub report: Report,
    load: Load,
    awake: Awake,
}

/// Runs what was ordered.
pub fn run(order: &Order) -> Report {
    in_rounds(order, run_rounds)
}

/// Plays `rounds` in a process that is prepared as the order says; what does not hold is in the report.
pub fn in_rounds(order: &Order, rounds: impl FnOnce(&Order, &mut Report) -> Result<(), String>) -> Report {
    victim::no_core_dumps();
    if order.one_core {
        victim::bind(0);
    }
    let mut report = Report::default();
    if let Err(what) = rounds(order, &mut report) {
        report.broken.push(format!("{order}: {what}"));
    }
    report
}

fn run_rounds(order: &Order, report: &mut Report) -> Result<(), String> {
    let (page, path) = Page::create().map_err(|e| e.to_string())?;
    losses_heard::listen_for(page);
    let hog = order.idle.then(Hog::start);
    let load = Load::begin(hog.as_ref().map(Hog::pid));
    let began = Instant::now();
    let mut random = fastrand::Rng::with_seed(order.seed);
    // What is made for the first child of all is no leak, whoever the first of the storm's own is started by.
    let first = multiproc::Process::spawn((), || ()).map_err(|e| e.to_string())?;
    first.join().map_err(|e| e.to_string())?;
    if order.idle {
        victim::slow_down_keeper();
    }
    let mut stable = Stable::new(page, path, order.place());
    let mut before = None;
    let mut round = 0;
    while report.kills < order.kills {
        let seats = order.seats(round);
        let left = order.kills - report.kills;
        let mut storm = Storm::new(order, random.fork(), stable, seats, std::mem::take(report), load.anew())?;
        let played = storm.play(left.min(order.per_round(round)));
        let judged = played.and_then(|()| storm.judge());
        *report = storm.report;
        stable = storm.stable;
        drop(storm.scene);
        judged.map_err(|what| format!("round {round}, {seats} seats: {what}"))?;
        page.clear();
        // What is made once is made in the first round.
        match &before {
            None => before = Some(Census::take()?),
            Some(before) => drop(Census::back_to(before).map_err(|left| format!("left over after round {round}: {left}"))?),
        }
        round += 1;
        println!("progress {} of {} kills, {:.0} s", report.kills, order.kills, began.elapsed().as_secs_f64());
    }
    report.seconds = began.elapsed().as_secs_f64();
    report.others = load.of_others();
    drop(hog);
    Ok(())
}

impl<'a> Storm<'a> {
    fn new(
        order: &'a Order,
        random: fastrand::Rng,
        stable: Stable,
        seats: usize,
        mut report: Report,
        load: Load,
    ) -> Result<Storm<'a>, String> {
        let scene = Scene::new(&order.scene, seats)?;
        // So that it shows in which nobody has died.
        scene.ops().iter().for_each(|op| _ = report.inside.entry((*op).to_owned()).or_default());
        let groups = (0..seats).map(|seat| scene.group(seat)).max().unwrap_or(0) + 1;
        let awake = Awake::default();
        let nothing = Progress { sum: 0, since: awake.now() };
        let (progress, of_all) = (vec![nothing; groups], nothing);
        let living = (0..seats).map(|_| None).collect();
        let (dying, deaths) = (Vec::new(), Vec::new());
        Ok(Storm {
            order,
            random,
            stable,
            scene,
            living,
            dying,
            deaths,
            progress,
            of_all,
            retired: [0; SEATS],
            report,
            load,
            awake,
        })
    }

    fn start(&mut self, seat: usize) -> Result<(), String> {
        let by_spawn = self.random.u64(..100) < self.order.by_spawn;
        self.living[seat] = Some(self.stable.start(&self.scene, seat, by_spawn)?);
        Ok(())
    }

    fn play(&mut self, kills: u64) -> Result<(), String> {
        for seat in 0..self.living.len() {
            self.start(seat)?;
        }
        let now = self.awake.now();
        self.progress.iter_mut().chain([&mut self.of_all]).for_each(|p| p.since = now);
        println!("running");
        let mut killed = 0;
        let mut stopped: Option<(usize, Instant)> = None;
        while killed < kills && self.stable.page.items() < ITEMS / 10 * 9 {
            let until = Instant::now() + Duration::from_micros(self.random.u64(..self.order.pause_us));
            loop {
                self.look()?;
                if stopped.is_some_and(|(_, end)| Instant::now() > end)
                    && let Some((seat, _)) = stopped.take()
                    && let Some(victim) = &mut self.living[seat]
                {
                    victim.go_on();
                }
                if Instant::now() >= until {
                    break;
                }
                self.awake.sleep(LOOK);
            }
            let way = Way::draw(&mut self.random);
            let page = self.stable.page;
            // Half of them are to die in one of the operations in which fewest have.
            let few_wait = self.dying.iter().filter(|(v, _)| v.later).count() < self.living.len() / 2;
            let aim = if way != Way::Panic && few_wait && self.random.bool() { self.aim() } else { None };
            let seat = aim.map_or_else(|| self.random.usize(..self.living.len()), |(_, seat)| seat);
            // One that is to die later has not been followed yet.
            let Some(mut victim) = self.living[seat].take() else { continue };
            if victim.is_over() {
                return Err(format!("seat {seat} ended by itself, with {:?}: {:?}", victim.status, page.complaint()));
            }
            match aim {
                Some((op, _)) => {
                    let nanos = 1000 << self.random.u32(..6);
                    victim.die_in(op, self.random.u64(TIMER..TIMER + nanos), way, page);
                }
                None => victim.die(way, page),
            }
            let later = victim.later;
            self.dying.push((victim, Instant::now()));
            killed += 1;
            if stopped.is_none() && self.order.stops && self.random.u32(..20) == 0 {
                let other = self.random.usize(..self.living.len());
                // Who has not joined the tree yet would not be killed by its coordinator's death either.
                if let Some(victim) = &mut self.living[other]
                    && page.rows[victim.row].inside.load(Ordering::Relaxed) != STARTING
                {
                    victim.stop();
                    stopped = Some((other, Instant::now() + Duration::from_micros(self.random.u64(..MOST_STOPPED))));
                }
            }
            if !later {
                // Not waited for: its successor meets what it has left.
                self.start(seat)?;
            }
        }
        let page = self.stable.page;
        for seat in 0..self.living.len() {
            if let Some(mut victim) = self.living[seat].take() {
                victim.die(Way::Kill, page);
                self.dying.push((victim, Instant::now()));
            }
        }
        let limit = Instant::now() + self.order.stretch(Duration::from_secs(20));
        while !self.dying.is_empty() {
            self.bury(false)?;
            if Instant::now() > limit {
                return Err(format!("{} victims do not end", self.dying.len()));
            }
            std::thread::sleep(LOOK);
        }
        match page.complaint() {
            Some(complaint) => Err(complaint),
            None => Ok(()),
        }
    }

    /// One of the operations in which fewest have died, and a seat that does it.
    fn aim(&mut self) -> Option<(u32, usize)> {
        let died = |op: &u32| self.report.inside.get(op_name(&self.scene, *op)).copied().unwrap_or(0);
        let mut ops: Vec<u32> = (1..=self.scene.ops().len() as u32).collect();
        ops.sort_by_key(died);
        ops.truncate(3);
        let op = self.random.choice(ops)?;
        let seats = (0..self.living.len()).filter(|&seat| self.living[seat].is_some() && self.scene.does(seat, op));
        Some((op, self.random.choice(seats.collect::<Vec<_>>())?))
    }

    /// Whether anything goes on.
    fn look(&mut self) -> Result<(), String> {
        self.bury(true)?;
        self.scene.tend();
        if let Some(complaint) = self.stable.page.complaint() {
            return Err(complaint);
        }
        let mut sums = vec![0u64; self.progress.len()];
        for (seat, living) in self.living.iter().enumerate() {
            let now = living.as_ref().map_or(0, |v| self.stable.page.rows[v.row].count.load(Ordering::Relaxed));
            sums[self.scene.group(seat)] += self.retired[seat] + now;
        }
        for (victim, _) in &self.dying {
            sums[self.scene.group(victim.seat)] += self.stable.page.rows[victim.row].count.load(Ordering::Relaxed);
        }
        let now = self.awake.now();
        let gap = self.of_all.look(sums.iter().sum(), now);
        self.report.longest_gap_us = self.report.longest_gap_us.max(gap.as_micros() as u64);
        for (group, (progress, sum)) in self.progress.iter_mut().zip(sums).enumerate() {
            let gap = progress.look(sum, now);
            if self.load.is_stall(gap, self.order.patience) {
                let doing = |v: &Victim| {
                    let inside = self.stable.page.rows[v.row].inside.load(Ordering::Relaxed);
                    format!("seat {} pid {} in {}", v.seat, v.pid, op_name(&self.scene, inside))
                };
                let all: Vec<String> = self.living.iter().flatten().map(doing).collect();
                return Err(format!("group {group} does nothing for {gap:?}\n{}\n{}", all.join("\n"), multiproc::dump()));
            }
        }
        Ok(())
    }

    /// Takes notice of those who have ended.
    fn bury(&mut self, follow: bool) -> Result<(), String> {
        let mut i = 0;
        while i < self.dying.len() {
            let (victim, since) = &mut self.dying[i];
            if !victim.is_over() {
                if victim.later && since.elapsed() > NOT_YET {
                    victim.finish();
                }
                i += 1;
                continue;
            }
            let (victim, _) = self.dying.swap_remove(i);
            let page = self.stable.page;
            let row = &page.rows[victim.row];
            let inside = row.inside.load(Ordering::Relaxed);
            // Who complains has said why.
            let way = victim.died().map_err(|how| page.complaint().map_or(how.clone(), |why| format!("{why} ({how})")))?;
            let death = Death {
                seat: victim.seat,
                inside,
                way,
                note: row.note.load(Ordering::Relaxed),
                done: row.done.load(Ordering::Relaxed),
            };
            self.deaths.push(death);
            self.retired[victim.seat] += row.count.load(Ordering::Relaxed);
            self.report.kills += 1;
            *self.report.ways.entry(way.name().to_owned()).or_default() += 1;
            let name = op_name(&self.scene, inside);
            *self.report.inside.entry(name.to_owned()).or_default() += 1;
            let seat = victim.seat;
            self.stable.bury(victim);
            if follow && self.living[seat].is_none() && !self.dying.iter().any(|(v, _)| v.seat == seat) {
                self.start(seat)?;
            }
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<(), String> {
        // Cleaned up after are those who are gone.
        let limit = Instant::now() + EVENTUALLY;
        while multiproc::testing::audit().map_err(|e| e.to_string())?.slots > 1 {
            multiproc::testing::collect().map_err(|e| e.to_string())?;
            if Instant::now() > limit {
                return Err(format!("slots of the dead are left: {:?}", multiproc::testing::audit()));
            }
        }
        let facts = self.scene.judge(&End { page: self.stable.page, deaths: &self.deaths })?;
        self.report.operations += facts.operations;
        self.report.lost += facts.lost;
        self.report.redelivered += facts.redelivered;
        self.report.reported += facts.reported;
        self.report.rounds += 1;
        Ok(())
    }
}

fn op_name(scene: &Scene, inside: u32) -> &'static str {
    match inside {
        0 => report::BETWEEN,
        STARTING => report::STARTING,
        n if (n as usize) < OPS => scene.ops().get(n as usize - 1).copied().unwrap_or("?"),
        _ => "?",
    }
}
