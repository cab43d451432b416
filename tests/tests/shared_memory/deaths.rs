//! Several processes at one segment, killed at any moment.

use crate::helpers::*;
use multiproc::{Atomic, Process, SharedMemory};
#[cfg(feature = "crash-points")]
use multiproc::{Item, ShareableList, testing};
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

/// Dies at each step of making, opening, unlinking, persisting, dropping and removing what others have left. The next use removes what was left, the name can be
/// had again, and what persists does.
#[cfg(feature = "crash-points")]
#[test]
fn one_dies_at_each_step() {
    let _one = alone();
    let _watched = multiproc_tests::watch(300);
    fn victim(name: String, what: u32, k: u64) {
        testing::arm_step(k);
        let memory = match what {
            // Another one uses it.
            0 | 1 => SharedMemory::open(&name).unwrap(),
            _ => SharedMemory::create(Some(&name), 100).unwrap(),
        };
        match what {
            0 | 2 => memory.unlink().unwrap(),
            1 | 3 => memory.persist().unwrap(),
            _ => {}
        }
        drop(memory);
        // What somebody else has died over.
        SharedMemory::reap().unwrap();
        testing::disarm();
    }
    let name = name("steps");
    for what in 0..5 {
        let mut deaths = 0;
        for k in 1.. {
            assert!(k < 100, "an operation that passes more steps has a loop");
            let user = (what < 2).then(|| SharedMemory::create(Some(&name), 100).unwrap());
            let other = format!("{name}-other");
            let dead = Process::spawn((other.clone(),), |other: String| -> () {
                std::mem::forget(SharedMemory::create(Some(&other), 1).unwrap());
                std::process::abort();
            });
            assert!(dead.unwrap().join().is_err());
            let survived = Process::spawn((name.clone(), what, k), victim).unwrap().join().is_ok();
            if let Some(user) = user {
                // It is as it was for who has it, and there under its name or not.
                assert_eq!(user.read_to_vec().unwrap().len(), 100);
                match SharedMemory::open(&name) {
                    Ok(again) => assert_eq!(again.size(), 100),
                    Err(e) => assert!(what == 0 && e.is_not_found(), "{what}, step {k}: {e}"),
                }
            }
            SharedMemory::reap().unwrap();
            let persists = SharedMemory::open(&name).ok();
            assert!(persists.is_none() || matches!(what, 1 | 3), "{what}, step {k}");
            if survived {
                assert_eq!(persists.is_some(), matches!(what, 1 | 3), "{what}");
            }
            if let Some(persists) = persists {
                persists.unlink().unwrap();
            }
            assert_eq!(left(&name), [""; 0], "{what}, step {k}");
            drop(SharedMemory::create(Some(&name), 1).unwrap());
            if survived {
                break;
            }
            deaths += 1;
        }
        println!("operation {what}: {deaths} deaths");
        assert!(deaths > 2);
    }
}

/// A process dies at each step of making a list and of replacing a value: the value is the old one, the new one, or an error until it is set.
#[cfg(feature = "crash-points")]
#[test]
fn one_dies_at_each_step_of_a_list() {
    let _one = alone();
    let _watched = multiproc_tests::watch(300);
    fn victim(name: String, value: u32, k: u64) {
        let list = ShareableList::open(&name).unwrap();
        testing::arm_step(k);
        let values: [Item; 3] = ["new".into(), 7.into(), 9.into()];
        list.set(1, values[value as usize].clone()).unwrap();
        testing::disarm();
        std::mem::forget(list);
    }
    let name = name("liststeps");
    for (value, new) in [(0, Item::from("new")), (1, 7.into()), (2, 9.into())] {
        let (mut deaths, mut unready) = (0, 0);
        for k in 1.. {
            let old: Item = if value == 2 { 8.into() } else { "old".into() };
            let list = ShareableList::new(Some(&name), [1.into(), old.clone(), "end".into()]).unwrap();
            let survived = Process::spawn((name.clone(), value, k), victim).unwrap().join().is_ok();
            match list.get(1) {
                Ok(seen) => assert!(seen == new || !survived && seen == old, "{seen:?}"),
                Err(e) => {
                    assert!(!survived && e.is_corrupted() && e.to_string().contains("set it again"), "{e}");
                    unready += 1;
                }
            }
            assert_eq!((list.get(0).unwrap(), list.get(2).unwrap()), (1.into(), "end".into()));
            list.set(1, new.clone()).unwrap();
            assert_eq!(list.get(1).unwrap(), new);
            if survived {
                break;
            }
            deaths += 1;
        }
        println!("value {value}: {deaths} deaths, {unready} times it was being written");
        assert_eq!(unready > 0, value != 2);
    }
    assert_eq!(left(&name), [""; 0]);
}
