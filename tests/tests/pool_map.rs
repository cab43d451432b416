//! `map` and its relatives: order, bounds, errors by position, and iterators of all kinds.

use multiproc::{Atomic, Event, Pool, TaskError};
use multiproc_tests::{eventually, watch};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

fn square(n: u64) -> u64 {
    n * n
}

#[test]
fn values_in_order() {
    let _watched = watch(60);
    let pool = Pool::new(2).unwrap();
    let expected: Vec<u64> = (0..20_000).map(square).collect();
    assert_eq!(pool.map(0..20_000, square).unwrap(), expected);
    for length in [0, 1, 7, 1000, 100_000] {
        assert_eq!(pool.map_chunks(0..2000, length, square).unwrap(), expected[..2000]);
    }
    assert_eq!(pool.imap(0..500, square).collect::<Result<Vec<_>, _>>().unwrap(), expected[..500]);
    let mut any_order = pool.imap_unordered(0..500, square).collect::<Result<Vec<_>, _>>().unwrap();
    any_order.sort_unstable();
    assert_eq!(any_order, expected[..500]);
    let each = pool.try_map(0..500, square).unwrap();
    assert_eq!(each.into_iter().map(Result::unwrap).collect::<Vec<_>>(), expected[..500]);
    // An iterator that does not know its length.
    assert_eq!(pool.map((0..).take_while(|n| *n < 1000), square).unwrap(), expected[..1000]);
    // Some take longer than those after them.
    let slow_first = |n: u64| {
        thread::sleep(Duration::from_millis(20 - 2 * n));
        n
    };
    assert_eq!(pool.map(0..10, slow_first).unwrap(), (0..10).collect::<Vec<_>>());
    assert_eq!(pool.imap(0..10, slow_first).map(Result::unwrap).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
}

#[test]
fn nothing_at_all() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    assert!(pool.map([], square).unwrap().is_empty());
    assert!(pool.map_chunks([], 9, square).unwrap().is_empty());
    assert!(pool.try_map([], square).unwrap().is_empty());
    assert!(pool.imap([], square).next().is_none() && pool.imap_unordered([], square).next().is_none());
    let mut over = pool.imap([3], square);
    assert_eq!(over.next().unwrap().unwrap(), 9);
    assert!(over.next().is_none() && over.next().is_none());
}

#[test]
fn with_a_context() {
    let _watched = watch(60);
    let pool = Pool::new(2).unwrap();
    let (words, calls) = (vec!["a".to_owned(), "bc".to_owned()], Atomic::new(0u32).unwrap());
    let lengths = pool.map_with(&(words, calls.clone()), 0..1000, |(words, calls), n: usize| {
        calls.add(1);
        words[n % 2].len()
    });
    assert_eq!(lengths.unwrap(), [1, 2].repeat(500));
    assert_eq!(calls.get(), 1000);
    // Another one does not meet the first; and more of them than a worker keeps.
    for n in 0..20u64 {
        assert_eq!(pool.map_with(&n, 0..5, |n, m: u64| n * m).unwrap(), (0..5).map(|m| n * m).collect::<Vec<_>>());
    }
    let pids = pool.pids();
    // A worker that is new asks for it, too.
    let context = (pids[0], 7u64);
    let values = pool.try_map([1u64, 2], |n| n).unwrap();
    assert_eq!(values.len(), 2);
    let retried = Pool::builder().workers(1).retries(1).build().unwrap();
    let died = Atomic::new(0u32).unwrap();
    let values = retried.map_with(&(context.1, died), 0..4, |(times, died), n: u64| {
        if died.add(1) == 2 {
            std::process::abort();
        }
        n * times
    });
    assert_eq!(values.unwrap(), [0, 7, 14, 21]);
}

#[test]
fn input_without_end() {
    let _watched = watch(60);
    let pool = Pool::new(2).unwrap();
    let taken = Cell::new(0u64);
    let input = (0..).inspect(|_| taken.set(taken.get() + 1));
    let first: Vec<u64> = pool.imap(input, square).take(100).map(Result::unwrap).collect();
    assert_eq!(first, (0..100).map(square).collect::<Vec<_>>());
    // No more than is asked for, and the window.
    assert!(taken.get() >= 100 && taken.get() <= 100 + 8, "{}", taken.get());
    taken.set(0);
    let input = (0..).inspect(|_| taken.set(taken.get() + 1));
    assert_eq!(pool.imap_unordered(input, square).take(100).filter(Result::is_ok).count(), 100);
    assert!(taken.get() <= 100 + 8, "{}", taken.get());
    // Nothing is taken before it is asked for.
    taken.set(0);
    drop(pool.imap((0..).inspect(|_| taken.set(taken.get() + 1)), square));
    assert_eq!(taken.get(), 0);
}

/// The first by position, though a later one fails before it; and little that lies beyond is begun.
#[test]
fn the_first_error_by_position() {
    let _watched = watch(60);
    let pool = Pool::new(2).unwrap();
    let late = Event::new().unwrap();
    let begun = Atomic::new(0u32).unwrap();
    let e = pool.map_with(&(late, begun.clone()), 0..100_000u32, |(late, begun), n| {
        begun.add(1);
        match n {
            0 => {
                // The other one has failed by then.
                late.wait().unwrap();
                thread::sleep(Duration::from_millis(20));
                panic!("number {n}")
            }
            1 => {
                late.set().unwrap();
                panic!("number {n}")
            }
            _ => thread::sleep(Duration::from_millis(1)),
        }
    });
    let e = e.unwrap_err();
    assert!(matches!(&e, TaskError::Panicked { message, .. } if message == "number 0"), "{e}");
    assert!(begun.get() < 1000, "{}", begun.get());
    // All is over when it returns.
    let before = begun.get();
    assert_eq!(pool.apply((), || 1).unwrap(), 1);
    assert_eq!(begun.get(), before);
}

