//! A process dies at each step of what it does with memory that others read: arrays, vectors that freeze, segments with a name, lists in them. What others see is
//! whole, or an error that says so, and nothing is left over.
#![cfg(feature = "crash-points")]

#[path = "shared_memory/helpers.rs"]
#[allow(dead_code)]
mod helpers;
mod step_killer;

use helpers::{left, name};
use multiproc::testing;
use multiproc::{Array, Frozen, Item, LockError, Process, Queue, ShareableList, SharedMemory, SharedVec};
use std::time::Duration;
use step_killer::{Rest, Table, alone, doing, each_step};

/// An array, of taking, writing, releasing and recovering.
#[test]
fn of_an_array() {
    let _one = alone();
    fn victim(a: Option<Array<u64>>, k: u64) {
        testing::arm_step(k);
        let a = a.unwrap_or_else(|| Array::zeroed(1000).unwrap());
        match a.lock() {
            Ok(mut all) => all.iter_mut().for_each(|x| *x += 1),
            Err(LockError::OwnerDied(_)) => a.recover().unwrap().make_consistent().fill(0),
            Err(e) => panic!("{e}"),
        }
        drop(a);
        testing::disarm();
    }
    let abort = |a: Array<u64>| -> () {
        let _guard = a.lock().unwrap();
        std::process::abort();
    };
    let rest = Rest::now();
    let mut table = Table(Vec::new());
    for (name, made_here, inconsistent) in
        [("New, lock, write", false, false), ("Lock, write", true, false), ("Recover after a death", true, true)]
    {
        let line = each_step(format!("Array: {name}"), |k| {
            doing(|| format!("Array: {name}, step {k}"));
            let a = made_here.then(|| Array::<u64>::zeroed(1000).unwrap());
            if inconsistent {
                assert!(Process::spawn((a.clone().unwrap(),), abort).unwrap().join().is_err());
            }
            let survived = Process::spawn((a.clone(), k), victim).unwrap().join().is_ok();
            if let Some(a) = a {
                match a.lock_timeout(Duration::from_secs(20)) {
                    Ok(all) => assert!(all.iter().all(|x| *x == all[0])),
                    Err(LockError::OwnerDied(_)) => {
                        assert!(!survived);
                        drop(a.recover().unwrap().make_consistent());
                    }
                    Err(e) => panic!("step {k}: {e}"),
                }
                a.set(999, 5).unwrap();
                assert_eq!(a.get(999), Ok(5));
            }
            rest.leaves_nothing();
            Ok(!survived)
        });
        assert!(line.deaths > 3);
        table.0.push(line);
    }
    table.finish("An array");
    doing(String::new);
}

/// A vector, of making, filling, freezing, sending and dropping; either it has arrived, whole, or nothing is left.
#[test]
fn of_a_shared_vec() {
    let _one = alone();
    fn victim(len: usize, to: Queue<Frozen<u64>>, k: u64) {
        testing::arm_step(k);
        let v = SharedVec::from_fn(len, |n| n as u64).unwrap();
        let other = SharedVec::from_slice(&v[..]).unwrap();
        let frozen = v.freeze();
        to.put_ref(&frozen).unwrap();
        drop((other, frozen));
        testing::disarm();
    }
    let rest = Rest::now();
    let mut table = Table(Vec::new());
    for len in [10, 100_000] {
        let mut arrived = 0;
        let line = each_step(format!("SharedVec of {len}: fill, freeze, send, drop"), |k| {
            doing(|| format!("SharedVec of {len}, step {k}"));
            let queue = Queue::<Frozen<u64>>::bounded(2).unwrap();
            let survived = Process::spawn((len, queue.clone(), k), victim).unwrap().join().is_ok();
            if let Ok(frozen) = queue.try_get() {
                arrived += 1;
                testing::collect().unwrap();
                assert!(frozen.len() == len && frozen.iter().enumerate().all(|(n, x)| *x == n as u64), "step {k}");
            } else {
                assert!(!survived);
            }
            drop(queue);
            rest.leaves_nothing();
            Ok(!survived)
        });
        assert!(line.deaths > 20 && (2..line.deaths).contains(&arrived), "{line:?}, arrived {arrived}");
        table.0.push(line);
    }
    table.finish("A vector that freezes");
    doing(String::new);
}

