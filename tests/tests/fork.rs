//! A user's plain `fork()` in the middle: the child may use nothing until it has called `after_fork_child()`, and then everything.

use multiproc::Process;
use multiproc_shm::Arena;
use multiproc_shm::roster::SlotState;
use multiproc_tests::{Scene, all_sleep, eventually, watch};
use std::sync::mpsc;
use std::thread;

const FORKS: &str = env!("CARGO_BIN_EXE_forks");

/// By libc's `fork()`, and by the bare system call that it makes.
fn play(scene: &str, expected: &str) {
    for how in ["", "bare "] {
        let (text, status) = Scene::play(FORKS, &format!("{how}{scene}")).end();
        assert_eq!((text.as_str(), status.success()), (expected, true), "{how}{scene}");
    }
}

#[test]
fn the_child_of_a_fork_takes_part() {
    let _watched = watch(120);
    play("takes part", "took part\n");
    play("takes part in a worker", "took part\n");
}

#[test]
fn guards_permits_and_leases_stay_the_parents() {
    let _watched = watch(60);
    play("guards", "guarded\n");
}

#[test]
fn a_vector_that_is_being_filled_stays_the_parents() {
    let _watched = watch(60);
    play("vectors", "stayed the parent's\n");
}

#[test]
fn what_a_killed_child_of_a_fork_had_comes_back() {
    let _watched = watch(120);
    play("killed", "cleaned up\n");
    play("killed in a worker", "cleaned up\n");
}

#[test]
fn the_child_of_a_fork_ends_with_its_parent() {
    let _watched = watch(60);
    for scene in ["orphan", "orphan of a thread", "orphan of a worker", "bare orphan"] {
        let mut scene = Scene::play(FORKS, scene);
        assert_eq!(scene.line(), "both live");
        scene.kill();
        // The end of file says that nobody is left.
        assert_eq!(scene.rest().0, "");
    }
}

#[test]
fn it_does_not_end_with_the_thread_that_forked() {
    let _watched = watch(60);
    play("short-lived thread", "6\n");
}

#[test]
fn what_the_parent_has_let_go_of_cannot_be_joined_with() {
    let _watched = watch(60);
    let told = "the shared arena refused: something that this process inherited has been let go of by its parent since the fork";
    play("let go", &format!("{told}\n1\n"));
}

#[test]
fn forks_of_forks() {
    let _watched = watch(60);
    play("grandchild", "2\n");
}

#[test]
fn calls_that_are_of_no_use() {
    let _watched = watch(60);
    play("refused", "21\n1\n");
}

#[test]
fn last_words_of_a_fork_are_not_its_parents() {
    let _watched = watch(60);
    let (text, _) = Scene::play_after("exec 2>/dev/null", FORKS, "panics").end();
    assert_eq!(text, "SIGABRT\n");
}

#[test]
fn nothing_is_left_of_many_forks() {
    let _watched = watch(120);
    play("many", "nothing is left\n");
}

#[test]
fn who_has_the_slot_of_a_dead_process_is_not_taken_for_it() {
    let _watched = watch(60);
    play("successor", "lives on\n");
}

/// A child of a fork that looks for a place takes the life word of one, and gives it back when the place is another's by then.
#[test]
fn a_worker_waits_for_who_has_its_place_in_passing() {
    let _watched = watch(60);
    Process::spawn((), || ()).unwrap().join().unwrap();
    let arena = Arena::of_the_tree().unwrap();
    // The lowest that is free is given first.
    eventually(|| arena.slot(1).unwrap().state().unwrap().0 == SlotState::Free);
    let free =
        || (1..64).map(|index| arena.slot(index).unwrap()).find(|slot| slot.state().unwrap().0 == SlotState::Free).unwrap();
    let (taken, is_taken) = mpsc::channel();
    let (go, goes) = mpsc::channel::<()>();
    let passer_by = thread::spawn(move || {
        let slot = free();
        assert!(slot.life.try_lock(arena.who().unwrap()).is_ok());
        taken.send(()).unwrap();
        goes.recv().unwrap();
        let state = slot.state().unwrap().0;
        slot.life.unlock(arena.who().unwrap().thread);
        state
    });
    is_taken.recv().unwrap();
    let worker = Process::spawn((), || 7).unwrap();
    eventually(|| !worker.is_alive() || all_sleep(worker.pid()));
    go.send(()).unwrap();
    assert_eq!(passer_by.join().unwrap(), SlotState::Reserved);
    assert_eq!(worker.join().unwrap(), 7);
}

#[cfg(feature = "crash-points")]
#[test]
fn it_dies_at_each_step_of_joining() {
    let _watched = watch(200);
    play("steps", "all steps\nall steps\n");
}
