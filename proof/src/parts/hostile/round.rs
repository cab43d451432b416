//! One round: a tree of processes of which one writes over words of the arena while the others use what lies there.

use super::board::{Actor, Board, State};
use multiproc::{Pool, Process};
use multiproc_shm::Arena;
use multiproc_targets::input::Input;
use multiproc_targets::map::{Map, scribble, scribbled};
use multiproc_targets::things::{Ends, Hands, MOMENT, Things};
use std::collections::VecDeque;
use std::error::Error;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The coordinator's place on the board, that of who writes, and the first of the others.
const COORDINATOR: usize = 0;
const SCRIBBLER: usize = 1;
const FIRST: usize = 2;
/// Processes that only use what is there.
pub const USERS: usize = 3;
/// Everybody ends within this.
const END: Duration = Duration::from_secs(6);
/// In [`Things::operate`].
const CONDITION_WAIT: u8 = 9;
const POOL: usize = FIRST + USERS;
/// Operations of the coordinator besides those that all do, by their numbers on the board.
pub const OWN: [(u32, &str); 4] = [(101, "spawn"), (102, "join"), (103, "dump"), (104, "dropping")];

/// Which words and how many.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Of all choices.
    pub seed: u64,
    /// Words to be written over.
    pub writes: u64,
    /// For how long, in milliseconds.
    pub millis: u64,
}

/// The coordinator of a round. Panics where the round cannot begin.
pub fn coordinate(path: &Path, order: Order) {
    let board = Board::map(path).expect("the board");
    let me = board.actor(COORDINATOR);
    me.enter();
    let arena = {
        multiproc::set_memory_limit(256 << 20).expect("nothing is shared yet");
        // The tree's arena is made at first use.
        drop(multiproc::Event::new().expect("an arena"));
        Arena::of_the_tree().expect("an arena")
    };
    let things = Things::make(arena).expect("one of everything");
    let (mut here, there) = Ends::pair(arena).expect("pipes").parted();
    let text = path.to_str().expect("a path").to_owned();
    let mut users = Vec::new();
    let mut other = Some(there);
    for index in FIRST..FIRST + USERS {
        let ends = other.take().unwrap_or_else(|| std::mem::take(&mut here));
        let args = (text.clone(), index, order.seed, things.clone(), ends);
        users.push(Process::spawn(args, use_things).expect("a user"));
    }
    let pool = Pool::builder()
        .workers(1)
        .initializer((text.clone(),), |path: String| enter_as_worker(&path))
        .shutdown_timeout(Duration::from_millis(500))
        .grace(Duration::from_millis(100))
        .build();
    let pool = pool.expect("a pool");
    let (counts, shared) = (board.actor(POOL + 1), things.clone());
    let pool_user = thread::spawn(move || use_pool(board, counts, &shared, pool));
    let mut scribbler = Process::spawn((text, order.seed, order.writes, order.millis), write_over).expect("who writes");

    let mut random = fastrand::Rng::with_seed(order.seed ^ 1);
    let (mut hands, mut children) = (Hands::default(), Vec::new());
    // A busy machine takes longer over as many words.
    let until = Instant::now() + Duration::from_millis(order.millis) * 8;
    while Instant::now() < until && !board.actor(SCRIBBLER).is_done() {
        let bytes = choices(&mut random);
        let mut input = Input::new(&bytes);
        let what = random.u32(..36);
        let note = |operation: u8| me.begin(u32::from(operation));
        let done = match what {
            0 if children.len() < 3 => {
                me.begin(101);
                own(|| {
                    children.push(Process::spawn((things.clone(), Vec::from(bytes)), |_, bytes: Vec<u8>| bytes.len())?);
                    Ok(())
                })
            }
            1 => {
                me.begin(102);
                own(|| {
                    if let Some(mut child) = children.pop() {
                        let _ = child.join_timeout(Duration::from_millis(20))?;
                        if child.is_alive() {
                            children.insert(0, child);
                        }
                    }
                    Ok(())
                })
            }
            2 => {
                me.begin(103);
                own(|| {
                    std::hint::black_box(multiproc::dump().to_string());
                    Ok(())
                })
            }
            _ => things.operate(arena, &here, &mut hands, &mut input, note),
        };
        me.end(done.is_ok());
    }
    board.stop.store(1, Ordering::Relaxed);
    board.ending.store(1, Ordering::Relaxed);
    join_within(END, me, &mut scribbler);
    note_end(board.actor(SCRIBBLER), scribbler.exit_status());
    for (index, mut user) in (FIRST..).zip(users) {
        join_within(END, me, &mut user);
        note_end(board.actor(index), user.exit_status());
    }
    me.begin(104);
    drop(hands);
    me.end(true);
    me.begin(104);
    drop(children);
    me.end(true);
    // To submit has no time-out, nor has the drop of a pool: who is still at it goes with the process.
    let until = Instant::now() + END;
    while !pool_user.is_finished() && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
    me.begin(104);
    drop((things, here));
    me.end(true);
    me.set(State::Done);
}

