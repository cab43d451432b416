//! What ran where and when, as a file for Chrome's or Perfetto's viewer: one row for each worker, one slice for each task.
//!
//! The format is the array of the Trace Event Format; a file that is cut off in the middle is read as well.

use serde::Serialize;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// An open file.
#[derive(Debug)]
pub(crate) struct Trace {
    out: BufWriter<File>,
    /// Rows that have their name.
    named: Vec<u32>,
    begun: bool,
}

#[derive(Serialize)]
struct Slice<'a> {
    name: &'a str,
    cat: &'static str,
    ph: &'static str,
    /// Microseconds.
    ts: f64,
    dur: f64,
    pid: u32,
    tid: u32,
    args: Args<'a>,
}

#[derive(Serialize)]
struct Args<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

/// A task that has ended, or was ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran<'a> {
    pub(crate) name: &'a str,
    pub(crate) worker: u32,
    /// In nanoseconds.
    pub(crate) since: u64,
    pub(crate) ran: u64,
    pub(crate) outcome: &'a str,
}

impl Trace {
    pub(crate) fn create(path: &Path) -> io::Result<Trace> {
        Ok(Trace { out: BufWriter::new(File::create(path)?), named: Vec::new(), begun: false })
    }

    /// A file that cannot be written to any more loses what comes.
    pub(crate) fn record(&mut self, pool: &str, ran: Ran<'_>) {
        let pid = std::process::id();
        let Ran { name, worker, since, ran, outcome } = ran;
        if !self.named.contains(&worker) {
            self.named.push(worker);
            let row = format!("{pool}-{worker}");
            let args = Args { outcome: None, name: Some(&row) };
            self.write(&Slice { name: "thread_name", cat: "", ph: "M", ts: 0.0, dur: 0.0, pid, tid: worker, args });
        }
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        let args = Args { outcome: Some(outcome), name: None };
        self.write(&Slice { name, cat: "task", ph: "X", ts: micros(since), dur: micros(ran), pid, tid: worker, args });
    }

    fn write(&mut self, slice: &Slice<'_>) {
        let before = if self.begun { ",\n" } else { "[\n" };
        self.begun = true;
        let _ = self.out.write_all(before.as_bytes());
        let _ = serde_json::to_writer(&mut self.out, slice);
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let end = if self.begun { "\n]\n" } else { "[]\n" };
        let _ = self.out.write_all(end.as_bytes());
        let _ = self.out.flush();
    }
}
