//! A pool of processes, of threads and of the caller: what each of them does in the same way.

use multiproc::{Array, Pool, PoolBuilder, TaskError, pool_context};
use multiproc_tests::watch;
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
