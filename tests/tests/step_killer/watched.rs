//! What the step killers of queues, pipes and waits have in common: each step is beaten to the watchdog, some of the scenes may be chosen, and all of it is
//! played again as on an old kernel.
#![allow(dead_code, unreachable_pub)]

use crate::common_queue::Watchdog;
#[allow(unused_imports)]
pub use crate::steps::wanted;
use crate::steps::{self, Line, notes_apart};
use std::process::Command;

pub const OLD_KERNEL: &str = "MULTIPROC_FORCE_OLD_KERNEL";

/// As [`steps::each_step`], watched.
pub fn each_step(name: String, mut at: impl FnMut(u64) -> Result<bool, String>) -> Line {
    steps::each_step(name.clone(), |k| {
        Watchdog::beat(|| format!("{name}, step {k}"));
        at(k)
    })
}

/// As [`steps::each_pair`], watched.
pub fn each_pair(name: String, mut at: impl FnMut(u64, u64) -> Result<[bool; 2], String>) -> Line {
    steps::each_pair(name.clone(), 1, |k1, k2| {
        Watchdog::beat(|| format!("{name}, steps {k1} and {k2}"));
        at(k1, k2)
    })
}

/// Otherwise slices would hide what the kernel does not do.
pub fn assert_new_kernel_or(lacks: &str) {
    assert!(std::env::var_os(OLD_KERNEL).is_none_or(|lacking| lacking == lacks));
}

/// Runs a test of this program again where the kernel lacks something. A process of its own, since one arena is of one kind.
pub fn again_on_old_kernel(test: &str, lacks: &str) {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args([test, "--nocapture", "--skip", "on_an_old_kernel"]).env(OLD_KERNEL, lacks);
    let out = notes_apart(&mut again, "old").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&out.stderr));
}
