//! The shipping words of a queue with up to three who put and three who get, some of whom die, in orders of steps that shuttle draws. See `ring_model.rs`.

use shuttle as checker;

#[path = "../../shm/tests/world/mod.rs"]
mod world;

mod mock;
#[allow(dead_code)]
mod queue;

#[allow(dead_code, unreachable_pub)]
#[path = "../../shm/src/raw/lock.rs"]
mod lock;
#[allow(dead_code, unreachable_pub, rustdoc::broken_intra_doc_links)]
#[path = "../../shm/src/raw/wait_word.rs"]
mod wait_word;

/// What the modelled files call `crate::beneath`.
#[allow(unused_imports)]
mod beneath {
    pub(crate) use crate::lock::{RawLock, Who};
    pub(crate) use crate::mock::{Arena, BlockId, Error, RawRef, Round, Shared, age, cache};
    pub(crate) use crate::ring::cell::QueueCell;
    pub(crate) use crate::wait_word::WaitWord;
    pub(crate) use crate::world::*;
}

#[allow(dead_code, unreachable_pub)]
#[path = "../src/ring"]
mod ring {
    pub(crate) mod bytes;
    pub(crate) mod cell;
    pub(crate) mod usual;
    pub(crate) mod wakes;

    pub(crate) use crate::queue::untried::{dead, volume};
}

use queue::Shared;
use shuttle::thread;
use world::Without;
use world::crash::{dies_anywhere, dies_woken};
use world::schedules::{always, below, missed};
use world::shared::shared;

/// Steps of a put, and of a get, that had to wait.
const STEPS: u32 = 50;

fn acts(queue: &Shared, mut what: impl FnMut()) -> bool {
    let died = match below(8) {
        0 => dies_anywhere(1 + below(STEPS), what),
        1 => dies_woken(1 + below(STEPS), what),
        _ => {
            what();
            false
        }
    };
    if died {
        queue.clean();
    }
    died
}

/// Three put two each, three get until nobody puts any more, and all but one getter may die.
fn six() {
    let queue: &Shared = shared();
    let putters: Vec<_> = (0..3).map(|_| thread::spawn(|| (0..2).any(|_| acts(queue, || _ = queue.put())))).collect();
    let getter = |mortal: bool| {
        move || {
            let mut more = true;
            while more {
                let get = || more = queue.get_or_end().is_some();
                if mortal && acts(queue, get) {
                    return true;
                } else if !mortal {
                    more = queue.get_or_end().is_some();
                }
            }
            false
        }
    };
    let getters: Vec<_> = [true, true, false].map(|mortal| thread::spawn(getter(mortal))).into_iter().collect();
    putters.into_iter().for_each(|putter| _ = putter.join().unwrap());
    // What is there is got before anybody is woken because nothing more will come.
    while queue.len() > 0 {
        thread::yield_now();
    }
    queue.close();
    let dead = getters.into_iter().map(|getter| u32::from(getter.join().unwrap())).sum();
    queue.is_accounted_for(dead);
}

#[test]
fn three_put_and_three_get_whoever_dies() {
    always("queue", six);
}

#[test]
fn each_rule_is_needed() {
    for without in [Without::List, Without::Baton, Without::Sticky] {
        missed("queue", without, six);
    }
}
