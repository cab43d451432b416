//! `_TestSharedMemory`: memory under a name, and lists in it.

use crate::stage::{program, watched};
use multiproc::{Event, Item, Process, Queue, ShareableList, SharedMemory};
use std::process::Stdio;

/// A name of its own for each test and run.
fn name(test: &str) -> String {
    format!("ledger_{test}_{}", std::process::id())
}

#[test]
fn impossible_names() {
    let _watched = watched();
    for name in ["embedded\0null", "a/b", "/a", ""] {
        assert!(SharedMemory::create(Some(name), 100).unwrap_err().is_invalid(), "{name:?}");
        assert!(SharedMemory::open(name).unwrap_err().is_invalid(), "{name:?}");
    }
}

#[test]
fn basics() {
    let _watched = watched();
    let name = name("basics");
    assert!(SharedMemory::open(&name).unwrap_err().is_not_found());
    let memory = SharedMemory::create(Some(&name), 512).unwrap();
    assert_eq!((memory.name(), memory.size()), (name.as_str(), 512));
    assert_eq!(memory.read_to_vec().unwrap(), [0; 512]);
    memory.write_at(0, &[42]).unwrap();
    // A second handle sees what the first has written, and the other way round. Its size is that of the segment.
    let same = SharedMemory::open(&name).unwrap();
    assert_eq!(same.size(), 512);
    let mut byte = [0];
    same.read_at(0, &mut byte).unwrap();
    assert_eq!(byte, [42]);
    same.write_at(511, &[7]).unwrap();
    assert_eq!(memory.read_to_vec().unwrap()[511], 7);
    assert!(same.write_at(512, &[7]).is_err() && same.read_at(500, &mut [0; 13]).is_err());
    // The name is taken.
    let e = SharedMemory::create(Some(&name), 512).unwrap_err();
    assert!(e.is_already_exists() && !e.is_not_found() && e.name() == name, "{e}");
    // Names that nobody has chosen are all different.
    let (one, other) = (SharedMemory::create(None, 1).unwrap(), SharedMemory::create(None, 1).unwrap());
    assert_ne!(one.name(), other.name());
    // Unlinked once, the name is gone, and the memory is not. Unlinked twice is an error.
    memory.unlink().unwrap();
    assert!(memory.unlink().unwrap_err().is_not_found());
    assert!(SharedMemory::open(&name).unwrap_err().is_not_found());
    memory.write_at(1, &[8]).unwrap();
    assert_eq!(same.read_to_vec().unwrap()[..2], [42, 8]);
}

#[test]
fn recreate() {
    let _watched = watched();
    let name = name("recreate");
    let first = SharedMemory::create(Some(&name), 10).unwrap();
    first.write_at(0, b"first").unwrap();
    first.unlink().unwrap();
    let second = SharedMemory::create(Some(&name), 20).unwrap();
    assert_eq!((second.size(), second.read_to_vec().unwrap()), (20, vec![0; 20]));
    // With the last handle the name is free again.
    drop(second);
    assert!(SharedMemory::open(&name).unwrap_err().is_not_found());
    drop(SharedMemory::create(Some(&name), 30).unwrap());
    assert_eq!(first.read_to_vec().unwrap()[..5], *b"first");
}

#[test]
fn invalid_creation() {
    let _watched = watched();
    assert!(SharedMemory::create(None, 0).unwrap_err().is_invalid());
    assert!(SharedMemory::create(Some(&name("huge")), 1 << 60).is_err());
    assert!(SharedMemory::open(&name("huge")).unwrap_err().is_not_found());
}

#[test]
fn pickling() {
    let _watched = watched();
    let memory = SharedMemory::create(None, 100).unwrap();
    memory.write_at(10, b"hello").unwrap();
    let carrier = Queue::<SharedMemory>::bounded(1).unwrap();
    carrier.put_ref(&memory).unwrap();
    let same = carrier.get().unwrap();
    assert_eq!((same.name(), same.size()), (memory.name(), 100));
    same.write_at(10, b"H").unwrap();
    assert_eq!(memory.read_to_vec().unwrap()[10..15], *b"Hello");
}

#[test]
fn pickling_what_is_gone() {
    let _watched = watched();
    let carrier = Queue::<SharedMemory>::bounded(1).unwrap();
    let memory = SharedMemory::create(None, 100).unwrap();
    carrier.put_ref(&memory).unwrap();
    drop(memory);
    assert!(matches!(carrier.get(), Err(multiproc::GetError::Decode(_))));
    // The queue goes on.
    let memory = SharedMemory::create(None, 100).unwrap();
    carrier.put_ref(&memory).unwrap();
    assert_eq!(carrier.get().unwrap().size(), 100);
}

#[test]
fn across_processes() {
    let _watched = watched();
    let memory = SharedMemory::create(Some(&name("across")), 10).unwrap();
    // By name, and by handle. Who opens it and ends destroys nothing.
    let p = Process::spawn((memory.name().to_owned(),), |name: String| {
        SharedMemory::open(&name).unwrap().write_at(0, b"by name").unwrap()
    });
    p.unwrap().join().unwrap();
    assert_eq!(memory.read_to_vec().unwrap()[..7], *b"by name");
    let carrier = Queue::<SharedMemory>::bounded(1).unwrap();
    carrier.put_ref(&memory).unwrap();
    let p = Process::spawn((carrier.clone(),), |carrier: Queue<SharedMemory>| carrier.get().unwrap().write_at(7, b"!").unwrap());
    p.unwrap().join().unwrap();
    assert_eq!(memory.read_to_vec().unwrap()[..8], *b"by name!");
}

