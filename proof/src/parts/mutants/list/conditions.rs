//! Of what is built of locks and wait words: values, events, semaphores, conditions, barriers.

use crate::parts::mutants::Mutant;
use crate::parts::mutants::trial::Test;

const SYNC: &str = "multiproc-sync";
const STEPS: Test = Test::steps("crash_sync", "a_death_at_every_step_of_every_operation");
const CONDITION: Test = Test::model(SYNC, "condition_model", "");
const BARRIER: Test = Test::model(SYNC, "barrier_model", "");
const MODELS: Test = Test::model(SYNC, "models", "");

pub const ALL: &[Mutant] = &[
    Mutant {
        name: "an event is set by a store",
        file: "sync/src/raw/event.rs",
        rows: &[("raw/event.rs", "`state`")],
        from: "            self.state.fetch_or(SET, Ordering::SeqCst);\n",
        to: "            self.state.fetch_or(SET, Ordering::Relaxed);\n",
        by: &[Test::model(SYNC, "models", "a_set_is_never_missed"), MODELS],
    },
    Mutant {
        name: "the sleeper at a signal semaphore is not woken by the cleaner",
        file: "sync/src/raw/signals.rs",
        rows: &[
            ("watching.rs", "who changes an object, while a watcher is between its last look and its sleep"),
            ("raw/signals.rs", "`released`"),
        ],
        from: "        self.released.kick(u32::MAX);\n",
        to: "",
        by: &[Test::model(SYNC, "models", "a_releaser_that_dies")],
    },
    Mutant {
        name: "a signal is released out of order",
        file: "sync/src/raw/signals.rs",
        rows: &[("raw/signals.rs", "`value`")],
        from: "self.value.fetch_update(Ordering::SeqCst, Ordering::Relaxed, raised)",
        to: "self.value.fetch_update(Ordering::Release, Ordering::Relaxed, raised)",
        by: &[Test::model(SYNC, "models", "what_is_released_is_taken")],
    },
    Mutant {
        name: "an owner is named before it counts",
        file: "sync/src/raw/hold.rs",
        rows: &[("raw/hold.rs", "`depth`")],
        from: "        self.depth.store(if vouched_for { 1 } else { 1 | VOUCHED_FOR_BY_NOBODY }, Ordering::Relaxed);\n",
        to: "        self.depth.store(self.depth.load(Ordering::Relaxed).max(1), Ordering::Relaxed);\n        let _ = vouched_for;\n",
        by: &[Test::model(SYNC, "models", "only_the_owner")],
    },
    Mutant {
        name: "an owner stays named when it lets go",
        file: "sync/src/raw/hold.rs",
        rows: &[("raw/hold.rs", "`owner`")],
        from: "        self.owner.store(0, Ordering::Relaxed);\n",
        to: "",
        by: &[Test::model(SYNC, "models", "only_the_owner")],
    },
    Mutant {
        name: "a permit is taken first and counted then",
        file: "sync/src/raw/ledger.rs",
        rows: &[("sync/src/semaphore.rs", "`ledger[slot]`")],
        from: "    entry.fetch_add(1, Ordering::SeqCst);\n    crash::point(\"semaphore.committed\");\n    taken() <= permits\n",
        to: "    let is_free = taken() < permits;\n    entry.fetch_add(1, Ordering::SeqCst);\n    crash::point(\"semaphore.committed\");\n    is_free\n",
        by: &[Test::model(SYNC, "models", "a_permit_is_never_given_out_twice")],
    },
    Mutant {
        name: "the permits of the dead stay taken",
        file: "sync/src/semaphore.rs",
        rows: &[("sync/src/semaphore.rs", "`ledger[slot]`")],
        from: "|| had = entry.swap(0, Ordering::SeqCst));",
        to: "|| had = entry.load(Ordering::SeqCst));",
        by: &[STEPS],
    },
    Mutant {
        name: "the permits of the dead are given back and nobody is told",
        file: "sync/src/semaphore.rs",
        rows: &[("sync/src/semaphore.rs", "`freed`")],
        from: "    cell.freed.commit_and_kick_in_order(arena.who()?.thread, 1, || had = entry.swap(0, Ordering::SeqCst));\n    // Whatever the word \
               says: the dead may have cleared it, and owed a wake of which the kernel did not know.\n    cell.freed.pass_on_to_all();\n",
        to: "    had = entry.swap(0, Ordering::SeqCst).max(had);\n",
        by: &[STEPS],
    },
    Mutant {
        name: "an owned permit is not taken out of the books",
        file: "sync/src/semaphore.rs",
        rows: &[("sync/src/semaphore.rs", "`owned[i]`")],
        from: "        was = entry.compare_exchange(id, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok();\n",
        to: "        was = entry.load(Ordering::SeqCst) == id;\n",
        by: &[STEPS],
    },
    Mutant {
        name: "a value is published before it is written",
        file: "sync/src/value.rs",
        rows: &[("value.rs", "copy `version + 1`"), ("value.rs", "`version`")],
        from: "            if self.value.write_copy(next, &self.copy).is_ok() {\n                crash::point(\"value.written\");\n                // Release \
               pairs with the Acquire in `get`: the commit.\n                cell.version.store(next, Ordering::Release);\n",
        to: "            cell.version.store(next, Ordering::Release);\n            if self.value.write_copy(next, &self.copy).is_ok() {\n",
        by: &[STEPS],
    },
    Mutant {
        name: "a condition's cleaner wakes nobody",
        file: "sync/src/condition/raw.rs",
        rows: &[("condition/raw.rs", "`seq`")],
        from: "            futex::wake(&self.seq, u32::MAX);\n",
        to: "",
        by: &[CONDITION],
    },
    Mutant {
        name: "a condition's cleaner does not count owners",
        file: "sync/src/condition/raw.rs",
        rows: &[("condition/raw.rs", "`told`")],
        from: "owner_died || deaths != self.told.load(Ordering::Relaxed) || waiting.load(Ordering::Relaxed) != 0",
        to: "owner_died || waiting.load(Ordering::Relaxed) != 0",
        by: &[CONDITION],
    },
    Mutant {
        name: "a condition's cleaner tells of owners before it notifies",
        file: "sync/src/condition/raw.rs",
        rows: &[("condition/raw.rs", "`told`"), ("condition/raw.rs", "`waiting[slot]`")],
        from: "            // Release: who goes on because of it sees what the cleaner saw.\n",
        to: "            waiting.store(0, Ordering::Relaxed);\n            self.told.store(deaths, Ordering::Relaxed);\n            crash::point(\"condition.cleaner_cleared\");\n",
        by: &[CONDITION],
    },
    Mutant {
        name: "a condition forgets its sleepers when it has woken some",
        file: "sync/src/condition/raw.rs",
        rows: &[("condition/raw.rs", "`asleep`")],
        from: "        if woken < count as usize {\n",
        to: "        if woken > 0 {\n",
        by: &[CONDITION],
    },
    Mutant {
        name: "a barrier's cleaner wakes nobody",
        file: "sync/src/barrier/raw.rs",
        rows: &[("barrier/raw.rs", "`news`")],
        from: "        crash::point(\"barrier.cleaner_news\");\n        futex::wake(&self.news, u32::MAX);\n",
        to: "",
        by: &[BARRIER],
    },
    Mutant {
        name: "a barrier's cleaner wakes only where somebody said so",
        file: "sync/src/barrier/raw.rs",
        rows: &[("barrier/raw.rs", "`asleep`")],
        from: "        crash::point(\"barrier.cleaner_news\");\n        futex::wake(&self.news, u32::MAX);\n",
        to: "        if self.asleep.swap(0, Ordering::Acquire) != 0 {\n            futex::wake(&self.news, u32::MAX);\n        }\n",
        by: &[BARRIER],
    },
    Mutant {
        name: "a member's death breaks no round",
        file: "sync/src/barrier/raw.rs",
        rows: &[("barrier/raw.rs", "`state`"), ("barrier/raw.rs", "`members[slot]`")],
        from: "        if member.load(Ordering::Relaxed) != 0 {\n            let _ = self.change(",
        to: "        if member.load(Ordering::Relaxed) == u32::MAX {\n            let _ = self.change(",
        by: &[BARRIER],
    },
    Mutant {
        name: "who broke a round is told of any other",
        file: "sync/src/barrier/raw.rs",
        rows: &[("barrier/raw.rs", "`died`")],
        from: "        ((died >> 32) as u32 == round && died as u32 != 0).then_some(died as u32)\n",
        to: "        (died as u32 != 0).then_some(died as u32)\n",
        by: &[Test::model(SYNC, "barrier_model", "a_death_is_told_of_in_its_own_round_only")],
    },
];
