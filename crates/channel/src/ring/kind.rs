//! What the cleaner and the collector do with a queue. They never take its locks: an idle queue's waiting getter holds one for ever.
//! What a getter has to do they leave in `attention`, and wake it.

use super::bytes::Form;
use super::cell::{CLOSED, End, MAX_CAPACITY, MAX_LEASES, NO_RECEIVER, NO_SENDER, QueueCell, age};
use super::hands::Hand;
use super::lease::entry_of;
use super::{Bytes, bytes_of, dead, join, segments};
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::notes::Op;
use multiproc_shm::objects::{Kind, Object, RawRef};
use multiproc_shm::pace::Notice;
use multiproc_shm::report::Standing;
use multiproc_shm::{Arena, Error, Role, record};
use std::collections::BTreeMap;
use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};

/// Queues in the object table.
pub(crate) static QUEUE: Kind =
    Kind { channel: true, trace, slot_died, block_orphaned, role_gone, end, tell_of_loss, report, ..Kind::plain(16, "Queue") };

fn cell(arena: &Arena, object: Object) -> Result<&'static QueueCell, Error> {
    if object.size < size_of::<QueueCell>() as u64 {
        return Err(Error::Corrupted(&"a queue's cell"));
    }
    arena.memory().at(object.offset)
}

/// Calls `visit` with each record of the ring, and while others change it now and then with bytes that are none any more.
fn each_record(
    arena: &Arena,
    cell: &QueueCell,
    queue: u32,
    mut visit: impl FnMut(Bytes, End, super::bytes::Head) -> Result<(), Error>,
) -> Result<(), Error> {
    // As in `each_segment`.
    let Ok(Some(bytes)) = bytes_of(arena, cell, queue) else { return Ok(()) };
    let (mut at, tail) = (End::load(&cell.consumed.head), End::load(&cell.produced.tail));
    // What is put meanwhile need not be seen: its references are stamped. So no more is gone through than lies between the two, whatever becomes of them.
    let (mut items, mut left) = (tail.items_since(at), tail.bytes_since(at));
    if left > bytes.size() {
        return Ok(());
    }
    while at != tail {
        let head = bytes.read_head(arena, at, tail);
        if let Ok(head) = head {
            visit(bytes, at, head)?;
        }
        // The record was what it seemed only if the getters have not passed it meanwhile. Pairs with the Release of the head: who has
        // read bytes of a later lap sees the head that let them be written.
        fence(Ordering::Acquire);
        let now = End::load(&cell.consumed.head);
        let was_passed = (1..1 << 23).contains(&age(now.seq(), at.seq()));
        let next = match head {
            _ if was_passed => now,
            Ok(head) => at.after(head.size()),
            Err(_) => return Ok(()),
        };
        let rest = (items.checked_sub(next.items_since(at)), left.checked_sub(next.bytes_since(at)));
        let (Some(more), Some(room)) = rest else { return Ok(()) };
        (items, left, at) = (more, room, next);
    }
    Ok(())
}

fn each_lease(arena: &Arena, cell: &QueueCell, mut visit: impl FnMut(BlockId) -> Result<(), Error>) -> Result<(), Error> {
    let table = cell.leases.load(Ordering::Acquire);
    if table == 0 {
        return Ok(());
    }
    for entry in 0..cell.lease_high.load(Ordering::Acquire).min(MAX_LEASES) {
        if let Some(block) = BlockId::from_word(entry_of(arena, table, entry)?.load(Ordering::Acquire)) {
            visit(block)?;
        }
    }
    Ok(())
}

/// References in the records and leases. What is read while it moves is stamped by its mover, so reading it wrong frees nothing.
fn trace(arena: &Arena, object: Object, visit: &mut dyn FnMut(RawRef)) -> Result<(), Error> {
    let cell = cell(arena, object)?;
    each_record(arena, cell, object.index, |bytes, at, head| match head.form() {
        Form::Inline => bytes.references(arena, at, head, visit),
        Form::Block => {
            if let Some(block) = BlockId::from_word(bytes.payload_word(arena, at)?) {
                let _ = record::references(arena, block, &mut *visit);
            }
            Ok(())
        }
    })?;
    each_lease(arena, cell, |block| {
        let _ = record::references(arena, block, &mut *visit);
        Ok(())
    })
}

