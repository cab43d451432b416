//! What these tests share.

use multiproc::{Process, testing};
use multiproc_tests::watchdog::Watched;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

/// Its test may take two minutes; then everything ends and the test is named.
pub(crate) fn watch() -> Watched {
    multiproc_tests::watch(120)
}

pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(40);
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_micros(100));
    }
}

/// The number under which reports name a handle's object.
pub(crate) fn id(handle: &impl Debug) -> u32 {
    let text = format!("{handle:?}");
    let digits = text.split_once("id: ").expect("a handle's Debug names its id").1;
    digits.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

pub(crate) fn asleep_on(pid: u32, id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let sleeps = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" S"));
    sleeps && testing::waits_for(pid) == Ok(Some(id))
}

pub(crate) fn await_sleep<R>(process: &Process<R>, handle: &impl Debug) {
    let id = id(handle);
    eventually("the child sleeps", || asleep_on(process.pid(), id));
}

/// Starts a child that dies with what `take` has taken, and waits for its death. Its pid.
pub(crate) fn killed_with<H: Serialize + for<'de> Deserialize<'de> + 'static>(handle: H, take: fn(H)) -> u32 {
    let holder = Process::spawn((handle,), take).unwrap();
    let pid = holder.pid();
    assert!(holder.join().is_err());
    pid
}

pub(crate) fn die() -> ! {
    // SAFETY: ends this process.
    unsafe { libc::raise(libc::SIGKILL) };
    unreachable!()
}

/// Runs an ignored test of this program in a program of its own, with its own tree.
pub(crate) fn in_a_tree_of_its_own(name: &str) {
    let out = process::Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

/// Tests that need many processes at once take turns.
pub(crate) fn crowd() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
