//! Three workers smooth a row of numbers in phases: all read the old row, then all write the new one. Nobody begins a phase before the others have ended the one before; the last to come
//! looks how far they are. One is killed half way: the others are told instead of waiting for it, and a new one takes its place.
//!
//! Python: `Barrier(3, action=look)`, where the others would wait for the killed one for ever.
//! Run: `cargo run --example barrier_phases -- [PHASES]`

use multiproc::{Array, Atomic, Barrier, BarrierError, Process};

const WORKERS: usize = 3;
const EACH: usize = 4;

/// Ends after the phase `last`, or when another has died, which it returns.
fn smooth(me: usize, last: u64, barrier: Barrier, row: Array<f64>, phase: Atomic<u64>, dies_in: u64) -> Option<u32> {
    let all = || -> Result<(), BarrierError> {
        while phase.get() < last {
            let old = row.lock().expect("nobody dies with the row").to_vec();
            let near = |i: usize| (old[i.saturating_sub(1)] + old[i] + old[(i + 1).min(old.len() - 1)]) / 3.0;
            barrier.wait()?; // all have read
            if phase.get() == dies_in {
                std::process::abort();
            }
            let mine = me * EACH..(me + 1) * EACH;
            row.lock().expect("nobody dies with the row")[mine.clone()].copy_from_slice(&mine.map(near).collect::<Vec<_>>());
            barrier.wait_with(|| _ = phase.add(1))?; // all have written, and the last to come counts the phase
        }
        Ok(())
    };
    match all() {
        Ok(()) => None,
        Err(BarrierError::Broken { died, .. }) => died,
        Err(other) => panic!("{other}"),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let phases: u64 = std::env::args().nth(1).map_or(Ok(20), |a| a.parse())?;
    let (barrier, phase) = (Barrier::new(WORKERS)?, Atomic::new(0u64)?);
    let row = Array::new([0.0; WORKERS * EACH])?;
    row.lock()?[0] = 12.0;
    let start = |dies_in: u64| -> Result<Vec<Process<Option<u32>>>, multiproc::Error> {
        let one = |me| {
            let dies_in = if me == 1 { dies_in } else { u64::MAX };
            Process::spawn((me, phases, barrier.clone(), row.clone(), phase.clone(), dies_in), smooth)
        };
        (0..WORKERS).map(one).collect()
    };
    let workers = start(phases / 2)?;
    let victim = workers[1].pid();
    for worker in workers {
        match worker.join() {
            Ok(died) => println!("a worker was told of a death: {}", died == Some(victim)),
            Err(_) => println!("a worker was killed in phase {}", phase.get()),
        }
    }
    println!("broken: {}", barrier.is_broken());
    barrier.reset()?;
    for worker in start(u64::MAX)? {
        worker.join()?;
    }
    println!("phases: {}", phase.get());
    Ok(())
}
