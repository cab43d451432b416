//! ipc-channel between two processes: the [`Message`] through its own serde format.

use crate::{
    Message,
    machine::pin,
    row::Measured,
    segment::Segment,
    windows::{Meter, Windows},
    worker::{Worker, command},
};
use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};
use std::{
    env,
    error::Error,
    fs,
    hint::black_box,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{self, Stdio},
};

pub(super) const PRODUCER: &str = "ipc_producer";
pub(super) const CONSUMER: &str = "ipc_consumer";

/// Messages per second, one producer and one consumer process.
pub fn rate(windows: &Windows) -> Measured {
    let meter = Segment::<Meter>::new()?;
    // Made first, removed last: what a killed consumer leaves of its one-shot server.
    let temporary = Temporary::new()?;
    let mut consumer = Worker::start(command(CONSUMER)?.arg(meter.path()).env("TMPDIR", &temporary.0).stdout(Stdio::piped()))?;
    let mut server = String::new();
    let stdout = consumer.0.stdout.take().ok_or("no pipe")?;
    BufReader::new(stdout).read_line(&mut server)?;
    let _producer = Worker::start(command(PRODUCER)?.arg(server.trim()))?;
    windows.rate(&meter)
}

pub(super) fn consume(meter: &str) -> Result<(), Box<dyn Error>> {
    let meter = Segment::<Meter>::open(meter)?;
    let (server, name) = IpcOneShotServer::<IpcReceiver<Message>>::new()?;
    println!("{name}");
    let (_, receiver) = server.accept()?;
    pin(0)?;
    let mut received = 0;
    // An error is the end of the run: the producer was killed first.
    while let Ok(message) = receiver.recv() {
        black_box(message);
        received += 1;
        meter.set(0, received);
    }
    Ok(())
}

pub(super) fn produce(server: &str) -> Result<(), Box<dyn Error>> {
    let (sender, receiver) = ipc::channel::<Message>()?;
    IpcSender::connect(server.to_owned())?.send(receiver)?;
    pin(1)?;
    for n in 0.. {
        sender.send(Message::numbered(n))?;
    }
    Ok(())
}

struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Result<Temporary, Box<dyn Error>> {
        let path = env::temp_dir().join(format!("multiproc-bench-{}", process::id()));
        fs::create_dir_all(&path)?;
        Ok(Temporary(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
