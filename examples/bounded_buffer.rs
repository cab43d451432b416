//! A bounded buffer by hand, for producers and consumers: slots in a shared array, and two queues that say which are free and which are filled.
//!
//! Python: two semaphores, `empty` and `filled`, a `Lock` and an `Array` with two indices. Here a queue of slot numbers takes the part of each
//! semaphore: who gets a number has the slot to himself, and whoever waits for one sleeps. To pass items alone, a `Queue` is all it takes.
//! Run: `cargo run --example bounded_buffer -- [ITEMS]`

use multiproc::{Array, Process, Queue};
use serde::{Deserialize, Serialize};
use std::error::Error;

#[derive(Clone, Serialize, Deserialize)]
struct Buffer {
    slots: Array<u64>,
    free: Queue<usize>,
    filled: Queue<usize>,
}

impl Buffer {
    fn new(slots: usize) -> Result<Buffer, Box<dyn Error>> {
        let buffer = Buffer { slots: Array::zeroed(slots)?, free: Queue::bounded(slots)?, filled: Queue::bounded(slots)? };
        buffer.free.put_many(0..slots)?;
        Ok(buffer)
    }

    /// Waits while every slot is filled.
    fn put(&self, item: u64) -> Result<(), Box<dyn Error>> {
        let slot = self.free.get()?;
        self.slots.set(slot, item)?;
        self.filled.put(slot)?;
        Ok(())
    }

    /// Waits while every slot is free; `None` when nothing will come any more.
    fn get(&self) -> Result<Option<u64>, Box<dyn Error>> {
        let slot = match self.filled.get() {
            Err(e) if e.is_end() => return Ok(None),
            slot => slot?,
        };
        let item = self.slots.get(slot)?;
        self.free.put(slot)?;
        Ok(Some(item))
    }
}

fn produce(buffer: Buffer, first: u64, items: u64) {
    for n in (first..=items).step_by(2) {
        buffer.put(n).expect("the consumers read to the end");
    }
}

fn consume(buffer: Buffer) -> (u64, u64) {
    let (mut count, mut sum) = (0, 0);
    while let Some(item) = buffer.get().expect("nobody dies with the buffer") {
        (count, sum) = (count + 1, sum + item);
    }
    (count, sum)
}

fn main() -> Result<(), Box<dyn Error>> {
    let items = std::env::args().nth(1).map_or(Ok(1000), |a| a.parse())?;
    let buffer = Buffer::new(4)?;
    let consumers = [0, 1, 2].map(|_| Process::spawn((buffer.clone(),), consume));
    let producers = [1, 2].map(|first| Process::spawn((buffer.clone(), first, items), produce));

    for producer in producers {
        producer?.join()?;
    }
    buffer.filled.close()?;
    let (mut count, mut sum) = (0, 0);
    for consumer in consumers {
        let (n, s) = consumer?.join()?;
        (count, sum) = (count + n, sum + s);
    }
    println!("2 producers and 3 consumers passed {count} items, their sum is {sum}");
    println!("{} of {} slots are free again", buffer.free.len(), buffer.slots.len());
    Ok(())
}
