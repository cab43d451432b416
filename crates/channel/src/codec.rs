//! How values become bytes: the open [`Codec`] trait and the default, [`Bincode`].
//!
//! bincode 2.0.1 is pinned (RUSTSEC-2025-0141 calls it unmaintained; complete, no fault known): everything that
//! knows it is in this file.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error as StdError;
use std::fmt;

/// A way to turn values of type `T` into bytes and back.
///
/// Both ends of a queue agree on it by type. Handles inside a value are serialised by serde; a codec that does not go through
/// serde cannot carry them.
///
/// # Examples
/// ```
/// use multiproc_channel::{Codec, CodecError};
///
/// /// Plain UTF-8, without a length.
/// #[derive(Debug)]
/// struct Text;
/// impl Codec<String> for Text {
///     fn encode(value: &String, into: &mut Vec<u8>) -> Result<(), CodecError> {
///         into.extend_from_slice(value.as_bytes());
///         Ok(())
///     }
///     fn decode(bytes: &[u8]) -> Result<String, CodecError> {
///         String::from_utf8(bytes.to_vec()).map_err(CodecError::decode)
///     }
/// }
/// assert_eq!(Text::decode(b"abc")?, "abc");
/// # Ok::<(), CodecError>(())
/// ```
pub trait Codec<T>: 'static {
    /// Appends the encoded value to `into`.
    ///
    /// # Errors
    /// The value cannot be expressed; what was appended is then discarded.
    fn encode(value: &T, into: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Makes a value of all of `bytes`, which come from another process and are not trusted.
    ///
    /// # Errors
    /// The bytes are not an encoded `T`.
    fn decode(bytes: &[u8]) -> Result<T, CodecError>;
}

/// A value that could not be encoded or decoded; the cause is its `source()`.
#[derive(Debug)]
pub struct CodecError(Box<Failure>);

#[derive(Debug)]
struct Failure {
    encoding: bool,
    cause: Box<dyn StdError + Send + Sync>,
}

impl CodecError {
    /// A failure of [`Codec::encode`].
    pub fn encode(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> CodecError {
        CodecError(Box::new(Failure { encoding: true, cause: cause.into() }))
    }

    /// A failure of [`Codec::decode`].
    pub fn decode(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> CodecError {
        CodecError(Box::new(Failure { encoding: false, cause: cause.into() }))
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.0.encoding { "the value cannot be encoded" } else { "the bytes do not decode as the expected type" };
        write!(f, "{what}: {}", self.0.cause)
    }
}

impl StdError for CodecError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0.cause)
    }
}

/// The default codec: serde through bincode, integers at their fixed width, little endian.
///
/// Decoding refuses lengths that a message of its size cannot hold before it allocates for them, and bytes that are left over.
/// Not self-describing: `#[serde(flatten)]`, `skip_serializing_if` and untagged enums do not work with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bincode;

/// Bytes that a decoded message of up to [`SMALL`] bytes may claim.
const SMALL_LIMIT: usize = 1 << 20;
const SMALL: usize = 1 << 18;
/// The same for up to [`MEDIUM`] bytes.
const MEDIUM_LIMIT: usize = 1 << 28;
const MEDIUM: usize = 1 << 26;
/// The same for all larger ones.
const LARGE_LIMIT: usize = 1 << 36;

macro_rules! config {
    () => {
        bincode::config::standard().with_fixed_int_encoding()
    };
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Bincode {
    #[inline]
    fn encode(value: &T, into: &mut Vec<u8>) -> Result<(), CodecError> {
        bincode::serde::encode_into_writer(value, Append(into), config!()).map_err(CodecError::encode)
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        let decoded = if !std::mem::needs_drop::<T>() {
            // A type that owns no memory allocates for no length, and counting costs as much again as decoding.
            bincode::serde::decode_from_slice(bytes, config!())
        } else if bytes.len() <= SMALL {
            bincode::serde::decode_from_slice(bytes, config!().with_limit::<SMALL_LIMIT>())
        } else if bytes.len() <= MEDIUM {
            bincode::serde::decode_from_slice(bytes, config!().with_limit::<MEDIUM_LIMIT>())
        } else {
            bincode::serde::decode_from_slice(bytes, config!().with_limit::<LARGE_LIMIT>())
        };
        let (value, used) = decoded.map_err(CodecError::decode)?;
        if used != bytes.len() {
            return Err(CodecError::decode(format!("{} bytes are left over", bytes.len() - used)));
        }
        Ok(value)
    }
}

struct Append<'a>(&'a mut Vec<u8>);

impl bincode::enc::write::Writer for Append<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(value: T) {
        let mut bytes = Vec::new();
        Bincode::encode(&value, &mut bytes).unwrap();
        assert_eq!(<Bincode as Codec<T>>::decode(&bytes).unwrap(), value);
    }

    #[test]
    fn values_come_back() {
        round((1u8, "text".to_string(), vec![Some(1.5f64), None], ()));
        round(vec![0u8; 3 << 20]);
    }

    #[test]
    fn forged_lengths_and_leftovers_are_errors() {
        let forged = u64::MAX.to_le_bytes();
        assert!(<Bincode as Codec<Vec<u8>>>::decode(&forged).is_err());
        assert!(<Bincode as Codec<String>>::decode(&forged).is_err());
        assert!(<Bincode as Codec<Vec<u64>>>::decode(&(1u64 << 40).to_le_bytes()).is_err());
        assert!(<Bincode as Codec<u8>>::decode(&[1, 2]).is_err());
        assert!(<Bincode as Codec<bool>>::decode(&[7]).is_err());
    }
}
