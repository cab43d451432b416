//! Killing workers at random moments, while there is work, and knowing what each of them held.
//!
//! Each [`Kill`] is planned for a chunk. Some are for a worker that counts, some for one that has sent its result and
//! not acknowledged: these wait on the [`Board`] for who comes to that stage with that chunk or a later one, and who
//! comes there stays there. The others hit whoever it is. So that work is left for every kill, jobs are held back:
//!
//! - no job is given out which a later kill waits for, and the last job only when it is known to be the last;
//! - what the next kill waits for is on the board before the victim of the one before is dead, so that the chunk that
//!   comes back from it does not slip through.
//!
//! The victim is stopped before its stage is read, so it is killed where it was seen. All choices follow from a seed.
//! Stands on [`crew`](crate::crew).

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::board::{Board, Stage};
use crate::crew::Crew;
use crate::report::Chaos;

/// How long victims are looked for, at most, before looking again.
const GLANCE: Duration = Duration::from_micros(50);
/// Random moments lie within this many microseconds.
const MOMENT: u64 = 1500;

/// Whom to kill, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    /// Who is at this stage, with that chunk or a later one.
    At(Stage),
    /// Anybody, once this chunk has been given out.
    Any(u64),
}

impl Kill {
    fn chunk(self) -> u64 {
        match self {
            Kill::At(Stage::Leased(chunk) | Stage::Sent(chunk)) | Kill::Any(chunk) => chunk,
            Kill::At(Stage::Starting | Stage::Idle) => 0,
        }
    }

    fn with_chunk(self, chunk: u64) -> Kill {
        match self {
            Kill::At(Stage::Leased(_)) => Kill::At(Stage::Leased(chunk)),
            Kill::At(Stage::Sent(_)) => Kill::At(Stage::Sent(chunk)),
            Kill::At(Stage::Starting | Stage::Idle) => self,
            Kill::Any(_) => Kill::Any(chunk),
        }
    }

    /// What is waited for.
    fn hunts(self) -> Option<Stage> {
        match self {
            Kill::At(stage) => Some(stage),
            Kill::Any(_) => None,
        }
    }
}

/// `n` kills over about `chunks` chunks, in order of their chunks. At least half of them hit a lease, the last one too.
fn plan(n: u32, chunks: u64, random: &mut fastrand::Rng) -> Vec<Kill> {
    let sent = n / 8 + u32::from(n > 1);
    let at_a_lease = n.div_ceil(2).max(sent + 1);
    let mut kills: Vec<Kill> = (0..n)
        .map(|i| match i {
            _ if i < sent => Kill::At(Stage::Sent(0)),
            _ if i < at_a_lease => Kill::At(Stage::Leased(0)),
            _ => Kill::Any(0),
        })
        .collect();
    random.shuffle(&mut kills);
    if let (Some(hunt), Some(last)) = (kills.iter().rposition(|kill| kill.hunts().is_some()), kills.len().checked_sub(1)) {
        kills.swap(hunt, last);
    }
    let mut at: Vec<u64> = (0..n).map(|_| random.u64(..chunks.max(1))).collect();
    at.sort_unstable();
    kills.iter().zip(at).map(|(kill, chunk)| kill.with_chunk(chunk)).collect()
}

/// The plan, and how far it and the jobs are: what the killer and who gives out jobs agree on.
#[derive(Debug)]
pub(crate) struct Pace {
    state: Mutex<State>,
    changed: Condvar,
    board: Board,
    random: Mutex<fastrand::Rng>,
}

#[derive(Debug)]
struct State {
    /// What is left, in order.
    kills: VecDeque<Kill>,
    /// How many jobs have been given out.
    given: u64,
}

impl State {
    /// Jobs below this may be given out.
    fn limit(&self) -> u64 {
        let mut hunted = self.kills.iter().filter(|kill| kill.hunts().is_some()).map(|kill| kill.chunk());
        match (hunted.next(), hunted.next()) {
            (Some(now), Some(later)) => later.max(now + 1),
            _ => u64::MAX,
        }
    }
}

