//! Processes that are dying: the kernel has taken some of their threads apart and not yet others.
//!
//! A debugger holds a thread that is killed at its last step, before the kernel gives up what it has locked. So here the test debugs one thread of a process, and kills the process:
//! its keeper is gone and its life word marked, as long as the test likes, with that thread in the middle of something.

use multiproc::testing::collect;
use multiproc::{Connection, Lock, LockError, Process, Queue, RecvError, Semaphore, pipe};
use multiproc_tests::{eventually, watch};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

type There = Connection<u64, u64>;

/// A thread that stops when it dies.
struct Undead(i32);

impl Undead {
    /// `None` where no process may debug another.
    fn new(tid: i32) -> Option<Undead> {
        // SAFETY: no memory of ours is involved.
        let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, tid, 0, libc::PTRACE_O_TRACEEXIT) };
        if seized != 0 {
            eprintln!("skipped: ptrace is not permitted: {}", std::io::Error::last_os_error());
        }
        (seized == 0).then_some(Undead(tid))
    }

    /// Waits until it has stopped in its death.
    fn await_stop(&self) {
        let mut status = 0;
        // SAFETY: the out-pointer is valid.
        assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) }, self.0);
        assert_eq!(status >> 8, libc::SIGTRAP | libc::PTRACE_EVENT_EXIT << 8);
    }

    fn let_die(self) {
        // SAFETY: no memory of ours is involved.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0) }, 0);
    }
}

fn hold(lock: Lock, permits: Semaphore, end: There, tids: Queue<i32>) {
    end.send(1).unwrap();
    let (_permit, _guard) = (permits.acquire().unwrap(), lock.lock().unwrap());
    // SAFETY: no arguments, cannot fail.
    tids.put(unsafe { libc::gettid() }).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn nothing_is_taken_from_a_process_with_a_thread_left() {
    let _watched = watch(60);
    let (lock, permits, tids) = (Lock::new().unwrap(), Semaphore::new(1).unwrap(), Queue::<i32>::bounded(1).unwrap());
    let (here, there) = pipe::<u64, u64>().unwrap();
    let parts = (lock.clone(), permits.clone(), there.clone(), tids.clone());
    let p = Process::spawn(parts, |lock, permits, end, tids| {
        // Not the main thread: that one is looked at by who waits for the process.
        std::thread::spawn(move || hold(lock, permits, end, tids)).join().unwrap();
    })
    .unwrap();
    let Some(undead) = Undead::new(tids.get().unwrap()) else { return p.kill().unwrap() };
    assert_eq!(here.recv().unwrap(), 1);

    p.kill().unwrap();
    undead.await_stop();
    // Its keeper is gone: those who wait for it are told.
    assert_eq!(here.recv().unwrap_err().peer_died(), Some(p.pid()));
    // A collection finds the slot of a dead process, and leaves alone what that still has.
    collect().unwrap();
    assert_eq!((permits.available(), permits.take_recovered()), (0, 0));
    assert_eq!(lock.try_lock().err(), Some(LockError::WouldBlock), "the thread has it");

    // Its end of the pipe is neither free nor in use.
    assert!(matches!(there.try_recv(), Err(RecvError::WouldBlock)));
    assert!(there.try_send(2).unwrap_err().is_would_block());
    assert!(there.send_timeout(2, Duration::from_millis(2)).unwrap_err().is_timeout());
    assert_eq!(multiproc::wait_timeout(&[&there], Duration::ZERO).unwrap(), [0; 0]);
    let gone = Arc::new(AtomicBool::new(false));
    let ready = std::thread::spawn({
        let (there, never) = (there.clone(), Queue::<u8>::bounded(1).unwrap());
        move || multiproc::wait(&[&there, &never]).unwrap()
    });
    let claim = std::thread::spawn({
        let (there, gone) = (there.clone(), gone.clone());
        move || (there.send(5).map_err(|e| e.to_string()), gone.load(Ordering::SeqCst))
    });
    collect().unwrap();
    assert!(!claim.is_finished());
    gone.store(true, Ordering::SeqCst);
    undead.let_die();
    assert_eq!(claim.join().unwrap(), (Ok(()), true));
    here.send(6).unwrap();
    assert_eq!(ready.join().unwrap(), [0]);
    assert_eq!(here.recv().unwrap_err().peer_died(), Some(p.pid()), "told by who goes on, too");
    assert_eq!(here.recv().unwrap(), 5);

    assert!(p.join().is_err());
    assert_eq!((permits.available(), permits.take_recovered()), (1, 1));
    assert!(matches!(lock.try_lock().err(), Some(LockError::OwnerDied(_))));
}

/// Nobody is left who has a descriptor of it.
#[test]
fn who_has_lost_its_parent_is_cleaned_up_after_when_it_is_gone() {
    let _watched = watch(60);
    let (lock, permits, tids) = (Lock::new().unwrap(), Semaphore::new(1).unwrap(), Queue::<i32>::bounded(1).unwrap());
    let (here, there) = pipe::<u64, u64>().unwrap();
    let parts = (lock.clone(), permits.clone(), there.clone(), tids.clone());
    let above = Process::spawn(parts, |lock, permits, end, tids| {
        let below = Process::spawn((lock, permits, end, tids), |lock, permits, end, tids| {
            std::thread::spawn(move || hold(lock, permits, end, tids)).join().unwrap();
        });
        below.unwrap().join().unwrap();
    })
    .unwrap();
    let Some(undead) = Undead::new(tids.get().unwrap()) else { return above.kill().unwrap() };
    assert_eq!(here.recv().unwrap(), 1);

    // The kernel ends the one below with it.
    above.kill().unwrap();
    undead.await_stop();
    assert!(above.join().is_err());
    assert!(here.recv().unwrap_err().peer_died().is_some());
    collect().unwrap();
    assert_eq!((permits.available(), permits.take_recovered()), (0, 0));
    undead.let_die();
    // Without anybody who asks for it.
    eventually(|| permits.available() == 1);
    assert_eq!(permits.take_recovered(), 1);
    there.send(2).unwrap();
}
