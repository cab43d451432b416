//! A value that is set once in each life of the process: see `multiproc_sys::robust::life`.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Empty, or a value that lives as long as the process.
#[derive(Debug)]
pub(crate) struct Replaceable<T: 'static>(AtomicPtr<T>);

impl<T: Sync> Replaceable<T> {
    pub(crate) const fn new() -> Replaceable<T> {
        Replaceable(AtomicPtr::new(ptr::null_mut()))
    }

    pub(crate) fn get(&self) -> Option<&'static T> {
        // Acquire pairs with the stores below.
        let value = self.0.load(Ordering::Acquire);
        // SAFETY: null, or leaked by one of the stores below.
        unsafe { value.as_ref() }
    }

    /// The value, unless there is one already.
    pub(crate) fn set(&self, value: T) -> Result<(), ()> {
        let new = Box::into_raw(Box::new(value));
        let set = self.0.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
        set.map(drop).map_err(|_| {
            // SAFETY: made above, and nobody has seen it.
            drop(unsafe { Box::from_raw(new) });
        })
    }

    /// Empty again; what was there is kept for whoever still looks at it.
    pub(crate) fn forget(&self) {
        self.0.store(ptr::null_mut(), Ordering::Release);
    }

    /// The value from now on, whatever was there.
    pub(crate) fn replace(&self, value: T) -> &'static T {
        let new = Box::leak(Box::new(value));
        self.0.store(new, Ordering::Release);
        new
    }
}
