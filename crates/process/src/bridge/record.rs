//! An event as it travels.

use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

/// Bytes of a text.
const TEXT: usize = 8 << 10;
/// With the three that are added there are no more than tracing's own macros take.
pub(super) const FIELDS: usize = 28;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    Event(Box<Record>),
    /// Tells who has put it that all before it is done.
    Mark(u64),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) level: u8,
    pub(super) name: String,
    pub(super) target: String,
    pub(super) module: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    pub(super) fields: Vec<(String, Data)>,
    /// Name and id of the process.
    pub(super) worker: Option<(String, u32)>,
    /// From the outermost.
    pub(super) spans: Vec<String>,
    /// The coordinator's span on whose behalf the worker runs; 0 for none.
    pub(super) parent: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Data {
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Bool(bool),
    Text(String),
    /// What was given by `Debug` or `Display`.
    Formatted(String),
}

/// 1 for ERROR to 5 for TRACE.
pub(super) fn level_word(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

pub(super) fn level(word: u8) -> Level {
    match word {
        0 | 1 => Level::ERROR,
        2 => Level::WARN,
        3 => Level::INFO,
        4 => Level::DEBUG,
        _ => Level::TRACE,
    }
}

impl Record {
    pub(super) fn of(event: &Event<'_>, worker: (String, u32), spans: Vec<String>, parent: u64) -> Record {
        let metadata = event.metadata();
        let mut collected = Collected(Vec::new());
        event.record(&mut collected);
        Record {
            level: level_word(metadata.level()),
            name: cut(metadata.name()),
            target: cut(metadata.target()),
            module: metadata.module_path().map(cut),
            file: metadata.file().map(cut),
            line: metadata.line(),
            fields: collected.0,
            worker: Some(worker),
            spans,
            parent,
        }
    }
}

/// The event that tells of those that are missing.
pub(super) fn loss(events: u64) -> Record {
    let text = "events of workers were dropped: the bridge was full".to_owned();
    Record {
        level: level_word(&Level::WARN),
        name: "events dropped".to_owned(),
        target: "multiproc".to_owned(),
        module: None,
        file: None,
        line: None,
        fields: vec![("message".to_owned(), Data::Formatted(text)), ("dropped".to_owned(), Data::Unsigned(events))],
        worker: None,
        spans: Vec::new(),
        parent: 0,
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT)].to_owned()
}

struct Collected(Vec<(String, Data)>);

impl Collected {
    fn add(&mut self, field: &Field, data: Data) {
        if self.0.len() < FIELDS {
            self.0.push((field.name().to_owned(), data));
        }
    }
}

impl Visit for Collected {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Bounded(String::new());
        // An error says that it is full, or that the value's own code failed: what there is, is sent.
        let _ = write!(text, "{value:?}");
        self.add(field, Data::Formatted(text.0));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Data::Float(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Data::Signed(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Data::Unsigned(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Data::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Data::Text(cut(value)));
    }
}

struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = TEXT - self.0.len();
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        if text.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}
