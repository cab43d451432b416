//! Whom a cleaner wakes: a process that died between a commit and its wake has the kernel wake who sleeps then, but not who was about to sleep, and has looked.

use super::cell::QueueCell;
use crate::beneath::{Ordering, Thread};

impl QueueCell {
    /// A lease has come back, or may have: the getter looks.
    pub(crate) fn raise_attention(&self, me: Thread) {
        self.produced.cw.commit_and_kick(me, || {
            if self.leases.load(Ordering::Acquire) != 0 {
                self.attention.store(1, Ordering::SeqCst);
            }
        });
    }

    /// After [`raise_attention`](QueueCell::raise_attention): the other side, and all who sleep on a word that the dead one had cleared, before the wake.
    pub(crate) fn wake_the_others(&self, me: Thread) {
        // It may have died between a commit, or ending the queue, and telling the other side.
        self.consumed.pw.commit_and_kick(me, || {});
        // Where the kernel knew that the word was pending it has woken one. It did not if the list of the dead thread was lost.
        for word in [&self.consumed.pw, &self.produced.cw, &self.consumed.join] {
            word.pass_on_to_all();
        }
    }
}
