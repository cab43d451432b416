//! What the actors of a scene share: as if it lay in an arena, for as long as anybody looks.
#![allow(unsafe_code)]

use std::any::Any;
use std::sync::Mutex;

struct Garbage(Box<dyn Any>);

// SAFETY: nobody uses what is in the box any more.
unsafe impl Send for Garbage {}

static GARBAGE: Mutex<Vec<Garbage>> = Mutex::new(Vec::new());

/// All zero.
pub(crate) fn shared<T: Default + 'static>() -> &'static T {
    let boxed = Box::<T>::default();
    let at = std::ptr::from_ref(&*boxed);
    GARBAGE.lock().unwrap_or_else(|e| e.into_inner()).push(Garbage(boxed));
    // SAFETY: it lives until `clear`.
    unsafe { &*at }
}

/// The scene is over. Who does not call it leaks.
pub(super) fn clear() {
    let garbage = std::mem::take(&mut *GARBAGE.lock().unwrap_or_else(|e| e.into_inner()));
    drop(garbage);
}
