//! When a task is tried again.

use crate::error::TaskError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// How often a task that fails is tried again, after how long, and for which failures.
#[derive(Clone)]
pub(crate) struct Retry {
    pub(crate) times: u32,
    pub(crate) backoff: Duration,
    pub(crate) only_if: Option<Arc<OnlyIf>>,
}

pub(crate) type OnlyIf = dyn Fn(&TaskError) -> bool + Send + Sync;

/// No pause between attempts becomes longer.
const LONGEST: Duration = Duration::from_secs(60);

impl Retry {
    /// The pause before the next attempt, of a task that failed at its attempt `tries` (the first is 1); `None` when that was the last.
    pub(crate) fn pause(&self, tries: u64, why: &TaskError) -> Option<Duration> {
        let failed = matches!(
            why,
            TaskError::Panicked { .. }
                | TaskError::WorkerDied { .. }
                | TaskError::TimedOut { .. }
                | TaskError::MemoryLimit { .. }
        );
        if !failed || tries > u64::from(self.times) || !self.is_meant(why) {
            return None;
        }
        let doublings = u32::try_from(tries - 1).unwrap_or(u32::MAX).min(16);
        Some(self.backoff.saturating_mul(1 << doublings).min(LONGEST))
    }

    /// Whether `only_if` is true; false when it panics.
    fn is_meant(&self, why: &TaskError) -> bool {
        let only_if = self.only_if.as_ref();
        only_if.is_none_or(|only_if| catch_unwind(AssertUnwindSafe(|| only_if(why))).unwrap_or(false))
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("times", &self.times).field("backoff", &self.backoff).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let retry = Retry { times: 3, backoff: Duration::from_millis(10), only_if: Some(Arc::new(TaskError::is_timeout)) };
        let late = TaskError::TimedOut { after: Duration::ZERO };
        let pauses: Vec<_> = (1..=4).map(|tries| retry.pause(tries, &late)).collect();
        assert_eq!(pauses, [Some(10), Some(20), Some(40), None].map(|ms| ms.map(Duration::from_millis)));
        let panic = TaskError::Panicked { message: String::new(), location: String::new(), backtrace: String::new() };
        assert_eq!(retry.pause(1, &panic), None);
        assert_eq!(Retry { only_if: None, ..retry }.pause(1, &TaskError::Cancelled), None);
    }
}
