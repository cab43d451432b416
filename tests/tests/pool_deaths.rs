//! Workers that die in all the ways there are: the task that each ran has its outcome, the others theirs, and the pool heals.

use multiproc::{Atomic, Event, Pool, Process, Signal, Task, TaskError};
use multiproc_tests::{Scene, eventually, is_gone, no_core_dumps, watch};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn send(pid: u32, signal: i32) {
    // SAFETY: touches no memory; the pid is that of a worker of this test's pool.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}

fn died(outcome: Result<u32, TaskError>) -> TaskError {
    let e = outcome.unwrap_err();
    assert!(matches!(e, TaskError::WorkerDied { started: true, attempts: 1, out_of_memory: false, .. }), "{e:?}");
    e
}

/// A task in progress on a worker, and that worker's pid.
fn stuck(pool: &Pool) -> (Task<u32>, u32) {
    let pid = Atomic::new(0u32).unwrap();
    let task = pool.submit((pid.clone(),), |pid: Atomic<u32>| {
        pid.set(std::process::id());
        loop {
            thread::park();
        }
    });
    eventually(|| pid.get() != 0);
    (task.unwrap(), pid.get())
}

#[test]
fn a_killed_worker_costs_its_task_alone() {
    let _watched = watch(60);
    let pool = Pool::new(2).unwrap();
    assert!(pool.ready(LONG));
    let (task, pid) = stuck(&pool);
    let (bystander, other) = stuck(&pool);
    let waiting: Vec<_> = (0..50u32).map(|n| pool.submit((n,), |n: u32| n).unwrap()).collect();
    send(pid, libc::SIGKILL);
    let e = died(task.join());
    assert_eq!((e.signal(), e.exit_code()), (Some(Signal::KILL), None));
    assert!(matches!(&e, TaskError::WorkerDied { pid: told, .. } if *told == pid));
    assert!(e.to_string().contains(&pid.to_string()), "{e}");
    assert!(std::error::Error::source(&e).is_some());
    // What waited is run by the worker that takes its place.
    assert!(waiting.into_iter().enumerate().all(|(n, task)| task.join().unwrap() == n as u32));
    assert!(bystander.is_running() && pool.pids().contains(&other) && !pool.pids().contains(&pid));
    assert!(pool.ready(LONG));
    assert_eq!(pool.pids().len(), 2);
    pool.terminate();
    assert!(bystander.join().unwrap_err().is_cancelled());
}

/// Who joins is told though no new worker is started.
#[test]
fn a_death_is_told_without_a_successor() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(1).idle_timeout(Duration::from_secs(3600)).build().unwrap();
    died(pool.apply((), || -> u32 { std::process::abort() }));
    let (task, pid) = stuck(&pool);
    pool.close();
    thread::scope(|s| {
        let joins = s.spawn(|| task.wait_timeout(Duration::from_secs(3600)));
        send(pid, libc::SIGKILL);
        assert!(joins.join().unwrap());
    });
    died(task.join());
    pool.join().unwrap();
}

fn deeper(n: u64) -> u64 {
    let block = std::hint::black_box([n; 64]);
    if n == 0 { 0 } else { deeper(n + 1) + block[3] }
}

#[test]
fn ends_of_its_own_making() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(1).initializer((), no_core_dumps).build().unwrap();
    assert_eq!(died(pool.apply((), || -> u32 { std::process::exit(0) })).exit_code(), Some(0));
    assert_eq!(died(pool.apply((), || -> u32 { std::process::exit(3) })).exit_code(), Some(3));
    assert_eq!(died(pool.apply((), || -> u32 { std::process::abort() })).signal(), Some(Signal::ABRT));
    let e = died(pool.apply((1,), |n: u64| deeper(n) as u32));
    assert!(e.to_string().contains("stack"), "{e}");
    // SAFETY: this is what is to go wrong.
    let e = died(pool.apply((8,), |at: usize| unsafe { std::ptr::with_exposed_provenance::<u32>(at).read_volatile() }));
    assert!(matches!(e.signal(), Some(Signal::SEGV)) || e.to_string().contains("stack"), "{e}");
    // Another program takes its place.
    let e = died(pool.apply((), || -> u32 { panic!("{}", Command::new("sh").args(["-c", "exit 7"]).exec()) }));
    assert_eq!(e.exit_code(), Some(7));
    let e = died(pool.apply((), || -> u32 {
        // SAFETY: ends this thread, with which the process goes on.
        unsafe { libc::_exit(9) }
    }));
    assert_eq!(e.exit_code(), Some(9));
    assert_eq!(pool.apply((), || 4).unwrap(), 4);
}

