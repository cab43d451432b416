//! What a process has found out of a death and is about to tell when it forks, its child does not tell as well.
#![allow(unsafe_code)]

use multiproc::{Queue, after_fork_child};
use multiproc_shm::Arena;
use multiproc_shm::pace::Notice;
use std::sync::atomic::{AtomicI32, Ordering};

static TOLD: AtomicI32 = AtomicI32::new(0);

fn tell(_: &Notice) {
    TOLD.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn a_notice_is_told_by_the_process_that_found_it_and_not_by_its_fork() {
    let _q = Queue::<u8>::bounded(1).unwrap();
    let arena = Arena::of_the_tree().unwrap();
    arena.tell_later(Notice { tell, object: 0, seq: 0, count: 1, pid: 0 });
    // SAFETY: the child calls nothing before `after_fork_child`, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: made by fork() right above.
        let joined = unsafe { after_fork_child() };
        arena.tell();
        let code = if joined.is_ok() { TOLD.load(Ordering::Relaxed) } else { 100 };
        // SAFETY: ends the process.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the pointer is valid for the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "the child told {status:#x}");
    arena.tell();
    assert_eq!(TOLD.load(Ordering::Relaxed), 1);
}
