//! Of wait words, and of who waits for several things.

use crate::parts::mutants::Mutant;
use crate::parts::mutants::trial::Test;

const FILE: &str = "shm/src/raw/wait_word.rs";
const SHM: &str = "multiproc-shm";
const SYNC: &str = "multiproc-sync";

pub const ALL: &[Mutant] = &[
    Mutant {
        name: "a light kick without the baton",
        file: FILE,
        rows: &[
            ("ring/cell.rs", "`cw`, `pw`"),
            ("wait_word.rs", "0 | nobody needs a wake"),
            ("watching.rs", "after the change, before the wake"),
            ("ring/put.rs", "after the commit, before the wake"),
            ("ring/get.rs", "after the commit, before the wake"),
            ("pipe/send.rs", "after the commit, before the wake"),
            ("pipe/recv.rs", "after the commit, before the wake"),
        ],
        from: "crash::point(\"wait_word.pending_lightly\");",
        to: "me.restore_pending(pending);",
        by: &[
            Test::model(SHM, "watchers", "a_putter_that_dies_strands_no_watcher"),
            Test::steps("crash_queue", "one_dies_at_each_step").only("Put(Inline), Getters"),
        ],
    },
    Mutant {
        name: "a kick in order without the baton",
        file: FILE,
        rows: &[("raw/event.rs", "`sleepers`"), ("raw/signals.rs", "`released`")],
        from: "crash::point(\"wait_word.pending_in_order\");",
        to: "me.restore_pending(pending);",
        by: &[
            Test::model(SYNC, "models", "a_setter_that_dies"),
            Test::steps("crash_sync", "a_death_at_every_step_of_every_operation"),
        ],
    },
    Mutant {
        name: "a kick of all without the baton",
        file: FILE,
        rows: &[
            ("pipe/local.rs", "after the CAS, before it has told"),
            ("pipe/local.rs", "having let go, before it has told"),
            ("pipe/cell.rs", "`news`"),
        ],
        from: "crash::point(\"wait_word.pending_all\");",
        to: "me.restore_pending(pending);",
        by: &[
            Test::steps("crash_wait", "at_a_pipe_the_change_is_told_by_the_kernel"),
            Test::steps("crash_pipe", "one_dies_at_each_step").only("Receiver"),
        ],
    },
    Mutant {
        name: "a sleeper guards nothing",
        file: FILE,
        rows: &[("ring/join.rs", "having acknowledged, before the wake")],
        from: "        let r = body();\n        me.restore_pending(pending);",
        to: "        me.restore_pending(pending);\n        let r = body();",
        by: &[
            Test::model(SYNC, "models", "a_waiter_that_dies_swallows_no_set"),
            Test::steps("crash_queue", "one_dies_at_each_step").only("Ack(Inline), Joiners"),
        ],
    },
    Mutant {
        name: "the kick before the commit",
        file: FILE,
        rows: &[("wait_word.rs", "`WAITERS`")],
        from: "        commit();\n        crash::point(\"wait_word.committed_lightly\");\n        // Pairs with `heavy` of the sleeper.\n        \
               membarrier::light();\n        if self.word.load(Ordering::Relaxed) != 0 {\n            self.kick_slow(1);\n        }\n",
        to: "        membarrier::light();\n        if self.word.load(Ordering::Relaxed) != 0 {\n            self.kick_slow(1);\n        }\n        \
             commit();\n        crash::point(\"wait_word.committed_lightly\");\n",
        by: &[Test::model(SHM, "watchers", "all_watchers_are_told")],
    },
    Mutant {
        name: "the light half of a fence left out",
        file: FILE,
        rows: &[("watching.rs", "after the change, before the wake")],
        from: "        membarrier::light();\n",
        to: "",
        by: &[Test::model(SHM, "watchers", "all_watchers_are_told")],
    },
    Mutant {
        name: "a sleeper's fence left out",
        file: FILE,
        rows: &[("wait_word.rs", "`WAITERS`")],
        from: "        self.word.fetch_or(WAITERS, Ordering::Relaxed);\n        fence(Ordering::SeqCst);\n",
        to: "        self.word.fetch_or(WAITERS, Ordering::Relaxed);\n",
        by: &[Test::model(SYNC, "models", "what_is_released_is_taken")],
    },
    Mutant {
        name: "a kicker's fence left out",
        file: FILE,
        rows: &[("wait_word.rs", "`WAITERS`")],
        from: "        // Pairs with the fence in `prepare`.\n        fence(Ordering::SeqCst);\n",
        to: "",
        by: &[Test::model(SHM, "watchers", "who_waits_alone_is_told")],
    },
    Mutant {
        name: "watchers are woken, then counted",
        file: FILE,
        rows: &[("wait_word.rs", "`SEVERAL` + n")],
        from: "        let _ = self.watchers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);\n        \
               crash::point(\"wait_word.watchers_counted\");\n        futex::clear_and_wake_all(&self.word);\n",
        to: "        futex::clear_and_wake_all(&self.word);\n        crash::point(\"wait_word.watchers_counted\");\n        \
             let _ = self.watchers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);\n",
        by: &[Test::model(SHM, "watchers", "nobody_hides_a_wake_from_another")],
    },
    Mutant {
        name: "watchers are not counted",
        file: FILE,
        rows: &[("wait_word.rs", "`SEVERAL` + n")],
        from: "        let _ = self.watchers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);\n",
        to: "        let _ = more;\n",
        by: &[Test::model(SHM, "watchers", "nobody_hides_a_wake_from_another")],
    },
    Mutant {
        name: "a second watcher is not announced",
        file: FILE,
        rows: &[("wait_word.rs", "`COMING`")],
        from: "                    seconds.fetch_add(1, Ordering::SeqCst);\n",
        to: "                    let _ = seconds;\n",
        by: &[Test::model(SHM, "watchers", "nobody_hides_a_wake_from_another")],
    },
    Mutant {
        name: "a second watcher takes itself for the only one",
        file: FILE,
        rows: &[("wait_word.rs", "a thread's id")],
        from: "                only if only == me => break None,\n",
        to: "                only if only == me || only != 0 && only != COMING => break None,\n",
        by: &[Test::model(SHM, "watchers", "nobody_hides_a_wake_from_another")],
    },
    Mutant {
        name: "watchers are cleared, then woken",
        file: FILE,
        rows: &[("wait_word.rs", "0 after `WATCHED`")],
        from: "        futex::clear_and_wake_all(&self.word);\n",
        to: "        self.word.swap(0, Ordering::SeqCst);\n        crash::point(\"wait_word.cleared\");\n        futex::wake_all(&self.word);\n",
        by: &[
            Test::model(SHM, "watchers", "a_putter_that_dies_strands_no_watcher"),
            Test::steps("crash_wait", "who_changes_something_dies_at_each_step"),
        ],
    },
    Mutant {
        name: "who leaves takes the watchers' bit along",
        file: FILE,
        rows: &[("wait_word.rs", "`WATCHED`")],
        from: "            self.word.fetch_and(!WAITERS, Ordering::Relaxed);\n",
        to: "            self.word.swap(0, Ordering::Relaxed);\n",
        by: &[Test::model(SHM, "watchers", "who_waits_beside_a_watcher")],
    },
    Mutant {
        name: "a kick takes the watchers' bit along",
        file: FILE,
        rows: &[("wait_word.rs", "`WATCHED`")],
        from: "        while seen & WATCHED == 0 {\n            match self.word.compare_exchange(seen, 0, Ordering::Relaxed, Ordering::Relaxed) {\n",
        to: "        while seen & WATCHED == 0 {\n            match Ok::<u32, u32>(self.word.swap(0, Ordering::Relaxed)) {\n",
        by: &[Test::model(SHM, "watchers", "who_waits_beside_a_watcher")],
    },
    Mutant {
        name: "a watcher that was woken by a death keeps it to itself",
        file: FILE,
        rows: &[("watching.rs", "after the change, before the wake")],
        from: "        if self.word.load(Ordering::Relaxed) & WATCHED != 0 {\n            self.kick_watchers();\n        }\n",
        to: "",
        by: &[Test::model(SHM, "watchers", "a_putter_that_dies_strands_no_watcher")],
    },
    Mutant {
        name: "a watcher takes the wake into its grave",
        file: "shm/src/watching.rs",
        rows: &[("watching.rs", "that one, with the wake in hand")],
        from: "            let pending = list.guarded.map(|word| me.set_baton(word));\n",
        to: "            let pending: Option<robust::Pending> = None;\n",
        by: &[Test::steps("crash_wait", "a_watcher_dies_with_the_news_in_hand")],
    },
];
