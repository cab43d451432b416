//! What a program does to the process around a queue: a timer signal a thousand times a second, a plain fork().
#![allow(unsafe_code)]

use multiproc::{GetError, Queue, Raw};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A fork copies what other threads hold.
static ONE: Mutex<()> = Mutex::new(());
static ALARMS: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_alarm(_: libc::c_int) {
    ALARMS.fetch_add(1, Ordering::Relaxed);
}

/// The timer, and a thread that sends the same signal to the test's own thread: the timer's go to whichever thread the kernel likes.
struct Alarms(Arc<AtomicBool>);

impl Alarms {
    /// SIGALRM at 1 kHz, without SA_RESTART.
    fn start() -> Alarms {
        // SAFETY: all zero is a valid sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_alarm as extern "C" fn(libc::c_int) as usize;
        // SAFETY: the handler only counts.
        assert_eq!(unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) }, 0);
        Alarms::every(1000);
        let alarms = Alarms(Arc::new(AtomicBool::new(true)));
        let (on, pid) = (alarms.0.clone(), std::process::id());
        // SAFETY: no arguments.
        let tid = unsafe { libc::gettid() };
        std::thread::spawn(move || {
            while on.load(Ordering::Relaxed) {
                // SAFETY: a signal to a thread of this process, whose handler only counts.
                unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, libc::SIGALRM) };
                std::thread::sleep(Duration::from_micros(900));
            }
        });
        alarms
    }

    fn every(micros: i64) {
        let time = libc::timeval { tv_sec: 0, tv_usec: micros };
        let timer = libc::itimerval { it_interval: time, it_value: time };
        // SAFETY: the timer is a valid value.
        assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) }, 0);
    }
}

impl Drop for Alarms {
    fn drop(&mut self) {
        Alarms::every(0);
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn a_thousand_signals_a_second_change_nothing() {
    let _one = ONE.lock();
    let _alarms = Alarms::start();
    let q = Queue::<u64>::bounded(4).unwrap();
    let start = Instant::now();
    assert!(q.get_timeout(Duration::from_millis(100)).unwrap_err().is_timeout());
    assert!(start.elapsed() >= Duration::from_millis(100));
    std::thread::scope(|s| {
        for t in 0..2 {
            let q = &q;
            s.spawn(move || {
                for n in 0..5000 {
                    q.put(n * 2 + t).unwrap();
                    if n % 1000 == 0 {
                        std::thread::sleep(Duration::from_millis(3));
                    }
                }
            });
        }
        let takers: Vec<_> = (0..2)
            .map(|t| {
                let q = &q;
                s.spawn(move || (0..5000).map(|_| if t == 0 { q.get().unwrap() } else { q.lease().unwrap().ack() }).sum::<u64>())
            })
            .collect();
        let sum: u64 = takers.into_iter().map(|t| t.join().unwrap()).sum();
        assert_eq!(sum, (0..10_000).sum());
    });
    // The kernel gives up on a large allocation that a signal interrupts.
    let q = Queue::<Vec<u8>, Raw>::with_codec(2).unwrap();
    let large = vec![3; 100 << 20];
    q.put_ref(&large).unwrap();
    assert!(q.get().unwrap() == large);
    assert!(ALARMS.load(Ordering::Relaxed) > 100);
}

/// Runs `child` in a plain fork and returns its exit code; it must not unwind.
fn in_fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child touches only memory of its own and ends by `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            let code = child();
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(code) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: the pointer is valid for the call.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -status }
        }
    }
}

#[test]
fn after_a_plain_fork_operations_fail_and_drops_do_nothing() {
    let _one = ONE.lock();
    let q = Queue::<u64>::bounded(4).unwrap();
    let (tx, rx) = multiproc::channel::<u64>(4).unwrap();
    q.put(1).unwrap();
    q.put(2).unwrap();
    let before = multiproc::testing::audit().unwrap();
    let mut lease = Some(q.lease().unwrap());
    let mut second = Some(q.lease().unwrap());
    let code = in_fork(|| {
        let tries = [
            q.put(9).is_err(),
            q.try_put(9).is_err(),
            matches!(q.get(), Err(GetError::Shared(_))),
            matches!(q.try_lease(), Err(GetError::Shared(_))),
            q.close().is_err(),
            q.sender().is_err(),
            Queue::<u64>::bounded(1).is_err(),
            q.take_losses() == 0,
        ];
        // Neither gives anything back nor acknowledges.
        drop(lease.take());
        second.take().map(|l| l.ack());
        drop((q.clone(), tx.clone(), rx.clone()));
        tries.iter().position(|ok| !ok).map_or(0, |at| at as i32 + 1)
    });
    assert_eq!(code, 0, "the operation of this number did not fail");
    // The child's copies of these ended with it; the channel lives.
    assert_eq!((q.leased(), q.len(), q.is_closed()), (2, 0, false));
    tx.put(5).unwrap();
    assert_eq!(rx.get().unwrap(), 5);
    drop(lease);
    assert_eq!(q.lease().unwrap().ack(), 1);
    assert_eq!(second.unwrap().ack(), 2);
    assert_eq!(multiproc::testing::audit().unwrap().objects, before.objects);
}
