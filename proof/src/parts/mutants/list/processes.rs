//! Of processes, pools, and memory under a name.

use crate::parts::mutants::Mutant;
use crate::parts::mutants::trial::Test;

const POOL: Test = Test::steps("crash_pool", "a_worker_dies_at_a_named_step");
const NAMED: Test = Test::steps("crash_memory", "of_a_segment");
const TAG: &str = "named/src/tag.rs";

pub const ALL: &[Mutant] = &[
    Mutant {
        name: "a result is stored when all is said",
        file: "process/src/worker.rs",
        rows: &[("process/src/worker.rs", "after `result` is stored"), ("roster.rs", "`result`"), ("roster.rs", "`outcome`")],
        from: "    slot.result.store(BlockId::to_word(Some(block)), Ordering::Release);\n    crash::point(\"result.named\");\n",
        to: "    crash::point(\"result.named\");\n    slot.result.store(BlockId::to_word(Some(block)), Ordering::Release);\n",
        by: &[Test::steps("crash_result", "")],
    },
    Mutant {
        name: "the desk says that a task runs when it has run",
        file: "pool/src/worker.rs",
        rows: &[
            ("pool/src/worker.rs", "while it runs, its arguments are decoded or its value encoded"),
            ("pool/src/desk.rs", "`id` of a level"),
        ],
        from: "        level.start(head.id, since);\n        crash::point(\"pool.started\");\n",
        to: "        crash::point(\"pool.started\");\n",
        by: &[POOL],
    },
    Mutant {
        name: "what is delivered again is run without a question",
        file: "pool/src/worker.rs",
        rows: &[("pool/src/worker.rs", "having told the outcome, before the acknowledgement")],
        from: "        if lease.attempt() > 1 && !self.may_run(head) {\n",
        to: "        if lease.attempt() > u32::MAX - 1 && !self.may_run(head) {\n",
        by: &[POOL],
    },
    Mutant {
        name: "a task that was only taken dies with its worker",
        file: "pool/src/crew.rs",
        rows: &[("pool/src/worker.rs", "before the desk says that it runs")],
        from: "            let mut levels: Vec<_> = member.desk.levels().filter(|level| level.is_started()).collect();\n",
        to: "            let mut levels: Vec<_> = member.desk.levels().collect();\n",
        by: &[POOL],
    },
    Mutant {
        name: "a task that has died with its worker has no outcome",
        file: "pool/src/crew.rs",
        rows: &[("pool/src/worker.rs", "while it runs, its arguments are decoded or its value encoded")],
        from: "            self.fail(id, why);\n        }\n        // Whoever collects",
        to: "            let _ = (id, why);\n        }\n        // Whoever collects",
        by: &[POOL],
    },
    Mutant {
        name: "what a dead worker had told is not taken notice of",
        file: "pool/src/crew.rs",
        rows: &[
            ("pool/src/worker.rs", "having told the outcome, before the acknowledgement"),
            ("pool/src/worker.rs", "having acknowledged"),
        ],
        from: "        // What it has told is true, whatever lies on its desk.\n        self.catch_up();\n",
        to: "",
        by: &[POOL, Test::steps("crash_pool", "")],
    },
    Mutant {
        name: "a failure that was told is in the way of the next attempt",
        file: "pool/src/collect.rs",
        rows: &[("pool/src/worker.rs", "having told the outcome, before the acknowledgement")],
        from: ".is_some_and(|level| !entry.was_told(member.index, level.since()));",
        to: ".is_some();",
        by: &[Test::steps("crash_pool", "a_failure_that_was_told_is_not_in_the_way_of_the_next_attempt")],
    },
    Mutant {
        name: "what has failed is taken back by its client",
        file: "pool/src/remote.rs",
        rows: &[("pool/src/worker.rs", "having told the outcome, before the acknowledgement")],
        from: "Some((Claim::Made, false, 0)) =>",
        to: "Some((Claim::Made, false, _)) =>",
        by: &[Test::steps("crash_pool", "what_has_failed_while_it_is_claimed_is_not_taken_back")],
    },
    Mutant {
        name: "what is thrown away while it is claimed stays",
        file: "pool/src/remote.rs",
        rows: &[("pool/src/worker.rs", "before the desk says that it runs")],
        from: "                    table.remove(task);\n                    // Once",
        to: "                    // Once",
        by: &[Test::steps("crash_pool", "what_is_met_while_it_is_claimed_runs_once")],
    },
    Mutant {
        name: "who cannot begin is tried for ever",
        file: "pool/src/crew.rs",
        rows: &[("pool/src/desk.rs", "`state`")],
        from: "        if crew.failures >= FAILURES || crew.kills >= KILLS {\n",
        to: "        if crew.failures >= FAILURES && crew.kills >= KILLS {\n",
        by: &[Test::steps("pool_options", "")],
    },
    Mutant {
        name: "a new segment of nobody's is not removed",
        file: TAG,
        rows: &[("tag.rs", "having made the file, before its tag")],
        from: "        return Ok(unused && named::unlink(file)?);\n",
        to: "        return Ok(unused && file.is_empty());\n",
        by: &[NAMED],
    },
    Mutant {
        name: "a segment has its name before its tag",
        file: TAG,
        rows: &[("tag.rs", "having tagged it, before it has its name")],
        from: "    named::rename(new, &tag.file())?;\n    crash::point(\"named.tagged\");\n    if let Err(e) = named::link(&tag.file(), name) {\n        \
               tag.remove()?;\n        return Err(e);\n    }\n",
        to: "    named::link(new, name)?;\n    crash::point(\"named.tagged\");\n    named::rename(new, &tag.file())?;\n",
        by: &[NAMED],
    },
    Mutant {
        name: "what nobody uses is not removed",
        file: TAG,
        rows: &[("tag.rs", "as its last user")],
        from: "    if ours {\n        tag.remove_all()?;\n    }\n",
        to: "",
        by: &[NAMED],
    },
    Mutant {
        name: "the tag goes before the name",
        file: TAG,
        rows: &[("tag.rs", "while removing it, after its name is gone"), ("tag.rs", "in `unlink`, after its name is gone")],
        from: "        let was_named = self.is_named()? && named::unlink(&self.name)?;\n        crash::point(\"named.unnamed\");\n        self.remove()?;\n",
        to: "        self.remove()?;\n        crash::point(\"named.unnamed\");\n        let was_named = self.is_named()? && named::unlink(&self.name)?;\n",
        by: &[NAMED],
    },
    Mutant {
        name: "a value is written over while its format stands",
        file: "named/src/list.rs",
        rows: &[("list.rs", "before the new format is there")],
        from: "        self.memory.write_at(self.format(index), &UNREADY)?;\n",
        to: "",
        by: &[Test::steps("crash_memory", "of_a_list")],
    },
    Mutant {
        name: "a value has its format before it is there",
        file: "named/src/list.rs",
        rows: &[("list.rs", "after that")],
        from: "        self.memory.write_at(self.format(index), &UNREADY)?;\n        crash::point(\"list.unready\");\n",
        to: "        self.memory.write_at(self.format(index), &format)?;\n        crash::point(\"list.unready\");\n",
        by: &[Test::steps("crash_memory", "of_a_list")],
    },
    Mutant {
        name: "a vector leaves before it is frozen",
        file: "sync/src/shared_vec.rs",
        rows: &[("shared_vec.rs", "`frozen` 1"), ("shared_vec.rs", "after the freeze, before a message with it commits")],
        from: "        cell.frozen.store(1, Ordering::Release);\n",
        to: "",
        by: &[Test::steps("crash_memory", "of_a_shared_vec")],
    },
    Mutant {
        name: "who detaches does not wait",
        file: "process/src/keeper.rs",
        rows: &[("roster.rs", "flag `CONFIRMED`")],
        from: "                slot.confirm_detached();\n",
        to: "",
        by: &[Test::steps("crash_trees", "")],
    },
];
