//! [`SharedMemory`] and [`ShareableList`]: by name, in several processes, killed at any moment, and with a real Python.

#[cfg(feature = "crash-points")]
use multiproc::testing;
use multiproc::{Atomic, Item, Process, ShareableList, SharedMemory};
use std::fs;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Segments that nobody uses are looked for in all of `/dev/shm`.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name that no other test has.
fn name(what: &str) -> String {
    format!("multiproc-test-{what}-{}", std::process::id())
}

fn path(name: &str) -> String {
    format!("/dev/shm/{name}")
}

/// What is in `/dev/shm` that has to do with `name`, and what nobody has named yet.
fn left(name: &str) -> Vec<String> {
    let files = fs::read_dir("/dev/shm").unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    files.filter(|file| file.contains(name) || file.starts_with(".multiproc.new.")).collect()
}

/// Nothing is, after the next use of anything.
fn leaves_nothing(name: &str) {
    multiproc_tests::eventually(|| {
        SharedMemory::reap().unwrap();
        left(name).is_empty()
    });
}

fn park() -> ! {
    loop {
        std::thread::park();
    }
}

/// What a script prints; `None`, with a message, where there is no Python, or it has not what it needs.
fn python(needs: &str, script: &str, args: &[&str]) -> Option<String> {
    let run = |script: &str| Command::new("python3").arg("-c").arg(script).args(args).stderr(Stdio::piped()).output();
    match run(&format!("import {needs}")) {
        Ok(output) if output.status.success() => {}
        other => {
            println!("skipped: no python3 with {needs} here: {:?}", other.map(|o| o.status));
            return None;
        }
    }
    // A process that has only opened a segment shall not unlink it at its end.
    let head = "
import sys
from multiprocessing import resource_tracker, shared_memory
from multiprocessing.shared_memory import SharedMemory, ShareableList
def untrack(shm):
    resource_tracker.unregister(shm._name, 'shared_memory')
    return shm
";
    let output = run(&format!("{head}{script}")).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
}

#[test]
fn made_opened_and_removed() {
    let _one = alone();
    let name = name("basics");
    assert!(SharedMemory::open(&name).unwrap_err().is_not_found());
    let a = SharedMemory::create(Some(&name), 5000).unwrap();
    assert_eq!((a.name(), a.size(), a.persists().unwrap()), (name.as_str(), 5000, false));
    assert!(a.read_to_vec().unwrap() == vec![0; 5000]);
    let clash = SharedMemory::create(Some(&name), 1).unwrap_err();
    assert!(clash.is_already_exists() && clash.name() == name, "{clash}");
    let b = SharedMemory::open(&name).unwrap();
    a.write_at(4995, b"hello").unwrap();
    let mut word = [0; 5];
    b.read_at(4995, &mut word).unwrap();
    assert_eq!(word, *b"hello");
    for (at, len) in [(4996, 5), (5000, 1), (u64::MAX, 1), (0, 5001)] {
        let e = b.read_at(at, &mut vec![0; len]).unwrap_err();
        assert!(e.is_invalid() && b.write_at(at, &vec![0; len]).unwrap_err().is_invalid(), "{e}");
    }
    // In place, for who vouches that nobody else is at it.
    // SAFETY: nobody else uses the segment.
    assert_eq!(unsafe { b.as_slice() }.unwrap()[4995..], *b"hello");
    let mut b = b;
    // SAFETY: as above.
    unsafe { b.as_mut_slice() }.unwrap()[0] = b'J';
    a.read_at(0, &mut word).unwrap();
    assert_eq!(word, *b"J\0\0\0\0");
    // The first one to be dropped takes nothing along, whoever made it.
    drop(a);
    assert_eq!(SharedMemory::open(&name).unwrap().size(), 5000);
    b.unlink().unwrap();
    let again = b.unlink().unwrap_err();
    assert!(again.is_not_found(), "{again}");
    assert_eq!(again.to_string(), format!("shared memory {name:?}: there is none of that name"));
    assert!(b.persist().unwrap_err().is_not_found() && SharedMemory::open(&name).unwrap_err().is_not_found());
    // Who has it goes on, beside a new one of the same name.
    let c = SharedMemory::create(Some(&name), 10).unwrap();
    assert!(b.unlink().unwrap_err().is_not_found());
    b.write_at(0, b"x").unwrap();
    drop(b);
    assert_eq!(SharedMemory::open(&name).unwrap().read_to_vec().unwrap(), [0; 10]);
    drop(c);
    assert_eq!(left(&name), [""; 0]);
    let unnamed = [(); 3].map(|()| SharedMemory::create(None, 1).unwrap());
    assert!(unnamed.iter().all(|s| s.name().len() <= 14 && SharedMemory::open(s.name()).is_ok()), "{unnamed:?}");
}

