//! A worker's last words: the text of a panic, in the arena before anything else happens.
//!
//! The hook runs at the moment of the panic, so the text is there whatever follows: unwinding, `panic = "abort"`, a panic while panicking.
//! Only the last panic of a process that then died by SIGABRT, or that unwound out of its function, is reported.

use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::{Arena, record};
use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::io::Write;
use std::panic::{self, PanicHookInfo};
use std::sync::Once;
use std::sync::atomic::Ordering;

/// Separates message, location and backtrace in the text.
const SEPARATOR: char = '\u{1f}';

/// Message, location and backtrace of last words.
pub(crate) fn split(words: &str) -> (String, String, String) {
    let mut parts = words.splitn(3, SEPARATOR).map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    (next(), next(), next())
}

/// The text of a panic's payload.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a text")
}

/// Prints panics with the process's name, until the user's own set-up replaces it.
pub(crate) fn print_with_name(name: &str) {
    let name = name.to_owned();
    panic::set_hook(Box::new(move |info| {
        let (message, location) = (message(info.payload()), place(info));
        let thread = std::thread::current().name().map(|t| format!(" in thread {t}")).unwrap_or_default();
        let mut out = std::io::stderr().lock();
        let _ = writeln!(out, "\nprocess {name} ({}){thread} panicked at {location}:\n{message}", std::process::id());
        let trace = Backtrace::capture();
        let _ = match trace.status() {
            BacktraceStatus::Captured => writeln!(out, "{trace}"),
            _ => writeln!(out, "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace"),
        };
    }));
}

/// Records panics in the slot, then calls the hook that stands now.
pub(crate) fn record_in_slot(arena: &'static Arena) {
    let next = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let trace = Backtrace::capture();
        let trace = if trace.status() == BacktraceStatus::Captured { trace.to_string() } else { String::new() };
        say(arena, &format!("{}{SEPARATOR}{}{SEPARATOR}{trace}", message(info.payload()), place(info)));
        next(info);
    }));
}

thread_local! {
    /// Where the last panic of this thread was, and its backtrace.
    static PLACE: Cell<Option<(String, String)>> = const { Cell::new(None) };
}

/// From now on [`take_place`] knows where a panic was; then the hook that stands now is called.
pub(crate) fn remember_place() {
    static ONCE: Once = Once::new();
    // A thread that panics must not touch the hook.
    if std::thread::panicking() {
        return;
    }
    ONCE.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if crate::threads::is_current() {
                let trace = Backtrace::capture();
                let trace = if trace.status() == BacktraceStatus::Captured { trace.to_string() } else { String::new() };
                let _ = PLACE.try_with(|last| last.set(Some((place(info), trace))));
            }
            next(info);
        }));
    });
}

/// Where the last panic of this thread was, and its backtrace; empty where a hook of the user's stands in the way.
pub(crate) fn take_place() -> (String, String) {
    PLACE.take().unwrap_or_default()
}

fn place(info: &PanicHookInfo<'_>) -> String {
    info.location().map(ToString::to_string).unwrap_or_default()
}

/// A panic that this process has recorded, and caught, is not what it dies of, if it does.
pub fn forget_panic() {
    if multiproc_sys::robust::forked() {
        return;
    }
    let _ = (|| -> Result<(), multiproc_shm::Error> {
        let arena = Arena::of_the_tree()?;
        // AcqRel: as in `say`.
        let before = arena.slot(arena.my_slot())?.last_words.swap(BlockId::to_word(None), Ordering::AcqRel);
        if let Some(before) = BlockId::from_word(before) {
            arena.free_if(before, BlockState::Slot(arena.my_slot()))?;
        }
        Ok(())
    })();
}

/// Leaves a text for the parent.
pub(crate) fn say(arena: &'static Arena, words: &str) {
    // In a process that a plain fork made the slot is the parent's.
    if multiproc_sys::robust::forked() {
        return;
    }
    let _ = (|| -> Result<(), multiproc_shm::Error> {
        let block = record::write(arena, words.as_bytes(), std::iter::empty())?;
        arena.set_block_state(block, BlockState::Slot(arena.my_slot()))?;
        let slot = arena.slot(arena.my_slot())?;
        // Release: the commit of the words.
        let before = slot.last_words.swap(BlockId::to_word(Some(block)), Ordering::AcqRel);
        if let Some(before) = BlockId::from_word(before) {
            arena.free_if(before, BlockState::Slot(arena.my_slot()))?;
        }
        Ok(())
    })();
}
