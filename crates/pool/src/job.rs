//! What a task does, as the worker finds it: the generic part, which knows the types, and the user's function, each by its place in the program's file.
//!
//! As for a process ([`multiproc_process::args`]): the sender checks that both addresses are the main program's code and seals them, and the worker checks both before it
//! jumps.
#![allow(unsafe_code)]

use crate::error::{PoolError, PoolErrorKind};
use crate::panics::Panic;
use crate::run::{Failed, Run};
use crate::wire::TaskHead;
use multiproc_channel::{Bincode, Buffer, Message, message};
use multiproc_process::Args;
use multiproc_shm::Arena;
use multiproc_sys::{image, seal};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The generic part of a task.
type RunFn = fn(&Run<'_>);

/// The two addresses of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    run: u64,
    function: u64,
}

pub(crate) fn offset_of(address: *const ()) -> Result<u64, PoolError> {
    let offset = image::main_program().offset_of(address as usize);
    offset
        .map(|offset| offset as u64)
        .ok_or_else(|| PoolError::new(PoolErrorKind::Invalid, "the function to run is not part of the main program's code"))
}

pub(crate) fn address_of(offset: u64) -> Option<*const ()> {
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

    /// Calls `f` with each element of a `Vec<T>`: with all of them, or up to the first that fails; its value is a [`Chunk`].
    pub(crate) fn chunk<T: Message, R: Message>(f: fn(T) -> R, upon: OnFailure) -> Result<Job, PoolError> {
        let run = match upon {
            OnFailure::Stop => run_chunk::<T, R, false>,
            OnFailure::GoOn => run_chunk::<T, R, true>,
        };
        Job::new(run, f as *const ())
    }

    /// As [`chunk`](Job::chunk), with a context.
    pub(crate) fn chunk_with<C: Message + Send + Sync, T: Message, R: Message>(
        f: fn(&C, T) -> R,
        upon: OnFailure,
    ) -> Result<Job, PoolError> {
        let run = match upon {
            OnFailure::Stop => run_chunk_with::<C, T, R, false>,
            OnFailure::GoOn => run_chunk_with::<C, T, R, true>,
        };
        Job::new(run, f as *const ())
    }

    /// As [`chunk_with`](Job::chunk_with), with the context among the arguments.
    pub(crate) fn chunk_carrying<C: Message, T: Message, R: Message>(
        f: fn(&C, T) -> R,
        upon: OnFailure,
    ) -> Result<Job, PoolError> {
        let run = match upon {
            OnFailure::Stop => run_chunk_carrying::<C, T, R, false>,
            OnFailure::GoOn => run_chunk_carrying::<C, T, R, true>,
        };
        Job::new(run, f as *const ())
    }

    /// Calls `f` with one element and a context.
    pub(crate) fn call_with<C: Message + Send + Sync, T: Message, R: Message>(f: fn(&C, T) -> R) -> Result<Job, PoolError> {
        Job::new(run_call_with::<C, T, R>, f as *const ())
    }

    /// As [`call_with`](Job::call_with), with the context among the arguments.
    pub(crate) fn call_carrying<C: Message, T: Message, R: Message>(f: fn(&C, T) -> R) -> Result<Job, PoolError> {
        Job::new(run_call_carrying::<C, T, R>, f as *const ())
    }

    fn seal(self) -> u64 {
        seal::of(&[self.run, self.function])
    }

    pub(crate) fn head(self) -> TaskHead {
        TaskHead { id: 0, run: self.run, function: self.function, seal: self.seal(), context: 0, tries: 0, span: 0 }
    }
}

/// Runs a task that a worker has taken; false when its addresses are not what some process of this tree has sent.
pub(crate) fn run(run: &Run<'_>) -> bool {
    let &TaskHead { run: at, function, seal, .. } = run.head();
    if (Job { run: at, function }).seal() != seal {
        return false;
    }
    let (Some(generic), Some(_)) = (address_of(at), address_of(function)) else { return false };
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
    run_one(run, || A::call(f, args));
}

fn run_one<R: Message>(run: &Run<'_>, call: impl FnOnce() -> R) {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => run.tell_value(&value),
        Err(panic) => run.fail(Failed::Panicked(Panic::taken(&*panic))),
    }
}

fn run_call_with<C: Message + Send + Sync, T: Message, R: Message>(run: &Run<'_>) {
    // SAFETY: the address was taken from an `fn(&C, T) -> R` where this function was instantiated.
    let f = unsafe { std::mem::transmute::<*const (), fn(&C, T) -> R>(function(run)) };
    let Some(context) = run.context::<C>() else { return };
    let Some((element,)) = run.arguments::<(T,)>() else { return };
    run_one(run, || f(&context, element));
}

fn run_call_carrying<C: Message, T: Message, R: Message>(run: &Run<'_>) {
    // SAFETY: the address was taken from an `fn(&C, T) -> R` where this function was instantiated.
    let f = unsafe { std::mem::transmute::<*const (), fn(&C, T) -> R>(function(run)) };
    let Some((context, element)) = run.arguments::<(C, T)>() else { return };
    run_one(run, || f(&context, element));
}

