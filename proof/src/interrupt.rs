//! Ctrl-C and its like: what a part has begun is undone before the proof ends, as far as nobody else would do it: files with names, and processes in sessions of
//! their own, which a terminal's signals do not reach.
#![allow(unsafe_code)]

use multiproc_sys::pidfd::PidFd;
use std::io::{self, PipeWriter, Read};
use std::os::fd::AsRawFd;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

/// What is to be undone, each with its number.
type Begun = Vec<(u64, Box<dyn FnOnce() + Send>)>;

static BEGUN: Mutex<Begun> = Mutex::new(Vec::new());
static ENDING: AtomicBool = AtomicBool::new(false);
static TELL: OnceLock<PipeWriter> = OnceLock::new();

fn begun() -> MutexGuard<'static, Begun> {
    BEGUN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As long as it lives, an interrupt undoes what it stands for.
#[derive(Debug)]
pub struct Undo(u64);

/// Has an interrupt do this, before what was asked for earlier.
pub fn undo(what: impl FnOnce() + Send + 'static) -> Undo {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    // Relaxed: a number.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut begun = begun();
    // Relaxed: changed with the lock.
    if ENDING.load(Ordering::Relaxed) {
        drop(begun);
        what();
        loop {
            thread::park();
        }
    }
    begun.push((number, Box::new(what)));
    Undo(number)
}

/// Has an interrupt kill this child, and with it whatever ends with it.
pub fn kill(child: &Child) -> Undo {
    // By a descriptor: the child may have been waited for by then, and its pid be another's. Without one it is left to itself.
    let pidfd = PidFd::open(child.id());
    undo(move || _ = pidfd.map(|pidfd| pidfd.send_signal(libc::SIGKILL)))
}

impl Drop for Undo {
    fn drop(&mut self) {
        begun().retain(|(number, _)| *number != self.0);
    }
}

extern "C" fn tell(signal: i32) {
    if let Some(pipe) = TELL.get() {
        let byte = [signal as u8];
        // SAFETY: a byte of this stack; may be called by a signal handler.
        unsafe { libc::write(pipe.as_raw_fd(), byte.as_ptr().cast(), 1) };
    }
}

/// From here on an interrupt ends this process as it should.
pub fn watch() -> io::Result<()> {
    let (mut told, tell_by) = io::pipe()?;
    let _ = TELL.set(tell_by);
    thread::Builder::new().name("interrupts".into()).spawn(move || {
        let mut signal = [0];
        if told.read_exact(&mut signal).is_err() {
            return;
        }
        loop {
            // Not with the lock: what is undone may have to wait for whoever is about to say that it has ended by itself.
            let last = {
                let mut begun = begun();
                ENDING.store(true, Ordering::Relaxed);
                begun.pop()
            };
            match last {
                Some((_, what)) => what(),
                None => std::process::exit(128 + i32::from(signal[0])),
            }
        }
    })?;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler writes to a pipe and does nothing else.
        let before = unsafe { libc::signal(signal, tell as extern "C" fn(i32) as libc::sighandler_t) };
        // Whoever has begun this does not want it to end by that: nohup, a shell's background.
        if before == libc::SIG_IGN {
            // SAFETY: ignores it again.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
    Ok(())
}
