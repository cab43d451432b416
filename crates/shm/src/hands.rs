//! Which word of its process's slot a thread notes in what it has in hand ([`Slot::hands`](crate::roster::Slot)): one of its own from its first message until it ends, so
//! that no thread covers what another has noted. Beyond [`HANDS`] threads at a time that have taken something, those that come later share.

use crate::roster::HANDS;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bit for each word that is somebody's.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

const _: () = assert!(HANDS <= usize::BITS as usize);

const NONE: usize = usize::MAX;

thread_local! {
    static MINE: Cell<usize> = const { Cell::new(NONE) };
    /// Gives the word back when the thread ends.
    static CLAIM: Claim = Claim(take());
}

struct Claim(Option<usize>);

impl Drop for Claim {
    fn drop(&mut self) {
        MINE.set(NONE);
        if let Some(word) = self.0 {
            // Release pairs with the Acquire in `take`: who gets the word next writes it after us.
            TAKEN.fetch_and(!(1 << word), Ordering::Release);
        }
    }
}

/// The index of the calling thread's word; the same from before a message is taken until its caller has it.
#[inline]
pub fn of_this_thread() -> usize {
    let mine = MINE.get();
    if mine < HANDS { mine } else { choose() }
}

#[cold]
fn choose() -> usize {
    // There is none to claim if all are taken, or if the thread is about to end: its thread-locals are being dropped.
    let word = CLAIM.try_with(|claim| claim.0).ok().flatten().unwrap_or_else(shared);
    MINE.set(word);
    word
}

fn take() -> Option<usize> {
    let lowest = |taken: usize| Some(taken.trailing_ones() as usize).filter(|&word| word < HANDS);
    let before = TAKEN.fetch_update(Ordering::Acquire, Ordering::Relaxed, |taken| Some(taken | 1 << lowest(taken)?));
    before.ok().and_then(lowest)
}

fn shared() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed) % HANDS
}

/// The process has been made by a plain fork, and this thread is all that came with it.
pub(crate) fn only_this_thread() {
    let mine = MINE.get();
    TAKEN.store(if mine < HANDS { 1 << mine } else { 0 }, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;

    /// One test, since all threads of the program share the words.
    #[test]
    fn each_thread_that_lives_has_its_own_word() {
        let mine = of_this_thread();
        for _ in 0..5 * HANDS {
            let other = thread::spawn(of_this_thread).join().unwrap();
            assert!(other != mine && other < HANDS);
        }
        let (all, at_once) = (Barrier::new(HANDS - 1), HANDS - 1);
        let mut words: Vec<usize> = thread::scope(|scope| {
            let play = || {
                let word = of_this_thread();
                all.wait();
                assert_eq!(of_this_thread(), word);
                word
            };
            let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(play)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        words.push(mine);
        words.sort_unstable();
        assert_eq!(words, (0..HANDS).collect::<Vec<_>>());
        // After a fork nobody is there but us.
        TAKEN.store(usize::MAX, Ordering::Relaxed);
        assert!(thread::spawn(of_this_thread).join().unwrap() < HANDS);
        only_this_thread();
        assert_eq!(TAKEN.load(Ordering::Relaxed), 1 << mine);
    }
}
