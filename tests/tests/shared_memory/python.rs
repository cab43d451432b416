//! With a real Python, and lists as it has them.

use crate::helpers::*;
use multiproc::{Item, ShareableList, SharedMemory};
use std::fs;

#[test]
fn python_opens_ours_and_we_open_pythons() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let name = name("python");
    // Made by Python, which is gone.
    let made = python(
        "multiprocessing.shared_memory",
        "
a = untrack(SharedMemory(sys.argv[1], create=True, size=5000))
a.buf[:5] = b'hello'
print(a.size)
a.close()",
        &[&name],
    );
    let Some(size) = made else { return };
    let theirs = SharedMemory::open(&name).unwrap();
    assert_eq!((theirs.size().to_string(), &theirs.read_to_vec().unwrap()[..5]), (size, &b"hello"[..]));
    // It is nothing of ours: neither a drop nor a look for what nobody uses removes it.
    drop(theirs);
    SharedMemory::reap().unwrap();
    let theirs = SharedMemory::open(&name).unwrap();
    assert!(theirs.persists().unwrap());
    theirs.unlink().unwrap();
    assert!(theirs.unlink().unwrap_err().is_not_found());
    assert_eq!(left(&name), [""; 0]);
    // Made here, opened and changed by Python.
    let ours = SharedMemory::create(Some(&name), 5000).unwrap();
    ours.write_at(4998, b"ab").unwrap();
    let open = "
a = untrack(SharedMemory(sys.argv[1]))
print(a.size, bytes(a.buf[4998:]))
a.buf[0] = 7
a.close()";
    assert_eq!(python("sys", open, &[&name]).unwrap(), "5000 b'ab'");
    assert_eq!(ours.read_to_vec().unwrap()[0], 7);
    // Python unlinks what is ours: who has it goes on, and nothing is left.
    let unlink = "
a = SharedMemory(sys.argv[1])
a.close()
a.unlink()";
    python("sys", unlink, &[&name]).unwrap();
    assert!(SharedMemory::open(&name).unwrap_err().is_not_found());
    assert_eq!(ours.read_to_vec().unwrap()[0], 7);
    assert!(ours.unlink().unwrap_err().is_not_found());
    drop(ours);
    assert_eq!(left(&name), [""; 0]);
    // Python's resource tracker unlinks what Python has opened and not been told to leave alone.
    let ours = SharedMemory::create(Some(&name), 1).unwrap();
    python("sys", "a = SharedMemory(sys.argv[1])", &[&name]).unwrap();
    multiproc_tests::eventually(|| SharedMemory::open(&name).is_err_and(|e| e.is_not_found()));
    drop(ours);
    assert_eq!(left(&name), [""; 0]);
}

#[test]
fn numpy_over_ours() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let name = name("numpy");
    let ours = SharedMemory::create(Some(&name), 800).unwrap();
    for n in 0..100u64 {
        ours.write_at(n * 8, &(n as f64).to_ne_bytes()).unwrap();
    }
    let script = "
import numpy
a = untrack(SharedMemory(sys.argv[1]))
x = numpy.ndarray((100,), dtype=numpy.float64, buffer=a.buf)
print(x.sum())
x *= 2
del x
a.close()";
    let Some(sum) = python("numpy", script, &[&name]) else { return };
    let mut word = [0; 8];
    ours.read_at(99 * 8, &mut word).unwrap();
    assert_eq!((sum.as_str(), f64::from_ne_bytes(word)), ("4950.0", 198.0));
}

