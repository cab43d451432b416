//! The step killer: a process dies at each step of each operation of a queue, and everybody else goes on.
//!
//! A victim arms itself, runs one operation and is killed at its k-th crash point, for every k until it survives. Meanwhile nobody else helps:
//! traffic is one message, cleaning up after the dead is held back, and no wait looks again by itself, so a wake that
//! only the dead process would have made must come from the kernel. Then the dead are cleaned up after, and everything is counted: each
//! message once, losses as reported, no block or object left over.
//!
//! Needs the feature `crash-points`.

#[path = "../common_queue/mod.rs"]
mod common_queue;
#[cfg(feature = "crash-points")]
mod once;
#[cfg(feature = "crash-points")]
mod op;
#[cfg(feature = "crash-points")]
mod play;
#[cfg(feature = "crash-points")]
mod run;
#[cfg(feature = "crash-points")]
mod sizes;
#[cfg(feature = "crash-points")]
mod stage;
#[cfg(feature = "crash-points")]
#[path = "../step_killer/table.rs"]
mod steps;
#[cfg(feature = "crash-points")]
mod twice;
#[cfg(feature = "crash-points")]
#[path = "../step_killer/watched.rs"]
mod watched;

#[cfg(not(feature = "crash-points"))]
#[test]
fn without_crash_points_an_unacknowledged_lease_of_a_killed_process_comes_back() {
    use multiproc::{Process, Queue};
    eprintln!("the step killer needs --features crash-points; here one death stands for all");
    let q = Queue::<u32>::bounded(4).unwrap();
    q.put(7).unwrap();
    let p = Process::spawn((q.clone(),), |q: Queue<u32>| -> () {
        let _lease = q.lease().unwrap();
        std::process::abort();
    })
    .unwrap();
    assert!(p.join().is_err());
    let lease = q.lease_timeout(common_queue::LIMIT).unwrap();
    assert_eq!((*lease, lease.attempt()), (7, 2));
}
