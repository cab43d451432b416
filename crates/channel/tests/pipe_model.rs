//! The shipping words of one way of a pipe under loom, over the shipping wait words, and life words that are shipping locks: whoever dies at whichever change of a
//! word, the other end gets what was committed, then learns of the death. Each rule that this relies on is left out once, and missed.

use loom as checker;

#[path = "../../shm/tests/world/mod.rs"]
mod world;

mod mock;

#[allow(dead_code, unreachable_pub)]
#[path = "../../shm/src/raw/lock.rs"]
mod lock;
#[allow(dead_code, unreachable_pub, rustdoc::broken_intra_doc_links)]
#[path = "../../shm/src/raw/wait_word.rs"]
mod wait_word;

/// What the modelled files call `crate::beneath`.
#[allow(unused_imports)]
mod beneath {
    pub(crate) use crate::lock::RawLock;
    pub(crate) use crate::mock::{Arena, BlockId, Error, RawRef, Round, Shared, age, cache};
    pub(crate) use crate::wait_word::WaitWord;
    pub(crate) use crate::world::*;
}

#[allow(dead_code, unreachable_pub)]
#[path = "../src/pipe"]
mod pipe {
    pub(crate) mod record;
    pub(crate) mod way;
}

use lock::{RawLock, Who};
use loom::thread;
use mock::{Arena, BlockId, Round};
use pipe::record::{Form, Head, RESERVE, Ring};
use pipe::way::{Received, Sent};
use std::cell::RefCell;
use wait_word::WaitWord;
use world::check::{ONE_ORDER, holds_at_each_step, holds_within};
use world::crash::dies_anywhere;
use world::shared::shared;
use world::{AtomicU64, Ordering, Thread, Without, Word, membarrier, wait_all};

const SENDER: usize = 0;
const RECEIVER: usize = 1;
const MESSAGES: u64 = 3;

struct Pipe {
    arena: Arena,
    ring: Ring,
    sent: Sent,
    received: Received,
    lives: [RawLock; 2],
}

impl Default for Pipe {
    fn default() -> Pipe {
        // Room for two records of one word of payload.
        let words: &'static [AtomicU64; 8] = shared();
        let (arena, word) = (Arena(Round(words)), AtomicU64::default);
        Pipe {
            arena,
            ring: Ring::new(&arena, BlockId::from_word(1).unwrap()).unwrap(),
            sent: Sent { tail: word(), cw: WaitWord::default(), ring: word(), backed: word(), putting: word() },
            received: Received { head: word(), pw: WaitWord::default() },
            lives: Default::default(),
        }
    }
}

impl Pipe {
    fn begins(&self, end: usize) {
        let _ = self.lives[end].lock(Who::new(Thread, end as u64)).unwrap();
    }

    /// As `Arena::wait_for` does it for an end of a pipe. False: the other end's process has died.
    fn wait(&self, mine: &WaitWord, peer: usize, done: impl Fn() -> bool) {
        let life = &self.lives[peer];
        loop {
            mine.prepare();
            let watched = life.watch();
            membarrier::heavy();
            let Some(watched) = watched.filter(|_| !done()) else { break };
            let pending = Thread.set_baton(watched.0);
            let as_word = |(word, expected)| Word { word, expected };
            wait_all(&[as_word(mine.watch()), as_word(watched)]);
            if life.owner_died() {
                life.tell_of_death();
            }
            if done() {
                mine.pass_on_if_owed();
            }
            Thread.restore_pending(pending);
            if done() || life.owner_died() {
                break;
            }
        }
        mine.finish();
    }

    /// False: nobody will receive it.
    fn send(&self, message: u64) -> bool {
        let tail = self.sent.tail.load(Ordering::Relaxed);
        let head = Head::new(Form::Value, 8, 0);
        let needed = (tail + head.size() + RESERVE).saturating_sub(self.ring.len);
        let has_room = || self.received.head.load(Ordering::Acquire) >= needed;
        while !has_room() {
            if self.lives[RECEIVER].owner_died() {
                return false;
            }
            self.wait(&self.received.pw, RECEIVER, has_room);
        }
        self.ring.write_record(&self.arena, tail, head, &(message + 100).to_ne_bytes(), std::iter::empty()).unwrap();
        self.sent.commit(Thread, &self.ring, tail, head).unwrap();
        true
    }

