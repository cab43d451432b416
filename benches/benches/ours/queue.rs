//! Our queue under the same load as the baselines: processes pinned alike, blocking calls, messages through serde.

use multiproc::{Process, Queue, Receiver, Sender};
use multiproc_benches::row::Measured;
use multiproc_benches::segment::Segment;
use multiproc_benches::windows::{Meter, Windows};
use multiproc_benches::{Message, machine};

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
        std::hint::black_box(message);
        received += 1;
        meter.set(consumer, received);
    }
}

/// Messages per second with `producers` and `consumers`.
pub(crate) fn rate(windows: &Windows, producers: usize, consumers: usize) -> Measured {
    if multiproc::CRASH_POINTS {
        return Err("crash points are compiled in".into());
    }
    let meter = Segment::<Meter>::new()?;
    let queue = Queue::<Message>::bounded(1024)?;
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