/// What a part of a `map` does when an element panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    Stop,
    /// The element will be tried again, by itself.
    GoOn,
}

/// What became of a part of a `map`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Chunk<T, R> {
    /// Of the elements that have one, in order.
    pub(crate) values: Vec<R>,
    /// In order.
    pub(crate) failed: Vec<Lost<T>>,
}

/// An element that panicked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Lost<T> {
    /// Its place in the chunk.
    pub(crate) at: usize,
    pub(crate) panic: Panic,
    /// As it was, for another attempt; `None` where there is none, and if it does not decode a second time.
    pub(crate) element: Option<T>,
}

impl<T, R> Chunk<T, R> {
    /// How many elements are settled by it.
    pub(crate) fn len(&self) -> usize {
        self.values.len() + self.failed.len()
    }
}

/// Calls `call` with each of `elements`, until it shall stop: up to the first that fails, or with `again`, by which the elements are had once more, all of them.
pub(crate) fn each<T, R>(
    elements: Vec<T>,
    again: Option<&dyn Fn() -> Option<Vec<T>>>,
    shall_stop: impl Fn() -> bool,
    call: impl Fn(T) -> R,
) -> Chunk<T, R> {
    let mut chunk = Chunk { values: Vec::with_capacity(elements.len()), failed: Vec::new() };
    let mut elements = elements.into_iter();
    loop {
        let done = catch_unwind(AssertUnwindSafe(|| {
            let _ = elements.try_for_each(|element| {
                if shall_stop() {
                    return ControlFlow::Break(());
                }
                chunk.values.push(call(element));
                ControlFlow::Continue(())
            });
        }));
        let Err(panic) = done else { break };
        chunk.failed.push(Lost { at: chunk.len(), panic: Panic::taken(&*panic), element: None });
        if again.is_none() {
            break;
        }
    }
    if let Some(again) = again
        && !chunk.failed.is_empty()
        && let Some(elements) = again()
    {
        let mut elements = elements.into_iter();
        let mut next = 0;
        for lost in &mut chunk.failed {
            lost.element = elements.nth(lost.at - next);
            next = lost.at + 1;
        }
    }
    chunk
}

fn run_elements<A: Message, T: Message, R: Message, const ON: bool>(
    run: &Run<'_>,
    elements: Vec<T>,
    take: fn(A) -> Vec<T>,
    call: impl Fn(T) -> R,
) {
    let again = || run.decode::<A>().ok().map(take);
    let again: Option<&dyn Fn() -> Option<Vec<T>>> = if ON { Some(&again) } else { None };
    run.tell_value(&each(elements, again, || run.shall_stop(), call));
}

fn run_chunk<T: Message, R: Message, const ON: bool>(run: &Run<'_>) {
    // SAFETY: the address was taken from an `fn(T) -> R` where this function was instantiated.
    let f = unsafe { std::mem::transmute::<*const (), fn(T) -> R>(function(run)) };
    let Some((elements,)) = run.arguments::<(Vec<T>,)>() else { return };
    run_elements::<(Vec<T>,), T, R, ON>(run, elements, |(elements,)| elements, f);
}

fn run_chunk_with<C: Message + Send + Sync, T: Message, R: Message, const ON: bool>(run: &Run<'_>) {
    // SAFETY: the address was taken from an `fn(&C, T) -> R` where this function was instantiated.
    let f = unsafe { std::mem::transmute::<*const (), fn(&C, T) -> R>(function(run)) };
    let Some(context) = run.context::<C>() else { return };
    let Some((elements,)) = run.arguments::<(Vec<T>,)>() else { return };
    run_elements::<(Vec<T>,), T, R, ON>(run, elements, |(elements,)| elements, |element| f(&context, element));
}

fn run_chunk_carrying<C: Message, T: Message, R: Message, const ON: bool>(run: &Run<'_>) {
    // SAFETY: the address was taken from an `fn(&C, T) -> R` where this function was instantiated.
    let f = unsafe { std::mem::transmute::<*const (), fn(&C, T) -> R>(function(run)) };
    let Some((context, elements)) = run.arguments::<(C, Vec<T>)>() else { return };
    run_elements::<(C, Vec<T>), T, R, ON>(run, elements, |(_, elements)| elements, |element| f(&context, element));
}

/// A context on its way: encoded once by the pool, decoded once by each worker.
pub(crate) fn encode_context<C: Message>(arena: &'static Arena, context: &C) -> Result<Encoded, PoolError> {
    let mut bytes = Buffer::new();
    let outgoing = message::encode::<C, Bincode>(arena, context, &mut bytes)
        .map_err(|e| PoolError::because(PoolErrorKind::Codec, "the context cannot travel", e))?;
    Ok(Encoded { bytes: bytes.into_vec(), references: outgoing.references().to_vec() })
}

impl Encoded {
    pub(crate) fn decode<C: Message>(&self, arena: &'static Arena) -> Result<C, PoolError> {
        message::decode::<C, Bincode>(arena, &self.bytes, &self.references)
            .map_err(|e| PoolError::because(PoolErrorKind::Codec, "the context cannot travel", e))
    }
}

/// Bytes with their references, to be sent any number of times.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) references: multiproc_shm::scope::References,
}
