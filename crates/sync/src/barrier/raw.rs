//! The words of a [`Barrier`](super::Barrier): one word says how far a round has come and how the last ones ended.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `state` | {round:32, how the last rounds ended:14, status:2, arrived:16}; each change is a commit | by CAS: who arrives, opens, breaks or resets | as it is; a member's death breaks the round that is under way |
//! | `news` | changes whenever a round has ended; everybody sleeps on it | who ended a round, after that; cleaner | the cleaner changes it and wakes all |
//! | `asleep` | somebody may sleep | who is about to sleep, before its last look; 0 by who ends a round | taken, and nobody woken: the cleaner wakes all |
//! | `members[slot]` | handles of that process through which it has come | that process; 0 by the cleaner | the process is dead: the cleaner breaks the round, then clears it |
//! | `died` | {round:32, pid:32} of a round that a death has broken | cleaner, before it breaks the round | names a round that another may end in another way |
//! | `parties` | how many make a round, a constant | creator | - |
//!
//! | status | meaning |
//! |---|---|
//! | `OPEN` | `arrived` threads wait, fewer than `parties` |
//! | `ACTING` | all have come, and the last of them runs the action; who comes now waits for the next round |
//! | `BROKEN` | nobody waits; who comes is told so, until a reset |
//!
//! # All or none
//! A round ends by one store, which counts it and shifts into the history whether the barrier opened. Whoever waited in it reads the answer there, however
//! late it wakes: so all of a round go through or all are told that it is broken. Who sleeps through 14 more rounds, which takes more threads than parties or
//! that many resets, is told that it is broken.
//!
//! `state` and `asleep` pair by `fence(SeqCst)` (Dekker): the sleeper stores that it sleeps, fences, looks at `state`; who ends a round changes `state`, fences,
//! takes `asleep`. It changes `news` after that, and the sleeper has read `news` before, so the kernel's comparison catches the rest. `tests/barrier_model.rs` has
//! loom try it.

use crate::beneath::{AtomicU32, AtomicU64, Deadline, Ordering, SLOTS, Wait, crash, fence, futex, spin};

/// See the module head. All-zero memory, but for `parties`, is a barrier that nobody has come to.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct RawBarrier {
    state: AtomicU64,
    died: AtomicU64,
    news: AtomicU32,
    asleep: AtomicU32,
    pub(crate) parties: AtomicU32,
    _unused: AtomicU32,
    members: [AtomicU32; SLOTS],
}

/// The most parties: what `arrived` can count.
pub(crate) const MAX_PARTIES: u32 = u16::MAX as u32;
/// Rounds of which `state` knows how they ended.
const HISTORY: u32 = 14;

const OPEN: u64 = 0;
const ACTING: u64 = 1;
const BROKEN: u64 = 2;

/// `state`, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    round: u32,
    /// Bit 0 is that of the last round; 1: the barrier opened.
    history: u64,
    status: u64,
    arrived: u32,
}

impl State {
    fn read(word: u64) -> State {
        State {
            round: (word >> 32) as u32,
            history: word >> 18 & ((1 << HISTORY) - 1),
            // A status that no correct process writes counts as broken.
            status: (word >> 16 & 3).min(BROKEN),
            arrived: (word & 0xffff) as u32,
        }
    }

    fn word(self) -> u64 {
        u64::from(self.round) << 32 | self.history << 18 | self.status << 16 | u64::from(self.arrived)
    }

    /// The round has ended.
    fn ended(self, opened: bool, status: u64) -> State {
        let history = (self.history << 1 | u64::from(opened)) & ((1 << HISTORY) - 1);
        State { round: self.round.wrapping_add(1), history, status, arrived: 0 }
    }

    fn outcome_of(self, round: u32) -> Option<Ended> {
        match self.round.wrapping_sub(round) {
            0 => None,
            ago @ 1..=HISTORY if self.history >> (ago - 1) & 1 != 0 => Some(Ended::Opened),
            _ => Some(Ended::Broken),
        }
    }
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Opened,
    Broken,
}

/// What became of who arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It waits in this round.
    Waits { round: u32, index: u32 },
    /// It is the last: it runs the action and then opens.
    Leads { round: u32, index: u32 },
    /// It is the last, there is no action, and the barrier has opened. [`RawBarrier::tell`] is to follow.
    Opened { index: u32 },
    /// The action of this round runs: it has to wait until the round has ended, and to arrive again.
    TooEarly { round: u32 },
    /// The barrier is broken, since this round.
    Broken { round: u32 },
}

