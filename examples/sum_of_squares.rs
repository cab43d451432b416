//! The smallest pool: one function over many numbers, in as many processes as there are cores.
//!
//! Python: `with Pool() as pool: sum(pool.map(square, range(n)))`.
//! Run: `cargo run --example sum_of_squares -- [NUMBERS] [--on processes|threads|inline]`

use multiproc::Pool;
use multiproc_examples::place_and_arguments;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (place, args) = place_and_arguments()?;
    let numbers: u64 = args.first().map_or(Ok(100_000), |a| a.parse())?;

    let pool = place.of(Pool::builder()).build()?;
    let squares = pool.map(1..=numbers, |n: u64| n * n)?;
    println!("the squares of 1 to {numbers} are together {}", squares.iter().sum::<u64>());
    Ok(())
}