#[test]
fn an_error_in_the_middle_of_a_chunk() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    let e = pool.map_chunks(0..100, 50, |n: u32| 100 / (70 - n)).unwrap_err();
    assert!(e.to_string().contains("divide by zero"), "{e}");
    let each = pool.try_map([1, 0, 2], |n: u32| 4 / n).unwrap();
    assert!(matches!(each[..], [Ok(4), Err(TaskError::Panicked { .. }), Ok(2)]), "{each:?}");
    let each: Vec<_> = pool.imap([1, 0, 2], |n: u32| 4 / n).collect();
    assert!(matches!(each[..], [Ok(4), Err(TaskError::Panicked { .. }), Ok(2)]), "{each:?}");
    // A worker that dies.
    let each = pool.try_map([1, 0, 2], |n: u32| if n == 0 { std::process::abort() } else { n }).unwrap();
    assert!(matches!(each[..], [Ok(1), Err(TaskError::WorkerDied { started: true, .. }), Ok(2)]), "{each:?}");
    assert!(matches!(
        pool.map([1, 0], |n: u32| if n == 0 { std::process::abort() } else { n }),
        Err(TaskError::WorkerDied { .. })
    ));
    assert_eq!(pool.map([1, 2], |n: u32| n).unwrap(), [1, 2]);
}

#[test]
fn an_iterator_that_panics() {
    let _watched = watch(60);
    let pool = Pool::new(1).unwrap();
    let begun = Atomic::new(0u32).unwrap();
    let bad = || (0..1000u32).inspect(|n| assert_ne!(*n, 3, "an iterator that panics"));
    let panics = |f: &mut dyn FnMut()| assert!(catch_unwind(AssertUnwindSafe(f)).is_err());
    panics(&mut || _ = pool.map(bad(), |n| n));
    panics(&mut || _ = pool.map_chunks(bad(), 2, |n| n));
    panics(&mut || _ = pool.try_map(bad(), |n| n));
    let mut values = pool.imap(bad(), |n| n);
    panics(&mut || while values.next().is_some() {});
    drop(values);
    panics(&mut || pool.imap_unordered(bad(), |n| n).for_each(drop));
    // What was out when it panicked goes on for no longer than one element.
    let context = begun.clone();
    let e = catch_unwind(AssertUnwindSafe(|| {
        let mut sent = 0;
        let input = std::iter::from_fn(|| {
            sent += 1;
            assert!(sent <= 200, "an iterator that panics");
            Some(())
        });
        pool.map_chunks(input.map(|()| context.clone()), 100, |begun: Atomic<u32>| {
            begun.add(1);
            thread::sleep(Duration::from_millis(2));
        })
    }));
    assert!(e.is_err());
    assert_eq!(pool.apply((), || 1).unwrap(), 1);
    // All of the first chunk, and of the second what had been begun.
    assert!((100..150).contains(&begun.get()), "{}", begun.get());
    // The pool is as it was.
    assert_eq!(pool.map(0..10, square).unwrap().len(), 10);
    assert!(format!("{pool:?}").contains("tasks: 0"), "{pool:?}");
}

#[test]
fn dropping_an_iterator_cancels_the_rest() {
    let _watched = watch(60);
    for ordered in [true, false] {
        let pool = Pool::builder().workers(1).grace(Duration::from_millis(30)).build().unwrap();
        let begun = Atomic::new(0u32).unwrap();
        let call = |begun: Atomic<u32>| {
            if begun.add(1) > 0 {
                loop {
                    thread::park();
                }
            }
        };
        let input = std::iter::repeat(begun.clone());
        if ordered {
            let mut values = pool.imap(input, call);
            values.next().unwrap().unwrap();
        } else {
            let mut values = pool.imap_unordered(input, call);
            values.next().unwrap().unwrap();
        }
        // The one that runs is ended with its worker; those that wait never begin.
        eventually(|| format!("{pool:?}").contains("tasks: 0"));
        assert_eq!(pool.apply((), || 1).unwrap(), 1);
        assert!(begun.get() <= 2, "{}", begun.get());
    }
}

#[test]
fn elements_that_are_large_or_many_are_few_at_a_time() {
    let _watched = watch(60);
    let pool = Pool::builder().workers(2).queue_bound(3).build().unwrap();
    let text = "x".repeat(1 << 20);
    let lengths = pool.map((0..30).map(|_| text.clone()), |text: String| text.len()).unwrap();
    assert_eq!(lengths, [1 << 20; 30]);
    let texts: Result<Vec<_>, _> = pool.imap((0..10).map(|n| 100_000 * n), |n: usize| "y".repeat(n)).collect();
    assert!(texts.unwrap().iter().enumerate().all(|(n, text)| text.len() == 100_000 * n));
}

#[test]
fn many_threads_map() {
    let _watched = watch(60);
    let pool = Pool::new(2).unwrap();
    thread::scope(|s| {
        for n in 0..6u64 {
            let pool = &pool;
            s.spawn(move || {
                for _ in 0..5 {
                    assert_eq!(pool.map(n..n + 300, square).unwrap(), (n..n + 300).map(square).collect::<Vec<_>>());
                    assert_eq!(pool.imap_unordered(0..50, square).filter(Result::is_ok).count(), 50);
                }
            });
        }
    });
}
