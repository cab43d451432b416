//! The storm: producers and consumers of one queue are killed at random moments and replaced, thousands of times.
//!
//! Each process keeps a log outside the arena, so what it had done before it died is known: a producer notes an item before and after the put,
//! a consumer when its bytes begin to be decoded and when it has it. `STORM_SEED` and `STORM_KILLS` repeat a run or make it longer.

mod common_queue;

use common_queue::{LIMIT, Watchdog, alone, eventually};
use multiproc::{Process, Queue, testing};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Nobody may go without progress for longer.
const STALL: Duration = Duration::from_millis(500);
const RECORD: usize = 16;

static LOG: OnceLock<File> = OnceLock::new();

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Note {
    Putting = 1,
    Put = 2,
    Decoding = 3,
    Got = 4,
    Acknowledging = 5,
    Acknowledged = 6,
}

fn note(what: Note, attempt: u32, id: u64) {
    let mut record = [0; RECORD];
    record[0] = what as u8;
    record[4..8].copy_from_slice(&attempt.to_le_bytes());
    record[8..].copy_from_slice(&id.to_le_bytes());
    if let Some(mut log) = LOG.get() {
        // One system call: a killed process has written all of it or nothing.
        log.write_all(&record).unwrap();
    }
}

fn open_log(path: &Path) {
    LOG.get_or_init(|| OpenOptions::new().create(true).append(true).open(path).unwrap());
}

/// The logs of one run; they go with it.
struct Logs(PathBuf);

