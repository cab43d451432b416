//! `_TestSemaphore`: permits between processes.

use crate::stage::{SHORT, soon, waits, watched};
use multiproc::{AcquireError, BoundedSemaphore, Event, OwnedPermit, Process, ReleaseError, Semaphore, SignalSemaphore};

#[test]
fn semaphore() {
    let _watched = watched();
    let permits = Semaphore::new(2).unwrap();
    assert_eq!((permits.available(), permits.permits()), (2, 2));
    let first = permits.acquire().unwrap();
    assert_eq!(permits.available(), 1);
    let second = permits.try_acquire().unwrap();
    assert_eq!(permits.available(), 0);
    let e = permits.try_acquire().unwrap_err();
    assert!(matches!(e, AcquireError::WouldBlock), "{e}");
    drop(first);
    assert_eq!(permits.available(), 1);
    drop(second);
    assert_eq!(permits.available(), 2);
    assert!(format!("{permits:?}").contains("2 of 2 permits free"), "{permits:?}");

    // Of a process that is killed the permits come back, and are counted.
    let (held, go) = (Event::new().unwrap(), Event::new().unwrap());
    let p = Process::spawn((permits.clone(), held.clone(), go.clone()), |permits: Semaphore, held: Event, go: Event| {
        let _two = (permits.acquire().unwrap(), permits.acquire().unwrap());
        held.set().unwrap();
        go.wait().unwrap();
    });
    let p = p.unwrap();
    held.wait().unwrap();
    assert_eq!((permits.available(), permits.take_recovered()), (0, 0));
    p.kill().unwrap();
    assert!(p.join().is_err());
    assert_eq!((permits.available(), permits.take_recovered(), permits.take_recovered()), (2, 2, 0));

    // A permit travels: another process gives it back.
    let permit = permits.acquire_owned().unwrap();
    let p = Process::spawn((permit, go.clone()), |permit: OwnedPermit, go: Event| {
        go.wait().unwrap();
        drop(permit);
    });
    assert_eq!(permits.available(), 1);
    let last = permits.try_acquire_owned().unwrap();
    assert!(permits.try_acquire_owned().is_err());
    go.set().unwrap();
    // Whoever waits gets it.
    drop(permits.acquire().unwrap());
    p.unwrap().join().unwrap();
    drop(last);
    assert_eq!(permits.available(), 2);
}

/// One that anybody may release: it has a value, and nobody owns it.
#[test]
fn signals() {
    let _watched = watched();
    let signals = SignalSemaphore::new(2).unwrap();
    assert_eq!(signals.value(), 2);
    signals.acquire().unwrap();
    assert_eq!(signals.value(), 1);
    signals.try_acquire().unwrap();
    assert_eq!(signals.value(), 0);
    assert!(matches!(signals.try_acquire(), Err(AcquireError::WouldBlock)));
    assert!(matches!(waits(|| signals.acquire_timeout(SHORT)), Err(AcquireError::TimedOut)));
    assert!(matches!(waits(|| signals.acquire_deadline(soon())), Err(AcquireError::TimedOut)));
    signals.release(1).unwrap();
    assert_eq!(signals.value(), 1);
    // Beyond the first value, and from another process, while this one waits.
    signals.release(3).unwrap();
    assert_eq!(signals.value(), 4);
    (0..4).for_each(|_| signals.acquire_timeout(SHORT).unwrap());
    let p = Process::spawn((signals.clone(),), |signals: SignalSemaphore| {
        std::thread::sleep(SHORT);
        signals.release(2).unwrap();
    });
    signals.acquire().unwrap();
    signals.acquire().unwrap();
    p.unwrap().join().unwrap();
    assert_eq!((signals.value(), signals.bound()), (0, u32::MAX));
    assert!(format!("{signals:?}").ends_with("value 0)"), "{signals:?}");
}

#[test]
fn bounded_semaphore() {
    let _watched = watched();
    let signals = SignalSemaphore::bounded(2, 2).unwrap();
    assert_eq!((signals.value(), signals.bound()), (2, 2));
    assert_eq!(signals.release(1), Err(ReleaseError::BeyondBound(2)));
    signals.acquire().unwrap();
    signals.acquire().unwrap();
    assert_eq!(signals.value(), 0);
    assert_eq!(signals.release(3), Err(ReleaseError::BeyondBound(2)));
    signals.release(2).unwrap();
    assert_eq!(signals.value(), 2);
    assert!(SignalSemaphore::bounded(3, 2).is_err() && SignalSemaphore::bounded(0, 0).is_err());
    assert!(format!("{signals:?}").contains("value 2 of at most 2"), "{signals:?}");
    // Permits that are values cannot be given back too often.
    let permits = BoundedSemaphore::new(2).unwrap();
    drop((permits.acquire().unwrap(), permits.acquire().unwrap()));
    assert_eq!((permits.available(), permits.permits()), (2, 2));
}

#[test]
fn timeout() {
    let _watched = watched();
    assert!(Semaphore::new(0).is_err());
    let permits = Semaphore::new(1).unwrap();
    let last = permits.acquire().unwrap();
    assert_eq!((permits.available(), permits.permits()), (0, 1));
    assert!(permits.try_acquire().is_err());
    assert!(matches!(waits(|| permits.acquire_timeout(SHORT)), Err(AcquireError::TimedOut)));
    assert!(matches!(waits(|| permits.acquire_deadline(soon())), Err(AcquireError::TimedOut)));
    assert!(matches!(waits(|| permits.acquire_owned_timeout(SHORT)), Err(AcquireError::TimedOut)));
    drop(last);
    drop(permits.acquire_timeout(SHORT).unwrap());
    drop(permits.acquire_deadline(soon()).unwrap());
    drop(permits.acquire_owned_timeout(SHORT).unwrap());
    assert_eq!(permits.available(), 1);
}
