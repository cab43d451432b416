//! `_TestLock`: locks between processes.

use crate::stage::{SHORT, soon, waits, watched};
use multiproc::{Event, Lock, LockError, Process};

#[test]
fn lock() {
    let _watched = watched();
    let lock = Lock::new().unwrap();
    assert!(!lock.is_locked() && !lock.locked());
    let guard = lock.lock().unwrap();
    assert!(lock.is_locked() && lock.locked());
    // Whoever has it cannot take it again, and is told instead of waiting for itself.
    assert!(matches!(lock.lock(), Err(LockError::WouldDeadlock)));
    assert!(lock.try_lock().is_err());
    drop(guard);
    assert!(!lock.is_locked());
    drop(lock.try_lock().unwrap());
    drop(lock.lock_timeout(SHORT).unwrap());
    drop(lock.lock_deadline(soon()).unwrap());
    // A release too many does not compile: the guard is the right to release.
}

/// Holds the lock between two events.
fn hold(lock: Lock, held: Event, go: Event) {
    let _guard = lock.lock().unwrap();
    held.set().unwrap();
    go.wait().unwrap();
}

#[test]
fn locked_in_two_processes() {
    let _watched = watched();
    let lock = Lock::new().unwrap();
    let (held, go) = (Event::new().unwrap(), Event::new().unwrap());
    let p = Process::spawn((lock.clone(), held.clone(), go.clone()), hold).unwrap();
    held.wait().unwrap();
    assert!(lock.is_locked());
    assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock)));
    let e = waits(|| lock.lock_timeout(SHORT).map(drop)).unwrap_err();
    assert!(matches!(e, LockError::TimedOut), "{e}");
    assert!(matches!(waits(|| lock.lock_deadline(soon()).map(drop)), Err(LockError::TimedOut)));
    go.set().unwrap();
    drop(lock.lock().unwrap());
    p.join().unwrap();
    assert!(!lock.is_locked());
}

#[test]
fn context() {
    let _watched = watched();
    let lock = Lock::new().unwrap();
    {
        let _guard = lock.lock().unwrap();
        assert!(lock.is_locked());
    }
    assert!(!lock.is_locked());
    // A panic leaves the block too.
    let caught = std::panic::catch_unwind(|| {
        let _guard = lock.lock().unwrap();
        std::panic::resume_unwind(Box::new(()));
    });
    assert!(caught.is_err() && !lock.is_locked());
    drop(lock.try_lock().unwrap());
}

/// What a report says of a lock: who holds it, as a process; and whether that one has died with it.
#[test]
fn repr_lock() {
    let _watched = watched();
    let lock = Lock::new().unwrap();
    assert!(format!("{lock:?}").ends_with(", free)"), "{lock:?}");
    let guard = lock.lock().unwrap();
    assert!(format!("{lock:?}").contains(&format!("held by process \"MainProcess\" (pid {})", std::process::id())), "{lock:?}");
    drop(guard);
    let (held, go) = (Event::new().unwrap(), Event::new().unwrap());
    let p = Process::builder().name("holder").spawn((lock.clone(), held.clone(), go), hold).unwrap();
    held.wait().unwrap();
    assert!(format!("{lock:?}").contains(&format!("held by process \"holder\" (pid {})", p.pid())), "{lock:?}");
    let pid = p.pid();
    p.kill().unwrap();
    assert!(p.join().is_err());
    assert!(format!("{lock:?}").contains("free, its owner died"), "{lock:?}");
    match lock.lock() {
        Err(LockError::OwnerDied(death)) => assert_eq!(death.pid, pid),
        other => panic!("{other:?}"),
    }
    let recovery = lock.recover().unwrap();
    assert_eq!(recovery.died().map(|death| death.pid), Some(pid));
    drop(recovery);
    assert!(lock.lock().is_err(), "nobody has vouched for it");
    drop(lock.recover().unwrap().make_consistent());
    drop(lock.lock().unwrap());
    assert!(format!("{lock:?}").ends_with(", free)"), "{lock:?}");

    // One that only takes turns does not mind.
    let turns = Lock::ignoring_death().unwrap();
    let (held, go) = (Event::new().unwrap(), Event::new().unwrap());
    let p = Process::spawn((turns.clone(), held.clone(), go), hold).unwrap();
    held.wait().unwrap();
    p.kill().unwrap();
    assert!(p.join().is_err());
    drop(turns.lock().unwrap());
}
