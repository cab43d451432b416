//! Plays one scene, named by the first argument, of a program that somebody looks at: for `tests/dump`.

use multiproc::{Event, Lock, Process, ProcessState, Queue, Receiver, Sender, Signal, dump, dump_on};
use multiproc_tests::eventually;
use std::io::Write;

fn main() {
    multiproc_tests::no_core_dumps();
    match std::env::args().nth(1).expect("a scene").as_str() {
        "alone" => alone(),
        "idle" => idle(),
        "traffic" => traffic(),
        "waits for a debugger" => waits_for_a_debugger(),
        "late at exit" => late_at_exit(),
        other => panic!("no scene {other}"),
    }
}

fn say(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

fn for_ever() {
    loop {
        std::thread::park();
    }
}

fn hold(lock: Lock, held: Event) {
    let _guard = lock.lock().unwrap();
    held.set().unwrap();
    for_ever();
}

fn alone() {
    print!("{}", dump());
    // The tree is there from here on.
    let lock = Lock::new().unwrap();
    dump_on(Signal::USR1).unwrap();
    assert_eq!(dump().processes.len(), 1);
    drop(lock);
    // SAFETY: the child only looks, speaks and leaves.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let alone = dump().processes.len() == 1;
        // SAFETY: the signal is handled, and wakes nobody here.
        unsafe { libc::raise(libc::SIGUSR1) };
        say(format!("the child is alone: {alone}, no dumps on signals: {}", dump_on(Signal::USR2).is_err()));
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: a child of ours.
    assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
}

/// Waits for a lock whose owner the test stops; stdout is locked all the while, and so is stderr.
fn idle() {
    dump_on(Signal::QUIT).unwrap();
    dump_on(Signal::QUIT).unwrap();
    for refused in [Signal::KILL, Signal::STOP, Signal::SEGV, Signal::ABRT, Signal(0), Signal(77)] {
        assert!(dump_on(refused).is_err());
    }
    let (lock, held) = (Lock::new().unwrap(), Event::new().unwrap());
    let holder = Process::builder().name("holder").spawn((lock.clone(), held.clone()), hold).unwrap();
    held.wait().unwrap();
    say(holder.pid());
    let _err = std::io::stderr().lock();
    let _guard = lock.lock();
}

fn feed(to: Sender<u64>) {
    while to.put(1).is_ok() {}
}

fn drain(from: Receiver<u64>, lock: Lock) {
    for item in &from {
        let _guard = lock.lock().unwrap();
        item.unwrap();
    }
}

fn traffic() {
    dump_on(Signal::QUIT).unwrap();
    let queue = Queue::bounded(10).unwrap();
    let lock = Lock::new().unwrap();
    let _feeders: Vec<_> = (0..2).map(|_| Process::spawn((queue.sender().unwrap(),), feed).unwrap()).collect();
    let receiver = || queue.receiver().unwrap();
    let _drains: Vec<_> = (0..2).map(|_| Process::spawn((receiver(), lock.clone()), drain).unwrap()).collect();
    let stopped = Process::spawn((), for_ever).unwrap();
    stopped.signal(Signal::STOP).unwrap();
    eventually(|| dump().process(stopped.pid()).is_some_and(|p| p.state == ProcessState::Stopped));
    say("runs");
    // Children are born and die all the while.
    for i in 0u64.. {
        let p = Process::spawn((lock.clone(),), |lock| drop(lock.lock())).unwrap();
        if i.is_multiple_of(3) {
            let _ = p.kill();
        }
        let _ = p.join();
    }
}

/// Its environment says who waits.
fn waits_for_a_debugger() {
    let p = Process::builder().name("one").spawn((), || say("one runs")).unwrap();
    say(p.pid());
    p.join().unwrap();
}

fn late_at_exit() {
    let lock = Lock::new().unwrap();
    let guard = lock.lock().unwrap();
    let p = Process::builder().name("late").spawn((lock.clone(),), |lock| drop(lock.lock())).unwrap();
    std::mem::forget((guard, p));
}
