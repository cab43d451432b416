//! What needs a program of its own: a fork, and many rounds in an arena where nobody else is.

use crate::helpers::*;
use multiproc::{AcquireError, Atomic, Event, Lock, LockError, OwnedPermit, Process, Queue, Semaphore, Value, testing};
use multiproc_shm::Error;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use std::{fs, mem, thread};

#[test]
fn after_a_plain_fork_everything_is_an_error_and_drops_do_nothing() {
    in_a_tree_of_its_own("programs::forked");
}

#[test]
#[ignore = "run by another test, in a program of its own"]
fn forked() {
    let _watch = watch();
    let lock = Lock::new().unwrap();
    let value = Value::new(1u64).unwrap();
    let (event, semaphore) = (Event::new().unwrap(), Semaphore::new(2).unwrap());
    let free = Lock::new().unwrap();
    let objects = testing::audit().unwrap().objects;
    {
        let guard = lock.lock().unwrap();
        let mut edited = value.lock().unwrap();
        *edited = 2;
        let (permit, owned) = (semaphore.acquire().unwrap(), semaphore.acquire_owned().unwrap());
        // SAFETY: the child uses nothing that another thread may have had locked; glibc's allocator is reset by fork.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let shared = |r: Result<(), LockError>| matches!(r, Err(LockError::Shared(Error::Forked)));
            let refused = [
                shared(free.lock().map(drop)),
                shared(free.try_lock().map(drop)),
                shared(lock.lock().map(drop)),
                shared(free.recover().map(drop)),
                shared(value.get().map(drop)),
                shared(value.set(3)),
                shared(value.update(|_| ())),
                event.set() == Err(Error::Forked),
                event.wait_timeout(Duration::ZERO) == Err(Error::Forked),
                matches!(semaphore.try_acquire(), Err(AcquireError::Shared(Error::Forked))),
                matches!(semaphore.acquire_owned(), Err(AcquireError::Shared(Error::Forked))),
                Lock::new().is_err(),
                Queue::<u8>::bounded(1).is_err(),
                Process::spawn((), || ()).is_err(),
            ];
            drop((guard, edited, permit, owned));
            drop((lock, value, event, semaphore, free));
            let wrong = refused.iter().position(|ok| !ok).map_or(0, |i| i as i32 + 1);
            // SAFETY: ends the child, without the parent's exit handlers.
            unsafe { libc::_exit(wrong) };
        }
        let mut status = 0;
        // SAFETY: waits for the child made above.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0, "operation {} of the list was not refused", (status >> 8) - 1);
        assert!(lock.is_locked(), "the child's drops are none of ours");
        assert_eq!((value.get().unwrap(), semaphore.available()), (1, 0));
        thread::scope(|s| {
            s.spawn(|| assert!(matches!(value.lock_timeout(Duration::from_millis(5)), Err(LockError::TimedOut))));
            s.spawn(|| assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock))));
        });
        drop(guard);
        drop((edited, permit, owned));
    }
    assert_eq!((value.get().unwrap(), semaphore.available()), (2, 2));
    assert!(lock.lock().is_ok() && free.lock().is_ok());
    testing::collect().unwrap();
    assert_eq!(testing::audit().unwrap().objects, objects);
}

#[test]
fn nothing_leaks_over_ten_thousand_cycles() {
    in_a_tree_of_its_own("programs::cycles");
}

/// Bytes that the kernel keeps for the arena.
fn backed() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let arena = fs::read_dir("/proc/self/fd").unwrap().flatten().map(|e| e.path());
    let is_arena = |p: &std::path::PathBuf| fs::read_link(p).is_ok_and(|to| to.to_string_lossy().contains("memfd:multiproc"));
    arena.filter(is_arena).map(|p| fs::metadata(p).unwrap().blocks() * 512).max().expect("an arena")
}

#[derive(Serialize, Deserialize)]
struct Parcel {
    lock: Lock,
    value: Value<[u64; 4]>,
    atomic: Atomic<u16>,
    event: Event,
    semaphore: Semaphore,
    permit: Option<OwnedPermit>,
}

impl Parcel {
    fn new() -> Parcel {
        let semaphore = Semaphore::new(2).unwrap();
        let permit = semaphore.acquire_owned().ok();
        let (lock, value, atomic) = (Lock::new().unwrap(), Value::new([1; 4]).unwrap(), Atomic::new(1).unwrap());
        Parcel { lock, value, atomic, event: Event::new().unwrap(), semaphore, permit }
    }
}

#[test]
#[ignore = "run by another test, in a program of its own"]
fn cycles() {
    let _watch = watch();
    /// Takes parcels and is killed holding one, its lock, its value and a permit.
    fn victim(parcels: multiproc::Receiver<Parcel>) {
        let (first, second) = (parcels.get().unwrap(), parcels.get().unwrap());
        drop(first);
        let lease = parcels.lease();
        mem::forget(second.lock.lock());
        mem::forget(second.value.lock());
        mem::forget(second.semaphore.acquire());
        mem::forget(lease);
        die();
    }
    let cycle = |kill: bool| {
        let queue = Queue::<Parcel>::bounded(8).unwrap();
        let n = if kill { 3 } else { 1 };
        (0..n).for_each(|_| queue.put(Parcel::new()).unwrap());
        if kill {
            assert!(Process::spawn((queue.receiver().unwrap(),), victim).unwrap().join().is_err());
            // The leased one comes back.
            assert_eq!(queue.lease().unwrap().ack().value.get().unwrap(), [1; 4]);
        } else {
            let parcel = queue.get().unwrap();
            drop(parcel.lock.lock().unwrap());
        }
    };
    (0..200).for_each(|i| cycle(i % 20 == 0));
    testing::collect().unwrap();
    let (audit, bytes, fds) = (testing::audit().unwrap(), backed(), fs::read_dir("/proc/self/fd").unwrap().count());
    (0..10_000).for_each(|i| cycle(i % 100 == 0));
    testing::collect().unwrap();
    assert_eq!(testing::audit().unwrap(), audit);
    eventually("descriptors are closed", || fs::read_dir("/proc/self/fd").unwrap().count() <= fds);
    // Between collections garbage may stand, so the peak is not the first one's; ten thousand parcels would be 160 MB.
    assert!(backed() < bytes + (32 << 20), "{} -> {}", bytes, backed());
}
