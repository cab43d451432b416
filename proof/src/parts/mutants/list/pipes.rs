//! Of pipes.

use crate::parts::mutants::Mutant;
use crate::parts::mutants::trial::Test;

const SEND: &str = "channel/src/pipe/send.rs";
const WAY: &str = "channel/src/pipe/way.rs";
const LOCAL: &str = "channel/src/pipe/local.rs";
const KIND: &str = "channel/src/pipe/kind.rs";

/// Where the step killers look, the end of the victim's process wakes the other end as well.
const MODEL: Test = Test::model("multiproc-channel", "pipe_model", "what_is_sent_is_received_in_order");

const fn dies_in(only: &'static str) -> Test {
    Test::steps("crash_pipe", "one_dies_at_each_step").only(only)
}

pub const ALL: &[Mutant] = &[
    Mutant {
        name: "a record in a pipe is committed before it is written",
        file: SEND,
        rows: &[("pipe/send.rs", "writing the record"), ("pipe/cell.rs", "`tail`")],
        from: "                ring.write_record(self.arena(), tail, head, payload, references.iter().map(|h| h.reference()))?;\n                \
               crash::point(\"pipe.written\");\n                self.commit(who, ring, tail, head)?;\n",
        to: "                self.commit(who, ring, tail, head)?;\n                crash::point(\"pipe.written\");\n                \
             ring.write_record(self.arena(), tail, head, payload, references.iter().map(|h| h.reference()))?;\n                \
             self.commit(who, ring, tail, head)?;\n",
        by: &[dies_in("Send(Inline), ")],
    },
    Mutant {
        name: "who takes over does not look for the last record",
        file: LOCAL,
        rows: &[("pipe/send.rs", "before `tail` is noted"), ("pipe/cell.rs", "`tail`")],
        from: "            let tail = ring.end_from(position(sent.tail.load(Ordering::Relaxed))?)?;\n            sent.tail.store(tail, Ordering::Relaxed);\n",
        to: "            let _ = ring;\n",
        by: &[Test::steps("crash_pipe", "who_takes_over_dies_as_well").only("Send(Inline) twice")],
    },
    Mutant {
        name: "a sender's block is named after it has been handed on",
        file: SEND,
        rows: &[("pipe/send.rs", "with a block in state `Queue(seq)`, before the commit"), ("pipe/cell.rs", "`putting`")],
        from: "        sent.putting.store(block.raw(), Ordering::Relaxed);\n        crash::point(\"pipe.named\");\n        \
               self.arena().set_block_state(block, BlockState::Queue { queue: self.index(), seq: seq(self.end, tail) })?;\n",
        to: "        self.arena().set_block_state(block, BlockState::Queue { queue: self.index(), seq: seq(self.end, tail) })?;\n        \
             crash::point(\"pipe.named\");\n        sent.putting.store(block.raw(), Ordering::Relaxed);\n",
        by: &[dies_in("Send(Block), ")],
    },
    Mutant {
        name: "the block of a dead sender is not freed",
        file: KIND,
        rows: &[("pipe/send.rs", "with a block in state `Queue(seq)`, before the commit")],
        from: "            if !committed {\n",
        to: "            if !committed && number == u32::MAX {\n",
        by: &[dies_in("Send(Block), ")],
    },
    Mutant {
        name: "the ring that a dead sender was making is not freed",
        file: KIND,
        rows: &[("pipe/send.rs", "making the ring"), ("pipe/cell.rs", "`ring`")],
        from: "        state @ BlockState::Object(index) if index == object.index && sent.ring.load(Ordering::Relaxed) != block.raw() => {\n            \
               arena.free_if(block, state)?;\n        }\n",
        to: "",
        by: &[dies_in("FirstSend, ")],
    },
    Mutant {
        name: "a dead process keeps its end",
        file: KIND,
        rows: &[("pipe/local.rs", "using the end"), ("pipe/cell.rs", "`owner`, a grave (`GRAVE` for the slot)")],
        from: "                side.end.change_owner(Some(owner), Some(owner.buried()));\n",
        to: "                side.end.change_owner(Some(owner), None);\n",
        by: &[dies_in("FirstSend, "), Test::steps("pipe", "")],
    },
    Mutant {
        name: "who has died without having used its end is not told of",
        file: KIND,
        rows: &[("pipe/cell.rs", "`bereft`")],
        from: "                side.end.bereft.store(u64::from(dead.pid.load(Ordering::Relaxed)), Ordering::Release);\n",
        to: "",
        by: &[dies_in("Drop, "), dies_in("FirstSend, "), Test::steps("pipe", "")],
    },
    Mutant {
        name: "who waits at a pipe does not watch the other process",
        file: "channel/src/pipe/wait.rs",
        rows: &[
            ("pipe/send.rs", "waiting for its turn or for room"),
            ("pipe/recv.rs", "waiting for its turn or for a message"),
            ("pipe/local.rs", "using the end"),
            ("pipe/cell.rs", "`owner` {generation:30, slot:12, pid:22}"),
            ("roster.rs", "`life`"),
        ],
        from: "            words.push_shared(watched);\n",
        to: "            let _ = watched;\n",
        by: &[dies_in("Send(Inline), Receiver")],
    },
    Mutant {
        name: "a message that was not taken is freed with its receiver",
        file: KIND,
        rows: &[("pipe/recv.rs", "copying, before the commit"), ("pipe/cell.rs", "`head`")],
        from: "            in_ring |= ring.payload_word(at)? == block.raw();\n",
        to: "            in_ring |= ring.payload_word(at)? == 0;\n",
        by: &[Test::steps("crash_pipe", "who_takes_over_dies_as_well").only("Recv(Block) twice")],
    },
    Mutant {
        name: "a message that was taken stays with the dead receiver",
        file: KIND,
        rows: &[("pipe/recv.rs", "after the commit, before the caller has it")],
        from: "    } else {\n        arena.free_if(block, state)?;\n    }\n    Ok(())\n}\n\n/// A process that exits",
        to: "    }\n    Ok(())\n}\n\n/// A process that exits",
        by: &[dies_in("Recv(Block), ")],
    },
    Mutant {
        name: "a sender is not told of room",
        file: WAY,
        rows: &[("pipe/recv.rs", "after the commit, before the wake"), ("pipe/cell.rs", "`pw`")],
        from: "            self.pw.commit_and_kick_lightly(me, || self.head.store(next, Ordering::Release));\n",
        to: "            let _ = me;\n            self.head.store(next, Ordering::Release);\n",
        by: &[MODEL],
    },
    Mutant {
        name: "a receiver is not told of a message",
        file: WAY,
        rows: &[("pipe/cell.rs", "`cw`")],
        from: "        self.cw.commit_and_kick_lightly(me, || word.store(value, Ordering::Release));\n",
        to: "        let _ = me;\n        word.store(value, Ordering::Release);\n",
        by: &[MODEL],
    },
    Mutant {
        name: "nobody is told that an end has gone",
        file: KIND,
        rows: &[("pipe/cell.rs", "`flags`")],
        from: "    end.news.commit_and_kick_all(arena.who()?.thread, || {\n        // Release pairs with the Acquire in `End::flags`.\n        \
               end.flags.fetch_or(GONE, Ordering::Release);\n    });\n",
        to: "    end.flags.fetch_or(GONE, Ordering::Release);\n",
        by: &[dies_in("Drop, ")],
    },
    Mutant {
        name: "who has let go of an end keeps it",
        file: LOCAL,
        rows: &[("pipe/cell.rs", "`owner` 0"), ("pipe/local.rs", "having let go, before it has told")],
        from: "            own.change_owner(Some(me), None);\n",
        to: "            let _ = me;\n",
        by: &[dies_in("Drop, "), Test::steps("pipe", "")],
    },
];
