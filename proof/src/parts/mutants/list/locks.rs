//! Of the lock.

use crate::parts::mutants::Mutant;
use crate::parts::mutants::trial::Test;

const FILE: &str = "shm/src/raw/lock.rs";
const UNIT: Test = Test::unit("multiproc-shm", "raw::lock");
const STEPPED: Test = Test::proof("an_unlocker_is_killed_after_each_few_instructions");
const STEPS: Test = Test::steps("crash_sync", "a_death_at_every_step_of_every_operation");

pub const ALL: &[Mutant] = &[
    Mutant {
        name: "an unlock stores 0",
        file: FILE,
        rows: &[("lock.rs", "`WAITERS` (31)")],
        from: "        self.word.store(WAITERS | mark, Ordering::Release);\n",
        to: "        self.word.store(mark, Ordering::Release);\n",
        by: &[UNIT, STEPS],
    },
    Mutant {
        name: "an unlock wakes nobody",
        file: FILE,
        rows: &[("lock.rs", "`WAITERS` (31)")],
        from: "        if futex::wake(&self.word, 1) == 0 {\n",
        to: "        if self.word.load(Ordering::Relaxed) == 0 {\n",
        by: &[UNIT, STEPS],
    },
    Mutant {
        name: "who takes the lock over drops WAITERS",
        file: FILE,
        rows: &[("lock.rs", "`WAITERS` (31)")],
        from: "                let mine = me.tid() | (seen & WAITERS);\n",
        to: "                let mine = me.tid();\n",
        by: &[UNIT, STEPS],
    },
    Mutant {
        name: "an owner's death is forgotten",
        file: FILE,
        rows: &[("lock.rs", "`OWNER_DIED` (30), TID 0"), ("array.rs", "`lock`")],
        from: "                    return Ok(if seen & OWNER_DIED == 0 { Acquired::Clean } else { Acquired::OwnerDied });\n",
        to: "                    return Ok(Acquired::Clean);\n",
        by: &[UNIT],
    },
    Mutant {
        name: "an owner's death is forgotten by the next unlock in bad order",
        file: FILE,
        rows: &[("lock.rs", "`OWNER_DIED` (30), TID 0")],
        from: "        self.release(me, OWNER_DIED);\n",
        to: "        self.release(me, 0);\n",
        by: &[UNIT],
    },
    Mutant {
        name: "nothing is pending while the lock is waited for",
        file: FILE,
        rows: &[
            ("raw/signals.rs", "`gate`"),
            ("sync/src/semaphore.rs", "`gate`"),
            ("lock.rs", "TID (29..0)"),
            ("ring/put.rs", "waiting for `plock`, or for room"),
            ("ring/get.rs", "waiting for `clock`, or for data"),
        ],
        from: "        let found = self.take_word(me, wait);\n",
        to: "        me.restore_pending(pending);\n        let found = self.take_word(me, wait);\n",
        by: &[STEPS],
    },
    Mutant {
        name: "nothing is pending while the lock is let go",
        file: FILE,
        rows: &[("lock.rs", "TID (29..0)"), ("ring/put.rs", "after the wake")],
        from: "        crash::point(\"unlock.pending\");\n",
        to: "        me.restore_pending(pending);\n        crash::point(\"unlock.pending\");\n",
        by: &[STEPS],
    },
    Mutant {
        name: "the kernel does not know of the lock",
        file: FILE,
        rows: &[("value.rs", "`lock`"), ("lock.rs", "`link`")],
        from: "        unsafe { who.thread.link(&self.word) };\n",
        to: "",
        by: &[UNIT],
    },
    // No crash point lies in between: what is left behind shows only where each instruction may be the last.
    Mutant {
        name: "a lock is taken before the kernel is told of it",
        file: FILE,
        rows: &[("lock.rs", "TID (29..0)")],
        from: "        let pending = me.set_pending(&self.word);\n        crash::point(\"lock.pending\");\n        // Acquire pairs with the Release stores in `unlock`.\n        let free = self.word.compare_exchange(0, me.tid(), Ordering::Acquire, Ordering::Relaxed).is_ok();\n",
        to: "        let free = self.word.compare_exchange(0, me.tid(), Ordering::Acquire, Ordering::Relaxed).is_ok();\n        let pending = me.set_pending(&self.word);\n        crash::point(\"lock.pending\");\n",
        by: &[Test::proof("a_locker_is_killed_after_each_few_instructions")],
    },
    Mutant {
        name: "a lock leaves the list before it is pending",
        file: FILE,
        rows: &[("lock.rs", "TID (29..0)")],
        from: "        let pending = me.set_pending(&self.word);\n        crash::point(\"unlock.pending\");\n        me.unlink(&self.word);\n",
        to: "        me.unlink(&self.word);\n        let pending = me.set_pending(&self.word);\n        crash::point(\"unlock.pending\");\n",
        by: &[STEPPED],
    },
    Mutant {
        name: "a lock is in the kernel's list before it has its link",
        file: "sys/src/robust.rs",
        rows: &[("lock.rs", "`link`")],
        from: "        link.store(below as usize, Ordering::Relaxed);\n        self.place(count + 1).set(word);\n        compiler_fence(Ordering::SeqCst);\n        self.local().count.set(count + 1);\n        compiler_fence(Ordering::SeqCst);\n        self.set_first(node_of(word));\n",
        to: "        self.place(count + 1).set(word);\n        compiler_fence(Ordering::SeqCst);\n        self.local().count.set(count + 1);\n        compiler_fence(Ordering::SeqCst);\n        self.set_first(node_of(word));\n        compiler_fence(Ordering::SeqCst);\n        link.store(below as usize, Ordering::Relaxed);\n",
        by: &[Test::proof("the_first_locker_is_killed_after_each_few_instructions")],
    },
    Mutant {
        name: "an owner leaves its name",
        file: FILE,
        rows: &[("lock.rs", "`owner`")],
        from: "        self.owner.store(0, Ordering::Relaxed);\n        // Release pairs with the Acquire in `acquire`.\n",
        to: "        // Release pairs with the Acquire in `acquire`.\n",
        by: &[UNIT],
    },
    Mutant {
        name: "who died is not noted",
        file: FILE,
        rows: &[("lock.rs", "`died`")],
        from: "            self.died.store(dead, Ordering::Relaxed);\n",
        to: "",
        by: &[UNIT],
    },
    Mutant {
        name: "the deaths of owners are not counted",
        file: FILE,
        rows: &[("lock.rs", "`deaths`")],
        from: "                    self.deaths.fetch_add(1, Ordering::Relaxed);\n",
        to: "",
        by: &[UNIT],
    },
    Mutant {
        name: "a death is news for ever",
        file: FILE,
        rows: &[("lock.rs", "`told`")],
        from: "            self.told.store(1, Ordering::Relaxed);\n",
        to: "",
        by: &[UNIT, Test::model("multiproc-sync", "told", "")],
    },
    Mutant {
        name: "the death of who was about to mend is no news",
        file: FILE,
        rows: &[("lock.rs", "`told`")],
        from: "            self.told.store(0, Ordering::Relaxed);\n        }\n",
        to: "        }\n",
        by: &[Test::model("multiproc-sync", "told", "")],
    },
    Mutant {
        name: "a flush wakes nobody",
        file: FILE,
        rows: &[("lock.rs", "`idle_wakes`")],
        from: "            futex::clear_top_bit_and_wake_all(&self.word);\n",
        to: "            self.word.fetch_and(!WAITERS, Ordering::Relaxed);\n",
        by: &[UNIT, STEPS],
    },
];
