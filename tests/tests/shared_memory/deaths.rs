//! Several processes at one segment, killed at any moment.

use crate::helpers::*;
use multiproc::{Atomic, Connection, Process, SharedMemory};
use std::sync::Barrier;
use std::thread;

/// Two of those who have it open change its names at the same time, by two handles or by one: each change is made, and each is told so.
#[test]
fn names_that_two_change_at_once() {
    let _one = alone();
    let _watched = multiproc_tests::watch(100);
    for n in 0..400 {
        let a = SharedMemory::create(None, 1).unwrap();
        let b = SharedMemory::open(a.name()).unwrap();
        let b = if n % 2 == 0 { &a } else { &b };
        let together = Barrier::new(2);
        let both = |change: fn(&SharedMemory) -> Result<(), multiproc::SharedMemoryError>| {
            thread::scope(|s| {
                let other = s.spawn(|| {
                    together.wait();
                    change(b)
                });
                together.wait();
                (change(&a), other.join().unwrap())
            })
        };
        let (one, other) = both(SharedMemory::persist);
        one.and(other).unwrap();
        // One of them.
        let (one, other) = both(SharedMemory::unlink);
        assert!(one.is_ok() != other.is_ok());
        assert!(one.and(other).unwrap_err().is_not_found());
        assert_eq!(left(a.name()), [""; 0]);
    }
}

/// Processes make, open, unlink and drop segments of one name and are killed at it; none is left, and nobody is told nonsense.
#[test]
fn a_storm_on_one_name() {
    let _one = alone();
    let _watched = multiproc_tests::watch(240);
    let name = name("storm");
    let rounds = Atomic::new(0u64).unwrap();
    let start = || {
        Process::spawn((name.clone(), rounds.clone()), |name: String, rounds| -> () {
            for n in 0u64.. {
                rounds.add(1);
                let made = SharedMemory::create(Some(&name), 8);
                let opened = SharedMemory::open(&name);
                for e in [&made, &opened].into_iter().filter_map(|r| r.as_ref().err()) {
                    assert!(e.is_already_exists() || e.is_not_found(), "{e}");
                }
                // Whoever has opened it has its 8 bytes, all from one writer.
                if let Ok(made) = &made {
                    made.write_at(0, &[n as u8; 8]).unwrap();
                }
                if let Ok(opened) = &opened {
                    assert_eq!(opened.read_to_vec().unwrap().len(), 8);
                    if n % 3 == 0 {
                        assert!(opened.unlink().map_or_else(|e| e.is_not_found(), |()| true));
                    }
                }
            }
        })
        .unwrap()
    };
    let mut running: Vec<_> = (0..3).map(|_| start()).collect();
    for n in 0..60 {
        let before = rounds.get();
        multiproc_tests::eventually(|| rounds.get() > before + 20);
        let p = std::mem::replace(&mut running[n % 3], start());
        p.kill().unwrap();
        assert!(matches!(p.join(), Err(multiproc::ProcessError::Signaled { .. })), "killed, and not by a failed assertion");
    }
    for p in running {
        p.kill().unwrap();
        assert!(matches!(p.join(), Err(multiproc::ProcessError::Signaled { .. })));
    }
    leaves_nothing(&name);
    println!("{} rounds", rounds.get());
}

/// Who is killed while it starts a process leaves a child that has its descriptors until it calls exec: the name is free for the next one all the same.
#[test]
fn the_dead_have_a_child_that_is_about_to_exec() {
    let _one = alone();
    let _watched = multiproc_tests::watch(60);
    let name = name("child");
    let (ready, theirs) = multiproc::pipe::<(), ()>().unwrap();
    let user = Process::spawn((name.clone(), theirs), |name: String, ready: Connection<(), ()>| -> () {
        let _segment = SharedMemory::create(Some(&name), 8).unwrap();
        let us = std::process::id() as i32;
        // SAFETY: the child calls nothing but what a signal handler may.
        if unsafe { libc::fork() } == 0 {
            // SAFETY: as above.
            while unsafe { libc::getppid() } == us {
                // SAFETY: as above.
                unsafe { libc::usleep(1000) };
            }
            // SAFETY: as above.
            unsafe { libc::usleep(20_000) };
            // SAFETY: as above.
            unsafe { libc::_exit(0) };
        }
        ready.send(()).unwrap();
        park()
    })
    .unwrap();
    ready.recv().unwrap();
    user.kill().unwrap();
    let _ = user.join();
    drop(SharedMemory::create(Some(&name), 16).unwrap());
    leaves_nothing(&name);
}
