//! Notes of who waits for what, since when: a few words in each roster slot.
//!
//! Only who is about to sleep writes a note, so an operation that need not wait costs nothing. Each waiting thread has one of the process's
//! [`NOTES`]; those that find none free are counted. Nothing depends on a note but reports.
//!
//! | word | meaning | written by | if the writer dies there |
//! |---|---|---|---|
//! | `word` of a note | {has a deadline:1, operation:5, thread:30, awaited:28}, 0 when nobody uses the note | the waiting thread, by CAS from 0; 0 by the same when it waits no more | read no more: the slot is dead |
//! | `since` | when the wait began, CLOCK_MONOTONIC in ns; 0: not stored yet | the same thread | the same |
//! | `unnoted` | waits that found no free note | the thread that waits | the same |
//!
//! What is awaited is the index of an object, or {slot:12, end of the slot's generation:16} for [`Op::Join`], or a number of things for [`Op::Any`].

use multiproc_sys::robust;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Threads of one process that can be seen waiting at the same time.
pub const NOTES: usize = 8;

/// What a thread waits to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// To take a lock.
    Lock = 1,
    /// To take a message, also on lease.
    Get = 2,
    /// To put a message.
    Put = 3,
    /// To take a permit.
    Acquire = 4,
    /// To be told.
    Wait = 5,
    /// To receive from a pipe.
    Recv = 6,
    /// To send through a pipe.
    Send = 7,
    /// To see a process end.
    Join = 8,
    /// To be continued by who debugs the process.
    Continue = 9,
    /// To see everything finished that was put into a queue.
    JoinQueue = 10,
    /// To see any of several things ready.
    Any = 20,
}

impl Op {
    const ALL: [Op; 11] =
        [Op::Lock, Op::Get, Op::Put, Op::Acquire, Op::Wait, Op::Recv, Op::Send, Op::Join, Op::Continue, Op::JoinQueue, Op::Any];

    /// The operation's name.
    pub fn name(self) -> &'static str {
        match self {
            Op::Lock => "lock",
            Op::Get => "get",
            Op::Put => "put",
            Op::Acquire => "acquire",
            Op::Wait => "wait",
            Op::Recv => "recv",
            Op::Send => "send",
            Op::Join | Op::JoinQueue => "join",
            Op::Continue => "continue",
            Op::Any => "wait",
        }
    }
}

/// A note in a slot: see the module head.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Note {
    word: AtomicU64,
    since: AtomicU64,
}

/// The notes of a process.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Notes {
    places: [Note; NOTES],
    unnoted: AtomicU32,
    _rest: AtomicU32,
}

const LIMITED: u64 = 1 << 63;
const OP_SHIFT: u32 = 58;
const OP_MASK: u64 = 0x1f;
const THREAD_SHIFT: u32 = 28;
const AWAITED_MASK: u64 = (1 << THREAD_SHIFT) - 1;
/// Of a slot's generation in a note of [`Op::Join`].
pub(crate) const GENERATION_BITS: u32 = 16;

pub(crate) fn note_word(op: Op, thread: u32, awaited: u64, limited: bool) -> u64 {
    let limit = if limited { LIMITED } else { 0 };
    limit | (op as u64) << OP_SHIFT | u64::from(thread & robust::TID_MASK) << THREAD_SHIFT | awaited & AWAITED_MASK
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// An object.
    Object(u32),
    /// The process of a slot.
    Process {
        /// Its slot.
        slot: u32,
        /// How the slot's generation ends.
        generation: u16,
    },
    /// Whoever debugs it.
    Debugger,
    /// Any of so many things.
    AnyOf(u32),
}

/// A thread's wait, as a report sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// The thread's id.
    pub thread: u32,
    /// To do what.
    pub op: Op,
    /// With what.
    pub on: Awaited,
    /// Whether the thread gives up when time is up.
    pub limited: bool,
    /// Since when, CLOCK_MONOTONIC in ns; 0 for a wait that has just begun.
    pub since: u64,
    /// When the thread gave up, for a wait of the calling thread that ended so.
    pub gave_up: Option<u64>,
}

