//! How long a lock's next owner waits when the owner is killed: from SIGKILL until it runs with the lock.
#![allow(unsafe_code)]

use super::EVENTUALLY;
use super::census::Load;
use super::order::Order;
use super::page::Page;
use super::report::Report;
use multiproc::{Lock, LockError, testing};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Words of the page.
const ASKED: usize = 0;
const HELD: usize = 1;
const TAKEN_AT: usize = 2;

/// A clock that all processes share, in nanoseconds.
fn now() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn fork(child: impl FnOnce()) -> i32 {
    // SAFETY: the child calls nothing before `after_fork_child`, and leaves by `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: made by fork() right above.
            if unsafe { multiproc::after_fork_child() }.is_ok() {
                child();
            }
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) }
        }
        pid => pid,
    }
}

fn end(pid: i32) {
    // SAFETY: a child that has not been waited for.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
}

fn until(what: &str, mut done: impl FnMut() -> bool) -> Result<(), String> {
    let limit = Instant::now() + EVENTUALLY;
    while !done() {
        if Instant::now() > limit {
            return Err(format!("{what}: it does not come\n{}", multiproc::dump()));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}

fn sleeps(pid: i32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// As often as kills were ordered.
pub fn run(order: &Order) -> Report {
    let mut report = Report::default();
    if let Err(what) = measure(order, &mut report) {
        report.broken.push(format!("{order}: {what}"));
    }
    report
}

fn measure(order: &Order, report: &mut Report) -> Result<(), String> {
    let (page, _) = Page::create().map_err(|e| e.to_string())?;
    let word = |i: usize| &page.words[i].0;
    let lock = Lock::new().map_err(|e| e.to_string())?;
    let (began, load) = (Instant::now(), Load::begin(None));
    let heir = fork(|| {
        for n in 1.. {
            while word(ASKED).load(Ordering::Acquire) < n {
                std::thread::sleep(Duration::from_micros(50));
            }
            let taken = lock.lock();
            word(TAKEN_AT).store(now(), Ordering::Release);
            if !matches!(taken, Err(LockError::OwnerDied(_))) {
                page.complain(&format!("the owner was killed, and its heir has {taken:?}"));
            }
            drop(lock.recover().map(|found| found.make_consistent()));
        }
    });
    for n in 1..=order.kills {
        word(TAKEN_AT).store(0, Ordering::Relaxed);
        let owner = fork(|| {
            let _guard = lock.lock();
            word(HELD).store(n, Ordering::Release);
            loop {
                std::thread::sleep(Duration::from_secs(1000));
            }
        });
        until("the lock", || word(HELD).load(Ordering::Acquire) == n)?;
        word(ASKED).store(n, Ordering::Release);
        until("the heir's sleep", || testing::waits_for(heir as u32).is_ok_and(|on| on.is_some()) && sleeps(heir))?;
        let killed_at = now();
        end(owner);
        until("the heir", || word(TAKEN_AT).load(Ordering::Acquire) != 0)?;
        report.latencies.push(word(TAKEN_AT).load(Ordering::Acquire).saturating_sub(killed_at) / 1000);
        until("the lock's release", || !lock.locked())?;
    }
    end(heir);
    report.kills = order.kills;
    report.reported = order.kills;
    report.inside.insert("hold a lock".to_owned(), order.kills);
    report.ways.insert("SIGKILL".to_owned(), order.kills);
    report.seconds = began.elapsed().as_secs_f64();
    report.others = load.of_others();
    report.latencies.sort_unstable();
    page.complaint().map_or(Ok(()), Err)
}
