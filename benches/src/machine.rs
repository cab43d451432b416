//! The state of the machine: its load, how far its cpus are from each other, and who runs where.
#![allow(unsafe_code)]

use std::{
    fs,
    hint::spin_loop,
    io,
    mem::{size_of_val, zeroed},
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread,
    time::{Duration, Instant},
};

/// The load average over the last minute, as the kernel prints it.
pub fn load_average() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// Puts the calling thread, and threads it starts later, on the n-th cpu it may use (modulo their
/// number).
///
/// Consumer n goes on cpu n and producer n on cpu n + 1. Otherwise the scheduler now and then puts
/// both on one cpu, where they take turns with a full ring and look many times faster than any
/// application would be.
///
/// # Errors
/// Those of sched_getaffinity(2) and sched_setaffinity(2).
pub fn pin(n: usize) -> io::Result<()> {
    let cpu = cpu(n)?;
    // SAFETY: a set of integers, for which zero is the empty set.
    let mut chosen: libc::cpu_set_t = unsafe { zeroed() };
    // SAFETY: below CPU_SETSIZE; the kernel allows at least one cpu.
    unsafe { libc::CPU_SET(cpu, &mut chosen) };
    // SAFETY: a pointer to a set of that size.
    let set = unsafe { libc::sched_setaffinity(0, size_of_val(&chosen), &chosen) };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The n-th cpu that the calling thread may use (modulo their number).
///
/// # Errors
/// Those of sched_getaffinity(2).
pub fn cpu(n: usize) -> io::Result<usize> {
    // SAFETY: a set of integers, for which zero is the empty set.
    let mut allowed: libc::cpu_set_t = unsafe { zeroed() };
    // SAFETY: a pointer to a set of that size.
    let got = unsafe { libc::sched_getaffinity(0, size_of_val(&allowed), &mut allowed) };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    let cpus: Vec<usize> = (0..libc::CPU_SETSIZE as usize)
        // SAFETY: below CPU_SETSIZE.
        .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &allowed) })
        .collect();
    Ok(cpus[n % cpus.len()])
}

#[repr(align(128))]
struct Line(AtomicU64);

/// Nanoseconds for a value to go to another cpu and come back; `None` with a single cpu.
///
/// On a virtual machine this is a better witness than the load: it can change fourfold from one
/// minute to the next while nothing else runs, and every queue changes with it, though not equally.
pub fn round_trip() -> Option<f64> {
    if thread::available_parallelism().map_or(1, usize::from) < 2 {
        return None;
    }
    let (there, back) = (Line(AtomicU64::new(0)), Line(AtomicU64::new(0)));
    // Relaxed: only says "soon"; the scope's join orders the rest.
    let stop = AtomicBool::new(false);
    thread::scope(|s| {
        s.spawn(|| {
            let _ = pin(1);
            let mut last = 0;
            while !stop.load(Relaxed) {
                // Pairs with the release of the timer.
                let now = there.0.load(Acquire);
                if now != last {
                    // Pairs with the acquire of the timer.
                    back.0.store(now, Release);
                    last = now;
                }
                spin_loop();
            }
        });
        let timer = s.spawn(|| {
            let _ = pin(0);
            let start = Instant::now();
            let mut n = 0;
            while start.elapsed() < Duration::from_millis(5) {
                n += 1;
                there.0.store(n, Release);
                while back.0.load(Acquire) != n {
                    spin_loop();
                }
            }
            start.elapsed().as_nanos() as f64 / n as f64
        });
        let figure = timer.join().ok();
        stop.store(true, Relaxed);
        figure
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_stays_on_one_cpu() {
        thread::spawn(|| {
            pin(1).unwrap();
            assert_eq!(thread::available_parallelism().unwrap().get(), 1);
        })
        .join()
        .unwrap();
    }
}
