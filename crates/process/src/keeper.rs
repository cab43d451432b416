//! The keeper: one thread per process, with all signals blocked, that stands for the process's life.
//!
//! It holds the process's life word, so the kernel marks the slot dead when the process ends; it starts children, since the kernel ties
//! their death signal to the thread that made them; it watches them by pidfd and cleans up after them; and in a worker it
//! watches the parent and ends the process with it, unless that was detached. A detached process is nobody's child any more when its parent is gone: then
//! those who watched the parent watch it, so that somebody cleans up after it. Between such events the keeper sleeps in poll(2) and wakes for nothing.

use crate::child::Child;
use crate::error::{Error, Kind};
use crate::forked::Forked;
use crate::lines;
use crate::replaceable::Replaceable;
use crate::start::{self, Start};
use multiproc_shm::Arena;
use multiproc_shm::arena::SlotId;
use multiproc_shm::roster::SlotState;
use multiproc_sys::bell::{self, Bell};
use multiproc_sys::clock::{Deadline, now_nanos};
use multiproc_sys::pidfd::PidFd;
use multiproc_sys::poll::{Kick, poll_each, poll_readable};
use multiproc_sys::spawn;
use multiproc_sys::thread::{self, Lasting};
use multiproc_sys::tie::Tie;
use multiproc_sys::{crash, futex, signal, spin};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// While processes live whose parent is gone, the keeper looks again this often; the kernel is ending them.
const ORPHAN_CHECK: Duration = Duration::from_millis(5);
/// While another process cleans up after a child of this one, the keeper looks again this often.
const CLEANING_CHECK: Duration = Duration::from_micros(200);
/// A process that is looking for a free place holds the life word of one for two instructions, or until it continues if it is stopped there.
const OTHERS_ON_THEIR_WAY: Duration = Duration::from_secs(5);
/// Enough for the keeper's shallow calls; the cleaner's lists live on the heap.
const STACK: usize = 256 << 10;

const ESRCH: i32 = 3;

/// A worker whose parent cannot be held by its side.
pub(crate) const EXIT_ORPHAN: i32 = 125;

#[derive(Debug)]
struct Keeper {
    arena: &'static Arena,
    above: Option<Above>,
    kick: Kick,
    requests: Mutex<Vec<Request>>,
    /// Children that have not ended, and those that nobody has asked about since they have.
    children: Mutex<Vec<Arc<Child>>>,
    /// Passed on to children; opened for the first.
    own: OnceLock<PidFd>,
    /// 0 until the keeper holds the life word.
    alive: AtomicU32,
    /// Its descriptors are gone.
    blind: AtomicBool,
    /// In a process that a plain fork made.
    after_fork: Option<AfterFork>,
}

/// What a worker's keeper has besides.
#[derive(Debug)]
struct Above {
    parent: PidFd,
    slot: SlotId,
    /// Rung by the parent when the process is detached.
    bell: Bell,
    /// The first thread has taken back the death signal that it had asked for.
    only_keeper_signalled: AtomicBool,
}

/// A process without a parent that is no child of this one.
#[derive(Debug)]
struct Stranger {
    slot: SlotId,
    pidfd: PidFd,
}

/// What the keeper of a process that a plain fork made does first.
#[derive(Debug)]
struct AfterFork {
    parent: SlotId,
    /// The thread that forked lives as long as its process: so the kernel may end this one with it.
    by_main: bool,
}

/// Values of `alive`.
const BEGINNING: u32 = 0;
const ALIVE: u32 = 1;
/// Only after a fork: there is a slot, and what the process holds is being registered.
const HAS_SLOT: u32 = 2;
/// Only after a fork: the process does not take part after all.
const NOT_ALIVE: u32 = 3;

static KEEPER: Replaceable<Keeper> = Replaceable::new();
static THREAD: Lasting = Lasting { name: c"multiproc-keep", stack: STACK, body: keep };

#[derive(Debug)]
struct Request {
    start: Start,
    child: ChildSeed,
    reply: SyncSender<Result<Arc<Child>, Error>>,
}

