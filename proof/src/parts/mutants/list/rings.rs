//! Of putting and getting.

use crate::parts::mutants::Mutant;
use crate::parts::mutants::trial::Test;

const PUT: &str = "channel/src/ring/put.rs";
const GET: &str = "channel/src/ring/get.rs";
const USUAL: &str = "channel/src/ring/usual.rs";
const SEGMENTS: &str = "channel/src/ring/segments.rs";
const WAKES: &str = "channel/src/ring/wakes.rs";
const KIND: &str = "channel/src/ring/kind.rs";
const HANDS: &str = "shm/src/hands.rs";

const LOSSES: &str = "shm/src/losses.rs";
const COUNTING: Test = Test::steps("crash_losses", "a_loss_is_counted_once");

const fn dies_in(only: &'static str) -> Test {
    Test::steps("crash_queue", "one_dies_at_each_step").only(only)
}

pub const ALL: &[Mutant] = &[
    Mutant {
        name: "what was taken back stays named",
        file: PUT,
        rows: &[],
        from: "        crash::point(\"put.repaired\");\n        produced.putting.store(0, Ordering::Relaxed);\n",
        to: "        crash::point(\"put.repaired\");\n",
        by: &[Test::unit("multiproc-channel", "what_was_taken_back_once_is_not_taken_back_again")],
    },
    Mutant {
        name: "what lay in a lease table before is a lease",
        file: "channel/src/ring/lease.rs",
        rows: &[],
        from: "        self.entry(high)?.store(0, Ordering::Relaxed);\n",
        to: "",
        by: &[Test::unit("multiproc-channel", "what_lay_in_a_table_before_is_no_lease")],
    },
    Mutant {
        name: "the short way commits a record before it is written",
        file: USUAL,
        rows: &[("ring/put.rs", "writing the record, or several of a batch"), ("ring/cell.rs", "`tail`")],
        from: "        write_plain(ring, tail, record, payload);\n        crash::point(\"put.written_usual\");\n        let produced = \
               &self.produced;\n        produced.cw.commit_and_kick_lightly(who.thread, || tail.after(record.size()).store(&produced.tail));\n",
        to: "        let produced = &self.produced;\n        produced.cw.commit_and_kick_lightly(who.thread, || \
             tail.after(record.size()).store(&produced.tail));\n        crash::point(\"put.written_usual\");\n        \
             write_plain(ring, tail, record, payload);\n",
        by: &[
            Test::steps("crash_wait", "a_waiting_getter_and_watchers_wake_each_other"),
            Test::proof("getters_and_putters_are_killed"),
        ],
    },
    Mutant {
        name: "a record is committed before it is written",
        file: PUT,
        rows: &[("ring/put.rs", "writing the record, or several of a batch"), ("ring/cell.rs", "`tail`")],
        from: "            let end = self.write(bytes, tail, parcel, as_block)?;\n            self.commit_put(who, tail, end, size);\n",
        to: "            self.back_ring(bytes, tail.position() + record_head(parcel, as_block).size())?;\n            \
             self.commit_put(who, tail, tail.after(record_head(parcel, as_block).size()), size);\n            \
             crash::point(\"put.not_written\");\n            self.write(bytes, tail, parcel, as_block)?;\n",
        by: &[dies_in("Put(Inline), Getters")],
    },
    Mutant {
        name: "a message's block is named after it has been handed on",
        file: PUT,
        rows: &[
            ("ring/put.rs", "with a block in state `Queue(seq)`, before the commit"),
            ("ring/cell.rs", "`putting`, `taking` (with `taking_seq`)"),
        ],
        from: "                self.cell.produced.putting.store(block.raw(), Ordering::Relaxed);\n                crash::point(\"put.named\");\n                \
               self.arena().set_block_state(block, BlockState::Queue { queue: self.index(), seq: at.seq() })?;\n",
        to: "                self.arena().set_block_state(block, BlockState::Queue { queue: self.index(), seq: at.seq() })?;\n                \
             crash::point(\"put.named\");\n                self.cell.produced.putting.store(block.raw(), Ordering::Relaxed);\n",
        by: &[dies_in("Put(Block), A")],
    },
    Mutant {
        name: "a putter's repair leaves the message's block",
        file: PUT,
        rows: &[("ring/put.rs", "with a block in state `Queue(seq)`, before the commit"), ("blocks.rs", "`Queue(queue, seq)`")],
        from: "            state @ BlockState::Queue { queue, seq } if queue == self.index() && seq == self.tail().seq() => {\n                \
               self.arena().free_if(block, state)?;\n",
        to: "            BlockState::Queue { queue, seq } if queue == self.index() && seq == self.tail().seq() => {\n",
        by: &[dies_in("Put(Block), A")],
    },
    Mutant {
        name: "a putter's repair leaves the ring that has no name",
        file: PUT,
        rows: &[
            ("ring/put.rs", "making the ring, or a segment of it ([`super::segments`])"),
            ("ring/cell.rs", "`ring`, `leases`"),
            ("blocks.rs", "`Object(index)`"),
        ],
        from: "if queue == self.index() && self.cell.ring.load(Ordering::Relaxed) == 0 => {\n",
        to: "if queue == self.index() && self.cell.ring.load(Ordering::Relaxed) == block.raw() + 1 => {\n",
        by: &[dies_in("FirstPut, A")],
    },
    Mutant {
        name: "a putter's repair leaves the segment that is not made",
        file: PUT,
        rows: &[("segments.rs", "making a segment"), ("blocks.rs", "`Segment(queue, number)`")],
        from: "            state @ BlockState::Segment { queue, number } if queue == self.index() && self.is_unmade(number) => {\n                \
               self.arena().free_if(block, state)?;\n",
        to: "            BlockState::Segment { queue, number } if queue == self.index() && self.is_unmade(number) => {\n",
        by: &[dies_in("Grow(Inline), A")],
    },
    Mutant {
        name: "a putter repairs nothing",
        file: PUT,
        rows: &[("ring/cell.rs", "`plock`, `clock`")],
        from: "        let repaired = if found == Acquired::OwnerDied { self.repair_put() } else { Ok(()) };\n",
        to: "        let repaired = if found == Acquired::OwnerDied { Ok::<(), Error>(()) } else { Ok(()) };\n",
        by: &[dies_in("Put(Block), A")],
    },
    Mutant {
        name: "bytes are counted after the commit",
        file: PUT,
        rows: &[("ring/cell.rs", "`put_bytes`, `got_bytes`")],
        from: "            produced.put_bytes.prepare(tail, end, volume);\n            crash::point(\"put.counted\");\n        }\n        \
               produced.cw.commit_and_kick_lightly(who.thread, || end.store(&produced.tail));\n",
        to: "        }\n        produced.cw.commit_and_kick_lightly(who.thread, || end.store(&produced.tail));\n        if self.max_bytes() != 0 \
             {\n            produced.put_bytes.prepare(tail, end, volume);\n        }\n",
        by: &[dies_in("Put(Inline), ")],
    },
    Mutant {
        name: "a segment counts as made before it has its name",
        file: SEGMENTS,
        rows: &[
            ("segments.rs", "having moved `ring_backed`, before the commit"),
            ("ring/cell.rs", "`ring_backed`, `lease_high`"),
        ],
        from: "        // Relaxed: the commit publishes.\n        bytes.entry(number).store(block.raw(), Ordering::Relaxed);\n        \
               crash::point(\"put.segment_named\");\n        // Release pairs with the Acquire of who ends the queue after this process's \
               death.\n        produced.ring_backed.store((start + backing) & POSITION_MASK, Ordering::Release);\n        \
               crash::point(\"put.segment_made\");\n",
        to: "        produced.ring_backed.store((start + backing) & POSITION_MASK, Ordering::Release);\n        \
             crash::point(\"put.segment_named\");\n        bytes.entry(number).store(block.raw(), Ordering::Relaxed);\n        \
             crash::point(\"put.segment_made\");\n",
        by: &[dies_in("Grow(Inline), A")],
    },
    Mutant {
        name: "a segment is left before it is freed",
        file: SEGMENTS,
        rows: &[
            ("segments.rs", "after a get's commit, before a segment is freed, or `segments_low` says so"),
            ("ring/cell.rs", "`segments_low`"),
        ],
        from: "            if let Some(block) = BlockId::from_word(bytes.entry(number).load(Ordering::Relaxed)) {\n                \
               self.arena().free_if(block, BlockState::Segment { queue: self.index(), number })?;\n            }\n            \
               crash::point(\"get.segment_freed\");\n            // Release pairs with the Acquire of the putter that uses the entry again, and may wait \
               for it.\n            let next = number.wrapping_add(1) & number_mask(bits);\n            \
               self.cell.consumed.pw.commit_and_kick_lightly(me, || low.store(next, Ordering::Release));\n",
        to: "            let next = number.wrapping_add(1) & number_mask(bits);\n            \
             self.cell.consumed.pw.commit_and_kick_lightly(me, || low.store(next, Ordering::Release));\n            \
             crash::point(\"get.segment_freed\");\n            if let Some(block) = \
             BlockId::from_word(bytes.entry(number).load(Ordering::Relaxed)) {\n                \
             self.arena().free_if(block, BlockState::Segment { queue: self.index(), number })?;\n            }\n",
        by: &[dies_in("Shrink(Inline), A")],
    },
    Mutant {
        name: "a putter that was about to sleep is not told of a getter's death",
        file: WAKES,
        rows: &[("ring/get.rs", "after the commit, before the wake")],
        from: "        self.consumed.pw.commit_and_kick(me, || {});\n",
        to: "",
        by: &[Test::model("multiproc-channel", "ring_model", "a_getter_that_dies_takes_one_at_most")],
    },
    Mutant {
        name: "one loss in four is forgotten",
        file: KIND,
        rows: &[("roster.rs", "`hands`")],
        from: "        if lost > 0 {\n",
        to: "        if lost > 0 && seq % 4 != 0 {\n",
        by: &[Test::proof("getters_and_putters_are_killed")],
    },
    Mutant {
        name: "threads share a note of what is in hand",
        file: HANDS,
        rows: &[("roster.rs", "`hands`")],
        from: "unwrap_or_else(shared);\n",
        to: "filter(|_| false).unwrap_or_else(shared);\n",
        by: &[Test::unit("multiproc-shm", "hands::"), Test::steps("losses", "")],
    },
    Mutant {
        name: "what is in hand is noted after the commit",
        file: GET,
        rows: &[
            ("ring/get.rs", "after the commit, before the caller has it"),
            ("ring/cell.rs", "`head`"),
            ("roster.rs", "`hands`"),
        ],
        from: "        self.note_in_hand(at.seq(), 1);\n        crash::point(\"get.in_hand\");\n        \
               self.commit_get(who, at, first.end(), self.volume_of(first));\n",
        to: "        self.commit_get(who, at, first.end(), self.volume_of(first));\n        crash::point(\"get.in_hand\");\n        \
             self.note_in_hand(at.seq(), 1);\n",
        by: &[dies_in("Get(Inline), Alone")],
    },
    Mutant {
        name: "the short way notes what is in hand after the commit",
        file: USUAL,
        rows: &[("ring/get.rs", "after the commit, before the caller has it")],
        from: "        let hand = note(first.at.seq());\n        crash::point(\"get.in_hand_usual\");\n        \
               consumed.pw.commit_and_kick_lightly(who.thread, || first.end().store(&consumed.head));\n",
        to: "        consumed.pw.commit_and_kick_lightly(who.thread, || first.end().store(&consumed.head));\n        \
             crash::point(\"get.in_hand_usual\");\n        let hand = note(first.at.seq());\n",
        by: &[dies_in("UsualGet, "), dies_in("Get(Inline), Alone"), Test::proof("getters_and_putters_are_killed")],
    },
    Mutant {
        name: "what panics when it is decoded stays in hand",
        file: "channel/src/ring/hands.rs",
        rows: &[],
        from: "        self.0.store(0, Ordering::Relaxed);\n",
        to: "        if !std::thread::panicking() {\n            self.0.store(0, Ordering::Relaxed);\n        }\n",
        by: &[Test::steps("losses", "what_panics")],
    },
    Mutant {
        name: "a lease table is taken for a ring that was not named yet",
        file: "channel/src/ring/put.rs",
        rows: &[],
        from: "if queue == self.index() && self.cell.ring.load(Ordering::Relaxed) == 0 => {\n",
        to: "if queue == self.index() && self.cell.ring.load(Ordering::Relaxed) != block.raw() => {\n",
        by: &[Test::steps("reused", "a_lease_table")],
    },
    Mutant {
        name: "the notes of the dead are not taken back",
        file: GET,
        rows: &[("ring/get.rs", "copying, before the commit")],
        from: "        self.void_hands()?;\n",
        to: "",
        by: &[dies_in("Get(Inline), Victim")],
    },
    Mutant {
        name: "a taking is not undone",
        file: GET,
        rows: &[("ring/get.rs", "copying, before the commit"), ("blocks.rs", "`Taken(slot, queue, seq)`")],
        from: "        self.undo_taking()?;\n",
        to: "",
        by: &[dies_in("Lease(Block), A"), dies_in("Get(Block), ")],
    },
    Mutant {
        name: "a getter's successor does not look for leases",
        file: GET,
        rows: &[("ring/get.rs", "having cleared `attention`"), ("ring/cell.rs", "`attention`")],
        from: "        self.free_segments()?;\n        self.cell.attention.store(1, Ordering::Release);\n",
        to: "        self.free_segments()?;\n",
        by: &[Test::steps("crash_queue", "who_repairs_dies_as_well").only("Retake(Inline) then")],
    },
    Mutant {
        name: "a block is taken before it is named",
        file: GET,
        rows: &[("ring/get.rs", "copying, before the commit"), ("ring/cell.rs", "`putting`, `taking` (with `taking_seq`)")],
        from: "        self.cell.consumed.begin_taking(block, first.at.seq());\n        crash::point(\"get.named\");\n",
        to: "",
        by: &[dies_in("Get(Block), ")],
    },
    Mutant {
        name: "who ends a queue tells nobody",
        file: "channel/src/ring/kind.rs",
        rows: &[("ring/cell.rs", "`ended`")],
        from: "        Role::Sender => cell.produced.cw.commit_and_kick(me, || {\n            cell.ended.fetch_or(NO_SENDER, Ordering::Release);\n        }),\n",
        to: "        Role::Sender => {\n            let _ = me;\n            cell.ended.fetch_or(NO_SENDER, Ordering::Release);\n        }\n",
        by: &[dies_in("DropSender, Getters")],
    },
    Mutant {
        name: "losses are not counted",
        file: LOSSES,
        rows: &[("ring/cell.rs", "`lost`"), ("ring/get.rs", "after the commit, before the caller has it")],
        from: "        counter.store(words.target.load(Ordering::Relaxed), Ordering::Relaxed);\n",
        to: "        let _ = counter;\n",
        by: &[dies_in("Get(Inline), Alone")],
    },
    Mutant {
        name: "what a dead cleaner has begun to count is counted anew",
        file: "shm/src/collect.rs",
        rows: &[("losses.rs", "`note`"), ("losses.rs", "`sum`")],
        from: "        self.finish_counting()?;\n",
        to: "",
        by: &[COUNTING],
    },
    Mutant {
        name: "nobody tells what a dead process was to tell",
        file: "shm/src/collect.rs",
        rows: &[("losses.rs", "an entry's `owner`")],
        from: "        self.inherit_losses(SlotId { index: slot, generation });\n",
        to: "",
        by: &[COUNTING],
    },
    Mutant {
        name: "losses are told again and again",
        file: "channel/src/queue.rs",
        rows: &[("ring/cell.rs", "`told`")],
        from: "Ok(_) => return lost.wrapping_sub(told),",
        to: "Ok(_) => return lost,",
        by: &[COUNTING],
    },
    Mutant {
        name: "what was not committed counts as lost",
        file: "channel/src/ring/kind.rs",
        rows: &[("ring/get.rs", "copying, before the commit")],
        from: "            age(now, seq).min(count)\n",
        to: "            age(now, seq).max(count)\n",
        by: &[dies_in("Get(Inline), Alone")],
    },
];