impl Waits {
    /// `None` for words that stand for no wait.
    pub(crate) fn read(word: u64, since: u64, gave_up: Option<u64>) -> Option<Waits> {
        let op = *Op::ALL.iter().find(|&&op| op as u64 == word >> OP_SHIFT & OP_MASK)?;
        let awaited = (word & AWAITED_MASK) as u32;
        let on = match op {
            Op::Join => Awaited::Process { slot: awaited >> GENERATION_BITS, generation: awaited as u16 },
            Op::Continue => Awaited::Debugger,
            Op::Any => Awaited::AnyOf(awaited),
            _ => Awaited::Object(awaited),
        };
        let (thread, limited) = ((word >> THREAD_SHIFT) as u32 & robust::TID_MASK, word & LIMITED != 0);
        Some(Waits { thread, op, on, limited, since, gave_up })
    }
}

impl Notes {
    pub(crate) fn clear(&self) {
        // Relaxed: published with the slot.
        for note in &self.places {
            note.word.store(0, Ordering::Relaxed);
            note.since.store(0, Ordering::Relaxed);
        }
        self.unnoted.store(0, Ordering::Relaxed);
    }

    /// Who waits at this moment.
    pub(crate) fn read(&self) -> Vec<Waits> {
        let one = |note: &Note| {
            // Acquire pairs with the Release in `free`: a word with the `since` of an earlier wait is never seen.
            let word = note.word.load(Ordering::Acquire);
            let since = note.since.load(Ordering::Acquire);
            (word != 0 && note.word.load(Ordering::Relaxed) == word).then(|| Waits::read(word, since, None)).flatten()
        };
        self.places.iter().filter_map(one).collect()
    }

    /// Takes a free note; `None`, and counted, when there is none.
    pub(crate) fn take(&self, thread: u32, word: u64, since: u64) -> Option<&Note> {
        // Threads with neighbouring ids begin at different places.
        let note = (0..NOTES).map(|i| &self.places[(thread as usize).wrapping_add(i) % NOTES]).find(|note| {
            note.word.load(Ordering::Relaxed) == 0
                // Acquire pairs with the Release in `free`.
                && note.word.compare_exchange(0, word, Ordering::Acquire, Ordering::Relaxed).is_ok()
        });
        match note {
            Some(note) => note.since.store(since, Ordering::Release),
            None => _ = self.unnoted.fetch_add(1, Ordering::Relaxed),
        }
        note
    }

    /// Gives back what [`take`](Notes::take) gave.
    pub(crate) fn free(&self, note: Option<&Note>) {
        let Some(note) = note else {
            self.unnoted.fetch_sub(1, Ordering::Relaxed);
            return;
        };
        note.since.store(0, Ordering::Relaxed);
        // Release: who sees the next user's word sees no older `since` than this 0.
        note.word.store(0, Ordering::Release);
    }

    /// Waits that are not among [`read`](Notes::read).
    pub(crate) fn unnoted(&self) -> u32 {
        self.unnoted.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back() {
        let on = |op, awaited| Waits::read(note_word(op, 77, awaited, false), 5, None).unwrap();
        for op in Op::ALL {
            assert_eq!((on(op, 3).op, on(op, 3).thread, on(op, 3).since, on(op, 3).limited), (op, 77, 5, false));
            let limited = Waits::read(note_word(op, 77, 3, true), 5, None).unwrap();
            assert_eq!(limited, Waits { limited: true, ..on(op, 3) });
        }
        assert_eq!(on(Op::Get, 0xfff_ffff).on, Awaited::Object(0xfff_ffff));
        let slot = 1023 << GENERATION_BITS | 9;
        assert_eq!(on(Op::Any, 65).on, Awaited::AnyOf(65));
        assert_eq!(on(Op::Join, slot).on, Awaited::Process { slot: 1023, generation: 9 });
        for nonsense in [0, u64::MAX, 1, 31 << OP_SHIFT] {
            assert_eq!(Waits::read(nonsense, 0, None), None);
        }
    }
}
