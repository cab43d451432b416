//! What the tests of queues share: a message that can be small, large or carry a handle, a watchdog, and what /proc says of a process.
#![allow(dead_code, unreachable_pub)]

use multiproc::{Queue, testing};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longer than anything takes that waits for an event.
pub const LIMIT: Duration = Duration::from_secs(40);

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    Inline,
    Block,
    Handle,
    BlockAndHandle,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Msg {
    pub id: u64,
    #[serde(with = "whole")]
    pub pad: Vec<u8>,
    pub handle: Option<Queue<u64>>,
}

/// Bytes as one piece, encoded as serde does it byte by byte: that is where the tests would spend their time.
mod whole {
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }

        from.deserialize_byte_buf(Bytes)
    }
}

impl Msg {
    /// A message in that form; `handle` is taken where the form wants one.
    pub fn new(id: u64, form: Form, handle: &Queue<u64>) -> Msg {
        let len = if matches!(form, Form::Block | Form::BlockAndHandle) { 5000 } else { 16 };
        let handle = matches!(form, Form::Handle | Form::BlockAndHandle).then(|| handle.clone());
        Msg { id, pad: vec![id as u8; len], handle }
    }

    /// The id of a message that is whole.
    pub fn check(&self) -> Result<u64, String> {
        if self.pad.iter().any(|b| *b != self.id as u8) {
            return Err(format!("message {} is not what was put", self.id));
        }
        if self.handle.as_ref().is_some_and(|h| h.capacity() != 7) {
            return Err(format!("the handle in message {} is another", self.id));
        }
        Ok(self.id)
    }
}

/// Looks again and again until `done`; false when the limit has passed.
pub fn eventually(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_micros(30));
    }
}

/// The state letter of a process's main thread; `None` when the process is gone.
pub fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Whether the process is a corpse or gone.
pub fn is_dead(pid: u32) -> bool {
    matches!(state_of(pid), None | Some('Z' | 'X'))
}

/// Whether the process sleeps in an operation of that queue.
pub fn sleeps_on(pid: u32, queue: u32) -> bool {
    testing::waits_for(pid).is_ok_and(|on| on == Some(queue)) && state_of(pid) == Some('S')
}

/// Tests that look at the whole arena run one after the other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the test program when nothing has been noted for `limit`: a hang is a failure with a name.
pub struct Watchdog;

static BEATS: AtomicU64 = AtomicU64::new(0);
static DOING: Mutex<String> = Mutex::new(String::new());

impl Watchdog {
    pub fn start(limit: Duration) {
        std::thread::spawn(move || {
            let mut seen = u64::MAX;
            loop {
                let now = BEATS.load(Ordering::Relaxed);
                if now == seen {
                    let doing = DOING.lock().unwrap_or_else(PoisonError::into_inner);
                    eprintln!("no progress for {limit:?}: {doing}");
                    std::process::exit(101);
                }
                seen = now;
                std::thread::sleep(limit);
            }
        });
    }

    pub fn beat(doing: impl FnOnce() -> String) {
        *DOING.lock().unwrap_or_else(PoisonError::into_inner) = doing();
        BEATS.fetch_add(1, Ordering::Relaxed);
    }
}
