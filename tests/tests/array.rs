//! [`Array`]: elements under one lock, in several processes, and after the death of one that had it.

use multiproc::bytemuck::{Pod, Zeroable};
use multiproc::{Array, LockError, Process, Queue, Receiver, testing};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Audits look at the whole arena.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Point {
    x: f64,
    id: u32,
    y: [i16; 2],
}

#[test]
fn any_length_of_any_plain_data() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    testing::collect().unwrap();
    let before = testing::audit().unwrap();
    for len in [0, 1, 7, 8, 100, 5000, 1_000_003] {
        let a = Array::<u16>::zeroed(len).unwrap();
        assert_eq!((a.len(), a.is_empty()), (len, len == 0));
        assert!(a.to_vec().unwrap() == vec![0; len]);
        if let Some(last) = len.checked_sub(1) {
            a.set(last, 9).unwrap();
            assert_eq!((a.get(last).unwrap(), a.lock().unwrap().iter().map(|n| u64::from(*n)).sum::<u64>()), (9, 9));
        }
    }
    let p = |id| Point { x: f64::from(id) / 2.0, id, y: [1, -1] };
    let a = Array::new([p(0), p(1), p(2)]).unwrap();
    a.lock().unwrap().reverse();
    assert_eq!(a.to_vec().unwrap(), [p(2), p(1), p(0)]);
    assert_eq!(Array::from_slice(&a.to_vec().unwrap()).unwrap().get(0).unwrap(), p(2));
    assert_eq!(Array::new(vec![[1.5f32; 3]; 4]).unwrap().get(3).unwrap(), [1.5; 3]);
    assert!(Array::<u64>::zeroed(usize::MAX).is_err());
    assert!(Array::<u64>::zeroed(2 << 30).is_err());
    drop(a);
    assert_eq!(testing::audit().unwrap(), before);
}

#[test]
fn processes_take_turns() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    const EACH: u64 = 3000;
    let a = Array::<u64>::zeroed(64).unwrap();
    let workers = [0, 1, 2].map(|_| {
        Process::spawn((a.clone(),), |a: Array<u64>| {
            for n in 0..EACH {
                let mut all = a.lock().unwrap();
                // Nobody sees them differ.
                assert!(all.iter().all(|x| *x == all[0]), "{:?}", &*all);
                all.iter_mut().for_each(|x| *x += 1);
                drop(all);
                if n % 100 == 0 {
                    let copy = a.to_vec().unwrap();
                    assert!(copy.iter().all(|x| *x == copy[0]));
                }
            }
        })
        .unwrap()
    });
    workers.into_iter().for_each(|p| p.join().unwrap());
    assert!(a.to_vec().unwrap() == vec![3 * EACH; 64]);
}

#[test]
fn the_lock_says_why_not() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let a = Array::new([1u8, 2, 3]).unwrap();
    let guard = a.lock().unwrap();
    assert_eq!(a.get(0), Err(LockError::WouldDeadlock));
    assert_eq!(a.try_lock().map(|g| g.len()), Err(LockError::WouldDeadlock));
    std::thread::scope(|s| {
        let other = s.spawn(|| {
            assert_eq!(a.try_lock().map(|g| g.len()), Err(LockError::WouldBlock));
            assert_eq!(a.lock_timeout(Duration::from_millis(5)).map(|g| g.len()), Err(LockError::TimedOut));
        });
        other.join().unwrap();
    });
    drop(guard);
    // A panic under the lock releases it.
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _guard = a.lock().unwrap();
        panic!("under the lock");
    }));
    assert!(panicked.is_err());
    assert_eq!(a.get(2), Ok(3));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| a.get(3))).is_err());
    assert_eq!(a.get(2), Ok(3));
}

#[test]
fn a_dead_owner_is_reported_until_somebody_has_looked() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let a = Array::new([1u32; 100]).unwrap();
    let (holds, go) = (Queue::<()>::bounded(1).unwrap(), Queue::<()>::bounded(1).unwrap());
    let p = Process::spawn((a.clone(), holds.clone(), go.receiver().unwrap()), |a, holds, go: Receiver<()>| -> () {
        let mut all = a.lock().unwrap();
        all[..50].fill(2);
        holds.put(()).unwrap();
        go.get().unwrap();
        std::process::abort();
    })
    .unwrap();
    holds.get().unwrap();
    std::thread::scope(|s| {
        let waits = s.spawn(|| a.get(0));
        let pid = p.pid();
        go.put(()).unwrap();
        assert!(matches!(waits.join().unwrap(), Err(LockError::OwnerDied(death)) if death.pid == pid));
    });
    assert!(p.join().is_err());
    for _ in 0..2 {
        assert!(matches!(a.set(0, 5), Err(LockError::OwnerDied(_))));
        // Looking alone settles nothing.
        let seen = a.recover().unwrap();
        assert!(seen.died().is_some());
        assert_eq!((seen[49], seen[50]), (2, 1));
    }
    let mut mended = a.recover().unwrap();
    mended.fill(7);
    mended.make_consistent()[0] = 8;
    assert_eq!((a.get(0), a.get(99)), (Ok(8), Ok(7)));
    assert_eq!(a.recover().unwrap().died(), None);
    assert_eq!(a.get(0), Ok(8));
}
