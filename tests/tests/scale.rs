//! Large trees: a hundred thousand objects at a time, ten thousand rounds of making and killing, deaths over large messages, and garbage without
//! deaths. Each in a program of its own, whose arena nobody else uses.

use multiproc::{Atomic, Event, Lock, Process, Queue, Raw, Semaphore, Sender, Value, channel};
use multiproc_tests::{eventually, watch};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::{env, fs};

/// Runs an ignored test of this file in a program of its own.
fn in_a_tree_of_its_own(name: &str) {
    let out = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    print!("{text}");
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

fn die() -> ! {
    // SAFETY: ends this process.
    unsafe { libc::raise(libc::SIGKILL) };
    unreachable!()
}

/// Bytes that serde takes as a whole.
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }
        d.deserialize_byte_buf(Visitor)
    }
}

/// Bytes that the kernel keeps for the arena.
fn backed() -> u64 {
    let fds = fs::read_dir("/proc/self/fd").unwrap().flatten().map(|e| e.path());
    let is_arena = |p: &std::path::PathBuf| fs::read_link(p).is_ok_and(|to| to.to_string_lossy().contains("memfd:multiproc"));
    fds.filter(is_arena).map(|p| fs::metadata(p).unwrap().blocks() * 512).max().expect("an arena")
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

// --- many at a time -----------------------------------------------------------------------------------

#[test]
fn a_hundred_thousand_locks_and_ten_thousand_queues_live_in_one_tree() {
    in_a_tree_of_its_own("many");
}

const LOCKS: usize = 100_000;
const QUEUES: usize = 10_000;

#[derive(Serialize, Deserialize)]
struct Many {
    locks: Vec<Lock>,
    queues: Vec<Queue<u64>>,
    hits: Atomic<u64>,
}

/// Takes every lock, and puts into each queue and gets from it.
fn use_all(many: Many, id: u64) -> usize {
    assert!(descriptors() < 100);
    for lock in &many.locks {
        let _guard = lock.lock().unwrap();
        many.hits.add(1);
    }
    let mut sum = 0;
    for queue in &many.queues {
        queue.put(id).unwrap();
        sum += queue.get().unwrap() as usize;
    }
    assert!(sum > 0);
    many.locks.len() + many.queues.len()
}

#[test]
#[ignore = "run by another test, in a program of its own"]
fn many() {
    let _watch = watch(300);
    // What most systems give by default.
    let usual = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
    // SAFETY: reads the struct.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const usual) }, 0);
    let before = descriptors();
    let many = Many {
        locks: (0..LOCKS).map(|_| Lock::new().unwrap()).collect(),
        queues: (0..QUEUES).map(|_| Queue::bounded(4).unwrap()).collect(),
        hits: Atomic::new(0).unwrap(),
    };
    // A keeper and an arena: nothing for an object.
    assert!(descriptors() < before + 10);
    let copy = || Many { locks: many.locks.clone(), queues: many.queues.clone(), hits: many.hits.clone() };
    let children = [1u64, 2].map(|id| Process::spawn((copy(), id), use_all).unwrap());
    for child in children {
        assert_eq!(child.join().unwrap(), LOCKS + QUEUES);
    }
    assert_eq!(many.hits.get(), 2 * LOCKS as u64);
    let stats = multiproc::stats().unwrap();
    println!("{stats}");
    assert_eq!(stats.kind("Lock").map(|k| k.objects), Some(LOCKS as u64));
    assert_eq!(stats.kind("Queue").map(|k| k.objects), Some(QUEUES as u64));
    // All of them in one message, to a child that is killed with them, and which was the last that held half of them.
    let (tx, rx) = channel::<Many>(1).unwrap();
    let half =
        Many { locks: many.locks[..LOCKS / 2].to_vec(), queues: many.queues[..QUEUES / 2].to_vec(), hits: many.hits.clone() };
    let rest: Vec<_> = many.locks[LOCKS / 2..].to_vec();
    tx.put(half).unwrap();
    drop(many);
    assert_eq!(multiproc::stats().unwrap().kind("Lock").map(|k| k.objects), Some(LOCKS as u64));
    let victim = |rx: multiproc::Receiver<Many>| -> () {
        let many = rx.get().unwrap();
        assert_eq!(many.locks.len(), LOCKS / 2);
        die();
    };
    assert!(Process::spawn((rx,), victim).unwrap().join().is_err());
    eventually(|| multiproc::stats().unwrap().kind("Lock").map(|k| k.objects) == Some(LOCKS as u64 / 2));
    drop((rest, tx));
    eventually(|| multiproc::stats().unwrap().objects() == 0);
}

// --- memory comes back ----------------------------------------------------------------------------------

#[test]
fn memory_comes_back_over_ten_thousand_cycles_with_a_thousand_kills() {
    in_a_tree_of_its_own("cycles");
}

const CYCLES: u64 = 10_000;

/// A bit of everything, of sizes that change from cycle to cycle.
#[derive(Serialize, Deserialize)]
struct Parcel {
    lock: Lock,
    value: Value<[u64; 100]>,
    hits: Atomic<u64>,
    event: Event,
    semaphore: Semaphore,
    inside: Queue<Bytes>,
    sender: Sender<u64>,
    weight: Bytes,
}

/// A number that looks like any other, from the number of a cycle.
fn scatter(n: u64) -> u64 {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 32;
    x.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 20
}

/// From some bytes to 1 MiB, most of them small. Twenty sizes, so that the first hundred cycles have seen them all.
fn weight(n: u64) -> usize {
    [10, 100, 1000, 5000, 5000, 20_000, 70_000, 300_000, 1 << 20, 4096][(scatter(n) % 10) as usize] + (n % 2) as usize * 100
}

fn parcel(n: u64, sender: &Sender<u64>) -> Parcel {
    let inside = Queue::bounded(1 + (n % 50) as usize).unwrap();
    inside.put(Bytes(vec![1; weight(n + 1)])).unwrap();
    Parcel {
        lock: Lock::new().unwrap(),
        value: Value::new([n; 100]).unwrap(),
        hits: Atomic::new(n).unwrap(),
        event: Event::new().unwrap(),
        semaphore: Semaphore::new(1).unwrap(),
        inside,
        sender: sender.clone(),
        weight: Bytes(vec![2; weight(n)]),
    }
}

/// Uses each parcel that comes; killed with the one that says so, in the middle of it.
fn worker(parcels: multiproc::Receiver<(u64, bool, Parcel)>) {
    for message in &parcels {
        let (n, deadly, parcel) = message.unwrap();
        let guard = parcel.lock.lock().unwrap();
        parcel.value.set([n + 1; 100]).unwrap();
        let inside = parcel.inside.lease().unwrap();
        if deadly {
            let _permit = parcel.semaphore.acquire().unwrap();
            let _garbage: Vec<_> = (0..10).map(|i| self::parcel(n + i, &parcel.sender)).collect();
            std::mem::forget(guard);
            die();
        }
        assert_eq!(inside.ack().0.len(), weight(n + 1));
        drop(guard);
        parcel.event.set().unwrap();
        parcel.sender.put(n).unwrap();
    }
}

#[test]
#[ignore = "run by another test, in a program of its own"]
fn cycles() {
    let _watch = watch(900);
    let mut first = None;
    for batch in 0..CYCLES / 10 {
        // Ten cycles, of which the last is deadly.
        let parcels = Queue::<(u64, bool, Parcel)>::bounded(4).unwrap();
        let (done, is_done) = channel::<u64>(4).unwrap();
        let p = Process::spawn((parcels.receiver().unwrap(),), worker).unwrap();
        for n in batch * 10..batch * 10 + 10 {
            let deadly = n % 10 == 9;
            let parcel = parcel(n, &done);
            let event = parcel.event.clone();
            parcels.put((n, deadly, parcel)).unwrap();
            if !deadly {
                assert_eq!(is_done.get().unwrap(), n);
                assert!(event.is_set());
            }
        }
        assert!(p.join().is_err());
        // The kernel's figure as it is, without a call that would give memory back first.
        let now = backed();
        drop((parcels, done, is_done));
        if batch == 9 {
            first = Some(now);
            println!("{now} bytes after 100 cycles");
        }
        for now in [now, backed()] {
            assert!(first.is_none_or(|first| now <= first + (1 << 20)), "{now} bytes after {} cycles", batch * 10 + 10);
        }
    }
    println!("{} bytes after {CYCLES}\n{}", backed(), multiproc::stats().unwrap());
    // What is left are the small blocks and the tables.
    assert!(backed() < 2 << 20, "{}", backed());
    eventually(|| multiproc::stats().unwrap().objects() == 0);
}

// --- deaths over large messages -------------------------------------------------------------------------------

#[test]
fn who_dies_while_memory_is_taken_or_given_back_leaves_none_of_it() {
    in_a_tree_of_its_own("interrupted");
}

const LARGE: usize = 64 << 20;

/// Where the pages of a large block change, and whether a getter comes there.
const POINTS: &[(&str, bool)] = &[("block.unsure", false), ("block.backed", false), ("block.punched", true)];

/// Puts a large message, or gets one; killed at a point, or by its parent once it has said that it is ready.
fn large(q: Queue<Vec<u8>, Raw>, ready: Sender<()>, gets: bool, point: Option<usize>) {
    let message = vec![1; LARGE];
    ready.put(()).unwrap();
    #[cfg(feature = "crash-points")]
    point.into_iter().for_each(|point| multiproc::testing::arm_at(POINTS[point].0, 1));
    assert!(point.is_none() || cfg!(feature = "crash-points"));
    if gets {
        q.get().unwrap();
    } else {
        q.put(message).unwrap();
    }
}

#[test]
#[ignore = "run by another test, in a program of its own"]
fn interrupted() {
    let _watch = watch(300);
    let q = Queue::<Vec<u8>, Raw>::with_codec(4).unwrap();
    let (ready, is_ready) = channel(1).unwrap();
    q.put(vec![1; LARGE]).unwrap();
    assert_eq!(q.get().unwrap().len(), LARGE);
    let before = multiproc::stats().unwrap();
    assert!(before.idle == 0 && before.used < 1 << 20, "{before}");
    let points = if cfg!(feature = "crash-points") { POINTS.len() } else { 0 };
    for round in 0..points + 20 {
        let point = (round < points).then_some(round);
        let gets = point.map_or(round % 4 == 0, |point| POINTS[point].1);
        if gets {
            q.put(vec![1; LARGE]).unwrap();
        }
        let p = Process::spawn((q.clone(), ready.clone(), gets, point), large).unwrap();
        is_ready.get().unwrap();
        if point.is_none() {
            // At any moment of it, or after it.
            std::thread::sleep(std::time::Duration::from_micros(scatter(round as u64) % 30_000));
            p.kill().unwrap();
        }
        let ended = p.join();
        assert!(point.is_none() || ended.is_err(), "it got past {point:?}");
        while q.try_get().is_ok() {}
    }
    let after = multiproc::stats().unwrap();
    println!("{after}");
    assert!(after.used <= before.used + (1 << 20) && after.backed <= before.backed + (1 << 20), "{before}\n{after}");
}

// --- garbage without deaths --------------------------------------------------------------------------------

#[test]
fn garbage_is_collected_when_the_arena_has_grown_by_64_mib() {
    in_a_tree_of_its_own("garbage");
}

#[test]
#[ignore = "run by another test, in a program of its own"]
fn garbage() {
    const MIB: u64 = 1 << 20;
    let _watch = watch(300);
    // A handle that has been shared is not freed at its drop: a collection has to find that nobody references it.
    let (tx, rx) = channel::<Queue<Bytes>>(1).unwrap();
    let mut most = 0;
    let mut made = 0;
    while made < 2000 * MIB {
        let q = Queue::<Bytes>::bounded(1).unwrap();
        q.put(Bytes(vec![0; MIB as usize])).unwrap();
        made += MIB;
        tx.put(q.clone()).unwrap();
        drop(rx.get().unwrap());
        drop(q);
        // The keeper collects beside this thread: it may be late, but not for ever.
        eventually(|| multiproc::memory_usage().unwrap().used < 400 * MIB);
        most = most.max(multiproc::memory_usage().unwrap().used);
    }
    println!("{} MiB of garbage made, at most {} MiB used", made / MIB, most / MIB);
    assert!(most >= 64 * MIB, "it was collected before it was due: {most}");
}
