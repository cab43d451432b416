//! `TestNamedResource`: an object of the coordinator in a static, used by a child, is no leak.

use crate::stage::{alone, watched};
use multiproc::{Process, Queue};
use std::sync::LazyLock;

static GLOBAL: LazyLock<Queue<u32>> = LazyLock::new(|| Queue::bounded(4).unwrap());

#[test]
fn global_resource() {
    let _watched = watched();
    let text = alone("named_resource::uses_a_static");
    assert!(!text.contains("leak") && !text.contains("waiting for"), "{text}");
}

#[test]
#[ignore = "a program of its own"]
fn uses_a_static() {
    // A worker has a static of its own: what is shared is handed to it.
    let p = Process::spawn((GLOBAL.clone(),), |queue: Queue<u32>| {
        queue.put(1).unwrap();
        GLOBAL.len()
    });
    assert_eq!((p.unwrap().join().unwrap(), GLOBAL.get().unwrap()), (0, 1));
}