impl Pace {
    /// `n` kills over about `chunks` chunks.
    pub(crate) fn new(n: u32, chunks: u64, seed: u64, board: Board) -> Pace {
        let mut random = fastrand::Rng::with_seed(seed);
        let kills = plan(n, chunks, &mut random).into();
        let state = Mutex::new(State { kills, given: 0 });
        let pace = Pace { state, changed: Condvar::new(), board, random: Mutex::new(random) };
        pace.publish(&pace.state());
        pace
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what is waited for on the board.
    fn publish(&self, state: &State) {
        let next = state.kills.iter().find_map(|kill| kill.hunts());
        self.board.hunted.set(next.unwrap_or(Stage::Idle));
    }

    /// Waits until the job of `chunk`, which is not the last one or known to be, may be given out.
    pub(crate) fn wait_for(&self, chunk: u64) {
        let mut state = self.state();
        while chunk >= state.limit() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.given = chunk + 1;
        drop(state);
        self.changed.notify_all();
    }

    /// There are this many chunks: kills that are planned for later ones move to the last one, which has not been given out.
    pub(crate) fn end(&self, chunks: u64) {
        let mut state = self.state();
        match chunks.checked_sub(1) {
            Some(last) => state.kills.iter_mut().for_each(|kill| *kill = kill.with_chunk(kill.chunk().min(last))),
            None => state.kills.clear(),
        }
        self.publish(&state);
        drop(state);
        self.changed.notify_all();
    }

    /// No work is left: the kills that are left do not fit.
    pub(crate) fn give_up(&self) {
        self.end(0);
    }

    /// The next kill, when its chunk has been given out. `None` when there is none.
    fn next(&self) -> Option<Kill> {
        let mut state = self.state();
        loop {
            match state.kills.front() {
                Some(kill) if state.given <= kill.chunk() => {}
                other => return other.copied(),
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The first kill is as good as done.
    fn advance(&self) {
        let mut state = self.state();
        state.kills.pop_front();
        self.publish(&state);
        drop(state);
        self.changed.notify_all();
    }

    /// Kills until the plan is done, and says how many and how many of them held a lease.
    pub(crate) fn kill(&self, crew: &Mutex<Crew>) -> Chaos {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chaos = Chaos::default();
        while let Some(kill) = self.next() {
            if kill.hunts().is_none_or(|stage| self.somebody_is(stage, crew)) {
                thread::sleep(Duration::from_micros(random.u64(..MOMENT)));
                if let Some(held) = self.strike(kill, &mut lock(crew), &mut random) {
                    chaos.killed += 1;
                    chaos.with_a_lease += u64::from(held != Stage::Idle);
                }
            } else {
                thread::sleep(GLANCE);
            }
        }
        chaos
    }

    fn somebody_is(&self, wanted: Stage, crew: &Mutex<Crew>) -> bool {
        lock(crew).workers.iter().any(|worker| worker.stage.get().meets(wanted))
    }

    /// Kills a worker, if one is as wanted, and starts another one.
    fn strike(&self, kill: Kill, crew: &mut Crew, random: &mut fastrand::Rng) -> Option<Stage> {
        // Not who is starting: stopped before it has bound its life to ours, it would outlive us if we were killed now.
        let there = |stage: Stage| stage != Stage::Starting;
        let fits = |stage: Stage| kill.hunts().map_or(there(stage), |wanted| stage.meets(wanted));
        let possible: Vec<usize> = (0..crew.workers.len()).filter(|at| fits(crew.workers[*at].stage.get())).collect();
        let at = random.choice(possible)?;
        let victim = &crew.workers[at];
        if !victim.stop() {
            return None;
        }
        let stage = victim.stage.get();
        if fits(stage) {
            self.advance();
            crew.kill(at).then_some(stage)
        } else {
            victim.go_on();
            None
        }
    }
}

fn lock(crew: &Mutex<Crew>) -> MutexGuard<'_, Crew> {
    crew.lock().unwrap_or_else(PoisonError::into_inner)
}
