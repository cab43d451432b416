//! What each worker does before its first task: a function with its arguments, which are encoded anew for each worker.
#![allow(unsafe_code)]

use crate::error::PoolError;
use crate::job::{address_of, offset_of};
use multiproc_channel::{Bincode, Buffer, Codec};
use multiproc_process::Args;
use multiproc_sys::seal;
use serde::de::{self, Deserializer};
use serde::ser::{self, Serializer};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// See the module. Serialises what its arguments are encoded to; handles among them travel with the message that it is part of.
#[derive(Clone)]
pub(crate) struct Initializer {
    decode: u64,
    function: u64,
    /// Encodes the arguments; `None` in a worker.
    encode: Option<Arc<Encode>>,
    run: Arc<Run>,
}

type Encode = dyn Fn() -> Result<Vec<u8>, String> + Send + Sync;
type Run = dyn Fn() + Send + Sync;
type DecodeFn = fn(*const (), &[u8]) -> Result<Arc<Run>, String>;

fn decode<A: Args + Clone + Send + Sync>(function: *const (), bytes: &[u8]) -> Result<Arc<Run>, String> {
    // SAFETY: the sender took both addresses from the same call with the same types, in the same file.
    let f = unsafe { A::at::<()>(function) };
    let args = <Bincode as Codec<A>>::decode(bytes).map_err(|e| e.to_string())?;
    Ok(Arc::new(move || A::call(f, args.clone())))
}

impl Initializer {
    pub(crate) fn new<A: Args + Clone + Send + Sync>(args: A, f: A::Fn<()>) -> Result<Initializer, PoolError> {
        let decode: DecodeFn = decode::<A>;
        let kept = args.clone();
        let encode = move || {
            let mut bytes = Buffer::new();
            // The scope that is open is that of the message.
            <Bincode as Codec<A>>::encode(&kept, &mut bytes).map_err(|e| e.to_string())?;
            Ok(bytes.into_vec())
        };
        Ok(Initializer {
            decode: offset_of(decode as *const ())?,
            function: offset_of(A::address(f))?,
            encode: Some(Arc::new(encode)),
            run: Arc::new(move || A::call(f, args.clone())),
        })
    }

    pub(crate) fn run(&self) {
        (self.run)();
    }
}

impl fmt::Debug for Initializer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initializer").finish_non_exhaustive()
    }
}

impl Serialize for Initializer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(encode) = &self.encode else { return Err(ser::Error::custom("an initializer has arrived")) };
        let seal = seal::of(&[self.decode, self.function]);
        (self.decode, self.function, seal, encode().map_err(ser::Error::custom)?).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Initializer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Initializer, D::Error> {
        let (decode, function, seal, bytes) = <(u64, u64, u64, Vec<u8>)>::deserialize(deserializer)?;
        if seal != seal::of(&[decode, function]) {
            return Err(de::Error::custom("the initializer is not what was sent"));
        }
        let (Some(decoder), Some(f)) = (address_of(decode), address_of(function)) else {
            return Err(de::Error::custom("the initializer is not part of this program's code"));
        };
        // SAFETY: the offset is that of a `DecodeFn`, taken by the pool in the same file, and lies in its code.
        let decoder = unsafe { std::mem::transmute::<*const (), DecodeFn>(decoder) };
        let run = decoder(f, &bytes).map_err(de::Error::custom)?;
        Ok(Initializer { decode, function, encode: None, run })
    }
}
