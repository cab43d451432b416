//! Starts two workers, goes on, and joins them for their return values.
//!
//! Python: `p = Process(target=f, args=(..)); p.start(); p.join()`. There a result needs a queue; here `join` returns it.
//! Run: `cargo run --example start_and_join`

use multiproc::{Process, current_process};

fn count_primes(from: u32, to: u32) -> usize {
    (from..to).filter(|&n| n > 1 && (2..).take_while(|d| d * d <= n).all(|d| n % d != 0)).count()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Arguments first, as a tuple, then any function.
    let lower = Process::spawn((0, 10_000), count_primes)?;
    let upper = Process::spawn((10_000, 20_000), count_primes)?;
    println!("{} has started {} and {}", current_process().name, lower.name(), upper.name());

    let (lower, upper) = (lower.join()?, upper.join()?);
    println!("there are {lower} primes below 10000 and {upper} from there to 20000");
    Ok(())
}
