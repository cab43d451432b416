//! The `tracing` events on lost messages, summed up in the shared page by whichever process tells them.

use super::page::Page;
use std::sync::OnceLock;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static PAGE: OnceLock<&'static Page> = OnceLock::new();

/// The page of this process.
pub fn page() -> Option<&'static Page> {
    PAGE.get().copied()
}

/// Listens in this process, for the page at that path.
pub fn listen(path: &str) {
    if let Ok(page) = Page::open(path) {
        listen_for(page);
    }
}

/// The same with the page at hand; forks inherit it.
pub fn listen_for(page: &'static Page) {
    let _ = PAGE.set(page);
    let _ = tracing::subscriber::set_global_default(Ear);
}

struct Ear;

/// Fields of an event on lost messages.
#[derive(Default)]
struct Loss {
    seq: u64,
    count: u64,
    is_loss: bool,
}

impl Visit for Loss {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "seq" => self.seq = value,
            "count" => self.count = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.is_loss = format!("{value:?}").starts_with("messages were lost");
        }
    }
}

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("multiproc")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut loss = Loss::default();
        event.record(&mut loss);
        if let (true, Some(page)) = (loss.is_loss, page()) {
            page.tell(loss.seq, loss.count);
        }
    }
}
