//! A task of a pool is a future: here tokio awaits it, with a limit of time, and does other things meanwhile.
//!
//! Any executor will do: the pool's own thread wakes it. A task that is dropped goes on, detached; `cancel` ends it.
//! Python: `await loop.run_in_executor(pool, f, x)`, whose call goes on if the await is given up.
//! Run: `cargo run --example await_task -- [LIMIT] [--on processes|threads|inline]`

use multiproc::Pool;
use multiproc_examples::place_and_arguments;
use std::time::Duration;

/// How many primes there are below `limit`.
fn primes(limit: u64) -> usize {
    (2..limit).filter(|n| (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0)).count()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (place, args) = place_and_arguments()?;
    let limit: u64 = args.first().map_or(Ok(100_000), |a| a.parse())?;

    let pool = place.of(Pool::builder().workers(1)).build()?;
    let task = pool.submit((limit,), primes)?;
    let other = async { println!("the runtime does something else meanwhile") };
    let (found, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(600), task), other);
    println!("there are {} primes below {limit}", found??);
    Ok(())
}
