//! A worker's life: join the tree, read the job, run it, leave the result, exit.
//!
//! | killed | left behind | what the parent sees |
//! |---|---|---|
//! | before the slot is live | a reserved slot | `NotStarted`, or `Signaled`; it frees the slot |
//! | before `args` is cleared | arguments in the slot | freed with it; what they referred to goes at the next collection |
//! | while the function runs | what it held | given back by the cleaner |
//! | before `result` is stored | a block of this slot | `Signaled`; freed with the slot |
//! | after `result` is stored | the value | the value |

use crate::error::Error;
use crate::job::{self, Failed};
use crate::marker::Marker;
use crate::{exit, halt, keeper, panics, tree};
use multiproc_shm::arena::SlotId;
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::roster::Slot;
use multiproc_shm::scope::References;
use multiproc_shm::{Arena, record};
use multiproc_sys::crash;
use multiproc_sys::pidfd::PidFd;
use multiproc_sys::{inherit, memfd, seal, signal};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

/// The arena was built by another program, or is none.
pub(crate) const EXIT_REFUSED: i32 = 126;
const KILL: i32 = 9;
/// As a Rust program that panics in `main`.
const EXIT_PANIC: i32 = 101;

/// How a worker ended, as it says itself; the kernel's word counts for more where both speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    None,
    Returned,
    Panicked,
    StackOverflow,
    Arguments,
    Result,
    Refused,
    Exited(i32),
    /// Only in the parent: the value has been handed out.
    Fetched,
}

impl Outcome {
    pub(crate) fn to_word(self) -> u64 {
        match self {
            Outcome::None | Outcome::Fetched => 0,
            Outcome::Returned => 1 << 32,
            Outcome::Panicked => 2 << 32,
            Outcome::StackOverflow => 3 << 32,
            Outcome::Arguments => 4 << 32,
            Outcome::Result => 5 << 32,
            Outcome::Refused => 6 << 32,
            Outcome::Exited(code) => 7 << 32 | u64::from(code as u32),
        }
    }

    pub(crate) fn from_word(word: u64) -> Outcome {
        match word >> 32 {
            1 => Outcome::Returned,
            2 => Outcome::Panicked,
            3 => Outcome::StackOverflow,
            4 => Outcome::Arguments,
            5 => Outcome::Result,
            6 => Outcome::Refused,
            7 => Outcome::Exited(word as u32 as i32),
            _ => Outcome::None,
        }
    }
}

static INITS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// Has `f` run in each worker that is started from now on, and in their children, before its function: a tracing subscriber, a
/// panic hook, a TLS provider. Several are run in the order of their registration; the same function is run once.
///
/// # Errors
/// `f` is not part of the main program's code.
///
/// # Examples
/// ```
/// use multiproc::{Process, worker_init};
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// static READY: AtomicU32 = AtomicU32::new(0);
/// worker_init(|| READY.store(7, Ordering::Relaxed))?;
/// let seen = Process::spawn((), || READY.load(Ordering::Relaxed))?.join()?;
/// assert_eq!((seen, READY.load(Ordering::Relaxed)), (7, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "initializer")]
pub fn worker_init(f: fn()) -> Result<(), Error> {
    let offset = job::offset_of_plain(f)?;
    let mut inits = INITS.lock().unwrap_or_else(PoisonError::into_inner);
    if !inits.contains(&offset) {
        inits.push(offset);
    }
    Ok(())
}

