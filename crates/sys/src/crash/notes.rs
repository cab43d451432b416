//! Notes of what the armed threads of a test pass and where they die: lines at the end of the file that `MULTIPROC_CRASH_NOTES` names.
//!
//! | line | what it says |
//! |---|---|
//! | `scene` and a name | what the tests play from here on |
//! | `partly` | not each step is deadly in this scene |
//! | `pass` and an id | an armed thread has come to that point |
//! | `dies` and an id | and ends its process there |
//! | `slice` | a wait looked again by itself, on a kernel where none has to |
//! | `row` and cells | what a test says of a scene |
//!
//! Each is one write(2) to a file that is open for appending, so lines of several processes do not mix, and what is noted before a death is
//! there after it. Nothing here allocates or locks: points are passed in signal handlers too.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicI32, Ordering};

const NAME: &std::ffi::CStr = c"MULTIPROC_CRASH_NOTES";
const UNKNOWN: i32 = -1;
const NONE: i32 = -2;
/// Lines end here.
const LONGEST: usize = 240;

static FILE: AtomicI32 = AtomicI32::new(UNKNOWN);

/// Appends a line.
pub fn note(kind: &str, text: &str) {
    let file = file();
    if file == NONE {
        return;
    }
    let mut line = [0; LONGEST];
    let mut len = 0;
    for byte in kind.bytes().chain([b' ']).chain(text.bytes()).take(LONGEST - 1) {
        line[len] = byte;
        len += 1;
    }
    line[len] = b'\n';
    // SAFETY: the bytes are initialised and live on this stack.
    unsafe { libc::write(file, line.as_ptr().cast(), len + 1) };
}

fn file() -> i32 {
    // Relaxed: a number, good in this process whoever has stored it.
    match FILE.load(Ordering::Relaxed) {
        UNKNOWN => {
            let file = open();
            FILE.store(file, Ordering::Relaxed);
            file
        }
        file => file,
    }
}

#[cold]
fn open() -> i32 {
    // SAFETY: the name ends with a zero; tests do not change their environment while they run.
    let path = unsafe { libc::getenv(NAME.as_ptr()) };
    if path.is_null() {
        return NONE;
    }
    // SAFETY: the path ends with a zero and lies in the environment.
    let file = unsafe { libc::open(path, libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_CLOEXEC, 0o644) };
    if file < 0 { NONE } else { file }
}
