//! What these tests share.

use multiproc::SharedMemory;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Segments that nobody uses are looked for in all of `/dev/shm`.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name that no other test has.
pub(crate) fn name(what: &str) -> String {
    format!("multiproc-test-{what}-{}", std::process::id())
}

pub(crate) fn path(name: &str) -> String {
    format!("/dev/shm/{name}")
}

/// What is in `/dev/shm` that has to do with `name`, and what nobody has named yet.
pub(crate) fn left(name: &str) -> Vec<String> {
    let files = fs::read_dir("/dev/shm").unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    files.filter(|file| file.contains(name) || file.starts_with(".multiproc.new.")).collect()
}

/// Nothing is, after the next use of anything.
pub(crate) fn leaves_nothing(name: &str) {
    multiproc_tests::eventually(|| {
        SharedMemory::reap().unwrap();
        left(name).is_empty()
    });
}

pub(crate) fn park() -> ! {
    loop {
        std::thread::park();
    }
}

/// What a script prints; `None`, with a message, where there is no Python, or it has not what it needs.
pub(crate) fn python(needs: &str, script: &str, args: &[&str]) -> Option<String> {
    let run = |script: &str| Command::new("python3").arg("-c").arg(script).args(args).stderr(Stdio::piped()).output();
    match run(&format!("import {needs}")) {
        Ok(output) if output.status.success() => {}
        other => {
            println!("skipped: no python3 with {needs} here: {:?}", other.map(|o| o.status));
            return None;
        }
    }
    // A process that has only opened a segment shall not unlink it at its end.
    let head = "
import sys
from multiprocessing import resource_tracker, shared_memory
from multiprocessing.shared_memory import SharedMemory, ShareableList
def untrack(shm):
    resource_tracker.unregister(shm._name, 'shared_memory')
    return shm
";
    let output = run(&format!("{head}{script}")).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
}
