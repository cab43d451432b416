//! A Unix stream socket pair between two processes: one write and one read of 64 bytes per message.

use crate::{
    effort::Effort,
    machine::pin,
    row::Measured,
    segment::Segment,
    windows::{Meter, Windows},
    worker::{Worker, command},
};
use std::{
    error::Error,
    fs::File,
    hint::black_box,
    io::{Read, Write, stdin, stdout},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    thread,
    time::Instant,
};

pub(super) const PRODUCER: &str = "socket_producer";
pub(super) const CONSUMER: &str = "socket_consumer";
pub(super) const PARTNER: &str = "socket_partner";

/// Messages per second, one producer and one consumer process.
pub fn rate(windows: &Windows) -> Measured {
    let meter = Segment::<Meter>::new()?;
    let (tx, rx) = UnixStream::pair()?;
    let _consumer = Worker::start(command(CONSUMER)?.arg(meter.path()).stdin(OwnedFd::from(rx)))?;
    let _producer = Worker::start(command(PRODUCER)?.stdout(OwnedFd::from(tx)))?;
    windows.rate(&meter)
}

/// Nanoseconds for 64 bytes to go to another process and 64 to come back.
pub fn round_trip(effort: Effort) -> Measured {
    let (mut here, there) = UnixStream::pair()?;
    let _partner = Worker::start(command(PARTNER)?.stdin(OwnedFd::from(there)))?;
    let count = effort.count(20_000);
    let timed = thread::spawn(move || -> std::io::Result<f64> {
        pin(0)?;
        let mut play = |times| {
            (0..times).try_for_each(|_| {
                here.write_all(&[7; 64])?;
                here.read_exact(&mut [0; 64])
            })
        };
        play(count / 10)?;
        let start = Instant::now();
        play(count)?;
        Ok(start.elapsed().as_nanos() as f64 / count as f64)
    });
    Ok(timed.join().map_err(|_| "the timer panicked")??)
}

pub(super) fn answer() -> Result<(), Box<dyn Error>> {
    let mut socket = File::from(stdin().as_fd().try_clone_to_owned()?);
    pin(1)?;
    let mut buffer = [0; 64];
    while socket.read_exact(&mut buffer).is_ok() {
        socket.write_all(&buffer)?;
    }
    Ok(())
}

// The streams are duplicated because std's own ones buffer.

pub(super) fn produce() -> Result<(), Box<dyn Error>> {
    let mut socket = File::from(stdout().as_fd().try_clone_to_owned()?);
    pin(1)?;
    loop {
        socket.write_all(&[7; 64])?;
    }
}

pub(super) fn consume(meter: &str) -> Result<(), Box<dyn Error>> {
    let mut socket = File::from(stdin().as_fd().try_clone_to_owned()?);
    let meter = Segment::<Meter>::open(meter)?;
    let mut buffer = [0; 64];
    pin(0)?;
    let mut received = 0;
    // An error is the end of the run: the producer was killed first.
    while socket.read_exact(&mut buffer).is_ok() {
        black_box(&buffer);
        received += 1;
        meter.set(0, received);
    }
    Ok(())
}
