//! A worker as a struct: it travels to its process with its state, works on it there, and comes back as the result.
//!
//! Python: subclass `Process` and override `run`. There, what `run` changes in `self` is lost with the process.
//! Run: `cargo run --example worker_struct -- [SEED]`

use multiproc::{Process, Run};
use serde::{Deserialize, Serialize};

/// Rolls a die and keeps count.
#[derive(Serialize, Deserialize)]
struct Die {
    random: u64,
    rolls: u32,
    counts: [u32; 6],
}

impl Die {
    fn new(seed: u64, rolls: u32) -> Die {
        Die { random: seed, rolls, counts: [0; 6] }
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014): the same seed rolls the same numbers.
    fn roll(&mut self) -> usize {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % 6) as usize
    }
}

impl Run for Die {
    type Output = Die;

    fn run(mut self) -> Die {
        for _ in 0..self.rolls {
            let side = self.roll();
            self.counts[side] += 1;
        }
        self
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seed = std::env::args().nth(1).map_or(Ok(1), |a| a.parse())?;
    let first = Process::start(Die::new(seed, 600))?;
    let second = Process::start(Die::new(seed + 1, 600))?;
    for (name, worker) in [("first", first), ("second", second)] {
        let die = worker.join()?;
        println!("{name} die: {:?} in {} rolls", die.counts, die.rolls);
    }
    Ok(())
}
