//! Circles of waits in a survey of the tree: who waits for whom until it comes round.
//!
//! A wait is stuck if everybody who could end it is stuck. What is left when all others are struck out, again and again, contains the circles. A
//! thread that holds a lock is stuck if its own wait is. A process of which any thread could help is stuck if all its waits are; that none of its other
//! threads goes on is known only when all of them wait, and then the circle is a deadlock for certain.

use multiproc_shm::notes::Waits;
use multiproc_shm::report::{Blocker, Survey};
use std::collections::BTreeMap;
use std::ops::Range;

/// The waits of a circle, each with the slot of its process, in the order of who waits for whom.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) waits: Vec<(u32, Waits)>,
    pub(crate) certain: bool,
}

struct Graph<'a> {
    nodes: Vec<(u32, &'a Waits)>,
    blockers: Vec<Blocker>,
    /// Which nodes are of the process in a slot, and whether it has waits that nobody knows.
    processes: BTreeMap<u32, (Range<usize>, bool)>,
    by_thread: BTreeMap<u32, Vec<usize>>,
}

/// All circles. `all_wait` says of a slot whether each thread of its process that runs the user's code is among those that wait.
pub(crate) fn find(survey: &Survey, all_wait: impl Fn(u32) -> bool) -> Vec<Round> {
    let graph = Graph::of(survey);
    let possible = graph.stuck(None);
    if !possible.contains(&true) {
        return Vec::new();
    }
    let mut found: Vec<Round> = Vec::new();
    for (stuck, certain) in [(graph.stuck(Some(&all_wait)), true), (possible, false)] {
        for round in graph.rounds(&stuck, certain) {
            let known = |other: &Round| round.waits.iter().all(|w| other.waits.contains(w));
            if !found.iter().any(known) && was_at_one_time(&round) {
                found.push(round);
            }
        }
    }
    found
}

/// A wait that was given up was part of a circle if the others had begun before.
fn was_at_one_time(round: &Round) -> bool {
    let end = round.waits.iter().filter_map(|(_, w)| w.gave_up).min();
    end.is_none_or(|end| round.waits.iter().all(|(_, w)| w.since <= end))
}

