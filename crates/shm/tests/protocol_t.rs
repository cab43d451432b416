//! Protocol T as a model: every order of its steps in small scenes, with a death at each, and many random ones in larger scenes. Nothing that is
//! referenced is freed, no channel closes that has a sender, and in the end everything else is freed and closed. Each rule left out is caught.
//!
//! `PROOF_SEED` repeats a random run, `PROOF_LONG` makes it longer.

mod model {
    pub(crate) mod explore;
    pub(crate) mod protocol;
}

use model::explore::{Broken, Random, exhaust, replay, wander};
use model::protocol::Op::*;
use model::protocol::{MAX, Op, Play, Rule, Scene, Step};
use std::time::{SystemTime, UNIX_EPOCH};

const Q: u8 = 0;
const X: u8 = 1;
const Y: u8 = 2;
const Z: u8 = 3;

fn collector() -> Vec<Op> {
    vec![Collect]
}

/// A handle goes from one process to another while a third collects; who sends it may die.
fn moving() -> Scene {
    Scene {
        name: "moving",
        scripts: vec![vec![Move(Q, X)], vec![Get(Q)], collector()],
        holds: vec![0b11, 0b01, 0],
        objects: 0b11,
        mortal: 0b11,
        deaths: 1,
        ..Scene::default()
    }
}

/// A process starts another with a handle among its arguments, and dies, and somebody else would clean up.
fn giving() -> Scene {
    Scene {
        name: "giving",
        scripts: vec![vec![Receive], vec![Give(0, X)], collector(), vec![CleanAnyTime]],
        holds: vec![0, 0b10, 0, 0],
        objects: 0b10,
        mortal: 0b11,
        deaths: 1,
        ..Scene::default()
    }
}

/// A handle goes there and back, through two collections.
fn there_and_back(back_first: bool) -> Scene {
    let (there, back) = (vec![Move(Q, X)], vec![Get(Q)]);
    let scripts = if back_first { vec![back, there] } else { vec![there, back] };
    let holds = if back_first { vec![0b01, 0b11, 0] } else { vec![0b11, 0b01, 0] };
    Scene {
        name: "there and back",
        scripts: scripts.into_iter().chain([vec![Collect, Collect]]).collect(),
        holds,
        objects: 0b11,
        words: true,
        ..Scene::default()
    }
}

/// A queue with another handle inside moves.
fn nested() -> Scene {
    Scene {
        name: "nested",
        scripts: vec![vec![Get(Q)], vec![Move(Q, X)], collector()],
        holds: vec![0b001, 0b011, 0],
        records: vec![(X, Y)],
        objects: 0b111,
        mortal: 0b110,
        deaths: 1,
        ..Scene::default()
    }
}

/// The same with the inner handle taken out, by who has got the outer one.
fn unpacking() -> Scene {
    Scene {
        name: "unpacking",
        scripts: vec![vec![Get(Q), Get(X), Drop(X)], vec![Move(Q, X)], collector()],
        holds: vec![0b001, 0b011, 0],
        records: vec![(X, Y)],
        objects: 0b111,
        ..Scene::default()
    }
}

/// What is taken out of a moving queue while the collector looks at stamps holds something itself.
fn nested_twice() -> Scene {
    Scene {
        name: "nested twice",
        scripts: vec![vec![Get(Q), Get(Z)], vec![Move(Q, Z)], collector()],
        holds: vec![0b0001, 0b1001, 0],
        records: vec![(Z, X), (X, Y)],
        objects: 0b1111,
        ..Scene::default()
    }
}

/// A queue that lies in itself, and one that lies in it: nobody holds them any more.
fn cycle() -> Scene {
    Scene {
        name: "cycle",
        scripts: vec![vec![Put(X, X), Move(X, Y), Drop(X)], vec![Get(Q)], collector()],
        holds: vec![0b111, 0b001, 0],
        objects: 0b111,
        mortal: 0b001,
        deaths: 1,
        ..Scene::default()
    }
}

fn making() -> Scene {
    Scene {
        name: "making",
        scripts: vec![vec![Make(X), Move(Q, X)], vec![Get(Q)], vec![Collect, Collect]],
        holds: vec![0b01, 0b01, 0],
        objects: 0b01,
        mortal: 0b101,
        deaths: 1,
        ..Scene::default()
    }
}

/// A sender goes through a queue; who gets it may die and leave it to the next.
fn senders() -> Scene {
    Scene {
        name: "senders",
        scripts: vec![vec![Put(Q, X), Put(Q, X), Drop(X)], vec![Get(Q)], vec![Get(Q), Drop(X)], vec![]],
        holds: vec![0b11, 0b01, 0b01, 0b11],
        senders: vec![0b10, 0, 0, 0],
        objects: 0b11,
        channels: 0b10,
        mortal: 0b010,
        deaths: 1,
        ..Scene::default()
    }
}

/// A sender moves while a third process collects.
fn senders_and_collector() -> Scene {
    Scene {
        name: "senders and a collector",
        scripts: vec![vec![Move(Q, X)], vec![Get(Q), Drop(X)], collector(), vec![]],
        holds: vec![0b11, 0b01, 0, 0b11],
        senders: vec![0b10, 0, 0, 0],
        objects: 0b11,
        channels: 0b10,
        mortal: 0b011,
        deaths: 1,
        ..Scene::default()
    }
}

