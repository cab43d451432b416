//! A monitor ticks at a fixed rate without drift and schedules delayed jobs without waiting for them, at most five at once.
//!
//! Each job has an owned permit, which comes back when the job ends, also when it is killed.
//! Python: `BoundedSemaphore(5)`, `acquire(block=False)` and a `Process` that sleeps first. There a killed job's permit is lost.
//! Run: `cargo run --example monitor -- [INTERVAL_MS] [TICKS] [DELAY_MS] [VICTIM]`; job number VICTIM of those that wait is killed half way.

use multiproc::{AcquireError, Event, OwnedPermit, Process, Semaphore};
use std::time::{Duration, Instant};

const AT_ONCE: u32 = 5;

/// Fires after `delay`, unless the monitor closes first. The permit is given back when the function returns.
fn job(delay: Duration, closing: Event, _permit: OwnedPermit) -> bool {
    let called_off = closing.wait_timeout(delay).expect("a worker may wait");
    if !called_off {
        println!("{} fires", multiproc::current_process().name);
    }
    !called_off
}

#[derive(Default)]
struct Tally {
    fired: u32,
    called_off: u32,
    killed: u32,
}

/// Takes out the jobs that have ended; does not wait for the others.
fn reap(jobs: &mut Vec<Process<bool>>, tally: &mut Tally) {
    jobs.retain_mut(|job| {
        match job.try_join() {
            Ok(None) => return true,
            Ok(Some(true)) => tally.fired += 1,
            Ok(Some(false)) => tally.called_off += 1,
            Err(death) => {
                println!("{death}; its permit is back");
                tally.killed += 1;
            }
        }
        false
    });
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<u64>());
    let interval = Duration::from_millis(args.next().unwrap_or(Ok(200))?);
    let ticks = args.next().unwrap_or(Ok(20))?;
    let delay = Duration::from_millis(args.next().unwrap_or(Ok(1500))?);
    let victim = args.next().unwrap_or(Ok(2))? as usize;

    let (permits, closing) = (Semaphore::new(AT_ONCE)?, Event::new()?);
    let (mut jobs, mut tally) = (Vec::new(), Tally::default());
    let start = Instant::now();
    let mut due = start;
    for tick in 1..=ticks {
        // Counted from when the last tick was due, not from when it happened.
        due += interval;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        reap(&mut jobs, &mut tally);
        match permits.try_acquire_owned() {
            Ok(permit) => {
                let job = Process::builder().name(format!("job-{tick}")).spawn((delay, closing.clone(), permit), job)?;
                println!("tick {tick}: {} is scheduled", job.name());
                jobs.push(job);
            }
            Err(AcquireError::WouldBlock) => println!("tick {tick}: no permit is free, {AT_ONCE} jobs wait"),
            Err(e) => return Err(e.into()),
        }
        if tick == ticks / 2 && victim < jobs.len() {
            // It may have ended by itself; when `wait` returns, all it had is given back.
            let _ = jobs[victim].kill();
            jobs[victim].wait();
        }
    }
    println!("{ticks} ticks took {} ms", start.elapsed().as_millis());
    closing.set()?;
    for job in &jobs {
        job.wait();
    }
    reap(&mut jobs, &mut tally);
    println!("{} fired, {} called off, {} killed", tally.fired, tally.called_off, tally.killed);
    Ok(())
}