#[test]
fn every_descriptor_closed() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    for _ in 0..3 {
        let outcome = pool.apply((), || {
            for fd in 0..256 {
                // SAFETY: this is what is to go wrong.
                unsafe { libc::close(fd) };
            }
            6u32
        });
        // It may have been noticed before the value was told.
        assert!(matches!(&outcome, Ok(6) | Err(TaskError::WorkerDied { started: true, .. })), "{outcome:?}");
        // However it goes on: every task has an outcome, and the pool comes to itself.
        eventually(|| pool.apply((), || 1).is_ok());
    }
}

#[test]
fn children_of_a_dead_worker_go_with_it() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    let pids = Atomic::new(0u64).unwrap();
    died(pool.apply((pids.clone(),), |pids: Atomic<u64>| -> u32 {
        let children = [(); 2].map(|()| {
            Process::spawn((), || {
                loop {
                    thread::park()
                }
            })
            .map(|p: Process<()>| p)
            .unwrap()
        });
        pids.set(u64::from(children[0].pid()) << 32 | u64::from(children[1].pid()));
        std::process::abort()
    }));
    let pids = pids.get();
    eventually(|| is_gone((pids >> 32) as u32) && is_gone(pids as u32));
    assert_eq!(pool.apply((), || 4).unwrap(), 4);
    // One that returns leaves none either.
    let own = pool.apply((), || Process::spawn((), || 8u32).unwrap().join().unwrap());
    assert_eq!(own.unwrap(), 8);
}

#[test]
fn half_of_the_workers_at_once() {
    let _watched = watch(60);
    let pool = Pool::new(4).unwrap();
    assert!(pool.ready(LONG));
    let stuck: Vec<_> = (0..4).map(|_| stuck(&pool)).collect();
    let waiting: Vec<_> = (0..100u32).map(|n| pool.submit((n,), |n: u32| n).unwrap()).collect();
    stuck.iter().take(2).for_each(|(_, pid)| send(*pid, libc::SIGKILL));
    assert!(waiting.into_iter().all(|task| task.join().is_ok()));
    let mut stuck = stuck.into_iter();
    for (task, _) in stuck.by_ref().take(2) {
        assert_eq!(died(task.join()).signal(), Some(Signal::KILL));
    }
    assert!(stuck.all(|(task, _)| task.is_running()));
    assert!(pool.ready(LONG));
    assert_eq!(pool.pids().len(), 4);
    pool.terminate();
}

#[test]
fn stopped_then_killed() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    let (task, pid) = stuck(&pool);
    send(pid, libc::SIGSTOP);
    eventually(|| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T")));
    let waits = pool.submit((), || 2).unwrap();
    assert!(!waits.is_done());
    send(pid, libc::SIGKILL);
    assert_eq!(died(task.join()).signal(), Some(Signal::KILL));
    assert_eq!(waits.join().unwrap(), 2);
    // One that has no task, too.
    assert!(pool.ready(LONG));
    let idle = pool.pids()[0];
    send(idle, libc::SIGSTOP);
    send(idle, libc::SIGKILL);
    assert_eq!(pool.apply((), || 3).unwrap(), 3);
}

/// Random deaths under load: each task ends once, none runs twice, and the sums agree.
#[test]
fn a_storm() {
    const TASKS: usize = 400;
    let _watched = watch(120);
    let pool = Pool::new(3).unwrap();
    let runs: Vec<Atomic<u32>> = (0..TASKS).map(|_| Atomic::new(0).unwrap()).collect();
    let over = AtomicBool::new(false);
    let outcomes = thread::scope(|s| {
        let killer = s.spawn(|| {
            let (mut random, mut kills) = (12_345_678_901u64, 0);
            while !over.load(Ordering::Relaxed) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let pids = pool.pids();
                if !pids.is_empty() {
                    send(pids[random as usize % pids.len()], libc::SIGKILL);
                    kills += 1;
                }
                thread::sleep(Duration::from_micros(random % 8000));
            }
            kills
        });
        let tasks: Vec<_> = runs
            .iter()
            .map(|runs| {
                pool.submit((runs.clone(),), |runs: Atomic<u32>| {
                    runs.add(1);
                    let end = std::time::Instant::now() + Duration::from_micros(500);
                    while std::time::Instant::now() < end {}
                })
            })
            .map(Result::unwrap)
            .collect();
        let outcomes: Vec<_> = tasks.into_iter().map(Task::join).collect();
        over.store(true, Ordering::Relaxed);
        assert!(killer.join().unwrap() > 0);
        outcomes
    });
    let mut died = 0;
    for (outcome, runs) in outcomes.iter().zip(&runs) {
        match outcome {
            Ok(()) => assert_eq!(runs.get(), 1),
            Err(TaskError::WorkerDied { started: true, .. }) => {
                died += 1;
                assert!(runs.get() <= 1, "a task ran twice");
            }
            Err(e) => panic!("{e}"),
        }
    }
    println!("{died} of {TASKS} died");
    assert!(died > 0 && died < TASKS);
    assert!(pool.ready(LONG));
    assert_eq!(pool.apply((), || 3).unwrap(), 3);
}