impl Logs {
    fn new(seed: u64) -> Logs {
        let dir = std::env::temp_dir().join(format!("multiproc-storm-{}-{seed:x}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Logs(dir)
    }

    fn path(&self, role: usize) -> PathBuf {
        self.0.join(role.to_string())
    }

    fn len(&self, role: usize) -> u64 {
        std::fs::metadata(self.path(role)).map_or(0, |m| m.len())
    }

    fn read(&self, role: usize) -> Vec<(Note, u32, u64)> {
        let bytes = std::fs::read(self.path(role)).unwrap_or_default();
        assert!(bytes.len().is_multiple_of(RECORD));
        let kinds = [Note::Putting, Note::Put, Note::Decoding, Note::Got, Note::Acknowledging, Note::Acknowledged];
        let one = |r: &[u8]| {
            let attempt = u32::from_le_bytes(r[4..8].try_into().unwrap());
            (kinds[r[0] as usize - 1], attempt, u64::from_le_bytes(r[8..].try_into().unwrap()))
        };
        bytes.chunks_exact(RECORD).map(one).collect()
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The id is the life of its producer and a number.
#[derive(Debug, Serialize)]
struct Item {
    id: u64,
    pad: Vec<u8>,
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Item, D::Error> {
        let (id, pad) = <(u64, Vec<u8>)>::deserialize(d)?;
        note(Note::Decoding, 0, id);
        Ok(Item { id, pad })
    }
}

impl Item {
    fn new(id: u64) -> Item {
        let len = if id % 50 == 7 { 5000 } else { id as usize % 90 };
        Item { id, pad: vec![id as u8; len] }
    }

    fn check(&self) {
        let right = Item::new(self.id);
        assert!(self.pad == right.pad, "item {:x} is not what was put", self.id);
    }
}

fn producer(q: Queue<Item>, log: PathBuf, life: u64) {
    open_log(&log);
    for n in 0.. {
        let id = life << 32 | n;
        note(Note::Putting, 0, id);
        q.put(Item::new(id)).unwrap();
        note(Note::Put, 0, id);
    }
}

fn consumer(q: Queue<Item>, log: PathBuf, by_lease: bool) {
    open_log(&log);
    loop {
        if by_lease {
            let lease = q.lease().unwrap();
            lease.check();
            let (id, attempt) = (lease.id, lease.attempt());
            note(Note::Got, attempt, id);
            note(Note::Acknowledging, attempt, id);
            lease.ack();
            note(Note::Acknowledged, attempt, id);
        } else {
            let item = q.get().unwrap();
            item.check();
            note(Note::Got, 1, item.id);
        }
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn from_env(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(usual)
}

fn count(of: &str) -> usize {
    match of {
        "fd" => std::fs::read_dir("/proc/self/fd").unwrap().count(),
        _ => std::fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|l| l.contains("multiproc")).count(),
    }
}

const PRODUCERS: usize = 2;
const ROLES: usize = 4;

struct Storm {
    q: Queue<Item>,
    logs: Logs,
    by_lease: bool,
    lives: u64,
    processes: Vec<Process<()>>,
    consumer_kills: u32,
}

impl Storm {
    fn start(&mut self, role: usize) -> Process<()> {
        let builder = Process::builder().daemon(true);
        let path = self.logs.path(role);
        if role < PRODUCERS {
            self.lives += 1;
            builder.spawn((self.q.clone(), path, self.lives), producer).unwrap()
        } else {
            builder.spawn((self.q.clone(), path, self.by_lease), consumer).unwrap()
        }
    }

    fn kill(&mut self, role: usize) {
        let p = &self.processes[role];
        assert!(p.is_alive(), "a process of role {role} ended by itself: {:?}", p.exit_status());
        p.kill().unwrap();
        self.consumer_kills += u32::from(role >= PRODUCERS);
    }
}

fn storm(by_lease: bool, kills: u64) {
    let _one = alone();
    Watchdog::start(Duration::from_secs(120));
    // The clock stands in for a random number; printed, it is one like any other.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = from_env("STORM_SEED", now.as_nanos() as u64 | 1);
    let kills = from_env("STORM_KILLS", kills);
    println!("STORM_SEED={seed} STORM_KILLS={kills} by_lease={by_lease}");
    let mut random = Random(seed);
    // Whatever is made once is made.
    Process::spawn((1,), |n: u8| n).unwrap().join().unwrap();
    testing::collect().unwrap();
    let before = (testing::audit().unwrap(), count("fd"), count("maps"));

    let q = Queue::<Item>::bounded(64).unwrap();
    let mut s = Storm { q, logs: Logs::new(seed), by_lease, lives: 0, processes: Vec::new(), consumer_kills: 0 };
    for role in 0..ROLES {
        let p = s.start(role);
        s.processes.push(p);
    }
    let began = Instant::now();
    let (mut progress, mut since, mut longest) = (0, Instant::now(), Duration::ZERO);
    for n in 0..kills {
        Watchdog::beat(|| format!("kill {n}"));
        let pause = Duration::from_micros(random.next() % 3000);
        let until = Instant::now() + pause;
        while Instant::now() < until {
            std::thread::sleep(Duration::from_micros(200));
        }
        let seen = (PRODUCERS..ROLES).map(|role| s.logs.len(role)).sum::<u64>();
        if seen != progress {
            (progress, since) = (seen, Instant::now());
        }
        longest = longest.max(since.elapsed());
        assert!(since.elapsed() < STALL, "no item for {STALL:?} after kill {n}: {:?}", s.q);
        let role = random.next() as usize % ROLES;
        s.kill(role);
        // Not waited for: its successor meets what it has left.
        let successor = s.start(role);
        drop(std::mem::replace(&mut s.processes[role], successor));
    }
    let took = began.elapsed();
    for role in 0..ROLES {
        s.kill(role);
        s.processes[role].wait();
    }
    testing::collect().unwrap();
    let mut rest = Vec::new();
    loop {
        let item = if by_lease { s.q.try_lease().map(|l| l.ack()) } else { s.q.try_get() };
        match item {
            Ok(item) => {
                item.check();
                rest.push(item.id);
            }
            Err(e) if e.is_empty() => break,
            Err(e) => panic!("draining: {e}"),
        }
    }
    assert_eq!((s.q.len(), s.q.leased()), (0, 0));
    let losses = s.q.take_losses();
    judge(&s, &rest, losses);
    println!(
        "{kills} kills in {took:?}, {} items, {losses} lost of {} consumers killed, longest gap {longest:?}",
        s.logs.read(0).len() / 2 + s.logs.read(1).len() / 2,
        s.consumer_kills
    );
    drop(s);
    let mut after = before;
    let back = eventually(LIMIT, || {
        testing::collect().unwrap();
        after = (testing::audit().unwrap(), count("fd"), count("maps"));
        // The first process's own descriptors may still have been open before.
        after.0 == before.0 && after.1 <= before.1 && after.2 == before.2
    });
    assert!(back, "left over: {before:?} became {after:?}");
}

fn judge(s: &Storm, rest: &[u64], losses: u32) {
    let mut put: BTreeMap<u64, bool> = BTreeMap::new();
    for (what, _, id) in (0..PRODUCERS).flat_map(|role| s.logs.read(role)) {
        put.insert(id, what == Note::Put);
    }
    let mut times: HashMap<(Note, u64), u32> = HashMap::new();
    let mut attempts: HashMap<(u64, u32), u32> = HashMap::new();
    for role in PRODUCERS..ROLES {
        let mut last: HashMap<u64, u64> = HashMap::new();
        for (what, attempt, id) in s.logs.read(role) {
            assert!(put.contains_key(&id), "item {id:x} was never put");
            *times.entry((what, id)).or_default() += 1;
            if what != Note::Got {
                continue;
            }
            assert_eq!(attempts.insert((id, attempt), 1), None, "attempt {attempt} of {id:x} came twice");
            if attempt == 1 {
                let before = last.insert(id >> 32, id);
                assert!(before < Some(id), "item {id:x} came after {before:x?}");
            }
        }
    }
    for id in rest {
        assert!(put.contains_key(id), "item {id:x} was never put");
        *times.entry((Note::Got, *id)).or_default() += 1;
        *times.entry((Note::Decoding, *id)).or_default() += 1;
        *times.entry((Note::Acknowledged, *id)).or_default() += 1;
    }
    let n = |what: Note, id: u64| times.get(&(what, id)).copied().unwrap_or(0);
    if s.by_lease {
        assert_eq!(losses, 0);
        for (&id, &committed) in &put {
            assert!(n(Note::Acknowledged, id) <= 1, "item {id:x} was acknowledged twice");
            let done = n(Note::Acknowledged, id) + n(Note::Acknowledging, id) > 0;
            assert!(done || !committed, "item {id:x} is lost");
        }
        return;
    }
    let (mut vanished, mut unsure) = (0, 0);
    for (&id, &committed) in &put {
        assert!(n(Note::Got, id) <= 1 && n(Note::Decoding, id) <= 1, "item {id:x} came twice");
        match (n(Note::Decoding, id), n(Note::Got, id)) {
            (0, _) if committed => vanished += 1,
            // Its producer died in the put: before the commit it is not lost.
            (0, _) | (_, 0) => unsure += 1,
            _ => {}
        }
    }
    assert!(losses <= s.consumer_kills, "{losses} losses reported, {} consumers killed", s.consumer_kills);
    assert!(vanished <= losses, "{vanished} items vanished, {losses} reported");
    assert!(losses <= vanished + unsure, "{losses} losses reported, {vanished} items vanished and {unsure} may have");
}

#[test]
fn getters_and_putters_are_killed() {
    storm(false, 1500);
}

#[test]
fn lease_holders_and_putters_are_killed() {
    storm(true, 1500);
}

/// The same on one core, where nobody spins and whoever is woken runs before its waker.
#[test]
fn all_of_it_on_one_core() {
    if std::env::var_os("STORM_ON_ONE_CORE").is_some() {
        return;
    }
    for test in ["getters_and_putters_are_killed", "lease_holders_and_putters_are_killed"] {
        let _one = alone();
        Watchdog::beat(|| format!("{test} on one core"));
        let run = std::process::Command::new("taskset")
            .args(["-c", "0"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env("STORM_ON_ONE_CORE", "1")
            .env("STORM_KILLS", "300")
            .output();
        let Ok(run) = run else {
            eprintln!("skipped: there is no taskset");
            return;
        };
        let said = String::from_utf8_lossy(&run.stdout);
        println!("{said}");
        assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    }
}
