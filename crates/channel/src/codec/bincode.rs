//! [`Bincode`], the default codec.
//!
//! bincode 2.0.1 is pinned (RUSTSEC-2025-0141 calls it unmaintained; complete, no fault known): everything that
//! knows it is in this file and in [`decoder`](super::decoder), which reads what it has written.

use super::decoder::Decoder;
use super::{Buffer, Codec, CodecError, EncodeRef};
use bincode::error::{DecodeError, EncodeError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The default codec: serde through bincode, integers at their fixed width, little endian.
///
/// Decoding refuses lengths that a message of its size cannot hold before it allocates for them, and bytes that are left over. A list whose elements take no
/// bytes (`Vec<()>`) is as long as its message says, which in corrupted memory may be any length: do not send one.
/// Not self-describing: `#[serde(flatten)]`, `skip_serializing_if` and untagged enums do not work with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bincode;

macro_rules! config {
    () => {
        bincode::config::standard().with_fixed_int_encoding()
    };
}

#[inline]
fn encode(value: &(impl Serialize + ?Sized), into: &mut Buffer) -> Result<(), CodecError> {
    bincode::serde::encode_into_writer(value, Append(into), config!()).map_err(not_encoded)
}

#[cold]
fn not_encoded(why: EncodeError) -> CodecError {
    CodecError::encode(why)
}

#[cold]
fn not_decoded(why: DecodeError) -> CodecError {
    CodecError::decode(why)
}

#[cold]
fn left_over(bytes: usize) -> CodecError {
    CodecError::decode(format!("{bytes} bytes are left over"))
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Bincode {
    /// The decoder copies strings and byte strings before it checks them.
    const READS_ONCE: bool = true;

    #[inline]
    fn encode(value: &T, into: &mut Buffer) -> Result<(), CodecError> {
        encode(value, into)
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        let mut decoder = Decoder::new(bytes);
        match T::deserialize(&mut decoder) {
            Ok(value) if decoder.left_over() == 0 => Ok(value),
            Ok(_) => Err(left_over(decoder.left_over())),
            Err(why) => Err(not_decoded(why)),
        }
    }
}

impl EncodeRef<str, String> for Bincode {
    fn encode_ref(value: &str, into: &mut Buffer) -> Result<(), CodecError> {
        encode(value, into)
    }
}

impl<E: Serialize + DeserializeOwned> EncodeRef<[E], Vec<E>> for Bincode {
    fn encode_ref(value: &[E], into: &mut Buffer) -> Result<(), CodecError> {
        encode(value, into)
    }
}

struct Append<'a>(&'a mut Buffer);

impl bincode::enc::write::Writer for Append<'_> {
    // Always: a call for each field of a value costs more than all the rest.
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        if self.0.fits(bytes) { Ok(()) } else { self.write_growing(bytes) }
    }
}

impl Append<'_> {
    #[cold]
    fn write_growing(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.append_growing(bytes).map_err(|_| EncodeError::Other("the message does not fit"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PlainVec;
    use std::fmt;

    fn round<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(value: T) {
        let mut bytes = Buffer::new();
        Bincode::encode(&value, &mut bytes).unwrap();
        assert_eq!(<Bincode as Codec<T>>::decode(bytes.as_slice()).unwrap(), value);
    }

    #[test]
    fn values_come_back() {
        round((1u8, "text".to_string(), vec![Some(1.5f64), None], ()));
        round(vec![0u8; 3 << 20]);
        round((PlainVec(vec![7u8; 3 << 20]), PlainVec(vec![0.5f64, -1.0]), PlainVec::<u8>(Vec::new())));
    }

    #[test]
    fn borrowed_forms_encode_alike() {
        let encoded = |encode: &dyn Fn(&mut Buffer) -> Result<(), CodecError>| {
            let mut bytes = Buffer::new();
            encode(&mut bytes).unwrap();
            bytes.into_vec()
        };
        let (text, list) = ("text".to_string(), vec![(1u8, 2.5f64), (3, 4.0)]);
        assert_eq!(encoded(&|b| Bincode::encode(&text, b)), encoded(&|b| Bincode::encode_ref("text", b)));
        assert_eq!(encoded(&|b| Bincode::encode(&list, b)), encoded(&|b| Bincode::encode_ref(&list[..], b)));
    }

    #[test]
    fn forged_lengths_and_leftovers_are_errors() {
        let forged = u64::MAX.to_le_bytes();
        assert!(<Bincode as Codec<Vec<u8>>>::decode(&forged).is_err());
        assert!(<Bincode as Codec<String>>::decode(&forged).is_err());
        assert!(<Bincode as Codec<Vec<u64>>>::decode(&(1u64 << 40).to_le_bytes()).is_err());
        assert!(<Bincode as Codec<u8>>::decode(&[1, 2]).is_err());
        assert!(<Bincode as Codec<u32>>::decode(&[1, 2]).is_err());
        assert!(<Bincode as Codec<bool>>::decode(&[7]).is_err());
    }
}
