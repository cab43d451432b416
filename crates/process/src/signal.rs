//! Signals by number.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A signal. `Display` gives its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signal(pub i32);

impl Signal {
    /// Ctrl-C; what [`interrupt`](crate::Process::interrupt) sends.
    pub const INT: Signal = Signal(2);
    /// Quit, by default with a core dump.
    pub const QUIT: Signal = Signal(3);
    /// What `abort()` ends with.
    pub const ABRT: Signal = Signal(6);
    /// Cannot be caught; what [`kill`](crate::Process::kill) sends.
    pub const KILL: Signal = Signal(9);
    /// For the program's own use.
    pub const USR1: Signal = Signal(10);
    /// Invalid memory access.
    pub const SEGV: Signal = Signal(11);
    /// For the program's own use.
    pub const USR2: Signal = Signal(12);
    /// Asks to end; what [`terminate`](crate::Process::terminate) sends.
    pub const TERM: Signal = Signal(15);
    /// Continues a stopped process.
    pub const CONT: Signal = Signal(18);
    /// Stops a process; cannot be caught.
    pub const STOP: Signal = Signal(19);
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match multiproc_sys::signal::name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}
