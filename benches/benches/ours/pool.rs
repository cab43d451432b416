//! Our pools under the same load as the baselines.

use multiproc::{Atomic, PlainVec, Pool, Process, Queue};
use multiproc_benches::baseline::futex_words::{hold, per_round};
use multiproc_benches::baseline::in_process::{self, LARGE, churn, double};
use multiproc_benches::effort::Effort;
use multiproc_benches::row::Measured;
use multiproc_benches::{Message, machine, proc_stats, worker};
use std::error::Error;
use std::hint::black_box;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// A pool of two workers that have begun, or why there is none.
pub(crate) fn pool() -> Result<Pool, String> {
    if multiproc::CRASH_POINTS {
        return Err("crash points are compiled in".into());
    }
    let pool = Pool::new(2).map_err(|e| e.to_string())?;
    if pool.ready(PATIENCE) { Ok(pool) } else { Err("the workers do not begin".into()) }
}

/// Microseconds for each of so many empty tasks, all submitted before the first is waited for.
pub(crate) fn in_flight(pool: &Result<Pool, String>, effort: Effort) -> Measured {
    let pool = pool.as_ref().map_err(String::clone)?;
    let count = effort.count(100_000);
    let start = Instant::now();
    let tasks = (0..count).map(|_| pool.submit((), || ())).collect::<Result<Vec<_>, _>>()?;
    for task in tasks {
        task.join()?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / count as f64)
}

/// Calls `play` on a thread on cpu 0, with a pool whose worker is on cpu 1.
fn apart(play: impl Fn(&Pool) -> Result<f64, Box<dyn Error + Send + Sync>> + Sync) -> Measured {
    if multiproc::CRASH_POINTS {
        return Err("crash points are compiled in".into());
    }
    let pool = Pool::builder().workers(1).cpus([machine::cpu(1)?]).build()?;
    pool.ready(PATIENCE);
    let played = thread::scope(|s| {
        let timed = s.spawn(|| {
            machine::pin(0)?;
            play(&pool)
        });
        timed.join().map_err(|_| "the timer panicked")
    });
    let micros = played?.map_err(|e| e.to_string())?;
    Ok(micros)
}

/// Microseconds for an empty task, one after the other.
pub(crate) fn alone_awake(effort: Effort) -> Measured {
    let count = effort.count(50_000);
    apart(|pool| {
        let play = |count: u64| (0..count).try_for_each(|_| pool.apply((), || ()));
        play(count / 10)?;
        let start = Instant::now();
        play(count)?;
        Ok(start.elapsed().as_secs_f64() * 1e6 / count as f64)
    })
}

/// Microseconds for a task, one after the other: the worker sleeps until the task comes, and who waits until the value does.
pub(crate) fn alone_asleep(effort: Effort) -> Measured {
    let count = effort.count(20_000);
    apart(|pool| {
        let play = |count: u64| {
            (0..count).try_for_each(|_| {
                hold();
                pool.apply((), hold)
            })
        };
        play(count / 10)?;
        let start = Instant::now();
        play(count)?;
        Ok(per_round(start.elapsed(), count, 2))
    })
}

fn answer(asks: Queue<Message>, answers: Queue<Message>) {
    machine::pin(1).expect("pinning");
    while let Ok(message) = asks.get() {
        if answers.put(message).is_err() {
            break;
        }
    }
}

fn ask(asks: Queue<Message>, answers: Queue<Message>, count: u64) -> f64 {
    machine::pin(0).expect("pinning");
    let play = |count: u64| {
        for n in 0..count {
            asks.put(Message::numbered(n)).expect("the partner answers");
            black_box(answers.get().expect("the partner answers"));
        }
    };
    play(count / 10);
    let start = Instant::now();
    play(count);
    let took = start.elapsed();
    asks.close().expect("the end");
    took.as_secs_f64() * 1e6 / count as f64
}

/// Microseconds for a message to another process through one queue, and one back through another.
pub(crate) fn queue_round_trip(effort: Effort) -> Measured {
    let (asks, answers) = (Queue::bounded(16)?, Queue::bounded(16)?);
    let partner = Process::spawn((asks.clone(), answers.clone()), answer)?;
    let micros = Process::spawn((asks, answers, effort.count(100_000)), ask)?.join()?;
    partner.join()?;
    Ok(micros)
}

