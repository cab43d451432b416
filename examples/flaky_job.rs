//! Jobs that fail now and then: each is tried again, after a pause, until it succeeds or has failed too often.
//!
//! A job's argument is a handle of a counter that all attempts share, here to have it fail in a way that can be foretold.
//! Python: none; a loop around `future.result()` that submits anew, and a new pool after a crash.
//! Run: `cargo run --example flaky_job -- [JOBS] [--on processes|threads|inline]`

use multiproc::{Array, Pool, TaskError};
use multiproc_examples::place_and_arguments;
use std::time::Duration;

/// Job 0 succeeds at once, job 1 at its second attempt, job 2 at its third; job 3 always fails; and so on.
fn fetch(job: usize, attempts: Array<u32>) -> String {
    let attempt = {
        let mut attempts = attempts.lock().expect("nobody dies with the lock");
        attempts[job] += 1;
        attempts[job]
    };
    if attempt as usize <= job % 4 || job % 4 == 3 {
        // Its hook would say on stderr what the pool tells anyway.
        std::panic::resume_unwind(Box::new(format!("no answer at attempt {attempt}")));
    }
    format!("answer {job}, at attempt {attempt}")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (place, args) = place_and_arguments()?;
    let jobs: usize = args.first().map_or(Ok(8), |a| a.parse())?;

    let attempts = Array::<u32>::zeroed(jobs.max(1))?;
    let pool = place.of(Pool::builder().retries(2).backoff(Duration::from_millis(10))).build()?;
    let tasks = (0..jobs).map(|job| pool.submit((job, attempts.clone()), fetch)).collect::<Result<Vec<_>, _>>()?;
    for (job, task) in tasks.into_iter().enumerate() {
        match task.join() {
            Ok(answer) => println!("{answer}"),
            Err(TaskError::Panicked { message, .. }) => println!("job {job} is given up: {message}"),
            Err(other) => return Err(other.into()),
        }
    }
    println!("{} attempts in all", attempts.to_vec()?.iter().sum::<u32>());
    Ok(())
}