/// What is known of a child before it has a pid.
#[derive(Debug)]
pub(crate) struct ChildSeed {
    pub(crate) slot: SlotId,
    pub(crate) name: String,
    pub(crate) daemon: bool,
    /// Streams of it that are delivered line by line.
    pub(crate) lines: usize,
    pub(crate) tie: Tie,
}

/// Starts this process's keeper. `parent` is the pidfd of the parent in a worker. [`wait_until_alive`] before anything
/// that others must be able to see die.
pub(crate) fn start(arena: &'static Arena, parent: Option<(PidFd, SlotId)>) -> io::Result<()> {
    // There already when an earlier attempt found no room for the thread.
    if KEEPER.get().is_none() {
        let _ = KEEPER.set(Keeper::new(arena, parent, None)?);
    }
    arena.kept_by(|| {
        if let Some(keeper) = KEEPER.get() {
            let _ = keeper.kick.kick();
        }
    });
    // Blocked here and inherited by the thread, so that no signal is ever handled there.
    let blocked = signal::block_all();
    thread::start(&THREAD, &blocked)
}

/// Starts a keeper in a process that a plain fork made, and returns when it has taken a slot. [`confirm`] is to follow.
pub(crate) fn start_after_fork(arena: &'static Arena, parent: PidFd, id: SlotId, by_main: bool) -> Result<(), Error> {
    // Its own slot is not known yet, and nothing asks for it.
    let own = SlotId { index: u32::MAX, generation: 0 };
    let keeper = Keeper::new(arena, Some((parent, own)), Some(AfterFork { parent: id, by_main })).map_err(|e| explain(&e))?;
    let inherited = KEEPER.get();
    let keeper = KEEPER.replace(keeper);
    let blocked = signal::block_all();
    thread::start(&THREAD, &blocked).map_err(|e| explain(&e))?;
    drop(blocked);
    while keeper.alive.load(Ordering::Acquire) == BEGINNING {
        futex::wait(&keeper.alive, BEGINNING, None);
    }
    if keeper.alive.load(Ordering::Acquire) == NOT_ALIVE {
        return Err(Error::new(
            Kind::System,
            "the process that forked this one is gone, or there is no room for another process",
        ));
    }
    // The parent's keeper is to look after this process: the descriptor by which it is kicked has been inherited.
    if let Some(parents) = inherited {
        let _ = parents.kick.kick();
    }
    Ok(())
}

/// Has a keeper that was started after a fork begin its work, or end and with it this process's part in the tree.
pub(crate) fn confirm(takes_part: bool) {
    let Some(keeper) = KEEPER.get() else { return };
    keeper.alive.store(if takes_part { ALIVE } else { NOT_ALIVE }, Ordering::Release);
    futex::wake_all(&keeper.alive);
}

/// Waits until the keeper holds the life word and, in a worker, the slot is live.
pub(crate) fn wait_until_alive() {
    let Some(keeper) = KEEPER.get() else { return };
    // Acquire pairs with the Release in `keep`.
    let alive = || keeper.alive.load(Ordering::Acquire) != BEGINNING;
    if spin::until(alive) {
        return;
    }
    while !alive() {
        futex::wait(&keeper.alive, 0, None);
    }
}

fn keep() {
    let Some(keeper) = KEEPER.get() else { return };
    if let Some(after_fork) = &keeper.after_fork {
        if !begin_life_after_fork(keeper, after_fork) {
            return;
        }
    } else {
        begin_life(keeper.arena, keeper.above.as_ref().map(|above| above.slot));
        keeper.alive.store(ALIVE, Ordering::Release);
        futex::wake_all(&keeper.alive);
    }
    if let Some(above) = &keeper.above {
        keeper.heed_detaching(above);
        let fds = [above.parent.as_fd(), keeper.kick.as_fd(), above.bell.as_fd()];
        // Most workers have no children, and their keeper allocates nothing.
        loop {
            let [gone, kicked, rung] = match poll_each(fds) {
                Ok(ready) => ready,
                Err(e) if is_closed(&e) => blind(keeper),
                // Only a lack of kernel memory; what is ready stays so.
                Err(_) => {
                    std::thread::yield_now();
                    continue;
                }
            };
            if !keeper.kick.is_ours() {
                blind(keeper);
            }
            if kicked {
                break;
            }
            if rung {
                above.bell.drain();
                keeper.heed_detaching(above);
            }
            if gone {
                if keeper.outlives_parent(above) {
                    break;
                }
                signal::kill_self();
            }
        }
    }
    run(keeper);
}

