//! What a process has, and the machine: for a look before and after.

use super::EVENTUALLY;
use multiproc::testing;
use multiproc::testing::Audit;
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

/// Nobody may go without progress for longer.
pub const STALL: Duration = Duration::from_millis(500);
/// If others use more of the machine than that, in percent, only a multiple of `STALL` tells a stall from a long wait for a core.
const BUSY: u64 = 20;
const WITH_OTHERS: u32 = 20;

/// See the module head.
#[derive(Clone, Debug)]
pub struct Census {
    /// What each of them names.
    pub descriptors: Vec<String>,
    pub maps: usize,
    pub threads: usize,
    /// Private memory.
    pub resident_kib: u64,
    /// The arena's, as the kernel counts it.
    pub backed_kib: u64,
    pub segments: BTreeSet<String>,
    pub audit: Audit,
}

fn entries(dir: &str) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

/// What the descriptors of this process name, in order of their names: not that by which the directory itself is read.
fn descriptors() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned())).collect();
    let own = format!("/proc/{}/fd", std::process::id());
    names.retain(|name| *name != own);
    names.sort();
    names
}

/// Names in /dev/shm, but for those of tests that run at the same time.
pub fn segments() -> BTreeSet<String> {
    let names = fs::read_dir("/dev/shm").into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.contains("multiproc-test")).collect()
}

/// A figure of /proc/self/status or /proc/meminfo, in KiB.
pub fn kib(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim_matches([':', ' ', '\t']).split(' ').next()?.parse().ok()).unwrap_or(0)
}

impl Census {
    /// Of this process, after a collection.
    pub fn take() -> Result<Census, String> {
        testing::collect().map_err(|e| e.to_string())?;
        Ok(Census {
            descriptors: descriptors(),
            maps: fs::read_to_string("/proc/self/maps")
                .map_or(0, |text| text.lines().filter(|line| !line.contains("[heap]")).count()),
            threads: entries("/proc/self/task"),
            resident_kib: kib("/proc/self/status", "RssAnon"),
            backed_kib: multiproc::stats().map_err(|e| e.to_string())?.backed >> 10,
            segments: segments(),
            audit: testing::audit().map_err(|e| e.to_string())?,
        })
    }

    /// Waits until there is no more than before; says what is left if that does not come true.
    pub fn back_to(before: &Census) -> Result<Census, String> {
        let limit = Instant::now() + EVENTUALLY;
        loop {
            let now = Census::take()?;
            let left = now.left_over(before);
            if left.is_empty() {
                return Ok(now);
            }
            if Instant::now() > limit {
                return Err(left.join(", "));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn left_over(&self, before: &Census) -> Vec<String> {
        let mut left = Vec::new();
        let mut more = |what: &str, now: u64, then: u64, slack: u64| {
            if now > then + slack {
                left.push(format!("{what}: {then} became {now}"));
            }
        };
        // The allocator maps as it likes.
        more("maps", self.maps as u64, before.maps as u64, 3);
        more("threads", self.threads as u64, before.threads as u64, 0);
        more("KiB resident", self.resident_kib, before.resident_kib, (before.resident_kib / 20).max(2048));
        // Memory of small objects stays with its size.
        more("KiB of the arena", self.backed_kib, before.backed_kib, 4096);
        if self.descriptors.len() > before.descriptors.len() {
            left.push(format!("descriptors: {:?} became {:?}", before.descriptors, self.descriptors));
        }
        if self.audit != before.audit {
            left.push(format!("in the arena: {:?} became {:?}", before.audit, self.audit));
        }
        let ours = |name: &&String| name.contains("multiproc");
        let new: Vec<_> = self.segments.difference(&before.segments).filter(ours).collect();
        if !new.is_empty() {
            left.push(format!("in /dev/shm: {new:?}"));
        }
        left
    }
}

/// Time in which the machine went on. Where a sleep takes much longer than it should, the machine stood still, or was others': what nobody could do in that time was no stall.
#[derive(Clone, Copy, Debug, Default)]
pub struct Awake {
    lost: Duration,
}

/// A sleep that takes so much longer is one.
const LATE: Duration = Duration::from_millis(20);

impl Awake {
    /// Sleeps, and takes note if that takes too long.
    pub fn sleep(&mut self, time: Duration) {
        let begin = Instant::now();
        std::thread::sleep(time);
        let late = begin.elapsed().saturating_sub(time);
        if late > LATE {
            self.lost += late;
        }
    }

    /// The moment, to be compared with others of this clock.
    pub fn now(&self) -> Instant {
        Instant::now() - self.lost
    }
}

/// How much of the machine others used meanwhile.
#[derive(Clone, Debug)]
pub struct Load {
    all: u64,
    own: u64,
    /// Children that keep cores busy for us.
    hogs: Vec<i32>,
    began: Instant,
}

impl Load {
    pub fn begin(hogs: impl IntoIterator<Item = i32>) -> Load {
        let hogs: Vec<i32> = hogs.into_iter().collect();
        Load { all: busy(), own: own(&hogs), hogs, began: Instant::now() }
    }

    /// The same from now on.
    pub fn anew(&self) -> Load {
        Load::begin(self.hogs.iter().copied())
    }

    /// Whether nothing for so long is a stall, with what others used meanwhile. `patience`: so many times as long as usual.
    pub fn is_stall(&self, gap: Duration, patience: u32) -> bool {
        gap > STALL * patience && (self.of_others() <= BUSY || gap > STALL * WITH_OTHERS)
    }

    /// In percent of all cores.
    pub fn of_others(&self) -> u64 {
        let others = (busy() - self.all).saturating_sub(own(&self.hogs).saturating_sub(self.own));
        // Not only those that this process keeps to.
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let cores = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count().max(1) as u64;
        // Ticks of ten milliseconds.
        others * 1000 / (cores * self.began.elapsed().as_millis().max(1) as u64)
    }
}

/// Ticks in which any core did something, or was taken away.
fn busy() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    fields.iter().enumerate().filter(|(i, _)| matches!(i, 0 | 1 | 2 | 5 | 6 | 7)).map(|(_, ticks)| ticks).sum()
}

/// Ticks of this process, of those that it has waited for, and of its hogs.
fn own(hogs: &[i32]) -> u64 {
    let ticks = |pid: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        rest[11.min(rest.len())..15.min(rest.len())].iter().filter_map(|f| f.parse::<u64>().ok()).sum::<u64>()
    };
    ticks("self") + hogs.iter().map(|pid| ticks(&pid.to_string())).sum::<u64>()
}