fn slot_died(arena: &Arena, object: Object, slot: u32) -> Result<(), Error> {
    let cell = cell(arena, object)?;
    let dead = arena.slot(slot)?;
    // The kernel did not walk its list, or knew nothing of the word that it had in hand: it died in a signal handler, which had another one pending.
    cell.plock.mark_dead(slot);
    cell.clock.mark_dead(slot);
    cell.dead.lock.mark_dead(slot);
    let now = End::load(&cell.consumed.head).seq();
    let counter = object.offset + offset_of!(QueueCell, lost) as u64;
    for (i, hand) in dead.hands.iter().enumerate() {
        let Some(Hand { queue, seq, count, returned }) = Hand::from_word(hand.load(Ordering::Acquire)) else { continue };
        if queue != object.index {
            continue;
        }
        let lost = if returned {
            u32::from(!is_in_lease_table(arena, cell, object, seq)?)
        } else {
            // Committed as far as the head is past them, however far: the note is written before the commit, names what the head is at, and what was not
            // committed is taken back by the next getter.
            age(now, seq).min(count)
        };
        if lost > 0 {
            let pid = dead.pid.load(Ordering::Relaxed);
            arena.count_loss(slot, i, counter, Notice { tell: tell_of_loss, object: object.index, seq, count: lost, pid })?;
        }
    }
    // It may have died between returning a lease and saying so.
    raise_attention(arena, cell)?;
    cell.wake_the_others(arena.who()?.thread);
    cell.dead.wake.pass_on_to_all();
    Ok(())
}

fn tell_of_loss(&Notice { object: queue, seq, count, pid, .. }: &Notice) {
    tracing::warn!(queue, seq, count, pid, "messages were lost: their getter died before it had returned");
}

fn tell_of_return(&Notice { object: queue, seq, pid, .. }: &Notice) {
    tracing::warn!(queue, seq, pid, "a lease came back: its holder died");
}

fn is_in_lease_table(arena: &Arena, cell: &QueueCell, object: Object, wanted: u32) -> Result<bool, Error> {
    let mut found = false;
    each_lease(arena, cell, |block| {
        if let BlockState::Leased { queue, seq, .. } | BlockState::Returned { queue, seq } = arena.block_state(block)? {
            found |= queue == object.index && seq == wanted;
        }
        Ok(())
    })?;
    Ok(found)
}

fn raise_attention(arena: &Arena, cell: &QueueCell) -> Result<(), Error> {
    cell.raise_attention(arena.who()?.thread);
    dead::raise(cell, arena.who()?, || {});
    // It may have died between finishing the last message and saying so, or asleep as the last of the joiners.
    join::wake(arena, cell, || {})
}

