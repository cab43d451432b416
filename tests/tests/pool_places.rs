//! A pool of processes, of threads and of the caller: what each of them does in the same way.

use multiproc::{Array, Event, Pool, PoolBuilder, TaskError, pool_context};
use multiproc_tests::watch;
use std::thread;
use std::time::Duration;

/// A pool of one worker in each place.
fn everywhere(settings: impl Fn(PoolBuilder) -> PoolBuilder) -> [Pool; 3] {
    let builders = [Pool::builder(), Pool::builder().threads(), Pool::builder().inline()];
    builders.map(|builder| settings(builder.workers(1)).build().unwrap())
}

#[test]
fn each_pool_has_its_own_context() {
    let _watch = watch(60);
    let pools = [10u64, 20].map(|base| everywhere(|builder| builder.context(&base)));
    let without = everywhere(|builder| builder);
    for place in 0..3 {
        for (pool, base) in [(&pools[0][place], 10), (&pools[1][place], 20), (&pools[0][place], 10)] {
            assert_eq!(pool.apply((), || pool_context::<u64>().map(|base| *base)).unwrap(), Some(base));
            assert!(!pool.apply((), || pool_context::<u32>().is_some()).unwrap());
        }
        assert!(!without[place].apply((), || pool_context::<u64>().is_some()).unwrap());
    }
    assert!(pool_context::<u64>().is_none());
}

#[test]
fn the_initializer_finds_the_context() {
    let _watch = watch(60);
    let seen = Array::<u64>::zeroed(3).unwrap();
    let keep = |seen: Array<u64>, at: usize| seen.lock().unwrap()[at] = *pool_context::<u64>().unwrap();
    let builders = [Pool::builder(), Pool::builder().threads(), Pool::builder().inline()];
    for (at, builder) in builders.into_iter().enumerate() {
        let pool = builder.workers(1).context(&42u64).initializer((seen.clone(), at), keep).build().unwrap();
        pool.apply((), || ()).unwrap();
        assert_eq!(seen.get(at).unwrap(), 42);
    }
}

#[test]
fn an_initializer_that_panics_is_an_error() {
    let _watch = watch(60);
    for pool in everywhere(|builder| builder.initializer((), || panic!("no licence"))) {
        // Refused at once, or when the initializer has failed.
        let why = match pool.submit((), || ()) {
            Ok(task) => match task.join().unwrap_err() {
                TaskError::Refused(why) => why,
                other => panic!("{other:?}"),
            },
            Err(why) => why,
        };
        assert!(why.is_broken() && why.to_string().contains("no licence"), "{why}");
        assert!(pool.submit((), || ()).unwrap_err().is_broken());
    }
}

/// Fails at its first `failures` attempts.
fn flaky(attempts: Array<u32>, at: usize, failures: u32) -> u32 {
    let mut attempts = attempts.lock().unwrap();
    attempts[at] += 1;
    let attempt = attempts[at];
    drop(attempts);
    assert!(attempt > failures, "attempt {attempt}");
    attempt
}

#[test]
fn what_panics_is_tried_again() {
    let _watch = watch(60);
    let settings = |builder: PoolBuilder| builder.retries(2).backoff(Duration::from_millis(1));
    for pool in everywhere(settings) {
        let attempts = Array::<u32>::zeroed(4).unwrap();
        let outcomes = [0, 2, 3].map(|failures| pool.apply((attempts.clone(), failures as usize, failures), flaky));
        assert!(matches!(outcomes, [Ok(1), Ok(3), Err(TaskError::Panicked { .. })]), "{outcomes:?}");
        assert_eq!(attempts.to_vec().unwrap(), [1, 0, 3, 3]);

        // A task's own settings, in place of the pool's.
        let attempts = Array::<u32>::zeroed(2).unwrap();
        assert!(pool.task().retries(0).submit((attempts.clone(), 0, 1), flaky).unwrap().join().is_err());
        let only = pool.task().only_if(|why| why.is_timeout()).submit((attempts.clone(), 1, 1), flaky).unwrap().join();
        assert!(matches!(only, Err(TaskError::Panicked { .. })), "{only:?}");
        assert_eq!(attempts.to_vec().unwrap(), [1, 1]);
    }
}

/// Where attempts are counted, its number, and how often it fails.
type Element = (Array<u32>, usize, u32);

/// Has its number as its value, after so many failures.
fn element((attempts, n, failures): Element) -> usize {
    flaky(attempts, n, failures);
    n
}

/// Elements of which some fail: all of them, with the attempts that each has had.
fn elements(failures: impl Fn(usize) -> u32, count: usize) -> (Array<u32>, Vec<Element>) {
    let attempts = Array::<u32>::zeroed(count).unwrap();
    let all = (0..count).map(|n| (attempts.clone(), n, failures(n))).collect();
    (attempts, all)
}