impl RawBarrier {
    /// For the model.
    #[cfg(test)]
    #[allow(dead_code)]
    pub(crate) fn new(parties: u32) -> RawBarrier {
        let word = AtomicU32::new;
        RawBarrier {
            state: AtomicU64::new(0),
            died: AtomicU64::new(0),
            news: word(0),
            asleep: word(0),
            parties: word(parties),
            _unused: word(0),
            members: std::array::from_fn(|_| word(0)),
        }
    }

    /// So many rounds before the first one.
    #[allow(dead_code)]
    pub(crate) fn begin_at(&self, round: u32) {
        // Relaxed: published with the object.
        self.state.store(State { round, history: 0, status: OPEN, arrived: 0 }.word(), Ordering::Relaxed);
        self.news.store(round, Ordering::Relaxed);
    }

    fn look(&self) -> State {
        // Acquire pairs with the AcqRel in `change`: what all did before they came is seen by those who go.
        State::read(self.state.load(Ordering::Acquire))
    }

    /// Changes the state as `to` says, `None`: not at all. The state as it was.
    fn change(&self, mut to: impl FnMut(State) -> Option<State>) -> (State, bool) {
        // Relaxed: the CAS acquires.
        let mut word = self.state.load(Ordering::Relaxed);
        loop {
            let from = State::read(word);
            let Some(next) = to(from) else {
                // Acquire: as `look`.
                fence(Ordering::Acquire);
                return (from, false);
            };
            match self.state.compare_exchange_weak(word, next.word(), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return (from, true),
                Err(now) => word = now,
            }
        }
    }

    /// The process in `slot` takes part by one more handle.
    pub(crate) fn join(&self, slot: u32) {
        if let Some(member) = self.members.get(slot as usize) {
            // Relaxed: read by the cleaner, after the end of the process.
            member.fetch_add(1, Ordering::Relaxed);
        }
        crash::point("barrier.joined");
    }

    /// A handle by which the process in `slot` took part is gone.
    pub(crate) fn quit(&self, slot: u32) {
        crash::point("barrier.quits");
        if let Some(member) = self.members.get(slot as usize) {
            // Saturating, since the word lies where peers can write.
            let _ = member.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        }
        crash::point("barrier.quit");
    }

    /// One more has come. `acts`: it would run an action.
    pub(crate) fn arrive(&self, acts: bool) -> Arrival {
        crash::point("barrier.arrives");
        let parties = self.parties();
        let (before, _) = self.change(|s| match s.status {
            OPEN if s.arrived + 1 < parties => Some(State { arrived: s.arrived + 1, ..s }),
            OPEN if acts => Some(State { arrived: parties, status: ACTING, ..s }),
            OPEN => Some(s.ended(true, OPEN)),
            _ => None,
        });
        crash::point("barrier.arrived");
        let (round, index) = (before.round, before.arrived);
        match before.status {
            OPEN if index + 1 < parties => Arrival::Waits { round, index },
            OPEN if acts => Arrival::Leads { round, index },
            OPEN => Arrival::Opened { index },
            ACTING => Arrival::TooEarly { round },
            _ => Arrival::Broken { round: round.wrapping_sub(1) },
        }
    }

    /// Who leads has run the action: opens the barrier, unless the round has been broken meanwhile.
    pub(crate) fn open(&self, round: u32) -> Ended {
        crash::point("barrier.opens");
        let (_, opened) = self.change(|s| (s.round == round && s.status == ACTING).then(|| s.ended(true, OPEN)));
        crash::point("barrier.opened");
        if opened {
            self.tell();
        }
        if opened { Ended::Opened } else { Ended::Broken }
    }

    /// Breaks the barrier and the round that is under way; or this one only, if it is still under way, and how it ended if not.
    pub(crate) fn break_round(&self, only: Option<u32>) -> Option<Ended> {
        crash::point("barrier.breaks");
        let this = |s: &State| only.is_none_or(|round| s.round == round);
        let (before, broke) = self.change(|s| (s.status != BROKEN && this(&s)).then(|| s.ended(false, BROKEN)));
        crash::point("barrier.broke");
        if broke {
            self.tell();
        }
        only.and_then(|round| before.outcome_of(round))
    }

    /// Breaks the round of those who wait, if anybody does; then the barrier is as new.
    pub(crate) fn reset(&self) {
        crash::point("barrier.resets");
        let (before, _) = self.change(|s| match s.status {
            BROKEN => Some(State { status: OPEN, arrived: 0, ..s }),
            OPEN if s.arrived == 0 => None,
            _ => Some(s.ended(false, OPEN)),
        });
        crash::point("barrier.reset");
        if before.status != BROKEN && before.arrived > 0 {
            self.tell();
        }
    }