fn scenes() -> Vec<Scene> {
    vec![
        moving(),
        giving(),
        there_and_back(false),
        there_and_back(true),
        nested(),
        nested_twice(),
        unpacking(),
        cycle(),
        making(),
        senders(),
        senders_and_collector(),
    ]
}

/// What a broken rule looks like, and that it breaks again.
fn tell(play: &Play<'_>, broken: &Broken<Step>) -> String {
    let (told, again) = replay(play, &broken.steps);
    assert_eq!(again.as_ref(), Err(&broken.rule), "it does not happen again");
    format!("{}\n{}", broken.rule, told.join("\n"))
}

#[test]
fn every_order_of_steps_keeps_what_is_referenced_and_frees_the_rest() {
    for scene in scenes() {
        let play = Play::new(&scene, None);
        let begin = std::time::Instant::now();
        match exhaust(&play) {
            Ok(states) => println!("{}: {states} states in {:?}", scene.name, begin.elapsed()),
            Err(broken) => panic!("{}: {}", scene.name, tell(&play, &broken)),
        }
    }
}

#[test]
fn each_rule_left_out_is_caught() {
    for (rule, scene) in [
        (Rule::CleanBetween, giving()),
        (Rule::Stamp, moving()),
        (Rule::StampBeforeRemoval, moving()),
        (Rule::HoldBeforeCommit, moving()),
        (Rule::FetchMax, there_and_back(true)),
        (Rule::StampedAreRoots, nested()),
        (Rule::StampsUntilNothing, nested_twice()),
        (Rule::StampWhenMade, making()),
        (Rule::ReceivedAfterCommit, senders()),
        (Rule::SentBeforeCommit, senders_and_collector()),
    ] {
        let play = Play::new(&scene, Some(rule));
        match exhaust(&play) {
            Ok(states) => panic!("{rule:?} is not missed in {} ({states} states)", scene.name),
            Err(broken) => println!("without {rule:?}, in {}: {}\n", scene.name, tell(&play, &broken)),
        }
    }
}

/// A scene at random: who does what, and what there is.
fn any_scene(random: &mut Random) -> Scene {
    let op = |random: &mut Random| {
        let (q, x) = (random.below(2) as u8, random.below(MAX) as u8);
        match random.below(16) {
            0 => Put(q, x),
            1..4 => Move(q, x),
            4..8 => Get(q),
            8 => Drop(x),
            9 => Make(x),
            10 => Give(random.below(MAX) as u8, x),
            11 => Receive,
            12 => CleanAnyTime,
            _ => Collect,
        }
    };
    let holds = (0..MAX).map(|_| 1 + (random.next() & 0xe) as u8).collect::<Vec<_>>();
    let channels = if random.below(2) == 0 { 0b1000 } else { 0 };
    let mut scripts: Vec<Vec<Op>> = (0..MAX).map(|_| (0..4 + random.below(4)).map(|_| op(random)).collect()).collect();
    if random.below(2) == 0 {
        scripts[MAX - 1] = vec![CleanAnyTime, CleanAnyTime, CleanAnyTime];
    }
    Scene {
        name: "at random",
        scripts,
        senders: holds.iter().map(|h| h & channels & random.next() as u8).collect(),
        holds,
        records: (0..random.below(4)).map(|_| (random.below(MAX) as u8, random.below(MAX) as u8)).collect(),
        objects: 0b1111,
        channels,
        words: random.below(2) == 0,
        mortal: 0b1111,
        deaths: random.below(4) as u8,
    }
}

#[test]
fn random_orders_keep_what_is_referenced_and_free_the_rest() {
    let given = std::env::var("PROOF_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64 / 1000));
    let schedules = if std::env::var_os("PROOF_LONG").is_some() { 2_500_000 } else { 20_000 };
    println!("PROOF_SEED={seed}");
    let (mut random, mut steps) = (Random::new(seed), 0);
    for schedule in 0..schedules {
        let scene = any_scene(&mut random);
        let play = Play::new(&scene, None);
        match wander(&play, &mut random) {
            Ok(taken) => steps += taken,
            Err(broken) => panic!("PROOF_SEED={seed}, schedule {schedule}: {}\n{scene:?}", tell(&play, &broken)),
        }
    }
    println!("{schedules} schedules, {steps} steps");
}

/// The random orders have teeth of their own.
#[test]
fn random_orders_miss_rules_that_are_left_out() {
    for rule in [Rule::Stamp, Rule::HoldBeforeCommit, Rule::StampWhenMade, Rule::SentBeforeCommit] {
        let mut random = Random::new(1);
        let caught = (0..20_000).find_map(|schedule| {
            let scene = any_scene(&mut random);
            let play = Play::new(&scene, Some(rule));
            wander(&play, &mut random).err().map(|broken| (schedule, tell(&play, &broken)))
        });
        let (schedule, what) = caught.unwrap_or_else(|| panic!("{rule:?} is not missed"));
        println!("without {rule:?}, in schedule {schedule}: {what}\n");
    }
}