#[test]
fn an_element_that_panics_is_tried_again_and_no_other() {
    let _watch = watch(60);
    // The first of a chunk, its last, two in a row, and the last of all.
    let failures = |n| u32::from([0, 4, 5, 11, 12, 29].contains(&n));
    for pool in everywhere(|builder| builder.retries(2).backoff(Duration::from_millis(1))) {
        let all: Vec<usize> = (0..30).collect();
        let expected: Vec<u32> = all.iter().map(|n| 1 + 2 * failures(*n)).collect();
        for length in [1, 5, 7, 100] {
            let (attempts, elements) = elements(|n| 2 * failures(n), 30);
            assert_eq!(pool.map_chunks(elements, length, element).unwrap(), all);
            assert_eq!(attempts.to_vec().unwrap(), expected, "{length} {pool:?}");
        }
        let (attempts, elements_of) = (|attempts: &Array<u32>| attempts.to_vec().unwrap(), || elements(|n| 2 * failures(n), 30));
        let (counts, items) = elements_of();
        assert_eq!(pool.map(items, element).unwrap(), all);
        assert_eq!(attempts(&counts), expected);
        let (counts, items) = elements_of();
        let context = (counts.clone(), 100usize);
        let values =
            pool.map_with(&context, items.into_iter().map(|(_, n, failures)| (n, failures)), |(counts, base), (n, failures)| {
                flaky(counts.clone(), n, failures);
                base + n
            });
        assert_eq!(values.unwrap(), (100..130).collect::<Vec<_>>());
        assert_eq!(attempts(&counts), expected);
        let (counts, items) = elements_of();
        assert_eq!(pool.imap(items, element).map(Result::unwrap).collect::<Vec<_>>(), all);
        assert_eq!(attempts(&counts), expected);
        let (counts, items) = elements_of();
        let each = pool.try_map(items, element).unwrap();
        assert_eq!(each.into_iter().map(Result::unwrap).collect::<Vec<_>>(), all);
        assert_eq!(attempts(&counts), expected);
    }
}

#[test]
fn an_element_that_fails_for_good_is_the_error() {
    let _watch = watch(60);
    for pool in everywhere(|builder| builder.retries(2)) {
        let (attempts, all) = elements(|n| if n == 3 || n == 4 { 9 } else { u32::from(n == 1) }, 20);
        let e = pool.map_chunks(all, 6, element).unwrap_err();
        assert!(matches!(&e, TaskError::Panicked { message, .. } if message == "attempt 3"), "{e}");
        let attempts = attempts.to_vec().unwrap();
        assert_eq!(attempts[..4], [1, 2, 1, 3], "{pool:?}");
    }
    // Only what is meant is tried again.
    for pool in everywhere(|builder| builder.retries(2).only_if(|why| why.to_string().contains("attempt 1"))) {
        let (attempts, all) = elements(|n| if n == 3 { 9 } else { u32::from(n == 1) }, 4);
        assert!(pool.map_chunks(all, 4, element).unwrap_err().to_string().contains("attempt 2"));
        assert_eq!(attempts.to_vec().unwrap(), [1, 2, 1, 2], "{pool:?}");
    }
    for pool in everywhere(|builder| builder.retries(2).only_if(TaskError::is_timeout)) {
        let (attempts, all) = elements(|n| u32::from(n == 1), 4);
        assert!(pool.map_chunks(all, 4, element).unwrap_err().to_string().contains("attempt 1"));
        assert_eq!(attempts.to_vec().unwrap()[1], 1, "{pool:?}");
    }
}

/// The second attempt of the first element waits for the last element of all.
#[test]
fn the_rest_does_not_wait_for_an_element_that_is_tried_again() {
    let _watch = watch(60);
    for builder in [Pool::builder(), Pool::builder().threads()] {
        let pool = builder.workers(2).retries(1).build().unwrap();
        let (attempts, last) = (Array::<u32>::zeroed(1).unwrap(), Event::new().unwrap());
        let values = pool.map_chunks((0..40u32).map(|n| (n, attempts.clone(), last.clone())), 4, |(n, attempts, last)| {
            match n {
                0 => {
                    flaky(attempts, 0, 1);
                    last.wait().unwrap();
                }
                39 => last.set().unwrap(),
                _ => {}
            }
            n
        });
        assert_eq!(values.unwrap(), (0..40).collect::<Vec<_>>());
    }
}

#[test]
fn a_pool_that_is_closed_meanwhile_tries_an_element_again() {
    let _watch = watch(60);
    for builder in [Pool::builder(), Pool::builder().threads()] {
        let pool = builder.workers(1).retries(1).backoff(Duration::from_millis(50)).build().unwrap();
        let (attempts, begun, closed) = (Array::<u32>::zeroed(1).unwrap(), Event::new().unwrap(), Event::new().unwrap());
        thread::scope(|s| {
            let (pool, events) = (&pool, (begun.clone(), closed.clone()));
            s.spawn(move || {
                events.0.wait().unwrap();
                pool.close();
                events.1.set().unwrap();
            });
            let values = pool.map_chunks([(attempts, begun, closed)], 1, |(attempts, begun, closed)| {
                begun.set().unwrap();
                closed.wait().unwrap();
                flaky(attempts, 0, 1)
            });
            assert_eq!(values.unwrap(), [2]);
        });
        assert!(pool.submit((), || ()).unwrap_err().is_closed());
        pool.join().unwrap();
    }
}

#[test]
fn an_element_that_panics_and_then_kills_its_worker() {
    let _watch = watch(60);
    let pool = Pool::builder().workers(2).retries(2).build().unwrap();
    let (attempts, all) = elements(|n| 2 * u32::from(n == 2), 6);
    let values = pool.map_chunks(all, 6, |(attempts, n, failures)| {
        if attempts.get(n).unwrap() == 1 {
            attempts.set(n, 2).unwrap();
            std::process::abort();
        }
        element((attempts, n, failures))
    });
    assert_eq!(values.unwrap(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(attempts.to_vec().unwrap(), [1, 1, 3, 1, 1, 1]);
}
