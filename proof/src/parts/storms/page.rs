//! A page that coordinator and victims share, outside of the arena: what a victim was doing when it died stands there still.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | a row's `inside` | the operation it is in, 0 between two | the victim, before and after | the operation in which it died |
//! | a row's `count` | operations done | the victim | one less than was done |
//! | a row's `life` | number of its life; a row is given to another when its victim has been waited for | coordinator | - |
//! | `last` | the greatest item that one seat has had of another | the getter | a later one is compared with an earlier one |
//! | `table` | what has become of each item: see the scenes | victims | as it is |
#![allow(unsafe_code)]

use multiproc_tests::is_gone;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Victims that have not been waited for, at most.
pub const ROWS: usize = 256;
/// Seats of a scene, at most.
pub const SEATS: usize = 64;
/// Words that a scene has to itself.
pub const WORDS: usize = 64;
/// Items of a round, at most.
pub const ITEMS: u64 = 4 << 20;
/// A victim that has not begun to play.
pub const STARTING: u32 = 63;
/// Operations of a scene have numbers below this.
pub const OPS: usize = 64;
/// A word of a cache line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Word(pub AtomicU64);

/// What is known of one life.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Row {
    pub inside: AtomicU32,
    /// The victim shall panic where it can.
    pub panic: AtomicU32,
    pub life: AtomicU64,
    pub count: AtomicU64,
    pub pid: AtomicU32,
    /// Of the scene: what this life has and did.
    pub note: AtomicU64,
    pub done: AtomicU64,
    /// Where it is to die: nanoseconds, signal:8, operation:8.
    pub aim: AtomicU64,
}

const TEXT: usize = 512;

/// See the module head. All of it is atomics: any bytes are valid.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Page {
    pub next: Word,
    /// Messages that `tracing` events on lost ones tell of.
    pub told: Word,
    /// A bit for each message of the scene's one queue that was told of.
    told_of: [AtomicU32; ITEMS as usize / 32],
    complained: AtomicU32,
    text: [AtomicU32; TEXT],
    pub words: [Word; WORDS],
    pub last: [[AtomicU64; SEATS]; SEATS],
    pub rows: [Row; ROWS],
    table: [AtomicU32; ITEMS as usize],
}

impl Page {
    /// A new page, and the path under which its processes find it.
    pub fn create() -> io::Result<(&'static Page, String)> {
        // SAFETY: the name is a string with an end.
        let fd = unsafe { libc::memfd_create(c"storm".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that nobody else has.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let file = File::from(fd);
        file.set_len(size_of::<Page>() as u64)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let page = Page::map(&file)?;
        // Open as long as the process: its victims open it by this name.
        std::mem::forget(file);
        Ok((page, path))
    }

    /// The page of the process that made it.
    pub fn open(path: &str) -> io::Result<&'static Page> {
        Page::map(&File::options().read(true).write(true).open(path)?)
    }

    fn map(file: &File) -> io::Result<&'static Page> {
        let (rights, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping, which nothing else refers to.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Page>(), rights, shared, file.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as long as a page, aligned, never unmapped, and of atomics only.
        Ok(unsafe { &*at.cast::<Page>() })
    }

    /// The state of an item.
    pub fn item(&self, id: u64) -> &AtomicU32 {
        &self.table[(id % ITEMS) as usize]
    }

    /// The next item's number, from 1 on; none when the round has had all.
    pub fn next_item(&self) -> Option<u64> {
        let id = self.next.0.fetch_add(1, Ordering::Relaxed) + 1;
        (id < ITEMS).then_some(id)
    }

    /// Items numbered so far.
    pub fn items(&self) -> u64 {
        self.next.0.load(Ordering::Relaxed).min(ITEMS - 1)
    }

    /// A round begins: nothing has been done.
    pub fn clear(&self) {
        for id in 0..=self.items() {
            self.item(id).store(0, Ordering::Relaxed);
        }
        self.next.0.store(0, Ordering::Relaxed);
        self.told.0.store(0, Ordering::Relaxed);
        self.told_of.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        self.words.iter().for_each(|word| word.0.store(0, Ordering::Relaxed));
        self.last.iter().flatten().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// `count` messages from number `seq` on were told of as lost. Who dies over the telling leaves it to another: told of again, they count once.
    pub fn tell(&self, seq: u64, count: u64) {
        for n in (seq..seq + count).map(|n| n % ITEMS) {
            let bit = 1 << (n % 32);
            let before = self.told_of[n as usize / 32].fetch_or(bit, Ordering::Relaxed);
            self.told.0.fetch_add(u64::from(before & bit == 0), Ordering::Relaxed);
        }
    }

    /// Says that a promise is broken; the first to say so is heard.
    pub fn complain(&self, what: &str) {
        if self.complained.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return;
        }
        for (word, byte) in self.text.iter().zip(what.bytes()) {
            word.store(u32::from(byte), Ordering::Relaxed);
        }
        self.complained.store(2, Ordering::Release);
    }

    /// What somebody has complained of.
    pub fn complaint(&self) -> Option<String> {
        (self.complained.load(Ordering::Acquire) == 2).then(|| {
            let bytes: Vec<u8> =
                self.text.iter().map(|word| word.load(Ordering::Relaxed) as u8).take_while(|&b| b != 0).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }

    /// Whether the life that had this number is over, as far as its threads run no code any more.
    pub fn is_over(&self, row: usize, life: u64) -> bool {
        let row = &self.rows[row % ROWS];
        let pid = row.pid.load(Ordering::Acquire);
        if row.life.load(Ordering::Acquire) != life {
            return true;
        }
        // Not waited for as long as the row is its: the pid is nobody else's.
        let over = is_gone(pid);
        over || row.life.load(Ordering::Acquire) != life
    }
}
