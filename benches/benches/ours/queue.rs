//! Our queue under the same load as the baselines: processes pinned alike, blocking calls, messages through serde.

use multiproc::{Process, Queue, Raw, Receiver, Sender};
use multiproc_benches::row::Measured;
use multiproc_benches::segment::Segment;
use multiproc_benches::windows::{Meter, Windows};
use multiproc_benches::{Message, machine};
use std::hint::black_box;
use std::time::Instant;

fn produce(jobs: Sender<Message>, cpu: usize) {
    machine::pin(cpu).expect("pinning");
    let mut n = 0;
    while jobs.put(Message::numbered(n)).is_ok() {
        n += 1;
    }
}

fn consume(jobs: Receiver<Message>, meter: String, consumer: usize) {
    machine::pin(consumer).expect("pinning");
    let meter = Segment::<Meter>::open(&meter).expect("the meter");
    let mut received = 0;
    while let Ok(message) = jobs.get() {
        black_box(message);
        received += 1;
        meter.set(consumer, received);
    }
}

/// Messages per second with `producers` and `consumers`.
pub(crate) fn rate(windows: &Windows, producers: usize, consumers: usize) -> Measured {
    rate_of(windows, producers, consumers, Queue::bounded(1024)?)
}

/// Messages per second from one producer to one consumer through an unbounded queue that may take `bytes`.
pub(crate) fn unbounded_rate(windows: &Windows, bytes: u64) -> Measured {
    rate_of(windows, 1, 1, Queue::builder().unbounded().byte_limit(bytes).build()?)
}

fn rate_of(windows: &Windows, producers: usize, consumers: usize, queue: Queue<Message>) -> Measured {
    if multiproc::CRASH_POINTS {
        return Err("crash points are compiled in".into());
    }
    let meter = Segment::<Meter>::new()?;
    let mut workers = Vec::new();
    for n in 0..consumers {
        workers.push(Process::spawn((queue.receiver()?, meter.path(), n), consume)?);
    }
    for n in 0..producers {
        workers.push(Process::spawn((queue.sender()?, n + 1), produce)?);
    }
    let rate = windows.rate(&meter);
    queue.close()?;
    for worker in workers {
        worker.join()?;
    }
    rate
}

fn produce_bytes(jobs: Sender<Vec<u8>, Raw>, len: usize) {
    machine::pin(1).expect("pinning");
    let message = vec![7; len];
    while jobs.put_ref(black_box(&message)).is_ok() {}
}

fn consume_bytes(jobs: Receiver<Vec<u8>, Raw>, meter: String) {
    machine::pin(0).expect("pinning");
    let meter = Segment::<Meter>::open(&meter).expect("the meter");
    let mut received = 0;
    while let Ok(message) = jobs.get() {
        black_box(message);
        received += 1;
        meter.set(0, received);
    }
}

/// Microseconds for putting a message of `len` bytes and getting it again, in one process: what it costs a processor.
pub(crate) fn micros_there_and_back(times: u64, len: usize) -> Measured {
    if multiproc::CRASH_POINTS {
        return Err("crash points are compiled in".into());
    }
    let queue = Queue::<Vec<u8>, Raw>::with_codec(8)?;
    let message = vec![7; len];
    let start = Instant::now();
    for _ in 0..times {
        queue.put_ref(black_box(&message))?;
        black_box(queue.get()?);
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / times as f64)
}

/// Microseconds for a message of `len` bytes, from one process to another in steady state.
pub(crate) fn micros_between_processes(windows: &Windows, len: usize) -> Measured {
    if multiproc::CRASH_POINTS {
        return Err("crash points are compiled in".into());
    }
    let meter = Segment::<Meter>::new()?;
    let queue = Queue::<Vec<u8>, Raw>::with_codec(8)?;
    let consumer = Process::spawn((queue.receiver()?, meter.path()), consume_bytes)?;
    let producer = Process::spawn((queue.sender()?, len), produce_bytes)?;
    let rate = windows.rate(&meter);
    queue.close()?;
    consumer.join()?;
    producer.join()?;
    Ok(1e6 / rate?)
}
