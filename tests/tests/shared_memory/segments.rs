//! Names, sizes, ends, and bad luck with other programs.

use crate::helpers::*;
use multiproc::{Atomic, Process, ShareableList, SharedMemory};
use std::fs;
use std::os::fd::AsRawFd;

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
