//! A dump whenever a signal comes: the handler kicks a thread, which looks and writes.

use crate::dump::dump;
use crate::error::{Error, Kind};
use crate::signal::Signal;
use multiproc_sys::poll::{Kick, poll_each};
use multiproc_sys::thread::{self, Lasting};
use multiproc_sys::{signal, signal_watch};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, OnceLock, PoisonError};

static KICK: OnceLock<Kick> = OnceLock::new();
/// In which process the thread was started: a process made by fork() has none.
static STARTED: Mutex<u32> = Mutex::new(0);
static THREAD: Lasting = Lasting { name: c"multiproc-dump", stack: 256 << 10, body: write_dumps };

/// Writes a [`dump`] of the tree to stderr whenever this process gets `signal`; the program goes on. With [`Signal::QUIT`] in the
/// coordinator, Ctrl-\\ in its terminal shows at any time who waits for whom.
///
/// Nothing is installed unless asked, and only in the calling process: what the signal does to workers stays as it is. The handler wakes a
/// thread, which takes the dump and writes it; locks of the program do not hold it up. Signals that come faster than dumps are written share one.
/// A handler that the program has installed before is called as well.
///
/// # Errors
/// `signal` cannot be caught, or is that of a fault or of `abort`; or there is no room for the thread.
///
/// # Examples
/// ```no_run
/// use multiproc::{Signal, dump_on};
///
/// dump_on(Signal::QUIT)?;
/// # Ok::<(), multiproc::Error>(())
/// ```
#[doc(alias = "faulthandler")]
pub fn dump_on(signal: Signal) -> Result<(), Error> {
    let failed = |e: io::Error| {
        let kind = if matches!(e.raw_os_error(), Some(16 | 22)) { Kind::Invalid } else { Kind::Resources };
        Error::because(kind, format!("no dump on {signal}"), e)
    };
    // The thread first: a signal must find somebody to wake.
    let kick = start().map_err(failed)?;
    signal_watch::watch(signal.0, kick).map_err(failed)
}

fn start() -> io::Result<&'static Kick> {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    let kick = match KICK.get() {
        Some(kick) => kick,
        None => {
            let kick = Kick::new()?;
            KICK.get_or_init(|| kick)
        }
    };
    let me = std::process::id();
    if *started != me && *started != 0 {
        return Err(io::Error::other("this process was made by fork()"));
    }
    if *started == 0 {
        let blocked = signal::block_all();
        thread::start(&THREAD, &blocked)?;
        *started = me;
    }
    Ok(kick)
}

fn write_dumps() {
    let Some(kick) = KICK.get() else { return };
    loop {
        if poll_each([kick.as_fd()]).is_err() {
            // Only for want of kernel memory.
            std::thread::yield_now();
            continue;
        }
        kick.drain();
        // Without std's lock of stderr, which a thread of the program may hold for ever.
        signal::stderr_write(format!("{}\n", dump()).as_bytes());
    }
}
