//! What a child shall do: two addresses and the encoded arguments, in one block of the arena.
//!
//! The addresses are that of the generic `run::<A, R>` (decode, call, encode) and of the user's function, as offsets into the image. Both are
//! checked to lie in the program's code, by the parent before it starts the child and by the child before it jumps; and they are sealed, so that a word that a peer
//! has written over is no jump into the middle of a function.
#![allow(unsafe_code)]

use crate::args::{Args, Run};
use crate::error::{Error, Kind};
use multiproc_channel::{Bincode, Buffer, CodecError, Message, message};
use multiproc_shm::Arena;
use multiproc_shm::scope::{Outgoing, References};
use multiproc_sys::{image, seal};
use serde::{Deserialize, Serialize};

/// The part of a job that does not depend on types.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    run: usize,
    function: usize,
    /// Of all addresses here.
    seal: u64,
    /// Functions given to [`crate::worker_init`], in order.
    pub(crate) worker_inits: Vec<usize>,
    /// Whether the parent asks for a backtrace in panics is decided by the child's own environment.
    pub(crate) name: String,
    /// What every child of this process is given, encoded; the first so many references are its own.
    pub(crate) given: Vec<u8>,
    pub(crate) given_references: usize,
}

impl Job {
    /// All that the child will jump to.
    pub(crate) fn addresses(&self) -> (usize, usize, Vec<usize>) {
        (self.run, self.function, self.worker_inits.clone())
    }

    fn true_seal(&self) -> u64 {
        let inits = self.worker_inits.iter().map(|&init| init as u64);
        let words: Vec<u64> = [self.run as u64, self.function as u64].into_iter().chain(inits).collect();
        seal::of(&words)
    }
}

/// What the child's code gets: the arena, the encoded arguments, their references, and the user's function.
pub(crate) struct Call<'a> {
    arena: &'static Arena,
    args: &'a [u8],
    references: References,
    function: *const (),
}

/// An encoded return value.
pub(crate) type Returned = Result<(Vec<u8>, Outgoing), Failed>;

/// Why there is none, though nothing panicked.
#[derive(Debug)]
pub(crate) enum Failed {
    Arguments(CodecError),
    Result(CodecError),
}

