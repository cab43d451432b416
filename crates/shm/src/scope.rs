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
use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const OUTSIDE: &str = "a multiproc handle can only be sent through multiproc's own queues, arguments and results";
const FOREIGN: &str = "the handle belongs to another process tree";

/// What one message carries, in the order of its positions.
pub type References = Vec<Arc<Held>>;

struct Frame {
    outer: *const Frame,
    arena: &'static Arena,
    decoding: bool,
    list: RefCell<References>,
    /// Set when the message has committed: things that move with it learn that they have moved.
    moves: RefCell<Vec<Arc<AtomicBool>>>,
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

fn within<R>(frame: &Frame, body: impl FnOnce() -> R) -> R {
    let _close = Close(frame.outer);
    INNERMOST.set(frame);
    body()
}

fn innermost<R>(look: impl FnOnce(Option<&Frame>) -> R) -> R {
    // SAFETY: null, or a frame on this thread's stack whose `within` has not returned.
    look(unsafe { INNERMOST.get().as_ref() })
}

/// An encoded message's references, and what is to be told when it has gone out.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// The references, by position. They hold the objects until the message has committed.
    pub references: References,
    moves: Vec<Arc<AtomicBool>>,
}

impl Outgoing {
    /// The message has committed: what moves with its message belongs to the receiver.
    pub fn gone(&self) {
        for moved in &self.moves {
            moved.store(true, Ordering::Release);
        }
    }
}

/// Runs `encode` with an open scope and returns the references that it met.
#[inline]
pub fn encoding<R>(arena: &'static Arena, encode: impl FnOnce() -> R) -> (R, Outgoing) {
    let frame = Frame { outer: INNERMOST.get(), arena, decoding: false, list: RefCell::default(), moves: RefCell::default() };
    let r = within(&frame, encode);
    (r, Outgoing { references: frame.list.into_inner(), moves: frame.moves.into_inner() })
}

/// Runs `decode` with the references of a message at hand; those that it does not take are dropped.
#[inline]
pub fn decoding<R>(arena: &'static Arena, references: References, decode: impl FnOnce() -> R) -> R {
    let frame =
        Frame { outer: INNERMOST.get(), arena, decoding: true, list: RefCell::new(references), moves: RefCell::default() };
    within(&frame, decode)
}

/// Serialises a handle.
pub fn serialize<S: Serializer>(held: &Arc<Held>, serializer: S) -> Result<S::Ok, S::Error> {
    let position = innermost(|frame| match frame {
        Some(frame) if !frame.decoding => {
            if !ptr::eq(frame.arena, held.arena()) {
                return Err(FOREIGN);
            }
            let mut list = frame.list.borrow_mut();
            list.push(held.clone());
            Ok(list.len() as u32 - 1)
        }
        _ => Err(OUTSIDE),
    });
    match position {
        Ok(position) => serializer.serialize_u32(position),
        Err(why) => Err(ser::Error::custom(why)),
    }
}

/// As [`serialize`], for a thing that has one owner: `moved` is set when its message has committed.
pub fn serialize_moving<S: Serializer>(held: &Arc<Held>, moved: &Arc<AtomicBool>, serializer: S) -> Result<S::Ok, S::Error> {
    innermost(|frame| {
        if let Some(frame) = frame {
            frame.moves.borrow_mut().push(moved.clone());
        }
    });
    serialize(held, serializer)
}

/// Deserialises a handle to an object of `kind` and type.
pub fn deserialize<'de, D: Deserializer<'de>>(kind: &Kind, type_hash: u64, deserializer: D) -> Result<Arc<Held>, D::Error> {
    if innermost(|frame| frame.is_none_or(|f| !f.decoding)) {
        return Err(de::Error::custom(OUTSIDE));
    }
    let position = u32::deserialize(deserializer)?;
    let held = innermost(|frame| frame.and_then(|f| f.list.borrow().get(position as usize).cloned()));
    let held = held.ok_or_else(|| de::Error::custom("a handle's position lies outside its message's list"))?;
    match held.is(kind, type_hash) {
        Ok(true) => Ok(held),
        Ok(false) => Err(de::Error::custom(format_args!("the handle is not a {} of this type", kind.name))),
        Err(e) => Err(de::Error::custom(e)),
    }
}
