//! `_TestSemaphore`: permits between processes.

use crate::stage::{SHORT, soon, waits, watched};
use multiproc::{AcquireError, Event, OwnedPermit, Process, Semaphore};

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
    assert!(format!("{permits:?}").contains("available: 2, permits: 2"), "{permits:?}");

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