/// A block of a message was the dead process's: taken and not handed over, or leased.
fn block_orphaned(arena: &Arena, object: Object, block: BlockId, slot: u32) -> Result<(), Error> {
    let cell = cell(arena, object)?;
    let is_first = |seq: u32| End::load(&cell.consumed.head).seq() == seq;
    match arena.block_state(block)? {
        // The record is still in the ring; the next getter undoes the taking, or the queue's end frees it. A message may be read, and a lease be out,
        // until the same number comes round again.
        BlockState::Taken { seq, .. } | BlockState::Leased { seq, .. } if cell.consumed.is_taking(block) && is_first(seq) => {}
        state @ BlockState::Taken { slot: s, .. } if s == slot => {
            arena.free_if(block, state)?;
        }
        state @ BlockState::Leased { slot: s, queue, seq } if s == slot => {
            let entry = record::note(arena, block)?.load(Ordering::Relaxed);
            let table = cell.leases.load(Ordering::Acquire);
            let named = entry < u64::from(MAX_LEASES)
                && table != 0
                && entry_of(arena, table, entry as u32)?.load(Ordering::Acquire) == block.raw();
            if named {
                if arena.change_block_state(block, state, BlockState::Returned { queue, seq })? {
                    let pid = arena.slot(slot)?.pid.load(Ordering::Relaxed);
                    arena.tell_later(Notice { tell: tell_of_return, object: object.index, seq, count: 1, pid });
                }
                raise_attention(arena, cell)?;
            } else {
                arena.free_if(block, state)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn role_gone(arena: &Arena, object: Object, role: Role) -> Result<(), Error> {
    let cell = cell(arena, object)?;
    let me = arena.who()?.thread;
    match role {
        Role::Sender => cell.produced.cw.commit_and_kick(me, || {
            cell.ended.fetch_or(NO_SENDER, Ordering::Release);
        }),
        Role::Receiver => {
            cell.consumed.pw.commit_and_kick(me, || {
                cell.ended.fetch_or(NO_RECEIVER, Ordering::Release);
            });
            join::wake(arena, cell, || {})?;
        }
        _ => {}
    }
    dead::raise(cell, arena.who()?, || {});
    Ok(())
}

/// Frees the messages, the ring and the lease table. Each block is freed by a change of its state, so doing it twice is harmless.
fn end(arena: &Arena, object: Object) -> Result<(), Error> {
    let cell = cell(arena, object)?;
    let mine = |queue: u32| queue == object.index;
    let free_message = |block: BlockId| -> Result<(), Error> {
        match arena.block_state(block)? {
            state @ (BlockState::Queue { queue, .. }
            | BlockState::Taken { queue, .. }
            | BlockState::Leased { queue, .. }
            | BlockState::Returned { queue, .. }
            // That was about to be made; the others are freed by their numbers.
            | BlockState::Segment { queue, .. })
                if mine(queue) =>
            {
                arena.free_if(block, state)?;
            }
            _ => {}
        }
        Ok(())
    };
    each_record(arena, cell, object.index, |bytes, at, head| match (head.form(), bytes.payload_word(arena, at)?) {
        (Form::Block, word) => BlockId::from_word(word).map_or(Ok(()), free_message),
        _ => Ok(()),
    })?;
    each_lease(arena, cell, free_message)?;
    segments::each_segment(arena, cell, object.index, |block, state| arena.free_if(block, state).map(drop))?;
    for word in [&cell.produced.putting, &cell.consumed.taking, &cell.ring, &cell.leases] {
        if let Some(block) = BlockId::from_word(word.load(Ordering::Acquire)) {
            // What a dead process was about to put or take is in neither the ring nor the table.
            free_message(block)?;
            arena.free_if(block, BlockState::Object(object.index))?;
        }
    }
    Ok(())
}

fn report(arena: &Arena, object: Object, standing: &mut Standing) -> Result<(), Error> {
    let cell = cell(arena, object)?;
    // The head first, so that it is not past the tail; what peers wrote wrong is a wrong number.
    let head = End::load(&cell.consumed.head);
    let items = u64::from(End::load(&cell.produced.tail).items_since(head));
    let capacity = cell.capacity.load(Ordering::Relaxed).min(MAX_CAPACITY as u64);
    let ended = cell.ended.load(Ordering::Acquire);
    let (mut leases, mut returned, mut buried) = (BTreeMap::<u32, u32>::new(), 0, 0);
    each_lease(arena, cell, |block| {
        match dead::standing(arena, cell, block)? {
            (BlockState::Leased { slot, queue, .. }, _) if queue == object.index => *leases.entry(slot).or_default() += 1,
            (BlockState::Returned { queue, .. }, is_dead) if queue == object.index => {
                *if is_dead { &mut buried } else { &mut returned } += 1;
            }
            _ => {}
        }
        Ok(())
    })?;
    let mut state = match cell.segment_bits.load(Ordering::Relaxed) {
        0 => format!("{items} of {capacity} items"),
        _ => format!("{items} items"),
    };
    if returned > 0 {
        state += &format!(" and {returned} returned");
    }
    if buried > 0 {
        state += &format!(", {buried} dead letters");
    }
    let max_bytes = cell.max_bytes.load(Ordering::Relaxed);
    let bytes = cell.put_and_got(head).map_or(0, |(put, got)| put.bytes_since(got));
    if max_bytes > 0 {
        state += &format!(", {bytes} of {max_bytes} bytes");
    }
    for (bit, text) in [(CLOSED, ", closed"), (NO_SENDER, ", no sender left"), (NO_RECEIVER, ", no receiver left")] {
        if ended & bit != 0 {
            state += text;
        }
    }
    standing.state = state.into();
    if items > 0 || returned > 0 || ended & (CLOSED | NO_SENDER) != 0 {
        standing.open(Op::Get);
    }
    // With a byte limit it depends on the message.
    let room = items < capacity && max_bytes == 0;
    if room || ended & (CLOSED | NO_RECEIVER) != 0 {
        standing.open(Op::Put);
    }
    // Whoever waits first has the word set until somebody has changed what it waits for.
    for (op, word) in [(Op::Get, &cell.produced.cw), (Op::Put, &cell.consumed.pw)] {
        if !word.has_sleeper() {
            standing.awake(None, op);
        }
    }
    let unfinished = items > 0 || returned > 0 || !leases.is_empty();
    if !unfinished || ended & NO_RECEIVER != 0 {
        standing.open(Op::JoinQueue);
    } else if !cell.consumed.join.has_sleeper() {
        standing.awake(None, Op::JoinQueue);
    }
    // For dead letters: anybody who has a lease may return one.
    standing.open(Op::Wait);
    standing.lock(&cell.clock, "the getters' turn", &[Op::Get]);
    standing.lock(&cell.plock, "the putters' turn", &[Op::Put]);
    for (slot, n) in leases {
        let what = if n == 1 { "a lease".into() } else { format!("{n} leases") };
        standing.share(slot, what, &[]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Queue;
    use multiproc_shm::Options;

    /// A note of three items, of a process that was held up before it could hand them over, while so many more were taken.
    fn lost_after(taken: u32, first: u32) -> u32 {
        let arena = Arena::create(&Options { size: 16 << 20, ..Options::new(0, crate::KINDS) }).unwrap();
        let queue = Queue::<u8>::builder().capacity(4).build_in(arena).unwrap();
        let object = arena.object(queue.id()).unwrap().unwrap();
        let cell = cell(arena, object).unwrap();
        let hand = Hand { queue: object.index, seq: first, count: 3, returned: false };
        arena.slot(5).unwrap().hands[2].store(hand.to_word(), Ordering::Relaxed);
        End::new(first.wrapping_add(taken), 0).store(&cell.consumed.head);
        // As the cleaner does, who alone counts.
        let cleaning = arena.hold_collections().unwrap();
        slot_died(arena, object, 5).unwrap();
        drop(cleaning);
        queue.take_losses()
    }

    #[test]
    fn what_was_in_hand_is_lost_however_many_were_taken_since() {
        for first in [0, (1 << 24) - 2] {
            // Each takes an arena.
            let few = if cfg!(miri) { 2 } else { 6 };
            for (taken, lost) in [(2, 2), ((1 << 23) + 5, 3), (0, 0), (3, 3), (1000, 3), ((1 << 24) - 1, 3)].into_iter().take(few)
            {
                assert_eq!(lost_after(taken, first), lost, "{taken} since {first}");
            }
        }
    }

    /// Else whoever collects follows a busy queue for as long as there are items up to where a peer has put the tail.
    #[test]
    #[cfg_attr(miri, ignore = "it goes through a whole ring")]
    fn no_more_is_gone_through_than_lies_between_the_ends() {
        let arena = Arena::create(&Options { size: 16 << 20, ..Options::new(0, crate::KINDS) }).unwrap();
        let queue = Queue::<u64>::builder().capacity(4).build_in(arena).unwrap();
        queue.put(0).unwrap();
        let object = arena.object(queue.id()).unwrap().unwrap();
        let cell = cell(arena, object).unwrap();
        let size = bytes_of(arena, cell, object.index).unwrap().unwrap().size();
        let tail = cell.produced.tail.load(Ordering::Relaxed);
        // The getters step over it.
        End::new(1 << 20, size - 16).store(&cell.produced.tail);
        let mut visits = 0;
        each_record(arena, cell, object.index, |_, _, head| {
            if visits == 0 {
                cell.produced.tail.store(tail, Ordering::Relaxed);
            }
            visits += 1;
            assert!(visits <= size / head.size(), "{visits} records of {size} bytes");
            for _ in 0..2 {
                queue.put(visits).unwrap();
                queue.get().unwrap();
            }
            Ok(())
        })
        .unwrap();
        assert!(visits > 1);
    }
}
