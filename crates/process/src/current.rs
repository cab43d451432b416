//! Who am I, who is my parent, who are my children, how many cpus are mine.

use crate::child::Child;
use crate::error::Error;
use crate::signal::Signal;
use crate::{keeper, tree};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

static NAME: OnceLock<String> = OnceLock::new();
static CHILDREN: AtomicU32 = AtomicU32::new(0);

pub(crate) fn set_name(name: &str) {
    let _ = NAME.set(name.to_owned());
}

/// `Process-1`, `Process-2`, and `Process-1:1` for a child of a child.
pub(crate) fn next_child_name() -> String {
    let n = CHILDREN.fetch_add(1, Ordering::Relaxed) + 1;
    match NAME.get().filter(|n| n.starts_with("Process-")) {
        Some(mine) => format!("{mine}:{n}"),
        None => format!("Process-{n}"),
    }
}

/// A process of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

/// The calling process. The coordinator is called `MainProcess`.
pub fn current_process() -> ProcessInfo {
    let name = NAME.get().cloned().unwrap_or_else(|| "MainProcess".into());
    ProcessInfo { pid: std::process::id(), name }
}

/// The process that started this one; `None` in the coordinator, and when that is gone and another has its place, as may be after [`detach`](crate::Process::detach).
pub fn parent_process() -> Option<ProcessInfo> {
    let arena = tree::existing()?;
    let mine = arena.my_slot();
    if mine == 0 {
        return None;
    }
    let mine = arena.slot(mine).ok()?;
    let parent = arena.slot(mine.parent.load(Ordering::Relaxed)).ok()?;
    let name = Some(parent.name()).filter(|n| !n.is_empty()).unwrap_or_else(|| "MainProcess".into());
    let info = ProcessInfo { pid: parent.pid.load(Ordering::Relaxed), name };
    // Asked last: the slot of a parent that is gone may be another's.
    let same = parent.state().is_ok_and(|(_, now)| now == mine.parent_generation.load(Ordering::Relaxed));
    same.then_some(info)
}

/// A child of this process, whoever has its [`Process`](crate::Process).
#[derive(Clone, Debug)]
pub struct ChildInfo {
    child: Arc<Child>,
}

impl ChildInfo {
    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.pid
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.child.name
    }

    /// Whether this process's exit ends it.
    pub fn is_daemon(&self) -> bool {
        self.child.daemon
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        self.child.is_alive()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`Error::is_ended`] when it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.child.signal(signal)
    }

    /// Waits until it has ended and everything it held is given back.
    pub fn wait(&self) {
        self.child.wait(None);
    }
}

/// The children of this process that have not ended and are not detached.
pub fn active_children() -> Vec<ChildInfo> {
    keeper::children().into_iter().filter(|c| !c.has_ended() && !c.is_detached()).map(|child| ChildInfo { child }).collect()
}

/// How many cpus this process may use, by affinity and cgroup quota; at least 1.
#[doc(alias = "process_cpu_count")]
pub fn cpu_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
