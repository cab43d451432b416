//! `_TestHeap`: the arena's memory.

use crate::stage::{alone, watched};
use multiproc::{Array, Queue, stats, testing};

#[test]
fn heap() {
    let _watched = watched();
    alone("heap::allocates_and_frees");
}

/// 5,000 blocks of random sizes, of which some are freed all the time: none lies over another, and nothing is left at the end.
#[test]
#[ignore = "a program of its own"]
fn allocates_and_frees() {
    let mut seed = 1u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let fill = |n: usize| (n as u8).wrapping_mul(31) | 1;
    let mut blocks: Vec<(usize, Array<u8>)> = Vec::new();
    for n in 0..5000 {
        let size = 1 << random(14);
        let block = Array::<u8>::zeroed(size + random(100) as usize).unwrap();
        assert!(block.to_vec().unwrap().iter().all(|&b| b == 0));
        block.lock().unwrap().fill(fill(n));
        blocks.push((n, block));
        if blocks.len() > 100 {
            let (n, block) = blocks.swap_remove(random(100) as usize);
            assert!(block.to_vec().unwrap().iter().all(|&b| b == fill(n)), "block {n} was written over");
        }
    }
    for (n, block) in blocks.drain(..) {
        assert!(block.to_vec().unwrap().iter().all(|&b| b == fill(n)), "block {n} was written over");
    }
    assert_eq!(stats().unwrap().objects(), 0);
}

/// A drop within a drop, and a ring of references.
#[test]
fn free_from_a_drop() {
    let _watched = watched();
    alone("heap::drops_within_drops");
}

#[test]
#[ignore = "a program of its own"]
fn drops_within_drops() {
    struct Outer {
        inner: Option<Queue<Queue<u8>>>,
    }
    impl Drop for Outer {
        fn drop(&mut self) {
            let inner = self.inner.take().unwrap();
            inner.put(Queue::bounded(3).unwrap()).unwrap();
            drop(inner);
        }
    }
    for _ in 0..50 {
        drop(Outer { inner: Some(Queue::bounded(4).unwrap()) });
    }
    testing::collect().unwrap();
    assert_eq!(stats().unwrap().objects(), 0);
}