/// Takes a slot and its life word; false when this process does not take part after all.
fn begin_life_after_fork(keeper: &Keeper, after_fork: &AfterFork) -> bool {
    crash::begin_thread();
    if after_fork.by_main {
        let _ = signal::set_parent_death_signal(9);
    }
    let taken = keeper.arena.take_slot_after_fork(after_fork.parent);
    keeper.alive.store(if taken.is_ok() { HAS_SLOT } else { NOT_ALIVE }, Ordering::Release);
    futex::wake_all(&keeper.alive);
    while keeper.alive.load(Ordering::Acquire) == HAS_SLOT {
        futex::wait(&keeper.alive, HAS_SLOT, None);
    }
    let takes_part = keeper.alive.load(Ordering::Acquire) == ALIVE;
    if !takes_part {
        let _ = signal::set_parent_death_signal(0);
    }
    takes_part
}

/// Takes the life word, and in a worker the slot, or ends the process: its parent may be gone already.
fn begin_life(arena: &'static Arena, slot: Option<SlotId>) {
    let done = (|| -> Option<()> {
        let mine = arena.slot(arena.my_slot()).ok()?;
        if slot.is_some() {
            signal::set_parent_death_signal(9).ok()?;
            // The kernel marks a life word before it sends the death signal: who does not see the mark will get the signal.
            fence(Ordering::SeqCst);
            let parent = arena.slot(mine.parent.load(Ordering::Relaxed)).ok()?;
            let (state, generation) = parent.state().ok()?;
            if parent.is_dead() || state != SlotState::Live || generation != mine.parent_generation.load(Ordering::Relaxed) {
                return None;
            }
        }
        // The parent of one that comes late has died, and the slot is perhaps another's: nothing is written there before it is this one's.
        if slot.is_some_and(|slot| mine.state().ok() != Some((SlotState::Reserved, slot.generation))) {
            return None;
        }
        crash::moment();
        // A process that a plain fork made may have it for a moment, on its way to a free slot. Where it is never given back, it has been written over.
        let _ = mine.life.lock_until(arena.who().ok()?, Deadline::after(OTHERS_ON_THEIR_WAY)).ok()?;
        if let Some(SlotId { generation, .. }) = slot {
            mine.change((SlotState::Reserved, generation), (SlotState::Live, generation)).then_some(())?;
        }
        arena.attend(arena.my_slot());
        mine.pid.store(std::process::id(), Ordering::Relaxed);
        mine.started.store(now_nanos(), Ordering::Relaxed);
        // SeqCst: `heed_detaching` comes after it.
        mine.keeper.store(bell::thread_id(), Ordering::SeqCst);
        Some(())
    })();
    if done.is_none() {
        signal::exit_now(EXIT_ORPHAN);
    }
}

