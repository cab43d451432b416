//! How a child gets from `exec` to its job: an entry in `.init_array`, which libc runs before `main`.
//!
//! In every other process the hook only notes that it ran. In a worker it first runs the constructors that stand after it, so that C and C++
//! libraries and the coverage runtime are set up, then lives the worker's life and exits: `main` is not reached. std promises only best
//! effort before `main` (RUSTSEC-2023-0057 is about the same); what is used there is tested. A program that wants std's
//! own start calls [`init`] first in `main`: its workers then run from there.
#![allow(unsafe_code)]

use crate::marker::{self, Found, Marker};
use crate::{tree, worker};
use multiproc_shm::Arena;
use multiproc_sys::{image, membarrier, signal};
use std::ffi::{c_char, c_int};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

#[used]
// Miri calls entries without arguments.
#[cfg_attr(not(miri), unsafe(link_section = ".init_array"))]
static ENTRY: Constructor = on_load;

static RAN: AtomicBool = AtomicBool::new(false);
static REFUSED: AtomicBool = AtomicBool::new(false);
static INIT_CALLED: AtomicBool = AtomicBool::new(false);
/// Set between the hook and `init()` in a worker that is to run from `main`.
static WAITING: Mutex<Option<Marker>> = Mutex::new(None);

/// Whether the hook ran in this process.
pub(crate) fn ran() -> bool {
    // The read keeps the entry linked into every program that starts processes.
    std::hint::black_box(&raw const ENTRY);
    RAN.load(Ordering::Relaxed)
}

/// Whether this process carries a marker that did not come from a parent of ours, or one that waits for `init()` in vain.
pub(crate) fn refused() -> bool {
    REFUSED.load(Ordering::Relaxed) || WAITING.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_some()
}

/// Whether the program called [`init`].
pub(crate) fn init_was_called() -> bool {
    INIT_CALLED.load(Ordering::Relaxed)
}

/// Has workers of this program run from `main` instead of before it. To be called first in `main`.
///
/// Optional: without it workers run before `main`, where std promises only best effort. In a worker the call does not return.
pub fn init() {
    INIT_CALLED.store(true, Ordering::Relaxed);
    let marker = WAITING.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some(marker) = marker {
        begin(marker);
    }
}

fn begin(marker: Marker) {
    if worker::live(marker).is_none() {
        REFUSED.store(true, Ordering::Relaxed);
    }
}

extern "C" fn on_load(argc: c_int, argv: *const *const c_char, envp: *const *const c_char) {
    RAN.store(true, Ordering::Relaxed);
    Arena::provide(tree::arena);
    if marker::in_main_program() {
        membarrier::register();
    }
    let Some(value) = std::env::var_os(marker::VARIABLE) else { return };
    if image::is_secure() || !marker::in_main_program() {
        return;
    }
    let found = value.to_str().map_or(Found::NotOurs, Marker::parse);
    let Found::Ours(marker) = found else {
        if let Found::OtherBuild(_) = found {
            // A parent of this version whose file is another: never fall through to main.
            signal::stderr_write(b"multiproc: the program was replaced by another build between parent and worker\n");
            signal::exit_now(worker::EXIT_REFUSED);
        }
        return;
    };
    // SAFETY: libc runs constructors before there is a second thread.
    unsafe { std::env::remove_var(marker::VARIABLE) };
    if marker.in_main {
        *WAITING.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(marker);
        return;
    }
    run_later_constructors(argc, argv, envp);
    begin(marker);
}

unsafe extern "C" {
    // Given by the linker: the bounds of the main program's `.init_array`.
    static __init_array_start: [Option<Constructor>; 0];
    static __init_array_end: [Option<Constructor>; 0];
}

/// Runs the entries after our own, which libc would run next.
fn run_later_constructors(argc: c_int, argv: *const *const c_char, envp: *const *const c_char) {
    let mut entry = (&raw const __init_array_start).cast::<Option<Constructor>>();
    let end = (&raw const __init_array_end).cast::<Option<Constructor>>();
    let mut past_ours = false;
    while entry < end {
        // SAFETY: between the bounds that the linker gave lies an array of such pointers.
        let constructor = unsafe { entry.read() };
        match constructor {
            Some(f) if past_ours => f(argc, argv, envp),
            Some(f) => past_ours = std::ptr::fn_addr_eq(f, on_load as Constructor),
            None => {}
        }
        entry = entry.wrapping_add(1);
    }
}
