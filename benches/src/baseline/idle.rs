//! This binary as a process that only waits: what a Rust process costs before it does anything.

use crate::worker::{Worker, command};
use std::{
    error::Error,
    io::{Read, stdin},
    process::Stdio,
};

pub(super) const SLEEPER: &str = "idle_sleeper";

/// Starts a process that waits in read(2) until it is dropped.
pub fn start() -> Result<Worker, Box<dyn Error>> {
    Ok(Worker::start(command(SLEEPER)?.stdin(Stdio::piped()))?)
}

pub(super) fn sleep() -> Result<(), Box<dyn Error>> {
    stdin().read_exact(&mut [0])?;
    Ok(())
}
