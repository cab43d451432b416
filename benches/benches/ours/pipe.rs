//! Our pipe under the same load as the baselines: processes pinned alike, calls that block, messages through serde.

use multiproc::{Connection, PipeReceiver, PipeSender, Process, one_way, pipe};
use multiproc_benches::effort::Effort;
use multiproc_benches::row::Measured;
use multiproc_benches::segment::Segment;
use multiproc_benches::windows::{Meter, Windows};
use multiproc_benches::{Message, machine};
use std::hint::black_box;
use std::time::Instant;

fn checked() -> Result<(), &'static str> {
    if multiproc::CRASH_POINTS { Err("crash points are compiled in") } else { Ok(()) }
}

fn produce(tx: PipeSender<Message>) {
    machine::pin(1).expect("pinning");
    // Ends when the receiver has gone.
    (0..).find(|&n| tx.send(Message::numbered(n)).is_err());
}

fn consume(rx: PipeReceiver<Message>, meter: String) {
    machine::pin(0).expect("pinning");
    let meter = Segment::<Meter>::open(&meter).expect("the meter");
    for (received, message) in rx.iter().enumerate() {
        // An error is the end of the run: the producer was killed first.
        let Ok(message) = message else { break };
        black_box(message);
        meter.set(0, received as u64 + 1);
    }
}

/// Messages per second from one process to the other.
pub(crate) fn rate(windows: &Windows) -> Measured {
    checked()?;
    let meter = Segment::<Meter>::new()?;
    let (tx, rx) = one_way::<Message>()?;
    let consumer = Process::spawn((rx, meter.path()), consume)?;
    let producer = Process::spawn((tx,), produce)?;
    let rate = windows.rate(&meter);
    producer.kill()?;
    consumer.wait();
    producer.wait();
    rate
}

fn answer(there: Connection<Message, Message>) {
    machine::pin(1).expect("pinning");
    while let Ok(message) = there.recv() {
        if there.send(message).is_err() {
            break;
        }
    }
}

fn ask(here: Connection<Message, Message>, count: u64) -> f64 {
    machine::pin(0).expect("pinning");
    let play = |from: u64, to: u64| {
        for n in from..to {
            here.send(Message::numbered(n)).expect("the partner answers");
            assert_eq!(black_box(here.recv().expect("the partner answers")), Message::numbered(n));
        }
    };
    play(0, count / 10);
    let start = Instant::now();
    play(0, count);
    start.elapsed().as_nanos() as f64 / count as f64
}

/// Nanoseconds for a message to the other process and one back.
pub(crate) fn round_trip(effort: Effort) -> Measured {
    checked()?;
    let (here, there) = pipe::<Message, Message>()?;
    let answers = Process::spawn((there,), answer)?;
    let asks = Process::spawn((here, effort.count(200_000)), ask)?;
    let nanos = asks.join()?;
    answers.join()?;
    Ok(nanos)
}
