//! `_TestBarrier`: waiting until all have come.

use crate::stage::{SHORT, waits, watched};
use multiproc::{Atomic, Barrier, BarrierError, Process, Queue, SignalSemaphore, threads};
use multiproc_tests::eventually;
use std::time::Duration;

const N: usize = 5;

/// Has `N` threads do `f`, of which this is one, two are in processes of their own, and the others in threads of this one. What they gave.
fn all<R>(barrier: &Barrier, shared: &Queue<u32>, f: fn(Barrier, Queue<u32>) -> R) -> Vec<R>
where
    R: serde::Serialize + for<'de> serde::Deserialize<'de> + Send + 'static,
{
    let args = || (barrier.clone(), shared.clone());
    let processes: Vec<_> = (0..2).map(|_| Process::spawn(args(), f).unwrap()).collect();
    let threads: Vec<_> = (0..N - 3).map(|_| threads::spawn(args(), f).unwrap()).collect();
    let mut values = vec![f(barrier.clone(), shared.clone())];
    values.extend(processes.into_iter().map(|p| p.join().unwrap()));
    values.extend(threads.into_iter().map(|p| p.join().unwrap()));
    values
}

fn five() -> (Barrier, Queue<u32>) {
    (Barrier::new(N).unwrap(), Queue::bounded(10_000).unwrap())
}

/// In lock-step: in each round, all have been counted before anybody goes on, and nobody is counted for the next one.
fn passes(barrier: Barrier, shared: Queue<u32>, rounds: usize) {
    for round in 0..rounds {
        shared.put(0).unwrap();
        barrier.wait().unwrap();
        assert_eq!(shared.len(), N * (round + 1));
        barrier.wait().unwrap();
    }
    assert!(!barrier.is_broken());
}

#[test]
fn barrier() {
    let _watched = watched();
    let (barrier, shared) = five();
    assert_eq!((barrier.parties(), barrier.waiting(), barrier.is_broken()), (N, 0, false));
    all(&barrier, &shared, |barrier, shared| passes(barrier, shared, 1));
    assert_eq!((barrier.waiting(), barrier.is_broken()), (0, false));
    assert!(format!("{barrier:?}").contains("0 of 5 waiting)"), "{barrier:?}");
    assert!(Barrier::new(0).is_err());
}

#[test]
fn barrier_10() {
    let _watched = watched();
    let (barrier, shared) = five();
    all(&barrier, &shared, |barrier, shared| passes(barrier, shared, 10));
}

#[test]
fn wait_return() {
    let _watched = watched();
    let (barrier, shared) = five();
    let ends = all(&barrier, &shared, |barrier, _| {
        let came = barrier.wait().unwrap();
        (came.index(), came.is_leader())
    });
    let mut indices: Vec<u32> = ends.iter().map(|end| end.0).collect();
    indices.sort_unstable();
    assert_eq!(indices, [0, 1, 2, 3, 4]);
    assert_eq!(ends.iter().filter(|end| end.1).count(), 1);
}

#[test]
fn action() {
    let _watched = watched();
    let (barrier, shared) = five();
    let seen = all(&barrier, &shared, |barrier, shared| {
        barrier.wait_with(|| shared.put(1).unwrap()).unwrap();
        // Done before anybody goes on.
        let first = shared.len();
        barrier.wait_with_timeout(Duration::from_secs(60), || shared.put(2).unwrap()).unwrap();
        (first, shared.len())
    });
    assert!(seen.iter().all(|&(first, second)| first == 1 && second == 2), "{seen:?}");
    assert_eq!(shared.len(), 2);
    // One that fails breaks the barrier.
    let alone = Barrier::new(1).unwrap();
    let failed =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| alone.wait_with(|| std::panic::resume_unwind(Box::new(())))));
    assert!(failed.is_err() && alone.is_broken());
}

/// One calls it off; the others are told, now and later.
#[test]
fn abort() {
    let _watched = watched();
    let (barrier, shared) = five();
    let ends = all(&barrier, &shared, |barrier, _| {
        if barrier.wait().unwrap().is_leader() {
            barrier.abort().unwrap();
            return true;
        }
        matches!(barrier.wait(), Err(BarrierError::Broken { .. }))
    });
    assert_eq!(ends, [true; N]);
    assert!(barrier.is_broken());
    assert!(matches!(barrier.wait(), Err(BarrierError::Broken { died: None, .. })));
}

