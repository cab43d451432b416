//! The shipping words of a barrier, under loom: in every order of steps that the memory model allows, with a death at each step, a round that all come to opens
//! for all, any other is broken for all, and nobody waits for ever.

mod model;
pub(crate) use model::words as beneath;

#[allow(dead_code, unreachable_pub, rustdoc::broken_intra_doc_links)]
#[path = "../src/barrier/raw.rs"]
mod raw;

use beneath::{AtomicU32, Deadline, Ordering};
use loom::thread;
use model::{crash, goes_wrong, goes_wrong_at_a_step, mortal};
use raw::{Arrival, Ended, RawBarrier};

const VICTIM: u32 = 2;
const PID: u32 = 77;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    Through(u32),
    Broken,
    TimedOut,
}

/// As `Barrier::pass`. With `count`, the action counts there.
fn pass(raw: &RawBarrier, slot: u32, deadline: Option<Deadline>, count: Option<&AtomicU32>) -> Passed {
    raw.join(slot);
    loop {
        match raw.arrive(count.is_some()) {
            Arrival::Waits { round, index } => {
                return match await_end(raw, round, deadline) {
                    Some(Ended::Opened) => Passed::Through(index),
                    Some(Ended::Broken) => Passed::Broken,
                    None => Passed::TimedOut,
                };
            }
            Arrival::Opened { index } => {
                raw.tell();
                return Passed::Through(index);
            }
            Arrival::Leads { round, index } => {
                crash::point("acts");
                count.inspect(|n| _ = n.fetch_add(1, Ordering::Relaxed));
                crash::point("acted");
                return match raw.open(round) {
                    Ended::Opened => Passed::Through(index),
                    Ended::Broken => Passed::Broken,
                };
            }
            Arrival::TooEarly { round } => {
                if ended_within(raw, round, deadline).is_none() {
                    return Passed::TimedOut;
                }
            }
            Arrival::Broken { .. } => return Passed::Broken,
        }
    }
}

fn await_end(raw: &RawBarrier, round: u32, deadline: Option<Deadline>) -> Option<Ended> {
    ended_within(raw, round, deadline).or_else(|| raw.break_round(Some(round)))
}

fn ended_within(raw: &RawBarrier, round: u32, deadline: Option<Deadline>) -> Option<Ended> {
    raw.ended_soon(round).or_else(|| raw.sleep(round, deadline))
}

/// Leaked: some words of each outcome.
fn barrier(parties: u32) -> &'static RawBarrier {
    Box::leak(Box::new(RawBarrier::new(parties)))
}

fn spawn(raw: &'static RawBarrier, body: impl FnOnce(&RawBarrier) -> Passed + 'static) -> thread::JoinHandle<Passed> {
    thread::spawn(move || body(raw))
}

fn indices(passed: &[Passed]) -> Vec<u32> {
    let index = |p: &Passed| match p {
        Passed::Through(index) => *index,
        other => panic!("{other:?}"),
    };
    let mut indices: Vec<u32> = passed.iter().map(index).collect();
    indices.sort_unstable();
    indices
}

#[test]
fn all_go_through_with_an_index_each_and_what_they_did_is_seen() {
    let model = || {
        let (raw, data) = (barrier(3), [0, 1, 2].map(|_| &*Box::leak(Box::new(AtomicU32::new(0)))));
        let party = move |i: usize| {
            move |raw: &RawBarrier| {
                // Relaxed: the barrier orders it.
                data[i].store(1, Ordering::Relaxed);
                let passed = pass(raw, i as u32, None, None);
                assert!(data.iter().all(|d| d.load(Ordering::Relaxed) == 1));
                passed
            }
        };
        let others = [0, 1].map(|i| spawn(raw, party(i)));
        let mine = party(2)(raw);
        let [a, b] = others.map(|t| t.join().unwrap());
        assert_eq!(indices(&[a, b, mine]), [0, 1, 2]);
    };
    assert!(!goes_wrong(model));
}

#[test]
fn round_follows_round_and_the_action_runs_once_in_each() {
    for acts in [false, true] {
        assert!(!goes_wrong(move || {
            let (raw, count) = (barrier(2), &*Box::leak(Box::new(AtomicU32::new(0))));
            let twice = move |raw: &RawBarrier, slot| {
                for round in 1..=2 {
                    let passed = pass(raw, slot, None, acts.then_some(count));
                    assert!(matches!(passed, Passed::Through(_)));
                    assert!(!acts || count.load(Ordering::Relaxed) >= round);
                }
                Passed::Through(0)
            };
            let other = spawn(raw, move |raw| twice(raw, 0));
            twice(raw, 1);
            other.join().unwrap();
            assert!(!acts || count.load(Ordering::Relaxed) == 2);
        }));
    }
}

/// Either both go through or none; a reset or an abort while they wait never leaves one behind.
fn two_and(disturb: impl Fn(&RawBarrier) + Copy + Sync + Send + 'static) -> bool {
    goes_wrong(move || {
        let raw = barrier(2);
        let disturber = spawn(raw, move |raw| {
            disturb(raw);
            Passed::Broken
        });
        let other = spawn(raw, |raw| pass(raw, 0, None, None));
        let mine = pass(raw, 1, None, None);
        let theirs = if mine == Passed::Broken && !raw.is_broken() {
            // They may come after the reset, and wait for somebody.
            raw.break_round(None);
            other.join().unwrap()
        } else {
            other.join().unwrap()
        };
        disturber.join().unwrap();
        match (mine, theirs) {
            (Passed::Through(_), _) | (_, Passed::Through(_)) => assert_eq!(indices(&[mine, theirs]), [0, 1]),
            other => assert_eq!(other, (Passed::Broken, Passed::Broken)),
        }
    })
}

