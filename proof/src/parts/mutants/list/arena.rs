//! Of the arena: blocks, objects, holds, the roster, the collector.

use crate::parts::mutants::Mutant;
use crate::parts::mutants::trial::Test;

const COLLECT: &str = "shm/src/collect.rs";
const ARENA: &str = "shm/src/arena.rs";
const BLOCKS: &str = "shm/src/blocks.rs";
const MOVES: &str = "shm/src/moves.rs";
const MODEL: Test = Test::model("multiproc-shm", "moves", "");
const MOVING: Test = Test::model("multiproc-channel", "arenas", "handles_move_while_collections_run");
const SCALE: Test = Test::steps("scale", "who_dies_while_memory_is_taken_or_given_back");
const FORK: Test = Test::steps("fork", "it_dies_at_each_step_of_joining");
const SYNC: Test = Test::steps("crash_sync", "a_death_at_every_step_of_every_operation");
/// What stands at a free place of the roster counts for nobody: it shows when the place is another's.
const LEFT: Test = Test::steps("collector", "what_a_dead_process_held_is_not_held_by_its_successor");

const fn dies_in(only: &'static str) -> Test {
    Test::steps("crash_queue", "one_dies_at_each_step").only(only)
}

pub const ALL: &[Mutant] = &[
    Mutant {
        name: "a mover's fence left out",
        file: MOVES,
        rows: &[("holds.rs", "hold")],
        from: "    // Pairs with the fence in `begin`.\n    fence(Ordering::SeqCst);\n",
        to: "",
        by: &[MODEL],
    },
    Mutant {
        name: "the collector's fence left out",
        file: MOVES,
        rows: &[("arena.rs", "`active`")],
        from: "    active.store(epoch, Ordering::Relaxed);\n    // Pairs with the fence in `stamp`.\n    fence(Ordering::SeqCst);\n",
        to: "    active.store(epoch, Ordering::Relaxed);\n",
        by: &[MODEL],
    },
    Mutant {
        name: "what moves is not stamped",
        file: MOVES,
        rows: &[("objects.rs", "`stamp`")],
        from: "        stamp.fetch_max(epoch, Ordering::Release);\n",
        to: "        let _ = stamp;\n",
        by: &[MODEL],
    },
    Mutant {
        name: "the sweep does not look at stamps",
        file: COLLECT,
        rows: &[("objects.rs", "`stamp`")],
        from: "                if !stamped && self.object_made_before(index, marks)? && self.end_object(index, generation)? {\n",
        to: "                if self.object_made_before(index, marks)? && self.end_object(index, generation)? {\n",
        by: &[Test::unit("multiproc-shm", "collect")],
    },
    Mutant {
        name: "what is stamped is no root",
        file: COLLECT,
        rows: &[("objects.rs", "`stamp`")],
        from: "        while marks.stamped()? {\n            marks.follow();\n        }\n",
        to: "",
        by: &[MOVING, Test::steps("collector", "")],
    },
    Mutant {
        name: "what nobody references stays",
        file: COLLECT,
        rows: &[("shared_vec.rs", "after that"), ("shared_vec.rs", "after the freeze, before a message with it commits")],
        from: "            if flags & REACHED == 0 {\n                if !stamped &&",
        to: "            if flags & REACHED == 0 {\n                if !stamped && index == u32::MAX &&",
        by: &[Test::steps("crash_memory", "of_a_shared_vec")],
    },
    Mutant {
        name: "each collection has the same epoch",
        file: COLLECT,
        rows: &[("arena.rs", "`epoch`")],
        from: "            last => last + 1,\n",
        to: "            last => last.max(1),\n",
        by: &[Test::model("multiproc-channel", "arenas", ""), Test::steps("collector", ""), dies_in("Put(Handle), A")],
    },
    Mutant {
        name: "nobody collects for who asked meanwhile",
        file: COLLECT,
        rows: &[("arena.rs", "`again`")],
        from: "            if words.again.swap(0, Ordering::SeqCst) == 0 {\n",
        to: "            if words.again.swap(0, Ordering::SeqCst) <= 1 {\n",
        by: &[Test::unit("multiproc-shm", "collect")],
    },
    Mutant {
        name: "a dead collector keeps the lock",
        file: COLLECT,
        rows: &[("arena.rs", "`lock`"), ("rejoin.rs", "with the collector's lock")],
        from: "                Ok(_) => {}\n",
        to: "                Ok(crate::raw::Acquired::OwnerDied) => return Ok(sum),\n                Ok(_) => {}\n",
        by: &[FORK, Test::steps("collector", "")],
    },
    Mutant {
        name: "a reference under way is not counted",
        file: "shm/src/record.rs",
        rows: &[("objects.rs", "`sent`, `received`")],
        from: "        arena.entry(h.object().index)?.sent.fetch_add(1, Ordering::SeqCst);\n",
        to: "        let _ = arena;\n",
        by: &[Test::steps("collector", "a_sender_in_a_message_keeps_its_channel_open")],
    },
    Mutant {
        name: "the dead keep what they hold",
        file: COLLECT,
        rows: &[
            ("holds.rs", "hold"),
            ("rejoin.rs", "with the slot live, before the last bit"),
            ("process/src/worker.rs", "while the function runs"),
        ],
        from: "        for index in held {\n            self.holds.clear(&self.memory, slot, Table::Hold, index)?;\n        }\n",
        to: "        let _ = held;\n",
        by: &[LEFT],
    },
    Mutant {
        name: "the dead keep their roles",
        file: COLLECT,
        rows: &[("holds.rs", "sender, receiver")],
        from: "                self.holds.clear(&self.memory, slot, table, index)?;\n                // The mark phase that follows",
        to: "                // The mark phase that follows",
        by: &[LEFT],
    },
    Mutant {
        name: "what a dead process was filling stays",
        file: COLLECT,
        rows: &[
            ("blocks.rs", "`Filling(slot)`"),
            ("slab.rs", "state"),
            ("shared_vec.rs", "while the memory is taken or filled"),
            ("process/src/worker.rs", "before `result` is stored"),
        ],
        from: "                BlockState::Filling(s) | BlockState::Slot(s) if s == slot => mine.push((block, None)),\n",
        to: "                BlockState::Slot(s) if s == slot => mine.push((block, None)),\n",
        by: &[dies_in("FirstPut, Abandoned")],
    },
    Mutant {
        name: "what a dead process left to its dead parent stays",
        file: COLLECT,
        rows: &[
            ("blocks.rs", "`Slot(slot)`"),
            ("roster.rs", "`args`"),
            ("roster.rs", "`result`"),
            ("process/src/worker.rs", "before `args` is cleared"),
        ],
        from: "                BlockState::Slot(s) if s == slot && keep_last_will => {}\n",
        to: "                BlockState::Slot(s) if s == slot && (keep_last_will || s != 0) => {}\n",
        by: &[SYNC, Test::steps("crash_trees", "")],
    },
    Mutant {
        name: "an object that a dead process was making stays",
        file: COLLECT,
        rows: &[("objects.rs", "state `Filling(slot)`"), ("shared_vec.rs", "while the memory is taken or filled")],
        from: "                (ObjectState::Filling(by), generation) if by == slot => {\n",
        to: "                (ObjectState::Filling(by), generation) if by == slot && generation == u32::MAX => {\n",
        by: &[Test::steps("crash_memory", "of_a_shared_vec"), SYNC],
    },
    Mutant {
        name: "an object that a dead process was freeing stays",
        file: COLLECT,
        rows: &[("objects.rs", "state `Dying(slot)`")],
        from: "                (ObjectState::Dying(by), generation) if by == slot => self.finish_end(index, generation)?,\n",
        to: "",
        by: &[Test::steps("crash_memory", "of_a_shared_vec"), SYNC],
    },
    Mutant {
        name: "an object lives before its cell is its own",
        file: ARENA,
        rows: &[("objects.rs", "state `Live`"), ("blocks.rs", "`Object(index)`")],
        from: "        self.set_block_state(block, BlockState::Object(index)).map_err(undo)?;\n        crash::point(\"object.owned\");\n        // Before it is live: a sweep \
               that finds it live finds it stamped, or its collection began after the hold bit was set.\n        \
               self.stamp(index).map_err(undo)?;\n        // Release pairs with the Acquire in `object_state`.\n        \
               state.store(ObjectState::Live.to_word(generation), Ordering::Release);\n",
        to: "        self.stamp(index).map_err(undo)?;\n        state.store(ObjectState::Live.to_word(generation), Ordering::Release);\n        \
             crash::point(\"object.owned\");\n        self.set_block_state(block, BlockState::Object(index)).map_err(undo)?;\n",
        by: &[Test::steps("crash_clean", "who_cleans_up_dies_as_well").only("New, object.owned")],
    },
    Mutant {
        name: "free entries that somebody died over are not offered again",
        file: "shm/src/slab.rs",
        rows: &[("slab.rs", "free bit"), ("slab.rs", "`high`")],
        from: "            if free && self.bit_word(memory, index / 64)?.load(Ordering::Relaxed) & (1 << (index % 64)) == 0 {\n",
        to: "            if free && self.bit_word(memory, index / 64)?.load(Ordering::Relaxed) & (1 << (index % 64)) == 1 {\n",
        by: &[Test::unit("multiproc-shm", "slab")],
    },
    Mutant {
        name: "a slot is freed before it is cleaned",
        file: COLLECT,
        rows: &[("roster.rs", "state `Live`"), ("roster.rs", "flag `CLEANED`")],
        from: "        let high = self.objects_high();\n        self.each_bit(slot, Table::Hold, high, |index| match self.object(index)? {\n",
        to: "        if !kept {\n            s.change((SlotState::Live, generation), (SlotState::Free, generation.wrapping_add(1)));\n        }\n        let high = \
             self.objects_high();\n        self.each_bit(slot, Table::Hold, high, |index| match self.object(index)? {\n",
        by: &[Test::steps("crash_clean", "")],
    },
    Mutant {
        name: "a slot that was reserved stays so",
        file: COLLECT,
        rows: &[("roster.rs", "state `Reserved`"), ("process/src/worker.rs", "before the slot is live")],
        from: "            SlotState::Reserved if self.reserver_gone(s)? => Condition::Dead,\n",
        to: "            SlotState::Reserved if slot == 0 && self.reserver_gone(s)? => Condition::Dead,\n",
        by: &[SYNC, FORK],
    },
    Mutant {
        name: "a slot that was reserved by itself stays so",
        file: COLLECT,
        rows: &[("roster.rs", "state `Reserved` by itself"), ("rejoin.rs", "with the slot reserved")],
        from: "            return Ok(slot.life.owner_died());\n",
        to: "            return Ok(false);\n",
        by: &[FORK],
    },
    Mutant {
        name: "who is dying is cleaned up after",
        file: COLLECT,
        rows: &[("roster.rs", "flag `ATTENDED`")],
        from: "            SlotState::Live if s.is_dead() && !self.is_gone(slot, s) => Condition::Fine,\n",
        to: "",
        by: &[Test::steps("dying", "")],
    },
    Mutant {
        name: "a living process is taken for the dead one whose slot it has",
        file: "shm/src/roster.rs",
        rows: &[("roster.rs", "state `Live` and gone")],
        from: "        let gone = |now: u64| (now & !SEEN_GONE == live).then_some(live | SEEN_GONE);\n",
        to: "        let gone = |now: u64| (now >> 56 == live >> 56).then_some(now | SEEN_GONE);\n",
        by: &[Test::steps("fork", "who_has_the_slot")],
    },
    Mutant {
        name: "who looks for a place wipes off that somebody has died there",
        file: "shm/src/rejoin.rs",
        rows: &[("rejoin.rs", "having locked `life` of a free slot, or of one that was free a moment ago")],
        from: "            (false, Acquired::OwnerDied) => slot.life.unlock_inconsistent(thread),\n",
        to: "            (false, Acquired::OwnerDied) => slot.life.unlock(thread),\n",
        by: &[Test::unit("multiproc-shm", "rejoin")],
    },
    Mutant {
        name: "a worker does not wait for who has its place in passing",
        file: "process/src/keeper.rs",
        rows: &[],
        from: "        let _ = mine.life.lock_until(arena.who().ok()?, Deadline::after(OTHERS_ON_THEIR_WAY)).ok()?;\n",
        to: "        let _ = mine.life.try_lock(arena.who().ok()?).ok()?;\n",
        by: &[Test::steps("fork", "a_worker_waits")],
    },
    Mutant {
        name: "its owner frees what the collector has in hand",
        file: ARENA,
        rows: &[],
        from: "        if self.collection().lock.is_held() {\n",
        to: "        if self.collection().lock.is_held() && forks == u32::MAX {\n",
        by: &[Test::unit("multiproc-shm", "collect")],
    },
    Mutant {
        name: "who does not take part after all keeps the place",
        file: "shm/src/rejoin.rs",
        rows: &[],
        from: "            self.leave(self.my_slot());\n",
        to: "",
        by: &[Test::steps("fork", "what_the_parent_has_let_go_of")],
    },
    Mutant {
        name: "the children of the dead are kept for them",
        file: COLLECT,
        rows: &[("roster.rs", "flag `RELEASED`")],
        from: "        let kept = !s.is_released() && !self.parent_gone(s)?;\n",
        to: "        let kept = !s.is_released();\n",
        by: &[Test::steps("crash_trees", ""), SYNC, Test::steps("trees", "")],
    },
    Mutant {
        name: "a process by fork waits for its parent to look",
        file: "shm/src/roster.rs",
        rows: &[("roster.rs", "flag `FORKED`")],
        from: "        self.flags.fetch_or(FORKED | RELEASED, Ordering::Release);\n",
        to: "        self.flags.fetch_or(FORKED, Ordering::Release);\n",
        by: &[FORK],
    },
    Mutant {
        name: "bits are set beyond where others look",
        file: "shm/src/roster.rs",
        rows: &[("roster.rs", "`bits_high`")],
        from: "            self.bits_high.fetch_max(index + 1, Ordering::Relaxed);\n",
        to: "            self.bits_high.fetch_max(index, Ordering::Relaxed);\n",
        by: &[Test::model("multiproc-channel", "arenas", ""), Test::steps("collector", "")],
    },
    Mutant {
        name: "pages are given back and still counted",
        file: BLOCKS,
        rows: &[("blocks.rs", "n | no"), ("memory.rs", "`used`")],
        from: "        crash::point(\"block.emptied\");\n        account.credit(have);\n",
        to: "        crash::point(\"block.emptied\");\n",
        by: &[SCALE],
    },
    Mutant {
        name: "a note outlives its wait",
        file: "shm/src/notes.rs",
        rows: &[("notes.rs", "`word` of a note"), ("roster.rs", "`notes`")],
        from: "        note.word.store(0, Ordering::Release);\n",
        to: "",
        by: &[Test::unit("multiproc-shm", "waiting")],
    },
];
