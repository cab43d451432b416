//! Waiting as the one sleeper of a wait word, or for whatever is [`Waitable`], with a note in the roster (see [`crate::notes`]) of who waits for
//! what, and since when.

use crate::arena::{Arena, SlotId};
use crate::error::Error;
use crate::notes::{GENERATION_BITS, Note, Op, Waits, note_word};
use crate::raw::WaitWord;
use crate::roster::Slot;
use multiproc_sys::clock::{Deadline, now_nanos};
use multiproc_sys::futex::Wait;
use multiproc_sys::futex_waitv::{Word, wait_any};
use multiproc_sys::{crash, membarrier, robust, spin};
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::AtomicU32;

/// Something to wait for that several words tell of. Several of them can be waited for together: each adds its words.
pub trait Waitable {
    /// Whether there is nothing to wait for any more.
    fn ready(&self) -> bool;

    /// Announces a sleeper in the words and adds them. The caller looks once more whether it is ready before it sleeps: a fence lies in between.
    fn prepare(&self, words: &mut Words);

    /// After each sleep: tells those who sleep on the same words what this sleeper's wake may have been meant to tell.
    fn woken(&self);

    /// Takes the announcement back.
    fn finish(&self);
}

/// What a sleeper sleeps on.
#[derive(Debug, Default)]
pub struct Words {
    words: Vec<Word<'static>>,
    shared: Option<&'static AtomicU32>,
}

impl Words {
    fn clear(&mut self) {
        self.words.clear();
        self.shared = None;
    }