    /// Wakes all who sleep, after a change of `state`.
    pub(crate) fn tell(&self) {
        // Pairs with the fence in `sleep`.
        fence(Ordering::SeqCst);
        // Acquire pairs with the Release in `sleep`: who announced itself has read `news` before it changes here.
        let asleep = self.asleep.swap(0, Ordering::Acquire);
        crash::point("barrier.took_asleep");
        self.news.fetch_add(1, Ordering::Relaxed);
        crash::point("barrier.news");
        if asleep != 0 {
            futex::wake(&self.news, u32::MAX);
        }
        crash::point("barrier.told");
    }

    /// How the round has ended, within the time that one spins.
    pub(crate) fn ended_soon(&self, round: u32) -> Option<Ended> {
        let mut ended = None;
        spin::until(|| {
            ended = self.look().outcome_of(round);
            ended.is_some()
        });
        ended
    }

    /// Until the round has ended; `None` when time was up before.
    pub(crate) fn sleep(&self, round: u32, deadline: Option<Deadline>) -> Option<Ended> {
        loop {
            // Relaxed: before the store and the fence that follow, which is what counts.
            let seen = self.news.load(Ordering::Relaxed);
            // Release: `news` is read before it. A swap, as the one in `tell`, so that all of them lie in one order.
            self.asleep.swap(1, Ordering::AcqRel);
            // Pairs with the fence in `tell`.
            fence(Ordering::SeqCst);
            if let Some(ended) = self.look().outcome_of(round) {
                return Some(ended);
            }
            crash::point("barrier.before_sleep");
            let why = futex::wait(&self.news, seen, deadline);
            crash::point("barrier.after_sleep");
            if let Some(ended) = self.look().outcome_of(round) {
                return Some(ended);
            }
            if why == Wait::TimedOut {
                return None;
            }
        }
    }

    /// For the cleaner: the process in `slot` is dead, which had this pid.
    pub(crate) fn slot_died(&self, slot: u32, pid: u32) {
        let Some(member) = self.members.get(slot as usize) else { return };
        if member.load(Ordering::Relaxed) != 0 {
            let _ = self.change(|s| {
                if s.status == BROKEN {
                    return None;
                }
                // Relaxed: published by the CAS that follows.
                self.died.store(u64::from(s.round) << 32 | u64::from(pid), Ordering::Relaxed);
                Some(s.ended(false, BROKEN))
            });
        }
        crash::point("barrier.cleaner_broke");
        // Whoever has a handle may have died between the end of a round and the last wake.
        self.news.fetch_add(1, Ordering::Release);
        crash::point("barrier.cleaner_news");
        futex::wake(&self.news, u32::MAX);
        crash::point("barrier.cleaner_woke");
        member.store(0, Ordering::Relaxed);
    }

    /// Who died and so broke this round.
    pub(crate) fn killer_of(&self, round: u32) -> Option<u32> {
        // Relaxed: the caller has seen the end of the round.
        let died = self.died.load(Ordering::Relaxed);
        ((died >> 32) as u32 == round && died as u32 != 0).then_some(died as u32)
    }

    /// How many make a round.
    pub(crate) fn parties(&self) -> u32 {
        // Clamped, since the word lies where peers can write.
        self.parties.load(Ordering::Relaxed).clamp(1, MAX_PARTIES)
    }

    /// How many have come and not gone on.
    pub(crate) fn arrived(&self) -> u32 {
        self.look().arrived
    }

    /// Whether it is broken until a reset.
    pub(crate) fn is_broken(&self) -> bool {
        self.look().status == BROKEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_known_by_how_it_ended_for_fourteen_more() {
        let mut state = State::read(u64::from(u32::MAX - 3) << 32);
        let first = state.round;
        assert_eq!(state.outcome_of(first), None);
        for i in 0..HISTORY {
            state = state.ended(i % 3 == 0, OPEN);
            assert_eq!(State::read(state.word()), state);
            for j in 0..=i {
                let expected = if j % 3 == 0 { Ended::Opened } else { Ended::Broken };
                assert_eq!(state.outcome_of(first.wrapping_add(j)), Some(expected), "round {j} after {i}");
            }
        }
        assert_eq!(state.ended(true, OPEN).outcome_of(first), Some(Ended::Broken));
    }
}
