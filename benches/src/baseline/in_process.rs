//! The work of the pool rows without processes: rayon's threads, or a plain call.

use crate::{machine, row::Measured};
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use std::{
    hint::black_box,
    sync::{Barrier, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Two threads of rayon's.
///
/// # Errors
/// The system grants no thread.
pub fn threads() -> Result<ThreadPool, String> {
    ThreadPoolBuilder::new().num_threads(2).build().map_err(|e| e.to_string())
}

/// What a cheap call does.
pub fn double(x: u64) -> u64 {
    2 * x
}

/// Nanoseconds for each of so many cheap calls by rayon, their values in order.
///
/// # Errors
/// There are no threads.
pub fn map(threads: &Result<ThreadPool, String>, count: u64) -> Measured {
    let threads = threads.as_ref().map_err(String::clone)?;
    let start = Instant::now();
    let values: Vec<u64> = threads.install(|| (0..count).into_par_iter().map(double).collect());
    let took = start.elapsed();
    assert_eq!(black_box(values).len() as u64, count);
    Ok(took.as_nanos() as f64 / count as f64)
}

/// Computes for so many rounds, in registers.
#[inline(never)]
pub fn churn(rounds: u64) -> u64 {
    (0..rounds).fold(1, |x: u64, n| black_box(x.wrapping_mul(0x5851_f42d_4c95_7f2d) ^ n))
}

/// Rounds of [`churn`] that take so long.
pub fn rounds_of(time: Duration) -> u64 {
    let rounds = 1_000_000;
    let fastest = (0..5).map(|_| {
        let start = Instant::now();
        black_box(churn(rounds));
        start.elapsed()
    });
    let each = fastest.min().unwrap_or(time).as_secs_f64() / rounds as f64;
    (time.as_secs_f64() / each) as u64
}

/// Tasks per second, each so many rounds of [`churn`], on rayon's threads.
///
/// # Errors
/// There are no threads.
pub fn churned(threads: &Result<ThreadPool, String>, tasks: u64, rounds: u64) -> Measured {
    let threads = threads.as_ref().map_err(String::clone)?;
    let start = Instant::now();
    threads.scope(|s| (0..tasks).for_each(|_| s.spawn(move |_| _ = black_box(churn(black_box(rounds))))));
    Ok(tasks as f64 / start.elapsed().as_secs_f64())
}

/// Bytes of the large argument and of the large value.
pub const LARGE: usize = 1 << 20;

/// Reads and writes every byte, in place.
pub fn flip(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    bytes
}

/// Microseconds for a call of [`flip`].
pub fn flipped(times: u64) -> Measured {
    let mut bytes = vec![1; LARGE];
    let start = Instant::now();
    for _ in 0..times {
        bytes = black_box(flip(black_box(bytes)));
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / times as f64)
}

/// Microseconds for a call of [`flip`], with its argument and its value copied so many times each.
pub fn flipped_and_copied(times: u64, copies: usize) -> Measured {
    let (mut bytes, mut to) = (vec![1_u8; LARGE], vec![2_u8; LARGE]);
    let start = Instant::now();
    for _ in 0..times {
        bytes = black_box(flip(black_box(bytes)));
        for _ in 0..2 * copies {
            black_box(&mut to).copy_from_slice(black_box(&bytes));
        }
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / times as f64)
}

/// Microseconds for a call of [`flip`], and for so many copies of what a thread on another cpu has just written.
///
/// # Errors
/// Those of sched_setaffinity(2).
pub fn flipped_and_copied_across(times: u64, copies: u32) -> Measured {
    let shared = Mutex::new(vec![1_u8; LARGE]);
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    let turn = Barrier::new(2);
    let across = thread::scope(|s| {
        s.spawn(|| {
            let _ = machine::pin(1);
            for n in 0..times {
                lock().fill(n as u8);
                turn.wait();
                turn.wait();
            }
        });
        let copies = s.spawn(|| {
            let _ = machine::pin(0);
            let (mut to, mut took) = (vec![2_u8; LARGE], Duration::ZERO);
            for _ in 0..times {
                turn.wait();
                let start = Instant::now();
                to.copy_from_slice(black_box(&lock()));
                took += start.elapsed();
                black_box(&to);
                turn.wait();
            }
            took
        });
        copies.join().map_err(|_| "the copying thread panicked")
    })?;
    Ok(flipped(times)? + f64::from(copies) * across.as_secs_f64() * 1e6 / times as f64)
}
