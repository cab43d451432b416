//! Five daemon workers count on one locked value for as long as the program runs, and end with it.
//!
//! Python: `Process(target=f, daemon=True)`. There they go on for ever when the program is killed; here they end then, too.
//! Run: `cargo run --example daemon_workers -- [INTERVAL_MS] [TARGET]`

use multiproc::{Event, Process, Value, active_children};
use std::thread;
use std::time::Duration;

const WORKERS: usize = 5;
type Counts = [u64; WORKERS];

fn count(me: usize, interval: Duration, target: u64, counts: Value<Counts>, reached: Event) {
    loop {
        let all_there = counts
            .update(|counts| {
                counts[me] += 1;
                counts.iter().all(|&n| n >= target)
            })
            .expect("a value's lock survives its owners");
        if all_there {
            reached.set().expect("a worker may set an event");
        }
        thread::sleep(interval);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(|a| a.parse());
    let interval = Duration::from_millis(args.next().unwrap_or(Ok(20))?);
    let target = args.next().unwrap_or(Ok(10))?;

    let counts = Value::<Counts>::new([0; WORKERS])?;
    let reached = Event::new()?;
    for me in 0..WORKERS {
        let args = (me, interval, target, counts.clone(), reached.clone());
        // Nobody joins a worker that never returns, so its handle may go.
        let _ = Process::builder().name(format!("counter-{me}")).daemon(true).spawn(args, count)?;
    }
    reached.wait()?;
    let at_least = counts.get()?.iter().all(|&n| n >= target);
    println!("each of {WORKERS} workers has counted to {target}: {at_least}");
    for child in active_children() {
        println!("still running: {}", child.name());
    }
    println!("the program ends");
    Ok(())
}
