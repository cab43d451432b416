//! Each word of a queue's and of a pipe's cell in turn is written over, by a peer that has gone wrong: operations fail or not, and return.

use multiproc_channel::{KINDS, PipeBuilder, Queue, Raw, WhenFull};
use multiproc_shm::layout::Layout;
use multiproc_shm::{Arena, Options};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MOMENT: Duration = Duration::from_micros(50);

fn arena() -> &'static Arena {
    Arena::create(&Options { size: 1 << 30, limit: Some(64 << 20), build: 1, kinds: KINDS }).unwrap()
}

fn words_of(arena: &Arena, id: u32) -> &'static [AtomicU64] {
    let object = arena.object(id).unwrap().unwrap();
    arena.memory().words(object.offset, object.size).unwrap()
}

/// Has `operate` run with each word as each of some values, and puts it back.
fn sweep(arena: &Arena, id: u32, operate: impl Fn()) {
    let words = words_of(arena, id);
    for word in words {
        let old = word.load(Ordering::Relaxed);
        for new in [0, 1, u64::MAX, 1 << 63, u64::MAX / 2 + 9, old ^ 1 << 33, old ^ 1 << 3, 0xffff_ffff, 0x7fff_ffff << 32] {
            word.store(new, Ordering::Relaxed);
            operate();
            let _ = word.compare_exchange(new, old, Ordering::Relaxed, Ordering::Relaxed);
        }
        assert_eq!(arena.who().unwrap().thread.holds(), 0, "what nobody holds stands in no list of the kernel's");
    }
}

fn use_queue(queue: &Queue<Vec<u8>, Raw>) {
    for length in [3, 300, 6000] {
        let _ = queue.put_timeout(vec![1; length], MOMENT);
        let _ = queue.get_timeout(MOMENT);
    }
    let _ = queue.lease_timeout(MOMENT).map(|lease| lease.requeue());
    let _ = queue.dead().map(|dead| dead.try_get().map(drop));
    let _ = queue.join_timeout(MOMENT);
    let _ = (queue.len(), queue.is_full(), queue.leased(), queue.unfinished());
}

#[test]
fn a_queue() {
    let arena = arena();
    for queue in [
        Queue::<Vec<u8>, Raw>::builder().capacity(4).attempts(2).build_in(arena).unwrap(),
        Queue::builder().unbounded().when_full(WhenFull::Fail).build_in(arena).unwrap(),
        Queue::builder().capacity(4).byte_limit(20_000).build_in(arena).unwrap(),
    ] {
        queue.put(vec![1; 10]).unwrap();
        sweep(arena, queue.id(), || use_queue(&queue));
    }
    let _ = arena.collect();
}

#[test]
fn a_pipe() {
    let arena = arena();
    let (a, b) = PipeBuilder::new().codec::<Raw>().pipe_in::<Vec<u8>, Vec<u8>>(arena).unwrap();
    sweep(arena, a.id(), || {
        for length in [3, 300, 6000] {
            let _ = a.send_timeout(vec![1; length], MOMENT);
            let _ = b.recv_timeout(MOMENT);
            let _ = b.send_timeout(vec![1; length], MOMENT);
            let _ = a.recv_timeout(MOMENT);
        }
    });
    drop((a, b));
    let _ = arena.collect();
}

#[test]
fn how_many_entries_a_table_has() {
    let arena = Arena::create(&Options { size: 1 << 40, limit: Some(64 << 20), build: 1, kinds: KINDS }).unwrap();
    let queue = Queue::<Vec<u8>, Raw>::bounded_in(arena, 4).unwrap();
    queue.put(vec![1; 9000]).unwrap();
    let before = arena.memory().backed().unwrap();
    let begin = Instant::now();
    // Every word of the first page that is small enough to be a number of entries, limits and figures included.
    for word in arena.memory().words(256, Layout::plan(1 << 40).unwrap().roster - 256).unwrap() {
        let old = word.load(Ordering::Relaxed);
        word.store(1 << 40, Ordering::Relaxed);
        let _ = (arena.audit(), arena.stats(), arena.collect(), queue.try_put(vec![2; 9000]).is_ok(), queue.try_get().is_ok());
        word.store(old, Ordering::Relaxed);
    }
    let grown = arena.memory().backed().unwrap().saturating_sub(before);
    assert!(grown < 256 << 20, "{grown} bytes were filled by looking at what is not there, in {:?}", begin.elapsed());
}
