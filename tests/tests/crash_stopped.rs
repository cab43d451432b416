//! A worker that is stopped, not killed, at each step of telling an outcome. A file of its own, since it counts the time that this process takes.
#![cfg(feature = "crash-points")]

use multiproc::testing::arm_signal;
use multiproc::{Atomic, Pool, TaskError};
use multiproc_tests::{eventually, watch};
use std::time::Duration;

/// A worker is stopped, not killed, at each step of telling an outcome; another one dies. Whoever waits for that one's task is told, the pool's process does not
/// wait for the stopped one in any way, and the pool ends in its time.
#[test]
fn a_worker_is_stopped_at_each_step() {
    let stride = if std::env::var_os("CRASH_POOL_ALL").is_some() { 1 } else { 3 };
    let stop = |k: u64, pid: Atomic<u32>| {
        pid.set(std::process::id());
        arm_signal(libc::SIGSTOP, k);
    };
    let mut stops = 0;
    for k in (1..).step_by(stride) {
        let _watched = watch(60);
        let pool = Pool::builder().workers(2).grace(Duration::from_millis(20)).shutdown_timeout(Duration::ZERO).build().unwrap();
        let (stopped, other) = (Atomic::new(0u32).unwrap(), Atomic::new(0u32).unwrap());
        let dies = pool.submit((other.clone(),), |pid: Atomic<u32>| -> () {
            pid.set(std::process::id());
            loop {
                std::thread::park();
            }
        });
        let dies = dies.unwrap();
        eventually(|| other.get() != 0);
        let stops_there = pool.submit((k, stopped.clone()), stop).unwrap();
        // One more, so that the worker passes all steps to its next task.
        let next = pool.submit((), || 5u32).unwrap();
        eventually(|| stopped.get() != 0);
        let is_stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", stopped.get()));
            stat.is_ok_and(|stat| stat.contains(") T "))
        };
        eventually(|| is_stopped() || next.is_done());
        if !is_stopped() {
            break;
        }
        stops += 1;
        let before = cpu_time();
        std::thread::scope(|s| {
            let joins = s.spawn(|| dies.wait_timeout(Duration::from_secs(3600)));
            let since = std::time::Instant::now();
            // SAFETY: touches no memory; the pid is that of a worker of this pool.
            unsafe { libc::kill(other.get().cast_signed(), libc::SIGKILL) };
            assert!(joins.join().unwrap());
            // Nothing turns while it is stopped.
            std::thread::sleep(Duration::from_millis(20));
            assert!(cpu_time() - before <= since.elapsed() / 2 + Duration::from_millis(15), "step {k}");
        });
        assert!(matches!(dies.join(), Err(TaskError::WorkerDied { started: true, .. })), "step {k}");
        if k % 2 == 0 {
            pool.terminate();
            assert!(pool.pids().is_empty());
            drop((stops_there, next));
        } else {
            // SAFETY: as before.
            unsafe { libc::kill(stopped.get().cast_signed(), libc::SIGCONT) };
            stops_there.join().unwrap();
            assert_eq!(next.join().unwrap(), 5, "step {k}");
        }
    }
    println!("{stops} stops");
    assert!(stops * stride > 14, "{stops}");
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the time.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
