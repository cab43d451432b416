//! The kernel's robust list, by its rules (kernel/futex/core.c, `exit_robust_list`): when a thread ends, each word of its list but the pending one, then the
//! pending one: a word with its id becomes `OWNER_DIED` and one sleeper is woken if there may be any; a pending word without an owner has one sleeper woken.

use super::{AtomicU32, Without, crash, futex, lacks};
use crate::checker::{lazy_static, thread_local};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU32 as StdU32, Ordering::Relaxed};

pub(crate) const TID_MASK: u32 = 0x3fff_ffff;
pub(crate) const WAITERS: u32 = 0x8000_0000;
pub(crate) const OWNER_DIED: u32 = 0x4000_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {}

lazy_static! {
    static ref THREADS: StdU32 = StdU32::new(0);
}

thread_local! {
    static TID: Cell<u32> = Cell::new(0);
    static PENDING: Cell<Option<&'static AtomicU32>> = Cell::new(None);
    static LIST: RefCell<Vec<&'static AtomicU32>> = RefCell::new(Vec::new());
}

/// The calling thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread;

#[must_use]
#[derive(Clone, Copy)]
pub(crate) struct Pending(Option<&'static AtomicU32>);

/// All words of the models are leaked.
#[allow(unsafe_code)]
fn leaked(word: &AtomicU32) -> &'static AtomicU32 {
    // SAFETY: it is leaked.
    unsafe { &*std::ptr::from_ref(word) }
}

#[allow(unsafe_code)]
impl Thread {
    pub(crate) fn tid(self) -> u32 {
        TID.with(|tid| {
            if tid.get() == 0 {
                tid.set(THREADS.fetch_add(1, Relaxed) + 1);
            }
            tid.get()
        })
    }

    pub(crate) fn has_room(self) -> bool {
        true
    }

    pub(crate) fn holds(self) -> usize {
        LIST.with(|list| list.borrow().len())
    }

    pub(crate) fn has(self, word: &AtomicU32) -> bool {
        LIST.with(|list| list.borrow().iter().any(|held| std::ptr::eq(*held, word)))
    }

    pub(crate) fn reserve(self) -> Result<(), Unusable> {
        Ok(())
    }

    pub(crate) fn set_pending(self, word: &AtomicU32) -> Pending {
        Pending(PENDING.with(|pending| pending.replace(Some(leaked(word)))))
    }

    pub(crate) fn set_baton(self, word: &AtomicU32) -> Pending {
        self.set_pending(word)
    }

    pub(crate) fn restore_pending(self, Pending(old): Pending) {
        crash::step();
        PENDING.with(|pending| pending.set(old));
    }

    /// # Safety
    /// As that of the original.
    pub(crate) unsafe fn link(self, word: &AtomicU32) {
        crash::step();
        LIST.with(|list| list.borrow_mut().push(leaked(word)));
    }

    pub(crate) fn unlink(self, word: &AtomicU32) -> bool {
        crash::step();
        LIST.with(|list| {
            let mut list = list.borrow_mut();
            let found = list.iter().rposition(|held| std::ptr::eq(*held, word));
            found.map(|at| list.remove(at)).is_some()
        })
    }
}

/// Whether a thread of that id is no more: nobody asks who does not know.
pub(crate) fn is_gone(_tid: u32) -> bool {
    true
}

/// What the kernel does when the calling thread has died.
pub(crate) fn exit() {
    let pending = PENDING.with(Cell::take);
    let list = LIST.with(RefCell::take);
    if !lacks(Without::List) {
        let others = list.into_iter().rev().filter(|word| pending.is_none_or(|pending| !std::ptr::eq(pending, *word)));
        others.for_each(|word| handle_death(word, false));
    }
    if let Some(word) = pending.filter(|_| !lacks(Without::Baton)) {
        handle_death(word, true);
    }
}

/// `handle_futex_death`.
fn handle_death(word: &AtomicU32, is_pending: bool) {
    loop {
        let seen = word.newest();
        let owner = seen & TID_MASK;
        if is_pending && owner == 0 {
            if seen == 0 || !lacks(Without::BatonOfMarked) {
                futex::wake_now(word, 1);
            }
            return;
        }
        if owner != Thread.tid() {
            return;
        }
        if word.kernel_exchange(seen, seen & WAITERS | OWNER_DIED) {
            if seen & WAITERS != 0 {
                futex::wake_now(word, 1);
            }
            return;
        }
    }
}