/// Gives tasks to the pool, and takes what comes of them.
fn use_pool(board: &Board, counts: &Actor, things: &Things, pool: Pool) {
    let mut tasks = VecDeque::new();
    while board.stop.load(Ordering::Relaxed) == 0 {
        let done = own(|| {
            tasks.push_back(pool.submit((things.clone(), 7u64), |_, n: u64| n + 1)?);
            if let Some(task) = tasks.front_mut()
                && task.join_timeout(MOMENT)?.is_some()
            {
                drop(tasks.pop_front());
            }
            tasks.truncate(20);
            Ok(())
        });
        counts.end(done.is_ok());
    }
}

/// Joins, each time for a moment.
fn join_within(patience: Duration, me: &Actor, process: &mut Process<()>) {
    let until = Instant::now() + patience;
    let mut ended = false;
    while !ended && Instant::now() < until {
        me.begin(102);
        ended = !matches!(process.join_timeout(Duration::from_millis(50)), Ok(None));
        me.end(true);
    }
}

fn note_end(actor: &Actor, status: Option<ExitStatus>) {
    let word = status.map_or(0, |status| status.code().map_or(1000 + status.signal().unwrap_or(0), |code| 1 + code));
    actor.end.store(word as u32, Ordering::Relaxed);
}

/// The choices of one operation. Not that of a condition: who waits there with a time-out takes the lock again without one, and would wait for ever for who
/// never had it.
fn choices(random: &mut fastrand::Rng) -> [u8; 24] {
    let mut bytes: [u8; 24] = std::array::from_fn(|_| random.u8(..));
    bytes[0] += u8::from(bytes[0] % 64 == CONDITION_WAIT);
    bytes
}

fn own(operation: impl FnOnce() -> Result<(), Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    operation()
}

/// A worker of the pool has come.
fn enter_as_worker(path: &str) {
    if let Ok(board) = Board::map(Path::new(path)) {
        let place = board.actor(POOL);
        if place.pid.load(Ordering::Relaxed) == 0 {
            place.enter();
        }
        place.set(State::Done);
    }
}

/// A user.
fn use_things(path: String, index: usize, seed: u64, things: Things, ends: Ends) {
    let Ok(board) = Board::map(Path::new(&path)) else { return };
    let me = board.actor(index);
    me.enter();
    let Ok(arena) = Arena::of_the_tree() else { return };
    let mut random = fastrand::Rng::with_seed(seed ^ index as u64);
    let mut hands = Hands::default();
    while board.stop.load(Ordering::Relaxed) == 0 {
        let bytes = choices(&mut random);
        let note = |operation: u8| me.begin(u32::from(operation));
        let done = things.operate(arena, &ends, &mut hands, &mut Input::new(&bytes), note);
        if let Err(refused) = &done {
            std::hint::black_box(refused.to_string());
        }
        me.end(done.is_ok());
    }
    me.begin(104);
    drop((hands, ends, things));
    me.end(true);
    me.set(State::Done);
}

/// Who writes over words: some it puts back a moment later, so that the others come further than their first look.
fn write_over(path: String, seed: u64, writes: u64, millis: u64) {
    let Ok(board) = Board::map(Path::new(&path)) else { return };
    let me = board.actor(SCRIBBLER);
    me.enter();
    let Ok(arena) = Arena::of_the_tree() else { return };
    let mut random = fastrand::Rng::with_seed(seed ^ 2);
    let Ok(mut map) = Map::of(arena) else { return };
    let begin = Instant::now();
    // Of some rounds hardly a word stays as it has become, of some most.
    let stays = [0, 1, 16, 128][random.usize(..4)];
    for n in 0..writes {
        if board.stop.load(Ordering::Relaxed) != 0 {
            break;
        }
        let bytes: [u8; 24] = std::array::from_fn(|_| random.u8(..));
        let mut input = Input::new(&bytes);
        let left = random.u32(..256) < stays;
        let written = if left {
            scribble(arena, &map, &mut input).is_ok()
        } else {
            let (_, offset) = map.pick(&mut input);
            let word = arena.memory().words(offset, 8);
            if let Ok([word]) = word {
                write_for_a_moment(word, &mut input, random.u32(..64));
            }
            word.is_ok()
        };
        let live = map.pick(&mut Input::new(&bytes)).0.is_live();
        for (count, one) in me.writes.iter().zip([written, written && live, written && left]) {
            count.fetch_add(u64::from(one), Ordering::Relaxed);
        }
        if n % 256 == 255 {
            if let Ok(anew) = Map::of(arena) {
                map = anew;
            }
            // As many in a time as were ordered.
            let due = Duration::from_micros(n * millis * 1000 / writes.max(1));
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
        }
    }
    me.set(State::Done);
}

fn write_for_a_moment(word: &AtomicU64, input: &mut Input<'_>, moment: u32) {
    // Relaxed: nobody is to rely on it.
    let old = word.load(Ordering::Relaxed);
    let new = scribbled(input, old, || old.rotate_left(13));
    word.store(new, Ordering::Relaxed);
    (0..moment * 4).for_each(|_| std::hint::spin_loop());
    let _ = word.compare_exchange(new, old, Ordering::Relaxed, Ordering::Relaxed);
}
