//! What may travel, and the two steps every message goes through: encode with its references, decode with them.

use crate::codec::{Codec, CodecError};
use multiproc_shm::scope::{self, Outgoing};
use multiproc_shm::{Arena, Held};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// What can travel to another process: arguments, results, messages. Implemented for every type that owns its data and derives serde's traits.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel to another process",
    label = "not a message type",
    note = "messages, arguments and results need `#[derive(Serialize, Deserialize)]` and must own their data (`String`, not `&str`)"
)]
pub trait Message: Serialize + DeserializeOwned + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + 'static> Message for T {}

/// Encodes `value` behind what `into` holds, and collects the handles in it.
#[inline]
pub fn encode<T, C: Codec<T>>(arena: &'static Arena, value: &T, into: &mut Vec<u8>) -> Result<Outgoing, CodecError> {
    let (done, outgoing) = scope::encoding(arena, || C::encode(value, into));
    done.map(|()| outgoing)
}

/// Decodes `bytes`; handles in them take from `references`.
#[inline]
pub fn decode<T, C: Codec<T>>(arena: &'static Arena, bytes: &[u8], references: &[Arc<Held>]) -> Result<T, CodecError> {
    scope::decoding(arena, references, || C::decode(bytes))
}
