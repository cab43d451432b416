//! The fuzz targets with bytes from seeds: what runs with a stable compiler. `PROOF_SEED` repeats a run, `PROOF_LONG` makes it long.

use multiproc_targets::arena::Done;
use multiproc_targets::{arena, frames, handshake};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn count(short: u64, long: u64) -> u64 {
    if std::env::var_os("PROOF_LONG").is_some() { long } else { short }
}

/// Calls `target` with bytes from one seed after the other. One that hangs ends the program, and is named.
fn each_seed(name: &'static str, count: u64, target: impl Fn(&[u8])) {
    static AT: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let at = &AT[NEXT.fetch_add(1, Ordering::Relaxed) as usize % AT.len()];
    let first = std::env::var("PROOF_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("{name}: {count} seeds from {first}");
    at.store(first, Ordering::Relaxed);
    std::thread::spawn(move || {
        let (mut last, mut same) = (first, 0);
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = at.load(Ordering::Relaxed);
            same = if now == last { same + 1 } else { 0 };
            // A minute, so that a busy machine is no hang.
            if same > 60 && now != u64::MAX {
                eprintln!("{name}: seed {now} hangs");
                std::process::abort();
            }
            last = now;
        }
    });
    for n in 0..count {
        let seed = first.wrapping_add(n);
        at.store(seed, Ordering::Relaxed);
        let mut random = fastrand::Rng::with_seed(seed);
        let bytes: Vec<u8> = (0..random.usize(0..600)).map(|_| random.u8(..)).collect();
        if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
            panic!("{name}: PROOF_SEED={seed} breaks it");
        }
    }
    at.store(u64::MAX, Ordering::Relaxed);
}

#[test]
fn arbitrary_words_then_operations() {
    let sum = RefCell::new(Done::default());
    each_seed("arena", count(300, 100_000), |bytes| {
        let Done { writes, live, done, refused } = arena::run(bytes, |_| {});
        let mut sum = sum.borrow_mut();
        *sum = Done { writes: sum.writes + writes, live: sum.live + live, done: sum.done + done, refused: sum.refused + refused };
    });
    let sum = sum.into_inner();
    println!("{sum:?}");
    assert!(sum.live * 2 > sum.writes && sum.done > 0 && sum.refused > 0, "{sum:?}");
}

#[test]
fn bytes_that_claim_to_be_messages() {
    each_seed("frames", count(20_000, 5_000_000), frames::run);
}

#[test]
fn what_a_child_is_told() {
    each_seed("handshake", count(10_000, 2_000_000), handshake::run);
}
