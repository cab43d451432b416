//! A child as its parent knows it: from its start until how it ended and what it returned have been handed out.

use crate::error::{Error, Kind, ProcessError};
use crate::keeper::ChildSeed;
use crate::lines;
use crate::signal::Signal;
use crate::tree;
use crate::worker::Outcome;
use multiproc_channel::{Bincode, Message, message};
use multiproc_shm::arena::SlotId;
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::raw::WaitWord;
use multiproc_shm::roster::{Slot, SlotState};
use multiproc_shm::scope::References;
use multiproc_shm::watching::{Seen, Watched, Watchlist};
use multiproc_shm::{Arena, record, waiting};
use multiproc_sys::bell;
use multiproc_sys::clock::Deadline;
use multiproc_sys::crash;
use multiproc_sys::pidfd::{ExitEvidence, PidFd};
use multiproc_sys::robust;
use multiproc_sys::tie::Tie;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

const ESRCH: i32 = 3;
/// A process that ends lets go of its tie a moment before its pidfd says so.
const DYING: Duration = Duration::from_millis(1);
/// A program may discard a ring: see [`bell`].
const RING_AGAIN: Duration = Duration::from_secs(1);
/// See [`Child::awaits_cleaning`].
const MOST_PASSES: u32 = 100;
const LONGEST_CLEANING: Duration = Duration::from_secs(10);

/// Kicked when any child's end is told: who waits for processes among other things sleeps on one word for all of them. In private memory, so nobody can die and
/// leave somebody asleep here.
static ENDS: WaitWord = WaitWord::new();

/// A child as this process knows it; shared by its handle and the keeper.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) slot: SlotId,
    pub(crate) pid: u32,
    pub(crate) name: String,
    pub(crate) daemon: bool,
    /// It may outlive this process, whose end does not concern it.
    detached: AtomicBool,
    /// Until the end has been told: handles that are kept cost no descriptor.
    pidfd: Mutex<Option<Arc<PidFd>>>,
    /// Until it is broken.
    tie: Mutex<Option<Arc<Tie>>>,
    ended: AtomicBool,
    state: Mutex<Progress>,
    changed: Condvar,
    /// Collections of this process since its end that did not clean its slot, and when the first was.
    passed: AtomicU32,
    since: OnceLock<Instant>,
    /// The life of this process in which the child was started: in another one it is somebody else's.
    life: u32,
}

#[derive(Debug)]
struct Progress {
    state: State,
    /// Streams whose last line is still to be delivered.
    undelivered: usize,
}

impl Progress {
    fn is_over(&self) -> bool {
        matches!(self.state, State::Ended(_)) && self.undelivered == 0
    }
}

#[derive(Debug)]
enum State {
    Running,
    /// Known to the keeper, which has not finished cleaning up.
    Ending(Ended),
    Ended(Ended),
}

#[derive(Debug)]
struct Ended {
    evidence: ExitEvidence,
    outcome: Outcome,
    last_words: Option<String>,
    began: bool,
    value: Option<ResultBlock>,
}

/// A return value that waits in the arena; this process owns the block and the references in it.
#[derive(Debug)]
struct ResultBlock {
    arena: &'static Arena,
    block: BlockId,
    references: References,
    life: u32,
}

impl ResultBlock {
    /// Takes the result over from a dead child: references first, then the block.
    fn claim(arena: &'static Arena, slot: u32, word: u64) -> Option<ResultBlock> {
        let block = BlockId::from_word(word)?;
        let references = record::adopt(arena, block).ok()?;
        let mine = BlockState::Filling(arena.my_slot());
        if !arena.change_block_state(block, BlockState::Slot(slot), mine).ok()? {
            return None;
        }
        let _ = record::arrived(arena, &references);
        Some(ResultBlock { arena, block, references, life: robust::life() })
    }

    fn decode<R: Message>(self) -> Result<R, multiproc_channel::CodecError> {
        let corrupted = multiproc_channel::CodecError::decode;
        let head = record::head(self.arena, self.block).map_err(corrupted)?;
        let mut bytes = Vec::new();
        self.arena.memory().read(head.payload, head.len, &mut bytes).map_err(corrupted)?;
        message::decode::<R, Bincode>(self.arena, &bytes, &self.references)
    }
}

impl Drop for ResultBlock {
    fn drop(&mut self) {
        if robust::life() == self.life {
            let _ = self.arena.free(self.block);
        }
    }
}

