//! `_TestLock`, the tests of `RLock`.

use crate::stage::{SHORT, soon, waits, watched};
use multiproc::{Event, LockError, Process, RLock};

#[test]
fn rlock() {
    let _watched = watched();
    let lock = RLock::new().unwrap();
    assert!(!lock.locked());
    let first = lock.lock().unwrap();
    let second = lock.lock().unwrap();
    let third = lock.try_lock().unwrap();
    let fourth = lock.lock_timeout(SHORT).unwrap();
    let fifth = lock.lock_deadline(soon()).unwrap();
    // Free with the last, in whatever order.
    drop((second, fourth, first, fifth));
    assert!(lock.locked());
    assert!(std::thread::scope(|scope| scope.spawn(|| lock.try_lock().is_err()).join().unwrap()));
    drop(third);
    assert!(!lock.locked());
    assert!(std::thread::scope(|scope| scope.spawn(|| lock.try_lock().is_ok()).join().unwrap()));
}

/// Holds the lock twice between two events.
fn hold(lock: RLock, held: Event, go: Event) {
    let _guards = (lock.lock().unwrap(), lock.lock().unwrap());
    held.set().unwrap();
    go.wait().unwrap();
}

#[test]
fn locked_in_two_processes() {
    let _watched = watched();
    let lock = RLock::new().unwrap();
    let (held, go) = (Event::new().unwrap(), Event::new().unwrap());
    let p = Process::spawn((lock.clone(), held.clone(), go.clone()), hold).unwrap();
    held.wait().unwrap();
    assert!(lock.locked());
    assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock)));
    assert!(matches!(waits(|| lock.lock_timeout(SHORT).map(drop)), Err(LockError::TimedOut)));
    assert!(matches!(waits(|| lock.lock_deadline(soon()).map(drop)), Err(LockError::TimedOut)));
    go.set().unwrap();
    drop(lock.lock().unwrap());
    p.join().unwrap();
    assert!(!lock.locked());
}

#[test]
fn context() {
    let _watched = watched();
    let lock = RLock::new().unwrap();
    {
        let _outer = lock.lock().unwrap();
        {
            let _inner = lock.lock().unwrap();
        }
        assert!(lock.locked());
    }
    assert!(!lock.locked());
}

#[test]
fn repr_rlock() {
    let _watched = watched();
    let lock = RLock::new().unwrap();
    assert!(format!("{lock:?}").ends_with(", free)"), "{lock:?}");
    let guards = (lock.lock().unwrap(), lock.lock().unwrap());
    let text = format!("{lock:?}");
    assert!(text.contains(&format!("held by process \"MainProcess\" (pid {})", std::process::id())), "{text}");
    assert!(text.contains("2 times"), "{text}");
    drop(guards.0);
    assert!(format!("{lock:?}").contains("once"), "{lock:?}");
    drop(guards.1);
    let (held, go) = (Event::new().unwrap(), Event::new().unwrap());
    let p = Process::builder().name("holder").spawn((lock.clone(), held.clone(), go), hold).unwrap();
    held.wait().unwrap();
    assert!(format!("{lock:?}").contains(&format!("held by process \"holder\" (pid {})", p.pid())), "{lock:?}");
    let pid = p.pid();
    p.kill().unwrap();
    assert!(p.join().is_err());
    assert!(format!("{lock:?}").contains("free, its owner died"), "{lock:?}");
    assert!(matches!(lock.lock(), Err(LockError::OwnerDied(death)) if death.pid == pid));
    let recovery = lock.recover().unwrap();
    assert_eq!(recovery.died().map(|death| death.pid), Some(pid));
    drop(recovery.make_consistent());
    drop(lock.lock().unwrap());
}
