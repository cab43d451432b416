//! The monitor in its pool form: the bound of a pool is what a semaphore and its permits were.
//!
//! A place is free again when a job has its outcome, also when its worker has died. In place of `monitor`'s permits, processes and their
//! reaping there is a pool with a bound, a submit, and a match.
//! Python: `ProcessPoolExecutor(5)` and a semaphore that a callback releases; after one death the executor is of no more use.
//! Run: `cargo run --example pool_monitor -- [INTERVAL_MS] [TICKS] [DELAY_MS] [VICTIM] [--on processes|threads|inline]`;
//! job number VICTIM aborts its worker. Inline, each job is waited for.

use multiproc::{Event, Pool, Task};
use multiproc_examples::place_and_arguments;
use std::time::{Duration, Instant};

const AT_ONCE: usize = 5;

/// Fires after `delay`, unless the monitor closes first; the victim takes its worker along.
fn job(delay: Duration, closing: Event, is_victim: bool) -> bool {
    if is_victim {
        std::process::abort();
    }
    !closing.wait_timeout(delay).expect("a worker may wait")
}

/// Takes out the jobs that have ended; does not wait for the others.
fn reap(jobs: &mut Vec<(u64, Task<bool>)>, counts: &mut [u32; 3]) {
    jobs.retain_mut(|(tick, task)| {
        let (kind, what) = match task.try_join() {
            Ok(None) => return true,
            Ok(Some(true)) => (0, "fired".into()),
            Ok(Some(false)) => (1, "is called off".into()),
            Err(end) => {
                (2, end.signal().map_or_else(|| end.to_string(), |signal| format!("was ended by {signal}; its place is free")))
            }
        };
        println!("job {tick} {what}");
        counts[kind] += 1;
        false
    });
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (place, args) = place_and_arguments()?;
    let mut args = args.iter().map(|a| a.parse::<u64>());
    let interval = Duration::from_millis(args.next().unwrap_or(Ok(200))?);
    let ticks = args.next().unwrap_or(Ok(20))?;
    let delay = Duration::from_millis(args.next().unwrap_or(Ok(1500))?);
    let victim = args.next().unwrap_or(Ok(0))?;

    let (closing, mut jobs, mut counts) = (Event::new()?, Vec::new(), [0; 3]);
    let pool = place.of(Pool::builder().workers(AT_ONCE).queue_bound(AT_ONCE).fail_when_full()).build()?;
    let mut due = Instant::now();
    for tick in 1..=ticks {
        // Counted from when the last tick was due, not from when it happened.
        due += interval;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        reap(&mut jobs, &mut counts);
        match pool.submit((delay, closing.clone(), tick == victim), job) {
            Ok(task) => {
                println!("tick {tick}: job {tick} is scheduled");
                jobs.push((tick, task));
            }
            Err(e) if e.is_full() => println!("tick {tick}: no place is free, {AT_ONCE} jobs wait"),
            Err(e) => return Err(e.into()),
        }
    }
    closing.set()?;
    // Finishes what is there.
    pool.close();
    pool.join()?;
    reap(&mut jobs, &mut counts);
    let [fired, called_off, died] = counts;
    println!("{fired} fired, {called_off} called off, {died} died");
    Ok(())
}
