//! `_TestArray`: shared arrays.

use crate::stage::{SHORT, waits, watched};
use multiproc::{Array, Event, Frozen, LockError, Process, SharedVec};

#[test]
fn array() {
    let _watched = watched();
    let numbers = [680i64, 626, 934, 821, 150, 233, 548, 982, 714, 831];
    let array = Array::from_slice(&numbers).unwrap();
    assert_eq!((array.len(), array.is_empty()), (10, false));
    assert_eq!((array.get(2).unwrap(), array.to_vec().unwrap()), (934, numbers.to_vec()));
    assert_eq!(&array.lock().unwrap()[2..7], &numbers[2..7]);
    array.lock().unwrap()[4..8].copy_from_slice(&[1, 2, 3, 4]);
    array.set(9, -1).unwrap();
    assert_eq!(array.to_vec().unwrap(), [680, 626, 934, 821, 1, 2, 3, 4, 714, -1]);
    let p = Process::spawn((array.clone(),), |array: Array<i64>| {
        let mut all = array.lock().unwrap();
        for i in 1..all.len() {
            all[i] += all[i - 1];
        }
    });
    p.unwrap().join().unwrap();
    assert_eq!(array.to_vec().unwrap(), [680, 1306, 2240, 3061, 3062, 3064, 3067, 3071, 3785, 3784]);
    assert!(Array::<u8>::new([]).unwrap().is_empty());
    assert!(std::panic::catch_unwind(|| array.get(10)).is_err(), "as a slice");
}

#[test]
fn array_from_size() {
    let _watched = watched();
    // Also where other elements have been before.
    for len in [10, 1000, 100_000] {
        for _ in 0..3 {
            let array = Array::<u64>::zeroed(len).unwrap();
            assert_eq!(array.len(), len);
            assert_eq!(array.to_vec().unwrap(), vec![0; len]);
            array.lock().unwrap().fill(u64::MAX);
            assert_eq!(array.get(len - 1).unwrap(), u64::MAX);
        }
    }
}

/// Without a lock there is a vector that one process fills, and others then read where it lies.
#[test]
fn raw_array() {
    let _watched = watched();
    let mut raw = SharedVec::<u32>::zeroed(100).unwrap();
    assert_eq!(raw[..], [0; 100]);
    for (n, place) in raw.iter_mut().enumerate() {
        *place = n as u32;
    }
    raw[3..5].copy_from_slice(&[30, 40]);
    let frozen = raw.freeze();
    let p = Process::spawn((frozen.clone(),), |frozen: Frozen<u32>| (frozen.len(), frozen[4], frozen.iter().sum::<u32>()));
    assert_eq!(p.unwrap().join().unwrap(), (100, 40, 4950 + 27 + 36));
    assert_eq!(SharedVec::from_slice(&[1u8, 2]).unwrap()[..], [1, 2]);
    assert_eq!(SharedVec::from_fn(3, |n| n as u64 * 2).unwrap().freeze()[..], [0, 2, 4]);
}

#[test]
fn object_and_lock() {
    let _watched = watched();
    let array = Array::new([1u32, 2, 3]).unwrap();
    let (held, go) = (Event::new().unwrap(), Event::new().unwrap());
    let p = Process::spawn((array.clone(), held.clone(), go.clone()), |array: Array<u32>, held: Event, go: Event| {
        let mut all = array.lock().unwrap();
        held.set().unwrap();
        go.wait().unwrap();
        all.reverse();
    });
    held.wait().unwrap();
    assert!(matches!(array.try_lock(), Err(LockError::WouldBlock)));
    assert!(matches!(waits(|| array.lock_timeout(SHORT).map(drop)), Err(LockError::TimedOut)));
    go.set().unwrap();
    assert_eq!(array.lock().unwrap()[..], [3, 2, 1]);
    p.unwrap().join().unwrap();
    assert!(format!("{:?}", array.try_lock().unwrap()).contains("3, 2, 1"));
    drop(array.lock_timeout(SHORT).unwrap());
    assert!(format!("{array:?}").contains("len: 3"), "{array:?}");

    // Whoever dies with the lock may have left half of a change, and that is told.
    let held = Event::new().unwrap();
    let p = Process::spawn((array.clone(), held.clone()), |array: Array<u32>, held: Event| -> () {
        let mut all = array.lock().unwrap();
        all[0] = 99;
        held.set().unwrap();
        loop {
            std::thread::park();
        }
    });
    let p = p.unwrap();
    held.wait().unwrap();
    let pid = p.pid();
    p.kill().unwrap();
    assert!(p.join().is_err());
    assert!(matches!(array.get(0), Err(LockError::OwnerDied(death)) if death.pid == pid));
    let mut recovery = array.recover().unwrap();
    assert_eq!((recovery.died().map(|death| death.pid), recovery[0]), (Some(pid), 99));
    recovery[0] = 3;
    assert_eq!(recovery.make_consistent()[..], [3, 2, 1]);
    assert_eq!(array.to_vec().unwrap(), [3, 2, 1]);
}
