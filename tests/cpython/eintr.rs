//! `TestIgnoreEINTR` and `_TestPollEintr`: a signal that is handled ends no wait.

use crate::stage::{SHORT, alone, watched};
use multiproc::{Connection, Event, Process, Semaphore, pipe};
use multiproc_tests::eventually;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static CAUGHT: AtomicU32 = AtomicU32::new(0);

/// Counts SIGUSR1 from now on, and interrupts whatever call is under way.
fn catch() {
    extern "C" fn count(_: i32) {
        CAUGHT.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: all zeros is an empty action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count as extern "C" fn(i32) as libc::sighandler_t;
    // SAFETY: the handler only touches an atomic.
    let done = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    assert_eq!(done, 0);
}

fn interrupt(pid: u32) {
    // SAFETY: signals a process.
    unsafe { libc::kill(pid as i32, libc::SIGUSR1) };
}

#[test]
fn ignore() {
    let _watched = watched();
    let (here, there) = pipe::<String, String>().unwrap();
    let (ready, event) = (Event::new().unwrap(), Event::new().unwrap());
    let p =
        Process::spawn((there, ready.clone(), event.clone()), |there: Connection<String, String>, ready: Event, event: Event| {
            catch();
            ready.set().unwrap();
            let text = there.recv().unwrap();
            there.send(text).unwrap();
            event.wait().unwrap();
            CAUGHT.load(Ordering::Relaxed)
        });
    let p = p.unwrap();
    ready.wait().unwrap();
    for _ in 0..3 {
        interrupt(p.pid());
        assert!(!here.poll(SHORT / 3).unwrap());
    }
    here.send("through".into()).unwrap();
    assert_eq!(here.recv().unwrap(), "through");
    interrupt(p.pid());
    std::thread::sleep(SHORT / 3);
    assert!(p.is_alive());
    event.set().unwrap();
    assert!(p.join().unwrap() >= 1);
}

#[test]
fn join_survives() {
    let _watched = watched();
    alone("eintr::joins_through_signals");
}

#[test]
#[ignore = "a program of its own"]
fn joins_through_signals() {
    catch();
    let go = Event::new().unwrap();
    let mut p = Process::spawn((std::process::id(), go.clone()), |parent: u32, go: Event| {
        while !go.wait_timeout(Duration::from_millis(5)).unwrap() {
            interrupt(parent);
        }
        9
    })
    .unwrap();
    eventually(|| CAUGHT.load(Ordering::Relaxed) > 0);
    let start = Instant::now();
    assert_eq!(p.join_timeout(SHORT).unwrap(), None);
    assert!(!Event::new().unwrap().wait_timeout(SHORT).unwrap());
    let one = Semaphore::new(1).unwrap();
    let _taken = one.acquire().unwrap();
    assert!(one.acquire_timeout(SHORT).is_err());
    assert!(start.elapsed() >= 3 * SHORT);
    go.set().unwrap();
    assert_eq!(p.join().unwrap(), 9);
}
