//! How handles go through serde.
//!
//! While a message is encoded or decoded, a scope stands open on this thread. A handle serialises as its position in the scope's list
//! of references, and nothing is counted until the whole message has been encoded; when decoding, it takes what stands
//! at its position and checks kind and type. Without a scope (serde_json, a file) it is an error.
//!
//! Scopes nest (a `Serialize` that puts into another queue), the innermost counts, and they close when unwinding.
#![allow(unsafe_code)]

use crate::arena::Arena;
use crate::held::{Held, is_lent};
use crate::objects::Kind;
use multiproc_sys::robust;
use serde::{Deserialize, Deserializer, Serializer, de, ser};
use std::cell::Cell;
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const OUTSIDE: &str = "a multiproc handle can only be sent through multiproc's own queues, arguments and results";
const FOREIGN: &str = "the handle belongs to another process tree";
const MOVED: &str = "it has one owner and has been sent already, or is in another message that is being sent";

pub use crate::held::returning;

/// What one message carries, in the order of its positions.
pub type References = Vec<Arc<Held>>;

/// An encoded message's references, and what is to be told when it has gone out. One word, empty for the usual message without any.
#[derive(Debug, Default)]
pub struct Outgoing(Option<Box<Baggage>>);

impl Drop for Outgoing {
    #[inline]
    fn drop(&mut self) {
        if let Some(baggage) = self.0.take() {
            put_down(baggage);
        }
    }
}

#[cold]
fn put_down(baggage: Box<Baggage>) {
    drop(baggage);
}

#[derive(Debug, Default)]
struct Baggage {
    references: References,
    /// What has one owner and moves with the message.
    moves: Vec<Leaving>,
    /// The message has committed.
    gone: Cell<bool>,
}

impl Drop for Baggage {
    fn drop(&mut self) {
        if self.gone.get() {
            returning(|| self.references.clear());
        }
    }
}

/// A reference with one owner: it moves with the message that carries it, and `let_go` is called where it is dropped.
///
/// While a message with it is under way, the message's [`Outgoing`] is an owner as well: the value may be dropped before the message commits.
pub struct Movable {
    /// `None`: it has gone with a message.
    held: Mutex<Option<Arc<Held>>>,
    leaving: AtomicBool,
    let_go: fn(&Held),
    life: u32,
}

impl Movable {
    /// Owned by this process.
    pub fn new(held: Arc<Held>, let_go: fn(&Held)) -> Arc<Movable> {
        Arc::new(Movable { held: Mutex::new(Some(held)), leaving: AtomicBool::new(false), let_go, life: robust::life() })
    }

    /// The reference, unless it has gone with a message, or is that of the process that forked this one.
    pub fn held(&self) -> Option<Arc<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|_| robust::life() == self.life)
    }
}

impl Drop for Movable {
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(held) = held.filter(|_| robust::life() == self.life && !is_lent()) {
            (self.let_go)(&held);
        }
    }
}

impl fmt::Debug for Movable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Movable").field("held", &self.held()).finish_non_exhaustive()
    }
}

/// A movable thing's place in a message that is being sent; a message that is not sent after all leaves it where it was.
#[derive(Debug)]
struct Leaving(Arc<Movable>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.leaving.store(false, Ordering::Release);
    }
}

impl Outgoing {
    /// Whether the message carries no reference.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The references, by position. They hold the objects until the message has committed.
    #[inline]
    pub fn references(&self) -> &[Arc<Held>] {
        self.0.as_ref().map_or(&[], |b| &b.references)
    }

    /// The message has committed: what moves with it belongs to the receiver.
    #[inline]
    pub fn gone(&self) {
        let Some(baggage) = &self.0 else { return };
        for Leaving(movable) in &baggage.moves {
            // The list of references still holds it.
            drop(movable.held.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        baggage.gone.set(true);
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
    #[inline]
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
fn enter(held: &Arc<Held>, leaving: Option<Leaving>) -> Result<u32, &'static str> {
    let Some(Frame { arena, carries: Carries::Encoding(outgoing) }) = innermost() else { return Err(OUTSIDE) };
    if !ptr::eq(*arena, held.arena()) {
        return Err(FOREIGN);
    }
    let mut baggage = outgoing.take().0.take().unwrap_or_default();
    baggage.references.push(held.clone());
    baggage.moves.extend(leaving);
    let position = baggage.references.len() as u32 - 1;
    outgoing.set(Outgoing(Some(baggage)));
    Ok(position)
}

/// Enters the references of a message that is passed on as it came, encoded; to be called before anything else is encoded, since the bytes name
/// their positions.
pub fn pass_on(references: &[Arc<Held>]) -> Result<(), &'static str> {
    references.iter().try_for_each(|held| enter(held, None).map(drop))
}

/// Serialises a handle.
pub fn serialize<S: Serializer>(held: &Arc<Held>, serializer: S) -> Result<S::Ok, S::Error> {
    match enter(held, None) {
        Ok(position) => serializer.serialize_u32(position),
        Err(why) => Err(ser::Error::custom(why)),
    }
}

/// As [`serialize`], for a thing that has one owner: it is gone when its message has committed.
pub fn serialize_moving<S: Serializer>(movable: &Arc<Movable>, serializer: S) -> Result<S::Ok, S::Error> {
    let position = match movable.leaving.swap(true, Ordering::Acquire) {
        true => Err(MOVED),
        false => {
            let leaving = Leaving(movable.clone());
            movable.held().ok_or(MOVED).and_then(|held| enter(&held, Some(leaving)))
        }
    };
    match position {
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
