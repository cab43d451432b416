//! A roster that somebody has written over, as seen by whoever is in it next.

use multiproc::Process;
use multiproc_shm::Arena;

/// A child whose life word says that somebody else has it does not wait for that one: it ends, and so does who joins it.
#[test]
fn a_life_word_that_somebody_else_has() {
    let _watched = multiproc_tests::watch(60);
    // The tree's arena is made at first use.
    Process::spawn((), || ()).unwrap().join().unwrap();
    let arena = Arena::of_the_tree().unwrap();
    let who = arena.who().unwrap();
    let taken: Vec<u32> = (0..8).filter(|&slot| arena.slot(slot).is_ok_and(|s| s.life.try_lock(who).is_ok())).collect();
    assert!(!taken.is_empty());
    let ended = Process::spawn((), || ()).map(Process::join);
    assert!(ended.is_ok_and(|ended| ended.is_err()));
    for slot in taken {
        arena.slot(slot).unwrap().life.unlock(who.thread);
    }
    Process::spawn((), || ()).unwrap().join().unwrap();
}