#[test]
fn impossible_names_and_sizes() {
    let _one = alone();
    let long = "x".repeat(228);
    for (name, why) in [
        ("", "must not be empty"),
        ("a/b", "no slash"),
        ("/a", "no slash"),
        ("a\0b", "no NUL"),
        (".", "kept for other things"),
        ("..", "kept for other things"),
        (".multiproc.1.a", "kept for other things"),
    ] {
        for e in [SharedMemory::create(Some(name), 1).unwrap_err(), SharedMemory::open(name).unwrap_err()] {
            assert!(e.is_invalid() && e.to_string().contains(why), "{e}");
        }
    }
    let e = SharedMemory::create(Some(&long), 1).unwrap_err();
    assert!(e.is_invalid() && e.to_string().contains("at most 227 bytes"), "{e}");
    assert!(SharedMemory::create(Some(&long[1..]), 1).is_ok());
    // Other programs make longer ones.
    let longest = "x".repeat(255);
    std::fs::write(path(&longest), b"theirs").unwrap();
    let theirs = SharedMemory::open(&longest).unwrap();
    assert_eq!(theirs.read_to_vec().unwrap(), b"theirs");
    assert!(theirs.persists().unwrap());
    theirs.persist().unwrap();
    theirs.unlink().unwrap();
    assert!(theirs.unlink().unwrap_err().is_not_found());
    let e = SharedMemory::open(&"x".repeat(256)).unwrap_err();
    assert!(e.is_invalid() && e.to_string().contains("at most 255 bytes"), "{e}");
    assert!(SharedMemory::create(None, 0).unwrap_err().is_invalid());
    for size in [u64::MAX, 1 << 60] {
        assert!(SharedMemory::create(Some(&name("sizes")), size).is_err());
    }
    assert_eq!(left(&name("sizes")), [""; 0]);
}

#[test]
fn what_persists_stays_until_it_is_unlinked() {
    let _one = alone();
    let name = name("persists");
    let a = SharedMemory::create(Some(&name), 1).unwrap();
    a.write_at(0, b"x").unwrap();
    a.persist().unwrap();
    a.persist().unwrap();
    assert!(a.persists().unwrap());
    drop(a);
    SharedMemory::reap().unwrap();
    let b = SharedMemory::open(&name).unwrap();
    assert_eq!(b.read_to_vec().unwrap(), b"x");
    b.unlink().unwrap();
    assert_eq!(left(&name), [""; 0]);
}

#[test]
fn a_segment_lives_as_long_as_one_of_its_users() {
    let _one = alone();
    let _watched = multiproc_tests::watch(60);
    let name = name("users");
    let turn = Atomic::new(0u32).unwrap();
    let user = |make: bool| {
        let p = Process::spawn((name.clone(), make, turn.clone()), |name: String, make, turn| -> () {
            let _used = if make { SharedMemory::create(Some(&name), 3).unwrap() } else { SharedMemory::open(&name).unwrap() };
            turn.add(1);
            park();
        })
        .unwrap();
        let before = if make { 0 } else { 1 };
        multiproc_tests::eventually(|| turn.get() > before);
        p
    };
    let kill = |p: Process<()>| {
        p.kill().unwrap();
        assert!(p.join().is_err());
    };
    let maker = user(true);
    let other = user(false);
    kill(maker);
    SharedMemory::reap().unwrap();
    // It was its maker's, and is now that of who opened it.
    assert!(SharedMemory::open(&name).is_ok());
    assert_eq!(left(&name).len(), 2);
    kill(other);
    // The name stays until somebody looks; whatever they look for.
    assert_eq!(left(&name).len(), 2);
    assert!(SharedMemory::open("multiproc-test-none").unwrap_err().is_not_found());
    assert_eq!(left(&name), [""; 0]);
    // The name can be had at once after a death.
    kill({
        turn.set(0);
        user(true)
    });
    drop(SharedMemory::create(Some(&name), 10).unwrap());
    assert_eq!(left(&name), [""; 0]);
}