type RunFn = fn(Call<'_>) -> Returned;

fn run_function<A: Args, R: Message>(call: Call<'_>) -> Returned {
    // SAFETY: the parent took both addresses from the same call with the same types, in the same file.
    let function = unsafe { A::at::<R>(call.function) };
    let args: A = message::decode::<A, Bincode>(call.arena, call.args, &call.references).map_err(Failed::Arguments)?;
    // From here on the arguments alone hold what they hold: who drops a sender in the middle of the function has dropped it.
    drop(call.references);
    let value = A::call(function, args);
    let mut bytes = Buffer::new();
    let outgoing = message::encode::<R, Bincode>(call.arena, &value, &mut bytes).map_err(Failed::Result)?;
    Ok((bytes.into_vec(), outgoing))
}

fn run_struct<T: Run>(call: Call<'_>) -> Returned {
    let task: T = message::decode::<T, Bincode>(call.arena, call.args, &call.references).map_err(Failed::Arguments)?;
    drop(call.references);
    let value = task.run();
    let mut bytes = Buffer::new();
    let outgoing = message::encode::<T::Output, Bincode>(call.arena, &value, &mut bytes).map_err(Failed::Result)?;
    Ok((bytes.into_vec(), outgoing))
}

/// A job with its encoded arguments, ready to be put into the arena.
pub(crate) struct Prepared {
    pub(crate) payload: Vec<u8>,
    given: Outgoing,
    outgoing: Outgoing,
}

impl Prepared {
    /// The references of the record: those of what is given to every child, then the arguments'.
    pub(crate) fn references(&self) -> References {
        [&self.given, &self.outgoing].into_iter().flat_map(|outgoing| outgoing.references().iter().cloned()).collect()
    }

    /// The child has been started: what moves is its own.
    pub(crate) fn gone(&self) {
        self.outgoing.gone();
    }
}

fn offset_of(address: *const ()) -> Result<usize, Error> {
    let offset = image::main_program().offset_of(address as usize);
    offset.ok_or_else(|| Error::new(Kind::NotMainProgram, "the function to run is not part of the main program's code"))
}

fn prepare<T: Message>(
    arena: &'static Arena,
    run: RunFn,
    function: Option<*const ()>,
    name: &str,
    args: &T,
) -> Result<Prepared, Error> {
    #[cfg(feature = "tracing-bridge")]
    let (given_bytes, given) = crate::bridge::for_child(arena)?;
    #[cfg(not(feature = "tracing-bridge"))]
    let (given_bytes, given) = (Vec::new(), Outgoing::default());
    let mut job = Job {
        run: offset_of(run as *const ())?,
        function: function.map_or(Ok(0), offset_of)?,
        seal: 0,
        worker_inits: crate::worker::inits(),
        name: name.to_owned(),
        given: given_bytes,
        given_references: given.references().len(),
    };
    job.seal = job.true_seal();
    let mut payload = Buffer::new();
    message::encode::<Job, Bincode>(arena, &job, &mut payload).map_err(|e| Error::because(Kind::Codec, "the job", e))?;
    let args_at = payload.len() as u64;
    let outgoing = message::encode::<T, Bincode>(arena, args, &mut payload)
        .map_err(|e| Error::because(Kind::Codec, "the arguments cannot travel", e))?;
    let mut payload = payload.into_vec();
    payload.extend_from_slice(&args_at.to_le_bytes());
    Ok(Prepared { payload, given, outgoing })
}

/// The job of calling `f` with `args`.
pub(crate) fn of_function<A: Args, R: Message>(
    arena: &'static Arena,
    name: &str,
    args: &A,
    f: A::Fn<R>,
) -> Result<Prepared, Error> {
    prepare(arena, run_function::<A, R>, Some(A::address(f)), name, args)
}

/// The job of running `task`.
pub(crate) fn of_struct<T: Run>(arena: &'static Arena, name: &str, task: &T) -> Result<Prepared, Error> {
    prepare(arena, run_struct::<T>, None, name, task)
}

/// A job that a child has read.
pub(crate) struct Received<'a> {
    pub(crate) job: Job,
    args: &'a [u8],
}

/// Splits a payload into the job and its arguments.
pub(crate) fn receive<'a>(arena: &'static Arena, payload: &'a [u8]) -> Option<Received<'a>> {
    let (payload, args_at) = payload.split_last_chunk::<8>()?;
    let args_at = usize::try_from(u64::from_le_bytes(*args_at)).ok()?;
    let job = message::decode::<Job, Bincode>(arena, payload.get(..args_at)?, &[]).ok()?;
    (job.seal == job.true_seal()).then_some(Received { job, args: payload.get(args_at..)? })
}

impl Received<'_> {
    /// Runs the job; `None` when its addresses are not code of this program.
    pub(crate) fn run(&self, arena: &'static Arena, references: References) -> Option<Returned> {
        let image = image::main_program();
        let run = image.address_of(self.job.run)?;
        let function = if self.job.function == 0 { 0 } else { image.address_of(self.job.function)? };
        let call = Call { arena, args: self.args, references, function: std::ptr::with_exposed_provenance(function) };
        // SAFETY: the offset is that of a `RunFn`, taken by the parent in the same file, and lies in its code.
        let run = unsafe { std::mem::transmute::<*const (), RunFn>(std::ptr::with_exposed_provenance(run)) };
        Some(run(call))
    }
}

/// Calls a function of the user that takes and returns nothing; false when the offset is not code of this program.
pub(crate) fn call_plain(offset: usize) -> bool {
    let Some(address) = image::main_program().address_of(offset) else { return false };
    // SAFETY: the offset is that of a `fn()`, taken by `worker_init` in the same file, and lies in its code.
    let f = unsafe { std::mem::transmute::<*const (), fn()>(std::ptr::with_exposed_provenance(address)) };
    f();
    true
}

/// The offset by which [`call_plain`] finds `f` in another process.
pub(crate) fn offset_of_plain(f: fn()) -> Result<usize, Error> {
    offset_of(f as *const ())
}
