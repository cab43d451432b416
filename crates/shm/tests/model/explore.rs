//! Exploring a model: every order of its steps with each state visited once, or many orders drawn at random. What breaks a rule is
//! returned with the steps that lead there, which can be played again.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// Something that goes on in steps of which one actor at a time takes one.
pub(crate) trait Model {
    /// Where everything stands.
    type State: Copy + Eq + Hash + Debug;
    /// What can happen next.
    type Step: Copy + Debug;

    /// Where it begins.
    fn start(&self) -> Self::State;
    /// All that can happen next; nothing at the end.
    fn steps(&self, state: &Self::State, into: &mut Vec<Self::Step>);
    /// Who takes the step.
    fn actor(&self, step: Self::Step) -> usize;
    /// Takes a step and says what it was; an error when it breaks a rule.
    fn take(&self, state: &mut Self::State, step: Self::Step) -> Result<&'static str, String>;
    /// Checks a state in which nothing goes on any more.
    fn at_rest(&self, state: &Self::State) -> Result<(), String>;
}

/// A way into a broken rule.
pub(crate) struct Broken<S> {
    pub(crate) rule: String,
    pub(crate) steps: Vec<S>,
}

/// Visits every state that can be reached; how many they are.
pub(crate) fn exhaust<M: Model>(model: &M) -> Result<usize, Broken<M::Step>> {
    let mut seen = HashSet::new();
    let start = model.start();
    seen.insert(start);
    // Each entry: a state, what can still be tried there, and the step that led to it.
    let mut first = Vec::new();
    model.steps(&start, &mut first);
    let mut path = vec![(start, first, None)];
    while let Some((state, untried, _)) = path.last_mut() {
        let Some(step) = untried.pop() else {
            path.pop();
            continue;
        };
        let mut next = *state;
        let taken = model.take(&mut next, step);
        let mut steps = Vec::new();
        model.steps(&next, &mut steps);
        let ok = taken.and_then(|_| if steps.is_empty() { model.at_rest(&next) } else { Ok(()) });
        if let Err(rule) = ok {
            let steps = path.iter().filter_map(|(_, _, step)| *step).chain([step]).collect();
            return Err(Broken { rule, steps });
        }
        if seen.insert(next) {
            path.push((next, steps, Some(step)));
        }
    }
    Ok(seen.len())
}

/// Numbers from a seed (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        (0..4).for_each(|_| {
            r.next();
        });
        r
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// One order at random. Actors have random speeds that change now and then: a fair coin at each step would hardly ever leave one behind for long.
pub(crate) fn wander<M: Model>(model: &M, random: &mut Random) -> Result<usize, Broken<M::Step>> {
    const SPEEDS: [u64; 4] = [1, 4, 30, 300];
    let mut speed = [0; 8];
    let (mut state, mut taken, mut steps) = (model.start(), Vec::new(), Vec::new());
    loop {
        if taken.is_empty() || random.below(20) == 0 {
            speed = std::array::from_fn(|_| SPEEDS[random.below(SPEEDS.len())]);
        }
        steps.clear();
        model.steps(&state, &mut steps);
        if steps.is_empty() {
            return model.at_rest(&state).map(|()| taken.len()).map_err(|rule| Broken { rule, steps: taken });
        }
        let weight = |s: &M::Step| speed[model.actor(*s) % speed.len()];
        let mut at = random.next() % steps.iter().map(weight).sum::<u64>();
        let chosen = steps.iter().find(|s| {
            let here = at < weight(s);
            at = at.saturating_sub(weight(s));
            here
        });
        let step = *chosen.unwrap_or(&steps[0]);
        taken.push(step);
        if let Err(rule) = model.take(&mut state, step) {
            return Err(Broken { rule, steps: taken });
        }
    }
}

/// Plays steps again: what each was, and the rule that the last one broke.
pub(crate) fn replay<M: Model>(model: &M, steps: &[M::Step]) -> (Vec<String>, Result<(), String>) {
    let (mut state, mut told) = (model.start(), Vec::new());
    for &step in steps {
        match model.take(&mut state, step) {
            Ok(what) => told.push(format!("{} {what}", model.actor(step))),
            Err(rule) => return (told, Err(rule)),
        }
    }
    let mut next = Vec::new();
    model.steps(&state, &mut next);
    let rest = if next.is_empty() { model.at_rest(&state) } else { Ok(()) };
    (told, rest)
}