#[test]
fn it_travels_as_its_name() {
    let _one = alone();
    let _watched = multiproc_tests::watch(60);
    let (a, list) = (SharedMemory::create(None, 10).unwrap(), ShareableList::new(None, ["a", "b"]).unwrap());
    let again = (SharedMemory::open(a.name()).unwrap(), ShareableList::open(list.name()).unwrap());
    let p = Process::spawn(again, |a: SharedMemory, list: ShareableList| {
        a.write_at(0, b"child").unwrap();
        list.set(1, "c").unwrap();
    });
    p.unwrap().join().unwrap();
    assert_eq!((&a.read_to_vec().unwrap()[..5], list.get(1).unwrap()), (&b"child"[..], "c".into()));
    let text = serde_json::to_string(&a).unwrap();
    drop(a);
    assert!(serde_json::from_str::<SharedMemory>(&text).unwrap_err().to_string().contains("there is none of that name"));
}

#[test]
fn a_segment_that_others_cut_is_an_error_and_no_signal() {
    let _one = alone();
    let name = name("cut");
    let a = SharedMemory::create(Some(&name), 10_000).unwrap();
    let cut = |to| fs::File::options().write(true).open(path(&name)).unwrap().set_len(to).unwrap();
    cut(5000);
    a.read_at(0, &mut [0; 5000]).unwrap();
    let e = a.read_at(4999, &mut [0; 2]).unwrap_err();
    assert!(e.is_truncated(), "{e}");
    assert_eq!(e.to_string(), format!("shared memory {name:?}: another program has cut it from 10000 to 5000 bytes"));
    assert!(a.write_at(9000, b"x").unwrap_err().is_truncated() && a.read_to_vec().unwrap_err().is_truncated());
    assert!(a.as_ptr().unwrap_err().is_truncated());
    assert_eq!(fs::metadata(path(&name)).unwrap().len(), 5000);
    assert_eq!(SharedMemory::open(&name).unwrap().size(), 5000);
    cut(0);
    let e = SharedMemory::open(&name).unwrap_err();
    assert!(e.is_corrupted() && e.to_string().contains("it is empty"), "{e}");
    // A list says so as well.
    let list = ShareableList::new(None, [1, 2, 3]).unwrap();
    fs::File::options().write(true).open(path(list.name())).unwrap().set_len(20).unwrap();
    assert!(list.get(0).unwrap_err().is_truncated() && list.set(0, 1).unwrap_err().is_truncated());
    assert!(ShareableList::open(list.name()).unwrap_err().is_corrupted());
    drop(a);
    assert_eq!(left(&name), [""; 0]);
    // Other things in that place.
    fs::create_dir(path(&name)).unwrap();
    assert!(SharedMemory::open(&name).is_err() && SharedMemory::create(Some(&name), 1).unwrap_err().is_already_exists());
    fs::remove_dir(path(&name)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", path(&name)).unwrap();
    assert!(SharedMemory::open(&name).is_err());
    fs::remove_file(path(&name)).unwrap();
}

#[test]
fn a_segment_of_another_user_is_an_error_that_says_so() {
    let _one = alone();
    let _watched = multiproc_tests::watch(60);
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: only root can become another user");
        return;
    }
    let name = name("foreign");
    let ours = SharedMemory::create(Some(&name), 3).unwrap();
    let unused = SharedMemory::create(None, 3).unwrap();
    fs::hard_link(path(unused.name()), path(".multiproc.0.forged")).unwrap();
    let p = Process::spawn((name.clone(),), |name: String| {
        // SAFETY: touches no memory.
        assert_eq!(unsafe { libc::setresuid(65534, 65534, 65534) }, 0);
        let e = SharedMemory::open(&name).unwrap_err();
        assert!(e.is_permission_denied(), "{e}");
        assert!(SharedMemory::create(Some(&name), 3).unwrap_err().is_already_exists());
        // What is another user's does not keep this one from anything.
        let own = SharedMemory::create(None, 3).unwrap();
        assert!(SharedMemory::open(own.name()).is_ok());
        e.to_string()
    });
    assert_eq!(p.unwrap().join().unwrap(), format!("shared memory {name:?}: it belongs to another user"));
    fs::remove_file(path(".multiproc.0.forged")).unwrap();
    drop(ours);
    assert_eq!(left(&name), [""; 0]);
}

