//! Child processes of the baselines: this same binary, told its role by an environment variable.
#![allow(unsafe_code)]

use std::{
    env, io,
    process::{Child, Command, Stdio},
};

const ROLE: &str = "MULTIPROC_BENCH_ROLE";

/// The command that starts this binary in a role; arguments and streams can be added. Its standard
/// input is the null device.
pub fn command(role: &str) -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.env(ROLE, role).stdin(Stdio::null());
    Ok(command)
}

/// The role this process was started in, with its arguments; `None` in the bench itself.
///
/// A worker dies with the bench, so that an interrupted run leaves no process behind.
pub fn role() -> Option<(String, Vec<String>)> {
    let role = env::var(ROLE).ok()?;
    // SAFETY: this option takes one number and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    Some((role, env::args().skip(1).collect()))
}

/// Kills a process of the bench, as `kill -9` does.
pub fn kill(pid: u32) -> io::Result<()> {
    // SAFETY: takes two numbers and touches no memory.
    match unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A child that is killed and waited for when dropped.
#[derive(Debug)]
pub struct Worker(pub Child);

impl Worker {
    /// Starts the command.
    pub fn start(command: &mut Command) -> io::Result<Worker> {
        command.spawn().map(Worker)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only for a child that has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
