//! The board: a file that the processes of a round have mapped beside the arena, where nothing is written over. Each says there what it is doing, what it has
//! done, and how it fell.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::panic;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Processes of a round at most.
pub const ACTORS: usize = 12;
const TEXT: usize = 400;

/// What an actor is at; 0 as long as it is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// It does one thing after the other.
    Acting = 1,
    /// It has done its part, and ends.
    Done = 2,
}

/// The place of one process.
#[repr(C, align(64))]
pub struct Actor {
    /// Its id.
    pub pid: AtomicU32,
    state: AtomicU32,
    /// The operation that it is in, as it names it.
    pub operation: AtomicU32,
    /// The signal by which it fell.
    pub signal: AtomicU32,
    /// When the operation began, and how much time its thread had had of a processor until then; 0 between operations.
    begun: AtomicU64,
    used: AtomicU64,
    thread: AtomicU32,
    /// How it ended, in the words of who joined it: 1 + exit code, or 1000 + signal.
    pub end: AtomicU32,
    /// Operations done.
    pub done: AtomicU64,
    /// Operations refused.
    pub refused: AtomicU64,
    /// Words written over; of these, in places that are always read; and left as they had become.
    pub writes: [AtomicU64; 3],
    /// Of a fall: the address that was touched, and where in the program.
    pub fault: [AtomicU64; 2],
    /// Panics that nobody asked for.
    pub panics: AtomicU32,
    text_len: AtomicU32,
    text: [AtomicU64; TEXT / 8],
}

/// See the module head. All zeroes at first.
#[repr(C)]
pub struct Board {
    /// Everybody shall end.
    pub stop: AtomicU32,
    /// The round has come to where each end is part of the trial.
    pub ending: AtomicU32,
    actors: [Actor; ACTORS],
}

/// Milliseconds on a clock, never 0.
fn now(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is a place on this stack.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000 + 1
}

impl Board {
    /// Maps the board in this file, which is as long as it.
    pub fn map(path: &Path) -> io::Result<&'static Board> {
        let file = File::options().read(true).write(true).open(path)?;
        file.set_len(size_of::<Board>() as u64)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a file that is long enough; it is never unmapped.
        let map = unsafe { libc::mmap(ptr::null_mut(), size_of::<Board>(), access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: mapped for ever, aligned to pages, and atomics allow any content.
        Ok(unsafe { &*map.cast::<Board>() })
    }

    /// The place of an actor.
    pub fn actor(&self, index: usize) -> &Actor {
        &self.actors[index % ACTORS]
    }

    /// All places.
    pub fn all(&self) -> &[Actor] {
        &self.actors
    }

    /// All that have been there.
    pub fn actors(&self) -> impl Iterator<Item = (usize, &Actor)> {
        self.actors.iter().enumerate().filter(|(_, actor)| actor.pid.load(Ordering::Relaxed) != 0)
    }
}

impl Actor {
    /// The calling process takes this place; from here on a signal or a panic of it is noted there.
    pub fn enter(&'static self) {
        self.pid.store(std::process::id(), Ordering::Relaxed);
        self.set(State::Acting);
        MINE.store(ptr::from_ref(self).cast_mut(), Ordering::Release);
        panic::set_hook(Box::new(|info| {
            if let Some(actor) = mine() {
                actor.note_panic(&info.to_string());
            }
        }));
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT] {
            // SAFETY: all zeroes is an action.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = fell as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
            // SAFETY: the action is whole, and its handler only stores words.
            unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
        }
    }

    /// What it is at from now on.
    pub fn set(&self, state: State) {
        self.state.store(state as u32, Ordering::Relaxed);
    }

    /// Whether it has said that it is done.
    pub fn is_done(&self) -> bool {
        self.state.load(Ordering::Relaxed) == State::Done as u32
    }

    /// An operation begins.
    pub fn begin(&self, operation: u32) {
        self.operation.store(operation, Ordering::Relaxed);
        // SAFETY: no arguments, cannot fail.
        self.thread.store(unsafe { libc::gettid() } as u32, Ordering::Relaxed);
        self.used.store(now(libc::CLOCK_THREAD_CPUTIME_ID), Ordering::Relaxed);
        self.begun.store(now(libc::CLOCK_MONOTONIC), Ordering::Relaxed);
    }

    /// It has ended, and was done or refused.
    pub fn end(&self, done: bool) {
        self.begun.store(0, Ordering::Relaxed);
        if done { &self.done } else { &self.refused }.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it has been in one operation for so long. On a busy machine the time counts in which it had a processor; where it sleeps, it may wait for somebody
    /// who wants one, so five times as long is long.
    pub fn is_late(&self, patience: Duration) -> bool {
        let begun = self.begun.load(Ordering::Relaxed);
        let (patience, elapsed) = (patience.as_millis() as u64, now(libc::CLOCK_MONOTONIC).saturating_sub(begun));
        if begun == 0 || elapsed < patience {
            return false;
        }
        let (pid, thread) = (self.pid.load(Ordering::Relaxed), self.thread.load(Ordering::Relaxed));
        let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // Ticks of ten milliseconds in user and kernel mode.
        let ticks = |i: usize| fields.get(i).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        let used = ((ticks(11) + ticks(12)) * 10).saturating_sub(self.used.load(Ordering::Relaxed));
        let asleep = fields.first().is_some_and(|state| *state == "S");
        self.begun.load(Ordering::Relaxed) == begun && (asleep && elapsed >= 5 * patience || used >= patience)
    }

    fn note_panic(&self, text: &str) {
        if self.panics.fetch_add(1, Ordering::Relaxed) == 0 {
            let bytes = &text.as_bytes()[..text.len().min(TEXT)];
            for (word, chunk) in self.text.iter().zip(bytes.chunks(8)) {
                let mut whole = [b' '; 8];
                whole[..chunk.len()].copy_from_slice(chunk);
                word.store(u64::from_ne_bytes(whole), Ordering::Relaxed);
            }
            self.text_len.store(bytes.len() as u32, Ordering::Release);
        }
    }

    /// What its first panic said.
    pub fn panic(&self) -> Option<String> {
        let len = self.text_len.load(Ordering::Acquire) as usize;
        let bytes: Vec<u8> = self.text.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).take(len).collect();
        (self.panics.load(Ordering::Relaxed) > 0).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

static MINE: AtomicPtr<Actor> = AtomicPtr::new(ptr::null_mut());

fn mine() -> Option<&'static Actor> {
    // SAFETY: null, or a place on a board, which is never unmapped.
    unsafe { MINE.load(Ordering::Acquire).as_ref() }
}

extern "C" fn fell(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if let Some(actor) = mine() {
        actor.signal.store(signal as u32, Ordering::Relaxed);
        // SAFETY: the kernel gives a handler with SA_SIGINFO a whole siginfo.
        let info = unsafe { &*info };
        // SAFETY: these signals have an address.
        let address = unsafe { info.si_addr() };
        actor.fault[0].store(address as u64, Ordering::Relaxed);
        // SAFETY: and the context of the thread that it interrupts.
        let registers = unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let place = registers[libc::REG_RIP as usize] as u64;
        actor.fault[1].store(place.wrapping_sub(base()), Ordering::Relaxed);
    }
    // The action is the default one again, and the signal is blocked until this returns.
    // SAFETY: a number of a signal.
    unsafe { libc::raise(signal) };
}

/// Where the program begins: what tools for addresses subtract.
fn base() -> u64 {
    unsafe extern "C" {
        static __executable_start: u8;
    }
    (&raw const __executable_start).addr() as u64
}
