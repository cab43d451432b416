//! Who is there.

use crate::helpers::*;
use multiproc::{Event, Lock, Process, ProcessState, dump};
use multiproc_tests::{Scene, eventually, watch};

fn grandchild(ready: Event) -> String {
    let text = dump().to_string();
    ready.set().unwrap();
    for_ever();
    text
}

fn child(ready: Event) {
    let p = Process::builder().name("grand\nchild").spawn((ready,), grandchild).unwrap();
    p.wait();
}

#[test]
fn the_tree_is_there_with_names_parents_and_ages() {
    let _watched = watch(60);
    let ready = Event::new().unwrap();
    let p = Process::builder().name("child").spawn((ready.clone(),), child).unwrap();
    ready.wait().unwrap();
    let all = dump();
    let me = all.process(std::process::id()).unwrap();
    assert_eq!((me.name.as_str(), me.depth, me.parent.is_none()), ("MainProcess", 0, true));
    let mine = all.process(p.pid()).unwrap();
    assert_eq!((mine.name.as_str(), mine.depth, mine.state), ("child", 1, ProcessState::Running));
    assert_eq!(mine.parent.as_ref().unwrap().pid, std::process::id());
    let below = all.processes.iter().find(|q| q.parent.as_ref().is_some_and(|parent| parent.pid == p.pid())).unwrap();
    assert_eq!((below.name.as_str(), below.depth), ("grand\u{fffd}child", 2));
    assert!(below.running_for.unwrap() <= mine.running_for.unwrap() && mine.running_for.unwrap() <= me.running_for.unwrap());
    // The grandchild's parent waits for it.
    let wait = wait_of(p.pid(), |w| w.operation == "join");
    assert!(wait.on.contains(&below.pid.to_string()), "{wait:?}");
    end(p);
}

#[test]
fn any_process_of_the_tree_sees_the_others() {
    let _watched = watch(60);
    let lock = Lock::new().unwrap();
    let guard = lock.lock().unwrap();
    let text = Process::spawn((), || dump().to_string()).unwrap().join().unwrap();
    let line = text.lines().find(|l| l.contains(&format!("(pid {}):", std::process::id()))).unwrap();
    assert!(line.starts_with("MainProcess") && text.contains(&format!("holds {}\n", object(&lock))), "{text}");
    drop(guard);
}

#[test]
fn a_program_without_a_tree_is_alone() {
    let _watched = watch(60);
    let (text, status) = Scene::play(DEBUGGED, "alone").end();
    assert!(status.success());
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "multiproc: 1 process, 0 of them waiting");
    assert!(lines[1].starts_with("MainProcess (pid ") && lines[1].ends_with("): running"), "{text}");
    // So is a process that a plain fork made; and it gets no dumps of its own.
    assert_eq!(&lines[2..], ["the child is alone: true, no dumps on signals: true"]);
}

#[test]
fn stopped_and_dead_processes_are_told_apart() {
    let _watched = watch(60);
    let ready = Event::new().unwrap();
    let p = Process::spawn((ready.clone(),), child).unwrap();
    ready.wait().unwrap();
    let below = || dump().processes.iter().find(|q| q.parent.as_ref().is_some_and(|parent| parent.pid == p.pid())).cloned();
    let grandchild = below().unwrap().pid;
    stop_and_await(p.pid());
    // Its parent is stopped and cannot reap it; nobody cleans up after it but a collection.
    let kept = multiproc_keeps_from_collecting();
    // SAFETY: its parent, which alone could reap it, is stopped.
    unsafe { libc::kill(grandchild as i32, libc::SIGKILL) };
    eventually(|| dump().process(grandchild).is_some_and(|q| q.state == ProcessState::Zombie));
    drop(kept);
    end(p);
}

fn multiproc_keeps_from_collecting() -> impl Drop {
    multiproc::testing::hold_collections().unwrap()
}
