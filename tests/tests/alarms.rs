//! `Event::set_from_signal` in a real handler, a thousand times a second, whatever it interrupts.

use multiproc::{Atomic, Event, Lock, Process, RLock, Semaphore, SignalSemaphore};
use multiproc_tests::{eventually, watch};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The handler is the process's.
static ONE: Mutex<()> = Mutex::new(());
static RINGS: OnceLock<Event> = OnceLock::new();
static ALARMS: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicBool = AtomicBool::new(false);
static ERRNO: AtomicI32 = AtomicI32::new(0);

fn errno() -> *mut libc::c_int {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::__errno_location() }
}

extern "C" fn on_alarm(_: libc::c_int) {
    // SAFETY: errno of the calling thread.
    let before = unsafe { errno().read() };
    // SAFETY: as above.
    unsafe { errno().write(77) };
    let set = RINGS.get().is_some_and(|event| event.set_from_signal().is_ok());
    // SAFETY: as above.
    ERRNO.fetch_max((unsafe { errno().read() } != 77).into(), SeqCst);
    // SAFETY: as above.
    unsafe { errno().write(before) };
    FAILED.fetch_or(!set, SeqCst);
    ALARMS.fetch_add(1, SeqCst);
}

fn listen() {
    // SAFETY: all zero is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_alarm as extern "C" fn(libc::c_int) as usize;
    // SAFETY: the handler does what is async-signal-safe.
    assert_eq!(unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) }, 0);
}

fn every(micros: i64) {
    let time = libc::timeval { tv_sec: 0, tv_usec: micros };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: the timer is a valid value.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) }, 0);
}

fn tid() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }
}

fn ring(tid: i32) {
    // SAFETY: a signal to a thread of this process, whose handler is ours.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), tid, libc::SIGALRM) };
}

#[test]
fn a_thousand_alarms_a_second_into_every_operation() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let _watch = watch(120);
    let rings = RINGS.get_or_init(|| Event::new().unwrap()).clone();
    listen();
    // Elsewhere each ring that is heard counts; the event is cleared by who hears it.
    let (heard, over) = (Atomic::new(0u32).unwrap(), Event::new().unwrap());
    let listener =
        Process::spawn((rings.clone(), heard.clone(), over.clone()), |rings: Event, heard: Atomic<u32>, over: Event| {
            while !over.is_set() {
                rings.wait().unwrap();
                rings.clear();
                heard.add(1);
            }
        });
    let listener = listener.unwrap();
    let (lock, rlock, semaphore) = (Lock::new().unwrap(), RLock::new().unwrap(), Semaphore::new(2).unwrap());
    let (signals, event) = (SignalSemaphore::new(0).unwrap(), Event::new().unwrap());
    let stop = AtomicBool::new(false);
    let work = || {
        while !stop.load(SeqCst) {
            for _ in 0..100 {
                let _guard = lock.lock().unwrap();
                let _twice = (rlock.lock().unwrap(), rlock.lock().unwrap());
                let _permit = semaphore.acquire().unwrap();
                signals.release(1).unwrap();
                signals.acquire().unwrap();
                event.set().unwrap();
                event.wait().unwrap();
                event.clear();
                // The one that the handler sets, too.
                rings.set().unwrap();
            }
            event.wait_timeout(Duration::from_micros(300)).unwrap();
            // The other worker's, perhaps.
            if signals.acquire_timeout(Duration::from_micros(300)).is_ok() {
                signals.release(1).unwrap();
            }
            assert!(rings.wait_timeout(Duration::from_secs(60)).unwrap());
        }
    };
    let before = ALARMS.load(SeqCst);
    thread::scope(|s| {
        let (tell, told) = std::sync::mpsc::channel();
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (work, tell) = (&work, tell.clone());
                s.spawn(move || {
                    tell.send(tid()).unwrap();
                    work();
                })
            })
            .collect();
        let targets = [told.recv().unwrap(), told.recv().unwrap()];
        every(1_000);
        // The timer's go to whichever thread the kernel likes; these to the workers.
        while !workers.iter().all(|w| w.is_finished()) {
            targets.iter().for_each(|&t| ring(t));
            thread::sleep(Duration::from_micros(900));
            stop.store(ALARMS.load(SeqCst) - before >= 2_000, SeqCst);
        }
        every(0);
        workers.into_iter().for_each(|w| w.join().unwrap());
    });
    assert!(!FAILED.load(SeqCst));
    assert_eq!(ERRNO.load(SeqCst), 0, "errno was changed");
    // Everything is as before: nothing is held, and a ring is heard.
    assert!(!lock.locked() && !rlock.locked());
    assert_eq!((semaphore.available(), signals.value()), (2, 0));
    rings.set().unwrap();
    eventually(|| !rings.is_set());
    let so_far = heard.get();
    ring(tid());
    eventually(|| heard.get() > so_far);
    over.set().unwrap();
    rings.set().unwrap();
    listener.join().unwrap();
}

#[test]
fn a_thread_that_has_never_used_anything_of_ours_may_be_the_one_that_is_interrupted() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let _watch = watch(60);
    let rings = RINGS.get_or_init(|| Event::new().unwrap()).clone();
    listen();
    rings.clear();
    let waiter = Process::spawn((rings.clone(),), |rings: Event| rings.wait_timeout(Duration::from_secs(50)).unwrap()).unwrap();
    thread::scope(|s| {
        let idle = s.spawn(|| {
            let end = Instant::now() + Duration::from_secs(50);
            while ALARMS.load(SeqCst) == 0 || !rings_are_set() {
                assert!(Instant::now() < end);
                thread::sleep(Duration::from_millis(1));
                // Itself, in the middle of nothing of ours.
                ring(tid());
            }
        });
        idle.join().unwrap();
    });
    assert!(waiter.join().unwrap() && !FAILED.load(SeqCst));
}

/// Read without registering the thread.
fn rings_are_set() -> bool {
    RINGS.get().is_some_and(Event::is_set)
}