fn run(keeper: &'static Keeper) {
    let arena = keeper.arena;
    let mut above = keeper.above.as_ref();
    let mut strangers: Vec<Stranger> = Vec::new();
    let mut ready = Vec::new();
    let mut look_again = false;
    let mut forked = Forked::default();
    loop {
        let children = keeper.lock_children().clone();
        let mut fds: Vec<BorrowedFd<'_>> = vec![keeper.kick.as_fd()];
        fds.extend(above.iter().flat_map(|above| [above.bell.as_fd(), above.parent.as_fd()]));
        let first_child = fds.len();
        let (watched, ended): (Vec<_>, Vec<_>) = children.iter().partition(|c| !c.end_is_known());
        let pidfds: Vec<_> = watched.iter().filter_map(|c| c.pidfd()).collect();
        fds.extend(pidfds.iter().map(|pidfd| pidfd.as_fd()));
        let first_tie = fds.len();
        let ties: Vec<_> = watched.iter().filter_map(|c| c.tie().map(|tie| (c, tie))).collect();
        fds.extend(ties.iter().map(|(_, tie)| tie.as_fd()));
        let first_stranger = fds.len();
        fds.extend(strangers.iter().map(|stranger| stranger.pidfd.as_fd()));
        let first_forked = fds.len();
        fds.extend(forked.fds());
        let timeout = look_again.then_some(if ended.is_empty() { ORPHAN_CHECK } else { CLEANING_CHECK });
        if let Err(e) = poll_readable(&fds, timeout, &mut ready) {
            if is_closed(&e) {
                blind(keeper);
            }
            // Only a lack of kernel memory; what is ready stays so.
            std::thread::yield_now();
            continue;
        }
        // Readable may be a file of the program's under a number that was ours.
        if !keeper.kick.is_ours() {
            blind(keeper);
        }
        let mut any_ended = false;
        if let Some(a) = above {
            if ready[1] {
                a.bell.drain();
            }
            keeper.heed_detaching(a);
            if ready[2] {
                if !keeper.outlives_parent(a) {
                    signal::kill_self();
                }
                above = None;
                any_ended = true;
            }
        }
        // Before the ends: who has ended has no tie any more, and that is no news.
        for ((child, _), _) in ties.iter().zip(&ready[first_tie..]).filter(|(_, ready)| **ready) {
            any_ended |= child.is_untied(arena);
        }
        for (child, _) in watched.iter().zip(&ready[first_child..]).filter(|(_, ready)| **ready) {
            child.collect_end(arena);
            any_ended = true;
        }
        drop(fds);
        let (of_strangers, of_forked) = ready[first_stranger..].split_at(first_forked - first_stranger);
        any_ended |= forked.collect_ends(arena, of_forked);
        let mut state = of_strangers.iter();
        strangers.retain(|stranger| {
            let dead = state.next() == Some(&true);
            if dead {
                stranger.collect_end(arena);
                any_ended = true;
            }
            !dead
        });
        // Closed before anybody is told: who has joined a child finds its descriptor gone.
        drop((pidfds, ties));
        if any_ended || look_again {
            // Errors mean corrupted shared memory; the operations of this process report it.
            let collected = arena.collect_as_keeper();
            look_again = keeper.look_for_strangers(&mut strangers);
            // One that has become another program gives up what tells that it is gone a moment after its tie.
            look_again |= watched.iter().any(|c| c.tie().is_none() && arena.is_dying(c.slot.index).unwrap_or(false));
            for child in watched.iter().chain(&ended).filter(|c| c.end_is_known()) {
                // Another process may be collecting, and then it is that one that cleans.
                if collected.as_ref().map_or(true, |c| !child.awaits_cleaning(arena, c.rounds > 0)) {
                    child.announce_end();
                    lines::look();
                } else {
                    look_again = true;
                }
            }
            keeper.lock_children().retain(|c| !c.end_is_announced());
        }
        if ready[0] {
            keeper.kick.drain();
            look_again |= forked.look(arena);
            arena.collect_if_wished();
            let requests = std::mem::take(&mut *keeper.requests.lock().unwrap_or_else(PoisonError::into_inner));
            for request in requests {
                let reply = launch(arena, keeper, request.start, request.child);
                look_again |= reply.as_ref().is_ok_and(|child| child.end_is_known());
                let _ = request.reply.send(reply);
            }
        }
    }
}

fn is_closed(e: &io::Error) -> bool {
    e.raw_os_error() == Some(9)
}

