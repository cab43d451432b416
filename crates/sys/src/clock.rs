//! Deadlines on the monotonic clock.
//!
//! A `Duration` of the caller becomes a [`Deadline`] once, at the surface; below that every wait takes an
//! `Option<Deadline>`, so a wait that is interrupted and resumed does not grow. See clock_gettime(2).

use std::time::{Duration, Instant};

/// A point in time on CLOCK_MONOTONIC, in nanoseconds. Clock steps do not move it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    nanos: u64,
}

/// Nanoseconds on CLOCK_MONOTONIC.
pub fn now_nanos() -> u64 {
    let t = nix_now();
    t.as_nanos() as u64
}

fn nix_now() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// Nanoseconds for which the calling thread has had a processor.
pub fn thread_nanos() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map(Duration::from).unwrap_or_default().as_nanos() as u64
}

impl Deadline {
    /// The deadline `timeout` from now; `None` when that lies beyond the clock's range, which is for ever.
    pub fn after(timeout: Duration) -> Option<Deadline> {
        let nanos = u64::try_from(timeout.as_nanos()).ok()?;
        let nanos = now_nanos().checked_add(nanos)?;
        // The kernel takes signed seconds.
        (nanos < i64::MAX as u64).then_some(Deadline { nanos })
    }

    /// The deadline at `instant`.
    pub fn at(instant: Instant) -> Option<Deadline> {
        Deadline::after(instant.saturating_duration_since(Instant::now()))
    }

    /// Whether the time has come.
    pub fn passed(self) -> bool {
        now_nanos() >= self.nanos
    }

    /// What is left, zero when passed.
    pub fn remaining(self) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(now_nanos()))
    }

    /// The earlier of the two, where `None` means never.
    pub fn earlier(self, other: Option<Deadline>) -> Deadline {
        other.map_or(self, |o| self.min(o))
    }

    pub(crate) fn timespec(self) -> libc::timespec {
        libc::timespec {
            tv_sec: (self.nanos / 1_000_000_000) as libc::time_t,
            tv_nsec: (self.nanos % 1_000_000_000) as libc::c_long,
        }
    }
}
