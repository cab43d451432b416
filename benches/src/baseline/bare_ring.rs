//! Processes on the bare ring, 64 raw bytes per message.

use crate::{
    machine::pin,
    ring::Ring,
    row::Measured,
    segment::Segment,
    windows::{Meter, Windows},
    worker::{Worker, command},
};
use std::{error::Error, hint::black_box};

pub(super) const PRODUCER: &str = "bare_ring_producer";
pub(super) const CONSUMER: &str = "bare_ring_consumer";

/// Messages per second with this many producer and consumer processes.
pub fn rate(windows: &Windows, producers: usize, consumers: usize) -> Measured {
    let ring = Segment::<Ring>::new()?;
    let meter = Segment::<Meter>::new()?;
    let mut workers = Vec::new();
    for n in 0..consumers {
        let args = [ring.path(), meter.path(), n.to_string()];
        workers.push(Worker::start(command(CONSUMER)?.args(args))?);
    }
    for n in 0..producers {
        let args = [ring.path(), n.to_string()];
        workers.push(Worker::start(command(PRODUCER)?.args(args))?);
    }
    windows.rate(&meter)
}

pub(super) fn produce(ring: &str, n: &str) -> Result<(), Box<dyn Error>> {
    let ring = Segment::<Ring>::open(ring)?;
    pin(n.parse::<usize>()? + 1)?;
    let payload = [7; 64];
    loop {
        ring.put(black_box(&payload));
    }
}

pub(super) fn consume(ring: &str, meter: &str, n: &str) -> Result<(), Box<dyn Error>> {
    let ring = Segment::<Ring>::open(ring)?;
    let meter = Segment::<Meter>::open(meter)?;
    let n: usize = n.parse()?;
    pin(n)?;
    let mut buffer = [0; 64];
    for received in 1.. {
        assert_eq!(ring.get(&mut buffer), buffer.len());
        black_box(&buffer);
        meter.set(n, received);
    }
    Ok(())
}
