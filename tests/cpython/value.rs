//! `_TestValue`: shared values.

use crate::stage::{SHORT, waits, watched};
use multiproc::{Atomic, Event, LockError, Process, Value};

type Five = (Value<i32>, Value<f64>, Value<bool>, Value<char>, Value<u64>);

#[test]
fn value() {
    let _watched = watched();
    let five: Five = (
        Value::new(7824).unwrap(),
        Value::new(3.5).unwrap(),
        Value::new(false).unwrap(),
        Value::new('y').unwrap(),
        Value::new(1 << 60).unwrap(),
    );
    let seen = |five: &Five| {
        (five.0.get().unwrap(), five.1.get().unwrap(), five.2.get().unwrap(), five.3.get().unwrap(), five.4.get().unwrap())
    };
    assert_eq!(seen(&five), (7824, 3.5, false, 'y', 1 << 60));
    let p = Process::spawn(five.clone(), |a: Value<i32>, b: Value<f64>, c: Value<bool>, d: Value<char>, e: Value<u64>| {
        a.set(-6).unwrap();
        b.set(-0.5).unwrap();
        c.set(true).unwrap();
        d.set('ß').unwrap();
        e.update(|n| *n += 1).unwrap()
    });
    p.unwrap().join().unwrap();
    assert_eq!(seen(&five), (-6, -0.5, true, 'ß', (1 << 60) + 1));
    assert_eq!(five.4.update(|n| std::mem::replace(n, 9)).unwrap(), (1 << 60) + 1);
    assert_eq!(five.4.get().unwrap(), 9);
}

/// Without a lock there is `Atomic`, which does not tear.
#[test]
fn raw_value() {
    let _watched = watched();
    let (n, small) = (Atomic::new(10u64).unwrap(), Atomic::new(-1i16).unwrap());
    assert_eq!((n.get(), small.get()), (10, -1));
    let p = Process::spawn((n.clone(), small.clone()), |n: Atomic<u64>, small: Atomic<i16>| {
        assert_eq!(n.add(5), 10);
        small.set(-2);
    });
    p.unwrap().join().unwrap();
    assert_eq!((n.get(), small.get()), (15, -2));
    n.set(3);
    assert_eq!(n.swap(4, std::sync::atomic::Ordering::Relaxed), 3);
    assert!(format!("{n:?}").contains('4'), "{n:?}");
    // No update is lost.
    let all: Vec<_> =
        (0..3).map(|_| Process::spawn((n.clone(),), |n: Atomic<u64>| (0..1000).map(|_| n.add(1)).max()).unwrap()).collect();
    assert!(all.into_iter().all(|p| p.join().unwrap().is_some()));
    assert_eq!(n.get(), 3004);
}

/// The lock is the value's own; a value without one, or with another's, does not exist.
#[test]
fn object_and_lock() {
    let _watched = watched();
    let value = Value::new(5u64).unwrap();
    {
        let mut guard = value.lock().unwrap();
        *guard += 1;
        assert_eq!(*guard, 6);
        assert_eq!(value.get().unwrap(), 5, "published when the guard goes");
    }
    assert_eq!(value.get().unwrap(), 6);
    let mut guard = value.lock_timeout(SHORT).unwrap();
    *guard = 100;
    guard.discard();
    assert_eq!(value.get().unwrap(), 6);
    let (held, go) = (Event::new().unwrap(), Event::new().unwrap());
    let p = Process::spawn((value.clone(), held.clone(), go.clone()), |value: Value<u64>, held: Event, go: Event| {
        let mut guard = value.lock().unwrap();
        held.set().unwrap();
        go.wait().unwrap();
        *guard *= 2;
    });
    held.wait().unwrap();
    assert!(matches!(waits(|| value.lock_timeout(SHORT).map(drop)), Err(LockError::TimedOut)));
    go.set().unwrap();
    assert_eq!(*value.lock().unwrap(), 12);
    p.unwrap().join().unwrap();
    assert!(format!("{value:?}").contains("12"), "{value:?}");
    assert!(matches!(
        {
            let _one = value.lock().unwrap();
            value.update(|_| ())
        },
        Err(LockError::WouldDeadlock)
    ));
}