/// The last user may be killed: the name goes with the next use of any segment.
#[test]
fn nothing_stays_of_who_was_terminated() {
    let _watched = watched();
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let mut child = program("shared_memory::holds_a_segment").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("segment ") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0, "it ended early");
        }
        let name = line["segment ".len()..].trim().to_owned();
        assert!(SharedMemory::open(&name).is_ok());
        // SAFETY: signals our child.
        unsafe { libc::kill(child.id() as i32, signal) };
        child.wait().unwrap();
        assert!(SharedMemory::open(&name).unwrap_err().is_not_found());
        assert!(!std::path::Path::new("/dev/shm").join(&name).exists());
    }
}

#[test]
#[ignore = "a program of its own"]
fn holds_a_segment() {
    let memory = SharedMemory::create(None, 1000).unwrap();
    println!("\nsegment {}", memory.name());
    loop {
        std::thread::park();
    }
}

/// An unrelated program that has only opened a segment, and ends, leaves it to the others.
#[test]
fn a_foreign_user_destroys_nothing() {
    let _watched = watched();
    let memory = SharedMemory::create(None, 10).unwrap();
    let out = program("shared_memory::opens_a_segment").env("LEDGER_SEGMENT", memory.name()).output().unwrap();
    assert!(out.status.success());
    assert_eq!(SharedMemory::open(memory.name()).unwrap().read_to_vec().unwrap()[..5], *b"there");
    // What is to outlive its users says so.
    memory.persist().unwrap();
    let name = memory.name().to_owned();
    drop(memory);
    let memory = SharedMemory::open(&name).unwrap();
    assert!(memory.persists().unwrap());
    memory.unlink().unwrap();
}

#[test]
#[ignore = "a program of its own"]
fn opens_a_segment() {
    if let Ok(name) = std::env::var("LEDGER_SEGMENT") {
        SharedMemory::open(&name).unwrap().write_at(0, b"there").unwrap();
    }
}

/// What the resource tracker refuses to write down, the kernel refuses as a name.
#[test]
fn long_names() {
    let _watched = watched();
    assert!(SharedMemory::create(Some(&"x".repeat(300)), 10).unwrap_err().is_invalid());
    let long = format!("{}{}", name("long"), "x".repeat(150));
    assert_eq!(SharedMemory::create(Some(&long), 10).unwrap().name(), long);
}

fn items() -> [Item; 7] {
    ["howdy".into(), b"HoWdY".as_slice().into(), (-273.154).into(), 100.into(), Item::None, true.into(), 42.into()]
}

#[test]
fn shareable_list() {
    let _watched = watched();
    let list = ShareableList::new(None, items()).unwrap();
    assert_eq!((list.len(), list.is_empty(), list.to_vec().unwrap()), (7, false, items().to_vec()));
    assert_eq!(list.get(2).unwrap(), Item::Float(-273.154));
    assert_eq!(list.iter().map(Result::unwrap).collect::<Vec<_>>(), items());
    // Replaced, also by another type.
    list.set(4, "some").unwrap();
    list.set(3, 8.5).unwrap();
    list.set(0, "shorter".get(..3)).unwrap();
    list.set(5, false).unwrap();
    assert_eq!((list.get(4).unwrap(), list.get(3).unwrap()), ("some".into(), 8.5.into()));
    assert_eq!((list.get(0).unwrap(), list.get(5).unwrap()), ("sho".into(), false.into()));
    // What does not fit changes nothing, and there is no index beyond the end.
    assert!(list.set(0, "far too long for it").unwrap_err().is_invalid());
    assert_eq!(list.get(0).unwrap(), "sho".into());
    assert!(list.get(7).is_err() && list.set(7, 1).is_err());
    list.set(2, 42).unwrap();
    assert_eq!((list.count(42).unwrap(), list.count("none of it").unwrap()), (2, 0));
    assert_eq!((list.index(42).unwrap(), list.index("none of it").unwrap()), (Some(2), None));
    // Trailing NULs and characters of several bytes stay.
    let list = ShareableList::new(None, [Item::from("x\0\0"), "größe".into(), b"\0".as_slice().into()]).unwrap();
    assert_eq!(list.to_vec().unwrap(), [Item::from("x\0\0"), "größe".into(), b"\0".as_slice().into()]);
    assert!(ShareableList::new(None, [0i64; 0]).unwrap().is_empty());
    // By name, from another process.
    let p =
        Process::spawn((list.name().to_owned(),), |name: String| ShareableList::open(&name).unwrap().set(1, "kürze").unwrap());
    p.unwrap().join().unwrap();
    assert_eq!(list.get(1).unwrap(), "kürze".into());
    assert_eq!(list.memory().name(), list.name());
}

#[test]
fn pickling_a_list() {
    let _watched = watched();
    let list = ShareableList::new(None, 0..10i64).unwrap();
    let (carrier, seen) = (Queue::<ShareableList>::bounded(1).unwrap(), Event::new().unwrap());
    carrier.put_ref(&list).unwrap();
    let p = Process::spawn((carrier.clone(), seen.clone()), |carrier: Queue<ShareableList>, seen: Event| {
        let list = carrier.get().unwrap();
        list.set(9, -1).unwrap();
        seen.set().unwrap();
        list.len()
    });
    seen.wait().unwrap();
    assert_eq!(list.get(9).unwrap(), Item::Int(-1));
    assert_eq!(p.unwrap().join().unwrap(), 10);
}

#[test]
fn pickling_a_list_that_is_gone() {
    let _watched = watched();
    let carrier = Queue::<ShareableList>::bounded(1).unwrap();
    let list = ShareableList::new(None, 0..10i64).unwrap();
    carrier.put_ref(&list).unwrap();
    drop(list);
    assert!(matches!(carrier.get(), Err(multiproc::GetError::Decode(_))));
}