/// What [`worker_init`] was given so far.
pub(crate) fn inits() -> Vec<usize> {
    INITS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The slot, for the handler of a stack overflow.
static SLOT: AtomicPtr<Slot> = AtomicPtr::new(std::ptr::null_mut());

/// Takes part in the tree and runs the job. `None` when the marker is not genuine: then this is an ordinary process, and none of
/// its descriptors was touched.
pub(crate) fn live(marker: Marker) -> Option<()> {
    let sealed = memfd::sealed_size(inherit::look_at(marker.arena).ok()?).is_ok();
    let genuine = sealed && PidFd::is_pidfd(inherit::look_at(marker.parent).ok()?);
    if !genuine {
        return None;
    }
    seal::inherit(marker.key);
    // At once, and by this thread until the keeper has set its own: stopped before that, the process would outlive its parent.
    let _ = signal::set_parent_death_signal(KILL);
    let arena = inherit::claim(marker.arena).ok()?;
    let parent = PidFd::from_owned(inherit::claim(marker.parent).ok()?).ok()?;
    // Never closed: that this process ends, or becomes another program, does it.
    let _ = inherit::claim(marker.tie).map(std::mem::forget);
    let arena = match tree::inherit(arena, marker.slot) {
        Ok(arena) => arena,
        Err(multiproc_shm::Error::Corrupted(_)) => return None,
        // A child of ours that cannot take part never falls through to main.
        Err(e) => {
            signal::stderr_write(format!("multiproc: a worker could not join its tree: {e}\n").as_bytes());
            signal::exit_now(EXIT_REFUSED)
        }
    };
    signal::open_missing_stdio();
    signal::ignore_sigpipe();
    let code = match join_tree(arena, parent, marker.slot) {
        Some(slot) => run(arena, slot),
        None => EXIT_REFUSED,
    };
    process::exit(code)
}

fn join_tree(arena: &'static Arena, parent: PidFd, id: SlotId) -> Option<&'static Slot> {
    let slot = arena.slot(id.index).ok()?;
    SLOT.store(std::ptr::from_ref(slot).cast_mut(), Ordering::Release);
    signal::install_overflow_handler(report_overflow);
    signal::set_thread_name(&slot.name());
    keeper::start(arena, Some((parent, id))).ok()?;
    Some(slot)
}

#[allow(unsafe_code)]
fn report_overflow() {
    // SAFETY: null, or a slot of the arena, which is never unmapped.
    if let Some(slot) = unsafe { SLOT.load(Ordering::Acquire).as_ref() } {
        slot.outcome.store(Outcome::StackOverflow.to_word(), Ordering::Release);
    }
    signal::stderr_write(b"\nthis process has overflowed its stack\n");
}

fn run(arena: &'static Arena, slot: &'static Slot) -> i32 {
    let end = |outcome: Outcome, words: &str, code: i32| {
        if !words.is_empty() {
            panics::say(arena, words);
        }
        slot.outcome.store(outcome.to_word(), Ordering::Release);
        code
    };
    // Until the keeper has made the slot live, a death leaves nothing to give back: only what no other process sees is done.
    let read = read_payload(arena, slot);
    let received = read.as_ref().ok().map(|(_, payload)| job::receive(arena, payload));
    if let Some(Some(received)) = &received {
        crate::current::set_name(&received.job.name);
        panics::print_with_name(&received.job.name);
    }
    exit::record_exit_code(slot);
    panics::record_in_slot(arena);
    keeper::wait_until_alive();
    // The keeper's signal stands in its place, and only the keeper can be told to take its own back.
    let _ = signal::set_parent_death_signal(0);
    keeper::only_keeper_is_signalled();
    let (received, references) = match (received, read.as_ref().map(|(block, _)| take_references(arena, slot, *block))) {
        (Some(Some(received)), Ok(Ok(references))) => (received, references),
        (_, Ok(Err(e))) => return end(Outcome::Refused, &format!("its arguments could not be read: {e}"), EXIT_REFUSED),
        (_, Err(e)) => return end(Outcome::Refused, &format!("its arguments could not be read: {e}"), EXIT_REFUSED),
        _ => return end(Outcome::Refused, "its job could not be read", EXIT_REFUSED),
    };
    // First come those of what every child is given.
    let mut given = references;
    let references = given.split_off(received.job.given_references.min(given.len()));
    #[cfg(feature = "tracing-bridge")]
    if let Err(e) = crate::bridge::inherit(arena, &received.job.given, &given) {
        return end(Outcome::Refused, &format!("its bridge could not be read: {e}"), EXIT_REFUSED);
    }
    drop(given);
    halt::before_user_code(arena, &received.job.name);
    let result = catch_unwind(AssertUnwindSafe(|| {
        for &init in &received.job.worker_inits {
            if !job::call_plain(init) {
                return None;
            }
        }
        if !received.job.worker_inits.is_empty() {
            INITS.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&received.job.worker_inits);
            panics::record_in_slot(arena);
        }
        #[cfg(feature = "tracing-bridge")]
        crate::bridge::subscribe();
        received.run(arena, references)
    }));
    match result {
        Ok(Some(Ok((bytes, outgoing)))) => match leave_result(arena, slot, &bytes, outgoing.references()) {
            Ok(()) => {
                outgoing.gone();
                0
            }
            Err(e) => end(Outcome::Result, &e.to_string(), EXIT_PANIC),
        },
        Ok(Some(Err(Failed::Arguments(e)))) => end(Outcome::Arguments, &e.to_string(), EXIT_REFUSED),
        Ok(Some(Err(Failed::Result(e)))) => end(Outcome::Result, &e.to_string(), EXIT_PANIC),
        Ok(None) => end(Outcome::Refused, "the function to run is not part of this program's code", EXIT_REFUSED),
        Err(panic) => {
            // The hook has said more, unless the user's own hook stands in its place.
            let silent = slot.last_words.load(Ordering::Acquire) == 0;
            end(Outcome::Panicked, if silent { panics::message(&*panic) } else { "" }, EXIT_PANIC)
        }
    }
}

fn read_payload(arena: &'static Arena, slot: &Slot) -> Result<(BlockId, Vec<u8>), multiproc_shm::Error> {
    // Acquire pairs with the parent's Release.
    let block = BlockId::from_word(slot.args.load(Ordering::Acquire));
    let block = block.ok_or(multiproc_shm::Error::Corrupted(&"a worker without arguments"))?;
    let head = record::head(arena, block)?;
    let mut payload = Vec::new();
    arena.memory().read(head.payload, head.len, &mut payload)?;
    Ok((block, payload))
}

fn take_references(arena: &'static Arena, slot: &Slot, block: BlockId) -> Result<References, multiproc_shm::Error> {
    let references = record::adopt(arena, block)?;
    slot.args.store(0, Ordering::Release);
    record::arrived(arena, &references)?;
    arena.free_if(block, BlockState::Slot(arena.my_slot()))?;
    Ok(references)
}

fn leave_result(
    arena: &'static Arena,
    slot: &Slot,
    bytes: &[u8],
    references: &[std::sync::Arc<multiproc_shm::Held>],
) -> Result<(), multiproc_shm::Error> {
    record::announce(arena, references)?;
    let block = record::write(arena, bytes, references.iter().map(|h| h.reference()))?;
    crash::point("result.written");
    arena.set_block_state(block, BlockState::Slot(arena.my_slot()))?;
    crash::point("result.owned");
    slot.outcome.store(Outcome::Returned.to_word(), Ordering::Release);
    // Release: the commit of the result.
    slot.result.store(BlockId::to_word(Some(block)), Ordering::Release);
    crash::point("result.named");
    record::committed(arena, references)
}
