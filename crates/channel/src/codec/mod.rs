//! How values become bytes: the open [`Codec`] trait, where it writes (`buffer`), and the codecs that come with it.

mod bincode;
mod buffer;
mod plain;
mod plain_vec;
#[cfg(feature = "postcard")]
mod postcard;
mod raw;

pub use self::bincode::Bincode;
#[cfg(feature = "postcard")]
pub use self::postcard::Postcard;
pub use buffer::Buffer;
pub(crate) use buffer::BufferFailed;
pub use plain::Plain;
pub use plain_vec::PlainVec;
pub use raw::Raw;

use std::error::Error as StdError;
use std::fmt;

/// A way to turn values of type `T` into bytes and back.
///
/// Both ends of a queue agree on it by type. Handles inside a value are serialised by serde; a codec that does not go through
/// serde cannot carry them.
///
/// # Examples
/// ```
/// use multiproc_channel::{Buffer, Codec, CodecError};
///
/// /// Plain UTF-8, without a length.
/// #[derive(Debug)]
/// struct Text;
/// impl Codec<String> for Text {
///     fn encode(value: &String, into: &mut Buffer) -> Result<(), CodecError> {
///         into.append(value.as_bytes())
///     }
///     fn decode(bytes: &[u8]) -> Result<String, CodecError> {
///         String::from_utf8(bytes.to_vec()).map_err(CodecError::decode)
///     }
/// }
/// assert_eq!(Text::decode(b"abc")?, "abc");
/// # Ok::<(), CodecError>(())
/// ```
pub trait Codec<T>: 'static {
    /// Whether [`decode`](Codec::decode) reads each byte at most once: copies it, say, and checks the copy.
    ///
    /// A large message is then decoded where it lies, in memory that other processes could write if they broke the rules; otherwise from a private
    /// copy. `false` is always right.
    const READS_ONCE: bool = false;

    /// Appends the encoded value to `into`.
    ///
    /// # Errors
    /// The value cannot be expressed, or `into` does not take more; what was appended is then discarded.
    fn encode(value: &T, into: &mut Buffer) -> Result<(), CodecError>;

    /// Makes a value of all of `bytes`, which come from another process and are not trusted.
    ///
    /// # Errors
    /// The bytes are not an encoded `T`.
    fn decode(bytes: &[u8]) -> Result<T, CodecError>;
}

/// A codec for `T` that encodes also a borrowed form `B` of it, to the same bytes: `str` for `String`, `[u8]` for `Vec<u8>`.
///
/// Every codec does so for `T` itself. With it [`Queue::put_ref`](crate::Queue::put_ref) takes either.
pub trait EncodeRef<B: ?Sized, T>: Codec<T> {
    /// As [`Codec::encode`].
    ///
    /// # Errors
    /// As [`Codec::encode`].
    fn encode_ref(value: &B, into: &mut Buffer) -> Result<(), CodecError>;
}

impl<T, C: Codec<T>> EncodeRef<T, T> for C {
    #[inline]
    fn encode_ref(value: &T, into: &mut Buffer) -> Result<(), CodecError> {
        C::encode(value, into)
    }
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
