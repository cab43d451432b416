//! Ten processes count on one atomic, on one value with its own lock, and on one value under a separate lock; nothing is lost.
//!
//! Python: `with v.get_lock(): v.value += 1`, and `with lock: ..` around several things. There `v.value += 1` alone loses updates.
//! Run: `cargo run --example counters -- [TIMES]`

use multiproc::{Atomic, Lock, LockError, Process, Value};

const PROCESSES: u64 = 10;

fn count(times: u64, atomic: Atomic<u64>, locked: Value<u64>, plain: Value<u64>, turn: Lock) {
    let all = || -> Result<(), LockError> {
        for _ in 0..times {
            atomic.add(1);
            locked.update(|n| *n += 1)?;
            // A read and a write: only the lock that everybody takes makes them one step.
            let _guard = turn.lock()?;
            plain.set(plain.get()? + 1)?;
        }
        Ok(())
    };
    all().expect("nobody dies with a lock");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let times: u64 = std::env::args().nth(1).map_or(Ok(1000), |a| a.parse())?;
    let (atomic, locked, plain) = (Atomic::new(0u64)?, Value::new(0u64)?, Value::new(0u64)?);
    let turn = Lock::new()?;

    let start = |_| Process::spawn((times, atomic.clone(), locked.clone(), plain.clone(), turn.clone()), count);
    let workers = (0..PROCESSES).map(start).collect::<Result<Vec<_>, _>>()?;
    for worker in workers {
        worker.join()?;
    }
    println!("expected             {}", PROCESSES * times);
    println!("atomic               {}", atomic.get());
    println!("value, its own lock  {}", locked.get()?);
    println!("value, separate lock {}", plain.get()?);
    Ok(())
}
