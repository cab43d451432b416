//! Our process that does nothing.

use multiproc::Process;
use multiproc_benches::row::Measured;
use std::time::Instant;

/// Microseconds from before the start to after the join.
pub(crate) fn empty() -> Measured {
    if multiproc::CRASH_POINTS {
        return Err("crash points are compiled in".into());
    }
    let start = Instant::now();
    Process::spawn((), || ())?.join()?;
    Ok(start.elapsed().as_nanos() as f64 / 1000.0)
}
