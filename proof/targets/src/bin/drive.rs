fn main() {
    let mut args = std::env::args().skip(1);
    let (first, count): (u64, u64) = (args.next().unwrap().parse().unwrap(), args.next().unwrap().parse().unwrap());
    let verbose = args.next().is_some();
    let seed = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(first));
    let watched = seed.clone();
    std::thread::spawn(move || {
        let mut last = u64::MAX;
        loop {
            std::thread::sleep(std::time::Duration::from_secs(5));
            let now = watched.load(std::sync::atomic::Ordering::Relaxed);
            if now == last {
                eprintln!("HANG at seed {now}");
                std::process::abort();
            }
            last = now;
        }
    });
    let mut sum = multiproc_targets::arena::Done::default();
    let mut bad = 0;
    for n in first..first + count {
        seed.store(n, std::sync::atomic::Ordering::Relaxed);
        let mut random = fastrand::Rng::with_seed(n);
        let bytes: Vec<u8> = (0..random.usize(20..600)).map(|_| random.u8(..)).collect();
        let r = std::panic::catch_unwind(|| {
            multiproc_targets::arena::run(&bytes, |step| {
                if verbose {
                    eprintln!("{step:?}")
                }
            })
        });
        match r {
            Ok(d) => {
                sum.writes += d.writes;
                sum.live += d.live;
                sum.done += d.done;
                sum.refused += d.refused;
            }
            Err(_) => {
                bad += 1;
                eprintln!("PANIC at seed {n}");
                break;
            }
        }
    }
    println!("{sum:?} bad {bad}");
}
