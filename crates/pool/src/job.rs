//! What a task does, as the worker finds it: the generic part, which knows the types, and the user's function, each by its place in the program's file.
//!
//! As for a process ([`multiproc_process::args`]): the sender checks that both addresses are the main program's code, and so does the worker before it jumps.
#![allow(unsafe_code)]

use crate::error::{PoolError, PoolErrorKind};
use crate::panics::Panic;
use crate::wire::{TaskHead, Tell};
use crate::worker::Run;
use multiproc_channel::{Bincode, Buffer, Message, message};
use multiproc_process::Args;
use multiproc_shm::Arena;
use multiproc_sys::image;
use serde::de::{self, Deserializer};
use serde::ser::{self, Serializer};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The generic part of a task.
type RunFn = fn(&Run<'_>);

/// The two addresses of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    run: u64,
    function: u64,
}

fn offset_of(address: *const ()) -> Result<u64, PoolError> {
    let offset = image::main_program().offset_of(address as usize);
    offset
        .map(|offset| offset as u64)
        .ok_or_else(|| PoolError::new(PoolErrorKind::Invalid, "the function to run is not part of the main program's code"))
}

fn address_of(offset: u64) -> Option<*const ()> {
    image::main_program().address_of(usize::try_from(offset).ok()?).map(std::ptr::with_exposed_provenance)
}

impl Job {
    fn new(run: RunFn, function: *const ()) -> Result<Job, PoolError> {
        Ok(Job { run: offset_of(run as *const ())?, function: offset_of(function)? })
    }

    /// Calls `f` with a tuple of arguments.
    pub(crate) fn call<A: Args, R: Message>(f: A::Fn<R>) -> Result<Job, PoolError> {
        Job::new(run_call::<A, R>, A::address(f))
    }

    /// Calls `f` with each element of a `Vec<T>`, up to the first that fails; its value is a [`Chunk`].
    pub(crate) fn chunk<T: Message, R: Message>(f: fn(T) -> R) -> Result<Job, PoolError> {
        Job::new(run_chunk::<T, R>, f as *const ())
    }

    /// As [`chunk`](Job::chunk), with a context.
    pub(crate) fn chunk_with<C: Message + Send + Sync, T: Message, R: Message>(f: fn(&C, T) -> R) -> Result<Job, PoolError> {
        Job::new(run_chunk_with::<C, T, R>, f as *const ())
    }

    pub(crate) fn head(self) -> TaskHead {
        TaskHead { id: 0, run: self.run, function: self.function, context: 0, tries: 0 }
    }
}

/// Runs a task that a worker has taken; false when its addresses are not code of this program.
pub(crate) fn run(run: &Run<'_>) -> bool {
    let (Some(generic), Some(_)) = (address_of(run.head().run), address_of(run.head().function)) else { return false };
    // SAFETY: the offset is that of a `RunFn`, taken by the sender in the same file, and lies in its code.
    let generic = unsafe { std::mem::transmute::<*const (), RunFn>(generic) };
    generic(run);
    true
}

/// The user's function, whose offset has been checked.
fn function(run: &Run<'_>) -> *const () {
    address_of(run.head().function).expect("looked up before")
}

fn run_call<A: Args, R: Message>(run: &Run<'_>) {
    // SAFETY: the sender took both addresses from the same call with the same types, in the same file.
    let f = unsafe { A::at::<R>(function(run)) };
    let Some(args) = run.arguments::<A>() else { return };
    match catch_unwind(AssertUnwindSafe(|| A::call(f, args))) {
        Ok(value) => run.tell_value(&value),
        Err(panic) => run.tell(Tell::Panicked, &Panic::taken(&*panic)),
    }
}

/// What became of a part of a `map`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Chunk<R> {
    /// Of the elements from the first on.
    pub(crate) values: Vec<R>,
    /// The next one's.
    pub(crate) panic: Option<Panic>,
}

fn run_elements<T: Message, R: Message>(run: &Run<'_>, call: impl Fn(T) -> R) {
    let Some(elements) = run.arguments::<Vec<T>>() else { return };
    let mut chunk = Chunk { values: Vec::with_capacity(elements.len()), panic: None };
    let mut elements = elements.into_iter();
    let done = catch_unwind(AssertUnwindSafe(|| {
        let _ = elements.try_for_each(|element| {
            if run.shall_stop() {
                return ControlFlow::Break(());
            }
            chunk.values.push(call(element));
            ControlFlow::Continue(())
        });
    }));
    chunk.panic = done.err().map(|panic| Panic::taken(&*panic));
    run.tell_value(&chunk);
}

