//! Our semaphores, re-entrant lock and event, which nobody else wants.

use multiproc::{Event, RLock, Semaphore, SignalSemaphore};
use std::hint::black_box;

/// One of each.
pub(crate) struct Kit {
    semaphore: Semaphore,
    rlock: RLock,
    event: Event,
    signals: SignalSemaphore,
}

/// A kit, or why there is none.
pub(crate) fn new() -> Result<Kit, String> {
    if multiproc::CRASH_POINTS {
        return Err("crash points are compiled in".into());
    }
    let make = || -> Result<Kit, multiproc::ShmError> {
        let (semaphore, rlock) = (Semaphore::new(3)?, RLock::new()?);
        Ok(Kit { semaphore, rlock, event: Event::new()?, signals: SignalSemaphore::new(1)? })
    };
    make().map_err(|e| e.to_string())
}

impl Kit {
    /// Makes so many pairs of the operation with this number.
    pub(crate) fn pair(&self, at: usize) -> Box<dyn FnMut(u64) + '_> {
        fn often(mut pair: impl FnMut()) -> impl FnMut(u64) {
            move |times| (0..times).for_each(|_| pair())
        }
        match at {
            0 => Box::new(often(|| drop(black_box(black_box(&self.semaphore).acquire())))),
            1 => Box::new(often(|| drop(black_box(black_box(&self.rlock).lock())))),
            2 => {
                let outer = self.rlock.lock();
                Box::new(move |times| {
                    let _held = &outer;
                    (0..times).for_each(|_| drop(black_box(black_box(&self.rlock).lock())));
                })
            }
            3 => Box::new(often(|| {
                let event = black_box(&self.event);
                let _ = black_box(event.set());
                event.clear();
            })),
            _ => Box::new(often(|| {
                let signals = black_box(&self.signals);
                let _ = black_box(signals.acquire());
                let _ = black_box(signals.release(1));
            })),
        }
    }
}