/// The rest of the keeper's life when the program has closed descriptors that are not its own. It sees no child end any more and starts none,
/// which it says to who waits; the parent's end it still sees, in the roster.
fn blind(keeper: &'static Keeper) -> ! {
    keeper.blind.store(true, Ordering::SeqCst);
    // Who asks later sees `blind`, or fails to kick.
    keeper.requests.lock().unwrap_or_else(PoisonError::into_inner).clear();
    for child in keeper.lock_children().drain(..) {
        child.lose();
    }
    let parent = keeper.above.is_some().then(|| keeper.arena.slot(keeper.arena.my_slot())).and_then(Result::ok);
    let parent = parent.and_then(|mine| keeper.arena.slot(mine.parent.load(Ordering::Relaxed)).ok());
    match parent {
        Some(parent) => {
            parent.life.wait_for_death(None);
            signal::kill_self()
        }
        None => loop {
            std::thread::park();
        },
    }
}

fn launch(arena: &'static Arena, keeper: &'static Keeper, start: Start, seed: ChildSeed) -> Result<Arc<Child>, Error> {
    let own = own_pidfd()?;
    let inherit = [arena.fd()?, own, start.tie.as_fd()];
    // There must be room for its pidfd: a child that runs although its start has failed would be nobody's.
    let room = own.try_clone_to_owned().map_err(|e| explain(&e))?;
    let pid = start::start(&start, &inherit).map_err(|e| explain(&e))?;
    // The child alone has its end of the tie from now on.
    drop(start);
    drop(room);
    // The child says it too, once it takes part; until this thread has seen its end the slot is nobody else's.
    if let Ok(slot) = arena.slot(seed.slot.index) {
        slot.pid.store(pid, Ordering::Relaxed);
    }
    let pidfd = match PidFd::of_child(pid) {
        Ok(pidfd) => Some(pidfd),
        // Ended, and reaped by who ignores SIGCHLD or waits for any child: its slot says how.
        Err(e) if e.raw_os_error() == Some(ESRCH) => None,
        Err(e) => {
            spawn::end_unwatched(pid);
            return Err(explain_pidfd(&e));
        }
    };
    let gone = pidfd.is_none();
    let child = Arc::new(Child::new(seed, pid, pidfd));
    if gone {
        child.collect_end(arena);
    }
    keeper.lock_children().push(child.clone());
    Ok(child)
}

/// For failures of pidfd_open(2), which comes before anything else that a start needs.
fn explain_pidfd(e: &io::Error) -> Error {
    match e.raw_os_error() {
        // EPERM and ENOSYS.
        Some(1 | 38) => {
            let text = "no process can be started, since pidfd_open(2) is refused: by a seccomp filter that does not know it, or a kernel before Linux 5.3";
            Error::because(Kind::System, text, e.to_string())
        }
        _ => explain(e),
    }
}

pub(crate) fn explain(e: &io::Error) -> Error {
    let (kind, text) = match e.raw_os_error() {
        Some(2) if !std::path::Path::new("/proc/self/exe").exists() => {
            (Kind::System, "the program cannot be executed again: /proc is not mounted")
        }
        Some(2) => (Kind::System, "the working directory of the process does not exist"),
        Some(7) => (Kind::Resources, "the environment leaves no room for what a worker is told"),
        Some(11 | 12 | 23 | 24) => (Kind::Resources, "no further process can be started"),
        _ => (Kind::System, "the process cannot be started"),
    };
    Error::because(kind, text, e.to_string())
}

impl Stranger {
    fn collect_end(&self, arena: &'static Arena) {
        // PID 1 and subreapers are given the children of others.
        if self.pidfd.is_child() {
            let _ = self.pidfd.reap();
        }
        let _ = arena.slot_is_dead(self.slot);
    }
}

impl Keeper {
    fn new(arena: &'static Arena, parent: Option<(PidFd, SlotId)>, after_fork: Option<AfterFork>) -> io::Result<Keeper> {
        let above = |(parent, slot)| -> io::Result<Above> {
            Ok(Above { parent, slot, bell: Bell::new()?, only_keeper_signalled: AtomicBool::new(false) })
        };
        Ok(Keeper {
            arena,
            above: parent.map(above).transpose()?,
            kick: Kick::new()?,
            requests: Mutex::default(),
            children: Mutex::default(),
            own: OnceLock::new(),
            alive: AtomicU32::new(BEGINNING),
            blind: AtomicBool::new(false),
            after_fork,
        })
    }

