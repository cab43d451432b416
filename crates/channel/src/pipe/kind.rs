//! What the cleaner and the collector do with a pipe.
//!
//! A dead process's end is its alone until the cleaner has made its owner a grave: nobody else sends there or receives meanwhile, so the
//! cleaner repairs without a lock.

use super::cell::{End, GONE, PipeCell};
use super::record::{Head, Ring, position, seq};
use multiproc_shm::blocks::{BlockId, BlockState};
use multiproc_shm::notes::Op;
use multiproc_shm::objects::{Kind, Object, RawRef};
use multiproc_shm::report::Standing;
use multiproc_shm::{Arena, Error, Role, record};
use multiproc_sys::crash;
use multiproc_sys::robust::Thread;
use std::sync::atomic::{Ordering, fence};

/// Pipes in the object table.
pub(crate) static PIPE: Kind =
    Kind { channel: true, trace, slot_died, block_orphaned, left, role_gone, end, report, ..Kind::plain(17, "Pipe") };

/// The roles that stand for the two ends.
pub(crate) const ROLES: [Role; 2] = [Role::Sender, Role::Receiver];

/// Calls `visit` with each record of a way, and while others change it now and then with bytes that are none any more.
///
/// What is sent meanwhile need not be seen: its references are stamped. So one lap is enough.
///
/// The sender's copy of a long message is a plain one, so by the rules of the language a look at a record that the receiver has passed meanwhile races with it. The
/// words are read as atomics, and what `visit` makes of a wrong one keeps an object for one collection more.
fn each_record(
    arena: &Arena,
    cell: &PipeCell,
    way: usize,
    mut visit: impl FnMut(&Ring, u64, Head) -> Result<(), Error>,
) -> Result<(), Error> {
    // Acquire pairs with the Release in `make_ring`.
    let Some(ring) = Ring::in_block(arena, cell.sent(way).ring.load(Ordering::Acquire))? else { return Ok(()) };
    let received = &cell.received(way).head;
    let start = position(received.load(Ordering::Acquire))?;
    let mut at = start;
    while at.wrapping_sub(start) < ring.len {
        let head = ring.head(at);
        if let Ok(Some(head)) = head {
            visit(&ring, at, head)?;
        }
        // The record was what it seemed only if the receiver has not passed it meanwhile. Pairs with the Release of the head: who has read
        // bytes of a later lap sees the head that let them be written.
        fence(Ordering::Acquire);
        let now = position(received.load(Ordering::Acquire))?;
        if now > at {
            at = now;
            continue;
        }
        let Ok(Some(head)) = head else { return Ok(()) };
        at += head.size();
    }
    Ok(())
}

fn trace(arena: &Arena, object: Object, visit: &mut dyn FnMut(RawRef)) -> Result<(), Error> {
    let cell = PipeCell::of(arena, object)?;
    for way in 0..2 {
        each_record(arena, cell, way, |ring, at, head| {
            if head.form().is_block() {
                if let Some(block) = BlockId::from_word(ring.payload_word(at)?) {
                    let _ = record::references(arena, block, &mut *visit);
                }
                return Ok(());
            }
            ring.references(at, head, visit)
        })?;
    }
    Ok(())
}

/// Tells all who watch an end, those who are about to sleep as well; and whatever the word says: who should have told them may have died over it.
fn tell(end: &End, me: Thread) {
    end.news.commit_and_kick_all(me, || {});
    end.news.pass_on_to_all();
}

fn slot_died(arena: &Arena, object: Object, slot: u32) -> Result<(), Error> {
    let dead = arena.slot(slot)?;
    if !dead.life.owner_died() {
        // Called for the locks in an object; a pipe has none. Once its life word is marked the process is cleaned up after, and we are asked again.
        return Ok(());
    }
    let cell = PipeCell::of(arena, object)?;
    let (_, generation) = dead.state()?;
    for (i, side) in cell.sides.iter().enumerate() {
        match side.end.owner() {
            Some(owner) if owner.is_in(slot, generation) => {
                free_uncommitted(arena, object, cell, i)?;
                crash::point("pipe.repaired");
                side.end.change_owner(Some(owner), Some(owner.buried()));
            }
            None if arena.slot_has(slot, ROLES[i], object.index)? => {
                // Release pairs with the Acquire of who looks when everybody is gone.
                side.end.bereft.store(u64::from(dead.pid.load(Ordering::Relaxed)), Ordering::Release);
            }
            _ => {}
        }
    }
    let me = arena.who()?.thread;
    cell.sides.iter().for_each(|side| tell(&side.end, me));
    Ok(())
}

/// Frees the block that the dead user of end `i` was about to send, or its ring if it was not named yet.
fn free_uncommitted(arena: &Arena, object: Object, cell: &PipeCell, i: usize) -> Result<(), Error> {
    let sent = cell.sent(i);
    let Some(block) = BlockId::from_word(sent.putting.load(Ordering::Relaxed)) else { return Ok(()) };
    match arena.block_state(block)? {
        state @ BlockState::Queue { queue, seq: number } if queue == object.index => {
            let tail = position(sent.tail.load(Ordering::Relaxed))?;
            let committed = match Ring::in_block(arena, sent.ring.load(Ordering::Acquire))? {
                Some(ring) => number != seq(i, tail) || ring.is_committed(tail)?,
                None => false,
            };
            if !committed {
                arena.free_if(block, state)?;
            }
        }
        state @ BlockState::Object(index) if index == object.index && sent.ring.load(Ordering::Relaxed) != block.raw() => {
            arena.free_if(block, state)?;
        }
        _ => {}
    }
    sent.putting.store(0, Ordering::Relaxed);
    Ok(())
}