impl Child {
    /// Without a pidfd it has ended: [`collect_end`](Child::collect_end) is to follow.
    pub(crate) fn new(seed: ChildSeed, pid: u32, pidfd: Option<PidFd>) -> Child {
        let ChildSeed { slot, name, daemon, lines, tie } = seed;
        let state = Mutex::new(Progress { state: State::Running, undelivered: lines });
        let (pidfd, tie) = (Mutex::new(pidfd.map(Arc::new)), Mutex::new(Some(Arc::new(tie))));
        let (detached, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        Child {
            slot,
            pid,
            name,
            daemon,
            detached,
            pidfd,
            tie,
            ended,
            state,
            changed: Condvar::new(),
            passed: AtomicU32::new(0),
            since: OnceLock::new(),
            life: robust::life(),
        }
    }

    /// False in a process that a plain fork made: then whoever changes the state has remained in the parent.
    fn is_ours(&self) -> bool {
        robust::life() == self.life
    }

    pub(crate) fn pidfd(&self) -> Option<Arc<PidFd>> {
        self.pidfd.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn tie(&self) -> Option<Arc<Tie>> {
        self.tie.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The tie is broken. Whether that is because the child has become another program, which ends its part in the tree though the process lives.
    pub(crate) fn is_untied(&self, arena: &'static Arena) -> bool {
        *self.tie.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let lives = self.pidfd().is_some_and(|pidfd| !pidfd.dies_within(DYING));
        let same = |slot: &Slot| slot.state().is_ok_and(|(_, generation)| generation == self.slot.generation);
        // The kernel has marked the life word before it broke the tie, unless it was closed by hand, or in a process of an exec that failed.
        lives && arena.slot(self.slot.index).is_ok_and(|slot| same(slot) && slot.is_dead())
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.pidfd().is_some_and(|pidfd| !pidfd.is_dead())
    }

    fn state(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process has ended, it is cleaned up after, and its last line is delivered.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn end_is_known(&self) -> bool {
        matches!(self.state().state, State::Ending(_))
    }

    /// The process has ended and is cleaned up after.
    pub(crate) fn end_is_announced(&self) -> bool {
        matches!(self.state().state, State::Ended(_))
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Acquire)
    }

    /// The keeper has seen the pidfd end: takes the exit status and what the child left in its slot.
    pub(crate) fn collect_end(&self, arena: &'static Arena) {
        let evidence = self.pidfd().and_then(|pidfd| pidfd.reap().ok()).unwrap_or(ExitEvidence::Unknown);
        let ended = self.read_slot(arena, evidence);
        // Under the lock under which `detach` writes there: from here on the slot may become another's.
        let mut state = self.state();
        self.let_go_of_slot(arena);
        state.state = State::Ending(ended);
    }

    fn read_slot(&self, arena: &'static Arena, evidence: ExitEvidence) -> Ended {
        let SlotId { index, generation } = self.slot;
        let nothing = Ended { evidence, outcome: Outcome::None, last_words: None, began: false, value: None };
        let Ok(slot) = arena.slot(index) else { return nothing };
        let (state, now) = slot.state().unwrap_or((SlotState::Free, generation));
        if now != generation {
            return nothing;
        }
        // Acquire pairs with the Release of the child's last stores, which its death has ended anyway.
        let value = ResultBlock::claim(arena, index, slot.result.load(Ordering::Acquire));
        let ended = Ended {
            evidence,
            outcome: Outcome::from_word(slot.outcome.load(Ordering::Acquire)),
            last_words: read_text(arena, slot.last_words.load(Ordering::Acquire)),
            began: state == SlotState::Live,
            value,
        };
        if state == SlotState::Live {
            let _ = arena.slot_is_dead(self.slot);
        }
        ended
    }

    fn let_go_of_slot(&self, arena: &'static Arena) {
        let SlotId { index, generation } = self.slot;
        if let Ok(slot) = arena.slot(index)
            && slot.state().is_ok_and(|(_, now)| now == generation)
        {
            slot.release();
            // Unless it never went live, this does nothing.
            let _ = arena.abandon_slot(index, generation);
        }
    }

    /// Nobody will hear of its end: its descriptor was closed by who did not own it.
    pub(crate) fn lose(&self) {
        // The number may be another file's by now: it is not closed.
        let pidfd = self.pidfd.lock().unwrap_or_else(PoisonError::into_inner).take();
        let tie = self.tie.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::mem::forget((pidfd, tie));
        let evidence = ExitEvidence::Unknown;
        let ended = Ended { evidence, outcome: Outcome::None, last_words: None, began: true, value: None };
        self.state().state = State::Ending(ended);
        self.announce_end();
    }

    /// Whether it is waited for that its slot be cleaned: another process may be collecting, so it is looked for again and again, but who joins does not hang
    /// because a peer has written over the slot, or over the collector's lock. `collected`: a collection of this process has just passed by it.
    pub(crate) fn awaits_cleaning(&self, arena: &Arena, collected: bool) -> bool {
        let passed = self.passed.fetch_add(u32::from(collected), Ordering::Relaxed);
        let since = *self.since.get_or_init(Instant::now);
        !self.is_cleaned_up(arena) && passed < MOST_PASSES && since.elapsed() < LONGEST_CLEANING
    }

    /// Whether everything that the dead child held has been given back.
    pub(crate) fn is_cleaned_up(&self, arena: &Arena) -> bool {
        let state = arena.slot(self.slot.index).and_then(|slot| slot.state());
        state.map_or(true, |(state, generation)| generation != self.slot.generation || state == SlotState::Free)
    }

    /// Tells who waits. After the slot was cleaned, so that who joins finds leases returned and channels closed.
    pub(crate) fn announce_end(&self) {
        *self.pidfd.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.tie.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut state = self.state();
        state.state = match std::mem::replace(&mut state.state, State::Running) {
            State::Ending(ended) => State::Ended(ended),
            other => other,
        };
        self.tell(state);
    }

    /// The last line of one of its streams has been delivered.
    pub(crate) fn line_end_delivered(&self) {
        let mut state = self.state();
        state.undelivered = state.undelivered.saturating_sub(1);
        self.tell(state);
    }

    fn tell(&self, state: MutexGuard<'_, Progress>) {
        if state.is_over() {
            self.ended.store(true, Ordering::Release);
        }
        drop(state);
        self.changed.notify_all();
        ENDS.kick(u32::MAX);
    }

    /// Waits until the child has ended, everything is cleaned up, and its last line is delivered; false when time is up.
    pub(crate) fn wait(&self, deadline: Option<Deadline>) -> bool {
        // Who delivers lines would wait for itself.
        if lines::is_delivering() { self.wait_for_end(deadline) } else { self.wait_until(deadline, Progress::is_over) }
    }

    /// As [`wait`](Child::wait), but for the lines.
    pub(crate) fn wait_for_end(&self, deadline: Option<Deadline>) -> bool {
        self.wait_until(deadline, |progress| matches!(progress.state, State::Ended(_)))
    }

    fn wait_until(&self, deadline: Option<Deadline>, done: impl Fn(&Progress) -> bool) -> bool {
        if !self.is_ours() {
            // The keeper that would tell is the parent's, and may have been telling when it was forked.
            return self.state.try_lock().is_ok_and(|state| done(&state));
        }
        let mut state = self.state();
        if done(&state) {
            return true;
        }
        let note = tree::existing().and_then(|arena| arena.note_join(self.slot, deadline));
        let mut timed_out = false;
        while !timed_out && !done(&state) {
            match deadline {
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(d) if d.passed() => timed_out = true,
                Some(d) => state = self.changed.wait_timeout(state, d.remaining()).unwrap_or_else(PoisonError::into_inner).0,
            }
        }
        waiting::end(note, timed_out);
        !timed_out
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        if !self.is_ours() {
            return Err(Error::new(Kind::System, "this process was made by fork(): the child is its parent's"));
        }
        let ended = |e| Error::because(Kind::Ended, format!("process {} has ended", self.name), e);
        let Some(pidfd) = self.pidfd() else {
            return Err(Error::new(Kind::Ended, format!("process {} has ended", self.name)));
        };
        match pidfd.send_signal(signal.0) {
            Ok(()) => Ok(()),
            Err(e) if e.raw_os_error() == Some(3) => Err(ended(e)),
            Err(e) => Err(Error::because(Kind::System, format!("{signal} could not be sent to process {}", self.name), e)),
        }
    }

    /// Has the child outlive this process, and returns when that is so.
    pub(crate) fn detach(&self, arena: &'static Arena) -> Result<(), Error> {
        if !self.is_ours() {
            return Err(Error::new(Kind::System, "this process was made by fork(): the child is its parent's"));
        }
        let ended = || Error::new(Kind::Ended, format!("process {} has ended", self.name));
        let slot = arena.slot(self.slot.index)?;
        let pidfd = self.pidfd().ok_or_else(ended)?;
        crash::moment();
        {
            // As long as this lock is held, the slot is not let go of.
            let progress = self.state();
            if !matches!(progress.state, State::Running) || slot.state()?.1 != self.slot.generation {
                return Err(ended());
            }
            slot.detach();
        }
        crash::point("detach.flagged");
        loop {
            // SeqCst pairs with the keeper, which stores its id before it looks whether it is detached.
            let keeper = slot.keeper.load(Ordering::SeqCst);
            if keeper != 0
                && !pidfd.is_dead()
                && let Err(e) = bell::ring(self.pid, keeper)
                && e.raw_os_error() != Some(ESRCH)
            {
                return Err(Error::because(Kind::System, format!("process {} cannot be told that it is detached", self.name), e));
            }
            crash::point("detach.rung");
            match slot.await_detached(self.slot.generation, Deadline::after(RING_AGAIN)) {
                Some(true) => break,
                Some(false) => return Err(ended()),
                None => {}
            }
        }
        crash::point("detach.confirmed");
        self.detached.store(true, Ordering::Release);
        Ok(())
    }

    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        if !self.is_ours() {
            return None;
        }
        match &self.state().state {
            State::Ended(ended) => ended.evidence.to_wait_status().map(ExitStatus::from_raw),
            _ => None,
        }
    }

    /// The value or the reason for its absence, once.
    pub(crate) fn take<R: Message>(&self) -> Result<R, ProcessError> {
        let (name, pid) = (self.name.clone(), self.pid);
        if !self.is_ours() {
            return Err(ProcessError::Unknown { name, pid });
        }
        let mut state = self.state();
        let State::Ended(ended) = &mut state.state else { return Err(ProcessError::Unknown { name, pid }) };
        if let Some(value) = ended.value.take() {
            ended.outcome = Outcome::Fetched;
            drop(state);
            return value.decode().map_err(|source| ProcessError::Undecodable { name, source });
        }
        let words = ended.last_words.clone();
        let (message, location, backtrace) = words.as_deref().map(crate::panics::split).unwrap_or_default();
        let aborted = matches!(ended.evidence, ExitEvidence::Signaled { signal: 6, .. });
        Err(match (ended.outcome, ended.evidence) {
            (Outcome::Fetched, _) => ProcessError::AlreadyJoined { name },
            (Outcome::Panicked, _) => ProcessError::Panicked { name, pid, message, location, backtrace },
            (_, _) if aborted && words.is_some() => ProcessError::Panicked { name, pid, message, location, backtrace },
            (Outcome::StackOverflow, _) => ProcessError::StackOverflow { name, pid },
            (Outcome::Arguments | Outcome::Refused, _) => ProcessError::NotStarted { name, pid, reason: message },
            (Outcome::Result, _) => ProcessError::Unsendable { name, reason: message },
            (_, ExitEvidence::Exited(code)) if !ended.began => {
                ProcessError::NotStarted { name, pid, reason: format!("it exited with code {code} before it reported") }
            }
            (_, ExitEvidence::Exited(code)) => ProcessError::Exited { name, pid, code },
            (_, ExitEvidence::Signaled { signal, core }) => {
                ProcessError::Signaled { name, pid, signal: Signal(signal), core_dumped: core }
            }
            (Outcome::Exited(code), ExitEvidence::Unknown) => ProcessError::Exited { name, pid, code },
            (_, ExitEvidence::Unknown) => ProcessError::Unknown { name, pid },
        })
    }
}

impl Watched for Child {
    fn arena(&self) -> Option<&'static Arena> {
        tree::existing()
    }

    /// Of another process's child nobody tells, and joining it fails at once.
    fn is_ready(&self, _seen: &Seen) -> bool {
        !self.is_ours() || self.has_ended() || lines::is_delivering() && self.end_is_announced()
    }

    fn watch(&self, _seen: &mut Seen, list: &mut Watchlist) {
        list.watch(None, &ENDS);
    }

    fn woken(&self, _seen: &Seen) {}
}

fn read_text(arena: &Arena, word: u64) -> Option<String> {
    let block = BlockId::from_word(word)?;
    let head = record::head(arena, block).ok()?;
    let mut bytes = Vec::new();
    arena.memory().read(head.payload, head.len, &mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
