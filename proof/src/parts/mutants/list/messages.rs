//! Of leases, dead letters, and joining.

use crate::parts::mutants::Mutant;
use crate::parts::mutants::trial::Test;

const LEASE: &str = "channel/src/ring/lease.rs";
const KIND: &str = "channel/src/ring/kind.rs";
const JOIN: &str = "channel/src/ring/join.rs";

const fn dies_in(only: &'static str) -> Test {
    Test::steps("crash_queue", "one_dies_at_each_step").only(only)
}

pub const ALL: &[Mutant] = &[
    Mutant {
        name: "a lease is entered after the commit",
        file: LEASE,
        rows: &[("lease.rs", "before the head's commit")],
        from: "        // Release: the block's content is there before the table names it.\n        \
               self.entry(entry)?.store(block.raw(), Ordering::Release);\n        crash::point(\"lease.entered\");\n        \
               self.arena().set_block_state(block, self.leased_by_me(seq))?;\n        crash::point(\"lease.owned\");\n        \
               self.commit_get(who, first.at, first.end(), self.volume_of(first));\n",
        to: "        self.arena().set_block_state(block, self.leased_by_me(seq))?;\n        crash::point(\"lease.owned\");\n        \
             self.commit_get(who, first.at, first.end(), self.volume_of(first));\n        \
             crash::point(\"lease.entered\");\n        self.entry(entry)?.store(block.raw(), Ordering::Release);\n",
        by: &[dies_in("Lease(Inline), Alone")],
    },
    Mutant {
        name: "the entry of a lease that was not committed stays",
        file: LEASE,
        rows: &[("lease.rs", "before the head's commit")],
        from: "        self.clear_entries_of(block)?;\n        crash::point(\"lease.entries_cleared\");\n",
        to: "",
        by: &[Test::steps("crash_queue", "a_lease_that_was_not_committed_leaves_no_entry")],
    },
    Mutant {
        name: "the lease of a dead process is not delivered again",
        file: KIND,
        rows: &[
            ("lease.rs", "with the lease"),
            ("ring/get.rs", "taking a returned lease, before it is acknowledged"),
            ("blocks.rs", "`Leased(slot, queue, seq)`"),
            ("pool/src/worker.rs", "having leased it, before the desk names it"),
        ],
        from: "                if arena.change_block_state(block, state, BlockState::Returned { queue, seq })? {\n",
        to: "                if arena.free_if(block, state)? {\n",
        by: &[dies_in("Lease(Inline), Alone")],
    },
    Mutant {
        name: "the end of a queue leaves what has come back",
        file: KIND,
        rows: &[("blocks.rs", "`Returned(queue, seq)`")],
        from: "            | BlockState::Returned { queue, .. }\n            // That was",
        to: "            // That was",
        by: &[dies_in("Requeue(Inline), Abandoned")],
    },
    Mutant {
        name: "an acknowledged lease of a dead process keeps its block",
        file: KIND,
        rows: &[("lease.rs", "having stored 0 into the entry")],
        from: "            } else {\n                arena.free_if(block, state)?;\n            }\n        }\n        _ => {}\n",
        to: "            }\n        }\n        _ => {}\n",
        by: &[dies_in("Ack(Inline), Alone")],
    },
    Mutant {
        name: "a lease is freed before it is acknowledged",
        file: LEASE,
        rows: &[("lease.rs", "having stored 0 into the entry")],
        from: "        self.clear_entry(leased.entry)?;\n        crash::point(\"lease.acked\");\n        \
               record::arrived_with(self.arena(), leased.block)?;\n        crash::point(\"lease.arrived\");\n        self.arena().free(leased.block)\n",
        to: "        record::arrived_with(self.arena(), leased.block)?;\n        self.arena().free(leased.block)?;\n        \
             crash::point(\"lease.arrived\");\n        self.clear_entry(leased.entry)\n",
        by: &[dies_in("Ack(Inline), ")],
    },
    Mutant {
        name: "a lease that comes back is told of before it is there",
        file: LEASE,
        rows: &[("lease.rs", "returning it, before `attention`")],
        from: "        self.arena().set_block_state(leased.block, BlockState::Returned { queue: self.index(), seq: leased.seq })?;\n        \
               crash::point(\"lease.returned\");\n        self.raise_attention(who);\n        Ok(())\n",
        to: "        self.raise_attention(who);\n        crash::point(\"lease.returned\");\n        \
             self.arena().set_block_state(leased.block, BlockState::Returned { queue: self.index(), seq: leased.seq })\n",
        by: &[dies_in("Requeue(Inline), ")],
    },
    Mutant {
        name: "the cleaner does not look for leases that came back",
        file: KIND,
        rows: &[
            ("lease.rs", "returning it, before `attention`"),
            ("lease.rs", "having cleared `attention`, with more of them there"),
        ],
        from: "    // It may have died between returning a lease and saying so.\n    raise_attention(arena, cell)?;\n",
        to: "",
        by: &[dies_in("Requeue(Inline), ")],
    },
    Mutant {
        name: "a lease is counted before it is taken",
        file: LEASE,
        rows: &[("lease.rs", "taking a returned one, after the state's store")],
        from: "        self.arena().set_block_state(leased.block, self.leased_by_me(leased.seq))?;\n        crash::point(\"lease.retaken\");\n        // After \
               the state's store: of a returned message the count says whether it is dead, and must not change.\n        \
               record::attempt(self.arena(), leased.block)?.store(leased.attempt, Ordering::Release);\n        crash::point(\"lease.attempt_counted\");\n",
        to: "        record::attempt(self.arena(), leased.block)?.store(leased.attempt, Ordering::Release);\n        \
             crash::point(\"lease.attempt_counted\");\n        \
             self.arena().set_block_state(leased.block, self.leased_by_me(leased.seq))?;\n        crash::point(\"lease.retaken\");\n",
        by: &[Test::steps("queue_bounds", "a_message_that_is_on_its_last_lease_is_no_dead_letter")],
    },
    Mutant {
        name: "the cleaner does not wake joiners",
        file: KIND,
        rows: &[
            ("ring/get.rs", "after the commit of the last message, before the wake"),
            (
                "join.rs",
                "the same, where attempts are bounded; or having taken the last message by a plain get, given back for the last time, or been the last receiver",
            ),
            ("ring/cell.rs", "`join`"),
        ],
        from: "    raise_attention(arena, cell)?;\n    cell.wake_the_others(arena.who()?.thread);\n",
        to: "    cell.raise_attention(arena.who()?.thread);\n    dead::raise(cell, arena.who()?, || {});\n    \
             cell.consumed.pw.commit_and_kick(arena.who()?.thread, || {});\n    cell.consumed.pw.pass_on_to_all();\n    \
             cell.produced.cw.pass_on_to_all();\n",
        by: &[dies_in("Get(Inline), Joiners")],
    },
    Mutant {
        name: "a joiner takes the wake into its grave",
        file: JOIN,
        rows: &[("join.rs", "a joiner, with the wake in hand")],
        from: "        words.push_shared(join.watch());\n",
        to: "        words.push(join.watch());\n",
        by: &[Test::steps("crash_queue", "a_joiner_dies_with_the_wake_in_hand")],
    },
    Mutant {
        name: "a joiner that was woken tells the others later",
        file: JOIN,
        rows: &[("join.rs", "a joiner, with the wake in hand"), ("join.rs", "having cleared `join`, before the wake")],
        from: "        if self.ready() {\n            self.finish();\n        }\n",
        to: "        let _ = self.ready();\n",
        by: &[Test::steps("crash_queue", "a_joiner_dies_with_the_wake_in_hand")],
    },
    Mutant {
        name: "who finishes the last message tells one joiner",
        file: JOIN,
        rows: &[("join.rs", "having acknowledged, before the wake")],
        from: "            self.cell.consumed.join.commit_and_kick_all(who.thread, || {});\n            crash::point(\"join.told\");\n",
        to: "            let _ = who;\n            crash::point(\"join.told\");\n",
        by: &[dies_in("Ack(Inline), Joiners"), Test::steps("queue_join", "")],
    },
    Mutant {
        name: "who waits for dead letters is not told of a death",
        file: KIND,
        rows: &[("dead.rs", "`wake`"), ("dead.rs", "`attention`"), ("ring/cell.rs", "`dead`")],
        from: "    dead::raise(cell, arena.who()?, || {});\n    // It may have died between finishing the last message",
        to: "    // It may have died between finishing the last message",
        by: &[Test::steps("queue_bounds", "who_waits_for_dead_letters")],
    },
    Mutant {
        name: "a dead letter stays where it was",
        file: "channel/src/ring/dead.rs",
        rows: &[("dead.rs", "`lock`")],
        from: "                self.arena().set_block_state(leased.block, self.leased_by_me(leased.seq))?;\n                crash::point(\"dead.owned\");\n",
        to: "                crash::point(\"dead.owned\");\n",
        by: &[dies_in("GetDead(Inline), Alone")],
    },
];