/// One resets it while the others wait; they are told, and then it is as new.
#[test]
fn reset() {
    let _watched = watched();
    let (barrier, shared) = five();
    let ends = all(&barrier, &shared, |barrier, shared| {
        let end = if barrier.wait().unwrap().is_leader() {
            eventually(|| barrier.waiting() == N - 1);
            barrier.reset().unwrap();
            "reset"
        } else {
            assert!(matches!(barrier.wait(), Err(BarrierError::Broken { .. })));
            "told"
        };
        assert!(!barrier.is_broken());
        passes(barrier, shared, 1);
        end.to_owned()
    });
    assert_eq!(ends.iter().filter(|end| *end == "told").count(), N - 1, "{ends:?}");
}

/// Called off, then reset by one of those who meet at another barrier.
#[test]
fn abort_and_reset() {
    let _watched = watched();
    let (barrier, other) = (Barrier::new(N).unwrap(), Barrier::new(N).unwrap());
    let everybody: Vec<_> = (0..N)
        .map(|n| {
            let p = threads::spawn((barrier.clone(), other.clone(), n), |barrier: Barrier, other: Barrier, n: usize| {
                if n == 0 {
                    barrier.abort().unwrap();
                } else {
                    assert!(matches!(barrier.wait(), Err(BarrierError::Broken { .. })));
                }
                other.wait_with(|| barrier.reset().unwrap()).unwrap();
                barrier.wait().unwrap().index()
            });
            p.unwrap()
        })
        .collect();
    let mut indices: Vec<u32> = everybody.into_iter().map(|p| p.join().unwrap()).collect();
    indices.sort_unstable();
    assert_eq!(indices, [0, 1, 2, 3, 4]);
}

#[test]
fn timeout() {
    let _watched = watched();
    let barrier = Barrier::new(2).unwrap();
    let others = SignalSemaphore::new(0).unwrap();
    let p = Process::spawn((barrier.clone(), others.clone()), |barrier: Barrier, others: SignalSemaphore| {
        others.release(1).unwrap();
        barrier.wait_timeout(Duration::from_secs(60)).is_ok()
    });
    others.acquire().unwrap();
    barrier.wait_deadline(std::time::Instant::now() + Duration::from_secs(60)).unwrap();
    assert!(p.unwrap().join().unwrap());
    // Who is alone breaks it for the others.
    assert!(matches!(waits(|| barrier.wait_timeout(SHORT)), Err(BarrierError::TimedOut)));
    assert!(barrier.is_broken());
    assert!(matches!(barrier.wait(), Err(BarrierError::Broken { .. })));
    barrier.reset().unwrap();
    assert!(matches!(waits(|| barrier.wait_deadline(crate::stage::soon())), Err(BarrierError::TimedOut)));
}

#[test]
fn default_timeout() {
    let _watched = watched();
    let barrier = Barrier::with_timeout(2, SHORT).unwrap();
    assert!(matches!(waits(|| barrier.wait()), Err(BarrierError::TimedOut)));
    assert!(matches!(barrier.wait_with(|| ()), Err(BarrierError::Broken { .. })));
}

#[test]
fn single_thread() {
    let _watched = watched();
    let barrier = Barrier::new(1).unwrap();
    for _ in 0..2 {
        let came = barrier.wait().unwrap();
        assert_eq!((came.index(), came.is_leader()), (0, true));
    }
}

/// A thousand rounds, each process told of each round of the other's.
#[test]
fn thousand() {
    let _watched = watched();
    let (barrier, counts) = (Barrier::new(2).unwrap(), [Atomic::new(0u32).unwrap(), Atomic::new(0u32).unwrap()]);
    fn rounds(barrier: Barrier, mine: Atomic<u32>, other: Atomic<u32>) {
        for round in 1..=1000 {
            mine.add(1);
            barrier.wait().unwrap();
            let seen = other.get();
            assert!(seen == round || seen == round + 1, "{seen} in round {round}");
        }
    }
    let [a, b] = counts;
    let p = Process::spawn((barrier.clone(), b.clone(), a.clone()), rounds).unwrap();
    rounds(barrier, a.clone(), b.clone());
    p.join().unwrap();
    assert_eq!((a.get(), b.get()), (1000, 1000));
}

/// A member that is killed breaks it, and is named.
#[test]
fn a_dead_member_breaks_it() {
    let _watched = watched();
    let barrier = Barrier::new(2).unwrap();
    let p = Process::spawn((barrier.clone(),), |barrier: Barrier| drop(barrier.wait())).unwrap();
    eventually(|| barrier.waiting() == 1);
    let pid = p.pid();
    p.kill().unwrap();
    assert!(p.join().is_err());
    assert!(matches!(barrier.wait(), Err(BarrierError::Broken { died: Some(dead), .. }) if dead == pid));
    barrier.reset().unwrap();
    assert!(!barrier.is_broken());
}
