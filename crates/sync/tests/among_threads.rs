//! Locks and values among threads of one process, in an arena of their own: what Miri and the sanitizers of rustc can look at, who see one process only.
//!
//! What is shared beside them is a counter whose load and store are two relaxed operations: exact only if nobody comes in between and each sees what was
//! done before it.

use multiproc_shm::{Arena, Options};
use multiproc_sync::{
    Array, Atomic, Barrier, Condition, Event, KINDS, Lock, RLock, Semaphore, SharedVec, SignalSemaphore, Value,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

fn arena() -> &'static Arena {
    Arena::create(&Options { size: 16 << 20, limit: Some(12 << 20), build: 1, kinds: KINDS }).unwrap()
}

/// So many, and few where each instruction is interpreted.
const fn rounds(usual: u64, interpreted: u64) -> u64 {
    if cfg!(miri) { interpreted } else { usual }
}

fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// Three do it so often.
fn among_three(each: u64, act: impl Fn(u64) + Sync) {
    thread::scope(|s| {
        for thread in 0..3 {
            let act = &act;
            s.spawn(move || (0..each).for_each(|n| act(3 * n + thread)));
        }
    });
}

#[test]
fn one_at_a_time() {
    const EACH: u64 = rounds(2_000, 9);
    let arena = arena();
    let counter = AtomicU64::new(0);
    let (lock, nested, one) = (Lock::new_in(arena).unwrap(), RLock::new_in(arena).unwrap(), Semaphore::new_in(arena, 1).unwrap());
    among_three(EACH, |_| {
        let _mine = lock.lock().unwrap();
        count(&counter);
    });
    among_three(EACH, |_| {
        let _mine = (nested.lock().unwrap(), nested.lock().unwrap());
        count(&counter);
    });
    among_three(EACH, |n| {
        if n % 2 == 0 {
            let _mine = one.acquire().unwrap();
            count(&counter);
        } else {
            let _mine = one.acquire_owned().unwrap();
            count(&counter);
        }
    });
    assert_eq!(counter.into_inner(), 9 * EACH);
}

#[test]
fn values_are_whole() {
    const EACH: u64 = rounds(2_000, 6);
    let arena = arena();
    let value = Value::new_in(arena, [0u64; 5]).unwrap();
    let (array, number) = (Array::<u64>::zeroed_in(arena, 4).unwrap(), Atomic::<u64>::new_in(arena, 0).unwrap());
    among_three(EACH, |n| {
        if n % 3 == 0 {
            value.update(|v| v.iter_mut().for_each(|word| *word += 1)).unwrap();
        } else {
            let [first, rest @ ..] = value.get().unwrap();
            assert_eq!(rest, [first; 4]);
        }
        array.lock().unwrap()[1] += 1;
        number.add(1);
    });
    assert_eq!((value.get(), array.get(1), number.get()), (Ok([EACH; 5]), Ok(3 * EACH), 3 * EACH));
}

#[test]
fn a_condition_to_and_fro() {
    const ALL: u64 = rounds(1_000, 6);
    let condition = Condition::new_in(arena()).unwrap();
    let turn = AtomicU64::new(0);
    thread::scope(|s| {
        for me in 0..2 {
            let (condition, turn) = (&condition, &turn);
            s.spawn(move || {
                for n in 0..ALL {
                    let guard = condition.lock().unwrap();
                    let guard = condition.wait_for(guard, || turn.load(Ordering::Relaxed) == 2 * n + me).unwrap();
                    count(turn);
                    condition.notify_all(&guard).unwrap();
                }
            });
        }
    });
    assert_eq!(turn.into_inner(), 2 * ALL);
}

#[test]
fn rounds_of_a_barrier() {
    const ALL: u64 = rounds(1_000, 4);
    let barrier = Barrier::new_in(arena(), 3).unwrap();
    let counters = [const { AtomicU64::new(0) }; 3];
    thread::scope(|s| {
        for me in 0..3 {
            let (barrier, counters) = (&barrier, &counters);
            s.spawn(move || {
                for n in 1..=ALL {
                    count(&counters[me]);
                    barrier.wait().unwrap();
                    assert!(counters.iter().all(|counter| counter.load(Ordering::Relaxed) == n));
                    barrier.wait().unwrap();
                }
            });
        }
    });
}

#[test]
fn signs_carry_what_was_done_before() {
    const ALL: u64 = rounds(1_000, 4);
    let arena = arena();
    let (there, back) = (Event::new_in(arena).unwrap(), Event::new_in(arena).unwrap());
    let permits = SignalSemaphore::new_in(arena, 0, 9).unwrap();
    let counter = AtomicU64::new(0);
    thread::scope(|s| {
        s.spawn(|| {
            for n in 0..ALL {
                there.wait().unwrap();
                there.clear();
                assert_eq!(counter.load(Ordering::Relaxed), 3 * n + 1);
                count(&counter);
                back.set().unwrap();
                permits.acquire().unwrap();
                assert_eq!(counter.load(Ordering::Relaxed), 3 * n + 3);
            }
        });
        for n in 0..ALL {
            count(&counter);
            there.set().unwrap();
            back.wait().unwrap();
            back.clear();
            assert_eq!(counter.load(Ordering::Relaxed), 3 * n + 2);
            count(&counter);
            permits.release(1).unwrap();
            while permits.value() > 0 {
                thread::yield_now();
            }
        }
    });
}

#[test]
fn a_vector_is_filled_and_frozen() {
    const ALL: u64 = rounds(600, 20);
    let mut vector = SharedVec::<u64>::zeroed_in(arena(), ALL as usize).unwrap();
    vector.iter_mut().zip(0..).for_each(|(element, n)| *element = n);
    let frozen = vector.freeze();
    thread::scope(|s| {
        for _ in 0..2 {
            let frozen = frozen.clone();
            s.spawn(move || assert!(frozen.iter().copied().eq(0..ALL)));
        }
    });
}