    /// If this process has been detached: takes back the death signal, and tells the parent once no other thread has one either.
    fn heed_detaching(&self, above: &Above) {
        let Ok(slot) = self.arena.slot(above.slot.index) else { return };
        if slot.is_detached() {
            let _ = signal::set_parent_death_signal(0);
            // SeqCst: either this sees the first thread's note, or that thread sees the flag and kicks.
            if above.only_keeper_signalled.load(Ordering::SeqCst) {
                slot.confirm_detached();
            }
        }
    }

    fn outlives_parent(&self, above: &Above) -> bool {
        self.arena.slot(above.slot.index).is_ok_and(|slot| slot.is_detached())
    }

    /// Begins to watch processes that were detached and whose parent is gone. Whether there are others without a parent, which the kernel is
    /// ending.
    fn look_for_strangers(&self, strangers: &mut Vec<Stranger>) -> bool {
        let Ok(bereaved) = self.arena.bereaved() else { return false };
        let mut again = false;
        for one in bereaved {
            if one.dying {
                again = true;
                continue;
            }
            if strangers.iter().any(|s| s.slot == one.slot) {
                continue;
            }
            again |= !one.detached;
            match PidFd::open(one.pid) {
                // Alive after it was opened: the pid was not another's.
                Ok(pidfd) if self.arena.is_live(one.slot).unwrap_or(false) => {
                    if one.detached {
                        strangers.push(Stranger { slot: one.slot, pidfd });
                    } else {
                        // The kernel does not end one that has changed its user, and it does not itself while it is stopped.
                        let _ = pidfd.send_signal(9);
                        if pidfd.is_dead() {
                            let _ = self.arena.slot_is_dead(one.slot);
                        }
                    }
                }
                _ => again = true,
            }
        }
        again
    }

    fn lock_children(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Child>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first thread of this worker has taken back its death signal: only the keeper has one.
pub(crate) fn only_keeper_is_signalled() {
    let Some(keeper) = KEEPER.get() else { return };
    let Some(above) = &keeper.above else { return };
    above.only_keeper_signalled.store(true, Ordering::SeqCst);
    if keeper.outlives_parent(above) {
        let _ = keeper.kick.kick();
    }
}

/// Has the keeper start a child.
pub(crate) fn request(start: Start, child: ChildSeed) -> Result<Arc<Child>, Error> {
    let keeper = KEEPER.get().ok_or_else(gone)?;
    let (reply, answer) = sync_channel(1);
    let request = Request { start, child, reply };
    keeper.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    let kicked = keeper.kick.kick();
    if kicked.is_err() || keeper.blind.load(Ordering::SeqCst) {
        keeper.requests.lock().unwrap_or_else(PoisonError::into_inner).clear();
        return Err(Error::new(Kind::System, "this process has closed descriptors of multiproc's and starts no more children"));
    }
    answer.recv().map_err(|_| gone())?
}

/// The descriptor that a child gets of this process.
pub(crate) fn own_pidfd() -> Result<BorrowedFd<'static>, Error> {
    let keeper = KEEPER.get().ok_or_else(gone)?;
    if keeper.own.get().is_none() {
        let _ = keeper.own.set(PidFd::open_self().map_err(|e| explain_pidfd(&e))?);
    }
    keeper.own.get().map(PidFd::as_fd).ok_or_else(gone)
}

fn gone() -> Error {
    Error::new(Kind::System, "this process has no keeper thread")
}

/// Children of this process whose end nobody has been told of.
pub(crate) fn children() -> Vec<Arc<Child>> {
    let mut children = KEEPER.get().map(|k| k.lock_children().clone()).unwrap_or_default();
    // The keeper tells first, and lets go of them a moment later.
    children.retain(|child| !child.end_is_announced());
    children
}
