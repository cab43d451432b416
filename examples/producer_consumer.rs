//! A producer and a consumer over a bounded queue; closing the queue tells the consumer that nothing more will come.
//!
//! Python: `Queue(maxsize)` with a sentinel such as `None` per consumer. Here `close` ends the consumer's loop, once the queue is drained.
//! Run: `cargo run --example producer_consumer -- [ITEMS]`

use multiproc::{Process, PutError, Queue};

fn produce(queue: Queue<u64>, items: u64) {
    let all = || -> Result<(), PutError<u64>> {
        // Waits whenever the consumer is four items behind.
        (1..=items).try_for_each(|n| queue.put(n))
    };
    all().expect("the consumer reads to the end");
    queue.close().expect("a worker may close");
}

fn consume(queue: Queue<u64>) -> (u64, u64) {
    let (mut count, mut sum) = (0, 0);
    for item in &queue {
        count += 1;
        sum += item.expect("the queue carries numbers only");
    }
    (count, sum)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let items = std::env::args().nth(1).map_or(Ok(1000), |a| a.parse())?;
    let queue = Queue::<u64>::bounded(4)?;
    let consumer = Process::spawn((queue.clone(),), consume)?;
    let producer = Process::spawn((queue.clone(), items), produce)?;

    producer.join()?;
    let (count, sum) = consumer.join()?;
    println!("consumed {count} items, their sum is {sum}");
    match queue.put(0) {
        Err(e) if e.is_closed() => println!("one more is refused: {e}"),
        other => other?,
    }
    Ok(())
}