    /// Adds a word and the value with which to sleep.
    pub fn push(&mut self, (word, expected): (&'static AtomicU32, u32)) {
        self.words.push(Word { word, expected });
    }

    /// As [`push`](Words::push), for a word on which other processes sleep too and of whom a wake reaches only one: if this one dies with
    /// the wake in hand, the kernel wakes the next. Of several such words the last is guarded.
    pub fn push_shared(&mut self, (word, expected): (&'static AtomicU32, u32)) {
        self.push((word, expected));
        self.shared = Some(word);
    }
}

/// The last wait of this thread that ended because time was up: in which slot's roster, its note, when it began and when it ended.
#[derive(Clone, Copy)]
struct GaveUp {
    slot: *const Slot,
    word: u64,
    since: u64,
    at: u64,
}

thread_local! {
    static GAVE_UP: Cell<GaveUp> = const { Cell::new(GaveUp { slot: ptr::null(), word: 0, since: 0, at: 0 }) };
}

/// While it lives, the roster says that the calling thread waits.
#[derive(Debug)]
#[must_use = "the note goes when this is dropped"]
pub struct Noted {
    slot: &'static Slot,
    /// `None` when all notes were taken.
    note: Option<&'static Note>,
    word: u64,
    since: u64,
}

impl Noted {
    /// The wait is over; `timed_out` says that it was in vain.
    pub fn end(self, timed_out: bool) {
        if timed_out {
            GAVE_UP.set(GaveUp { slot: self.slot, word: self.word, since: self.since, at: now_nanos() });
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if robust::forked() {
            return;
        }
        self.slot.notes.free(self.note);
        crash::point("note.freed");
    }
}

impl Arena {
    /// Notes that the calling thread waits for an object; to be called by who is about to sleep.
    pub fn note_wait(&self, op: Op, index: u32, deadline: Option<Deadline>) -> Option<Noted> {
        self.note(op, u64::from(index), deadline.is_some())
    }

    /// Notes that the calling thread waits for a process to end.
    pub fn note_join(&self, process: SlotId, deadline: Option<Deadline>) -> Option<Noted> {
        let end = process.generation & ((1 << GENERATION_BITS) - 1);
        self.note(Op::Join, u64::from(process.index) << GENERATION_BITS | u64::from(end), deadline.is_some())
    }

    /// Notes that the calling thread waits for a debugger.
    pub fn note_stop(&self) -> Option<Noted> {
        self.note(Op::Continue, 0, false)
    }

    /// Notes that the calling thread waits for any of `things`.
    pub(crate) fn note_any(&self, things: usize, deadline: Option<Deadline>) -> Option<Noted> {
        self.note(Op::Any, u32::try_from(things).unwrap_or(u32::MAX).into(), deadline.is_some())
    }

    #[cold]
    fn note(&self, op: Op, awaited: u64, limited: bool) -> Option<Noted> {
        let slot = self.slot(self.my_slot()).ok()?;
        let thread = robust::current().ok()?.tid();
        let (word, since) = (note_word(op, thread, awaited, limited), now_nanos());
        GAVE_UP.with(|last| last.set(GaveUp { word: 0, ..last.get() }));
        let note = slot.notes.take(thread, word, since);
        crash::point("note.taken");
        Some(Noted { slot, note, word, since })
    }

    /// The calling thread's last wait in this arena, if it ended because time was up.
    pub(crate) fn gave_up(&self) -> Option<Waits> {
        let GaveUp { slot, word, since, at } = GAVE_UP.get();
        let mine = self.slot(self.my_slot()).ok()?;
        if ptr::eq(slot, mine) { Waits::read(word, since, Some(at)) } else { None }
    }

    /// Until `ready` says so: spin a little, announce the sleep, look again, sleep. False when time is up. The caller holds the lock that makes
    /// it the only sleeper; it waits to do `op` with the object `index`.
    pub fn wait_alone(&self, op: Op, index: u32, word: &WaitWord, deadline: Option<Deadline>, ready: impl Fn() -> bool) -> bool {
        // The fence of `prepare` is enough: who kicks has one of its own.
        self.alone(op, index, word, deadline, || true, ready)
    }

    /// As [`wait_alone`](Arena::wait_alone), for a word that is kicked by
    /// [`commit_and_kick_lightly`](WaitWord::commit_and_kick_lightly): the sleeper makes the fence of both sides.
    pub fn wait_alone_fencing(
        &self,
        op: Op,
        index: u32,
        word: &WaitWord,
        deadline: Option<Deadline>,
        ready: impl Fn() -> bool,
    ) -> bool {
        // Pairs with `light` in `commit_and_kick_lightly`.
        self.alone(op, index, word, deadline, membarrier::heavy, ready)
    }

    fn alone(
        &self,
        op: Op,
        index: u32,
        word: &WaitWord,
        deadline: Option<Deadline>,
        fence: impl Fn() -> bool,
        ready: impl Fn() -> bool,
    ) -> bool {
        if spin::until(&ready) {
            return true;
        }
        let mut note = None;
        let mut sleep = || {
            // Not before the fence, which may take long.
            word.sleep_until(deadline, &fence, &ready, || {
                if note.is_none() {
                    note = self.note_wait(op, index, deadline);
                }
            })
        };
        // The caller's lock passes on by its death, and so does what it owes to watchers.
        let timed_out = match robust::current() {
            Ok(me) => word.guarded(me, sleep),
            Err(_) => sleep(),
        };
        word.finish();
        end(note, timed_out);
        !timed_out
    }

    /// Until `what` is ready; false when time is up. It waits to do `op` with the object `index`.
    pub fn wait_for(&self, op: Op, index: u32, what: &impl Waitable, deadline: Option<Deadline>) -> Result<bool, Error> {
        if spin::until(|| what.ready()) {
            return Ok(true);
        }
        let me = self.who()?.thread;
        let mut note = None;
        let mut words = Words::default();
        let mut timed_out = false;
        while !timed_out {
            words.clear();
            what.prepare(&mut words);
            // Pairs with the fence, whole or light, of who changes something and then looks whether somebody sleeps.
            let fenced = membarrier::heavy();
            if what.ready() {
                break;
            }
            // Not before: the fence takes long, and who is noted and announced counts as one who waits in earnest.
            if note.is_none() {
                note = self.note_wait(op, index, deadline);
            }
            let pending = words.shared.map(|word| me.set_baton(word));
            crash::point("waiting.before_sleep");
            let why = wait_any(&words.words, deadline, !fenced);
            crash::point("waiting.after_sleep");
            what.woken();
            crash::point("waiting.told");
            pending.into_iter().for_each(|pending| me.restore_pending(pending));
            if what.ready() {
                break;
            }
            timed_out = why == Wait::TimedOut;
        }
        what.finish();
        end(note, timed_out);
        Ok(!timed_out)
    }
}

/// Ends a wait that may have been noted.
pub fn end(note: Option<Noted>, timed_out: bool) {
    if let Some(note) = note {
        note.end(timed_out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::notes::{Awaited, NOTES};
    use std::sync::Barrier;

    fn arena() -> &'static Arena {
        Arena::create(&Options { size: 16 << 20, ..Options::new(0, &[]) }).unwrap()
    }

    #[test]
    fn each_thread_has_its_note_and_the_rest_is_counted() {
        let arena = arena();
        let slot = arena.slot(0).unwrap();
        let threads = NOTES + 3;
        let (noted, done) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
        std::thread::scope(|s| {
            let all: Vec<_> = (0..threads)
                .map(|i| {
                    let (noted, done) = (&noted, &done);
                    s.spawn(move || {
                        let note = arena.note_wait(Op::Lock, i as u32, None);
                        noted.wait();
                        done.wait();
                        drop(note);
                    })
                })
                .collect();
            noted.wait();
            let waits = slot.notes.read();
            assert_eq!(waits.len(), NOTES);
            assert!(waits.iter().all(|w| w.op == Op::Lock && w.since > 0));
            assert_eq!(slot.notes.unnoted(), 3);
            done.wait();
            all.into_iter().for_each(|t| t.join().unwrap());
        });
        assert_eq!((slot.notes.read(), slot.notes.unnoted()), (vec![], 0));
    }

    #[test]
    fn who_gave_up_is_remembered_until_it_waits_again() {
        let (arena, other) = (arena(), super::tests::arena());
        end(arena.note_wait(Op::Put, 4, None), true);
        let last = arena.gave_up().unwrap();
        assert_eq!((last.op, last.on), (Op::Put, Awaited::Object(4)));
        assert!(last.gave_up.unwrap() >= last.since && other.gave_up().is_none());
        drop(arena.note_wait(Op::Get, 4, None));
        assert_eq!(arena.gave_up(), None);
    }
}