#[test]
fn lists_hold_what_pythons_lose() {
    let _one = alone();
    let items = || -> Vec<Item> {
        let long = "y".repeat(1000);
        vec![
            ().into(),
            true.into(),
            (-5).into(),
            0.25.into(),
            "a\0\0".into(),
            "häöü€".into(),
            vec![0u8; 3].into(),
            long.as_str().into(),
            "".into(),
        ]
    };
    let list = ShareableList::new(None, items()).unwrap();
    assert_eq!((list.len(), list.is_empty(), list.to_vec().unwrap()), (9, false, items()));
    let same = ShareableList::open(list.name()).unwrap();
    assert_eq!(same.to_vec().unwrap(), items());
    // Any type over any other that fits.
    for value in items().into_iter().filter(|v| !matches!(v, Item::Str(s) if s.len() > 8) && *v != "häöü€".into()) {
        for n in 0..list.len() {
            list.set(n, value.clone()).unwrap();
        }
        assert!(same.iter().all(|seen| seen.unwrap() == value), "{value:?}");
    }
    assert_eq!((same.count("").unwrap(), same.index("").unwrap(), same.index("x").unwrap()), (9, Some(0), None));
    // As long as the first one and its padding, and no longer.
    list.set(5, "x".repeat(16)).unwrap();
    list.set(5, "x".repeat(15)).unwrap();
    let e = list.set(5, "x".repeat(17)).unwrap_err();
    assert!(e.is_invalid() && e.to_string().contains("does not fit"), "{e}");
    assert_eq!(same.get(5).unwrap(), "x".repeat(15).into());
    assert!(list.set(9, 1).unwrap_err().is_invalid() && list.get(9).unwrap_err().is_invalid());
    assert!(ShareableList::new(None, [vec![1u8; 1_000_000]]).unwrap_err().is_invalid());
    let empty = ShareableList::new(None, Vec::<Item>::new()).unwrap();
    assert!(empty.is_empty() && ShareableList::open(empty.name()).unwrap().to_vec().unwrap().is_empty());
    // What is no list.
    for bytes in [&[0u8; 8][..], &[0xff; 100], &[1; 100], &[0x7f; 64]] {
        let no = SharedMemory::create(None, bytes.len() as u64).unwrap();
        no.write_at(0, bytes).unwrap();
        assert!(ShareableList::open(no.name()).unwrap_err().is_corrupted());
    }
    // One that says it has thousands of millions of values, in a segment of that size without memory.
    let huge = SharedMemory::create(None, 16).unwrap();
    huge.write_at(0, &(1i64 << 32).to_ne_bytes()).unwrap();
    fs::File::options().write(true).open(path(huge.name())).unwrap().set_len(1 << 40).unwrap();
    assert!(ShareableList::open(huge.name()).unwrap_err().is_corrupted());
    // A format that Python never wrote.
    let raw = SharedMemory::open(list.name()).unwrap();
    raw.write_at(raw.size() - 9 * 9, b"999999sx").unwrap();
    assert!(list.get(0).unwrap_err().is_corrupted() && list.get(1).is_ok());
}

#[test]
fn lists_are_pythons() {
    let _one = alone();
    let _watched = multiproc_tests::watch(120);
    let name = name("list");
    let ours = ShareableList::new(
        Some(&name),
        [
            ().into(),
            true.into(),
            (-5).into(),
            0.25.into(),
            "a\0\0".into(),
            Item::from("häöü€"),
            vec![1u8, 0, 2].into(),
            "".into(),
        ],
    )
    .unwrap();
    let script = "
a = ShareableList(name=sys.argv[1])
untrack(a.shm)
print(list(a), len(a), a.count(True), a.index(0.25))
a[0] = 'longer'[:6]
a[2] = 1 << 62
a[4] = '12345678'
a[5] = 'ä'
a[6] = None
a[7] = b'b'
a.shm.close()";
    let Some(seen) = python("multiprocessing.shared_memory", script, &[&name]) else { return };
    assert_eq!(seen, "[None, True, -5, 0.25, 'a', 'häöü€', b'\\x01\\x00\\x02', ''] 8 1 3");
    let expected: [Item; 8] = [
        "longer".into(),
        true.into(),
        (1i64 << 62).into(),
        0.25.into(),
        "12345678".into(),
        "ä".into(),
        Item::None,
        b"b".as_slice().into(),
    ];
    assert_eq!(ours.to_vec().unwrap(), expected);
    drop(ours);
    // Made by Python; what it loses of strings is lost.
    let script = "
a = ShareableList([1, 'text', b'by\\0', None, False, 2.5, 'x' * 20], name=sys.argv[1])
untrack(a.shm)
a.shm.close()";
    python("sys", script, &[&name]).unwrap();
    let theirs = ShareableList::open(&name).unwrap();
    let long = "x".repeat(20);
    let expected: [Item; 7] =
        [1.into(), "text".into(), b"by".as_slice().into(), Item::None, false.into(), 2.5.into(), long.as_str().into()];
    assert_eq!(theirs.to_vec().unwrap(), expected);
    theirs.set(1, "seven b").unwrap();
    theirs.set(3, true).unwrap();
    theirs.set(6, "\0\0ü").unwrap();
    let script = "
a = ShareableList(name=sys.argv[1])
untrack(a.shm)
print(list(a))
a.shm.close()";
    assert_eq!(python("sys", script, &[&name]).unwrap(), "[1, 'seven b', b'by', True, False, 2.5, '\\x00\\x00ü']");
    theirs.memory().unlink().unwrap();
    assert_eq!(left(&name), [""; 0]);
}
