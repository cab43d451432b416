//! A Unix stream socket pair between two processes: one write and one read of 64 bytes per message.

use crate::{
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
};

pub(super) const PRODUCER: &str = "socket_producer";
pub(super) const CONSUMER: &str = "socket_consumer";

/// Messages per second, one producer and one consumer process.
pub fn rate(windows: &Windows) -> Measured {
    let meter = Segment::<Meter>::new()?;
    let (tx, rx) = UnixStream::pair()?;
    let _consumer = Worker::start(command(CONSUMER)?.arg(meter.path()).stdin(OwnedFd::from(rx)))?;
    let _producer = Worker::start(command(PRODUCER)?.stdout(OwnedFd::from(tx)))?;
    windows.rate(&meter)
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
