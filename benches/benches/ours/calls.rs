//! Our queue, counter and value, which nobody else uses.

use multiproc::{Atomic, Queue, Value};
use std::hint::black_box;
use std::sync::atomic::Ordering;

fn checked<T>(made: Result<T, multiproc::ShmError>) -> Result<T, String> {
    if multiproc::CRASH_POINTS {
        return Err("crash points are compiled in".into());
    }
    made.map_err(|e| e.to_string())
}

/// A queue, or why there is none.
pub(crate) fn queue() -> Result<Queue<u64>, String> {
    checked(Queue::bounded(1024))
}

/// A counter, or why there is none.
pub(crate) fn atomic() -> Result<Atomic<u64>, String> {
    checked(Atomic::new(0))
}

/// A value, or why there is none.
pub(crate) fn value() -> Result<Value<u64>, String> {
    checked(Value::new(0))
}

/// Adds one under the value's lock at each call.
pub(crate) fn update(value: &Result<Value<u64>, String>) -> Result<impl FnMut(), String> {
    let value = value.as_ref().map_err(String::clone)?;
    Ok(move || black_box(value).update(|n| *n += 1).expect("it is whole"))
}

/// Puts a number and gets it back at each call.
pub(crate) fn put_get(queue: &Result<Queue<u64>, String>) -> Result<impl FnMut(), String> {
    let queue = queue.as_ref().map_err(String::clone)?;
    Ok(move || {
        let queue = black_box(queue);
        queue.put(black_box(7)).expect("there is room");
        black_box(queue.get().expect("there is one"));
    })
}

/// Adds one at each call, the handle looked at anew.
pub(crate) fn fetch_add(atomic: &Result<Atomic<u64>, String>) -> Result<impl FnMut(), String> {
    let atomic = atomic.as_ref().map_err(String::clone)?;
    Ok(move || {
        black_box(black_box(atomic).fetch_add(1, Ordering::Relaxed));
    })
}