#[test]
fn a_forked_child_takes_nothing_along() {
    let _one = alone();
    let _watched = multiproc_tests::watch(60);
    let name = name("fork");
    let p = Process::spawn((name.clone(),), |name: String| {
        let a = SharedMemory::create(Some(&name), 3).unwrap();
        // SAFETY: the other thread of this process sleeps in the kernel.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let refused = a.unlink().is_err_and(|e| e.is_invalid()) && a.persist().is_err_and(|e| e.is_invalid());
            a.write_at(0, b"abc").unwrap();
            drop(a);
            // SAFETY: ends this process.
            unsafe { libc::_exit(i32::from(!refused)) };
        }
        let mut status = -1;
        // SAFETY: the place is valid for writing.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!((status, a.read_to_vec().unwrap().as_slice()), (0, &b"abc"[..]));
        // Nor has it given up the parent's use.
        assert!(SharedMemory::reap().is_ok() && SharedMemory::open(&name).is_ok());
        drop(a);
        SharedMemory::open(&name).unwrap_err().is_not_found()
    });
    assert!(p.unwrap().join().unwrap());
    assert_eq!(left(&name), [""; 0]);
}

/// A program may close what it does not know, and open files that get the numbers.
#[test]
fn a_closed_descriptor_is_not_used_under_its_number() {
    let _one = alone();
    let _watched = multiproc_tests::watch(60);
    let name = name("closed");
    let fine = Atomic::new(0u32).unwrap();
    let p = Process::spawn((name.clone(), fine.clone()), |name: String, fine| {
        let a = SharedMemory::create(Some(&name), 3).unwrap();
        // SAFETY: touches no memory.
        unsafe { libc::close_range(3, u32::MAX, 0) };
        let files: Vec<_> = (0..64).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(a.read_at(0, &mut [0]).is_err() && a.write_at(0, b"x").is_err() && a.unlink().is_err());
        drop(a);
        // SAFETY: touches no memory.
        let open = files.iter().all(|f| unsafe { libc::fcntl(f.as_raw_fd(), libc::F_GETFD) } >= 0);
        fine.set(u32::from(open));
    });
    // Its result, for which there may be no memory any more, is of no interest.
    let _ = p.unwrap().join();
    assert_eq!(fine.get(), 1);
    leaves_nothing(&name);
}

/// The crate `shared_memory` leaves names behind, opens what has been made here, and the other way round.
#[test]
fn segments_of_the_crate_shared_memory() {
    let _one = alone();
    let _watched = multiproc_tests::watch(60);
    let name = name("crate");
    let theirs = shared_memory::ShmemConf::new().os_id(format!("/{name}")).size(100).create().unwrap();
    let ours = SharedMemory::open(&name).unwrap();
    ours.write_at(99, b"x").unwrap();
    // SAFETY: nobody else uses the segment at this moment.
    assert_eq!(unsafe { theirs.as_slice() }[99], b'x');
    assert!(ours.persists().unwrap());
    drop(ours);
    assert!(left(&name).len() == 1, "what others have made is not removed");
    drop(theirs);
    let ours = SharedMemory::create(Some(&name), 100).unwrap();
    let theirs = shared_memory::ShmemConf::new().os_id(format!("/{name}")).open().unwrap();
    ours.write_at(0, b"y").unwrap();
    // SAFETY: as above.
    assert_eq!((theirs.len(), unsafe { theirs.as_slice() }[0]), (100, b'y'));
    drop((theirs, ours));
    assert_eq!(left(&name), [""; 0]);
}

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