/// As the storm, with retries: all have their value, though some begin several times.
#[test]
fn a_storm_with_retries() {
    let _watched = watch(120);
    let pool = Pool::builder().workers(2).retries(1000).build().unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|s| {
        s.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                pool.pids().into_iter().take(1).for_each(|pid| send(pid, libc::SIGKILL));
                thread::sleep(Duration::from_millis(7));
            }
        });
        let tasks: Vec<_> = (0..150u32).map(|n| pool.submit((n,), |n: u32| n + 1).unwrap()).collect();
        assert!(tasks.into_iter().enumerate().all(|(n, task)| task.join().unwrap() == n as u32 + 1));
        assert_eq!(pool.map(0..1000, |n: u64| n).unwrap(), (0..1000).collect::<Vec<_>>());
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn out_of_bounds_of_memory() {
    const MIB: u64 = 1 << 20;
    let _watched = watch(60);
    let pool = Pool::builder().workers(1).memory_limit_per_worker(64 * MIB).build().unwrap();
    let e = pool.apply((), || {
        let mut all = Vec::new();
        // Not without end after all, should it not be killed.
        for n in 0..200u8 {
            all.push(vec![n | 1; 4 << 20]);
            thread::sleep(Duration::from_millis(4));
        }
        all.len()
    });
    let e = e.unwrap_err();
    let TaskError::MemoryLimit { used, limit } = e else { panic!("{e}") };
    assert!(limit == 128 * MIB && used > limit, "{used} {limit}");
    // Beyond the soft limit only: the task ends well, and then its worker goes.
    let pid = pool.apply((), std::process::id).unwrap();
    let seen = pool.apply((pid,), |pid: u32| {
        let all = vec![1u8; 90 << 20];
        thread::sleep(Duration::from_millis(300));
        (all.len(), std::process::id() == pid)
    });
    assert_eq!(seen.unwrap(), (90 << 20, true));
    assert_ne!(pool.apply((), std::process::id).unwrap(), pid);
}

#[test]
fn terminate_though_all_block_all_signals() {
    let _watched = watch(60);
    let grace = Duration::from_millis(100);
    let pool = Pool::builder().workers(2).grace(grace).build().unwrap();
    let ready: Vec<_> = (0..2).map(|_| Event::new().unwrap()).collect();
    let tasks: Vec<Task<()>> = ready
        .iter()
        .map(|ready| {
            pool.submit((ready.clone(),), |ready: Event| {
                // SAFETY: all zero is a valid set.
                let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
                // SAFETY: writes the set.
                unsafe { libc::sigfillset(&raw mut all) };
                // SAFETY: reads the set.
                unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut()) };
                ready.set().unwrap();
                loop {
                    thread::park();
                }
            })
        })
        .map(Result::unwrap)
        .collect();
    ready.iter().for_each(|ready| ready.wait().unwrap());
    let pids = pool.pids();
    let start = std::time::Instant::now();
    pool.terminate();
    assert!(start.elapsed() >= grace);
    assert!(pids.into_iter().all(is_gone) && pool.pids().is_empty());
    assert!(tasks.into_iter().all(|task| task.join().unwrap_err().is_cancelled()));
    assert!(pool.submit((), || ()).unwrap_err().is_closed());
}

/// When the coordinator is killed, nothing stays: not its workers, not their children.
#[test]
fn the_coordinator_is_killed() {
    let _watched = watch(60);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "coordinates", "--ignored", "--nocapture", "--test-threads=1"]);
    let mut scene = Scene::start(&mut command);
    let line = loop {
        let line = scene.line();
        if let Some((_, pids)) = line.split_once("pids ") {
            break pids.to_owned();
        }
    };
    scene.kill();
    scene.rest();
    for pid in line.split(' ') {
        eventually(|| is_gone(pid.parse().unwrap()));
    }
}

#[test]
#[ignore = "a program of its own"]
fn coordinates() {
    let pool = Pool::new(3).unwrap();
    let pids: Vec<_> = (0..3).map(|_| stuck(&pool)).map(|(task, pid)| (task, pid.to_string())).collect();
    let text: Vec<&str> = pids.iter().map(|(_, pid)| pid.as_str()).collect();
    println!("pids {}", text.join(" "));
    thread::park();
}