/// Nanoseconds for each of so many cheap calls, their values in order.
pub(crate) fn map(pool: &Result<Pool, String>, count: u64) -> Measured {
    let pool = pool.as_ref().map_err(String::clone)?;
    let start = Instant::now();
    let values = pool.map(0..count, double)?;
    let took = start.elapsed();
    assert_eq!(black_box(values).len() as u64, count);
    Ok(took.as_nanos() as f64 / count as f64)
}

/// Tasks per second, each so many rounds of [`churn`].
pub(crate) fn churned(pool: &Result<Pool, String>, tasks: u64, rounds: u64) -> Measured {
    let pool = pool.as_ref().map_err(String::clone)?;
    let start = Instant::now();
    let tasks: Vec<_> = (0..tasks).map(|_| pool.submit((rounds,), churn)).collect::<Result<_, _>>()?;
    let count = tasks.len();
    for task in tasks {
        black_box(task.join()?);
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// As [`flipped`], by one worker that is on another cpu.
pub(crate) fn flipped_apart(times: u64) -> Measured {
    apart(|pool| flipped_by(pool, times))
}

/// Microseconds for a call with a large argument and a large value, one after the other.
pub(crate) fn flipped(pool: &Result<Pool, String>, times: u64) -> Measured {
    Ok(flipped_by(pool.as_ref().map_err(String::clone)?, times).map_err(|e| e.to_string())?)
}

fn flipped_by(pool: &Pool, times: u64) -> Result<f64, Box<dyn Error + Send + Sync>> {
    let mut bytes = PlainVec(vec![1_u8; LARGE]);
    let mut play = |times: u64| -> Result<(), multiproc::TaskError> {
        for _ in 0..times {
            let args = (std::mem::take(&mut bytes),);
            bytes = pool.apply(args, |bytes: PlainVec<u8>| PlainVec(in_process::flip(bytes.0)))?;
        }
        Ok(())
    };
    play(times / 10)?;
    let start = Instant::now();
    play(times)?;
    Ok(start.elapsed().as_secs_f64() * 1e6 / times as f64)
}

fn linger(started: Queue<u32>, attempts: Atomic<u32>) {
    started.put(process::id()).expect("somebody waits");
    while attempts.get() == 0 {
        thread::park_timeout(Duration::from_secs(1));
    }
}

/// Microseconds from `kill -9` of the only worker to its task running again on a new one.
pub(crate) fn restarted() -> Measured {
    if multiproc::CRASH_POINTS {
        return Err("crash points are compiled in".into());
    }
    let pool = Pool::builder().workers(1).retries(1).build()?;
    let (started, attempts) = (Queue::<u32>::bounded(2)?, Atomic::new(0_u32)?);
    let task = pool.submit::<(Queue<u32>, Atomic<u32>), ()>((started.clone(), attempts.clone()), linger)?;
    let pid = started.get()?;
    attempts.store(1, std::sync::atomic::Ordering::SeqCst);
    let start = Instant::now();
    worker::kill(pid)?;
    started.get()?;
    let took = start.elapsed();
    task.join()?;
    Ok(took.as_secs_f64() * 1e6)
}

/// Microseconds to start a pool until all its workers have begun.
pub(crate) fn started(workers: usize) -> Measured {
    if multiproc::CRASH_POINTS {
        return Err("crash points are compiled in".into());
    }
    let start = Instant::now();
    let pool = Pool::new(workers)?;
    let ready = pool.ready(PATIENCE);
    let took = start.elapsed();
    if ready { Ok(took.as_secs_f64() * 1e6) } else { Err("the workers do not begin".into()) }
}

/// Microseconds for each of so many lazy items.
pub(crate) fn imap_unordered(pool: &Result<Pool, String>, count: u64) -> Measured {
    let pool = pool.as_ref().map_err(String::clone)?;
    let start = Instant::now();
    let sum = pool.imap_unordered(0..count, double).try_fold(0, |sum, value| value.map(|value| sum + value))?;
    let took = start.elapsed();
    assert_eq!(sum, count * (count - 1));
    Ok(took.as_secs_f64() * 1e6 / count as f64)
}

/// KiB of memory that this process has more in RAM at some moment than when it began.
pub(crate) fn growth(pool: &Result<Pool, String>, count: u64) -> Measured {
    let pool = pool.as_ref().map_err(String::clone)?;
    let look = || proc_stats::resident(process::id());
    let before = look()?;
    let mut most = before;
    for (n, value) in pool.imap_unordered(0..count, double).enumerate() {
        black_box(value?);
        if (n as u64).is_multiple_of((count / 100).max(1)) {
            most = most.max(look()?);
        }
    }
    Ok(most.max(look()?).saturating_sub(before) as f64)
}
