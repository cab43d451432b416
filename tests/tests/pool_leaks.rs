//! What pools leave behind: nothing. Alone in its program, whose descriptors, threads and objects it counts.

use multiproc::Pool;
use multiproc_tests::{eventually, no_core_dumps, watch};

/// One pool after another leaves nothing: no descriptor, no thread, no process, no memory.
#[test]
fn a_thousand_pools() {
    let _watched = watch(300);
    no_core_dumps();
    let pools = std::env::var("POOLS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let live = || multiproc::stats().unwrap();
    let one = |n: u32| {
        let pool = Pool::new(1).unwrap();
        match n % 5 {
            0 => assert_eq!(pool.apply((n,), |n: u32| n).unwrap(), n),
            1 => drop(pool.submit((), || ()).unwrap()),
            2 => pool.terminate(),
            3 => {
                drop(pool);
                let broken = Pool::builder().workers(1).initializer((), || panic!("no licence")).build().unwrap();
                eventually(|| broken.submit((), || ()).is_err_and(|e| e.is_broken()));
            }
            _ => assert!(pool.apply((), || -> () { std::process::exit(1) }).is_err()),
        }
    };
    (0..10).for_each(one);
    let (descriptors, threads, before) = (count("fd"), count("task"), live());
    (0..pools).for_each(one);
    eventually(|| count("fd") <= descriptors && count("task") <= threads);
    eventually(|| {
        let now = live();
        now.objects() <= before.objects() && now.used <= before.used
    });
}