fn run_chunk<T: Message, R: Message>(run: &Run<'_>) {
    // SAFETY: the address was taken from an `fn(T) -> R` where this function was instantiated.
    let f = unsafe { std::mem::transmute::<*const (), fn(T) -> R>(function(run)) };
    run_elements(run, f);
}

fn run_chunk_with<C: Message + Send + Sync, T: Message, R: Message>(run: &Run<'_>) {
    // SAFETY: the address was taken from an `fn(&C, T) -> R` where this function was instantiated.
    let f = unsafe { std::mem::transmute::<*const (), fn(&C, T) -> R>(function(run)) };
    let Some(context) = run.context::<C>() else { return };
    run_elements(run, |element| f(&context, element));
}

/// What each worker does first: a function with its arguments, which are encoded anew for each worker.
#[derive(Clone)]
pub(crate) struct Initializer {
    run: u64,
    function: u64,
    side: Side,
}

#[derive(Clone)]
enum Side {
    /// In the pool.
    Sends(Arc<EncodeInto>),
    /// In the worker: decoded.
    Runs(Arc<dyn Fn() + Send + Sync>),
}

type EncodeInto = dyn Fn(&'static Arena) -> Result<Vec<u8>, String> + Send + Sync;
type DecodeFn = fn(*const (), &[u8]) -> Result<Arc<dyn Fn() + Send + Sync>, String>;

fn decode_initializer<A: Args + Clone + Send + Sync>(
    function: *const (),
    bytes: &[u8],
) -> Result<Arc<dyn Fn() + Send + Sync>, String> {
    // SAFETY: the sender took both addresses from the same call with the same types, in the same file.
    let f = unsafe { A::at::<()>(function) };
    let args = <Bincode as multiproc_channel::Codec<A>>::decode(bytes).map_err(|e| e.to_string())?;
    Ok(Arc::new(move || A::call(f, args.clone())))
}

impl Initializer {
    pub(crate) fn new<A: Args + Clone + Send + Sync>(args: A, f: A::Fn<()>) -> Result<Initializer, PoolError> {
        let decode: DecodeFn = decode_initializer::<A>;
        let encode = move |_: &'static Arena| {
            let mut bytes = Buffer::new();
            // The scope that is open is that of the worker's own arguments, so handles travel with those.
            <Bincode as multiproc_channel::Codec<A>>::encode(&args, &mut bytes).map_err(|e| e.to_string())?;
            Ok(bytes.into_vec())
        };
        Ok(Initializer {
            run: offset_of(decode as *const ())?,
            function: offset_of(A::address(f))?,
            side: Side::Sends(Arc::new(encode)),
        })
    }

    pub(crate) fn run(&self) {
        if let Side::Runs(run) = &self.side {
            run();
        }
    }
}

impl fmt::Debug for Initializer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initializer").finish_non_exhaustive()
    }
}

impl Serialize for Initializer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Side::Sends(encode) = &self.side else { return Err(ser::Error::custom("an initializer has arrived")) };
        let arena = Arena::of_the_tree().map_err(ser::Error::custom)?;
        let bytes = encode(arena).map_err(ser::Error::custom)?;
        (self.run, self.function, bytes).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Initializer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Initializer, D::Error> {
        let (run, function, bytes) = <(u64, u64, Vec<u8>)>::deserialize(deserializer)?;
        let (Some(decode), Some(f)) = (address_of(run), address_of(function)) else {
            return Err(de::Error::custom("the initializer is not part of this program's code"));
        };
        // SAFETY: the offset is that of a `DecodeFn`, taken by the pool in the same file, and lies in its code.
        let decode = unsafe { std::mem::transmute::<*const (), DecodeFn>(decode) };
        let side = Side::Runs(decode(f, &bytes).map_err(de::Error::custom)?);
        Ok(Initializer { run, function, side })
    }
}

/// A context on its way: encoded once by the pool, decoded once by each worker.
pub(crate) fn encode_context<C: Message>(arena: &'static Arena, context: &C) -> Result<Encoded, PoolError> {
    let mut bytes = Buffer::new();
    let outgoing = message::encode::<C, Bincode>(arena, context, &mut bytes)
        .map_err(|e| PoolError::because(PoolErrorKind::Codec, "the context cannot travel", e))?;
    Ok(Encoded { bytes: bytes.into_vec(), references: outgoing.references().to_vec(), _outgoing: PhantomData })
}

/// Bytes with their references, to be sent any number of times.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) references: multiproc_shm::scope::References,
    _outgoing: PhantomData<()>,
}