impl Graph<'_> {
    fn of(survey: &Survey) -> Graph<'_> {
        let mut nodes = Vec::new();
        let mut processes = BTreeMap::new();
        let mut by_thread: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for process in &survey.processes {
            let first = nodes.len();
            for waits in &process.waits {
                by_thread.entry(waits.thread).or_default().push(nodes.len());
                nodes.push((process.id.index, waits));
            }
            processes.insert(process.id.index, (first..nodes.len(), process.unnoted > 0));
        }
        let blockers = nodes.iter().map(|(slot, w)| survey.blocker(*slot, w)).collect();
        Graph { nodes, blockers, processes, by_thread }
    }

    /// With `all_wait`, only what is so for certain.
    fn stuck(&self, all_wait: Option<&dyn Fn(u32) -> bool>) -> Vec<bool> {
        let mut stuck = vec![true; self.nodes.len()];
        loop {
            // As of the begin of the round: with hundreds of processes at one object, each is looked at by each.
            let processes = self.stuck_processes(&stuck, all_wait);
            let mut changed = false;
            for i in 0..self.nodes.len() {
                if stuck[i] && !self.stays_stuck(i, &stuck, &processes, all_wait.is_some()) {
                    stuck[i] = false;
                    changed = true;
                }
            }
            if !changed {
                return stuck;
            }
        }
    }

    /// By slot, which processes wait with all that is known of them.
    fn stuck_processes(&self, stuck: &[bool], all_wait: Option<&dyn Fn(u32) -> bool>) -> Vec<bool> {
        let is_stuck = |slot: u32, nodes: &Range<usize>, more: bool| {
            !nodes.is_empty()
                && stuck[nodes.clone()].iter().all(|&stuck| stuck)
                && all_wait.is_none_or(|all_wait| !more && all_wait(slot))
        };
        let mut all = vec![false; self.processes.last_key_value().map_or(0, |(&slot, _)| slot as usize + 1)];
        for (&slot, (nodes, more)) in &self.processes {
            all[slot as usize] = is_stuck(slot, nodes, *more);
        }
        all
    }

    fn stays_stuck(&self, i: usize, stuck: &[bool], processes: &[bool], for_certain: bool) -> bool {
        match &self.blockers[i] {
            Blocker::Nobody => false,
            &Blocker::Thread { slot, thread } => self.of_thread(slot, thread).is_some_and(|j| stuck[j]),
            Blocker::AnyOf { slots, all } => {
                !slots.is_empty()
                    && (*all || !for_certain)
                    && slots.iter().all(|&slot| processes.get(slot as usize) == Some(&true))
            }
        }
    }

    fn of_thread(&self, slot: Option<u32>, thread: u32) -> Option<usize> {
        let mut nodes = self.by_thread.get(&thread).into_iter().flatten().copied();
        nodes.find(|&j| slot.is_none_or(|slot| self.nodes[j].0 == slot))
    }

    fn of_process(&self, slot: u32) -> Range<usize> {
        self.processes.get(&slot).map_or(0..0, |(nodes, _)| nodes.clone())
    }

    /// Follows one blocker of each wait that is stuck: whoever is followed for ever comes round.
    fn rounds(&self, stuck: &[bool], certain: bool) -> Vec<Round> {
        let mut rounds = Vec::new();
        let mut visited = vec![false; self.nodes.len()];
        for start in (0..self.nodes.len()).filter(|&i| stuck[i]) {
            let mut path: Vec<usize> = Vec::new();
            let mut at = Some(start);
            while let Some(i) = at {
                if let Some(begin) = path.iter().position(|&j| j == i) {
                    let waits = path[begin..].iter().map(|&j| (self.nodes[j].0, *self.nodes[j].1)).collect();
                    rounds.push(Round { waits, certain });
                    break;
                }
                if visited[i] {
                    break;
                }
                visited[i] = true;
                path.push(i);
                at = self.next(i, stuck);
            }
        }
        rounds
    }

    /// Another process rather than the waiter's own.
    fn next(&self, i: usize, stuck: &[bool]) -> Option<usize> {
        match &self.blockers[i] {
            Blocker::Nobody => None,
            &Blocker::Thread { slot, thread } => self.of_thread(slot, thread),
            Blocker::AnyOf { slots, .. } => {
                let own = self.nodes[i].0;
                let others = slots.iter().filter(|&&slot| slot != own).chain([&own]);
                others.flat_map(|&slot| self.of_process(slot)).find(|&j| stuck[j])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use multiproc_shm::arena::SlotId;
    use multiproc_shm::notes::{Awaited, Op};
    use multiproc_shm::report::{Described, Standing, Surveyed};
    use multiproc_shm::roster::SlotState;

    /// A process whose main thread has the id `100 + slot`, with what that thread waits for.
    fn process(slot: u32, waits: &[(Op, Awaited)]) -> Surveyed {
        let wait = |&(op, on): &(Op, Awaited)| Waits { thread: 100 + slot, op, on, limited: false, since: 1, gave_up: None };
        Surveyed {
            id: SlotId { index: slot, generation: 0 },
            state: SlotState::Live,
            dead: false,
            pid: 100 + slot,
            name: String::new(),
            parent: None,
            started: 0,
            waits: waits.iter().map(wait).collect(),
            unnoted: 0,
        }
    }

    fn survey(processes: Vec<Surveyed>, objects: Vec<Described>) -> Survey {
        Survey { processes, objects: (0..).zip(objects).collect(), ..Survey::default() }
    }

    fn lock(owner: u32) -> Described {
        let mut standing = Standing::default();
        standing.share(owner, String::new(), &[Op::Lock]);
        standing.holdings[0].thread = Some(100 + owner);
        Described { kind: "Lock", standing, holders: Default::default() }
    }

    fn queue(open: &[Op], senders: &[u32], receivers: &[u32]) -> Described {
        let mut standing = Standing::default();
        open.iter().for_each(|&op| standing.open(op));
        Described { kind: "Queue", standing, holders: [vec![], senders.to_vec(), receivers.to_vec()] }
    }

    fn on(op: Op, index: u32) -> (Op, Awaited) {
        (op, Awaited::Object(index))
    }

    fn slots(rounds: &[Round]) -> Vec<(Vec<u32>, bool)> {
        rounds.iter().map(|r| (r.waits.iter().map(|(slot, _)| *slot).collect(), r.certain)).collect()
    }

    #[test]
    fn locks_and_joins_go_round_by_threads() {
        let join = (Op::Join, Awaited::Process { slot: 0, generation: 0 });
        let circle = vec![process(0, &[on(Op::Lock, 0)]), process(1, &[on(Op::Lock, 1)]), process(2, &[join])];
        let found = survey(circle.clone(), vec![lock(1), lock(2)]);
        assert_eq!(slots(&find(&found, |_| false)), [(vec![0, 1, 2], true)]);
        // The owner of the second lock does something else.
        let found = survey(circle[..2].to_vec(), vec![lock(1), lock(2)]);
        assert!(find(&found, |_| true).is_empty());
        // It has the lock already.
        assert!(find(&survey(vec![process(0, &[on(Op::Lock, 0)])], vec![lock(0)]), |_| true).is_empty());
    }

    #[test]
    fn full_queues_go_round_by_processes() {
        let (put_jobs, put_results) = (on(Op::Put, 0), on(Op::Put, 1));
        let all = vec![process(0, &[put_jobs]), process(1, &[put_results]), process(2, &[put_results])];
        let objects = vec![queue(&[Op::Get], &[0], &[1, 2]), queue(&[Op::Get], &[1, 2], &[0])];
        let found = find(&survey(all.clone(), objects.clone()), |_| true);
        assert_eq!(slots(&found), [(vec![0, 1], true)]);
        // Another thread of the coordinator may get the results.
        assert_eq!(slots(&find(&survey(all.clone(), objects.clone()), |slot| slot != 0)), [(vec![0, 1], false)]);
        // One worker goes on.
        let mut one_goes_on = all.clone();
        one_goes_on[2].waits.clear();
        assert!(find(&survey(one_goes_on, objects.clone()), |_| true).is_empty());
        // There is room in the second queue.
        let open = vec![objects[0].clone(), queue(&[Op::Get, Op::Put], &[1, 2], &[0])];
        assert!(find(&survey(all, open), |_| true).is_empty());
    }

    #[test]
    fn who_holds_the_turn_is_waited_for_and_itself_waits_for_the_others() {
        let mut jobs = queue(&[], &[0], &[1, 2]);
        jobs.standing.holdings = lock(1).standing.holdings;
        jobs.standing.holdings[0].holds_up = vec![Op::Get];
        let all = vec![process(0, &[on(Op::Get, 1)]), process(1, &[on(Op::Get, 0)]), process(2, &[on(Op::Get, 0)])];
        let found = find(&survey(all, vec![jobs, queue(&[], &[1, 2], &[0])]), |_| true);
        assert_eq!(slots(&found), [(vec![0, 1], true)]);
    }

    #[test]
    fn a_wait_that_was_given_up_counts_if_the_others_had_begun() {
        for (gave_up, counts) in [(5, true), (2, false)] {
            let mut all = vec![process(0, &[on(Op::Lock, 0)]), process(1, &[on(Op::Lock, 1)])];
            all[0].waits[0].gave_up = Some(gave_up);
            all[1].waits[0].since = 3;
            assert_eq!(find(&survey(all, vec![lock(1), lock(0)]), |_| true).len(), usize::from(counts));
        }
    }

    /// As large as a roster allows. To look for each waiter's blockers among all waiters would take hours.
    #[test]
    fn a_thousand_processes_at_one_event_are_looked_at_in_time() {
        let waits = [on(Op::Wait, 0); 4];
        let all: Vec<_> = (0..1000).map(|slot| process(slot, &waits)).collect();
        let event = Described { kind: "Event", standing: Standing::default(), holders: [(0..1000).collect(), vec![], vec![]] };
        let found = find(&survey(all.clone(), vec![event.clone()]), |_| true);
        assert!(found.len() == 1 && found[0].certain);
        // The last of them goes on.
        let mut one_goes_on = all;
        one_goes_on[999].waits.clear();
        assert!(find(&survey(one_goes_on, vec![event]), |_| true).is_empty());
    }

    #[test]
    fn nonsense_is_no_circle() {
        let nowhere = [(Op::Join, Awaited::Process { slot: 900, generation: 7 }), on(Op::Lock, 77), on(Op::Put, 0)];
        let mut strange = lock(900);
        strange.standing.holdings[0].slot = None;
        let all = vec![process(0, &nowhere), process(1, &[on(Op::Lock, 0), on(Op::Wait, 0)])];
        assert!(find(&survey(all, vec![strange]), |_| true).is_empty());
    }
}
