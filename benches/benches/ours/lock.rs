//! Our lock, which nobody else wants.

use multiproc::Lock;
use std::hint::black_box;

/// A lock, or why there is none.
pub(crate) fn new() -> Result<Lock, String> {
    if multiproc::CRASH_POINTS {
        return Err("crash points are compiled in".into());
    }
    Lock::new().map_err(|e| e.to_string())
}

/// Locks and unlocks at each call.
pub(crate) fn pair(lock: &Result<Lock, String>) -> Result<impl FnMut(), String> {
    let lock = lock.as_ref().map_err(String::clone)?;
    Ok(move || drop(black_box(black_box(lock).lock())))
}
