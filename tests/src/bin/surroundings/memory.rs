//! Scenes about memory: what is locked, what a cgroup grants, what a core dump holds.

use crate::core;
use crate::say;
use multiproc::{Atomic, Lock, LockError, Process, ProcessError, Queue};
use multiproc_tests::eventually;
use std::fs;

const MIB: u64 = 1 << 20;

/// A field of /proc/self/status, in bytes.
fn status(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_else(|| panic!("{field}"));
    line.trim_matches([':', '\t', ' ']).strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

fn say_what_is_resident() {
    let all = ["RssShmem", "VmLck", "VmRSS"].map(|field| format!("{field} {} MiB", status(field) / MIB));
    say(format!("everything works, small: {}, {}", status("RssShmem") < 48 * MIB, all.join(", ")));
}

fn lock_memory(flags: i32) {
    // SAFETY: touches no memory.
    let r = unsafe { libc::mlockall(flags) };
    assert_eq!(r, 0, "{}", std::io::Error::last_os_error());
}

/// As a user who may lock little: the arena is not counted.
pub fn lock_little_then_share() {
    let little = libc::rlimit { rlim_cur: 8 << 20, rlim_max: 8 << 20 };
    // SAFETY: reads the struct.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const little) }, 0);
    lock_memory(libc::MCL_FUTURE);
    let queue = Queue::<Vec<u8>>::bounded(2).unwrap();
    queue.put(vec![1; 100_000]).unwrap();
    assert_eq!(Process::spawn((queue,), |q: Queue<Vec<u8>>| q.get().unwrap().len()).unwrap().join().unwrap(), 100_000);
    say_what_is_resident();
}

pub fn lock_then_share() {
    lock_memory(libc::MCL_FUTURE);
    core::everything();
    say_what_is_resident();
}

pub fn share_then_lock(flags: i32) {
    let queue = Queue::<Vec<u8>>::bounded(2).unwrap();
    queue.put(vec![1; 100_000]).unwrap();
    lock_memory(flags);
    core::everything();
    assert_eq!(queue.get().unwrap().len(), 100_000);
    say_what_is_resident();
}

/// Says the default limit; one worker takes more private memory than there is, and is killed with a lock in its hands; the others go on.
pub fn in_a_group() {
    say(multiproc::memory_usage().unwrap().limit);
    let (there, back) = (Queue::<u32>::bounded(4).unwrap(), Queue::<u32>::bounded(4).unwrap());
    let echo = |there: Queue<u32>, back: Queue<u32>| {
        for n in &there {
            back.put(n.unwrap()).unwrap();
        }
    };
    let echo = Process::spawn((there.clone(), back.clone()), echo).unwrap();
    let (lock, held) = (Lock::new().unwrap(), Queue::<()>::bounded(1).unwrap());
    let hog = |lock: Lock, held: Queue<()>| {
        let _held = lock.lock().unwrap();
        held.put(()).unwrap();
        let mut taken: Vec<Vec<u8>> = Vec::new();
        while taken.len() < 4096 {
            taken.push(std::hint::black_box(vec![1; MIB as usize / 4]));
        }
        taken.len()
    };
    let hog = Process::spawn((lock.clone(), held.clone()), hog).unwrap();
    held.get().unwrap();
    let died = matches!(lock.lock(), Err(LockError::OwnerDied(_)));
    drop(lock.recover().unwrap().make_consistent());
    match hog.join() {
        Err(ProcessError::Signaled { signal, .. }) => say(format!("killed by {signal}, its lock reported: {died}")),
        other => say(format!("{other:?}")),
    }
    // What is shared reaches its own limit, which is an error and no kill.
    let store = Queue::<String>::bounded(1000).unwrap();
    let mut stored = 0;
    let refused = loop {
        match store.put("x".repeat(1_000_000)) {
            Ok(()) => stored += 1,
            Err(e) => break e,
        }
    };
    say(format!("out of memory: {}, stored: {}", refused.is_out_of_memory(), stored > 5));
    (0..stored).for_each(|_| drop(store.get().unwrap()));
    there.put(5).unwrap();
    say(back.get().unwrap());
    there.close().unwrap();
    echo.join().unwrap();
}

/// A worker with a large arena aborts while it holds a lock that another waits for.
pub fn abort_with_a_lock() {
    let store = Queue::<String>::bounded(8).unwrap();
    for _ in 0..8 {
        store.put("x".repeat(12 << 20)).unwrap();
    }
    assert!(multiproc::memory_usage().unwrap().used > 96 << 20);
    let (lock, ready) = (Lock::new().unwrap(), Queue::<String>::bounded(1).unwrap());
    let aborted = Atomic::new(0u64).unwrap();
    let abort = |lock: Lock, ready: Queue<String>, aborted: Atomic<u64>, store: Queue<String>| -> () {
        let _held = lock.lock().unwrap();
        // In this process's own tables, too.
        store.put(store.get().unwrap()).unwrap();
        ready.put(arena_flags()).unwrap();
        eventually(|| aborted.get() != 0);
        aborted.set(now());
        // SAFETY: ends the process.
        unsafe { libc::abort() }
    };
    let worker = Process::spawn((lock.clone(), ready.clone(), aborted.clone(), store.clone()), abort).unwrap();
    say(format!("{} {}", ready.get().unwrap(), arena_flags()));
    aborted.set(1);
    assert!(matches!(lock.lock(), Err(LockError::OwnerDied(_))));
    let took = now().saturating_sub(aborted.get());
    say(took);
    match worker.join() {
        Err(ProcessError::Signaled { signal, core_dumped, .. }) => say(format!("{signal} {core_dumped}")),
        other => say(format!("{other:?}")),
    }
}

/// Nanoseconds, the same for all processes.
fn now() -> u64 {
    let mut time = std::mem::MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the place is valid for writing.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr()) };
    // SAFETY: filled in above, and zeros are a value of it.
    let time = unsafe { time.assume_init() };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Whether all mappings of the arena are left out of core dumps: `dd` in their flags.
fn arena_flags() -> String {
    let text = fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut in_arena, mut all) = (false, Vec::new());
    for line in text.lines() {
        match line.strip_prefix("VmFlags:") {
            Some(flags) if in_arena => all.push(flags.split_whitespace().any(|flag| flag == "dd")),
            Some(_) => {}
            None if line.contains("memfd:multiproc") => in_arena = true,
            None if line.split(' ').next().is_some_and(|range| range.contains('-')) => in_arena = false,
            None => {}
        }
    }
    format!("{}", !all.is_empty() && all.iter().all(|&dd| dd))
}
