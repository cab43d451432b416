//! Of who says that a process is dead after which the kernel has not looked.

use crate::parts::mutants::Mutant;
use crate::parts::mutants::trial::Test;

const COLLECT: &str = "shm/src/collect.rs";
const QUEUE: &str = "channel/src/ring/kind.rs";
const PLACES: Test = lost("the_place_of_who_waits_first");

const MARK: &str = "        self.collection().lock.mark_dead_if(id.index, || s.state().is_ok_and(|now| now == (SlotState::Live, id.generation)));\n";

const fn lost(filter: &'static str) -> Test {
    Test::steps("lost_lists", filter)
}

pub const ALL: &[Mutant] = &[
    Mutant {
        name: "what the dead had no handle of stays locked by it",
        file: COLLECT,
        rows: &[],
        from: "                (self.kind_of(index)?.slot_died)(self, object, slot)?;\n",
        to: "                let _ = (object, slot);\n",
        by: &[lost("a_lock_without_a_handle")],
    },
    Mutant {
        name: "a life word that the kernel has not marked stands",
        file: COLLECT,
        rows: &[],
        from: "        self.slot(slot)?.life.mark_dead(slot);\n",
        to: "",
        by: &[lost("an_end_of_a_pipe")],
    },
    Mutant {
        name: "the collector's lock stays with who has died",
        file: COLLECT,
        rows: &[],
        from: MARK,
        to: "",
        by: &[lost("the_collectors_lock")],
    },
    Mutant {
        name: "the collector's lock stays with who has died, unless its keeper's list was lost",
        file: COLLECT,
        rows: &[],
        from: MARK,
        to: "        if !s.life.owner_died() {\n            self.collection().lock.mark_dead(id.index);\n        }\n",
        by: &[lost("the_collectors_lock")],
    },
    Mutant {
        name: "a lock stays with who has died",
        file: "sync/src/lock.rs",
        rows: &[],
        from: "    arena.memory().at::<RawLock>(object.offset)?.mark_dead(slot);\n",
        to: "    let _ = (arena.memory().at::<RawLock>(object.offset)?, slot);\n",
        by: &[lost("a_lock")],
    },
    Mutant {
        name: "a re-entrant lock stays with who has died",
        file: "sync/src/rlock.rs",
        rows: &[],
        from: "    arena.memory().at::<RLockCell>(object.offset)?.raw.mark_dead(slot);\n",
        to: "    let _ = (arena.memory().at::<RLockCell>(object.offset)?, slot);\n",
        by: &[lost("a_re_entrant_lock")],
    },
    Mutant {
        name: "the lock of a value stays with who has died",
        file: "sync/src/value.rs",
        rows: &[],
        from: "    arena.memory().at::<RawLock>(object.offset)?.mark_dead(slot);\n",
        to: "    let _ = (arena.memory().at::<RawLock>(object.offset)?, slot);\n",
        by: &[lost("the_lock_of_a_value")],
    },
    Mutant {
        name: "the lock of an array stays with who has died",
        file: "sync/src/array.rs",
        rows: &[],
        from: "    arena.memory().at::<RawLock>(object.offset)?.mark_dead(slot);\n",
        to: "    let _ = (arena.memory().at::<RawLock>(object.offset)?, slot);\n",
        by: &[lost("the_lock_of_an_array")],
    },
    Mutant {
        name: "a condition looks at its lock before that is marked",
        file: "sync/src/condition/mod.rs",
        rows: &[],
        from: "        raw.mark_dead(slot);\n",
        to: "",
        by: &[lost("the_lock_of_a_condition")],
    },
    Mutant {
        name: "who waited first for a permit stays the first when it has died",
        file: "sync/src/semaphore.rs",
        rows: &[],
        from: "    cell.gate.mark_dead(slot);\n",
        to: "",
        by: &[PLACES],
    },
    Mutant {
        name: "who waited first for a signal stays the first when it has died",
        file: "sync/src/signal_semaphore.rs",
        rows: &[],
        from: "    cell.gate.mark_dead(slot);\n",
        to: "    let _ = slot;\n",
        by: &[PLACES],
    },
    Mutant {
        name: "a queue's putters stay behind one that has died",
        file: QUEUE,
        rows: &[],
        from: "    cell.plock.mark_dead(slot);\n",
        to: "",
        by: &[PLACES],
    },
    Mutant {
        name: "a queue's getters stay behind one that has died",
        file: QUEUE,
        rows: &[],
        from: "    cell.clock.mark_dead(slot);\n",
        to: "",
        by: &[PLACES],
    },
    Mutant {
        name: "the getters of dead letters stay behind one that has died",
        file: QUEUE,
        rows: &[],
        from: "    cell.dead.lock.mark_dead(slot);\n",
        to: "",
        by: &[PLACES],
    },
    Mutant {
        name: "a getter that a dead putter has not woken sleeps on",
        file: "channel/src/ring/wakes.rs",
        rows: &[],
        from: "        for word in [&self.consumed.pw, &self.produced.cw, &self.consumed.join] {\n",
        to: "        for word in [&self.consumed.pw, &self.consumed.join] {\n",
        by: &[lost("of_a_put_or_a_get")],
    },
    Mutant {
        name: "a putter that a dead getter has not woken sleeps on",
        file: "channel/src/ring/wakes.rs",
        rows: &[],
        from: "        for word in [&self.consumed.pw, &self.produced.cw, &self.consumed.join] {\n",
        to: "        for word in [&self.produced.cw, &self.consumed.join] {\n",
        by: &[lost("of_a_put_or_a_get")],
    },
];