/// A large message was the dead process's: taken, and perhaps not out of the ring yet.
fn block_orphaned(arena: &Arena, object: Object, block: BlockId, slot: u32) -> Result<(), Error> {
    let cell = PipeCell::of(arena, object)?;
    let BlockState::Taken { slot: by, queue, seq: number } = arena.block_state(block)? else { return Ok(()) };
    if by != slot || queue != object.index {
        return Ok(());
    }
    let state = BlockState::Taken { slot: by, queue, seq: number };
    let mut in_ring = false;
    for way in 0..2 {
        let at = position(cell.received(way).head.load(Ordering::Acquire))?;
        if let Some(ring) = Ring::in_block(arena, cell.sent(way).ring.load(Ordering::Acquire))?
            && seq(way, at) == number
            && matches!(ring.head(at), Ok(Some(head)) if head.form().is_block())
        {
            in_ring |= ring.payload_word(at)? == block.raw();
        }
    }
    if in_ring {
        arena.change_block_state(block, state, BlockState::Queue { queue, seq: number })?;
    } else {
        arena.free_if(block, state)?;
    }
    Ok(())
}

/// A process that exits without dropping its handles leaves in good order, whoever else has handles of the end.
fn left(arena: &Arena, object: Object, role: Role) -> Result<(), Error> {
    let Some(i) = ROLES.iter().position(|r| *r == role) else { return Ok(()) };
    let cell = PipeCell::of(arena, object)?;
    let end = &cell.sides[i].end;
    let mine = arena.slot(arena.my_slot())?.state()?.1;
    if let Some(owner) = end.owner().filter(|owner| owner.is_in(arena.my_slot(), mine)) {
        end.news.commit_and_kick_all(arena.who()?.thread, || {
            end.change_owner(Some(owner), None);
        });
        crash::point("pipe.left");
    }
    Ok(())
}

/// Nobody can use an end any more.
fn role_gone(arena: &Arena, object: Object, role: Role) -> Result<(), Error> {
    let Some(i) = ROLES.iter().position(|r| *r == role) else { return Ok(()) };
    let cell = PipeCell::of(arena, object)?;
    let end = &cell.sides[i].end;
    end.news.commit_and_kick_all(arena.who()?.thread, || {
        // Release pairs with the Acquire in `End::flags`.
        end.flags.fetch_or(GONE, Ordering::Release);
    });
    Ok(())
}

/// Frees the messages and the rings. Each block is freed by a change of its state, so doing it twice is harmless.
fn end(arena: &Arena, object: Object) -> Result<(), Error> {
    let cell = PipeCell::of(arena, object)?;
    let free_message = |block: BlockId| -> Result<(), Error> {
        match arena.block_state(block)? {
            state @ (BlockState::Queue { queue, .. } | BlockState::Taken { queue, .. }) if queue == object.index => {
                arena.free_if(block, state)?;
            }
            _ => {}
        }
        Ok(())
    };
    for way in 0..2 {
        each_record(arena, cell, way, |ring, at, head| {
            let word = if head.form().is_block() { ring.payload_word(at)? } else { 0 };
            BlockId::from_word(word).map_or(Ok(()), free_message)
        })?;
        let sent = cell.sent(way);
        for word in [&sent.putting, &sent.ring] {
            if let Some(block) = BlockId::from_word(word.load(Ordering::Acquire)) {
                free_message(block)?;
                arena.free_if(block, BlockState::Object(object.index))?;
            }
        }
    }
    Ok(())
}

fn report(arena: &Arena, object: Object, standing: &mut Standing) -> Result<(), Error> {
    let cell = PipeCell::of(arena, object)?;
    let mut messages = [0u32; 2];
    for (way, messages) in messages.iter_mut().enumerate() {
        each_record(arena, cell, way, |_, _, _| {
            *messages = messages.saturating_add(1);
            Ok(())
        })?;
    }
    let ended = cell.sides.iter().any(|side| side.end.flags() != 0);
    let under_way = messages[0].saturating_add(messages[1]);
    standing.state = format!("{under_way} messages under way{}", if ended { ", one end is closed" } else { "" }).into();
    for (i, side) in cell.sides.iter().enumerate() {
        let Some(slot) = side.end.owner().and_then(super::cell::Owner::slot) else { continue };
        standing.share(slot, "an end".into(), &[]);
        // Whoever waits has the word set until somebody has changed what it waits for.
        let ways = [(Op::Recv, &cell.sent(1 - i).cw, messages[1 - i] > 0), (Op::Send, &cell.received(i).pw, messages[i] == 0)];
        for (op, word, open) in ways {
            if ended || open {
                standing.open_to(slot, op);
            } else if !word.has_sleeper() {
                standing.awake(Some(slot), op);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PipeBuilder;
    use multiproc_shm::Options;

    /// Else two who play a ball are a deadlock to whoever looks while one of them, about to sleep, has not looked once more.
    #[test]
    fn who_is_about_to_sleep_at_a_message_waits_for_nobody() {
        let arena = Arena::create(&Options { size: 16 << 20, ..Options::new(0, crate::KINDS) }).unwrap();
        let (a, b) = PipeBuilder::new().pipe_in::<u32, u32>(arena).unwrap();
        // Both ends are claimed, by this process.
        assert!(a.try_recv().is_err() && b.try_recv().is_err());
        a.send(1).unwrap();
        let object = arena.object(a.id()).unwrap().unwrap();
        let cell = PipeCell::of(arena, object).unwrap();
        let may_receive = || {
            [0, 1].iter().for_each(|&way| cell.sent(way).cw.prepare());
            let mut standing = Standing::default();
            report(arena, object, &mut standing).unwrap();
            standing.is_open_to(arena.my_slot(), Op::Recv)
        };
        assert!(may_receive());
        assert_eq!(b.recv().unwrap(), 1);
        assert!(!may_receive());
    }
}
