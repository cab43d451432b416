//! Arbitrary words all over an arena, and operations on what lies in it, in turn.

use crate::input::Input;
use crate::map::{Map, scribble};
use crate::things::{Ends, Hands, Things};
use multiproc_shm::layout::PAGE;
use multiproc_shm::objects::Kind;
use multiproc_shm::{Arena, Options};
use std::cell::RefCell;
use std::os::fd::AsRawFd;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Address space of the arena.
const SIZE: u64 = 32 << 20;
/// Memory that it may use.
const LIMIT: u64 = 24 << 20;

static KINDS: LazyLock<&'static [&'static Kind]> =
    LazyLock::new(|| [multiproc_sync::KINDS, multiproc_channel::KINDS].concat().leak());

/// What was done, for who counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Words written over.
    pub writes: u64,
    /// Of these, in places that are always read.
    pub live: u64,
    /// Operations that were done.
    pub done: u64,
    /// Operations that were refused.
    pub refused: u64,
}

/// An arena as it was when it was new, to be so again.
struct Fresh {
    arena: &'static Arena,
    pages: Vec<(u64, Vec<u64>)>,
}

impl Fresh {
    fn make() -> Fresh {
        let options = Options { size: SIZE, limit: Some(LIMIT), build: 1, kinds: *KINDS };
        let arena = Arena::create(&options).expect("an arena of its own");
        let pages = backed_pages(arena)
            .into_iter()
            .map(|page| (page, words(arena, page).iter().map(|word| word.load(Ordering::Relaxed)).collect()))
            .collect();
        Fresh { arena, pages }
    }

    fn restore(&self) {
        for page in backed_pages(self.arena) {
            words(self.arena, page).iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
        for (page, content) in &self.pages {
            words(self.arena, *page).iter().zip(content).for_each(|(word, old)| word.store(*old, Ordering::Relaxed));
        }
    }
}

fn words(arena: &Arena, page: u64) -> &'static [AtomicU64] {
    arena.memory().words(page, PAGE).expect("a page of the arena")
}

fn backed_pages(arena: &Arena) -> Vec<u64> {
    let fd = arena.fd().expect("the arena's descriptor").as_raw_fd();
    let (mut pages, mut at) = (Vec::new(), 0);
    loop {
        let from = seek(fd, at, libc::SEEK_DATA);
        let Some(from) = from else { return pages };
        let to = seek(fd, from, libc::SEEK_HOLE).unwrap_or(SIZE);
        pages.extend((from..to).step_by(PAGE as usize));
        at = to;
    }
}

#[allow(unsafe_code)]
fn seek(fd: i32, at: u64, whence: i32) -> Option<u64> {
    // SAFETY: moves an offset that nobody uses.
    let found = unsafe { libc::lseek(fd, at as i64, whence) };
    u64::try_from(found).ok()
}

thread_local! {
    static FRESH: RefCell<Option<Fresh>> = const { RefCell::new(None) };
}

/// The target. Panics when something is left that must not be.
pub fn run(data: &[u8], mut trace: impl FnMut(Step)) -> Done {
    FRESH.with_borrow_mut(|fresh| {
        let fresh = fresh.get_or_insert_with(Fresh::make);
        fresh.restore();
        let done = play(fresh.arena, &mut Input::new(data), &mut trace);
        let holds = fresh.arena.who().map_or(0, |who| who.thread.holds());
        assert_eq!(holds, 0, "a lock is left in the kernel's list when every guard is gone");
        done
    })
}

/// A step of the target.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A word was written over.
    Write(crate::map::Place),
    /// An operation begins.
    Operation(u8),
}

fn play(arena: &'static Arena, input: &mut Input<'_>, trace: &mut impl FnMut(Step)) -> Done {
    let mut done = Done::default();
    let things = Things::make(arena).expect("one of everything in a fresh arena");
    let ends = Ends::pair(arena).expect("pipes in a fresh arena");
    let map = Map::of(arena).expect("a fresh arena");
    let mut hands = Hands::default();
    while !input.is_empty() {
        if input.byte() % 5 < 2 {
            for _ in 0..=input.byte() % 4 {
                let place = scribble(arena, &map, input).expect("words of the map");
                trace(Step::Write(place));
                done.writes += 1;
                done.live += u64::from(place.is_live());
            }
        }
        match things.operate(arena, &ends, &mut hands, input, |what| trace(Step::Operation(what))) {
            Ok(()) => done.done += 1,
            Err(refused) => {
                // Whoever prints an error reads what it carries.
                std::hint::black_box(refused.to_string());
                done.refused += 1;
            }
        }
    }
    trace(Step::Operation(u8::MAX));
    drop((hands, ends, things));
    let _ = arena.collect();
    done
}
