//! How a worker's event comes to life in the coordinator: under a call site of its own that says what the original's said.
//!
//! tracing wants call sites that live for ever, so each distinct one is made once and kept. Their number is that of places in the source, unless
//! somebody makes them up at run time; beyond a bound events share one without particulars.

use super::record::{Data, FIELDS, Record, level, level_word};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use tracing::callsite::{Callsite, Identifier, register};
use tracing::field::{DisplayValue, Field, FieldSet, Value, display};
use tracing::metadata::Kind;
use tracing::span::Id;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, dispatcher};

/// Call sites that are kept.
const SITES: usize = 4096;
/// Fields of an event, with those that are added.
const ALL: usize = FIELDS + 3;

const NAME: &str = "worker.name";
const PID: &str = "worker.pid";
const SPANS: &str = "worker.spans";

thread_local! {
    static EMITTING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is inside of the subscriber with a worker's event.
pub(super) fn is_emitting() -> bool {
    EMITTING.get()
}

/// What makes a call site: everything but the values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    level: u8,
    name: String,
    target: String,
    module: Option<String>,
    file: Option<String>,
    line: Option<u32>,
    fields: Vec<String>,
}

struct Site {
    metadata: OnceLock<Metadata<'static>>,
}

impl Callsite for Site {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        self.metadata.get().expect("set before anybody has the site")
    }
}

static KNOWN: Mutex<Option<HashMap<Key, &'static Site>>> = Mutex::new(None);

fn keep(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn make(key: &Key) -> &'static Site {
    let site: &'static Site = Box::leak(Box::new(Site { metadata: OnceLock::new() }));
    let names: Vec<&'static str> = key.fields.iter().map(|name| keep(name)).collect();
    let fields = FieldSet::new(Box::leak(names.into_boxed_slice()), Identifier(site));
    let (module, file) = (key.module.as_deref().map(keep), key.file.as_deref().map(keep));
    let metadata =
        Metadata::new(keep(&key.name), keep(&key.target), level(key.level), file, key.line, module, fields, Kind::EVENT);
    let _ = site.metadata.set(metadata);
    register(site);
    site
}

fn site(record: &Record) -> &'static Site {
    let mut fields: Vec<String> = Vec::new();
    let added = record.worker.iter().flat_map(|_| [NAME, PID]).chain((!record.spans.is_empty()).then_some(SPANS));
    for name in record.fields.iter().take(FIELDS).map(|(name, _)| name.as_str()).chain(added) {
        // A name that comes twice has its first value.
        if !fields.iter().any(|f| f == name) {
            fields.push(name.to_owned());
        }
    }
    let key = Key {
        level: level_word(&level(record.level)),
        name: record.name.clone(),
        target: record.target.clone(),
        module: record.module.clone(),
        file: record.file.clone(),
        line: record.line,
        fields,
    };
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(site) = known.get(&key) {
        return site;
    }
    let key = match known.len() < SITES {
        true => key,
        false => Key {
            name: "event of a worker".to_owned(),
            target: "multiproc".to_owned(),
            module: None,
            file: None,
            line: None,
            fields: ["message", NAME, PID, SPANS].map(str::to_owned).to_vec(),
            ..key
        },
    };
    known.entry(key).or_insert_with_key(make)
}

/// A value that lives while the event is given out.
enum Lent<'a> {
    Plain(&'a dyn Value),
    Formatted(DisplayValue<&'a str>),
}

impl Lent<'_> {
    fn value(&self) -> &dyn Value {
        match self {
            Lent::Plain(value) => *value,
            Lent::Formatted(value) => value,
        }
    }
}

/// Gives the event to this process's subscriber, if that wants it.
pub(super) fn emit(record: &Record) {
    let site = site(record);
    let metadata: &'static Metadata<'static> = site.metadata.get().expect("set before anybody has the site");
    let set = metadata.fields();
    let spans = record.spans.join(":");
    let pid = record.worker.as_ref().map(|(_, pid)| u64::from(*pid));
    let mut values: Vec<(Field, Lent<'_>)> = Vec::with_capacity(ALL);
    let mut add = |name: &str, value| {
        if let Some(field) = set.field(name)
            && !values.iter().any(|(known, _)| *known == field)
        {
            values.push((field, value));
        }
    };
    for (name, data) in record.fields.iter().take(FIELDS) {
        add(
            name,
            match data {
                Data::Signed(n) => Lent::Plain(n),
                Data::Unsigned(n) => Lent::Plain(n),
                Data::Float(n) => Lent::Plain(n),
                Data::Bool(b) => Lent::Plain(b),
                Data::Text(text) => Lent::Plain(text),
                Data::Formatted(text) => Lent::Formatted(display(text.as_str())),
            },
        );
    }
    if let (Some((name, _)), Some(pid)) = (&record.worker, &pid) {
        add(NAME, Lent::Plain(name));
        add(PID, Lent::Plain(pid));
    }
    if !spans.is_empty() {
        add(SPANS, Lent::Plain(&spans));
    }
    let Some((first, _)) = values.first() else { return };
    let mut list: [(&Field, Option<&dyn Value>); ALL] = [(first, None); ALL];
    for (place, (field, value)) in list.iter_mut().zip(&values) {
        *place = (field, Some(value.value()));
    }
    EMITTING.set(true);
    dispatcher::get_default(|subscriber| {
        if subscriber.enabled(metadata) {
            let values = set.value_set(&list);
            match std::num::NonZeroU64::new(record.parent) {
                Some(parent) => subscriber.event(&Event::new_child_of(Id::from_non_zero_u64(parent), metadata, &values)),
                None => subscriber.event(&Event::new(metadata, &values)),
            }
        }
    });
    EMITTING.set(false);
}
