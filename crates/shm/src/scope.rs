//! How handles go through serde.
//!
//! While a message is encoded or decoded, a scope stands open on this thread. A handle serialises as its position in the scope's list
//! of references, and nothing is counted until the whole message has been encoded; when decoding, it takes what stands
//! at its position and checks kind and type. Without a scope (serde_json, a file) it is an error.
//!
//! Scopes nest (a `Serialize` that puts into another queue), the innermost counts, and they close when unwinding.
#![allow(unsafe_code)]

use crate::arena::Arena;
use crate::held::Held;
use crate::objects::Kind;
use serde::{Deserialize, Deserializer, Serializer, de, ser};
use std::cell::Cell;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const OUTSIDE: &str = "a multiproc handle can only be sent through multiproc's own queues, arguments and results";
const FOREIGN: &str = "the handle belongs to another process tree";

/// What one message carries, in the order of its positions.
pub type References = Vec<Arc<Held>>;

/// An encoded message's references, and what is to be told when it has gone out. One word, empty for the usual message without any.
#[derive(Debug, Default)]
pub struct Outgoing(Option<Box<Baggage>>);

#[derive(Debug, Default)]
struct Baggage {
    references: References,
    /// Set when the message has committed: what moves with it learns that it has moved.
    moves: Vec<Arc<AtomicBool>>,
}

impl Outgoing {
    /// The references, by position. They hold the objects until the message has committed.
    #[inline]
    pub fn references(&self) -> &[Arc<Held>] {
        self.0.as_ref().map_or(&[], |b| &b.references)
    }

    /// The message has committed: what moves with it belongs to the receiver.
    #[inline]
    pub fn gone(&self) {
        for moved in self.0.iter().flat_map(|b| &b.moves) {
            moved.store(true, Ordering::Release);
        }
    }
}

struct Frame {
    arena: &'static Arena,
    carries: Carries,
}

enum Carries {
    /// What has been met so far.
    Encoding(Cell<Outgoing>),
    /// What the message brought; valid while the frame is open.
    Decoding(*const [Arc<Held>]),
}

thread_local! {
    // Const and without Drop, so that handles may be sent from exit handlers too.
    static INNERMOST: Cell<*const Frame> = const { Cell::new(ptr::null()) };
}

struct Close(*const Frame);

impl Drop for Close {
    fn drop(&mut self) {
        INNERMOST.set(self.0);
    }
}

#[inline]
fn within<R>(frame: &Frame, body: impl FnOnce() -> R) -> R {
    let _close = Close(INNERMOST.replace(frame));
    body()
}

fn innermost() -> Option<&'static Frame> {
    // SAFETY: null, or a frame on this thread's stack whose `within` has not returned; the reference is used and let go inside this module
    // before anything could make it return.
    unsafe { INNERMOST.get().as_ref() }
}

/// Runs `encode` with an open scope and returns the references that it met.
#[inline]
pub fn encoding<R>(arena: &'static Arena, encode: impl FnOnce() -> R) -> (R, Outgoing) {
    let frame = Frame { arena, carries: Carries::Encoding(Cell::default()) };
    let r = within(&frame, encode);
    match frame.carries {
        Carries::Encoding(outgoing) => (r, outgoing.into_inner()),
        Carries::Decoding(_) => (r, Outgoing::default()),
    }
}

/// Runs `decode` with the references of a message at hand; handles become clones of them.
#[inline]
pub fn decoding<R>(arena: &'static Arena, references: &[Arc<Held>], decode: impl FnOnce() -> R) -> R {
    within(&Frame { arena, carries: Carries::Decoding(references) }, decode)
}

/// Enters a reference into the list of the message that is being encoded; its position.
fn enter(held: &Arc<Held>, moved: Option<&Arc<AtomicBool>>) -> Result<u32, &'static str> {
    let Some(Frame { arena, carries: Carries::Encoding(outgoing) }) = innermost() else { return Err(OUTSIDE) };
    if !ptr::eq(*arena, held.arena()) {
        return Err(FOREIGN);
    }
    let mut baggage = outgoing.take().0.unwrap_or_default();
    baggage.references.push(held.clone());
    baggage.moves.extend(moved.cloned());
    let position = baggage.references.len() as u32 - 1;
    outgoing.set(Outgoing(Some(baggage)));
    Ok(position)
}

/// Serialises a handle.
pub fn serialize<S: Serializer>(held: &Arc<Held>, serializer: S) -> Result<S::Ok, S::Error> {
    match enter(held, None) {
        Ok(position) => serializer.serialize_u32(position),
        Err(why) => Err(ser::Error::custom(why)),
    }
}

/// As [`serialize`], for a thing that has one owner: `moved` is set when its message has committed.
pub fn serialize_moving<S: Serializer>(held: &Arc<Held>, moved: &Arc<AtomicBool>, serializer: S) -> Result<S::Ok, S::Error> {
    match enter(held, Some(moved)) {
        Ok(position) => serializer.serialize_u32(position),
        Err(why) => Err(ser::Error::custom(why)),
    }
}

/// Deserialises a handle to an object of `kind` and type.
pub fn deserialize<'de, D: Deserializer<'de>>(kind: &Kind, type_hash: u64, deserializer: D) -> Result<Arc<Held>, D::Error> {
    if !matches!(innermost(), Some(Frame { carries: Carries::Decoding(_), .. })) {
        return Err(de::Error::custom(OUTSIDE));
    }
    let position = u32::deserialize(deserializer)?;
    let held = match innermost() {
        // SAFETY: the list outlives the frame, which is open.
        Some(Frame { carries: Carries::Decoding(list), .. }) => unsafe { &**list }.get(position as usize).cloned(),
        _ => None,
    };
    let held = held.ok_or_else(|| de::Error::custom("a handle's position lies outside its message's list"))?;
    match held.is(kind, type_hash) {
        Ok(true) => Ok(held),
        Ok(false) => Err(de::Error::custom(format_args!("the handle is not a {} of this type", kind.name))),
        Err(e) => Err(de::Error::custom(e)),
    }
}