#[test]
fn an_abort_reaches_all_or_none() {
    assert!(!two_and(|raw| _ = raw.break_round(None)));
}

#[test]
fn a_death_elsewhere_and_a_second_one_reach_all_or_none() {
    assert!(!two_and(|raw| {
        raw.join(VICTIM);
        raw.slot_died(VICTIM, PID);
        raw.slot_died(VICTIM, PID);
    }));
}

#[test]
fn who_waits_at_a_reset_is_told() {
    assert!(!goes_wrong(|| {
        let raw = barrier(2);
        let waiter = spawn(raw, |raw| pass(raw, 0, None, None));
        raw.reset();
        // Before the reset it was told; after it, it waits in the new round, alone.
        raw.break_round(None);
        assert_eq!(waiter.join().unwrap(), Passed::Broken);
        raw.reset();
        assert!(!raw.is_broken() && raw.arrived() == 0);
    }));
}

#[test]
fn a_time_out_breaks_it_unless_it_comes_too_late() {
    assert!(!goes_wrong(|| {
        let raw = barrier(2);
        let other = spawn(raw, |raw| pass(raw, 0, Some(Deadline), None));
        let (mine, theirs) = (pass(raw, 1, None, None), other.join().unwrap());
        match (mine, theirs) {
            (Passed::Through(_), _) | (_, Passed::Through(_)) => assert_eq!(indices(&[mine, theirs]), [0, 1]),
            other => assert_eq!(other, (Passed::Broken, Passed::TimedOut)),
        }
        assert_eq!(raw.is_broken(), mine == Passed::Broken);
    }));
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// Nobody cleans up.
    Cleaner,
    /// The process never joined.
    Membership,
}

/// One of three (with an action, of two) dies at step `k` of its wait. The others all go through, or are all told of the dead one.
fn a_party_dies(k: u32, acts: bool, without: Without) -> bool {
    let others = if acts { 1 } else { 2 };
    let (raw, count) = (barrier(others + 1), &*Box::leak(Box::new(AtomicU32::new(0))));
    let count = acts.then_some(count);
    let others: Vec<_> = (0..others).map(|slot| spawn(raw, move |raw| pass(raw, slot, None, count))).collect();
    let died = mortal(k, || _ = pass(raw, VICTIM, None, count));
    if died {
        if without == Without::Membership {
            raw.quit(VICTIM);
        }
        if without != Without::Cleaner {
            raw.slot_died(VICTIM, PID);
        }
        if k == 1 {
            // It had not told that it takes part: nobody can miss it, and the others give up.
            raw.break_round(None);
        }
    }
    let passed: Vec<Passed> = others.into_iter().map(|t| t.join().unwrap()).collect();
    if passed.iter().all(|p| matches!(p, Passed::Through(_))) {
        assert!(!acts || count.is_some_and(|n| n.load(Ordering::Relaxed) == 1));
    } else {
        assert!(passed.iter().all(|&p| p == Passed::Broken), "{passed:?}");
        assert!(died && (k == 1 || raw.killer_of(0) == Some(PID)));
    }
    // Then it is as new.
    if died {
        assert!(raw.is_broken());
        raw.reset();
    }
    assert!(!raw.is_broken() && raw.arrived() == 0);
    died
}

#[test]
fn a_death_at_each_step_opens_for_all_or_breaks_for_all() {
    assert!(!goes_wrong_at_a_step(|k| a_party_dies(k, false, Without::Nothing)));
}

#[test]
fn so_does_one_with_an_action() {
    assert!(!goes_wrong_at_a_step(|k| a_party_dies(k, true, Without::Nothing)));
}

/// Who breaks or resets it dies at step `k`; who waits has been told, or waits on in a barrier that works.
fn a_disturber_dies(k: u32, resets: bool) -> bool {
    let raw = barrier(2);
    let waiter = spawn(raw, |raw| pass(raw, 0, None, None));
    let died = mortal(k, || match resets {
        true => raw.reset(),
        false => _ = raw.break_round(None),
    });
    if died {
        raw.slot_died(VICTIM, PID);
    }
    // Alone, it waits for a second. If it has been told already, so is this one, or this one would wait alone.
    let mine = pass(raw, 1, Some(Deadline), None);
    let theirs = waiter.join().unwrap();
    assert_eq!(matches!(mine, Passed::Through(_)), matches!(theirs, Passed::Through(_)), "{mine:?} {theirs:?}");
    died
}

#[test]
fn a_dead_aborter_or_resetter_leaves_nobody_asleep() {
    for resets in [false, true] {
        let model: fn(u32) -> bool = if resets { |k| a_disturber_dies(k, true) } else { |k| a_disturber_dies(k, false) };
        assert!(!goes_wrong_at_a_step(model));
    }
}

#[test]
fn a_death_is_told_of_in_its_own_round_only() {
    assert!(!goes_wrong(|| {
        let raw = barrier(2);
        raw.join(2);
        assert!(matches!(raw.arrive(false), Arrival::Waits { round: 0, .. }));
        raw.slot_died(2, 77);
        assert_eq!(raw.killer_of(0), Some(77));
        raw.reset();
        let Arrival::Waits { round, .. } = raw.arrive(false) else { panic!("it is open again") };
        raw.break_round(None);
        assert_eq!(raw.killer_of(round), None);
    }));
}

#[test]
fn each_rule_left_out_is_missed() {
    assert!(goes_wrong_at_a_step(|k| a_party_dies(k, false, Without::Cleaner)));
    assert!(goes_wrong_at_a_step(|k| a_party_dies(k, false, Without::Membership)));
}
