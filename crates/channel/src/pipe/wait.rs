//! Waiting at one end of a pipe: for a record or for room, or until something is new at an end, or until the process at the other end is dead; for that
//! alone, or for other things as well.
//!
//! The sleeper sleeps on four words at once. Its own, on which it is alone: it has the turn of its side. `news` of both ends, which up to four threads
//! watch: who kicks wakes all, and who is woken by a kicker's death wakes the others. And the life word of the process at the other end, which is watched
//! by whoever has to do with that process: the kernel wakes one, who tells the others, and who passes the wake on by its own death.
//!
//! A watcher that waits for other things as well ([`multiproc_shm::watching`]) sleeps on the same words, and takes no turn.

use super::cell::Owner;
use super::local::{Local, Peer};
use multiproc_shm::notes::Op;
use multiproc_shm::raw::{RawLock, WaitWord};
use multiproc_shm::waiting::{Waitable, Words};
use multiproc_shm::watching::{Seen, Watched, Watchlist};
use multiproc_shm::{Arena, Error};
use multiproc_sys::clock::Deadline;
use multiproc_sys::spin;
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::Ordering;

thread_local! {
    /// The end through which the thread has sent something, and not waited since. Only compared.
    static ASKED: Cell<*const Local> = const { Cell::new(ptr::null()) };
}

/// What a thread at one end waits for.
pub(super) struct Waiting<'a, F> {
    local: &'a Local,
    word: &'static WaitWord,
    done: F,
    seen: News,
}

/// Owner of the other end, its flags, and those of this end.
type News = (u64, u32, u32);

impl Local {
    /// Waits until `done`, or until the ends are no longer as they were; false when time is up.
    pub(super) fn wait(
        &self,
        op: Op,
        word: &'static WaitWord,
        deadline: Option<Deadline>,
        done: impl Fn() -> bool,
    ) -> Result<bool, Error> {
        let waiting = Waiting { local: self, word, done, seen: self.news() };
        let answered = || {
            self.ask_for_second_line();
            (waiting.done)()
        };
        if op == Op::Recv && self.has_asked() && spin::closely(answered, || waiting.ready()) {
            return Ok(true);
        }
        self.arena().wait_for(op, self.index(), &waiting, deadline)
    }

    /// What the calling thread did last with a pipe was to send something here: an answer may come soon. Asked once.
    fn has_asked(&self) -> bool {
        ASKED.replace(ptr::null()) == ptr::from_ref(self)
    }

    /// The calling thread has sent something.
    #[inline]
    pub(super) fn note_asked(&self) {
        ASKED.set(self);
    }

    fn news(&self) -> News {
        let (own, other) = (self.own(), self.other());
        // Acquire pairs with the changes: what was sent before them is seen.
        (other.owner.load(Ordering::Acquire), other.flags(), own.flags())
    }

    /// The life word of the process that uses the other end, as `news` says, unless that is this one.
    fn life_of_peer(&self, news: News) -> Option<&'static RawLock> {
        let slot = Owner::from_word(news.0)?.slot().filter(|&slot| slot != self.arena().my_slot())?;
        Some(&self.arena().slot(slot).ok()?.life)
    }

    /// After a sleep: tells those who watch the same life word, and those who watch the ends if there is something new.
    fn tell(&self, seen: News) {
        if let Some(life) = self.life_of_peer(seen)
            && life.owner_died()
        {
            life.tell_of_death();
        }
        if self.news() != seen {
            self.other().news.pass_on_to_all();
            self.own().news.pass_on_to_all();
        }
    }
}

fn to_seen((owner, other, own): News) -> Seen {
    [owner, u64::from(other) << 32 | u64::from(own)]
}

fn from_seen([owner, flags]: Seen) -> News {
    (owner, (flags >> 32) as u32, flags as u32)
}

impl Watched for Local {
    fn arena(&self) -> Option<&'static Arena> {
        Some(Local::arena(self))
    }

    fn is_ready(&self, _seen: &Seen) -> bool {
        self.would_recv()
    }

    fn watch(&self, seen: &mut Seen, list: &mut Watchlist) {
        for word in [&self.cell.sent(self.way_in()).cw, &self.other().news, &self.own().news] {
            list.watch(Some(Local::arena(self)), word);
        }
        let news = self.news();
        *seen = to_seen(news);
        if let Some(watched) = self.life_of_peer(news).and_then(RawLock::watch) {
            list.life(watched);
        }
    }

    fn is_watched(&self, seen: &Seen) -> bool {
        self.news() == from_seen(*seen)
    }

    fn woken(&self, seen: &Seen) {
        self.tell(from_seen(*seen));
        if self.is_ready(seen) {
            self.cell.sent(self.way_in()).cw.pass_on_if_owed();
        }
    }
}

impl<F: Fn() -> bool> Waiting<'_, F> {
    fn peer_has_ended(&self) -> bool {
        !matches!(self.local.peer(), Ok(Peer::Nobody | Peer::Alive(_)))
    }
}

impl<F: Fn() -> bool> Waitable for Waiting<'_, F> {
    fn ready(&self) -> bool {
        (self.done)() || self.local.news() != self.seen || self.peer_has_ended()
    }

    fn prepare(&self, words: &mut Words) {
        for word in [self.word, &self.local.other().news, &self.local.own().news] {
            word.prepare();
            words.push(word.watch());
        }
        // Of several who watch `news`, one may announce itself anew and so hide a kick from another that has not slept yet: it compares what has changed. Nobody wakes
        // these words. A change of owner that is missed so is told again by whoever cleans up after the new one.
        let (_, other, own) = self.seen;
        words.push((&self.local.other().flags, other));
        words.push((&self.local.own().flags, own));
        if let Some(watched) = self.local.life_of_peer(self.seen).and_then(RawLock::watch) {
            words.push_shared(watched);
        }
    }

    fn woken(&self) {
        self.local.tell(self.seen);
        if (self.done)() {
            // Watchers may sleep there as well.
            self.word.pass_on_if_owed();
        }
    }

    fn finish(&self) {
        self.word.finish();
    }
}