    /// `None`: nobody will send any more.
    fn recv(&self) -> Option<u64> {
        let at = self.received.head.load(Ordering::Relaxed);
        loop {
            // Asked first: what was sent before the end is seen.
            let ended = self.lives[SENDER].owner_died();
            if let Some(head) = self.ring.head(at).unwrap() {
                let mut payload = [0];
                assert!(self.ring.read_words(at, &mut payload));
                self.received.commit_taking(Thread, &self.ring, at, head, false);
                return Some(payload[0].checked_sub(100).expect("a message that was sent"));
            }
            if ended {
                return None;
            }
            self.wait(&self.sent.cw, SENDER, || !matches!(self.ring.head(at), Ok(None)));
        }
    }

    fn send_all(&self) {
        self.begins(SENDER);
        let _all = (0..MESSAGES).all(|message| self.send(message));
    }
}

fn in_order() {
    let pipe: &Pipe = shared();
    let sender = thread::spawn(|| pipe.send_all());
    (0..MESSAGES).for_each(|message| assert_eq!(pipe.recv(), Some(message)));
    sender.join().unwrap();
}

/// The receiver gets all that was committed, in order, and then the news.
fn sender_dies(k: u32) -> bool {
    let pipe: &Pipe = shared();
    pipe.begins(SENDER);
    let receiver = thread::spawn(|| {
        pipe.begins(RECEIVER);
        let got: Vec<u64> =
            std::iter::from_fn(|| (pipe.received.head.load(Ordering::Relaxed) < 48).then(|| pipe.recv()).flatten()).collect();
        assert!(got.iter().copied().eq(0..got.len() as u64), "{got:?}");
        got.len() as u64
    });
    let died = dies_anywhere(k, || _ = (0..MESSAGES).all(|message| pipe.send(message)));
    let got = receiver.join().unwrap();
    assert!(died || got == MESSAGES, "{got} of {MESSAGES} are received");
    assert!(matches!(pipe.ring.head(pipe.received.head.load(Ordering::Relaxed)), Ok(None)), "what was committed is left there");
    died
}

/// The sender has no room, and learns that it will have none.
fn receiver_dies(k: u32) -> bool {
    let pipe: &Pipe = shared();
    pipe.begins(RECEIVER);
    let sender = thread::spawn(|| pipe.send_all());
    let got = RefCell::new(Vec::new());
    let died = dies_anywhere(k, || (0..MESSAGES).for_each(|_| got.borrow_mut().extend(pipe.recv())));
    sender.join().unwrap();
    assert!(got.borrow().iter().copied().eq(0..got.borrow().len() as u64));
    died
}

fn at_each_step(scene: fn(u32) -> bool) {
    assert!(holds_at_each_step(1, ONE_ORDER, Without::Nothing, true, scene).is_ok());
}

#[test]
fn what_is_sent_is_received_in_order() {
    assert!(holds_within(2, ONE_ORDER, Without::Nothing, true, in_order));
}

#[test]
fn a_sender_that_dies_has_sent_or_not_and_is_missed() {
    at_each_step(sender_dies);
}

#[test]
fn a_receiver_that_dies_is_missed() {
    at_each_step(receiver_dies);
}

#[test]
fn each_rule_is_needed() {
    let missed = |without, scene: fn(u32) -> bool| {
        assert!(holds_at_each_step(1, ONE_ORDER, without, false, scene).is_err(), "{without:?} is not missed");
    };
    missed(Without::List, sender_dies);
    missed(Without::List, receiver_dies);
    assert!(!holds_within(2, ONE_ORDER, Without::SleepersFence, false, in_order), "the fence is not missed");
    assert!(!holds_within(2, ONE_ORDER, Without::Publication, false, in_order), "the commit's order is not missed");
}