/// A segment, of making, opening, unlinking, persisting, dropping and removing what others have left. The next use removes what was left, the name can be had
/// again, and what persists does.
#[test]
fn of_a_segment() {
    let _one = alone();
    fn victim(name: String, what: u32, k: u64) {
        testing::arm_step(k);
        if what == 5 {
            SharedMemory::reap().unwrap();
            return testing::disarm();
        }
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
    let mut table = Table(Vec::new());
    let operations = [
        "open, unlink, reap",
        "open, persist, reap",
        "create, unlink, reap",
        "create, persist, reap",
        "create, drop, reap",
        "reap",
    ];
    let unnamed = |name: String| -> () {
        // Before it has a name.
        testing::arm_at("named.allocated", 1);
        drop(SharedMemory::create(Some(&name), 1));
    };
    for (what, operation) in operations.into_iter().enumerate() {
        let line = each_step(format!("SharedMemory: {operation}"), |k| {
            doing(|| format!("SharedMemory: {operation}, step {k}"));
            let user = (what < 2).then(|| SharedMemory::create(Some(&name), 100).unwrap());
            let other = format!("{name}-other");
            let named = |other: String| -> () {
                std::mem::forget(SharedMemory::create(Some(&other), 1).unwrap());
                std::process::abort();
            };
            let dead = if what == 5 { Process::spawn((other,), unnamed) } else { Process::spawn((other,), named) };
            assert!(dead.unwrap().join().is_err());
            let survived = Process::spawn((name.clone(), what as u32, k), victim).unwrap().join().is_ok();
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
            Ok(!survived)
        });
        assert!(line.deaths > if what == 5 { 0 } else { 2 });
        table.0.push(line);
    }
    table.finish("A segment with a name");
    doing(String::new);
}

/// A list, of making it: it is there whole, or empty, or not there.
#[test]
fn of_a_new_list() {
    let _one = alone();
    fn victim(name: String, k: u64) {
        testing::arm_step(k);
        let list = ShareableList::new(Some(&name), [Item::from(1), "text".into()]).unwrap();
        testing::disarm();
        std::mem::forget(list);
    }
    let name = name("newlist");
    let line = each_step("ShareableList: new", |k| {
        doing(|| format!("ShareableList: new, step {k}"));
        let survived = Process::spawn((name.clone(), k), victim).unwrap().join().is_ok();
        SharedMemory::reap().unwrap();
        assert_eq!(left(&name), [""; 0]);
        let list = ShareableList::new(Some(&name), [Item::from(1), "text".into()]).unwrap();
        assert_eq!(list.get(1).unwrap(), "text".into());
        Ok(!survived)
    });
    assert!(line.steps > 3);
    Table(vec![line]).finish("A new list");
    doing(String::new);
}

/// A list, of replacing a value: it is the old one, the new one, or an error until it is set.
#[test]
fn of_a_list() {
    let _one = alone();
    fn victim(name: String, value: u32, k: u64) {
        let list = ShareableList::open(&name).unwrap();
        testing::arm_step(k);
        let values: [Item; 3] = ["new".into(), 7.into(), 9.into()];
        list.set(1, values[value as usize].clone()).unwrap();
        testing::disarm();
        std::mem::forget(list);
    }
    let name = name("liststeps");
    let mut table = Table(Vec::new());
    for (value, new) in [(0, Item::from("new")), (1, 7.into()), (2, 9.into())] {
        let mut unready = 0;
        let line = each_step(format!("ShareableList: set, {new:?}"), |k| {
            doing(|| format!("ShareableList: set, value {value}, step {k}"));
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
            Ok(!survived)
        });
        assert_eq!(unready > 0, value != 2);
        table.0.push(line);
    }
    assert_eq!(left(&name), [""; 0]);
    table.finish("A list");
    doing(String::new);
}
